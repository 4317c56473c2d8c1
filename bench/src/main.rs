//! `make bench`: the site and its agent beside the field's peers, in one run on one machine. Prints
//! a table of ratios and writes `target/bench.json`. Nothing here is a timed test: it measures.

mod check_ins;
mod evaluations;
mod idle;
mod peers;
mod renewals;
mod report;

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
            .args(std::env::args_os().skip(1))
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
    let is_asked = |what: &str| named.is_empty() || named.iter().any(|name| name == what);
    let measures: [(&str, &dyn Fn(&mut Report) -> Result<()>); 4] = [
        ("silent renewals", &|report| {
            runtime.block_on(renewals::measure(report))
        }),
        ("cold check-ins", &|report| {
            runtime.block_on(check_ins::measure(report))
        }),
        ("the idle agent", &idle::measure),
        ("evaluations", &evaluations::measure),
    ];
    for (what, measure) in measures {
        if is_asked(what)
            && let Err(error) = measure(&mut report)
        {
            report.not_measured(what, &format!("{error:#}"));
        }
    }
    report.print();
    report.write(Path::new("target/bench.json"))
}
