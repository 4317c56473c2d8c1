//! Which computer is this? Claims move nothing; people decide; what was deleted is forgotten.

use acceptance::est;
use acceptance::programs::{PASSWORD, Server, Site, scaled_clock, until};
use anyhow::{Context, Result, ensure};
use domain::{DeviceFacts, DeviceId, Timestamp};
use serde_json::{Value, json};
use transport::{Method, Request};
use x509::{Certificate, PrivateKey};

const DELL: &str = "4C4C4544-0042-3510-8052-B3C04F4B4E32";

/// A client that speaks the protocol by itself, and may claim what it likes.
struct Machine {
    key: PrivateKey,
    certificate: Certificate,
}

impl Machine {
    async fn enroll(server: &Server, user: &str) -> Result<Self> {
        let key = PrivateKey::generate();
        let answer = est::enroll(&server.devices, server.pin, &key, user, PASSWORD).await?;
        let certificate = est::certificate(&answer);
        Ok(Self { key, certificate })
    }

    fn device(&self) -> DeviceId {
        self.certificate.device().expect("a device")
    }

    async fn check_in(&self, server: &Server, facts: DeviceFacts) -> Result<(u16, String)> {
        let identity = Some((&self.key, &self.certificate));
        let client = est::client(&server.devices, server.pin, identity);
        let report = protocol::CheckIn {
            facts,
            time: Timestamp::UNIX_EPOCH,
            policy: None,
            results: None,
        };
        let body = serde_json::to_vec(&report)?;
        let request = Request::new(Method::POST, protocol::CHECK_IN_PATH, body)
            .header("content-type", "application/json");
        let answer = client.send(request).await?;
        Ok((answer.status, answer.text().to_owned()))
    }

    async fn claims(&self, server: &Server, host_name: &str, hardware_uuid: &str) -> Result<()> {
        let facts = DeviceFacts {
            host_name: host_name.to_owned(),
            hardware_uuid: hardware_uuid.to_owned(),
            ..DeviceFacts::default()
        };
        let (status, text) = self.check_in(server, facts).await?;
        ensure!(status == 200, "{status}: {text}");
        Ok(())
    }

    async fn is_refused(&self, server: &Server, reason: &str) -> Result<()> {
        let (status, text) = self.check_in(server, DeviceFacts::default()).await?;
        ensure!(status == 403 && text.contains(reason), "{status}: {text}");
        Ok(())
    }
}

fn conflicts(site: &Site) -> Result<Vec<Value>> {
    let found = site.admin("device conflicts --json")?.succeeded().json();
    Ok(found.as_array().context("a list")?.clone())
}

#[tokio::test]
async fn who_claims_to_be_another_computer_becomes_a_new_one() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    site.add_user("mallory")?;
    let victim = Machine::enroll(&server, "ann").await?;
    victim.claims(&server, "mac-1", DELL).await?;
    let record = |of: &Machine| -> Result<Value> {
        let mut shown = site
            .admin(&format!("device show {} --json", of.device()))?
            .succeeded()
            .json();
        shown["device"]["last_seen"] = Value::Null;
        Ok(shown)
    };
    let before = record(&victim)?;

    // A valid user asks for a certificate in the victim's name and claims all that the victim has.
    let key = PrivateKey::generate();
    let request = x509::request_der(&key, &victim.device().smsid().to_string());
    let body = data_encoding::BASE64.encode(&request);
    let request = est::with_password(est::request("simpleenroll", body), "mallory", PASSWORD);
    let answer = est::client(&server.devices, server.pin, None)
        .send(request)
        .await?;
    let attacker = Machine {
        certificate: est::certificate(&answer),
        key,
    };
    assert_ne!(attacker.device(), victim.device());
    attacker.claims(&server, "mac-1", DELL).await?;

    assert_eq!(record(&victim)?, before, "the victim's record is as it was");
    victim.claims(&server, "mac-1", DELL).await?;
    let found = conflicts(&site)?;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["hardware_uuid"], DELL);
    assert_eq!(found[0]["older"]["id"], json!(victim.device()));
    assert_eq!(found[0]["newer"]["id"], json!(attacker.device()));
    assert_eq!(found[0]["newer"]["user_name"], "mallory");

    // The administrator blocks it: that is an answer, and the victim works on.
    site.admin(&format!("device block {}", attacker.device()))?
        .succeeded();
    attacker
        .is_refused(&server, "the device is blocked")
        .await?;
    victim.claims(&server, "mac-1", DELL).await?;
    assert!(conflicts(&site)?.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_administrator_merges_two_records_or_keeps_both() -> Result<()> {
    let site = Site::new()?;
    site.configure(|text| {
        text.replace(
            "excluded_hardware_uuids = []",
            "excluded_hardware_uuids = [\"4c4c4544-0042-3510-8052-b3c04f4b4e99\"]",
        )
    })?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let old = Machine::enroll(&server, "ann").await?;
    old.claims(&server, "old", DELL).await?;
    let new = Machine::enroll(&server, "ann").await?;
    new.claims(&server, "new", DELL).await?;
    for name in ["clone-1", "clone-2"] {
        let clone = Machine::enroll(&server, "ann").await?;
        clone
            .claims(&server, name, "4C4C4544-0042-3510-8052-B3C04F4B4E99")
            .await?;
    }
    let shown = site.admin("device conflicts")?.succeeded().out;
    assert!(
        shown.contains(DELL) && shown.contains("answer each"),
        "{shown}"
    );
    assert_eq!(conflicts(&site)?.len(), 1, "excluded ones are none");

    let third = Machine::enroll(&server, "ann").await?;
    third.claims(&server, "third", DELL).await?;
    assert_eq!(conflicts(&site)?.len(), 2);
    site.admin("device keep-both third new")?.succeeded();
    site.admin("device keep-both old third")?.succeeded();
    assert_eq!(conflicts(&site)?.len(), 1);

    let said = site
        .admin("device merge old --into new --yes")?
        .succeeded()
        .out;
    assert!(
        said.contains("is obsolete, 1 certificates revoked"),
        "{said}"
    );
    assert!(conflicts(&site)?.is_empty());
    old.is_refused(&server, "replaced by another record")
        .await?;
    new.claims(&server, "new", DELL).await?;
    let shown = site.admin("device show new")?.succeeded().out;
    let serial = old.certificate.serial().context("a serial number")?;
    for part in ["Earlier records", "old", &serial.to_string()] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = site.admin("device show old --json")?.json();
    assert_eq!(shown["device"]["state"], "obsolete");
    assert_eq!(shown["device"]["successor"], json!(new.device()));

    for (words, code, says) in [
        (
            "device merge new --into old --yes",
            4,
            "cannot be merged into one that is obsolete",
        ),
        ("device merge new --into new --yes", 4, "into itself"),
        ("device merge old --into third --yes", 4, "was merged into"),
        (
            "device unblock old",
            4,
            "cannot unblock a device that is obsolete",
        ),
        ("device merge new", 2, "--into"),
    ] {
        let ran = site.admin(words)?;
        assert_eq!(ran.code, code, "{words}: {ran:#?}");
        assert!(ran.err.contains(says), "{words}: {ran:#?}");
    }
    site.admin("audit verify")?.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_deleted_device_is_exported_and_then_forgotten() -> Result<()> {
    // Ten days a second: certificates end, and the retention time passes.
    let clock = scaled_clock(864_000.0);
    let site = Site::with("sqlite", Some(clock.clone()))?;
    site.configure(|text| text.replace("validity = \"365d\"", "validity = \"200d\""))?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let enroll = |key: &std::path::Path| -> Result<Value> {
        // The agent lives in the site's time.
        let client = acceptance::programs::Client::with(Some(&clock))?;
        client.enroll(&server, "ann")?.succeeded();
        let identity = client
            .root()
            .join("var/lib/perennial-agent/identity/current");
        std::fs::copy(identity.join("key.pem"), key)?;
        client.status()
    };
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("key.pem");
    let status = enroll(&key)?;
    let device = status["smsid"].as_str().context("an SMSID")?;
    let said = site
        .admin(&format!("device delete {device}"))?
        .succeeded()
        .out;
    assert!(said.contains("1 certificates revoked"), "{said}");

    let listed = site.admin("device list --json")?.json();
    assert_eq!(listed.as_array().map(Vec::len), Some(0));
    let listed = site.admin("device list --state deleted --json")?.json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    let out = folder.path().join("export.json");
    site.admin(&format!("device export {device} --out {}", out.display()))?
        .succeeded();
    let export: Value = serde_json::from_slice(&std::fs::read(&out)?)?;
    assert_eq!(export["device"]["state"], "deleted");
    assert_eq!(export["certificates"][0]["serial"], status["serial"]);
    let pem = export["certificates"][0]["pem"].as_str().context("PEM")?;
    assert!(pem.starts_with("-----BEGIN CERTIFICATE"), "{pem}");
    let actions: Vec<_> = export["events"]
        .as_array()
        .context("events")?
        .iter()
        .filter_map(|event| event["action"].as_str())
        .collect();
    for action in ["device-deleted", "certificate-used", "enrolled"] {
        assert!(actions.contains(&action), "{actions:?}");
    }

    // 200 days and a list's life later a server finds that it is time.
    let end = scaled_now(&clock)? + 210 * 86_400;
    until("the certificate left the revocation list", || {
        Ok(scaled_now(&clock)? > end)
    })?;
    server.stop()?;
    let server = site.serve()?;
    until("the device is forgotten", || {
        Ok(site.admin(&format!("device export {device}"))?.code == 4)
    })?;
    let serial = status["serial"].as_str().context("a serial number")?;
    assert_eq!(site.admin(&format!("certificate show {serial}"))?.code, 4);
    let events = site.admin("audit list --json")?.json();
    let events = events.as_array().context("events")?;
    let purged = events
        .iter()
        .find(|event| event["action"] == "devices-purged")
        .context("an entry")?;
    assert_eq!(purged["payload"]["devices"], 1);
    assert_eq!(purged["payload"]["certificates"], 1);
    let id = device.trim_start_matches("GUID:").to_lowercase();
    let about: Vec<_> = events
        .iter()
        .filter(|event| event["subject"] == id.as_str())
        .collect();
    assert!(about.len() >= 3, "{about:?}");
    assert!(
        about.iter().all(|event| event["payload"].is_null()),
        "{about:?}"
    );
    site.admin("audit verify")?.succeeded();

    // Its key does not bring it back.
    let pem = std::fs::read_to_string(&key)?;
    let key = PrivateKey::from_pem(&pem)?;
    let request = folder.path().join("request");
    std::fs::write(&request, est::body(&key))?;
    let mut curl = std::process::Command::new("curl");
    curl.args([
        "-sk",
        "-w",
        "%{http_code}",
        "-u",
        &format!("ann:{PASSWORD}"),
    ])
    .args(["-H", "Content-Type: application/pkcs10", "--data-binary"])
    .arg(format!("@{}", request.display()))
    .arg(format!(
        "https://{}/.well-known/est/simpleenroll",
        server.devices
    ));
    let ran = acceptance::programs::run(&mut curl, "")?.succeeded();
    assert!(
        ran.out.contains("make a new key") && ran.out.ends_with("409"),
        "{ran:#?}"
    );
    Ok(())
}

/// What a program sees under `PERENNIAL_TEST_CLOCK=clock`, in seconds since 1970.
fn scaled_now(clock: &str) -> Result<i64> {
    let parts: Vec<&str> = clock.split(':').collect();
    let [real, shown, factor] = parts[..] else {
        anyhow::bail!("not a scaled clock: {clock}");
    };
    let real: i64 = real.parse()?;
    let factor: f64 = factor.parse()?;
    let now = domain::Clock::now(&clock::SystemClock::default()).as_second();
    Ok(shown.parse::<i64>()? + ((now - real) as f64 * factor) as i64)
}
