//! What an administrator refuses is refused at the next request.

use acceptance::programs::{Client, Site};
use anyhow::Result;

#[test]
fn blocked_revoked_retired_and_deleted_are_refused_at_once() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::installed()?;
    let enroll = || -> Result<(String, String)> {
        client.enroll(&server, "ann")?.succeeded();
        let status = client.status()?;
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        Ok((text("smsid"), text("serial")))
    };
    let refused = |reason: &str| -> Result<()> {
        for command in ["check-in", "renew"] {
            let ran = client.agent(command)?;
            assert_eq!(ran.code, 4, "{command}: {ran:#?}");
            assert!(ran.err.contains(reason), "{command}: {ran:#?}");
        }
        Ok(())
    };

    let (device, _) = enroll()?;
    site.admin(&format!("device block {device}"))?.succeeded();
    refused("the device is blocked")?;
    site.admin(&format!("device unblock {device}"))?.succeeded();
    client.agent("check-in")?.succeeded();

    let (_, serial) = enroll()?;
    site.admin(&format!(
        "certificate revoke {serial} --reason keyCompromise"
    ))?
    .succeeded();
    refused("the certificate is revoked")?;

    let (device, _) = enroll()?;
    site.admin(&format!("device revoke {device}"))?.succeeded();
    refused("the device is retired")?;

    let (device, serial) = enroll()?;
    site.admin(&format!("device delete {device}"))?.succeeded();
    refused("the device was deleted")?;
    let certificate = site
        .admin(&format!("certificate show {serial} --json"))?
        .json();
    assert_eq!(certificate["state"], "revoked");

    // The client goes on with a log-in.
    enroll()?;
    client.agent("check-in")?.succeeded();
    site.admin("audit verify")?.succeeded();
    Ok(())
}

#[test]
fn wrong_passwords_have_to_wait() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    for _ in 0..6 {
        assert_eq!(client.enroll_with(&server, "ann", "wrong horse")?.code, 4);
    }
    let ran = client.enroll(&server, "ann")?;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(
        ran.err.contains("too many wrong passwords; try again in"),
        "{ran:#?}"
    );
    Ok(())
}

#[test]
fn the_administrators_command_line_explains_its_mistakes() -> Result<()> {
    let site = Site::new()?;
    let _server = site.serve()?;
    for (words, code, says) in [
        ("device show nothing", 1, "there is no device `nothing`"),
        (
            "certificate show 00",
            2,
            "a serial number (32 hexadecimal digits)",
        ),
        (
            "certificate show 40000000000000000000000000000000",
            4,
            "there is no certificate",
        ),
        (
            "certificate list --expiring-within soon",
            2,
            "write a number and a unit: 90s, 15m, 8h, 45d, 2w",
        ),
        ("user remove nobody", 4, "there is no account `nobody`"),
    ] {
        let ran = site.admin(words)?;
        assert_eq!(ran.code, code, "{words}: {ran:#?}");
        assert!(ran.err.contains(says), "{words}: {ran:#?}");
    }
    let ran = site.admin_with("user add ann --password-stdin", "short")?;
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("at least 8 characters"), "{ran:#?}");
    site.add_user("ann")?;
    let ran = site.admin_with("user add ann --password-stdin", "correct horse")?;
    assert!(
        ran.code == 4 && ran.err.contains("exists already"),
        "{ran:#?}"
    );
    let csv = site.admin("user list --csv")?.succeeded().out;
    assert!(
        csv.starts_with("NAME,COMMON NAME,CREATED\nann,ann,20"),
        "{csv}"
    );
    // A wrong token, and a token that others could read.
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    std::fs::write(&token, "perennial-wrong\n")?;
    let words = format!("user list --token {}", token.display());
    let ran = site.admin(&words)?;
    assert!(
        ran.code == 1 && ran.err.contains("can be read by others"),
        "{ran:#?}"
    );
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600))?;
    let ran = site.admin(&words)?;
    assert!(
        ran.code == 4 && ran.err.contains("valid access token"),
        "{ran:#?}"
    );
    Ok(())
}

#[test]
fn a_blocked_computer_does_not_come_back_by_enrolling() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    let device = client.status()?["smsid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    site.admin(&format!("device block {device}"))?.succeeded();
    let ran = client.enroll(&server, "ann")?;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(ran.err.contains("the device is blocked"), "{ran:#?}");
    Ok(())
}

#[test]
fn a_refused_client_cannot_fill_the_audit_log() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    let device = client.status()?["smsid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    site.admin(&format!("device block {device}"))?.succeeded();
    for _ in 0..5 {
        assert_eq!(client.agent("check-in")?.code, 4);
    }
    let events = site.admin("audit list --json")?.json();
    let refused = events
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| event["action"] == "device-refused");
    assert_eq!(refused.count(), 1, "{events}");
    Ok(())
}

#[test]
fn a_looping_client_is_told_to_wait() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    for _ in 0..10 {
        client.agent("renew")?.succeeded();
    }
    let ran = client.agent("renew")?;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(
        ran.err
            .contains("this device renewed 10 times within an hour; try again in"),
        "{ran:#?}"
    );
    client.agent("check-in")?.succeeded();
    Ok(())
}

#[tokio::test]
async fn revocations_at_once_are_all_listed() -> Result<()> {
    use acceptance::est;
    use acceptance::programs::{PASSWORD, until};
    const DEVICES: usize = 12;
    let site = Site::new()?;
    site.without_limits()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        let key = x509::PrivateKey::generate();
        let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
        devices.push(est::certificate(&answer).device().expect("a device"));
    }
    std::thread::scope(|scope| {
        for device in &devices {
            let site = &site;
            scope.spawn(move || {
                site.admin(&format!("device delete {device}"))
                    .expect("runs")
                    .succeeded()
            });
        }
    });
    until("every revocation is on the list", || {
        let list = site.admin("crl show --json")?.json();
        Ok(list.as_array().map(Vec::len) == Some(DEVICES))
    })
}
