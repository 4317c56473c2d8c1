//! Where a password may not be: in what screen readers are told, in the memory of programs that are done
//! with it, in files and logs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use acceptance::desktop::node;
use acceptance::programs::{PASSWORD, until};
use acceptance::secrets;
use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;

use crate::office::{Office, PASSWORD_PAGE, RENEWED, field, says};

#[test]
fn a_screen_reader_reads_the_password_page_and_no_password() -> Result<()> {
    let office = Office::asked_for_password("screen-reader")?;
    office.desktop.type_text(PASSWORD)?;
    // As many characters as were typed, and none of them.
    let mut page = Vec::new();
    until("all of it is typed", || {
        page = office.desktop.read()?;
        let typed = field(&page, "password text", "Password")?;
        Ok(typed.chars().count() == PASSWORD.len())
    })?;
    assert!(
        !says(&page, PASSWORD) && !says(&page, "correct"),
        "{page:#?}"
    );

    let window = page.iter().find(|node| node.role == "frame");
    let window = window.with_context(|| format!("{page:#?}"))?;
    assert_eq!(window.name, "Renew Certificate");
    for (role, name) in [
        ("heading", PASSWORD_PAGE),
        ("entry", "User name"),
        ("entry", "Server name"),
        ("password text", "Password"),
        ("push button", "Remind me later"),
        ("push button", "Back"),
        ("push button", "Renew"),
    ] {
        node(&page, role, name)?;
    }
    Ok(())
}

/// How often `secret` is in the memory of a process.
fn count_in_memory(process: u32, secret: &str) -> Result<usize> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let mut memory = File::open(format!("/proc/{process}/mem"))?;
    let mut count = 0;
    let mut read_something = false;
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').context("a mapping")?;
        let (start, end) = range.split_once('-').context("a range")?;
        let (start, end) = (
            u64::from_str_radix(start, 16)?,
            u64::from_str_radix(end, 16)?,
        );
        if !rest.starts_with("rw") || end - start > 1 << 30 {
            continue;
        }
        let mut part = vec![0; usize::try_from(end - start)?];
        memory.seek(SeekFrom::Start(start))?;
        // Of devices, nothing can be read.
        if memory.read_exact(&mut part).is_ok() {
            read_something = true;
            let windows = part.windows(secret.len());
            count += windows
                .filter(|window| *window == secret.as_bytes())
                .count();
        }
    }
    ensure!(read_something, "nothing could be read");
    Ok(count)
}

#[test]
fn a_password_that_was_used_stays_nowhere() -> Result<()> {
    let office = Office::asked_for_password("secrecy")?;
    office.desktop.type_text(PASSWORD)?;
    let wizard = office.wizard_process()?;
    // It is where it is typed: so this finds what it looks for.
    until("it is typed", || Ok(count_in_memory(wizard, PASSWORD)? > 0))?;

    office.desktop.press("Return")?;
    office.desktop.page(RENEWED)?;
    let agent = office.daemon.as_ref().context("a daemon")?.pid();
    // As it came from the window, as it went to the site (RFC 7617), and where the beginning of what was
    // freed is overwritten already.
    let sent = BASE64.encode(format!("ann:{PASSWORD}").as_bytes());
    let end = &PASSWORD[PASSWORD.len() - 8..];
    for (process, whose) in [(wizard, "the wizard's"), (agent, "the agent's")] {
        for secret in [PASSWORD, &sent, &sent[sent.len() - 12..], end] {
            let found = count_in_memory(process, secret)?;
            assert_eq!(found, 0, "{secret:?} in {whose} memory");
        }
    }
    secrets::assert_none(
        &office.site,
        &[&office.client],
        &[office.agent_log(), office.server().log()],
    )
}
