//! The way to the agent: HTTP/1.1 over its Unix socket, one connection for each request, read on
//! threads. Nothing here knows of windows.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{
    Credentials, EnrollmentRequest, LOCAL_CHECK_IN_PATH, LOCAL_DIAGNOSTICS_PATH,
    LOCAL_ENROLLMENT_PATH, LOCAL_EVENTS_PATH, LOCAL_LATER_PATH, LOCAL_RENEWAL_PATH,
    LOCAL_STATUS_PATH, LocalEvent, LocalStatus, PutOff, RenewalStep,
};
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

/// Where the agent listens.
pub const SOCKET: &str = "/run/perennial-agent/agent.sock";

/// What is read of a head, of a line and of an answer that is read as a whole.
const HEAD_LIMIT: u64 = 16 * 1024;
const LINE_LIMIT: u64 = 64 * 1024;
const ANSWER_LIMIT: u64 = 1024 * 1024;
const DIAGNOSTICS_LIMIT: u64 = 256 * 1024 * 1024;

const QUICK: Duration = Duration::from_secs(10);
/// A site that answers slowly is the agent's to give up.
const PATIENT: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It does not run, or went away in the middle.
    #[error("the agent does not answer: {0}")]
    Away(std::io::Error),
    #[error("{reason}")]
    Refused { status: u16, reason: String },
    #[error("the agent's answer cannot be read: {0}")]
    NotUnderstood(String),
    #[error("cannot write: {0}")]
    Write(std::io::Error),
}

/// The agent behind a socket.
#[derive(Debug, Clone)]
pub struct Agent {
    socket: PathBuf,
}

impl Agent {
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    pub fn status(&self) -> Result<LocalStatus, AgentError> {
        self.whole("GET", LOCAL_STATUS_PATH)
    }

    pub fn put_off(&self) -> Result<PutOff, AgentError> {
        self.whole("POST", LOCAL_LATER_PATH)
    }

    /// Hands name and password over, once.
    pub fn renew(
        &self,
        mut credentials: Credentials,
        each: impl FnMut(RenewalStep),
    ) -> Result<(), AgentError> {
        let body = secret_json(&credentials);
        credentials.password.zeroize();
        let body = body?;
        self.lines("POST", LOCAL_RENEWAL_PATH, &body, Some(PATIENT), each)
    }

    pub fn enroll(
        &self,
        mut request: EnrollmentRequest,
        each: impl FnMut(RenewalStep),
    ) -> Result<(), AgentError> {
        let body = secret_json(&request);
        request.credentials.password.zeroize();
        let body = body?;
        self.lines("POST", LOCAL_ENROLLMENT_PATH, &body, Some(PATIENT), each)
    }

    pub fn check_in(&self, each: impl FnMut(RenewalStep)) -> Result<(), AgentError> {
        self.lines("POST", LOCAL_CHECK_IN_PATH, &[], Some(PATIENT), each)
    }

    /// As long as the agent runs. `listening` is called when it answered.
    pub fn events(
        &self,
        listening: impl FnOnce(),
        each: impl FnMut(LocalEvent),
    ) -> Result<(), AgentError> {
        let answer = self.ask("GET", LOCAL_EVENTS_PATH, &[], None)?;
        listening();
        read_lines(answer, each)
    }

    /// Writes the archive, as it comes.
    pub fn diagnostics(&self, into: &mut impl Write) -> Result<(), AgentError> {
        let path = LOCAL_DIAGNOSTICS_PATH;
        let mut answer = self
            .ask("GET", path, &[], Some(PATIENT))?
            .take(DIAGNOSTICS_LIMIT);
        let mut part = vec![0; 64 * 1024];
        loop {
            match answer.read(&mut part).map_err(AgentError::Away)? {
                0 => return into.flush().map_err(AgentError::Write),
                read => into.write_all(&part[..read]).map_err(AgentError::Write)?,
            }
        }
    }

    fn whole<T: DeserializeOwned>(&self, method: &str, path: &str) -> Result<T, AgentError> {
        let mut text = Vec::new();
        let answer = self.ask(method, path, &[], Some(QUICK))?;
        let mut answer = answer.take(ANSWER_LIMIT);
        answer.read_to_end(&mut text).map_err(AgentError::Away)?;
        serde_json::from_slice(&text).map_err(|error| AgentError::NotUnderstood(error.to_string()))
    }

    fn lines<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        patience: Option<Duration>,
        each: impl FnMut(T),
    ) -> Result<(), AgentError> {
        read_lines(self.ask(method, path, body, patience)?, each)
    }

    /// Sends a request, and reads the answer's head.
    fn ask(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        patience: Option<Duration>,
    ) -> Result<Body, AgentError> {
        let mut stream = UnixStream::connect(&self.socket).map_err(AgentError::Away)?;
        stream
            .set_read_timeout(patience)
            .map_err(AgentError::Away)?;
        stream
            .set_write_timeout(Some(QUICK))
            .map_err(AgentError::Away)?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .map_err(AgentError::Away)?;
        let mut body = read_head(BufReader::new(stream))?;
        if body.status != 200 {
            let status = body.status;
            let mut text = Vec::new();
            // Whatever of it can be read.
            let _ = body.by_ref().take(LINE_LIMIT).read_to_end(&mut text);
            let reason = reason(status, &text);
            return Err(AgentError::Refused { status, reason });
        }
        Ok(body)
    }
}

fn secret_json(value: &impl serde::Serialize) -> Result<Zeroizing<Vec<u8>>, AgentError> {
    // Large enough, so that it does not move and leave a copy.
    let mut body = Zeroizing::new(Vec::with_capacity(protocol::LOCAL_LIMIT));
    serde_json::to_writer(&mut *body, value)
        .map_err(|error| AgentError::NotUnderstood(error.to_string()))?;
    Ok(body)
}

/// The sentence of a problem, or what there is.
fn reason(status: u16, text: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(text).ok();
    let detail = problem
        .as_ref()
        .and_then(|problem| problem.get("detail")?.as_str());
    match detail {
        Some(detail) => detail.to_owned(),
        None if text.is_empty() => format!("HTTP status {status}"),
        None => String::from_utf8_lossy(text)
            .trim()
            .chars()
            .take(500)
            .collect(),
    }
}

fn read_lines<T: DeserializeOwned>(body: Body, mut each: impl FnMut(T)) -> Result<(), AgentError> {
    let mut body = BufReader::new(body);
    loop {
        let mut line = String::new();
        let mut limited = body.by_ref().take(LINE_LIMIT);
        if limited.read_line(&mut line).map_err(AgentError::Away)? == 0 {
            return Ok(());
        }
        // An empty one shows that the agent is there.
        if line.trim().is_empty() {
            continue;
        }
        // A newer agent may tell what this program does not know.
        if let Ok(value) = serde_json::from_str(&line) {
            each(value);
        }
    }
}

fn read_head(mut stream: BufReader<UnixStream>) -> Result<Body, AgentError> {
    let not_http = || AgentError::NotUnderstood("it does not speak HTTP".to_owned());
    let mut limited = stream.by_ref().take(HEAD_LIMIT);
    let mut line = String::new();
    limited.read_line(&mut line).map_err(AgentError::Away)?;
    if line.is_empty() {
        return Err(AgentError::Away(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let mut words = line.split(' ');
    let version = words.next().filter(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|word| word.trim().parse().ok());
    let (Some(_), Some(status)) = (version, status) else {
        return Err(not_http());
    };
    let mut length = Length::UntilTheEnd;
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line).map_err(AgentError::Away)? == 0 {
            return Err(not_http());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(not_http)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") && length != Length::Chunk(0) {
            length = Length::Rest(value.parse().map_err(|_| not_http())?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(not_http());
            }
            length = Length::Chunk(0);
        }
    }
    Ok(Body {
        stream,
        status,
        length,
        first: true,
    })
}

/// An answer's body (RFC 9112, section 6).
struct Body {
    stream: BufReader<UnixStream>,
    status: u16,
    length: Length,
    first: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Length {
    /// So many bytes are left.
    Rest(u64),
    /// So many are left of this chunk.
    Chunk(u64),
    UntilTheEnd,
    Over,
}

impl Body {
    /// The size of the next chunk.
    fn next_chunk(&mut self) -> std::io::Result<u64> {
        let mut line = String::new();
        if !self.first {
            self.stream.by_ref().take(2).read_line(&mut line)?;
            line.clear();
        }
        self.first = false;
        self.stream.by_ref().take(1024).read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        u64::from_str_radix(size, 16).map_err(|_| std::io::ErrorKind::InvalidData.into())
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if let Length::Chunk(0) = self.length {
            self.length = match self.next_chunk()? {
                0 => Length::Over,
                size => Length::Chunk(size),
            };
        }
        let left = match self.length {
            Length::Over | Length::Rest(0) => return Ok(0),
            Length::Rest(left) | Length::Chunk(left) => left,
            Length::UntilTheEnd => return self.stream.read(into),
        };
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let read = self.stream.read(&mut into[..most])?;
        if read == 0 && most > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let left = left - read as u64;
        self.length = match self.length {
            Length::Chunk(_) => Length::Chunk(left),
            _ => Length::Rest(left),
        };
        Ok(read)
    }
}
