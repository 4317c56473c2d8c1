//! A desktop without a screen: an X server in memory, a window manager, a session bus and the service that
//! screen readers use. A person sits before it: keys go in, and what a screen reader reads comes out.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::programs::{NOBODY, Ran, run, until};

/// Reads what accessible programs show, over AT-SPI.
const SCREEN_READER: &str = include_str!("screen_reader.py");

pub struct Desktop {
    /// Home and runtime folder of its user.
    folder: TempDir,
    /// Whose it is, where the tests run as root.
    user: Option<u32>,
    display: String,
    bus: String,
    services: Vec<Child>,
    pictures: AtomicUsize,
    name: String,
}

/// What a screen reader reads of one control or text.
#[derive(Debug, Clone)]
pub struct Node {
    pub role: String,
    pub name: String,
    /// What is written in it, as the screen reader is told.
    pub text: Option<String>,
    pub states: Vec<String>,
}

impl Desktop {
    /// Starts one. Its pictures are named after `name`.
    pub fn start(name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let is_root = rustix::process::geteuid().is_root();
        let user = is_root.then_some(NOBODY);
        chown(folder.path(), user, user)?;
        // An X server without privileges cannot make the folder of its socket.
        if is_root {
            let sockets = Path::new("/tmp/.X11-unix");
            let _ = std::fs::DirBuilder::new().mode(0o777).create(sockets);
            std::fs::set_permissions(sockets, std::fs::Permissions::from_mode(0o1777))?;
        }
        let mut desktop = Self {
            folder,
            user,
            display: String::new(),
            bus: String::new(),
            services: Vec::new(),
            pictures: AtomicUsize::new(0),
            name: name.to_owned(),
        };
        let number = desktop.serve(
            "Xvfb",
            "-displayfd 1 -screen 0 1280x900x24 -nolisten tcp -noreset",
        )?;
        desktop.display = format!(":{number}");
        desktop.bus = desktop.serve("dbus-daemon", "--session --nofork --print-address=1")?;
        let manager = desktop.command("openbox").args(["--sm-disable"]).spawn()?;
        desktop.services.push(manager);
        // Screen readers set it; programs show nothing of themselves before.
        let set = "--session --print-reply --dest=org.a11y.Bus /org/a11y/bus \
                   org.freedesktop.DBus.Properties.Set string:org.a11y.Status string:IsEnabled \
                   variant:boolean:true";
        let set: Vec<_> = set.split_whitespace().collect();
        desktop.ask("dbus-send", &set)?.succeeded();
        Ok(desktop)
    }

    /// Starts a service that prints one line when it is ready, and returns the line.
    fn serve(&mut self, program: &str, arguments: &str) -> Result<String> {
        let mut command = self.command(program);
        command
            .args(arguments.split_whitespace())
            .stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.to_owned())?;
        let out = child.stdout.take().context("a pipe")?;
        self.services.push(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        ensure!(!line.is_empty(), "{program} does not start");
        Ok(line.trim().to_owned())
    }

    /// A command of the desktop's user.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "en_GB.UTF-8")
            .env("TZ", "UTC")
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("DISPLAY", &self.display)
            .env("DBUS_SESSION_BUS_ADDRESS", &self.bus)
            // There is no graphics card.
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    pub fn display(&self) -> &str {
        &self.display
    }

    fn ask(&self, program: &str, words: &[&str]) -> Result<Ran> {
        run(self.command(program).args(words), "")
    }

    /// Presses a key, by its name in X (`Return`, `shift+Tab`).
    pub fn press(&self, key: &str) -> Result<()> {
        self.ask("xdotool", &["key", "--clearmodifiers", key])?
            .succeeded();
        Ok(())
    }

    pub fn type_text(&self, text: &str) -> Result<()> {
        self.ask("xdotool", &["type", "--delay", "30", text])?
            .succeeded();
        Ok(())
    }

    /// The titles of the windows on the screen.
    pub fn windows(&self) -> Result<Vec<String>> {
        let found = self.ask("xdotool", &["search", "--onlyvisible", "--name", "."])?;
        let mut titles = Vec::new();
        for window in found.out.lines() {
            let title = self.ask("xdotool", &["getwindowname", window])?;
            titles.push(title.out.trim().to_owned());
        }
        Ok(titles)
    }

    /// Puts the window that has the focus away; it goes on.
    pub fn minimize_window(&self) -> Result<()> {
        self.ask("xdotool", &["getactivewindow", "windowminimize"])?
            .succeeded();
        Ok(())
    }

    /// Closes the window that has the focus, as its button does.
    pub fn close_window(&self) -> Result<()> {
        self.press("alt+F4")
    }

    /// Closes a window from a list of windows: it need not be seen.
    pub fn close_window_of(&self, title: &str) -> Result<()> {
        self.ask("wmctrl", &["-F", "-c", title])?.succeeded();
        Ok(())
    }

    /// The person logs out: all of it goes away.
    pub fn end(&mut self) {
        // The last one first: each needs those before it.
        while let Some(mut service) = self.services.pop() {
            let id = i32::try_from(service.id()).ok().and_then(Pid::from_raw);
            // An X server takes its socket with it.
            if let Some(id) = id {
                let _ = kill_process(id, Signal::TERM);
            }
            let _ = service.wait();
        }
    }

    /// All that a screen reader reads now.
    pub fn read(&self) -> Result<Vec<Node>> {
        // Debian's interpreter: the module comes with a package.
        let ran = self.ask("/usr/bin/python3", &["-c", SCREEN_READER])?;
        if ran.code != 0 {
            bail!("no screen reader: {}", ran.err);
        }
        let nodes: Value = serde_json::from_str(&ran.out)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let read = |node: &Value| Node {
            role: text(&node["role"]).unwrap_or_default(),
            name: text(&node["name"]).unwrap_or_default(),
            text: text(&node["text"]),
            states: node["states"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(text)
                .collect(),
        };
        Ok(nodes
            .as_array()
            .context("nodes")?
            .iter()
            .map(read)
            .collect())
    }

    /// Waits for the page with this title.
    pub fn page(&self, title: &str) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        let shown = until(&format!("the page {title:?}"), || {
            nodes = self.read()?;
            Ok(nodes
                .iter()
                .any(|node| node.role == "heading" && node.name == title))
        });
        shown.with_context(|| {
            let _ = self.picture("what-was-there-instead");
            format!("{nodes:#?}")
        })?;
        Ok(nodes)
    }

    /// A picture of the whole screen, for people to look at: `target/screenshots/desktop/`.
    pub fn picture(&self, what: &str) -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        let target = own.ancestors().nth(3).context("target/debug/deps/test")?;
        let folder = target.join("screenshots/desktop");
        std::fs::create_dir_all(&folder)?;
        let number = self.pictures.fetch_add(1, Ordering::Relaxed) + 1;
        let file = folder.join(format!("{}-{number:02}-{what}.png", self.name));
        let taken = self.folder.path().join("picture.png");
        let mut command = self.command("import");
        run(command.args(["-window", "root"]).arg(&taken), "")?.succeeded();
        std::fs::copy(taken, &file)?;
        Ok(file)
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.end();
    }
}

/// The node with this role and name.
pub fn node<'a>(nodes: &'a [Node], role: &str, name: &str) -> Result<&'a Node> {
    let found = nodes
        .iter()
        .find(|node| node.role == role && node.name == name);
    found.with_context(|| format!("no {role} {name:?} in {nodes:#?}"))
}
