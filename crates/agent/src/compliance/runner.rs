//! Runs scripts, one after the other, in a process of its own: it reads an [`Order`] on standard
//! input, runs it within its limits, kills all that it started, and writes an [`Answer`]. When its
//! input ends, also in the middle of a script, it does the same and ends.
//!
//! Which limit is enforced by what is a table in `docs/script-limits.md`.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use domain::compliance::{Ended, OUTPUT_LIMIT, Output, Script};
use domain::{Period, fault};
use process_wrap::std::{CommandWrap, ProcessSession};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait, waitpid};
use serde::{Deserialize, Serialize};

use crate::platform::cgroup::Enforced;
use crate::platform::{self, ChildEnd, ScriptFile};

/// Who prints more is stopped: 64 KiB are a value, and the rest only costs time.
const MOST_PRINTED: u64 = 16 << 20;
/// Memory of a script and all that it started.
const MOST_MEMORY: u64 = 1 << 30;
/// Processes of a script, itself among them.
const MOST_PROCESSES: usize = 256;
/// How often the processes of a script are looked at: soon at first, then less often.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// A process that cannot be killed for so long waits for the kernel.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the kernel allows beyond the limits, where it holds some: the runner sees it first, and says so.
const MORE_MEMORY: u64 = 128 << 20;
const MORE_PROCESSES: usize = 64;

/// How long an answer takes that is given at all: an order's time, until all is killed, and some more
/// for a computer that has much to do.
pub fn answers_within(time_limit: Period) -> Duration {
    time_limit.std() + PATIENCE + Duration::from_secs(5)
}

/// A script to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The answer has the same.
    pub number: u64,
    pub script: Script,
    pub time_limit: Period,
    /// All of it.
    pub environment: Vec<(String, String)>,
    /// An empty folder for it is made in this one.
    pub folder: PathBuf,
}

/// An [`Output`] on its way between two processes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub number: u64,
    stdout: String,
    printed: u64,
    stderr: String,
    ended: End,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum End {
    Exit(i32),
    Signal(i32),
    Stopped(String),
}

impl Answer {
    fn of(number: u64, output: Output) -> Self {
        Self {
            number,
            stdout: BASE64.encode(&output.stdout),
            printed: output.printed,
            stderr: BASE64.encode(&output.stderr),
            ended: match output.ended {
                Ended::Exit(status) => End::Exit(status),
                Ended::Signal(signal) => End::Signal(signal),
                Ended::Stopped(why) => End::Stopped(why),
            },
        }
    }

    pub fn into_output(self) -> Output {
        let bytes = |text: &str| BASE64.decode(text.as_bytes()).unwrap_or_default();
        Output {
            stdout: bytes(&self.stdout),
            printed: self.printed,
            stderr: bytes(&self.stderr),
            ended: match self.ended {
                End::Exit(status) => Ended::Exit(status),
                End::Signal(signal) => Ended::Signal(signal),
                End::Stopped(why) => Ended::Stopped(why),
            },
        }
    }
}

/// The program of this process.
///
/// # Errors
/// When it cannot be prepared, or nobody listens any more.
pub fn main() -> io::Result<()> {
    platform::leave_terminal();
    let holds_memory =
        platform::cgroup::enter(MOST_MEMORY + MORE_MEMORY, MOST_PROCESSES + MORE_PROCESSES);
    platform::prepare_runner(holds_memory)?;
    let mut orders = io::stdin().lock();
    let mut answers = io::stdout().lock();
    let mut line = String::new();
    let mut workplace = Workplace::default();
    let mut chunk = vec![0; CHUNK];
    while orders.read_line(&mut line)? > 0 {
        let order: Order = serde_json::from_str(&line)?;
        let output = match workplace.empty(&order.folder) {
            Ok(folder) => run(&order, folder, &mut chunk),
            Err(error) => Some(stopped(format!("it has no working directory: {error}"))),
        };
        let Some(output) = output else {
            return Ok(());
        };
        let mut answer = serde_json::to_vec(&Answer::of(order.number, output))?;
        answer.push(b'\n');
        answers.write_all(&answer)?;
        answers.flush()?;
        line.clear();
    }
    Ok(())
}

/// The working directory of the next script. Most leave theirs as it was, and making one costs more
/// than such a script: then it serves again.
#[derive(Default)]
struct Workplace {
    folder: Option<PathBuf>,
    made: u64,
}

impl Workplace {
    /// An empty folder for root alone, below `folder`.
    fn empty(&mut self, folder: &Path) -> io::Result<&Path> {
        if !self.folder.as_deref().is_some_and(is_as_it_was) {
            self.remove();
            self.folder = Some(self.make(folder)?);
        }
        self.folder
            .as_deref()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn make(&mut self, folder: &Path) -> io::Result<PathBuf> {
        loop {
            self.made += 1;
            let new = folder.join(format!("{}-{}", std::process::id(), self.made));
            match fs::DirBuilder::new().mode(0o700).create(&new) {
                // One that could not be removed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| new),
            }
        }
    }

    /// What cannot be removed stays: the next evaluation tries again, and says so.
    fn remove(&mut self) {
        if let Some(folder) = self.folder.take() {
            let _ = platform::remove_folder(&folder);
        }
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        self.remove();
    }
}

fn is_as_it_was(folder: &Path) -> bool {
    let same = fs::symlink_metadata(folder).is_ok_and(|found| {
        let is_ours = found.uid() == rustix::process::geteuid().as_raw();
        found.is_dir() && is_ours && found.mode() & 0o7777 == 0o700
    });
    same && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Of a script that did not run to its end by itself.
pub fn stopped(why: String) -> Output {
    Output {
        stdout: Vec::new(),
        printed: 0,
        stderr: Vec::new(),
        ended: Ended::Stopped(why),
    }
}

/// None when whoever asked went away.
fn run(order: &Order, folder: &Path, chunk: &mut [u8]) -> Option<Output> {
    let (interpreter, argument) = order.script.interpreter();
    let file = match ScriptFile::new(order.script.as_str().as_bytes()) {
        Ok(file) => file,
        Err(error) => {
            return Some(stopped(format!(
                "the script cannot be kept in memory: {error}"
            )));
        }
    };
    let mut command = Command::new(interpreter);
    command
        .args(argument)
        .arg(file.path())
        .env_clear()
        .envs(order.environment.iter().map(|(key, value)| (key, value)))
        .env(MARK, std::env::var_os(MARK).unwrap_or_default())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let before = platform::cgroup::enforced();
    let started = CommandWrap::from(command).wrap(ProcessSession).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if !Path::new(interpreter).exists() => {
            return Some(stopped(format!(
                "its interpreter {interpreter} is not there ({error})"
            )));
        }
        Err(error) => return Some(stopped(format!("{interpreter} cannot be run: {error}"))),
    };
    fault::step("script-started");
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw)?;
    let mut watched = Watched {
        id,
        stdout: child.stdout().take().map(OwnedFd::from),
        stderr: child.stderr().take().map(OwnedFd::from),
        printed: Printed::default(),
        chunk,
    };
    let outcome = watched.until_its_end(order.time_limit);
    let status = match outcome {
        Outcome::Ended => waitpid(Some(id), WaitOptions::empty()).ok().flatten(),
        _ => None,
    };
    let left = kill_all();
    drop(file);
    let ended = match (outcome, was_kept_back(before)) {
        (Outcome::Abandoned, _) => return None,
        // The kernel may have killed, or not started, one of many: the others' output is no value.
        (_, Some(why)) | (Outcome::Stopped(why), None) => Ended::Stopped(why),
        (Outcome::Ended, None) => ended(status.map(|(_, status)| status)),
    };
    let ended = match left {
        0 => ended,
        left => Ended::Stopped(format!(
            "{left} processes that it started could not be killed"
        )),
    };
    let Printed {
        stdout,
        stdout_bytes,
        stderr,
        ..
    } = watched.printed;
    Some(Output {
        stdout,
        printed: stdout_bytes,
        stderr: stderr.into(),
        ended,
    })
}

fn ended(status: Option<WaitStatus>) -> Ended {
    let status = status.and_then(|status| {
        let exit = status.exit_status().map(Ended::Exit);
        exit.or_else(|| status.terminating_signal().map(Ended::Signal))
    });
    status.unwrap_or_else(|| Ended::Stopped("nobody knows how it ended".to_owned()))
}

enum Outcome {
    Ended,
    Stopped(String),
    /// Whoever asked went away.
    Abandoned,
}

/// What was printed so far.
#[derive(Default)]
struct Printed {
    /// The beginning.
    stdout: Vec<u8>,
    stdout_bytes: u64,
    /// The end.
    stderr: VecDeque<u8>,
    stderr_bytes: u64,
}

/// A script while it runs.
struct Watched<'c> {
    id: Pid,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    printed: Printed,
    chunk: &'c mut [u8],
}

impl Watched<'_> {
    fn until_its_end(&mut self, time_limit: Period) -> Outcome {
        let begun = Instant::now();
        let limit = time_limit.std();
        let end = match ChildEnd::of(self.id) {
            Ok(end) => end,
            Err(error) => return Outcome::Stopped(format!("it cannot be watched: {error}")),
        };
        let mut next_look = begun + FIRST_LOOK;
        loop {
            let now = Instant::now();
            if now >= begun + limit {
                return Outcome::Stopped(format!(
                    "it ran longer than {time_limit} and was stopped"
                ));
            }
            if now >= next_look {
                reap_all_but(self.id);
                if let Some(why) = too_much() {
                    return Outcome::Stopped(why);
                }
                // Looking costs, and who runs for long is in no hurry.
                next_look = now + (now - begun).clamp(FIRST_LOOK, BETWEEN_LOOKS);
            }
            let wait = next_look.min(begun + limit) - now;
            match self.wait(&end, wait) {
                Ready::Nothing | Ready::Output => {}
                Ready::Abandoned => return Outcome::Abandoned,
                Ready::Ended => {
                    // What is in the pipes already is its output; what others print later is not.
                    while self.read() && self.printed.is_bearable() {}
                    return Outcome::Ended;
                }
            }
            if !self.printed.is_bearable() {
                return Outcome::Stopped(format!(
                    "it printed more than {} MiB and was stopped",
                    MOST_PRINTED >> 20
                ));
            }
        }
    }

    /// Waits for output, the end, or `at_most`, and reads what there is.
    fn wait(&mut self, end: &ChildEnd, at_most: Duration) -> Ready {
        let stdin = io::stdin();
        let mut watched = vec![
            PollFd::new(end, PollFlags::IN),
            // Nothing is asked while a script runs: only the end of the input is looked for.
            PollFd::new(&stdin, PollFlags::empty()),
        ];
        for pipe in [&self.stdout, &self.stderr].into_iter().flatten() {
            watched.push(PollFd::new(pipe, PollFlags::IN));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(at_most.subsec_nanos()),
        };
        match poll(&mut watched, Some(&timeout)) {
            Ok(0) | Err(_) => return Ready::Nothing,
            Ok(_) => {}
        }
        let is_ready = |at: usize| !watched[at].revents().is_empty();
        let (ended, abandoned) = (is_ready(0), is_ready(1));
        drop(watched);
        if abandoned {
            return Ready::Abandoned;
        }
        self.read();
        if ended { Ready::Ended } else { Ready::Output }
    }

    /// Reads once from each pipe that has something. False when there was nothing.
    fn read(&mut self) -> bool {
        let mut any = false;
        for is_stdout in [true, false] {
            let pipe = match is_stdout {
                true => &mut self.stdout,
                false => &mut self.stderr,
            };
            let Some(open) = pipe.as_ref().filter(has_something) else {
                continue;
            };
            match rustix::io::read(open, &mut *self.chunk) {
                // Its other end is closed.
                Ok(0) => *pipe = None,
                Ok(bytes) => {
                    any = true;
                    self.printed.take(is_stdout, &self.chunk[..bytes]);
                }
                Err(rustix::io::Errno::INTR) => any = true,
                Err(_) => *pipe = None,
            }
        }
        any
    }
}

enum Ready {
    Nothing,
    Output,
    Ended,
    Abandoned,
}

fn has_something(pipe: &&OwnedFd) -> bool {
    let mut watched = [PollFd::new(*pipe, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut watched, Some(&now)).is_ok_and(|ready| ready > 0)
}

impl Printed {
    fn take(&mut self, is_stdout: bool, bytes: &[u8]) {
        if is_stdout {
            self.stdout_bytes += bytes.len() as u64;
            let room = OUTPUT_LIMIT.saturating_sub(self.stdout.len());
            self.stdout.extend(&bytes[..bytes.len().min(room)]);
        } else {
            self.stderr_bytes += bytes.len() as u64;
            self.stderr.extend(bytes);
            let over = self.stderr.len().saturating_sub(OUTPUT_LIMIT);
            self.stderr.drain(..over);
        }
    }

    fn is_bearable(&self) -> bool {
        self.stdout_bytes + self.stderr_bytes <= MOST_PRINTED
    }
}

/// Why all that runs below this process must stop; none while it is within its limits.
fn too_much() -> Option<String> {
    let processes = everything();
    if processes.len() > MOST_PROCESSES {
        return Some(too_many_processes());
    }
    let used = |of: fn(Pid) -> u64| processes.iter().map(|process| of(*process)).sum::<u64>();
    let is_over =
        used(platform::own_memory) > MOST_MEMORY && used(platform::share_of_memory) > MOST_MEMORY;
    is_over.then(too_much_memory)
}

/// Why the kernel did not let everything run since it had `before` enforced so much.
fn was_kept_back(before: Enforced) -> Option<String> {
    let now = platform::cgroup::enforced();
    if now.not_started > before.not_started {
        return Some(too_many_processes());
    }
    (now.killed > before.killed).then(too_much_memory)
}

fn too_many_processes() -> String {
    format!("it started more than {MOST_PROCESSES} processes and was stopped")
}

fn too_much_memory() -> String {
    format!(
        "it used more than {} MiB of memory and was stopped",
        MOST_MEMORY >> 20
    )
}

/// Kills everything below this process, whatever it does against that. Returns how many are left
/// after a while.
pub fn kill_all() -> usize {
    let begun = Instant::now();
    loop {
        // Most scripts leave nothing: then this is all.
        let any = reap();
        if !any && platform::cgroup::members().is_empty() {
            return 0;
        }
        if begun.elapsed() > PATIENCE {
            return everything().len();
        }
        // First they are made to stand still: who forks faster than it is killed would escape.
        let mut stopped: HashSet<Pid> = HashSet::new();
        for _ in 0..100 {
            let mut found = everything();
            found.retain(|process| !stopped.contains(process));
            if found.is_empty() {
                break;
            }
            for process in &found {
                let _ = kill_process(*process, Signal::STOP);
            }
            stopped.extend(found);
        }
        for process in &stopped {
            let _ = kill_process(*process, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// All that runs below this process, or in its group.
fn everything() -> HashSet<Pid> {
    let below = platform::descendants().into_iter();
    below.chain(platform::cgroup::members()).collect()
}

/// Takes note of children that ended. False when there is no child any more.
fn reap() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Takes note of children that ended, but of `script`: whose parents went away before them are this
/// process's now, and would count for ever.
fn reap_all_but(script: Pid) {
    for child in platform::own_children() {
        if child != script {
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
        }
    }
}

/// The environment's variable that tells which runner started a process; the runner has it, too.
pub const MARK: &str = "PERENNIAL_RUNNER";

/// Kills what has this variable in its environment: an evaluation, or a runner, that was killed left
/// it behind.
pub fn kill_marked(name: &str, value: &str) {
    let marker = format!("{name}={value}");
    for _ in 0..100 {
        let found = platform::marked(&marker);
        if found.is_empty() {
            return;
        }
        tracing::warn!(event = "scripts-left-behind", processes = found.len());
        for signal in [Signal::STOP, Signal::KILL] {
            for process in &found {
                process.signal(signal);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills all below this process, but these children and what is below them.
pub fn kill_all_but(children: &BTreeSet<u32>) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let mut orphans = platform::own_children();
        orphans.retain(|child| {
            let id = u32::try_from(child.as_raw_nonzero().get());
            !id.is_ok_and(|id| children.contains(&id))
        });
        if orphans.is_empty() {
            return;
        }
        let mut all = platform::descendants_of(&orphans);
        all.extend(&orphans);
        for signal in [Signal::STOP, Signal::KILL] {
            for process in &all {
                let _ = kill_process(*process, signal);
            }
        }
        for orphan in orphans {
            let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
