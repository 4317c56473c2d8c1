//! `evaluate`: the baselines that are deployed to this computer, now.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use domain::ComplianceState;

use crate::cli::Evaluate;
use crate::compliance::{self, Found, Line, Outcome, Selection};
use crate::failure::Failure;
use crate::identity::Machine;

/// The exit code when there is no result.
pub const NOT_EVALUATED: u8 = 2;
const NOT_COMPLIANT: u8 = 1;

pub async fn run(machine: &Machine, arguments: &Evaluate) -> Result<ExitCode, Failure> {
    crate::log::start(&machine.layout, false);
    machine.enrolled()?;
    let selection = match &arguments.baseline {
        None => Selection::All,
        Some(baseline) => Selection::Of(baseline.clone()),
    };
    let mut progress = Progress::start();
    let remediate = !arguments.no_remediation;
    let evaluated =
        compliance::evaluate(machine, &selection, remediate, |line| progress.take(line)).await;
    progress.end();
    let outcome = evaluated?;
    deliver(machine).await;
    if arguments.json {
        super::print_json(&outcome.found)?;
    } else {
        print!("{}", table(&outcome.found));
    }
    for broken in &outcome.broken {
        eprintln!("warning: not evaluated: {broken}");
    }
    Ok(ExitCode::from(exit_code(&outcome)))
}

/// The daemon sends the results, where one runs.
async fn deliver(machine: &Machine) {
    if machine.daemon().is_some() {
        machine.wake_daemon();
        return;
    }
    if let Err(failure) = compliance::deliver(machine).await {
        eprintln!("warning: the site does not have the results yet: {failure}");
    }
}

fn exit_code(outcome: &Outcome) -> u8 {
    let counts = |found: &&Found| found.state != ComplianceState::NotApplicable;
    let mut counted = outcome.found.iter().filter(counts);
    if !outcome.broken.is_empty() && outcome.found.is_empty() {
        return NOT_EVALUATED;
    }
    let compliant = counted.all(|found| found.state.is_compliant());
    match compliant && outcome.broken.is_empty() {
        true => 0,
        false => NOT_COMPLIANT,
    }
}

/// What was found out, a line for each rule.
fn table(found: &[Found]) -> String {
    if found.is_empty() {
        return "no baseline is deployed to this computer\n".to_owned();
    }
    let row = |found: &Found| {
        [
            format!("{} / {}", found.item, found.name),
            found.state.to_string(),
            one_line(found.value.as_deref()),
            one_line(found.reason.as_deref()),
        ]
    };
    let head = ["RULE", "STATE", "VALUE", "REASON"].map(str::to_owned);
    let mut found: Vec<&Found> = found.iter().collect();
    found.sort_by(|a, b| (&a.item, &a.name).cmp(&(&b.item, &b.name)));
    let rows: Vec<[String; 4]> = std::iter::once(head)
        .chain(found.into_iter().map(row))
        .collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line += &format!("{cell:<width$}  ");
        }
        line += &row[3];
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

/// The beginning of a value or a reason.
fn one_line(text: Option<&str>) -> String {
    const SHOWN: usize = 60;
    let text = text.unwrap_or_default().replace(['\n', '\t'], " ");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// How far it is, on a terminal.
struct Progress {
    on_terminal: bool,
    settings: usize,
    discovered: usize,
}

impl Progress {
    fn start() -> Self {
        Self {
            on_terminal: std::io::stderr().is_terminal(),
            settings: 0,
            discovered: 0,
        }
    }

    fn take(&mut self, line: &Line) {
        match line {
            Line::Begun { settings, .. } => self.settings = *settings,
            Line::Discovered => self.discovered += 1,
            Line::Remediating { rule } => return self.show(&format!("Remediating {rule} …")),
            _ => return,
        }
        self.show(&format!(
            "Evaluating … {} of {} settings",
            self.discovered, self.settings
        ));
    }

    fn show(&self, text: &str) {
        if self.on_terminal {
            // Back to the line's begin, and what is there is erased.
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    }

    fn end(&self) {
        self.show("");
    }
}
