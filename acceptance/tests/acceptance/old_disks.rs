//! Somebody has a copy of a client's disk from before its renewal.

use acceptance::programs::{Client, Site, scaled_clock, until};
use acceptance::secrets;
use anyhow::{Context, Result};
use domain::Timestamp;
use serde_json::Value;

/// Two minutes a second.
const FACTOR: f64 = 120.0;

#[test]
fn an_old_disk_image_is_refused_and_raises_one_alert() -> Result<()> {
    let clock = scaled_clock(FACTOR);
    let site = Site::with("sqlite", Some(clock.clone()))?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::with(Some(&clock))?;
    client.enroll(&server, "ann")?.succeeded();
    let smsid = client.status()?["smsid"]
        .as_str()
        .context("one")?
        .to_owned();
    let alerts = || -> Result<Vec<Value>> {
        let list = site.admin("alert list --json")?.succeeded().json();
        Ok(list.as_array().context("a list")?.clone())
    };

    let old = client.copy()?;
    client.agent("renew")?.succeeded();
    client.agent("check-in")?.succeeded();
    assert!(alerts()?.is_empty());
    let mut refused = 0;
    let mut is_refused = |word: &str| -> Result<()> {
        let ran = old.agent(word)?;
        assert_eq!(ran.code, 4, "{word}: {ran:#?}");
        assert!(
            ran.err.contains("was this machine restored from a backup?"),
            "{word}: {ran:#?}"
        );
        refused += 1;
        Ok(())
    };
    is_refused("check-in")?;
    is_refused("renew")?;

    // One alert, that is counted once a minute.
    until("the alert was raised three times", || {
        is_refused("check-in")?;
        is_refused("renew")?;
        // Two of them may fall into two minutes on a slow machine: three can be passed over.
        let times = alerts()?.first().and_then(|alert| alert["times"].as_i64());
        Ok(times >= Some(3))
    })?;
    let open = alerts()?;
    assert_eq!(open.len(), 1, "{open:?}");
    let alert = &open[0];
    assert_eq!(alert["kind"], "superseded-certificate-used");
    let device = smsid.trim_start_matches("GUID:").to_lowercase();
    assert_eq!(alert["device"], *device, "{alert}");
    let moment = |field: &str| -> Result<Timestamp> {
        Ok(alert[field].as_str().context("a moment")?.parse()?)
    };
    let minutes = moment("last_at")?.duration_since(moment("first_at")?);
    assert!(minutes.as_secs() >= 120, "{alert}");
    // Not each refusal is an alert: on a slow machine a minute of this clock holds few.
    assert!(refused > 3, "{refused}");
    let shown = site.admin(&format!("device show {smsid}"))?.succeeded().out;
    for part in ["Open alerts", "superseded-certificate-used"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    // The real one goes on.
    client.agent("check-in")?.succeeded();
    client.agent("renew")?.succeeded();
    assert_eq!(client.status()?["smsid"], *smsid);

    site.admin(&format!("alert close {}", alert["number"]))?
        .succeeded();
    assert!(alerts()?.is_empty());
    let all = site.admin("alert list --all --json")?.json();
    assert_eq!(all.as_array().map(Vec::len), Some(1));
    secrets::assert_none(&site, &[&client, &old], &[server.log()])
}
