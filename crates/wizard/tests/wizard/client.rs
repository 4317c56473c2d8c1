//! The way to the agent, against a real Unix socket with an agent that is played.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use domain::wizard::RenewalFailure;
use protocol::{Credentials, LocalEvent, LocalStatus, RenewalStep};
use tempfile::TempDir;
use wizard::agent::{Agent, AgentError};
use wizard::diagnostics;
use wizard::worker::{Agents, Ask, News, Worker};

use crate::desk::{at, renewed, status};

/// A request as it came: its first line, and its body.
type Seen = (String, String);

/// Answers a request, of which it sees the first line.
type Play = fn(&str, &mut UnixStream);

/// Plays an agent: each connection's answer is `play`'s.
struct Played {
    folder: TempDir,
    seen: Receiver<Seen>,
}

fn play(answer: impl Fn(&str, &mut UnixStream) + Send + 'static) -> Played {
    let folder = tempfile::tempdir().expect("a folder");
    let (sender, seen) = channel();
    listen(&folder, sender, answer);
    Played { folder, seen }
}

fn listen(
    folder: &TempDir,
    sender: Sender<Seen>,
    answer: impl Fn(&str, &mut UnixStream) + Send + 'static,
) {
    let listener = UnixListener::bind(folder.path().join("agent.sock")).expect("a socket");
    std::thread::spawn(move || {
        let answer = Arc::new(std::sync::Mutex::new(answer));
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let (line, body) = request(&mut stream);
            // The test may be over.
            let _ = sender.send((line.clone(), body));
            (answer.lock().expect("no panic"))(&line, &mut stream);
        }
    });
}

fn request(stream: &mut UnixStream) -> Seen {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).expect("a line");
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let body = String::from_utf8(body).expect("text");
    (first.trim().to_owned(), body)
}

impl Played {
    fn agent(&self) -> Agent {
        Agent::at(&self.folder.path().join("agent.sock"))
    }
}

fn send(stream: &mut UnixStream, text: &str) {
    // Who asked may be gone.
    let _ = stream.write_all(text.as_bytes());
}

fn sized(stream: &mut UnixStream, body: &str) {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
    send(stream, &head);
}

/// In chunks that respect nothing, as networks do.
fn chunked(stream: &mut UnixStream, body: &str) {
    send(
        stream,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for part in body.as_bytes().chunks(7) {
        let part = String::from_utf8_lossy(part);
        send(stream, &format!("{:X}\r\n{part}\r\n", part.len()));
    }
    send(stream, "0\r\n\r\n");
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("JSON")
}

fn credentials() -> Credentials {
    Credentials {
        user: "ann".to_owned(),
        password: "hunter2".to_owned(),
    }
}

#[test]
fn the_status_is_read_whole_chunked_or_until_the_end() {
    let plays: [Play; 3] = [
        |_, stream| sized(stream, &json(&status())),
        |_, stream| chunked(stream, &json(&status())),
        |_, stream| {
            send(
                stream,
                &format!("HTTP/1.1 200 OK\r\n\r\n{}", json(&status())),
            )
        },
    ];
    for each in plays {
        let played = play(each);
        assert_eq!(played.agent().status().expect("a status"), status());
        let (line, _) = played.seen.recv().expect("a request");
        assert_eq!(line, "GET /local/v1/status HTTP/1.1");
    }
}

#[test]
fn a_password_goes_once_and_steps_come_one_by_one() {
    let played = play(|_, stream| {
        let steps = [
            RenewalStep::Waiting,
            RenewalStep::AskingTheSite,
            RenewalStep::TakingIntoUse,
            renewed(),
        ];
        let lines: String = steps.iter().map(|step| json(step) + "\n").collect();
        // Something that a newer agent says, and a sign of life.
        chunked(stream, &format!("\n{{\"newer\":1}}\n{lines}"));
    });
    let mut steps = Vec::new();
    let asked = played.agent().renew(credentials(), |step| steps.push(step));
    asked.expect("an outcome");
    assert_eq!(steps.len(), 4);
    assert_eq!(steps[3], renewed());
    let (line, body) = played.seen.recv().expect("a request");
    assert_eq!(line, "POST /local/v1/renewals HTTP/1.1");
    assert_eq!(body, r#"{"user":"ann","password":"hunter2"}"#);
    assert!(played.seen.try_recv().is_err(), "once");
}

#[test]
fn what_is_not_an_answer_is_an_error() {
    let plays: [(Play, &str); 6] = [
        (|_, _| {}, "does not answer"),
        (
            |_, stream| send(stream, "SSH-2.0-x\r\n\r\n"),
            "does not speak HTTP",
        ),
        (
            |_, stream| send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}"),
            "does not answer",
        ),
        (|_, stream| sized(stream, "{}"), "cannot be read"),
        (
            |_, stream| {
                let head = "HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\n";
                send(stream, &format!("{head}not you\n"));
            },
            "not you",
        ),
        (
            |_, stream| {
                send(stream, "HTTP/1.1 200 OK\r\n");
                let line = format!("x: {}\r\n", "y".repeat(1000));
                for _ in 0..100 {
                    send(stream, &line);
                }
            },
            "does not speak HTTP",
        ),
    ];
    for (each, part) in plays {
        let error = play(each).agent().status().expect_err("no status");
        assert!(error.to_string().contains(part), "{error} / {part}");
    }
}

#[test]
fn diagnostics_are_the_users_file_and_nothing_is_overwritten() {
    let played = play(|_, stream| sized(stream, "PK and so on"));
    let folder = tempfile::tempdir().expect("a folder");
    let now = at("2026-11-25T09:00:00Z");
    let path = diagnostics::save_in(folder.path(), &played.agent(), now).expect("a file");
    assert_eq!(
        std::fs::read_to_string(&path).expect("text"),
        "PK and so on"
    );
    let mode = std::fs::metadata(&path)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = diagnostics::save_in(folder.path(), &played.agent(), now);
    assert!(matches!(again, Err(AgentError::Write(_))), "{again:?}");
}

#[test]
fn what_broke_off_leaves_no_file() {
    let played = play(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nPK");
    });
    let folder = tempfile::tempdir().expect("a folder");
    let now = at("2026-11-25T09:00:00Z");
    diagnostics::save_in(folder.path(), &played.agent(), now).expect_err("it broke off");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a list").count(), 0);
}

/// The next news that is wanted, within a time that only a broken program needs.
fn wait<T>(worker: &mut Worker, wanted: impl Fn(News) -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        match worker.news() {
            Some(news) => {
                if let Some(found) = wanted(news) {
                    return found;
                }
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    panic!("nothing came");
}

fn a_status(news: News) -> Option<LocalStatus> {
    match news {
        News::Status(status) => Some(*status),
        _ => None,
    }
}

/// Answers in turn: the status, the present events and then nothing more; a renewal breaks off.
fn lively(line: &str, stream: &mut UnixStream) {
    if line.contains("events") {
        let event = json(&LocalEvent::SiteReachable(true));
        let body = format!("{event}\n");
        send(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        send(stream, &format!("{:X}\r\n{body}\r\n", body.len()));
        let open = stream.try_clone().expect("a handle");
        // As long as the test runs: the agent does not hang up.
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(60));
            drop(open);
        });
    } else if line.contains("status") {
        sized(stream, &json(&status()));
    } else {
        chunked(stream, &(json(&RenewalStep::AskingTheSite) + "\n"));
    }
}

#[test]
fn windows_hear_status_events_and_always_an_outcome() {
    let played = play(lively);
    let path = played.folder.path().join("agent.sock");
    let mut worker = Worker::start(&path, Arc::new(|| {}));
    assert_eq!(wait(&mut worker, a_status), status());
    wait(&mut worker, |news| {
        matches!(news, News::Event(LocalEvent::SiteReachable(true))).then_some(())
    });
    worker.ask(Ask::Renew(credentials()));
    let failure = wait(&mut worker, |news| match news {
        News::Step(RenewalStep::Refused { failure, .. }) => Some(failure),
        _ => None,
    });
    assert_eq!(
        failure,
        RenewalFailure::Other,
        "it ended without an outcome"
    );
}

#[test]
fn an_agent_that_comes_later_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("agent.sock");
    let mut worker = Worker::start(&path, Arc::new(|| {}));
    wait(&mut worker, |news| matches!(news, News::Away).then_some(()));
    let (sender, _seen) = channel();
    listen(&folder, sender, lively);
    assert_eq!(wait(&mut worker, a_status), status());
}
