//! The agent between due times: how much memory it holds, and how often it wakes up.

use std::time::Duration;

use acceptance::programs::{Client, Site, until};
use anyhow::Result;

use crate::peers::cpu;
use crate::report::Report;

const SETTLE: Duration = Duration::from_secs(3);
const WATCH: Duration = Duration::from_secs(20);

pub fn measure(report: &mut Report) -> Result<()> {
    eprintln!("the idle agent: {} s", (SETTLE + WATCH).as_secs());
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    // A check-in of its own first: TLS and HTTP have left their traces in memory.
    let state = client.root().join("var/lib/perennial-agent/state.json");
    std::fs::remove_file(state)?;
    let daemon = client.daemon()?;
    until("the daemon checked in", || {
        Ok(!client.status()?["last_check_in"].is_null())
    })?;
    std::thread::sleep(SETTLE);
    let before = cpu::voluntary_switches(daemon.pid())?;
    std::thread::sleep(WATCH);
    let wakes = cpu::voluntary_switches(daemon.pid())? - before;
    let mebibytes = cpu::rss_bytes(daemon.pid())? as f64 / f64::from(1 << 20);
    report.row(
        "idle agent: resident memory",
        mebibytes,
        None,
        "MiB",
        "must 8",
    );
    report.row(
        format!("idle agent: wake-ups in {} s", WATCH.as_secs()),
        wakes as f64,
        None,
        "wake-ups",
        "must 0",
    );
    Ok(())
}
