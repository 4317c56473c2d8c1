//! A whole fleet renews within minutes, because an administrator said so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acceptance::est;
use acceptance::programs::{Server, Site};
use anyhow::{Context, Result, ensure};
use authority::{Authority, ClientTemplate};
use clock::{SystemClock, SystemRng};
use domain::{Clock, DeviceFacts, DeviceId, Period, Rng, Timestamp, Window};
use jiff::SignedDuration;
use protocol::{CHECK_IN_PATH, CheckIn, RENEWAL_INFO_PATH, RenewalInfo};
use store::{Actor, Change, Kind, Location, NewCertificate, NewDevice, Store};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use transport::{Method, Request};
use x509::{Certificate, CertificateRequest, PrivateKey};

const CLIENTS: usize = 10_000;
/// The window of 10 minutes passes in so many times the time that this machine needs for all renewals
/// alone: asking for the window costs something, too, and instants are random.
const SLACK: f64 = 3.0;
/// Renewals that tell how fast the machine is.
const TRIALS: usize = 300;
/// Connections at once, as far as the clients' side goes.
const AT_ONCE: usize = 200;
/// Those that ask for their window, on a kept connection each.
const ASKING: usize = 4;
/// The last part of the window is for those that came just before.
const LAST_INSTANT: f64 = 0.93;
/// The most memory of the server, in KiB: five times what it has when idle. Measured were 20 MiB idle
/// and 53 MiB with this many connections at once; what grew with the fleet would be more.
const MOST_KIB: u64 = 100 * 1024;

struct Member {
    key: PrivateKey,
    certificate: Certificate,
    /// What it will ask for.
    next: PrivateKey,
}

/// Time that runs faster, as the programs read it out of their environment.
#[derive(Clone, Copy)]
struct Scaled {
    began: Timestamp,
    factor: f64,
}

impl Scaled {
    fn now(&self) -> Timestamp {
        let passed = SystemClock::default().now().duration_since(self.began);
        self.began + SignedDuration::from_secs_f64(passed.as_secs_f64() * self.factor)
    }

    fn until(&self, at: Timestamp) -> Duration {
        let wait = at.duration_since(self.now()).as_secs_f64() / self.factor;
        Duration::from_secs_f64(wait.max(0.0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_renew_in_ten_minutes() -> Result<()> {
    let mut site = Site::new()?;
    site.without_limits()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    server.stop()?;
    let mut fleet = enrolled(&site).await?;

    // Everything is in one machine, and others may use it, too: so the speed of time is measured.
    let server = Arc::new(site.serve()?);
    let began = Instant::now();
    let trials: Vec<Member> = fleet.drain(..TRIALS).collect();
    fleet.extend(renew_at_once(trials, &server).await?);
    let seconds = began.elapsed().as_secs_f64() / TRIALS as f64 * CLIENTS as f64 * SLACK;
    drop(Arc::into_inner(server).context("nobody else's")?.stop()?);
    let time = Scaled {
        began: Timestamp::from_second(SystemClock::default().now().as_second())?,
        factor: 600.0 / seconds.max(45.0),
    };
    let second = time.began.as_second();
    site.set_clock(&format!("{second}:{second}:{}", time.factor));
    eprintln!("ten minutes pass in {:.0} s", 600.0 / time.factor);

    let server = Arc::new(site.serve()?);
    let idle = resident(&server)?;
    let set = site.admin("renewal-window set --all --spread 10m --json")?;
    let set = set.succeeded().json();
    ensure!(set["covered"] == CLIENTS, "{set}");
    let end: Timestamp = set["window"]["end"]
        .as_str()
        .or(set["end"].as_str())
        .with_context(|| set.to_string())?
        .parse()?;

    // All ask when to renew, and each does at its own instant. One refusal is too many.
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    let mut fleet = fleet.into_iter();
    let share = CLIENTS.div_ceil(ASKING);
    for _ in 0..ASKING {
        let members: Vec<Member> = fleet.by_ref().take(share).collect();
        asking.spawn(ask_and_renew(members, server.clone(), places.clone(), time));
    }
    while let Some(asked) = asking.join_next().await {
        asked??;
    }
    let late = time.now().duration_since(end);
    ensure!(late.as_secs() <= 0, "the fleet was {late:?} late");

    let shown = site
        .admin("renewal-window show 1 --json")?
        .succeeded()
        .json();
    ensure!(shown["renewed"] == CLIENTS, "{shown}");
    let most = resident(&server)?;
    eprintln!("the server's memory: {idle} KiB idle, {most} KiB at most");
    ensure!(most <= MOST_KIB, "{idle} KiB idle, {most} KiB at most");
    site.admin("audit verify")?.succeeded();
    Ok(())
}

async fn ask_and_renew(
    members: Vec<Member>,
    server: Arc<Server>,
    places: Arc<Semaphore>,
    time: Scaled,
) -> Result<()> {
    let mut connection = est::client(&server.devices, server.pin, None)
        .connect()
        .await?;
    let mut renewing = JoinSet::new();
    for member in members {
        let id = member.certificate.renewal_id().context("an issuer")?;
        let answer = connection
            .send(Request::get(format!("{RENEWAL_INFO_PATH}/{id}")))
            .await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        let info: RenewalInfo = serde_json::from_slice(&answer.body)?;
        let at = instant(info.suggested_window);
        let (server, places) = (server.clone(), places.clone());
        renewing.spawn(async move {
            tokio::time::sleep(time.until(at)).await;
            let _place = places.acquire_owned().await?;
            renew(member, &server).await
        });
    }
    while let Some(renewed) = renewing.join_next().await {
        renewed??;
    }
    Ok(())
}

/// Renews, and uses the new certificate once: an agent does both.
async fn renew(member: Member, server: &Server) -> Result<Member> {
    let identity = Some((&member.key, &member.certificate));
    let request = est::request("simplereenroll", est::body(&member.next));
    let answer = est::client(&server.devices, server.pin, identity)
        .send(request)
        .await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let renewed = est::certificate(&answer);
    ensure!(renewed.key() == member.next.digest(), "another key");
    ensure!(
        renewed.device() == member.certificate.device(),
        "another device"
    );
    let report = CheckIn {
        facts: DeviceFacts::default(),
        time: Timestamp::UNIX_EPOCH,
        policy: None,
        results: None,
    };
    let request = Request::new(Method::POST, CHECK_IN_PATH, serde_json::to_vec(&report)?)
        .header("content-type", "application/json");
    let identity = Some((&member.next, &renewed));
    let answer = est::client(&server.devices, server.pin, identity)
        .send(request)
        .await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(Member {
        key: member.next,
        certificate: renewed,
        next: PrivateKey::generate(),
    })
}

async fn renew_at_once(members: Vec<Member>, server: &Arc<Server>) -> Result<Vec<Member>> {
    let mut renewing = JoinSet::new();
    for member in members {
        let server = server.clone();
        renewing.spawn(async move { renew(member, &server).await });
    }
    let mut renewed = Vec::new();
    while let Some(member) = renewing.join_next().await {
        renewed.push(member??);
    }
    Ok(renewed)
}

/// A random instant, but for the last moments: who picks those is done after the window by as long
/// as a renewal takes.
fn instant(window: Window) -> Timestamp {
    let mut bytes = [0; 4];
    SystemRng.fill(&mut bytes);
    let fraction = f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX);
    window.instant(fraction * LAST_INSTANT)
}

/// Clients that enrolled a week ago and were seen since, written into the site's records: their
/// log-ins would take longer than all the rest.
async fn enrolled(site: &Site) -> Result<Vec<Member>> {
    let authority = Authority::open(&site.folder().join("keys"), None)?;
    let location = Location::Sqlite(site.folder().join("site.db"));
    let store = Store::open(&location, "test", Arc::new(SystemRng)).await?;
    let owner = store.account("ann").await?.context("ann")?.id;
    let at = SystemClock::default().now() - Period::from_days(7).duration();
    let mut fleet = Vec::with_capacity(CLIENTS);
    let mut changes = Vec::new();
    for _ in 0..CLIENTS {
        let key = PrivateKey::generate();
        let request = CertificateRequest::from_der(&x509::request_der(&key, ""))?;
        let mut random = [0; 16];
        SystemRng.fill(&mut random);
        let template = ClientTemplate {
            serial: authority::new_serial(&SystemRng),
            common_name: "ann".to_owned(),
            device: DeviceId::from_entropy(random),
            not_before: at,
            not_after: at + Period::from_days(365).duration(),
        };
        let (serial, device) = (template.serial, template.device);
        let certificate = authority.issue_client(request.spki_der(), &template)?;
        let change = |kind| Change {
            at,
            by: Actor::site(),
            kind,
        };
        changes.push(change(Kind::Enroll {
            device: NewDevice {
                id: device,
                owner: owner.clone(),
                user_name: "ann".to_owned(),
                predecessor: None,
            },
            certificate: NewCertificate {
                serial,
                device,
                owner: owner.clone(),
                key: request.key(),
                subject: certificate.subject().to_owned(),
                common_name: "ann".to_owned(),
                not_before: certificate.not_before(),
                not_after: certificate.not_after(),
                der: certificate.der().to_vec(),
                differences: None,
            },
        }));
        changes.push(change(Kind::UseCertificate {
            serial,
            device,
            spends_permission: false,
            takes_place_of: None,
        }));
        fleet.push(Member {
            key,
            certificate,
            next: PrivateKey::generate(),
        });
    }
    // Neighbours of a kind are one statement.
    changes.sort_by_key(|change| matches!(change.kind, Kind::UseCertificate { .. }));
    for part in changes.chunks(500) {
        for outcome in store.commit(part.to_vec()).await? {
            outcome?;
        }
    }
    Ok(fleet)
}

/// The most memory that a server ever had, in KiB.
fn resident(server: &Server) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
