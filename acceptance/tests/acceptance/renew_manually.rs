//! Compliance settings, in the words of the incumbent's procedure "Renew certificate manually".

use std::process::Command;
use std::time::{Duration, Instant};

use acceptance::programs::{Client, Ran, Site, run, until};
use anyhow::Result;

/// What the procedure calls the configuration item, its setting, its rule and its baseline.
const NAME: &str = "Remove SMSID for Mac";
const DISCOVERY: &str = "defaults read com.microsoft.ccmclient SMSID";
const REMEDIATION: &str = "defaults delete com.microsoft.ccmclient SMSID";
const ANSWER: &str = "The domain/default pair of (com.microsoft.ccmclient, SMSID) does not exist";
const COLLECTION: &str = "Macs that must renew the user certificates";

fn admin(site: &Site, words: &[&str]) -> Result<Ran> {
    let (first, rest) = words.split_first().expect("a command");
    run(site.command(first).args(rest), "")
}

/// A command of the agent on a machine that says it is a Mac.
fn on_a_mac(command: &mut Command) -> Result<Ran> {
    run(command.env("PERENNIAL_TEST_PLATFORM", "macOS:26.1"), "")
}

#[test]
fn the_procedure_renew_certificate_manually() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let mac = Client::installed()?;
    mac.enroll(&server, "ann")?.succeeded();
    let old = mac.status()?["smsid"]
        .as_str()
        .expect("an SMSID")
        .to_owned();

    // 1: a device collection for the Macs that must renew.
    admin(&site, &["collection", "create", COLLECTION])?.succeeded();
    admin(&site, &["collection", "add", COLLECTION, &old])?.succeeded();

    // 2 to 13: the Create Configuration Item Wizard.
    let scripts = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String> {
        let file = scripts.path().join(name);
        std::fs::write(&file, text)?;
        Ok(file.display().to_string())
    };
    let discovery = file("discovery.sh", DISCOVERY)?;
    let remediation = file("remediation.sh", REMEDIATION)?;
    admin(
        &site,
        &[
            "ci",
            "create",
            NAME,
            "--type",
            "macOS",
            "--setting",
            NAME,
            "--data-type",
            "string",
            "--discovery",
            &discovery,
            "--remediation",
            &remediation,
            "--rule",
            NAME,
            "--operator",
            "equals",
            "--value",
            ANSWER,
            "--remediate",
        ],
    )?
    .succeeded();

    // 14: a baseline, and its deployment. First one that only looks.
    admin(&site, &["baseline", "create", NAME, "--ci", NAME])?.succeeded();
    let deploy = [
        "deployment",
        "create",
        "--baseline",
        NAME,
        "--collection",
        COLLECTION,
    ];
    admin(&site, &deploy)?.succeeded();
    on_a_mac(&mut mac.command("check-in"))?.succeeded();
    let seen = on_a_mac(&mut mac.command("evaluate"))?;
    assert_eq!(seen.code, 1, "{seen:#?}");
    assert!(
        seen.out.contains("non-compliant") && seen.out.contains(&old),
        "{seen:#?}"
    );
    let shown = admin(&site, &["compliance", "device", &old])?
        .succeeded()
        .out;
    assert!(
        shown.contains(NAME) && shown.contains("non-compliant"),
        "{shown}"
    );

    // The history has seconds: what lasts no second is not in it.
    let begun = Instant::now();
    until("a second passes", || {
        Ok(begun.elapsed() > Duration::from_secs(1))
    })?;
    admin(&site, &["deployment", "set", "1", "--remediate"])?.succeeded();
    on_a_mac(&mut mac.command("check-in"))?.succeeded();
    let seen = on_a_mac(&mut mac.command("evaluate"))?.succeeded().out;
    assert!(seen.contains("remediated"), "{seen}");
    let seen = on_a_mac(&mut mac.command("evaluate"))?.succeeded().out;
    assert!(
        seen.contains(" compliant ") && !seen.contains("non-compliant"),
        "{seen}"
    );
    let read = mac.installed_tool(
        "defaults",
        &["read", "com.microsoft.ccmclient", "SMSID"],
        "",
    )?;
    assert_eq!(read.code, 1, "{read:#?}");
    assert!(read.err.trim_end().ends_with(ANSWER), "{read:#?}");

    // 15: on Macs that have the SMSID removed.
    let words = [
        "-s",
        &server.devices.to_string(),
        "-ignorecertchainvalidation",
        "-u",
        "ann",
        "--password-stdin",
    ];
    mac.installed_tool("CMEnroll", &words, acceptance::programs::PASSWORD)?
        .succeeded();
    let new = mac.status()?["smsid"]
        .as_str()
        .expect("an SMSID")
        .to_owned();
    assert_ne!(new, old);

    // The old record is obsolete, and its history is at hand.
    let shown = admin(&site, &["device", "show", &old, "--json"])?
        .succeeded()
        .json();
    assert_eq!(shown["device"]["state"], "obsolete");
    let shown = admin(&site, &["device", "show", &new])?.succeeded().out;
    assert!(shown.contains("Earlier records"), "{shown}");
    let history = admin(&site, &["compliance", "history", &new])?
        .succeeded()
        .out;
    for part in [NAME, "non-compliant", "remediated"] {
        assert!(history.contains(part), "{part}: {history}");
    }
    admin(&site, &["audit", "verify"])?.succeeded();
    until("the new record is in All Devices", || {
        let members = admin(&site, &["collection", "members", "All Devices", "--json"])?
            .succeeded()
            .out;
        Ok(members.contains(new.trim_start_matches("GUID:").to_lowercase().as_str()))
    })
}
