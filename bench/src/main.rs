//! `make bench`: the site and its agent beside the field's peers, in one run on one machine. Prints
//! a table of ratios and writes `target/bench.json`. Nothing here is a timed test: it measures.

mod check_ins;
mod compliance;
mod evaluations;
mod idle;
mod memberships;
mod peers;
mod renewals;
mod report;
mod windows;

use std::path::Path;

use anyhow::Result;

use report::Report;

fn main() -> Result<()> {
    // The release programs, beside this one.
    let own = std::env::current_exe()?;
    let programs = own
        .parent()
        .unwrap_or(Path::new("target/release"))
        .to_owned();
    // Nothing else runs yet that could read the environment.
    let programs = programs.to_string_lossy().into_owned();
    if std::env::var_os("PERENNIAL_PROGRAMS").is_none() {
        let status = std::process::Command::new(&own)
            .args(std::env::args().skip(1))
            .env("PERENNIAL_PROGRAMS", programs)
            .status()?;
        std::process::exit(status.code().unwrap_or(1));
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut report = Report::new();
    // All of them, or those that are named.
    let named: Vec<String> = std::env::args().skip(1).collect();
    for what in [
        "renewals",
        "check-ins",
        "memberships",
        "results",
        "history",
        "evaluations",
        "idle",
        "windows",
    ] {
        if !named.is_empty() && !named.iter().any(|name| name == what) {
            continue;
        }
        let measured = match what {
            "renewals" => runtime.block_on(renewals::measure(&mut report)),
            "check-ins" => runtime.block_on(check_ins::measure(&mut report)),
            "memberships" => runtime.block_on(memberships::measure(&mut report)),
            "results" => runtime.block_on(compliance::measure_intake(&mut report)),
            "history" => runtime.block_on(compliance::measure_history(&mut report)),
            "evaluations" => evaluations::measure(&mut report),
            "idle" => idle::measure(&mut report),
            _ => windows::measure(&mut report),
        };
        if let Err(error) = measured {
            report.not_measured(what, &format!("{error:#}"));
        }
    }
    report.print();
    report.write(Path::new("target/bench.json"))
}
