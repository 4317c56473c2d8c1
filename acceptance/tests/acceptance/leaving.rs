//! A computer leaves: nothing of the client stays, and its certificate is worth nothing.

use acceptance::programs::{Client, Site, until};
use acceptance::secrets;
use anyhow::Result;

fn revoked(site: &Site) -> Result<usize> {
    Ok(site
        .admin("crl show --json")?
        .json()
        .as_array()
        .map_or(0, Vec::len))
}

#[test]
fn uninstalling_takes_everything_along_and_revokes() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    std::fs::create_dir_all(client.root().join("usr/bin"))?;
    std::fs::write(client.root().join("usr/bin/other"), "")?;
    let before = client.tree()?;

    for round in 1..=2 {
        client.agent("install")?.succeeded();
        client.enroll(&server, "ann")?.succeeded();
        client.agent("check-in")?.succeeded();
        let mut daemon = client.daemon()?;
        until("the daemon runs", || {
            Ok(client.status()?["daemon_running"] == true)
        })?;
        let ran = client
            .installed_tool("CMUninstall", &["-c"], "")?
            .succeeded();
        assert!(
            ran.out.contains("is retired, 1 certificates revoked"),
            "{ran:#?}"
        );
        assert!(ran.out.contains("removed "), "{ran:#?}");
        until("the daemon ended", || daemon.has_ended())?;
        assert_eq!(client.tree()?, before, "round {round}");
        until("the certificate is on the list", || {
            Ok(revoked(&site)? == round)
        })?;
    }
    // Again: nothing to do, and said so.
    let ran = client.agent("uninstall -c")?.succeeded();
    assert!(ran.out.contains("nothing to remove"), "{ran:#?}");

    // Each enrollment after an uninstall was a new device.
    let devices = site.admin("device list --state retired --json")?.json();
    assert_eq!(devices.as_array().map(Vec::len), Some(2));
    Ok(())
}

#[test]
fn without_the_option_the_logs_stay() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::installed()?;
    client.enroll(&server, "ann")?.succeeded();
    let ran = client.agent("uninstall")?.succeeded();
    assert!(
        ran.out.contains("remove logs too: CMUninstall -c"),
        "{ran:#?}"
    );
    let left: Vec<_> = client
        .tree()?
        .into_iter()
        .filter(|path| path.is_file())
        .collect();
    assert_eq!(left, [client.root().join("var/log/perennial/agent.log")]);
    secrets::assert_none(&site, &[&client], &[server.log()])?;
    client.agent("uninstall -c")?.succeeded();
    assert!(client.tree()?.is_empty());
    Ok(())
}

#[test]
fn the_certificate_can_be_kept() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::installed()?;
    client.enroll(&server, "ann")?.succeeded();
    let ran = client.agent("uninstall --keep-certificate")?.succeeded();
    assert!(
        ran.out.contains("was not revoked: it is valid until"),
        "{ran:#?}"
    );
    assert_eq!(
        site.admin("certificate list --state valid --json")?
            .json()
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        site.admin("device list --state retired --json")?
            .json()
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    Ok(())
}

#[test]
fn with_the_site_away_it_says_what_stays_valid_and_how_to_revoke_it() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::installed()?;
    client.enroll(&server, "ann")?.succeeded();
    let status = client.status()?;
    let (serial, end) = (
        status["serial"].as_str().expect("a serial"),
        status["not_after"].as_str().expect("an end"),
    );
    server.stop()?;
    let ran = client.agent("uninstall -c")?.succeeded();
    assert!(
        ran.err
            .contains(&format!("the certificate stays valid until {end}")),
        "{ran:#?}"
    );
    let advice = format!("certificate revoke {serial} --reason cessationOfOperation");
    assert!(ran.err.contains(&format!("perennial {advice}")), "{ran:#?}");
    assert!(client.tree()?.is_empty());
    // The advice works.
    let _server = site.serve()?;
    site.admin(&advice)?.succeeded();
    until(
        "the certificate is on the list",
        || Ok(revoked(&site)? == 1),
    )
}

#[test]
fn a_broken_install_can_be_removed() -> Result<()> {
    let client = Client::installed()?;
    let identity = client.root().join("var/lib/perennial-agent/identity");
    std::fs::create_dir_all(identity.join("0001"))?;
    std::os::unix::fs::symlink("0001", identity.join("current"))?;
    std::fs::write(identity.join("0001/key.pem"), "garbage")?;
    std::fs::write(
        client.root().join("var/lib/perennial-agent/state.json"),
        "garbage",
    )?;
    assert_eq!(client.agent("status")?.code, 1);
    client.agent("uninstall -c")?.succeeded();
    assert!(client.tree()?.is_empty());
    Ok(())
}
