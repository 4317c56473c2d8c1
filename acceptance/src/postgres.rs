//! A real PostgreSQL server in a temporary folder, reached over a socket in that folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running server. Stops with its last database's data when dropped.
pub struct Postgres {
    server: Child,
    folder: TempDir,
    bin: PathBuf,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts a server on Debian's packages.
    ///
    /// # Errors
    /// When PostgreSQL is not installed (`apt-get install postgresql`) or does not start.
    pub fn start() -> Result<Self> {
        let bin = bin()?;
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp")?;
        let data = folder.path().join("data");
        if rustix::process::geteuid().is_root() {
            // PostgreSQL refuses to run as root.
            let done = Command::new("chown")
                .arg("postgres:")
                .arg(folder.path())
                .status()?;
            anyhow::ensure!(
                done.success(),
                "cannot give the folder to the user postgres"
            );
        }
        let initdb = unprivileged(&bin.join("initdb"))
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
                "-D",
            ])
            .arg(&data)
            .current_dir("/")
            .output()?;
        if !initdb.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        }
        let mut command = unprivileged(&bin.join("postgres"));
        command
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "max_connections=200",
            ])
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = spawn_for_life(command)?;
        let postgres = Self {
            server,
            folder,
            bin,
            databases: AtomicU32::new(0),
        };
        for _ in 0..600 {
            if postgres.psql("postgres", "SELECT 1").is_ok() {
                return Ok(postgres);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("PostgreSQL did not start within 30 s")
    }

    /// Makes an empty database and returns its URL.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn database(&self) -> Result<String> {
        let name = format!("site{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!(
            "postgres:///{name}?host={}&user=postgres",
            self.folder.path().display()
        ))
    }

    /// Runs a statement and returns what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let output = Command::new(self.bin.join("psql"))
            .args(["-U", "postgres", "-At", "-d", database, "-c", sql, "-h"])
            .arg(self.folder.path())
            .output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw) {
            // "Immediate shutdown": nothing of it is kept.
            let _ = kill_process(pid, Signal::QUIT);
        }
        let _ = self.server.wait();
    }
}

/// Spawns from a thread that lives as long as the process: the parent-death signal is sent when the
/// spawning *thread* ends, and a test's thread ends early.
pub(crate) fn spawn_for_life(mut command: Command) -> std::io::Result<Child> {
    let (started, child) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = started.send(command.spawn());
        loop {
            std::thread::park();
        }
    });
    child.recv().expect("the thread sends before it parks")
}

/// The newest installed version's programs.
fn bin() -> Result<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found
        .pop()
        .context("PostgreSQL is not installed; run: apt-get install postgresql")
}

fn unprivileged(program: &Path) -> Command {
    // The server must not outlive a test that is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if rustix::process::geteuid().is_root() {
        command.args([
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--clear-groups",
        ]);
    }
    command.arg("--").arg(program);
    command
}
