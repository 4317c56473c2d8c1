//! A site, a computer that is enrolled there, and a person at its desktop.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};

use acceptance::desktop::{Desktop, Node, node};
use acceptance::programs::{Client, Daemon, Server, Site, program, until};
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use transport::ServerAddress;

/// Titles of pages, as people read them.
pub const NOTICE: &str = "Renew your certificate";
pub const PASSWORD_PAGE: &str = "Confirm that it is you";
pub const FAILED: &str = "That did not work";
pub const RENEWED: &str = "The certificate is renewed";

/// The title of the wizard's window.
pub const WINDOW: &str = "Renew Certificate";

pub struct Office {
    // Dropped in this order: whoever needs another one goes first.
    session: Option<Child>,
    pub desktop: Desktop,
    pub daemon: Option<Daemon>,
    pub client: Client,
    server: Option<Server>,
    pub site: Site,
}

impl Office {
    /// With an agent that reminds people, and nobody logged in yet. `clock` is for all programs.
    pub fn open(name: &str, clock: Option<String>) -> Result<Self> {
        let mut office = Self::without_enrollment(name, clock)?;
        office.certify_for("40d")?;
        office.client.enroll(office.server(), "ann")?.succeeded();
        // The next certificate is far from its end, whatever the schedule.
        office.certify_for("365d")?;
        office.set(&[("RenewalPeriod1", "86400"), ("RenewalPeriod2", "3600")])?;
        Ok(office)
    }

    /// The wizard is open.
    pub fn reminded(name: &str) -> Result<Self> {
        let mut office = Self::open(name, None)?;
        office.start_agent()?;
        office.log_in()?;
        office.remind_now()?;
        office.desktop.page(NOTICE)?;
        Ok(office)
    }

    /// It asks for a password.
    pub fn asked_for_password(name: &str) -> Result<Self> {
        let office = Self::reminded(name)?;
        office.desktop.press("Return")?;
        office.desktop.page(PASSWORD_PAGE)?;
        Ok(office)
    }

    pub fn without_enrollment(name: &str, clock: Option<String>) -> Result<Self> {
        let site = Site::with("sqlite", clock.clone())?;
        site.configure(|text| {
            text.replace("renewal_mode = \"automatic\"", "renewal_mode = \"prompt\"")
        })?;
        let server = site.serve()?;
        site.add_user("ann")?;
        let client = Client::with(clock.as_deref())?;
        // Users find their programs and the socket below it.
        std::fs::set_permissions(client.root(), std::fs::Permissions::from_mode(0o755))?;
        client.agent("install")?.succeeded();
        program("perennial-wizard");
        Ok(Self {
            session: None,
            desktop: Desktop::start(name)?,
            daemon: None,
            client,
            server: Some(server),
            site,
        })
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the site runs")
    }

    /// The site goes away. Returns where it was.
    pub fn stop_site(&mut self) -> Result<ServerAddress> {
        let server = self.server.take().context("the site runs")?;
        let at = server.devices.clone();
        server.stop()?;
        Ok(at)
    }

    pub fn start_site(&mut self, at: &ServerAddress) -> Result<()> {
        self.server = Some(self.site.serve_at(at)?);
        Ok(())
    }

    pub fn start_agent(&mut self) -> Result<()> {
        let socket = self.client.root().join("run/perennial-agent/agent.sock");
        let _ = std::fs::remove_file(&socket);
        self.daemon = Some(self.client.daemon()?);
        until("the agent listens", || Ok(socket.exists()))
    }

    /// The agent's processes end at once.
    pub fn kill_agent(&mut self) {
        self.daemon = None;
    }

    pub fn agent_log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// How often the agent decided that a reminder is due.
    pub fn reminders(&self) -> usize {
        let log = self.agent_log();
        log.lines().filter(|line| line.contains("reminded")).count()
    }

    /// The person logs in: the autostart entry starts the session part.
    pub fn log_in(&mut self) -> Result<()> {
        let mut command = self.program("perennial-agent");
        command.arg("session").arg("--root").arg(self.client.root());
        self.session = Some(command.spawn()?);
        Ok(())
    }

    pub fn session_process(&self) -> Result<u32> {
        Ok(self.session.as_ref().context("a session")?.id())
    }

    pub fn session_has_ended(&mut self) -> Result<bool> {
        let session = self.session.as_mut().context("a session")?;
        Ok(session.try_wait()?.is_some())
    }

    pub fn log_out(&mut self) {
        if let Some(mut session) = self.session.take() {
            let _ = session.kill();
            let _ = session.wait();
        }
    }

    /// One of the installed programs, as the desktop's user starts it.
    pub fn program(&self, name: &str) -> Command {
        let program = self.client.root().join("usr/lib/perennial").join(name);
        let mut command = self.desktop.command(program);
        if let Some(clock) = self.site.clock() {
            command.env("PERENNIAL_TEST_CLOCK", clock);
        }
        command
    }

    /// The wizard, as an icon of the desktop would start it.
    pub fn wizard(&self, purpose: &str) -> Command {
        let mut command = self.program("perennial-wizard");
        let socket = self.client.root().join("run/perennial-agent/agent.sock");
        command.arg(purpose).arg("--socket").arg(socket);
        command
    }

    /// Sets preferences, as root does.
    pub fn set(&self, values: &[(&str, &str)]) -> Result<()> {
        for (key, value) in values {
            let words = ["write", "com.microsoft.ccmclient", key, "-string", value];
            let ran = self.client.installed_tool("defaults", &words, "")?;
            ran.succeeded();
        }
        if let Some(daemon) = &self.daemon {
            let pid = Pid::from_raw(i32::try_from(daemon.pid())?).context("a process")?;
            kill_process(pid, Signal::HUP)?;
        }
        Ok(())
    }

    /// Management's preferences.
    pub fn manage(&self, keys: &str) -> Result<()> {
        let folder = self.client.root().join("etc/perennial/managed");
        std::fs::create_dir_all(&folder)?;
        let list = format!("<plist><dict>{keys}</dict></plist>");
        Ok(std::fs::write(
            folder.join("com.microsoft.ccmclient.plist"),
            list,
        )?)
    }

    /// How long the certificates last that the site makes from now on.
    fn certify_for(&mut self, validity: &str) -> Result<()> {
        let at = self.stop_site()?;
        self.site.configure(|text| {
            let line = |line: &str| match line.starts_with("validity = ") {
                true => format!("validity = \"{validity}\"\n"),
                false => format!("{line}\n"),
            };
            text.lines().map(line).collect()
        })?;
        self.start_site(&at)
    }

    /// A reminder is due at once: forty days are left.
    pub fn remind_now(&self) -> Result<()> {
        self.set(&[("RenewalPeriod1", "3888000")])
    }

    pub fn is_wizard_open(&self) -> Result<bool> {
        let titles = self.desktop.windows()?;
        Ok(titles.iter().any(|title| title.contains(WINDOW)))
    }

    pub fn until_wizard_is_closed(&self) -> Result<()> {
        until("the wizard closes", || Ok(!self.is_wizard_open()?))
    }

    /// The process of the wizard that is open.
    pub fn wizard_process(&self) -> Result<u32> {
        let program = self
            .client
            .root()
            .join("usr/lib/perennial/perennial-wizard");
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let is_it = std::fs::read_link(path.join("exe")).is_ok_and(|exe| exe == program);
            let id = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            if let Some(id) = id.filter(|_| is_it) {
                return Ok(id);
            }
        }
        anyhow::bail!("no wizard runs")
    }

    pub fn serial(&self) -> Result<String> {
        let status = self.client.status_of_any()?;
        Ok(status["serial"].as_str().context("a serial")?.to_owned())
    }

    /// The serial number of the certificate that is valid for the site.
    pub fn serial_at_the_site(&self) -> Result<String> {
        let status = self.client.status_of_any()?;
        let name = status["smsid"].as_str().context("an identifier")?;
        let ran = self.site.admin(&format!("device show {name} --json"))?;
        let shown = ran.succeeded().json();
        let mut certificates = shown["certificates"].as_array().into_iter().flatten();
        let valid = certificates.find(|certificate| certificate["state"] == "valid");
        let serial = valid.and_then(|valid| valid["serial"].as_str());
        Ok(serial.with_context(|| shown.to_string())?.to_owned())
    }

    /// The end of a test may be early: pictures and logs tell why.
    pub fn picture(&self, what: &str) -> Result<PathBuf> {
        self.desktop.picture(what)
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.log_out();
        // Wizards end with their display; a test that failed leaves its last view.
        if std::thread::panicking() {
            let _ = self.desktop.picture("where-it-failed");
            eprintln!("{}", self.agent_log());
        }
    }
}

/// What is written in the field `name`.
pub fn field<'a>(nodes: &'a [Node], role: &str, name: &str) -> Result<&'a str> {
    let node = node(nodes, role, name)?;
    node.text.as_deref().with_context(|| format!("{node:?}"))
}

/// True when a screen reader reads this sentence.
pub fn says(nodes: &[Node], sentence: &str) -> bool {
    nodes.iter().any(|node| {
        node.name.contains(sentence)
            || node
                .text
                .as_deref()
                .is_some_and(|text| text.contains(sentence))
    })
}
