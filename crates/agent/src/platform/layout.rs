//! Where the agent's files lie, below a root that is `/` but for tests.

use std::path::{Path, PathBuf};

use crate::preferences::Level;

/// Every path that the agent ever writes: uninstalling removes what is listed here and nothing else.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: &Path) -> Self {
        Self {
            root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True when this is the machine's own agent, with a service and a need for root.
    pub fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Programs: the agent itself.
    pub fn programs(&self) -> PathBuf {
        self.root.join("usr/lib/perennial")
    }

    pub fn program(&self) -> PathBuf {
        self.programs().join("perennial-agent")
    }

    /// The incumbent's tools, as links to the agent.
    pub fn tools(&self) -> PathBuf {
        self.programs().join("Tools")
    }

    /// On everybody's search path.
    pub fn command(&self) -> PathBuf {
        self.root.join("usr/bin/perennial-agent")
    }

    pub fn service(&self) -> PathBuf {
        self.root.join("etc/systemd/system/perennial-agent.service")
    }

    /// Everything the agent remembers. 0700.
    pub fn state(&self) -> PathBuf {
        self.root.join("var/lib/perennial-agent")
    }

    pub fn identity(&self) -> PathBuf {
        self.state().join("identity")
    }

    /// What the site signed for this device.
    pub fn policy(&self) -> PathBuf {
        self.state().join("policy")
    }

    /// Results of evaluations, and what is remembered for the next one.
    pub fn compliance(&self) -> PathBuf {
        self.state().join("compliance")
    }

    /// Working directories of scripts while they run.
    pub fn work(&self) -> PathBuf {
        self.state().join("work")
    }

    /// Property lists of the whole machine, where preference settings look for a domain.
    pub fn library_preferences(&self) -> PathBuf {
        self.root.join("Library/Preferences")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("var/log/perennial")
    }

    /// The administrator's folder: managed and machine-wide preferences, hooks.
    pub fn configuration(&self) -> PathBuf {
        self.root.join("etc/perennial")
    }

    /// Programs that run after a renewal.
    pub fn hooks(&self) -> PathBuf {
        self.configuration().join("renewed.d")
    }

    /// What is there while the daemon runs, for everybody. 0755.
    pub fn runtime(&self) -> PathBuf {
        self.root.join("run/perennial-agent")
    }

    /// Where the daemon listens to this computer's users.
    pub fn socket(&self) -> PathBuf {
        self.runtime().join("agent.sock")
    }

    /// Starts the session part when a user logs in at a desktop.
    pub fn autostart(&self) -> PathBuf {
        self.root
            .join("etc/xdg/autostart/perennial-session.desktop")
    }

    /// Shows the page *Configuration Manager* among a desktop's programs, where windows are installed.
    pub fn menu_entry(&self) -> PathBuf {
        self.root
            .join("usr/share/applications/perennial-wizard.desktop")
    }

    pub fn icon(&self) -> PathBuf {
        self.root
            .join("usr/share/icons/hicolor/scalable/apps/perennial-wizard.svg")
    }

    /// A file for each user who is logged in, where logind runs.
    pub fn logged_in_users(&self) -> PathBuf {
        self.root.join("run/systemd/users")
    }

    /// A file for each session, where logind runs.
    pub fn sessions(&self) -> PathBuf {
        self.root.join("run/systemd/sessions")
    }

    /// Who is logged in at which terminal (utmp(5)).
    pub fn log_ins(&self) -> PathBuf {
        self.root.join("run/utmp")
    }

    /// Terminals, among others.
    pub fn devices(&self) -> PathBuf {
        self.root.join("dev")
    }

    /// The folder of property lists of one level.
    pub fn preferences(&self, level: Level) -> PathBuf {
        match level {
            Level::Managed => self.configuration().join("managed"),
            Level::Root => self.state().join("preferences"),
            Level::Machine => self.configuration().join("preferences"),
        }
    }
}
