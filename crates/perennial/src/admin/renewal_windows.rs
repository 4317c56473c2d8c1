//! `perennial renewal-window`.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::bail;
use api::{ApiClient, NewRenewalWindow, PageQuery, RenewalWindowDetail};
use domain::RenewalScope;

use super::{Done, all, resolve};
use crate::cli::{Format, RenewalWindow, Scope};
use crate::output::{Column, done, list, print, record, to_the_second};

pub(super) async fn run(
    api: &ApiClient,
    command: RenewalWindow,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        RenewalWindow::Set {
            scope,
            start,
            spread,
            explanation_url,
        } => {
            let new = NewRenewalWindow {
                scope: chosen(api, scope).await?,
                start: start.0,
                spread: Some(spread),
                explanation_url,
            };
            let set = api.set_renewal_window(&new).await?;
            let number = set.window.number;
            let sentence = format!(
                "renewal window {number} covers {} devices\n\
                 their certificates are renewed from {} to {}\n\
                 follow it: perennial renewal-window show {number} --watch",
                set.covered,
                to_the_second(set.window.start),
                to_the_second(set.window.end),
            );
            done(format, &sentence, &set)
        }
        RenewalWindow::List => {
            let windows = all(async |after| {
                api.renewal_windows(&PageQuery {
                    after,
                    limit: Some(1000),
                })
                .await
            })
            .await?;
            let columns = [
                Column("NUMBER", "/number"),
                Column("COVERS", "/covers"),
                Column("FROM", "/start"),
                Column("TO", "/end"),
                Column("MADE", "/made_at"),
                Column("EXPLANATION", "/explanation_url"),
            ];
            list(format, &windows, &columns)
        }
        RenewalWindow::Show {
            number,
            watch: false,
        } => {
            let window = api.renewal_window(number).await?;
            let columns = [
                Column("Number", "/number"),
                Column("Covers", "/covers"),
                Column("From", "/start"),
                Column("To", "/end"),
                Column("Made", "/made_at"),
                Column("Explanation", "/explanation_url"),
                Column("Devices", "/covered"),
                Column("Renewed", "/renewed"),
                Column("Not yet", "/waiting"),
                Column("Not seen since", "/unseen"),
            ];
            record(format, &window, &columns)
        }
        RenewalWindow::Show {
            number,
            watch: true,
        } => watch(api, number, format).await,
        RenewalWindow::Remove { number } => {
            api.remove_renewal_window(number).await?;
            let sentence = format!(
                "removed renewal window {number}; what was not renewed yet goes back to its own"
            );
            done(format, &sentence, &Done {})
        }
    }
}

async fn chosen(api: &ApiClient, scope: Scope) -> anyhow::Result<RenewalScope> {
    Ok(match scope {
        Scope { all: true, .. } => RenewalScope::All,
        Scope {
            collection: Some(name),
            ..
        } => RenewalScope::Collection(name),
        Scope {
            device: Some(device),
            ..
        } => RenewalScope::Device(resolve(api, &device).await?),
        _ => bail!("say --all, --collection NAME or --device DEVICE"),
    })
}

/// Follows a window until all its devices have renewed: a line that is redrawn on a terminal, and
/// elsewhere a line for each change.
async fn watch(api: &ApiClient, number: i64, format: Format) -> anyhow::Result<()> {
    let redraw = std::io::stdout().is_terminal() && !format.json && !format.csv;
    let mut last = String::new();
    loop {
        let asked = Instant::now();
        let window = api.renewal_window(number).await?;
        let line = if format.json {
            serde_json::to_string(&window)?
        } else {
            progress(&window)
        };
        if line != last {
            if redraw {
                // Back to the line's beginning, and what was there is erased.
                let mut out = std::io::stdout();
                write!(out, "\r\u{1b}[2K{} {line}", bar(&window))?;
                out.flush()?;
            } else {
                print(&line)?;
            }
            last = line;
        }
        if window.waiting == 0 && window.unseen == 0 {
            if redraw {
                print("")?;
            }
            return Ok(());
        }
        // The site looks at every device for this: it is not asked all the time.
        let wait = Duration::from_secs(2).max(asked.elapsed() * 10);
        tokio::time::sleep(wait).await;
    }
}

fn progress(window: &RenewalWindowDetail) -> String {
    format!(
        "{} of {} renewed, {} not yet, {} not seen since",
        window.renewed, window.covered, window.waiting, window.unseen
    )
}

fn bar(window: &RenewalWindowDetail) -> String {
    const WIDTH: i64 = 24;
    let full = match window.covered {
        0 => WIDTH,
        covered => window.renewed * WIDTH / covered,
    };
    let full = usize::try_from(full).unwrap_or(0);
    format!("[{:<1$}]", "#".repeat(full), WIDTH as usize)
}
