//! The real programs, and what they print.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use domain::Pin;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use transport::ServerAddress;

use crate::trace::traced;

/// The password of every user in these tests.
pub const PASSWORD: &str = "correct horse";

/// Another user than root: `nobody` of every system.
pub const NOBODY: u32 = 65534;

/// On a port that the system gives.
const ANYWHERE: &str = "127.0.0.1:0";

/// The built program `name`: beside this test, or where `PERENNIAL_PROGRAMS` points.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("PERENNIAL_PROGRAMS")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let own = std::env::current_exe().expect("a program knows its own file");
            own.ancestors()
                .nth(2)
                .expect("target/debug/deps/test")
                .to_owned()
        });
    let program = folder.join(name);
    assert!(
        program.exists(),
        "{} is not built; run: make programs",
        program.display()
    );
    program
}

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// # Panics
    /// When the program failed.
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command to its end with `stdin`.
pub fn run(command: &mut Command, stdin: &str) -> Result<Ran> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input is none of our business.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    Ok(child.wait_with_output()?.into())
}

/// A folder of a site, and how its servers are started.
pub struct Site {
    folder: PathBuf,
    clock: Option<String>,
    /// Removes the folder at the end.
    _temporary: Option<TempDir>,
}

impl Site {
    /// Makes a site on SQLite.
    pub fn new() -> Result<Self> {
        Self::with("sqlite", None)
    }

    /// Makes a site on a database, in scaled time when `clock` is given.
    pub fn with(database: &str, clock: Option<String>) -> Result<Self> {
        let temporary = tempfile::tempdir()?;
        let site = Self {
            folder: temporary.path().to_owned(),
            clock,
            _temporary: Some(temporary),
        };
        run(&mut site.init_command(database), "")?.succeeded();
        Ok(site)
    }

    /// The site in a folder, or one that is not made yet.
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            clock: None,
            _temporary: None,
        }
    }

    /// The command that makes it.
    pub fn init_command(&self, database: &str) -> Command {
        let mut command = self.command("init");
        command
            .args(["--name", "Example", "--hostname", "127.0.0.1"])
            .args(["--database", database]);
        command
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Changes the configuration's text.
    pub fn configure(&self, change: impl FnOnce(String) -> String) -> Result<()> {
        let file = self.folder().join("perennial.toml");
        let text = std::fs::read_to_string(&file)?;
        Ok(std::fs::write(&file, change(text))?)
    }

    /// Lets users and addresses enroll as often as a test wants.
    pub fn without_limits(&self) -> Result<()> {
        self.configure(|text| {
            text.lines()
                .map(|line| match line.split_once(" = ") {
                    Some((key, _)) if key.contains("_per_") => format!("{key} = 1000000\n"),
                    _ => format!("{line}\n"),
                })
                .collect()
        })
    }

    /// A command of the administrator's program on this site.
    pub fn command(&self, word: &str) -> Command {
        let mut command = Command::new(program("perennial"));
        command
            .args([word, "--site"])
            .arg(&self.folder)
            .env_remove("PERENNIAL_SITE");
        if let Some(clock) = &self.clock {
            command.env("PERENNIAL_TEST_CLOCK", clock);
        }
        command
    }

    /// Runs an administrator's command.
    pub fn admin(&self, words: &str) -> Result<Ran> {
        self.admin_with(words, "")
    }

    pub fn admin_with(&self, words: &str, stdin: &str) -> Result<Ran> {
        let mut words = words.split(' ');
        let mut command = self.command(words.next().unwrap_or(""));
        run(command.args(words), stdin)
    }

    pub fn add_user(&self, name: &str) -> Result<()> {
        let ran = self.admin_with(&format!("user add {name} --password-stdin"), PASSWORD)?;
        ran.succeeded();
        Ok(())
    }

    /// Starts a server and waits until it is ready.
    pub fn serve(&self) -> Result<Server> {
        self.serve_with(&[])
    }

    /// The same, where a server of this site was before.
    pub fn serve_at(&self, devices: &ServerAddress) -> Result<Server> {
        Server::start(self.serve_command(&devices.to_string()))
    }

    /// The same, with variables in its environment.
    pub fn serve_with(&self, variables: &[(&str, &str)]) -> Result<Server> {
        let mut command = self.serve_command(ANYWHERE);
        command.envs(variables.iter().copied());
        Server::start(command)
    }

    /// The same, and what it does to files is written to `log` until it ended.
    pub fn serve_traced(&self, log: &Path) -> Result<Server> {
        Server::start(traced(&self.serve_command(ANYWHERE), log))
    }

    fn serve_command(&self, devices: &str) -> Command {
        let mut command = self.command("serve");
        command.args(["--devices", devices, "--console", ANYWHERE]);
        command
    }

    /// Sets the site's clock, in the form of `PERENNIAL_TEST_CLOCK`, for what is started next.
    pub fn set_clock(&mut self, clock: &str) {
        self.clock = Some(clock.to_owned());
    }

    pub fn clock(&self) -> Option<&str> {
        self.clock.as_deref()
    }
}

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    pub devices: ServerAddress,
    pub console: ServerAddress,
    pub pin: Pin,
    log: Log,
}

impl Server {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = Log::of(child.stderr.take().context("a pipe")?);
        let mut out = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let word = |key: &str| {
            let found = line
                .split(' ')
                .find_map(|word| word.trim().strip_prefix(key));
            found.map(str::to_owned)
        };
        if !line.starts_with("ready ") {
            let status = child.wait()?;
            bail!("serve ended with {status}: {}", log.whole());
        }
        Ok(Self {
            devices: word("devices=").context("devices=")?.parse()?,
            console: word("console=").context("console=")?.parse()?,
            pin: word("pin=").context("pin=")?.parse()?,
            child,
            log,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged until now.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// True once it ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.log.whole();
        Ok(())
    }

    /// Asks it to stop and returns its log.
    pub fn stop(mut self) -> Result<String> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?).context("a process")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait()?;
        let log = self.log.whole();
        ensure!(status.success(), "serve ended with {status}: {log}");
        Ok(log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program writes to standard error, collected while it runs.
struct Log {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Log {
    fn of(stderr: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let lines = text.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut lines = lines.lock().expect("no holder panics");
                lines.push_str(&line);
                lines.push('\n');
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        self.text.lock().expect("no holder panics").clone()
    }

    /// All of it, once the program ended.
    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        self.text()
    }
}

/// A client below a root of its own.
pub struct Client {
    root: TempDir,
    clock: Option<String>,
}

impl Client {
    pub fn new() -> Result<Self> {
        Self::with(None)
    }

    pub fn with(clock: Option<&str>) -> Result<Self> {
        Ok(Self {
            root: tempfile::tempdir()?,
            clock: clock.map(str::to_owned),
        })
    }

    pub fn installed() -> Result<Self> {
        let client = Self::new()?;
        client.agent("install")?.succeeded();
        Ok(client)
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Another client whose disk is a copy of this one's.
    pub fn copy(&self) -> Result<Self> {
        let copy = Self::with(self.clock.as_deref())?;
        let done = Command::new("cp")
            .arg("-a")
            .arg(self.root().join("."))
            .arg(copy.root())
            .status()?;
        ensure!(done.success(), "cannot copy {}", self.root().display());
        Ok(copy)
    }

    /// A command of the agent.
    pub fn command(&self, word: &str) -> Command {
        self.tool(&program("perennial-agent"), Some(word))
    }

    fn tool(&self, program: &Path, word: Option<&str>) -> Command {
        let mut command = Command::new(program);
        command.args(word).arg("--root").arg(self.root());
        if let Some(clock) = &self.clock {
            command.env("PERENNIAL_TEST_CLOCK", clock);
        }
        command
    }

    pub fn agent(&self, words: &str) -> Result<Ran> {
        let mut words = words.split(' ');
        let mut command = self.command(words.next().unwrap_or(""));
        run(command.args(words), "")
    }

    /// One of the installed tools, called by its own name.
    pub fn installed_tool(&self, name: &str, words: &[&str], stdin: &str) -> Result<Ran> {
        let tool = self.root().join("usr/lib/perennial/Tools").join(name);
        run(self.tool(&tool, None).args(words), stdin)
    }

    /// Enrolls as the incumbent's administrators do, with the pin that they were given.
    pub fn enroll(&self, server: &Server, user: &str) -> Result<Ran> {
        self.enroll_with(server, user, PASSWORD)
    }

    pub fn enroll_with(&self, server: &Server, user: &str, password: &str) -> Result<Ran> {
        run(&mut self.enroll_command(server, user), password)
    }

    /// The command that enrolls; it reads the password from standard input.
    pub fn enroll_command(&self, server: &Server, user: &str) -> Command {
        let mut command = self.command("enroll");
        command
            .args(["-s", &server.devices.to_string()])
            .args(["-u", user, "--password-stdin"])
            .args(["--pin", &server.pin.to_string()]);
        command
    }

    pub fn status(&self) -> Result<Value> {
        Ok(self.agent("status --json")?.json())
    }

    /// The same, also when the certificate expired by the client's clock.
    pub fn status_of_any(&self) -> Result<Value> {
        let ran = self.agent("status --json")?;
        ensure!(matches!(ran.code, 0 | 6), "{ran:#?}");
        Ok(ran.json())
    }

    /// The serial numbers of all certificates on its disk.
    pub fn held(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let identity = self.root().join("var/lib/perennial-agent/identity");
        for folder in std::fs::read_dir(identity).into_iter().flatten() {
            let file = folder?.path().join("certificate.pem");
            let pem = std::fs::read(file).unwrap_or_default();
            for der in x509::certificates_from_pem(&pem).unwrap_or_default() {
                let certificate = x509::Certificate::from_der(&der)?;
                found.extend(certificate.serial().map(|serial| serial.to_string()));
            }
        }
        Ok(found)
    }

    /// Lets an enrolled client find its site at a server's present address.
    pub fn goes_to(&self, server: &Server) -> Result<()> {
        let identity = self.root().join("var/lib/perennial-agent/identity");
        for folder in std::fs::read_dir(identity)? {
            let file = folder?.path().join("site.json");
            if let Ok(record) = std::fs::read(&file) {
                let mut record: Value = serde_json::from_slice(&record)?;
                record["server"] = serde_json::to_value(&server.devices)?;
                std::fs::write(&file, record.to_string())?;
            }
        }
        Ok(())
    }

    /// Sets the client's clock, in the form of `PERENNIAL_TEST_CLOCK`.
    pub fn set_clock(&mut self, clock: &str) {
        self.clock = Some(clock.to_owned());
    }

    /// Starts the daemon.
    pub fn daemon(&self) -> Result<Daemon> {
        let child = self
            .command("run")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        Daemon::of(child)
    }

    /// Every file and folder below the root.
    pub fn tree(&self) -> Result<Vec<PathBuf>> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                found.push(entry.path());
                if entry.file_type()?.is_dir() {
                    walk(&entry.path(), found)?;
                }
            }
            Ok(())
        }
        let mut found = Vec::new();
        walk(self.root(), &mut found)?;
        found.sort();
        Ok(found)
    }
}

/// A running daemon of a client. Killed when dropped.
pub struct Daemon {
    child: Child,
    log: Log,
}

impl Daemon {
    fn of(mut child: Child) -> Result<Self> {
        let log = Log::of(child.stderr.take().context("a pipe")?);
        Ok(Self { child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged until now.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// True once it ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds.
///
/// # Errors
/// When it does not within a minute.
pub fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        if holds()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("never happened: {what}")
}

/// The value of `PERENNIAL_TEST_CLOCK` for time that begins now and runs `factor` times as fast.
pub fn scaled_clock(factor: f64) -> String {
    use domain::Clock;
    let now = clock::SystemClock::default().now().as_second();
    format!("{now}:{now}:{factor}")
}
