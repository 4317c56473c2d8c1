//! `uninstall` and `CMUninstall`: takes leave of the site, then removes everything that the agent
//! put on this computer. Works with a broken install and with a certificate that the site refuses.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::Leave;
use rustix::process::{Signal, kill_process, test_kill_process};

use crate::cli::Uninstall;
use crate::failure::Failure;
use crate::identity::Machine;
use crate::platform::{self, Layout};
use crate::renewal;
use crate::site::SiteClient;

pub async fn run(machine: &Machine, arguments: &Uninstall) -> Result<(), Failure> {
    let layout = &machine.layout;
    if layout.is_machine()
        && let Some(trouble) = platform::stop_service()
    {
        eprintln!("warning: the service: {trouble}");
    }
    stop_daemon(machine).await?;
    if layout.identity().exists() {
        let _lock = machine.lock().await?;
        take_leave(machine, arguments).await;
    }
    let Removed {
        paths: removed,
        failures,
    } = remove_all(layout, arguments.clean_logs);
    if removed.is_empty() {
        println!("nothing to remove: the agent is not installed");
    }
    for path in removed {
        println!("removed {path}");
    }
    if !arguments.clean_logs && layout.logs().exists() {
        println!(
            "kept    {} (remove logs too: CMUninstall -c)",
            layout.logs().display()
        );
    }
    match &failures[..] {
        [] => Ok(()),
        failures => Err(Failure::other(format!(
            "not everything could be removed; mend this and run it again:\n  {}",
            failures.join("\n  ")
        ))),
    }
}

/// Tells the site. Whatever it answers, the removal goes on; what stays valid is said.
async fn take_leave(machine: &Machine, arguments: &Uninstall) {
    // A certificate that was on its way is the one that the site knows.
    let _ = renewal::resume(machine).await;
    let identity = match machine.enrolled() {
        Ok(identity) => identity,
        Err(Failure::NotEnrolled) => return,
        Err(failure) => {
            eprintln!(
                "warning: the identity cannot be read ({failure}), so the site was not told: an \
                 administrator has to revoke this computer (perennial device list)"
            );
            return;
        }
    };
    let site = &identity.site;
    let certificate = &identity.certificate;
    let serial = certificate
        .serial()
        .map(|serial| serial.to_string())
        .unwrap_or_default();
    if certificate.not_after() <= machine.now() {
        println!(
            "the certificate expired on {}: the site was not told",
            certificate.not_after()
        );
        return;
    }
    let leave = Leave {
        keep_certificate: arguments.keep_certificate,
    };
    let answer = match SiteClient::new(site, Some(&identity), machine) {
        Ok(client) => client.leave(leave).await,
        Err(failure) => Err(failure),
    };
    match answer {
        Ok(answer) if arguments.keep_certificate => {
            println!("left {}: {} is retired", site.server, answer.device);
            println!(
                "the certificate {serial} was not revoked: it is valid until {}",
                certificate.not_after()
            );
        }
        Ok(answer) => {
            println!(
                "left {}: {} is retired, {} certificates revoked",
                site.server, answer.device, answer.revoked
            );
        }
        Err(failure) => {
            eprintln!("warning: the site did not take the leave: {failure}");
            eprintln!(
                "warning: unless it is revoked already, the certificate stays valid until {}; \
                 an administrator revokes it with\n  perennial certificate revoke {serial} --reason cessationOfOperation",
                certificate.not_after()
            );
        }
    }
}

async fn stop_daemon(machine: &Machine) -> Result<(), Failure> {
    let Some(pid) = machine.daemon() else {
        return Ok(());
    };
    let _ = kill_process(pid, Signal::TERM);
    for _ in 0..100 {
        if test_kill_process(pid).is_err() || machine.daemon().is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Failure::other(format!(
        "the agent (process {}) does not stop; nothing was removed",
        pid.as_raw_nonzero()
    )))
}

/// What a removal did.
#[derive(Default)]
struct Removed {
    paths: Vec<String>,
    failures: Vec<String>,
}

impl Removed {
    fn note(&mut self, path: &Path, done: io::Result<()>) {
        match done {
            Ok(()) => self.paths.push(path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.failures.push(format!("{}: {error}", path.display())),
        }
    }
}

/// Removes what the agent put here. What cannot be removed does not keep the rest.
fn remove_all(layout: &Layout, logs: bool) -> Removed {
    let mut removed = Removed::default();
    // What a script mounted where it worked is nobody's business any more, and is not ours to delete.
    match platform::remove_folder(&layout.work()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            removed.note(&layout.work(), Err(error));
        }
        _ => {}
    }
    // Keys first: should the removal be cut off, they are gone.
    for folder in [
        layout.identity(),
        layout.state(),
        layout.programs(),
        layout.runtime(),
    ] {
        removed.note(&folder, remove_unless_mounted(&folder));
    }
    let wants = layout.service().with_file_name("multi-user.target.wants");
    for file in [
        layout.service(),
        wants.join("perennial-agent.service"),
        layout.command(),
        layout.autostart(),
        layout.menu_entry(),
        layout.icon(),
    ] {
        removed.note(&file, fs::remove_file(&file));
    }
    if logs {
        removed.note(&layout.logs(), remove_unless_mounted(&layout.logs()));
    }
    // The administrator's folder goes only as far as it is empty: what lies there is not ours.
    for folder in [layout.hooks(), layout.configuration()] {
        if let Ok(()) = fs::remove_dir(&folder) {
            removed.paths.push(folder.display().to_string());
        } else if folder.exists() {
            println!("kept    {} (not empty)", folder.display());
        }
    }
    remove_empty_ancestors(layout);
    removed
}

/// Removes a folder, unless somebody mounted something in it: that is not ours to delete.
fn remove_unless_mounted(folder: &Path) -> io::Result<()> {
    match &platform::mounted_below(folder)?[..] {
        [] => fs::remove_dir_all(folder),
        [mount, ..] => Err(io::Error::other(format!(
            "{} is mounted there: unmount it first",
            mount.display()
        ))),
    }
}

/// Below a root of its own, the folders of a system that only installing made.
fn remove_empty_ancestors(layout: &Layout) {
    if layout.is_machine() {
        return;
    }
    for path in [
        layout.service(),
        layout.command(),
        layout.programs(),
        layout.state(),
        layout.logs(),
        layout.runtime(),
        layout.autostart(),
        layout.menu_entry(),
        layout.icon(),
    ] {
        let mut folder = path.parent();
        while let Some(empty) = folder.filter(|folder| *folder != layout.root()) {
            if fs::remove_dir(empty).is_err() {
                break;
            }
            folder = empty.parent();
        }
    }
}
