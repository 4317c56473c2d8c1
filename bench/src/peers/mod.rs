//! The programs that the benchmark compares Perennial with, each a Debian package, run as a child
//! process on 127.0.0.1 from a folder of its own and stopped when its value is dropped.
//! Both sides of a comparison are measured by the same functions of [`cpu`].

pub mod cfssl;
pub mod cpu;
pub mod nginx;

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a peer may take until it answers, and until it has stopped.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait between two looks at a peer.
const POLL: Duration = Duration::from_millis(20);

/// An address on 127.0.0.1 whose port is free now. Neither peer can name a port that the system
/// chose for it (cfssl logs port 0), so there is a moment in which another program can take it;
/// the peer then fails to start, and its log says why.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Starts a peer whose output goes to the file `log`: a pipe that nobody reads would fill up and
/// stop it.
fn spawn(command: &mut Command, package: &str, log: &Path) -> io::Result<Child> {
    let log = File::create(log)?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| not_started(command, package, &error))
}

/// Runs a tool to its end and returns what it wrote to its standard output and standard error.
fn run(command: &mut Command, package: &str) -> io::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(command, package, &error))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let written = text(&output.stdout) + &text(&output.stderr);
    if output.status.success() {
        Ok(written)
    } else {
        let program = command.get_program().display();
        Err(io::Error::other(format!(
            "{program} failed ({}): {}",
            output.status,
            written.trim()
        )))
    }
}

fn not_started(command: &Command, package: &str, error: &io::Error) -> io::Error {
    let program = command.get_program().display();
    io::Error::new(
        error.kind(),
        format!("cannot run {program} of the Debian package {package}: {error}"),
    )
}

/// Waits until `ready` says so.
///
/// # Errors
/// With the end of the log if the process ended or was not ready in time.
fn wait_until_ready(
    child: &mut Child,
    log: &Path,
    mut ready: impl FnMut() -> bool,
) -> io::Result<()> {
    let start = Instant::now();
    loop {
        let what = match child.try_wait()? {
            Some(status) => format!("ended at once ({status})"),
            None if ready() => return Ok(()),
            None if start.elapsed() > PATIENCE => format!("did not answer within {PATIENCE:?}"),
            None => {
                sleep(POLL);
                continue;
            }
        };
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(5)..].join("\n");
        return Err(io::Error::other(format!(
            "the peer {what}, its log ends with:\n{end}"
        )));
    }
}
