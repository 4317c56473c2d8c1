//! A certificate expired, a clock is wrong, an identifier was removed: each way back, with the real
//! programs.

use acceptance::programs::{Client, PASSWORD, Ran, Server, Site, run, scaled_clock, until};
use anyhow::Result;
use serde_json::Value;

/// A site in which an hour passes in a second, and whose certificates last for six hours.
fn fast_site(grace: &str) -> Result<(Site, String)> {
    // Not faster: a nonce is good for an hour.
    let clock = scaled_clock(3_600.0);
    let site = Site::with("sqlite", Some(clock.clone()))?;
    site.without_limits()?;
    site.configure(|text| {
        text.replace("validity = \"365d\"", "validity = \"6h\"")
            .replace("grace = \"30d\"", &format!("grace = \"{grace}\""))
    })?;
    Ok((site, clock))
}

fn expired(client: &Client) -> Result<()> {
    until("the certificate expired", || {
        Ok(client.agent("status")?.code == 6)
    })
}

fn renew_as(client: &Client, user: &str, password: &str) -> Result<Ran> {
    let mut command = client.command("renew");
    run(command.args(["--user", user, "--password-stdin"]), password)
}

fn device(site: &Site) -> Result<Value> {
    let list = site.admin("device list --json")?.json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    Ok(list[0].clone())
}

fn start(site: &Site, clock: &str) -> Result<(Server, Client)> {
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::with(Some(clock))?;
    client.enroll(&server, "ann")?.succeeded();
    Ok((server, client))
}

#[test]
fn within_the_grace_time_it_comes_back_by_itself() -> Result<()> {
    let (site, clock) = fast_site("3650d")?;
    let (server, client) = start(&site, &clock)?;
    let smsid = client.status()?["smsid"].clone();
    expired(&client)?;
    client.agent("renew")?.succeeded();
    assert_eq!(client.status()?["smsid"], smsid);
    assert_eq!(device(&site)?["smsid"], smsid);
    let audit = site.admin("audit list --json")?.json();
    let event = audit
        .as_array()
        .into_iter()
        .flatten()
        .find(|event| event["action"] == "renewed-after-expiry")
        .cloned();
    assert_eq!(event.expect("is noted")["payload"]["allowed_by"], "grace");
    drop(server);
    Ok(())
}

#[test]
fn without_grace_an_administrator_or_a_log_in_helps() -> Result<()> {
    let (site, clock) = fast_site("0s")?;
    let (server, client) = start(&site, &clock)?;
    let smsid = client.status()?["smsid"].clone();
    expired(&client)?;
    for command in ["renew", "check-in"] {
        let ran = client.agent(command)?;
        assert_eq!(ran.code, 6, "{ran:#?}");
        assert!(ran.err.contains("device allow-renewal"), "{ran:#?}");
    }

    // An administrator allows it, once.
    let name = smsid.as_str().expect("an identifier");
    let ran = site.admin(&format!("device allow-renewal {name} --within 365d"))?;
    assert!(ran.succeeded().out.contains("may renew once"));
    let shown = site.admin(&format!("device show {name}"))?.succeeded().out;
    assert!(shown.contains("Renewal allowed until"), "{shown}");
    client.agent("renew")?.succeeded();
    assert_eq!(device(&site)?["smsid"], smsid);
    expired(&client)?;
    assert_eq!(client.agent("renew")?.code, 6, "once is once");

    // The user logs in again; the record stays.
    let ran = renew_as(&client, "ann", "wrong horse")?;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(
        ran.err.contains("The user name or the password is wrong"),
        "{ran:#?}"
    );
    let ran = renew_as(&client, "ann", PASSWORD)?.succeeded();
    assert!(
        ran.err.contains("expired on") && ran.err.contains("Renewed."),
        "{ran:#?}"
    );
    assert_eq!(client.status()?["smsid"], smsid);
    assert_eq!(device(&site)?["smsid"], smsid);

    // A blocked computer comes back by none of them.
    site.admin(&format!("device block {name}"))?.succeeded();
    expired(&client)?;
    assert_eq!(client.agent("renew")?.code, 4);
    assert_eq!(renew_as(&client, "ann", PASSWORD)?.code, 4);
    site.admin(&format!("device unblock {name}"))?.succeeded();
    renew_as(&client, "ann", PASSWORD)?.succeeded();
    site.admin("audit verify")?.succeeded();

    server.stop()?;
    let ran = renew_as(&client, "ann", PASSWORD)?;
    assert_eq!(ran.code, 5, "{ran:#?}");
    assert!(ran.err.contains("cannot be reached"), "{ran:#?}");
    Ok(())
}

#[test]
fn who_removed_the_identifier_gets_a_new_record_and_the_old_one_is_linked() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::installed()?;
    client.enroll(&server, "ann")?.succeeded();
    let before = client.status()?;
    let pair = ["delete", "com.microsoft.ccmclient", "SMSID"];
    client.installed_tool("defaults", &pair, "")?.succeeded();
    client.enroll(&server, "ann")?.succeeded();
    let after = client.status()?;
    assert_ne!(after["smsid"], before["smsid"]);

    // The key proved that it is one computer: nobody has to decide.
    let list = site.admin("device list --state obsolete --json")?.json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list[0]["smsid"], before["smsid"]);
    let conflicts = site.admin("device conflicts --json")?.json();
    assert_eq!(conflicts.as_array().map(Vec::len), Some(0), "{conflicts}");
    let name = after["smsid"].as_str().expect("an identifier");
    let shown = site.admin(&format!("device show {name}"))?.succeeded().out;
    let earlier = before["smsid"].as_str().expect("an identifier");
    assert!(
        shown.contains("Earlier records") && shown.contains(earlier),
        "{shown}"
    );
    let serial = before["serial"].as_str().expect("a serial number");
    let old = site
        .admin(&format!("certificate show {serial} --json"))?
        .json();
    assert_eq!(old["state"], "revoked");
    Ok(())
}

#[test]
fn a_client_whose_clock_is_wrong_renews_all_the_same() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let mut client = Client::with(None)?;
    client.enroll(&server, "ann")?.succeeded();
    let now: i64 = scaled_clock(1.0)
        .split(':')
        .next()
        .expect("a second")
        .parse()?;
    // A dead battery, and a clock that is years ahead: of everybody's certificates.
    for wrong in [86_400, now + 40 * 365 * 86_400] {
        client.set_clock(&format!("{now}:{wrong}:1"));
        let serial = client.status_of_any()?["serial"].clone();
        client.agent("check-in")?.succeeded();
        client.agent("renew")?.succeeded();
        assert_ne!(client.status_of_any()?["serial"], serial);
        let skew = client.status_of_any()?["skew_seconds"]
            .as_i64()
            .expect("a skew");
        assert!((skew - (now - wrong)).abs() < 600, "{skew}");
    }
    Ok(())
}
