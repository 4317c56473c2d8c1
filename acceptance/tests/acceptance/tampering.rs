//! Whoever stands between an agent and its site has the site's names and its TLS, and no policy key. Real
//! policy of a real site goes through them: nothing that they made of it runs, the computer says why, and
//! the site shows it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use acceptance::programs::{Client, Ran, Site, program, run, scaled_clock};
use agent::compliance::{self, Selection};
use agent::failure::Failure;
use agent::identity::{Identity, Machine};
use agent::network::{Https, Network, Way};
use agent::renewal;
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use authority::{Authority, PolicySigner};
use clock::{SystemClock, SystemRng};
use data_encoding::BASE64;
use domain::{DeviceId, Timestamp};
use jiff::SignedDuration;
use protocol::{
    BodyHash, CheckInAnswer, PayloadType, PolicyList, PolicyNotice, PolicyVersion, SignedDocument,
    signed_message,
};
use transport::{Request, Response, ServerAddress, TransportError, Trust};

/// What they give in the place of what the site gave, and what they saw.
#[derive(Default)]
struct Between {
    list: Option<SignedDocument>,
    body: Option<SignedDocument>,
    /// Beside those of the site.
    commands: Vec<SignedDocument>,
    seen_list: Option<SignedDocument>,
    seen_body: Option<SignedDocument>,
    seen_commands: Vec<SignedDocument>,
    /// The site's time.
    time: Option<Timestamp>,
}

struct Tampering {
    https: Https,
    between: Arc<Mutex<Between>>,
}

struct TamperedWay {
    way: Box<dyn Way>,
    between: Arc<Mutex<Between>>,
}

impl Network for Tampering {
    fn way(
        &self,
        server: &ServerAddress,
        trust: Trust,
        identity: Option<&Identity>,
    ) -> Result<Box<dyn Way>, Failure> {
        Ok(Box::new(TamperedWay {
            way: self.https.way(server, trust, identity)?,
            between: self.between.clone(),
        }))
    }
}

#[async_trait(?Send)]
impl Way for TamperedWay {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let path = request.path.clone();
        let mut answer = self.way.send(request).await?;
        if answer.status != 200 {
            return Ok(answer);
        }
        let document = || serde_json::from_slice::<SignedDocument>(&answer.body).ok();
        let mut between = self.between.lock().expect("no holder panics");
        let given = if path == protocol::CHECK_IN_PATH {
            let mut told: CheckInAnswer = serde_json::from_slice(&answer.body).expect("an answer");
            between.time = Some(told.time);
            between.seen_commands.extend(told.commands.clone());
            told.commands.extend(between.commands.clone());
            if between.list.is_some() {
                // So that it asks.
                told.policy = Some(PolicyNotice {
                    content: "another".to_owned(),
                });
            }
            serde_json::to_vec(&told)
        } else if path == protocol::POLICY_PATH {
            between.seen_list = document();
            serde_json::to_vec(
                between
                    .list
                    .as_ref()
                    .or(between.seen_list.as_ref())
                    .expect("one"),
            )
        } else if path.starts_with(protocol::POLICY_BODY_PATH) {
            between.seen_body = document();
            serde_json::to_vec(
                between
                    .body
                    .as_ref()
                    .or(between.seen_body.as_ref())
                    .expect("one"),
            )
        } else {
            return Ok(answer);
        };
        answer.body = given.expect("JSON").into();
        Ok(answer)
    }
}

fn signed(signer: &PolicySigner, kind: PayloadType, payload: &[u8]) -> SignedDocument {
    SignedDocument {
        payload_type: kind,
        signature: BASE64.encode(&signer.sign(&signed_message(kind, payload))),
        payload: BASE64.encode(payload),
        chain: signer.chain().map(|der| BASE64.encode(der)).to_vec(),
    }
}

fn payload(document: &SignedDocument) -> Vec<u8> {
    BASE64
        .decode(document.payload.as_bytes())
        .expect("what the site gave")
}

/// A computer that belongs to a site, and those between them.
struct Scene {
    site: Site,
    client: Client,
    machine: Machine,
    device: DeviceId,
    between: Arc<Mutex<Between>>,
}

const NAME: &str = "Right";

impl Scene {
    fn between(&self) -> MutexGuard<'_, Between> {
        self.between.lock().expect("no holder panics")
    }

    fn mark(&self, name: &str) -> PathBuf {
        self.client.root().join(name)
    }

    fn ran(&self, name: &str) -> usize {
        let text = std::fs::read_to_string(self.mark(name)).unwrap_or_default();
        text.lines().count()
    }

    fn admin(&self, words: &[&str]) -> Result<Ran> {
        run(self.site.command(words[0]).args(&words[1..]), "")
    }

    /// A check-in, what follows it, an evaluation, and another check-in, which tells.
    async fn live(&self) -> Result<()> {
        renewal::check_in(&self.machine).await?;
        compliance::deliver_and_note(&self.machine).await?;
        compliance::do_commands(&self.machine).await?;
        let _ = compliance::evaluate(&self.machine, &Selection::All, true, |_| ()).await;
        compliance::deliver_and_note(&self.machine).await?;
        renewal::check_in(&self.machine).await?;
        Ok(())
    }

    /// Nothing runs of what those between made, and everybody hears why.
    async fn is_refused(&self, why: &str) -> Result<()> {
        self.live().await?;
        ensure!(!self.mark("evil").exists(), "{why}: it ran");
        let status = self.client.agent("status")?.succeeded().out;
        ensure!(status.contains(why), "{why}: {status}");
        let smsid = self.device.smsid().to_string();
        let shown = self.admin(&["device", "show", &smsid])?.succeeded().out;
        ensure!(shown.contains(why), "{why}: {shown}");
        let alerts = self.admin(&["alert", "list", "--json"])?.succeeded().json();
        let alert = &alerts[0];
        ensure!(alert["kind"] == "policy-refused", "{why}: {alerts}");
        let detail = alert["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains(why), "{why}: {alerts}");
        Ok(())
    }

    /// Those between let things pass, and all is well.
    async fn recovers(&self) -> Result<()> {
        {
            let mut between = self.between();
            between.list = None;
            between.body = None;
            between.commands.clear();
        }
        let before = self.ran("good");
        self.live().await?;
        ensure!(self.ran("good") > before, "nothing runs any more");
        let status = self.client.status()?;
        ensure!(status["compliance"]["problem"].is_null(), "{status}");
        Ok(())
    }

    /// A revision that devices have to fetch.
    fn revise(&self, severity: &str) -> Result<()> {
        self.admin(&["ci", "set", NAME, "--severity", severity])?
            .succeeded();
        Ok(())
    }

    fn site_time(&self) -> Timestamp {
        self.between().time.expect("it checked in")
    }
}

async fn scene() -> Result<(Scene, acceptance::programs::Server)> {
    // Each tenth of a second is a minute of the site: one alert of a device a minute is noted.
    let site = Site::with("sqlite", Some(scaled_clock(600.0)))?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    let mut machine = Machine::new(client.root());
    let between = Arc::new(Mutex::new(Between::default()));
    machine.program = program("perennial-agent");
    machine.network = Arc::new(Tampering {
        https: Https {
            clock: machine.clock.clone(),
        },
        between: between.clone(),
    });
    let device = machine.enrolled()?.certificate.device();
    let scene = Scene {
        device: device.context("a device")?,
        site,
        client,
        machine,
        between,
    };
    let script = scene.mark("discover.sh");
    let text = format!("echo x >> {}; echo right", scene.mark("good").display());
    std::fs::write(&script, text)?;
    let script = script.to_str().context("a path")?;
    for words in [
        &[
            "ci",
            "create",
            NAME,
            "--type",
            "Linux",
            "--data-type",
            "string",
            "--discovery",
            script,
            "--operator",
            "equals",
            "--value",
            "right",
        ][..],
        &["baseline", "create", "All of it", "--ci", NAME],
        &[
            "deployment",
            "create",
            "--baseline",
            "All of it",
            "--collection",
            "All Linux",
        ],
    ] {
        scene.admin(words)?.succeeded();
    }
    for _ in 0..200 {
        scene.live().await?;
        if scene.ran("good") > 0 {
            return Ok((scene, server));
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!("it was never deployed")
}

#[tokio::test]
async fn nothing_runs_that_somebody_between_made_and_everybody_hears_why() -> Result<()> {
    let (scene, _server) = scene().await?;
    let ours = PolicySigner::open(&scene.site.folder().join("keys"))?.context("a policy key")?;
    let elsewhere = tempfile::tempdir()?;
    Authority::create(elsewhere.path(), "Other", &SystemClock::new(), &SystemRng)?;
    let theirs = PolicySigner::open(elsewhere.path())?.context("a policy key")?;

    let genuine = scene.between().seen_body.clone().context("a body")?;
    let text = String::from_utf8(payload(&genuine))?;
    let (good, evil) = (scene.mark("good"), scene.mark("evil"));
    let (good, evil) = (good.to_string_lossy(), evil.to_string_lossy());
    let evil = text.replace(&*good, &evil);
    assert_ne!(evil, text);
    let evil = evil.into_bytes();

    // A body that was changed on its way, one of another site, and one that is not on the list.
    let tampered = SignedDocument {
        payload: BASE64.encode(&evil),
        ..genuine.clone()
    };
    for (severity, body, why) in [
        ("warning", tampered, "it was changed on its way"),
        (
            "critical",
            signed(&theirs, PayloadType::Body, &evil),
            "under the root of another site",
        ),
        (
            "information",
            signed(&ours, PayloadType::Body, &evil),
            "its content is not what its name says",
        ),
    ] {
        scene.revise(severity)?;
        scene.between().body = Some(body);
        scene.is_refused(why).await?;
        scene.recovers().await?;
    }

    // Who closes the alert hears of what lasts.
    scene.revise("none")?;
    scene.between().body = Some(signed(&theirs, PayloadType::Body, &evil));
    scene.is_refused("under the root of another site").await?;
    let open = || -> Result<serde_json::Value> {
        let listed = scene.admin(&["alert", "list", "--json"])?;
        Ok(listed.succeeded().json())
    };
    let number = open()?[0]["number"].to_string();
    scene.admin(&["alert", "close", &number])?.succeeded();
    assert_eq!(open()?, serde_json::json!([]));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    renewal::check_in(&scene.machine).await?;
    assert_eq!(open()?[0]["kind"], "policy-refused");
    scene.recovers().await?;

    // A list of another device, an older one, and one that expired: each with a body that is on it.
    let list = scene.between().seen_list.clone().context("a list")?;
    let list: PolicyList = serde_json::from_slice(&payload(&list))?;
    let hash = BodyHash::new(x509::sha256(&[&evil]));
    let now = scene.site_time();
    let mut made = list.clone();
    made.deployments[0].items = vec![hash];
    made.issued_at = now;
    made.expires_at = now + SignedDuration::from_hours(24 * 30);
    let other = DeviceId::from_entropy([8; 16]).smsid();
    for (list, why) in [
        (
            PolicyList {
                device: other,
                ..made.clone()
            },
            "it is for another device",
        ),
        (
            PolicyList {
                version: PolicyVersion {
                    epoch: list.version.epoch,
                    counter: list.version.counter - 1,
                },
                ..made.clone()
            },
            "is older than",
        ),
        (
            PolicyList {
                issued_at: now - SignedDuration::from_hours(24 * 31),
                expires_at: now - SignedDuration::from_hours(24),
                ..made.clone()
            },
            "it expired",
        ),
    ] {
        {
            let mut between = scene.between();
            between.list = Some(signed(&ours, PayloadType::List, &json(&list)));
            between.body = Some(signed(&ours, PayloadType::Body, &evil));
        }
        scene.is_refused(why).await?;
        scene.recovers().await?;
    }

    // A command that was done.
    let smsid = scene.device.smsid().to_string();
    let given = scene.admin(&["device", "command", &smsid, "evaluate"])?;
    given.succeeded();
    scene.live().await?;
    let commands = scene
        .admin(&["device", "commands", &smsid])?
        .succeeded()
        .out;
    assert!(commands.contains("done"), "{commands}");
    let replayed = scene.between().seen_commands.clone();
    assert_eq!(replayed.len(), 1);
    scene.between().commands = replayed;
    let before = scene.ran("good");
    renewal::check_in(&scene.machine).await?;
    compliance::do_commands(&scene.machine).await?;
    assert_eq!(scene.ran("good"), before, "it was done again");
    scene.is_refused("was done already").await?;

    scene.recovers().await
}

fn json(list: &PolicyList) -> Vec<u8> {
    serde_json::to_vec(list).expect("JSON")
}
