//! A simulated fleet: the real agent's and the real site's code in one process, each Mac with a clock,
//! a folder and a life of its own. Time jumps from one moment that matters to the next.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use agent::failure::Failure;
use agent::identity::{Identity, Machine};
use agent::network::{Network, Way};
use agent::platform::Layout;
use agent::site::SiteRecord;
use agent::{compliance, daemon, renewal};
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use clock::SystemRng;
use domain::{Clock, DeviceFacts, DeviceId, Period, Rng, SerialNumber, Timestamp};
use http_body_util::BodyExt;
use jiff::SignedDuration;
use site::{Administrator, EnrollmentProfile, Peer, Settings, Site};
use store::{Location, Store};
use tower::ServiceExt;
use transport::{Request, Response, ServerAddress, TransportError, Trust};
use zeroize::Zeroizing;

use crate::programs::PASSWORD;

/// Randomness that a seed repeats (SplitMix64).
#[derive(Debug)]
pub struct Seeded(Mutex<u64>);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().expect("no holder panics");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, without it.
    pub fn between(&self, low: i64, high: i64) -> i64 {
        let span = u64::try_from(high - low).expect("low is less than high");
        low + i64::try_from(self.next() % span).expect("less than the span")
    }

    /// True in so many of a hundred cases.
    pub fn percent(&self, chance: i64) -> bool {
        self.between(0, 100) < chance
    }
}

impl Rng for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 86_400;
/// When every simulation begins.
const BEGIN: i64 = 1_900_000_000;

/// The time that passes for all.
#[derive(Debug, Default)]
pub struct Time(AtomicI64);

impl Time {
    /// Seconds since the simulation began.
    pub fn now(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn go_to(&self, second: i64) {
        assert!(second >= self.now(), "time does not go back");
        self.0.store(second, Ordering::Relaxed);
    }
}

/// A clock that was set `offset` seconds ahead.
#[derive(Debug)]
pub struct SetClock {
    time: Arc<Time>,
    pub offset: AtomicI64,
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        let second = BEGIN + self.time.now() + self.offset.load(Ordering::Relaxed);
        Timestamp::from_second(second).expect("a moment")
    }

    fn elapsed(&self) -> SignedDuration {
        SignedDuration::from_secs(self.time.now())
    }
}

/// The site, and what is wrong with the way to it.
pub struct World {
    pub time: Arc<Time>,
    pub random: Arc<Seeded>,
    /// The site's own clock.
    pub clock: Arc<SetClock>,
    pub site: Site,
    pub administrator: Administrator,
    router: Router,
    pub site_away: AtomicBool,
    pub directory_away: AtomicBool,
    /// How many of a hundred requests, and of a hundred answers, get lost.
    pub losses: AtomicI64,
    /// Loses the next answer, whatever it is.
    pub lose_next_answer: AtomicBool,
    folder: tempfile::TempDir,
}

impl World {
    /// A site whose profile is `profile`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn new(seed: u64, check_in: Period, profile: EnrollmentProfile) -> Result<Arc<Self>> {
        let time = Arc::new(Time::default());
        let random = Arc::new(Seeded::new(seed));
        let folder = fast_folder()?;
        let keys = folder.path().join("keys");
        std::fs::create_dir(&keys)?;
        let clock = Arc::new(SetClock {
            time: time.clone(),
            offset: AtomicI64::new(0),
        });
        site::create_keys(&keys, "Fleet", &*clock, &SystemRng)?;
        let location = Location::Sqlite(folder.path().join("site.db"));
        let store = Store::open(&location, "fleet", Arc::new(SystemRng)).await?;
        let token = site::new_token_secret(&SystemRng);
        site::add_first_token(&store, &*clock, &token).await?;
        let settings = Settings {
            profile: EnrollmentProfile {
                live_certificates_per_user: 1_000_000,
                enrollments_per_user_per_hour: 1_000_000,
                enrollments_per_address_per_hour: 1_000_000,
                ..profile
            },
            name: "Fleet".to_owned(),
            host_names: vec!["site".to_owned()],
            check_in_interval: check_in,
            crl_lifetime: Period::from_days(7),
            crl_url: None,
            excluded_hardware_uuids: Vec::new(),
            policy_lifetime: "30d".parse().expect("a period"),
            deleted_device_retention: Period::from_days(30),
            compliance_history: Period::from_days(730),
        };
        let site = Site::open(&keys, store, settings, clock.clone(), Arc::new(SystemRng)).await?;
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let administrator = site
            .authenticate_administrator(Some(&token), address)
            .await?;
        let password = site::NewPassword(Zeroizing::new(PASSWORD.to_owned()));
        site.add_account(&administrator, "ann", None, password)
            .await?;
        let router = est::routes(site.clone()).merge(management::routes(site.clone()));
        Ok(Arc::new(Self {
            time,
            random,
            clock,
            site,
            administrator,
            router,
            site_away: AtomicBool::new(false),
            directory_away: AtomicBool::new(false),
            losses: AtomicI64::new(0),
            lose_next_answer: AtomicBool::new(false),
            folder,
        }))
    }

    fn moment(&self) -> Timestamp {
        // The site's own: what its TLS goes by.
        self.site.clock().now()
    }

    async fn answer(&self, peer: Peer, request: Request) -> Response {
        let mut message = axum::http::Request::builder()
            .method(request.method)
            .uri(request.path);
        for (name, value) in request.headers {
            message = message.header(name, value);
        }
        let mut message = message
            .body(Body::from(request.body))
            .expect("a request of the agent's");
        message.extensions_mut().insert(peer);
        let Ok(answer) = self.router.clone().oneshot(message).await;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("a body in memory");
        Response {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.to_bytes(),
        }
    }
}

/// Files that are flushed all the time: in memory, where the system has such a folder.
fn fast_folder() -> Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    Ok(match memory.is_dir() {
        true => tempfile::tempdir_in(memory)?,
        false => tempfile::tempdir()?,
    })
}

/// The way of one Mac to the site: what TLS does, without TLS.
struct SimulatedNetwork {
    world: Arc<World>,
    address: IpAddr,
}

struct SimulatedWay {
    world: Arc<World>,
    server: ServerAddress,
    peer: Peer,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
}

impl Network for SimulatedNetwork {
    fn way(
        &self,
        server: &ServerAddress,
        _trust: Trust,
        identity: Option<&Identity>,
    ) -> Result<Box<dyn Way>, Failure> {
        let certificate = identity.map(|identity| &identity.certificate);
        Ok(Box::new(SimulatedWay {
            world: self.world.clone(),
            server: server.clone(),
            peer: Peer {
                certificate: certificate.and_then(x509::Certificate::serial),
                address: self.address,
            },
            not_before: certificate.map(x509::Certificate::not_before),
            not_after: certificate.map(x509::Certificate::not_after),
        }))
    }
}

#[async_trait(?Send)]
impl Way for SimulatedWay {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let world = &self.world;
        let lost = || world.random.percent(world.losses.load(Ordering::Relaxed));
        if world.site_away.load(Ordering::Relaxed) || lost() {
            return Err(TransportError::Unreachable {
                address: self.server.clone(),
                reason: "it is away".to_owned(),
            });
        }
        // What the site's TLS says to an expired certificate.
        let now = world.moment();
        let expired = self.not_after.is_some_and(|end| end <= now);
        if expired || self.not_before.is_some_and(|begin| begin > now) {
            return Err(TransportError::Refused {
                address: self.server.clone(),
                expired,
                reason: "by its dates".to_owned(),
            });
        }
        if request.path.ends_with("/simpleenroll") && world.directory_away.load(Ordering::Relaxed) {
            return Ok(Response {
                status: 503,
                headers: transport::HeaderMap::new(),
                body: "the directory is away".into(),
            });
        }
        let answer = world.answer(self.peer, request).await;
        if world.lose_next_answer.swap(false, Ordering::Relaxed) || lost() {
            return Err(TransportError::Broken {
                address: self.server.clone(),
                reason: "the answer was lost".to_owned(),
            });
        }
        Ok(answer)
    }
}

/// One Mac.
pub struct Mac {
    pub number: usize,
    pub machine: Machine,
    pub clock: Arc<SetClock>,
    pub device: DeviceId,
    /// When reminders came, in seconds of the simulation.
    pub reminders: Vec<i64>,
    folder: PathBuf,
}

impl Mac {
    /// Installs a Mac and enrolls it.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn enrolled(world: &Arc<World>, number: usize) -> Result<Self> {
        let clock = Arc::new(SetClock {
            time: world.time.clone(),
            offset: AtomicI64::new(0),
        });
        let folder = world.folder.path().join(format!("mac-{number}"));
        let host = u32::try_from(number)? + u32::from(Ipv4Addr::new(10, 0, 0, 1));
        let machine = Machine {
            layout: Layout::new(&folder),
            clock: clock.clone(),
            rng: Arc::new(Seeded::new(world.random.next())),
            network: Arc::new(SimulatedNetwork {
                world: world.clone(),
                address: Ipv4Addr::from(host).into(),
            }),
            facts,
            boot: "only".to_owned(),
            program: crate::programs::program("perennial-agent"),
        };
        let site = SiteRecord {
            server: "site".parse()?,
            pin: world.site.pin(),
            trust_verified: true,
            check_name: true,
            user: "ann".to_owned(),
        };
        let identity = renewal::enroll(&machine, &site, &password()).await?;
        Ok(Self {
            number,
            device: identity.certificate.device().context("a device")?,
            machine,
            clock,
            reminders: Vec::new(),
            folder,
        })
    }

    /// The person at the Mac renews with the password, as the wizard does.
    ///
    /// # Errors
    /// When it is refused or the site is away.
    pub async fn renew_with_password(&self) -> Result<Identity, Failure> {
        let site = self.machine.enrolled()?.site;
        renewal::enroll(&self.machine, &site, &password()).await
    }

    /// The daemon's work, and when it wants to work again, in seconds of the simulation.
    pub async fn step(&mut self, world: &World) -> Option<i64> {
        let before = self.machine.state().last_reminder;
        let mut next = daemon::step(&self.machine, &Vec::<u32>::new).await;
        if let Ok(identity) = self.machine.enrolled() {
            // What the daemon does in a process of its own.
            let due = compliance::next(&self.machine, &identity);
            if due.is_some_and(|due| due <= self.machine.now()) {
                // It is tried again when it says so.
                let _ = compliance::work(&self.machine).await;
            }
            let due = compliance::next(&self.machine, &identity);
            next = next.into_iter().chain(due).min();
        }
        if self.machine.state().last_reminder != before {
            // Renewing forgets it; only a new one counts.
            if self.machine.state().last_reminder.is_some() {
                self.reminders.push(world.time.now());
            }
        }
        let offset = self.clock.offset.load(Ordering::Relaxed);
        next.map(|next| {
            let second = next.as_second() + i64::from(next.subsec_nanosecond() > 0);
            (second - BEGIN - offset).max(world.time.now() + 1)
        })
    }

    /// The serial number of the certificate in use, and its end in seconds of the simulation.
    ///
    /// # Errors
    /// When the identity cannot be read: it is lost.
    pub fn certificate(&self) -> Result<(SerialNumber, i64)> {
        let identity = self.machine.enrolled()?;
        let certificate = &identity.certificate;
        ensure!(
            certificate.device() == Some(self.device),
            "the certificate names another device"
        );
        Ok((
            certificate.serial().context("a serial number")?,
            certificate.not_after().as_second() - BEGIN,
        ))
    }

    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}

fn facts() -> DeviceFacts {
    DeviceFacts {
        host_name: "mac".to_owned(),
        os_name: "macOS".to_owned(),
        agent_version: "1".to_owned(),
        ..DeviceFacts::default()
    }
}

fn password() -> Zeroizing<String> {
    Zeroizing::new(PASSWORD.to_owned())
}
