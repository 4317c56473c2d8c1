//! Scaled time and fault points are for test builds alone.

use std::path::Path;
use std::process::Command;

use acceptance::programs::{Client, Site, program, run, scaled_clock, until};
use anyhow::Result;

/// The year in which a site that is made under a test clock of the year 2050 believes to be made.
fn year_of_root(perennial: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let site = folder.path().join("site");
    let mut command = Command::new(perennial);
    command
        .args(["init", "--name", "Example", "--site"])
        .arg(&site);
    run(command.env("PERENNIAL_TEST_CLOCK", "0:2540000000:1"), "")?.succeeded();
    let root = site.join("keys/root.pem");
    let ran = run(
        Command::new("openssl")
            .args(["x509", "-noout", "-startdate", "-in"])
            .arg(root),
        "",
    )?;
    Ok(ran
        .out
        .split(' ')
        .nth_back(1)
        .unwrap_or_default()
        .to_owned())
}

#[test]
fn a_build_without_the_feature_ignores_the_test_clock() -> Result<()> {
    let test_build = program("perennial");
    let plain = test_build
        .parent()
        .expect("a folder")
        .join("plain/perennial");
    assert!(
        plain.exists(),
        "{} is not built; run: make programs",
        plain.display()
    );
    let scaled: u32 = year_of_root(&test_build)?.parse()?;
    let real: u32 = year_of_root(&plain)?.parse()?;
    // 2540000000 s after 1970 lies in 2050; half a century more than real time.
    assert!(
        scaled > real + 50,
        "test build {scaled}, plain build {real}"
    );
    Ok(())
}

#[test]
fn a_site_whose_clock_was_set_back_issues_nothing_until_somebody_accepts_it() -> Result<()> {
    let right = scaled_clock(1.0);
    let now: i64 = right.split(':').next().expect("a second").parse()?;
    let wrong = format!("{now}:{}:1", now - 400 * 86_400);
    let made = format!("{now}:{}:1", now - 500 * 86_400);
    let mut site = Site::with("sqlite", Some(made))?;
    site.set_clock(&right);
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    server.stop()?;

    site.set_clock(&wrong);
    let server = site.serve()?;
    let other = Client::new()?;
    let ran = other.enroll(&server, "ann")?;
    assert_eq!(ran.code, 5, "{ran:#?}");
    assert!(ran.err.contains("clock stepped"), "{ran:#?}");
    let shown = site.admin("clock show")?.succeeded().out;
    assert!(shown.contains("perennial clock accept"), "{shown}");

    site.admin("clock accept")?.succeeded();
    let again = site.admin("clock accept")?;
    assert!(
        again.code == 4 && again.err.contains("did not step"),
        "{again:#?}"
    );
    // Whoever lives in the accepted time can enroll.
    until("the listeners have certificates of the new time", || {
        Ok(Client::with(Some(&wrong))?.enroll(&server, "ann")?.code == 0)
    })?;
    let audit = site.admin("audit list --json")?.json();
    let noted = |action: &str| {
        let events = audit.as_array().into_iter().flatten();
        events.filter(|event| event["action"] == action).count()
    };
    assert_eq!(
        (noted("clock-stepped"), noted("clock-accepted")),
        (1, 1),
        "{audit}"
    );
    server.stop()?;

    // An accepted time is the one that counts at the next start.
    let _server = site.serve()?;
    let clock = site.admin("clock show --json")?.json();
    assert!(clock["stepped_to"].is_null(), "{clock}");
    Ok(())
}

#[test]
fn a_build_without_the_feature_cannot_be_killed_at_a_step() -> Result<()> {
    let test_build = program("perennial-agent");
    let plain = test_build
        .parent()
        .expect("a folder")
        .join("plain/perennial-agent");
    let journal = tempfile::NamedTempFile::new()?;
    let write = |agent: &Path| -> Result<i32> {
        let root = tempfile::tempdir()?;
        let mut command = Command::new(agent);
        command
            .args(["defaults", "--root"])
            .arg(root.path())
            .args(["write", "com.example", "key", "value"])
            .env("PERENNIAL_TEST_KILL_AT", "1")
            .env("PERENNIAL_TEST_JOURNAL", journal.path());
        Ok(run(&mut command, "")?.code)
    };
    assert_eq!(write(&plain)?, 0);
    assert_eq!(std::fs::read(journal.path())?, b"");
    assert_eq!(write(&test_build)?, -1, "the test build dies");
    Ok(())
}
