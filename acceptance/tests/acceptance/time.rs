//! Scaled time and fault points are for test builds alone.

use std::path::Path;
use std::process::Command;

use acceptance::programs::{program, run};
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
