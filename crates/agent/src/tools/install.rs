//! `install`: puts this program, the incumbent's tools and the service in place. Repeating it
//! upgrades.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::failure::Failure;
use crate::files;
use crate::identity::Machine;
use crate::platform;
use crate::session;

/// Names under which the agent is a tool of its own.
pub const TOOLS: [&str; 4] = ["CMEnroll", "CMUninstall", "CMDiagnostics", "defaults"];

/// The windows of users, where they are installed.
pub const WIZARD: &str = "perennial-wizard";

pub fn run(machine: &Machine) -> Result<(), Failure> {
    let layout = &machine.layout;
    files::make_folder(&layout.tools(), 0o755)?;
    let own = std::env::current_exe()?;
    if own != layout.program() {
        place(&own, &layout.program())?;
        // A computer without desktops has no windows.
        for name in [session::PROGRAM, WIZARD] {
            let program = own.with_file_name(name);
            if program.exists() {
                place(&program, &layout.programs().join(name))?;
            }
        }
    }
    for tool in TOOLS {
        link(Path::new("../perennial-agent"), &layout.tools().join(tool))?;
    }
    let wizard = layout.programs().join(WIZARD);
    if wizard.exists() {
        put(
            &layout.menu_entry(),
            include_bytes!("../../../../packaging/linux/perennial-wizard.desktop"),
        )?;
        put(
            &layout.icon(),
            include_bytes!("../../../../packaging/linux/perennial-wizard.svg"),
        )?;
    }
    files::make_folder(layout.command().parent().unwrap_or(Path::new("/")), 0o755)?;
    link(
        Path::new("../lib/perennial/perennial-agent"),
        &layout.command(),
    )?;
    put(
        &layout.service(),
        include_bytes!("../../../../packaging/linux/perennial-agent.service"),
    )?;
    put(
        &layout.autostart(),
        include_bytes!("../../../../packaging/linux/perennial-session.desktop"),
    )?;
    files::make_folder(&layout.state(), 0o700)?;
    files::make_folder(&layout.hooks(), 0o755)?;

    println!("installed {}", layout.program().display());
    if wizard.exists() {
        println!("windows   {}", wizard.display());
    }
    println!(
        "tools     {} ({})",
        layout.tools().display(),
        TOOLS.join(", ")
    );
    if layout.is_machine() {
        if let Some(trouble) = platform::start_service() {
            eprintln!("warning: the service was not started: {trouble}");
        } else {
            println!("service   perennial-agent");
        }
    }
    println!(
        "next      {} -s <server> -u <user name>",
        layout.tools().join("CMEnroll").display()
    );
    Ok(())
}

/// Copies a program. Whoever starts it meanwhile gets the old one or the new one.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    let part = to.with_extension("part");
    fs::copy(from, &part).map_err(|error| files::named(from, &error))?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
    fs::rename(&part, to)
}

/// Writes a file of the system, for everybody to read.
fn put(file: &Path, content: &[u8]) -> io::Result<()> {
    files::make_folder(file.parent().unwrap_or(Path::new("/")), 0o755)?;
    files::replace(file, content, 0o644)
}

fn link(target: &Path, link: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(files::named(link, &error));
        }
        _ => {}
    }
    symlink(target, link).map_err(|error| files::named(link, &error))
}
