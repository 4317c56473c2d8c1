//! `perennial-wizard`: the windows of a client's user.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use jiff::tz::TimeZone;
use wizard::agent::Agent;
use wizard::instance::{Instance, Start};
use wizard::remind;
use wizard::theme::{self, Scheme};
use wizard::window::{LEAST_SIZE, Purpose, SIZE, Window};
use wizard::words::{Words, session_locale};
use wizard::worker::Worker;
use zeroizing_alloc::ZeroAlloc;

/// What is freed is overwritten: the toolkit copies what is typed into a field.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

const USAGE: &str = "\
Windows of Perennial's client.

Usage: perennial-wizard [renew | remind | enroll | preferences] [--socket PATH]

  renew         the Renew Certificate Wizard; closing it is the same as \"Remind me later\"
  remind        the same for a reminder: a notification while something fills the screen
  enroll        the enrollment wizard
  preferences   how this computer stands (the default)

Without a display, use: perennial-agent renew --user NAME";

struct Arguments {
    start: Start,
    socket: PathBuf,
}

enum Asked {
    Window(Arguments),
    Help,
    Version,
}

fn arguments() -> Result<Asked, String> {
    let mut start = Start {
        purpose: Purpose::Preferences,
        by_person: true,
    };
    let mut socket = PathBuf::from(wizard::agent::SOCKET);
    let mut given = std::env::args_os().skip(1);
    while let Some(argument) = given.next() {
        match argument.to_str() {
            Some("--socket") => {
                socket = given.next().ok_or("--socket needs a path")?.into();
            }
            Some("-h" | "--help") => return Ok(Asked::Help),
            Some("-V" | "--version") => return Ok(Asked::Version),
            name => match name.and_then(Start::named) {
                Some(named) => start = named,
                None => {
                    let argument = argument.display();
                    return Err(format!("unknown argument '{argument}'; see --help"));
                }
            },
        }
    }
    Ok(Asked::Window(Arguments { start, socket }))
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Asked::Window(arguments)) => arguments,
        Ok(Asked::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Version) => {
            println!("perennial-wizard {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let locale = session_locale();
    let words = Words::choose(None, &locale, TimeZone::UTC);
    if !has_display() {
        eprintln!("error: {}", words.no_display());
        return ExitCode::FAILURE;
    }
    if !arguments.start.by_person {
        let agent = Agent::at(&arguments.socket);
        if !remind::may_open(&agent, &locale, &TimeZone::system()) {
            return ExitCode::SUCCESS;
        }
    }
    // Without a place for the lock a second window is the smaller harm.
    let instance = match Instance::take(arguments.start) {
        Ok(None) => {
            eprintln!("{}", words.already_open());
            return ExitCode::SUCCESS;
        }
        Ok(Some(instance)) => Some(instance),
        Err(_) => None,
    };
    match open(
        arguments.start.purpose,
        instance,
        &arguments.socket,
        &locale,
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {} ({error})", words.no_display());
            ExitCode::FAILURE
        }
    }
}

fn has_display() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || set("DISPLAY") || set("WAYLAND_DISPLAY") || set("WAYLAND_SOCKET")
}

fn open(
    purpose: Purpose,
    instance: Option<Instance>,
    socket: &Path,
    locale: &str,
) -> eframe::Result {
    // Both take a moment, and the window does, too.
    let scheme = std::thread::spawn(Scheme::of_desktop);
    let fonts = std::thread::spawn(theme::platform_fonts);
    let options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("Perennial")
            .with_app_id("perennial-wizard")
            .with_inner_size(SIZE)
            .with_min_inner_size(LEAST_SIZE)
            .with_icon(theme::window_icon()),
        centered: true,
        ..Default::default()
    };
    eframe::run_native(
        "perennial-wizard",
        options,
        Box::new(move |creation| {
            let ctx = creation.egui_ctx.clone();
            theme::apply(&ctx, fonts.join().unwrap_or_else(|_| theme::own_fonts()));
            ctx.set_theme(scheme.join().unwrap_or(Scheme::Light).preference());
            let wake = Arc::new(move || ctx.request_repaint());
            let worker = Box::new(Worker::start(socket, wake));
            if let Some(instance) = instance {
                worker.hear_starts(instance);
            }
            let zone = TimeZone::system();
            Ok(Box::new(Window::new(purpose, worker, locale, zone)))
        }),
    )
}
