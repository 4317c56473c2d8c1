//! What a user's session gets: the session part's memory while it waits, and how soon a window shows
//! something, beside a dialog of GTK that asks for a password.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use acceptance::desktop::Desktop;
use acceptance::programs::{Client, Site, program, until};
use anyhow::{Context, Result, ensure};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{ConnectionExt, ImageFormat};
use x11rb::rust_connection::RustConnection;

use crate::peers::cpu;
use crate::report::Report;

const SETTLE: Duration = Duration::from_secs(3);
const LOOKS: usize = 5;

/// The middle of the screen, where windows open.
const PART: (i16, i16, u16, u16) = (440, 300, 400, 300);

/// An empty screen or an empty window has one colour; letters have many, as their edges are smoothed.
const COLOURS_OF_TEXT: usize = 8;

pub fn measure(report: &mut Report) -> Result<()> {
    eprintln!("windows: a site, a desktop in memory, {LOOKS} windows each");
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::installed()?;
    // The desktop's user finds programs and socket below it.
    std::fs::set_permissions(client.root(), Permissions::from_mode(0o755))?;
    client.enroll(&server, "ann")?.succeeded();
    let _daemon = client.daemon()?;
    let socket = client.root().join("run/perennial-agent/agent.sock");
    until("the agent listens", || Ok(socket.exists()))?;

    let mut session = Command::new(program("perennial-agent"));
    session.arg("session").arg("--root").arg(client.root());
    let mut session = Ended(session.stdin(Stdio::null()).spawn()?);
    thread::sleep(SETTLE);
    ensure!(session.0.try_wait()?.is_none(), "the session part ended");
    let mebibytes = cpu::rss_bytes(session.0.id())? as f64 / f64::from(1 << 20);
    report.row(
        "session part: resident memory",
        mebibytes,
        None,
        "MiB",
        "reach 4",
    );

    let desktop = Desktop::start("bench")?;
    let (x, screen) = x11rb::connect(Some(desktop.display()))?;
    let screen = Screen {
        root: x.setup().roots.get(screen).context("a screen")?.root,
        x,
    };
    program("perennial-wizard");
    let installed = client.root().join("usr/lib/perennial/perennial-wizard");
    let mut wizard = desktop.command(installed);
    wizard.arg("renew").arg("--socket").arg(&socket);
    let mut zenity = desktop.command("zenity");
    zenity.args(["--password", "--width=500", "--height=400"]);
    let mut ours = Vec::new();
    let mut peers = Vec::new();
    // The first ones read the files.
    for _ in 0..=LOOKS {
        for (command, times) in [(&mut wizard, &mut ours), (&mut zenity, &mut peers)] {
            times.push(screen.first_frame(command)?);
        }
    }
    let (ours, peers) = (median(ours), median(peers));
    report.row(
        "wizard: time to the first frame, against zenity --password",
        ours,
        Some(peers),
        "ms",
        "",
    );
    Ok(())
}

/// Killed when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Screen {
    x: RustConnection,
    root: u32,
}

impl Screen {
    /// Milliseconds from the start of a program until something is written on the screen.
    fn first_frame(&self, command: &mut Command) -> Result<f64> {
        let end = Instant::now() + Duration::from_secs(20);
        while self.colours()? > 1 {
            ensure!(Instant::now() < end, "the window before does not go away");
            thread::sleep(Duration::from_millis(10));
        }
        let start = Instant::now();
        let _window = Ended(command.spawn()?);
        loop {
            if self.colours()? >= COLOURS_OF_TEXT {
                return Ok(start.elapsed().as_secs_f64() * 1000.0);
            }
            ensure!(Instant::now() < end, "{command:?} shows nothing");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn colours(&self) -> Result<usize> {
        let (x, y, width, height) = PART;
        let format = ImageFormat::Z_PIXMAP;
        let asked = self
            .x
            .get_image(format, self.root, x, y, width, height, !0)?;
        let image = asked.reply()?.data;
        let mut seen: Vec<&[u8]> = Vec::new();
        for pixel in image.chunks_exact(4) {
            if !seen.contains(&pixel) {
                seen.push(pixel);
                if seen.len() >= COLOURS_OF_TEXT {
                    break;
                }
            }
        }
        Ok(seen.len())
    }
}

/// Without the first.
fn median(times: Vec<f64>) -> f64 {
    let mut times = times.get(1..).unwrap_or_default().to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
