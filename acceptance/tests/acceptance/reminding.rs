//! Reminders without windows: on terminals and by a program of the administrator.

use std::os::unix::fs::PermissionsExt;

use acceptance::programs::{Client, PASSWORD, Site, run, until};
use anyhow::Result;

/// A record of utmp(5): a user is logged in at `line`.
fn log_in(line: &str) -> Vec<u8> {
    let mut record = vec![0; 384];
    record[..2].copy_from_slice(&7_i16.to_ne_bytes());
    record[8..8 + line.len()].copy_from_slice(line.as_bytes());
    record
}

#[test]
fn people_are_reminded_and_renew_on_the_terminal() -> Result<()> {
    let site = Site::new()?;
    site.configure(|text| {
        text.replace("renewal_mode = \"automatic\"", "renewal_mode = \"prompt\"")
    })?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::installed()?;
    client.enroll(&server, "ann")?.succeeded();

    let terminal = client.root().join("dev/pts/7");
    std::fs::create_dir_all(client.root().join("dev/pts"))?;
    std::fs::write(&terminal, "")?;
    std::fs::create_dir_all(client.root().join("run"))?;
    std::fs::write(client.root().join("run/utmp"), log_in("pts/7"))?;
    let program = client.root().join("remind");
    let told = client.root().join("told");
    let script = format!(
        "#!/bin/sh\nenv | grep ^PERENNIAL_REMINDER_ >>{}\n",
        told.display()
    );
    std::fs::write(client.root().join("remind.part"), script)?;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(client.root().join("remind.part"), mode)?;
    std::fs::rename(client.root().join("remind.part"), &program)?;
    // A first period of a year: the first reminder is due at once.
    for (key, value) in [
        ("RenewalReminderProgram", program.display().to_string()),
        ("RenewalPeriod1", "31536000".to_owned()),
    ] {
        let words = ["write", "com.microsoft.ccmclient", key, "-string", &value];
        client.installed_tool("defaults", &words, "")?.succeeded();
    }

    let _daemon = client.daemon()?;
    until("a reminder came", || Ok(told.exists()))?;
    let notice = std::fs::read_to_string(&terminal)?;
    assert!(notice.contains("certificate expires in"), "{notice}");
    assert!(
        notice.contains("perennial-agent renew --user ann"),
        "{notice}"
    );
    until("the program was told", || {
        let told = std::fs::read_to_string(&told)?;
        Ok(told.contains("PERENNIAL_REMINDER_STAGE=first-period")
            && told.contains("PERENNIAL_REMINDER_USER=ann"))
    })?;

    let before = client.status_of_any()?;
    assert_eq!(before["renewal_mode"], "prompt");
    let mut command = client.command("renew");
    let ran = run(
        command.args(["--user", "ann", "--password-stdin"]),
        PASSWORD,
    )?;
    assert!(ran.succeeded().err.contains("Renewed."));
    let after = client.status_of_any()?;
    assert_ne!(after["serial"], before["serial"]);
    assert_eq!(after["smsid"], before["smsid"]);
    Ok(())
}

#[test]
fn settings_that_do_nothing_say_why() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::installed()?;
    let write = |words: &[&str]| -> Result<()> {
        let words = [&["write", "com.microsoft.ccmclient"], words].concat();
        client.installed_tool("defaults", &words, "")?.succeeded();
        Ok(())
    };
    // The source's example, and what does not work.
    write(&["RenewalPeriod1", "1728000"])?;
    write(&["RenewalPeriod2", "-int", "86400"])?;
    write(&["RenewalReminderInterval1", "299"])?;
    client.enroll(&server, "ann")?.succeeded();
    let expected = [
        "RenewalPeriod1           20d (1728000 s), level root",
        "RenewalPeriod2           3d (259200 s), default: a value of type integer on level root is not a string",
        "RenewalReminderInterval1 1d (86400 s), default: \"299\" on level root has to be more than 300 seconds",
        "RenewalReminderInterval2 8h (28800 s), default",
    ];
    let status = client.agent("status")?.succeeded().out;
    let name = client.status()?["smsid"].as_str().expect("one").to_owned();
    let shown = site.admin(&format!("device show {name}"))?.succeeded().out;
    for line in expected {
        assert!(status.contains(line), "{line}\n{status}");
        let words: Vec<_> = line.split_whitespace().collect();
        let found = shown
            .lines()
            .any(|shown| shown.split_whitespace().eq(words.iter().copied()));
        assert!(found, "{line}\n{shown}");
    }
    // The window follows the first period: 365 d less 20 d lies behind it.
    let settings = &client.status()?["renewal_settings"];
    assert_eq!(settings[0]["effective"], 1_728_000, "{settings}");
    assert_eq!(settings[1]["level"], "root", "{settings}");
    Ok(())
}
