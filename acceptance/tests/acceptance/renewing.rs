//! A certificate is renewed silently.

use std::os::unix::fs::PermissionsExt;

use acceptance::programs::{Client, Site, scaled_clock, until};
use acceptance::secrets;
use anyhow::Result;

/// A year in about thirteen seconds.
const FACTOR: f64 = 2_400_000.0;

#[test]
fn a_year_passes_and_nobody_is_asked() -> Result<()> {
    let clock = scaled_clock(FACTOR);
    let site = Site::with("sqlite", Some(clock.clone()))?;
    site.configure(|text| {
        text.replace("check_in_interval = \"1h\"", "check_in_interval = \"14d\"")
    })?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::with(Some(&clock))?;
    client.agent("install")?.succeeded();
    let hooks = client.root().join("etc/perennial/renewed.d");
    let seen = client.root().join("renewed");
    let hook = hooks.join("10-tell");
    std::fs::write(
        &hook,
        format!(
            "#!/bin/sh\nls -l \"$PERENNIAL_KEY_FILE\" \"$PERENNIAL_CERTIFICATE_FILE\" >>{}\n",
            seen.display()
        ),
    )?;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
    client.enroll(&server, "ann")?.succeeded();
    let before = client.status()?;
    let daemon = client.daemon()?;
    until("the certificate was renewed twice", || {
        let list = site.admin("certificate list --json")?.json();
        let used = list
            .as_array()
            .into_iter()
            .flatten()
            .filter(|row| !row["first_used_at"].is_null());
        Ok(used.count() >= 3)
    })?;
    let after = client.status()?;
    assert_eq!(after["smsid"], before["smsid"], "the identifier stays");
    assert_ne!(after["serial"], before["serial"]);
    assert!(std::fs::read_to_string(&seen)?.contains("certificate.pem"));

    // One device, one valid certificate, the ones before superseded.
    let devices = site.admin("device list --json")?.json();
    assert_eq!(devices.as_array().map(Vec::len), Some(1));
    let list = site
        .admin("certificate list --state superseded --json")?
        .json();
    assert!(
        list.as_array().is_some_and(|rows| rows.len() >= 2),
        "{list}"
    );
    site.admin("audit verify")?.succeeded();
    secrets::assert_none(&site, &[&client], &[server.log(), daemon.log()])
}

#[test]
fn renewing_by_hand_and_checking_in() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    for command in ["renew", "check-in"] {
        let ran = client.agent(command)?;
        assert_eq!(ran.code, 3, "{ran:#?}");
        assert!(ran.err.contains("enroll it: CMEnroll -s"), "{ran:#?}");
    }
    client.enroll(&server, "ann")?.succeeded();
    let first = client.status()?;
    client.agent("renew")?.succeeded();
    let second = client.status()?;
    assert_ne!(first["serial"], second["serial"]);
    assert_eq!(first["smsid"], second["smsid"]);
    assert!(!second["window"].is_null() && !second["renew_at"].is_null());
    client.agent("check-in")?.succeeded();

    let log = server.stop()?;
    for command in ["renew", "check-in"] {
        let ran = client.agent(command)?;
        assert_eq!(ran.code, 5, "{ran:#?}");
    }
    assert_eq!(
        client.status()?["serial"],
        second["serial"],
        "a failed renewal changes nothing"
    );
    secrets::assert_none(&site, &[&client], &[log])
}

/// The states that killing the agent during a renewal leaves behind, each made by hand.
#[test]
fn a_client_that_was_killed_while_it_renewed_goes_on() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    let smsid = client.status()?["smsid"].clone();
    let identity = client.root().join("var/lib/perennial-agent/identity");
    let newest = || -> Result<std::path::PathBuf> {
        Ok(identity.join(std::fs::read_link(identity.join("current"))?))
    };
    let point_to = |generation: &std::path::Path| -> Result<()> {
        std::fs::remove_file(identity.join("current"))?;
        let name = generation.file_name().expect("a generation");
        Ok(std::os::unix::fs::symlink(name, identity.join("current"))?)
    };
    let old = newest()?;
    client.agent("renew")?.succeeded();
    let new = newest()?;
    let serial = client.status()?["serial"].clone();

    // Killed before the link moved: the site refuses the old one already.
    point_to(&old)?;
    client.agent("check-in")?.succeeded();
    assert_eq!(client.status()?["serial"], serial);

    // Killed before the folder moved, too: the staged certificate was used once.
    let old = newest()?;
    client.agent("renew")?.succeeded();
    let new_serial = client.status()?["serial"].clone();
    let new = {
        drop(new);
        newest()?
    };
    point_to(&old)?;
    std::fs::rename(&new, identity.join("pending"))?;
    // A wrong password meanwhile must not cost the staged identity.
    assert_eq!(client.enroll_with(&server, "ann", "wrong horse")?.code, 4);
    client.agent("check-in")?.succeeded();
    assert_eq!(client.status()?["serial"], new_serial);
    assert_eq!(client.status()?["smsid"], smsid);

    // Killed right after a first enrollment's folder moved: there is no link at all.
    std::fs::remove_file(identity.join("current"))?;
    client.agent("check-in")?.succeeded();
    assert_eq!(client.status()?["serial"], new_serial);

    // Killed after the answer was lost: the key is there, the certificate is not.
    let before = site.admin("certificate list --json")?.json();
    client.agent("renew")?.succeeded();
    let after = site.admin("certificate list --json")?.json();
    let count = |list: &serde_json::Value| list.as_array().map_or(0, Vec::len);
    assert_eq!(count(&after), count(&before) + 1);
    assert_eq!(
        site.admin("device list --json")?
            .json()
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    secrets::assert_none(&site, &[&client], &[server.log()])
}
