//! A connection to the agent's events: plain reads from a socket, so that the process stays small.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use protocol::{LOCAL_EVENTS_PATH, LocalEvent};
use rustix::event::{PollFd, PollFlags, poll};

use crate::platform::{Layout, Seat, peer_user};

/// No event is as long, nor is the head of the agent's answer.
const LONGEST: usize = 4096;

pub struct Listening {
    stream: UnixStream,
    /// What was read and not understood yet.
    rest: Vec<u8>,
}

pub enum Heard {
    Event(LocalEvent),
    /// Another session may be before the screen now.
    SeatChanged,
    End,
}

impl Listening {
    /// # Errors
    /// When the agent is not there, or does not let this user in.
    pub fn connect(layout: &Layout) -> io::Result<Self> {
        let mut stream = UnixStream::connect(layout.socket())?;
        if layout.is_machine() && peer_user(&stream)? != 0 {
            return Err(io::Error::other("it is not the agent"));
        }
        // HTTP/1.0: the answer's end is that of the connection, and its lines come as they are.
        write!(stream, "GET {LOCAL_EVENTS_PATH} HTTP/1.0\r\n\r\n")?;
        let mut listening = Self {
            stream,
            rest: Vec::new(),
        };
        let first = listening.line()?.unwrap_or_default();
        if first.split(' ').nth(1) != Some("200") {
            return Err(io::Error::other("it lets nobody listen"));
        }
        while listening.line()?.is_some_and(|line| !line.is_empty()) {}
        Ok(listening)
    }

    /// Waits until something happens.
    pub fn next(&mut self, seat: &Seat) -> Heard {
        loop {
            match self.buffered() {
                // What a newer agent says and this one does not know is nothing to it.
                Some(line) => match serde_json::from_str(&line) {
                    Ok(event) => return Heard::Event(event),
                    Err(_) => continue,
                },
                None if self.rest.len() > LONGEST => return Heard::End,
                None => {}
            }
            let mut watched = vec![PollFd::new(&self.stream, PollFlags::IN)];
            watched.extend(seat.watch().map(|watch| PollFd::new(watch, PollFlags::IN)));
            match poll(&mut watched, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Heard::End,
            }
            let has_news = |at: usize| watched.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let (agent, seat_changed) = (has_news(0), has_news(1));
            if seat_changed {
                seat.drain();
                return Heard::SeatChanged;
            }
            if agent && !matches!(self.read(), Ok(1..)) {
                return Heard::End;
            }
        }
    }

    /// The next line; none at the end.
    fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(line) = self.buffered() {
                return Ok(Some(line));
            }
            if self.rest.len() > LONGEST {
                return Err(io::Error::other("the line is too long"));
            }
            if self.read()? == 0 {
                return Ok(None);
            }
        }
    }

    fn buffered(&mut self) -> Option<String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.rest.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut part = [0; 1024];
        let length = self.stream.read(&mut part)?;
        self.rest.extend_from_slice(&part[..length]);
        Ok(length)
    }
}
