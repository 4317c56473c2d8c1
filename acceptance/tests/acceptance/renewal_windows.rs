//! An administrator moves renewals: many at once, before their time.

use acceptance::programs::{Client, Site, run, until};
use acceptance::{est, programs::PASSWORD};
use anyhow::{Context, Result};
use serde_json::Value;
use std::process::Command;

#[tokio::test]
async fn a_fleet_renews_when_an_administrator_says_so() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    let before = client.status()?;
    let device = before["smsid"].as_str().context("an SMSID")?;
    // A second one that is switched off.
    let key = x509::PrivateKey::generate();
    let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
    let off = est::certificate(&answer).device().context("a device")?;

    site.admin("collection create Labs")?.succeeded();
    site.admin(&format!("collection add Labs {device} {off}"))?
        .succeeded();
    let words = "renewal-window set --collection Labs --start 2026-01-01T00:00:00Z --spread 1h \
                 --explanation-url https://example.com/why";
    let said = site.admin(words)?.succeeded().out;
    assert_eq!(
        said,
        "renewal window 1 covers 2 devices\n\
         their certificates are renewed from 2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z\n\
         follow it: perennial renewal-window show 1 --watch\n"
    );
    let refused = site.admin("collection delete Labs")?;
    assert_eq!(refused.code, 4, "{refused:#?}");
    assert!(
        refused
            .err
            .contains("remove that first: perennial renewal-window remove 1"),
        "{refused:#?}"
    );

    // The client learns of it at a check-in and renews at once: the window is over.
    let _daemon = client.daemon()?;
    client.agent("check-in")?.succeeded();
    until("the client has renewed", || {
        let shown = site.admin("renewal-window show 1 --json")?.json();
        Ok(shown["renewed"] == 1)
    })?;
    let after = client.status()?;
    assert_ne!(after["serial"], before["serial"]);
    assert_eq!(after["smsid"], before["smsid"]);
    // The new certificate has its own window again, and no other renewal follows.
    let end = |status: &Value| -> Result<String> {
        let end = status["window"]["end"].as_str().context("a window")?;
        Ok(end.to_owned())
    };
    until("the client knows its new window", || {
        client.agent("check-in")?.succeeded();
        Ok(end(&client.status()?)?.as_str() > "2026-12")
    })?;
    let list = site
        .admin(&format!("certificate list --device {device} --json"))?
        .json();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");

    // The one that is off is not forgotten; whoever watches sees it, and the end when it left.
    let shown = site.admin("renewal-window show 1")?.succeeded().out;
    for line in [
        "Devices         2",
        "Renewed         1",
        "Not seen since  1",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let watching = std::thread::scope(|scope| -> Result<String> {
        let watch = scope.spawn(|| site.admin("renewal-window show 1 --watch"));
        std::thread::sleep(std::time::Duration::from_secs(1));
        site.admin(&format!("device revoke {off}"))?.succeeded();
        let ran = watch.join().expect("does not panic")?;
        Ok(ran.succeeded().out)
    })?;
    assert_eq!(
        watching,
        "1 of 2 renewed, 0 not yet, 1 not seen since\n1 of 1 renewed, 0 not yet, 0 not seen since\n"
    );

    site.admin("renewal-window remove 1")?.succeeded();
    site.admin("collection delete Labs")?.succeeded();
    for (words, code, says) in [
        ("renewal-window show 1", 4, "there is no renewal window 1"),
        ("renewal-window set", 2, "--all"),
        ("renewal-window set --all --spread 1s", 4, "1m to 90d"),
        ("renewal-window set --all --start soon", 2, "is no moment"),
    ] {
        let ran = site.admin(words)?;
        assert_eq!(ran.code, code, "{words}: {ran:#?}");
        assert!(ran.err.contains(says), "{words}: {ran:#?}");
    }
    let events = site.admin("audit list --csv")?.succeeded().out;
    for action in ["renewal-window-set,1", "renewal-window-removed,1"] {
        assert!(events.contains(action), "{events}");
    }
    site.admin("audit verify")?.succeeded();
    Ok(())
}

#[tokio::test]
async fn whoever_has_a_certificate_can_ask_when_to_renew_it() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let key = x509::PrivateKey::generate();
    let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
    let certificate = est::certificate(&answer);
    let id = certificate.renewal_id().context("has an authority")?;
    let root = site.folder().join("keys/root.pem");
    let ask = |id: &str| -> Result<(String, Value)> {
        let url = format!("https://{}/renewal-info/{id}", server.devices);
        let mut curl = Command::new("curl");
        curl.args(["-s", "-i", "--cacert"]).arg(&root).arg(url);
        let ran = run(&mut curl, "")?.succeeded();
        let (head, body) = ran.out.split_once("\r\n\r\n").context("an answer")?;
        Ok((head.to_lowercase(), serde_json::from_str(body)?))
    };
    let (head, info) = ask(&id.to_string())?;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("\r\nretry-after: 21600"), "{head}");
    assert!(info["suggestedWindow"]["start"].as_str() < info["suggestedWindow"]["end"].as_str());
    assert!(info.get("explanationURL").is_none(), "{info}");

    site.admin(
        "renewal-window set --all --start 2026-01-01T00:00:00Z --spread 1h --explanation-url https://example.com/why",
    )?
    .succeeded();
    let (head, info) = ask(&id.to_string())?;
    assert!(head.contains("\r\nretry-after: 60"), "{head}");
    assert_eq!(
        info,
        serde_json::json!({
            "suggestedWindow": {
                "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T01:00:00Z",
            },
            "explanationURL": "https://example.com/why",
        })
    );

    let mut foreign = id.clone();
    foreign.key_identifier[0] ^= 1;
    let mut unknown = id.clone();
    unknown.serial[15] ^= 1;
    let mut short = id.clone();
    short.serial.pop();
    for (id, status) in [
        (foreign.to_string(), 404),
        (unknown.to_string(), 404),
        (short.to_string(), 404),
        (format!("{id}="), 400),
        ("nothing".to_owned(), 400),
        (format!("{id}{}", "A".repeat(500)), 400),
    ] {
        let (head, problem) = ask(&id)?;
        assert!(
            head.starts_with(&format!("http/1.1 {status}")),
            "{id}: {head}"
        );
        assert!(head.contains("application/problem+json"), "{id}: {head}");
        assert_eq!(problem["status"], status, "{id}");
    }
    let serial = certificate.serial().context("a serial number")?;
    site.admin(&format!("certificate revoke {serial}"))?
        .succeeded();
    assert!(ask(&id.to_string())?.0.starts_with("http/1.1 404"));
    Ok(())
}
