//! Configuration items, baselines and deployments, and what devices get of them.

use std::path::Path;
use std::process::Command;

use acceptance::est;
use acceptance::programs::{PASSWORD, Ran, Server, Site, run};
use anyhow::{Context, Result, bail, ensure};
use clock::SystemClock;
use data_encoding::BASE64;
use domain::{Clock, DeviceFacts, Smsid};
use protocol::{
    CHECK_IN_PATH, COMMAND_PATH, CheckIn, CheckInAnswer, CommandResult, Order, POLICY_BODY_PATH,
    POLICY_PATH, PolicyList, PolicyState, PolicyVersion, SignedDocument,
};
use serde_json::Value;
use transport::{Method, Request, Response};
use x509::{Certificate, PrivateKey};

const NAME: &str = "Remove SMSID for Mac";
const MISSING: &str = "The domain/default pair of (com.microsoft.ccmclient, SMSID) does not exist";

/// Runs an administrator's command whose words may hold spaces.
fn admin(site: &Site, words: &[&str]) -> Result<Ran> {
    let (first, rest) = words.split_first().context("a command")?;
    run(site.command(first).args(rest), "")
}

fn file(site: &Site, name: &str, text: &str) -> Result<String> {
    let file = site.folder().join(name);
    std::fs::write(&file, text)?;
    Ok(file.to_str().context("a name in UTF-8")?.to_owned())
}

/// The source's own item, made as its wizard makes it.
fn make_item(site: &Site) -> Result<Ran> {
    let discovery = file(
        site,
        "discover.sh",
        "defaults read com.microsoft.ccmclient SMSID\n",
    )?;
    let remediation = file(
        site,
        "remove.sh",
        "defaults delete com.microsoft.ccmclient SMSID\n",
    )?;
    let words = [
        "ci",
        "create",
        NAME,
        "--type",
        "Mac OS X",
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
        MISSING,
        "--severity",
        "warning",
        "--remediate",
    ];
    admin(site, &words)
}

#[test]
fn a_configuration_item_has_a_history_that_can_be_read() -> Result<()> {
    let site = Site::new()?;
    let _server = site.serve()?;
    let made = make_item(&site)?.succeeded().out;
    assert!(made.starts_with("created the configuration item Remove SMSID for Mac, revision 1\n"));
    let shown = admin(&site, &["ci", "show", NAME])?.succeeded().out;
    for line in [
        "Platform     macOS, all versions",
        "        | defaults delete com.microsoft.ccmclient SMSID",
        "    Severity           warning",
        "    Remediate          yes",
    ] {
        assert!(shown.contains(&format!("\n{line}\n")), "{line}: {shown}");
    }

    // What cannot be is refused before it is sent, and the reason is said.
    let script = file(&site, "count.sh", "ls /tmp | wc -l\n")?;
    let wrong = |more: &[&str]| -> Result<Ran> {
        let mut words = vec![
            "ci",
            "create",
            "Count",
            "--type",
            "macOS",
            "--discovery",
            &script,
        ];
        words.extend(more);
        admin(&site, &words)
    };
    for (words, code, says) in [
        (
            &[
                "--data-type",
                "integer",
                "--operator",
                "equals",
                "--value",
                "many",
            ][..],
            1,
            "the rule's value `many` is not an integer",
        ),
        (
            &[
                "--data-type",
                "integer",
                "--operator",
                "between",
                "--value",
                "1",
            ],
            1,
            "between compares with two values, not with 1",
        ),
        (
            &[
                "--data-type",
                "string",
                "--operator",
                "must-exist",
                "--value",
                "1",
            ],
            1,
            "must-exist takes no value",
        ),
        (
            &[
                "--data-type",
                "string",
                "--operator",
                "equals",
                "--value",
                "1",
                "--remediate",
            ],
            1,
            "its setting has no remediation script",
        ),
        (
            &[
                "--data-type",
                "number",
                "--operator",
                "equals",
                "--value",
                "1",
            ],
            2,
            "is not one of: string, integer",
        ),
        (
            &["--data-type", "string", "--operator", "is", "--value", "1"],
            2,
            "is not one of: equals",
        ),
    ] {
        let ran = wrong(words)?;
        assert_eq!(ran.code, code, "{words:?}: {ran:#?}");
        assert!(ran.err.contains(says), "{words:?}: {ran:#?}");
    }

    // Revisions: what changes nothing is none, and each change can be read.
    let same = admin(&site, &["ci", "set", NAME, "--severity", "warning"])?.succeeded();
    assert_eq!(
        same.out,
        format!("nothing changes; {NAME} stays at revision 1\n")
    );
    let better = file(
        &site,
        "remove.sh",
        "set -e\ndefaults delete com.microsoft.ccmclient SMSID\n",
    )?;
    let changed = admin(
        &site,
        &[
            "ci",
            "set",
            NAME,
            "--remediation",
            &better,
            "--severity",
            "critical",
        ],
    )?
    .succeeded();
    assert!(changed.out.contains("has revision 2"), "{changed:?}");
    let difference = admin(&site, &["ci", "diff", NAME, "1", "2"])?
        .succeeded()
        .out;
    for line in [
        "+        | set -e",
        "-    Severity           warning",
        "+    Severity           critical",
        "         | defaults delete com.microsoft.ccmclient SMSID",
    ] {
        assert!(
            difference.contains(&format!("\n{line}\n")),
            "{line}: {difference}"
        );
    }
    let history = admin(&site, &["ci", "history", NAME, "--csv"])?
        .succeeded()
        .out;
    let lines: Vec<_> = history.lines().collect();
    assert!(
        lines[1].starts_with("2,") && lines[2].starts_with("1,"),
        "{history}"
    );
    assert!(
        lines[1].contains("administrator:first-administrator"),
        "{history}"
    );
    let first = admin(&site, &["ci", "show", NAME, "--revision", "1"])?.succeeded();
    assert!(!first.out.contains("set -e"), "{first:?}");

    // What is shown in JSON is what a file holds.
    let written = admin(&site, &["ci", "show", NAME, "--json"])?
        .succeeded()
        .out;
    let whole = file(&site, "item.json", &written)?;
    let same = admin(&site, &["ci", "set", NAME, "--file", &whole])?.succeeded();
    assert!(same.out.starts_with("nothing changes"), "{same:?}");
    admin(&site, &["ci", "create", "A copy", "--file", &whole])?.succeeded();
    let late = admin(
        &site,
        &[
            "ci",
            "set",
            NAME,
            "--if-revision",
            "1",
            "--description",
            "late",
        ],
    )?;
    assert_eq!(late.code, 4);
    assert!(late.err.contains("somebody else changed it"), "{late:?}");

    // The log knows who, which revision, and the hash of what will run.
    let log = admin(&site, &["audit", "list", "--json"])?.json();
    let body = admin(&site, &["ci", "history", NAME, "--json"])?.json()[0]["body"].clone();
    let told = log.as_array().context("a list")?.iter().any(|entry| {
        entry["action"] == "ci-changed"
            && entry["subject"] == NAME
            && entry["payload"]["revision"] == 2
            && entry["payload"]["body"] == body
    });
    assert!(told, "{log:#}");

    let preference = [
        "ci",
        "create",
        "Idle",
        "--type",
        "macOS",
        "--data-type",
        "integer",
        "--preference",
        "com.apple.screensaver:/idleTime",
        "--operator",
        "less-than-or-equal-to",
        "--value",
        "600",
    ];
    admin(&site, &preference)?.succeeded();
    let listed = admin(&site, &["ci", "list", "--csv"])?.succeeded().out;
    assert!(listed.contains("\nIdle,1,macOS,1,"), "{listed}");
    let refused = admin(&site, &["ci", "delete", "Idle"])?;
    assert!(refused.err.contains("say --yes"), "{refused:?}");
    admin(&site, &["ci", "delete", "Idle", "--yes"])?.succeeded();
    admin(&site, &["audit", "verify"])?.succeeded();
    Ok(())
}

#[test]
fn baselines_nest_and_are_deployed() -> Result<()> {
    let site = Site::new()?;
    let _server = site.serve()?;
    make_item(&site)?.succeeded();
    let did = |words: &[&str]| -> Result<String> { Ok(admin(&site, words)?.succeeded().out) };
    did(&[
        "baseline",
        "create",
        "Inner",
        "--ci",
        "Remove SMSID for Mac@1",
    ])?;
    did(&["baseline", "create", "Middle", "--baseline", "Inner"])?;
    did(&[
        "baseline",
        "create",
        "Outer",
        "--ci",
        NAME,
        "--baseline",
        "Middle",
    ])?;
    let shown = did(&["baseline", "show", "Outer"])?;
    assert!(
        shown.ends_with(
            "Remove SMSID for Mac (latest revision)\n\
             Middle (baseline)\n    Inner (baseline)\n        Remove SMSID for Mac (revision 1)\n"
        ),
        "{shown}"
    );
    did(&["collection", "create", "Labs"])?;
    for (words, says) in [
        (
            &["baseline", "set", "Inner", "--baseline", "Outer"][..],
            "the baseline would be a part of itself: `Inner` → `Outer` → `Middle` → `Inner`",
        ),
        (
            &["baseline", "create", "X", "--ci", "Remove SMSID for Mac@2"],
            "there is no revision 2 of the configuration item",
        ),
        (
            &["ci", "delete", NAME, "--yes"],
            "the configuration item is used by the baseline `Inner`",
        ),
        (
            &[
                "deployment",
                "create",
                "--baseline",
                "X",
                "--collection",
                "Labs",
            ],
            "there is no baseline `X`",
        ),
        (
            &[
                "deployment",
                "create",
                "--baseline",
                "Outer",
                "--collection",
                "Zoo",
            ],
            "there is no collection `Zoo`",
        ),
    ] {
        let ran = admin(&site, words)?;
        assert_eq!(ran.code, 4, "{words:?}: {ran:#?}");
        assert!(ran.err.contains(says), "{words:?}: {ran:#?}");
    }
    let made = did(&[
        "deployment",
        "create",
        "--baseline",
        "Outer",
        "--collection",
        "Labs",
        "--remediate",
        "--cron",
        "0 9 * * 1-5",
        "--spread",
        "30m",
        "--remediation-window",
        "22:00-06:00",
        "--stale-after",
        "14d",
        "--alert-below",
        "90",
        "--alert-at",
        "2027-01-31",
    ])?;
    assert_eq!(
        made,
        "deployment 1: Outer to Labs, 1 configuration items, remediated\n"
    );
    let shown = did(&["deployment", "show", "1"])?;
    for line in [
        "Schedule               0 9 * * 1-5",
        "Spread                 30m",
        "Remediation window     22:00-06:00",
        "Stale after            14d",
        "Alert below (percent)  90",
        "Alert at               2027-01-31T00:00:00Z",
        // The fixed revision wins over the latest.
        "Remove SMSID for Mac  1",
    ] {
        assert!(shown.contains(&format!("\n{line}\n")), "{line}: {shown}");
    }
    let refused = admin(&site, &["collection", "delete", "Labs"])?;
    assert!(refused.err.contains("used by deployment 1"), "{refused:?}");
    let changed = did(&["deployment", "set", "1", "--no-remediate", "--every", "8h"])?;
    assert!(changed.ends_with("not remediated\n"), "{changed}");
    let same = did(&["deployment", "set", "1", "--every", "8h"])?;
    assert!(same.starts_with("nothing changes"), "{same}");
    did(&["baseline", "set", "Outer", "--disable"])?;
    let listed = admin(&site, &["deployment", "list", "--json"])?.json();
    assert_eq!(listed[0]["items"], 0);
    assert_eq!(listed[0]["deployment"]["schedule"], "8h");

    let exempted = did(&[
        "exemption",
        "create",
        "--ci",
        NAME,
        "--rule",
        NAME,
        "--collection",
        "Labs",
        "--reason",
        "tests, until spring",
        "--until",
        "2099-01-31",
    ])?;
    assert_eq!(exempted, "exemption 1 of collection Labs\n");
    let listed = did(&["exemption", "list", "--csv"])?;
    assert!(listed.contains("\"tests, until spring\""), "{listed}");
    did(&["exemption", "remove", "1"])?;
    assert_eq!(
        admin(&site, &["exemption", "list", "--json"])?.json(),
        Value::Array(vec![])
    );
    let kept = admin(&site, &["exemption", "list", "--all", "--json"])?.json();
    assert!(kept[0]["ended_at"].is_string(), "{kept:#}");

    did(&["deployment", "delete", "1", "--yes"])?;
    did(&["baseline", "delete", "Outer", "--yes"])?;
    did(&["collection", "delete", "Labs"])?;
    did(&["audit", "verify"])?;
    Ok(())
}

/// A device that speaks to the site itself.
struct Device {
    name: &'static str,
    key: PrivateKey,
    certificate: Certificate,
}

impl Device {
    async fn enroll(server: &Server, name: &'static str) -> Result<Self> {
        let key = PrivateKey::generate();
        let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
        let certificate = est::certificate(&answer);
        Ok(Self {
            name,
            key,
            certificate,
        })
    }

    fn smsid(&self) -> Smsid {
        self.certificate.device().expect("a device").smsid()
    }

    async fn send(&self, server: &Server, request: Request) -> Result<Response> {
        let identity = Some((&self.key, &self.certificate));
        let client = est::client(&server.devices, server.pin, identity);
        Ok(client.send(request).await?)
    }

    async fn check_in(&self, server: &Server, says: Option<PolicyState>) -> Result<CheckInAnswer> {
        let body = serde_json::to_vec(&CheckIn {
            facts: DeviceFacts {
                host_name: self.name.to_owned(),
                ..DeviceFacts::default()
            },
            time: SystemClock::new().now(),
            policy: says,
            results: None,
        })?;
        let request = Request::new(Method::POST, CHECK_IN_PATH, body)
            .header("content-type", "application/json");
        let answer = self.send(server, request).await?;
        ensure!(answer.is_success(), "{}", answer.text());
        Ok(serde_json::from_slice(&answer.body)?)
    }

    async fn content(&self, server: &Server) -> Result<String> {
        let answer = self.check_in(server, None).await?;
        Ok(answer.policy.context("a notice")?.content)
    }

    async fn list(&self, server: &Server) -> Result<(PolicyList, SignedDocument)> {
        let answer = self.send(server, Request::get(POLICY_PATH)).await?;
        ensure!(answer.is_success(), "{}", answer.text());
        let document: SignedDocument = serde_json::from_slice(&answer.body)?;
        let payload = BASE64.decode(document.payload.as_bytes())?;
        Ok((serde_json::from_slice(&payload)?, document))
    }

    async fn body(&self, server: &Server, hash: &str) -> Result<Response> {
        let request = Request::get(format!("{POLICY_BODY_PATH}/{hash}"));
        self.send(server, request).await
    }
}

/// An independent judge: openssl, and the signed bytes as DSSE's text says, made here.
fn openssl_agrees(site: &Site, document: &Value) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name);
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    let bytes = |pointer: &str| -> Result<Vec<u8>> {
        Ok(BASE64.decode(text(pointer).context("a text")?.as_bytes())?)
    };
    let (payload, kind) = (bytes("/payload")?, text("/payloadType").context("a type")?);
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend(payload);
    std::fs::write(place("message"), message)?;
    std::fs::write(place("signature"), bytes("/signature")?)?;
    std::fs::write(place("policy.der"), bytes("/chain/0")?)?;
    // The root that is in the document is the one that the site's clients pinned.
    let root = site.folder().join("keys/root.pem");
    let pinned = x509::certificates_from_pem(&std::fs::read(&root)?)?;
    ensure!(pinned == [bytes("/chain/1")?], "another root");
    let openssl = |arguments: &[&str], file: &Path| -> Result<bool> {
        let ran = Command::new("openssl")
            .args(arguments)
            .arg(file)
            .current_dir(folder.path())
            .output()?;
        Ok(ran.status.success())
    };
    let root = root.to_str().context("a name in UTF-8")?;
    let pem = ["x509", "-inform", "DER", "-out", "policy.pem", "-in"];
    let key = ["x509", "-noout", "-pubkey", "-out", "key.pem", "-in"];
    ensure!(openssl(&pem, Path::new("policy.der"))?, "no certificate");
    ensure!(openssl(&key, Path::new("policy.pem"))?, "no key");
    let chain = ["verify", "-CAfile", root, "-purpose", "any"];
    ensure!(
        openssl(&chain, Path::new("policy.pem"))?,
        "not under the root"
    );
    let signed = [
        "dgst",
        "-sha256",
        "-verify",
        "key.pem",
        "-signature",
        "signature",
    ];
    openssl(&signed, Path::new("message"))
}

fn deploy(site: &Site, collection: &str, members: &[&Device]) -> Result<()> {
    let baseline = format!("For {collection}");
    for words in [
        &["baseline", "create", &baseline, "--ci", NAME][..],
        &["collection", "create", collection],
    ] {
        admin(site, words)?.succeeded();
    }
    for device in members {
        let device = device.smsid().to_string();
        admin(site, &["collection", "add", collection, &device])?.succeeded();
    }
    let words = [
        "deployment",
        "create",
        "--baseline",
        &baseline,
        "--collection",
        collection,
    ];
    admin(site, &words)?.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_device_gets_what_is_deployed_to_it_signed() -> Result<()> {
    let site = Site::new()?;
    site.without_limits()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let (device, other) = (
        Device::enroll(&server, "mac-1").await?,
        Device::enroll(&server, "mac-2").await?,
    );
    let nothing = device.content(&server).await?;
    assert_eq!(other.content(&server).await?, nothing);
    let (list, document) = device.list(&server).await?;
    assert!(list.deployments.is_empty() && list.content == nothing);
    assert!(openssl_agrees(&site, &serde_json::to_value(&document)?)?);

    make_item(&site)?.succeeded();
    deploy(&site, "Labs", &[&device])?;
    let deployed = device.content(&server).await?;
    assert_ne!(deployed, nothing);
    assert_eq!(other.content(&server).await?, nothing);
    let (list, document) = device.list(&server).await?;
    assert_eq!((&list.content, list.device), (&deployed, device.smsid()));
    assert!(
        list.version
            > PolicyVersion {
                epoch: 1,
                counter: 0
            }
    );
    let life = list.expires_at.duration_since(list.issued_at);
    assert_eq!(life.as_hours(), 30 * 24);
    let document = serde_json::to_value(&document)?;
    assert!(openssl_agrees(&site, &document)?);
    // The judge does judge: a list for another device under this signature is none.
    let mut forged = document.clone();
    let payload = String::from_utf8(
        BASE64.decode(document["payload"].as_str().context("text")?.as_bytes())?,
    )?;
    let payload = payload.replace(&device.smsid().to_string(), &other.smsid().to_string());
    forged["payload"] = BASE64.encode(payload.as_bytes()).into();
    assert!(!openssl_agrees(&site, &forged)?);

    // The body, by its hash, for those who have it on their list.
    let hash = list.deployments[0].items[0].to_string();
    let body = device.body(&server, &hash).await?;
    let cached = body
        .headers
        .get("cache-control")
        .and_then(|value| value.to_str().ok());
    assert!(
        cached.is_some_and(|value| value.contains("immutable")),
        "{cached:?}"
    );
    let body: Value = serde_json::from_slice(&body.body)?;
    assert!(openssl_agrees(&site, &body)?);
    let bytes = BASE64.decode(body["payload"].as_str().context("text")?.as_bytes())?;
    assert_eq!(
        data_encoding::HEXLOWER.encode(&x509::sha256(&[&bytes])),
        hash
    );
    let body: Value = serde_json::from_slice(&bytes)?;
    assert_eq!(
        (&body["item"], &body["revision"]),
        (&NAME.into(), &1.into())
    );
    for _ in 0..3 {
        let refused = other.body(&server, &hash).await?;
        assert_eq!(refused.status, 404, "{}", refused.text());
    }
    let log = admin(&site, &["audit", "list", "--csv"])?.succeeded().out;
    assert_eq!(log.matches("policy-body-refused").count(), 1, "{log}");

    // A new revision is another list, and what was replaced is not given out any more.
    admin(&site, &["ci", "set", NAME, "--severity", "critical"])?.succeeded();
    let newer = device.content(&server).await?;
    assert_ne!(newer, deployed);
    // Who fetched the list before is still at its bodies: that is nothing for the log.
    assert_eq!(device.body(&server, &hash).await?.status, 404);
    let log = admin(&site, &["audit", "list", "--csv"])?.succeeded().out;
    assert_eq!(log.matches("policy-body-refused").count(), 1, "{log}");
    let (list, _) = device.list(&server).await?;
    assert_eq!(list.content, newer);
    assert_eq!(device.body(&server, &hash).await?.status, 404);

    // Who is refused gets nothing, and who left the collection gets an empty list.
    let id = device.smsid().to_string();
    admin(&site, &["device", "block", &id])?.succeeded();
    assert_eq!(
        device
            .send(&server, Request::get(POLICY_PATH))
            .await?
            .status,
        403
    );
    admin(&site, &["device", "unblock", &id])?.succeeded();
    admin(&site, &["collection", "remove", "Labs", &id])?.succeeded();
    assert_eq!(device.content(&server).await?, nothing);
    admin(&site, &["audit", "verify"])?.succeeded();
    Ok(())
}

#[tokio::test]
async fn check_ins_that_change_nothing_write_nothing() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let device = Device::enroll(&server, "mac-1").await?;
    make_item(&site)?.succeeded();
    deploy(&site, "Labs", &[&device])?;
    let (list, _) = device.list(&server).await?;
    let says = Some(PolicyState {
        version: list.version,
        problem: None,
    });
    let changes = async || -> Result<String> {
        let console = est::client(&server.console, server.pin, None);
        let metrics = console.send(Request::get("/metrics")).await?.text();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("store_changes_total"));
        Ok(line.context("a counter")?.to_owned())
    };
    device.check_in(&server, says.clone()).await?;
    // The site's jobs write, too, now and then: a check-in that wrote would do so in each round.
    for _ in 0..20 {
        let before = changes().await?;
        for _ in 0..5 {
            let answer = device.check_in(&server, says.clone()).await?;
            assert_eq!(answer.policy.context("a notice")?.content, list.content);
        }
        if changes().await? == before {
            return Ok(());
        }
    }
    bail!("check-ins that change nothing write")
}

#[tokio::test]
async fn a_problem_with_the_policy_is_an_alert() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let device = Device::enroll(&server, "mac-1").await?;
    let says = |problem: Option<&str>| {
        Some(PolicyState {
            version: PolicyVersion {
                epoch: 1,
                counter: 7,
            },
            problem: problem.map(str::to_owned),
        })
    };
    let problem = "its signature does not match: it was changed on its way\u{1b}[2J";
    for _ in 0..2 {
        device.check_in(&server, says(Some(problem))).await?;
    }
    let alerts = admin(&site, &["alert", "list", "--json"])?.json();
    assert_eq!(alerts.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&alerts[0]["kind"], &alerts[0]["times"]),
        (&"policy-refused".into(), &1.into())
    );
    let shown = admin(&site, &["device", "show", "mac-1"])?.succeeded().out;
    assert!(shown.contains("Policy                  1.7\n"), "{shown}");
    assert!(
        shown.contains("its signature does not match") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    // The problem is gone; the alert stays until somebody looked at it.
    device.check_in(&server, says(None)).await?;
    let shown = admin(&site, &["device", "show", "mac-1"])?.succeeded().out;
    assert!(!shown.contains("Policy problem"), "{shown}");
    assert!(shown.contains("Open alerts"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_node_signs_with_the_key_that_it_has_now() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let device = Device::enroll(&server, "mac-1").await?;
    let (before, old) = device.list(&server).await?;
    let refused = admin(&site, &["policy", "rotate-key"])?;
    assert!(refused.err.contains("say --yes"), "{refused:?}");
    let rotated = admin(&site, &["policy", "rotate-key", "--yes"])?.succeeded();
    assert!(
        rotated.out.starts_with("made a new policy key"),
        "{rotated:?}"
    );
    let (_, new) = device.list(&server).await?;
    assert_ne!(old.chain[0], new.chain[0]);
    for document in [old, new] {
        assert!(openssl_agrees(&site, &serde_json::to_value(&document)?)?);
    }
    let log = admin(&site, &["audit", "list", "--csv"])?.succeeded().out;
    assert_eq!(log.matches("policy-key-used").count(), 2, "{log}");

    let raised = admin(&site, &["policy", "raise-epoch", "--yes"])?.succeeded();
    assert!(
        raised.out.starts_with("the policy has version "),
        "{raised:?}"
    );
    let (after, _) = device.list(&server).await?;
    assert!(after.version > before.version && after.version.epoch > before.version.epoch);
    let shown = admin(&site, &["policy", "show"])?.succeeded().out;
    assert!(shown.contains("Lists are good for       30d"), "{shown}");

    // Without the root's key there is no new one, and the old one stays.
    let keys = site.folder().join("keys");
    std::fs::rename(keys.join("root.key"), keys.join("root.away"))?;
    let ran = admin(&site, &["policy", "rotate-key", "--yes"])?;
    assert!(ran.code == 1 && ran.err.contains("root.key"), "{ran:?}");
    device.list(&server).await?;

    // A node without the key gives no policy; everything else goes on.
    std::fs::remove_file(keys.join("policy.key"))?;
    let refused = device.send(&server, Request::get(POLICY_PATH)).await?;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.headers.contains_key("retry-after") && refused.text().contains("policy key"));
    device.check_in(&server, None).await?;
    let ran = admin(&site, &["device", "command", "mac-1", "renew"])?;
    assert!(
        ran.code == 4 && ran.err.contains("signs no policy"),
        "{ran:?}"
    );
    let shown = admin(&site, &["policy", "show"])?.succeeded().out;
    assert!(shown.contains("This node signs no policy"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_device_is_told_to_do_something_once() -> Result<()> {
    let site = Site::new()?;
    site.without_limits()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let (device, other) = (
        Device::enroll(&server, "mac-1").await?,
        Device::enroll(&server, "mac-2").await?,
    );
    device.check_in(&server, None).await?;
    make_item(&site)?.succeeded();
    let given = admin(
        &site,
        &["device", "command", "mac-1", "renew", "--expires", "2d"],
    )?;
    assert!(given.succeeded().out.starts_with("mac-1 is told to renew"));
    let refused = admin(&site, &["device", "command", "mac-1", "uninstall"])?;
    assert!(refused.err.contains("say --yes"), "{refused:?}");
    let test = [
        "ci",
        "test",
        NAME,
        "mac-1",
        "--setting",
        NAME,
        "--wait",
        "0s",
    ];
    let tested = admin(&site, &test)?.succeeded().out;
    assert!(tested.starts_with("mac-1 did not answer yet"), "{tested}");
    for (words, says) in [
        (
            &["ci", "test", NAME, "mac-1", "--setting", "no"][..],
            "there is no setting `no`",
        ),
        (
            &["ci", "test", "no", "mac-1", "--setting", NAME],
            "there is no configuration item",
        ),
        (
            &["device", "command", "mac-1", "renew", "--expires", "1m"],
            "expires after 5m to 30d",
        ),
    ] {
        let ran = admin(&site, words)?;
        assert!(
            ran.code == 4 && ran.err.contains(says),
            "{words:?}: {ran:?}"
        );
    }

    let answer = device.check_in(&server, None).await?;
    assert!(other.check_in(&server, None).await?.commands.is_empty());
    let mut orders = Vec::new();
    for document in &answer.commands {
        assert!(openssl_agrees(&site, &serde_json::to_value(document)?)?);
        let payload = BASE64.decode(document.payload.as_bytes())?;
        let command: protocol::Command = serde_json::from_slice(&payload)?;
        assert_eq!(command.device, device.smsid());
        orders.push(command);
    }
    let [renew, test] = &orders[..] else {
        anyhow::bail!("{orders:?}");
    };
    assert_eq!(renew.order, Order::Renew);
    let Order::TestScript { script } = &test.order else {
        anyhow::bail!("{test:?}");
    };
    assert_eq!(
        script.as_str(),
        "defaults read com.microsoft.ccmclient SMSID\n"
    );

    let end = |id: String, done, detail: &str| -> Result<Request> {
        let result = serde_json::to_vec(&CommandResult {
            at: SystemClock::new().now(),
            done,
            detail: detail.to_owned(),
        })?;
        let request = Request::new(Method::POST, format!("{COMMAND_PATH}/{id}"), result);
        Ok(request.header("content-type", "application/json"))
    };
    let (renew, test) = (renew.id.to_string(), test.id.to_string());
    let stranger = other.send(&server, end(renew.clone(), true, "")?).await?;
    assert_eq!(stranger.status, 404, "{}", stranger.text());
    let output = "GUID:1\u{1b}[2J\nsecond line\0";
    for (id, done, detail) in [
        (&renew, false, "the site refused"),
        // Told twice, since the answer was lost.
        (&renew, true, "renewed"),
        (&test, true, output),
    ] {
        let answer = device.send(&server, end(id.clone(), done, detail)?).await?;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    assert!(device.check_in(&server, None).await?.commands.is_empty());
    let listed = admin(&site, &["device", "commands", "mac-1", "--json"])?.json();
    assert_eq!(
        (&listed[0]["command"], &listed[0]["state"]),
        (&"test-script".into(), &"done".into())
    );
    assert_eq!(
        listed[0]["about"],
        format!("{NAME}, revision 1, setting {NAME}")
    );
    assert_eq!(
        (&listed[1]["state"], &listed[1]["detail"]),
        (&"failed".into(), &"the site refused".into())
    );
    let shown = admin(&site, &["device", "show", "mac-1"])?.succeeded().out;
    assert!(
        shown.contains("second line") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    let log = admin(&site, &["audit", "list", "--json"])?.json();
    let digest = data_encoding::HEXLOWER.encode(&x509::sha256(&[script.as_str().as_bytes()]));
    let told = log.as_array().context("a list")?.iter().any(|entry| {
        entry["action"] == "command-issued"
            && entry["payload"]["what"] == "test-script"
            && entry["payload"]["script"] == digest
    });
    assert!(told, "{log:#}");
    Ok(())
}
