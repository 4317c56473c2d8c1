//! An enrolled computer below a root of its own, and the site that it belongs to.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use agent::compliance::{self, Found, Outcome, Selection};
use agent::failure::Failure;
use agent::identity::{Identity, Machine};
use agent::network::{Network, Way};
use agent::platform::{self, Layout};
use agent::renewal;
use agent::site::SiteRecord;
use async_trait::async_trait;
use authority::{Authority, ClientTemplate, PolicySigner};
use clock::{SystemClock, SystemRng};
use data_encoding::BASE64;
use domain::{Clock, ComplianceState, DeviceId, Pin, SerialNumber, Timestamp, Window};
use jiff::SignedDuration;
use protocol::{
    AssignedDeployment, BodyHash, CheckIn, CheckInAnswer, Command, CommandId, CommandResult,
    ItemBody, Order, PayloadType, PolicyList, PolicyNotice, PolicyVersion, RecordedSet,
    RenewalInfo, ResultReceipt, ResultReport, RuleNumber, RuleResult, SetDigest, SignedDocument,
    StreamId, signed_message,
};
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use transport::{Request, Response, ServerAddress, TransportError, Trust};

/// Begins now, and goes on when a test says so.
#[derive(Debug)]
pub struct TestClock {
    begin: Timestamp,
    passed: AtomicI64,
    /// How far somebody set it.
    set: AtomicI64,
}

impl TestClock {
    pub fn pass(&self, seconds: i64) {
        self.passed.fetch_add(seconds, Ordering::Relaxed);
    }

    pub fn set(&self, seconds: i64) {
        self.set.store(seconds, Ordering::Relaxed);
    }

    /// What a clock shows that nobody set.
    pub fn real(&self) -> Timestamp {
        self.begin + SignedDuration::from_secs(self.passed.load(Ordering::Relaxed))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.real() + SignedDuration::from_secs(self.set.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> SignedDuration {
        SignedDuration::from_secs(1000 + self.passed.load(Ordering::Relaxed))
    }
}

/// What a site keeps of one device.
#[derive(Default)]
pub struct Records {
    pub away: bool,
    /// How far the time that it tells is ahead.
    pub ahead: SignedDuration,
    /// So many answers get lost.
    pub lose_answers: usize,
    pub list: Option<SignedDocument>,
    /// Takes the list's place when that was fetched.
    pub then_list: Option<SignedDocument>,
    /// The status with which results of commands are refused.
    pub refuses_results: Option<u16>,
    content: String,
    pub version: PolicyVersion,
    pub bodies: HashMap<String, SignedDocument>,
    pub commands: Vec<SignedDocument>,
    pub command_results: Vec<(String, CommandResult)>,
    pub check_ins: Vec<CheckIn>,
    pub requests: Vec<String>,
    pub stream: Option<StreamId>,
    pub sequence: u64,
    pub digest: Option<SetDigest>,
    pub set: BTreeMap<RuleNumber, RuleResult>,
    /// Every result in the order in which it was applied.
    pub history: Vec<(u64, RuleResult)>,
}

/// A site with one device.
pub struct FakeSite {
    pub signer: PolicySigner,
    pub pin: Pin,
    authority: Authority,
    clock: Arc<TestClock>,
    records: Mutex<Records>,
    _folder: TempDir,
}

impl FakeSite {
    pub fn new(clock: Arc<TestClock>) -> Arc<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        Authority::create(folder.path(), "Test", &*clock, &SystemRng).expect("a site");
        let authority = Authority::open(folder.path(), None).expect("opens");
        let signer = PolicySigner::open(folder.path()).expect("opens");
        Arc::new(Self {
            signer: signer.expect("a policy key"),
            pin: authority.pin(),
            authority,
            clock,
            records: Mutex::default(),
            _folder: folder,
        })
    }

    pub fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().expect("nobody panicked")
    }

    pub fn sign(&self, kind: PayloadType, payload: &impl Serialize) -> SignedDocument {
        let payload = serde_json::to_vec(payload).expect("JSON");
        SignedDocument {
            payload_type: kind,
            signature: BASE64.encode(&self.signer.sign(&signed_message(kind, &payload))),
            payload: BASE64.encode(&payload),
            chain: self.signer.chain().map(|der| BASE64.encode(der)).to_vec(),
        }
    }

    fn answer(&self, request: &Request) -> (u16, Vec<u8>) {
        let mut records = self.records();
        records.requests.push(request.path.clone());
        let ok = |value: &dyn erased::Json| (200, value.bytes());
        let path = request.path.as_str();
        if path == protocol::CHECK_IN_PATH {
            let check_in: CheckIn = serde_json::from_slice(&request.body).expect("a check-in");
            let state = check_in.results.clone();
            let known = state.filter(|state| Some(&state.stream) == records.stream.as_ref());
            records.check_ins.push(check_in);
            let now = self.clock.real();
            return ok(&CheckInAnswer {
                time: now + records.ahead,
                device: device().smsid(),
                renewal: RenewalInfo {
                    suggested_window: Window {
                        start: now + SignedDuration::from_hours(4000),
                        end: now + SignedDuration::from_hours(5000),
                    },
                    explanation_url: None,
                },
                renewal_mode: Default::default(),
                next_check_in: "1h".parse().expect("a period"),
                policy: records.list.is_some().then(|| PolicyNotice {
                    content: records.content.clone(),
                }),
                results: known.and_then(|_| records.recorded()),
                commands: records.commands.clone(),
            });
        }
        if path == protocol::POLICY_PATH {
            let list = records.list.clone().expect("a list");
            if let Some(then) = records.then_list.take() {
                records.list = Some(then);
            }
            return ok(&list);
        }
        if let Some(hash) = path.strip_prefix(&format!("{}/", protocol::POLICY_BODY_PATH)) {
            return match records.bodies.get(hash) {
                Some(body) => ok(body),
                None => (404, b"no such body".to_vec()),
            };
        }
        if path == protocol::RESULTS_PATH {
            assert!(request.body.len() <= protocol::RESULTS_LIMIT);
            let report: ResultReport = serde_json::from_slice(&request.body).expect("a report");
            return ok(&records.take(&report));
        }
        if let Some(id) = path.strip_prefix(&format!("{}/", protocol::COMMAND_PATH)) {
            if let Some(status) = records.refuses_results {
                return (status, b"not now".to_vec());
            }
            let result = serde_json::from_slice(&request.body).expect("a result");
            records.command_results.push((id.to_owned(), result));
            return (204, Vec::new());
        }
        (404, b"not here".to_vec())
    }
}

mod erased {
    pub trait Json {
        fn bytes(&self) -> Vec<u8>;
    }

    impl<T: serde::Serialize> Json for T {
        fn bytes(&self) -> Vec<u8> {
            serde_json::to_vec(self).expect("JSON")
        }
    }
}

impl Records {
    /// As `protocol::ResultChange` says.
    fn take(&mut self, report: &ResultReport) -> ResultReceipt {
        if self.stream.as_ref() != Some(&report.stream) {
            self.stream = Some(report.stream);
            self.sequence = 0;
            self.digest = None;
        }
        for change in &report.changes {
            if change.sequence <= self.sequence {
                continue;
            }
            let follows = change.sequence == self.sequence + 1 && change.follows == self.digest;
            if !change.whole && !follows {
                return ResultReceipt {
                    recorded: self.recorded(),
                    wants_whole: true,
                };
            }
            if change.whole {
                self.set.clear();
            }
            for result in &change.results {
                self.set.insert(result.rule, result.clone());
                self.history.push((change.sequence, result.clone()));
            }
            for rule in &change.gone {
                self.set.remove(rule);
            }
            self.sequence = change.sequence;
            self.digest = Some(change.digest);
        }
        ResultReceipt {
            recorded: self.recorded(),
            wants_whole: false,
        }
    }

    fn recorded(&self) -> Option<RecordedSet> {
        let (sequence, digest) = (self.sequence, self.digest?);
        Some(RecordedSet { sequence, digest })
    }
}

struct FakeNetwork(Arc<FakeSite>);
struct FakeWay(Arc<FakeSite>);

impl Network for FakeNetwork {
    fn way(
        &self,
        _: &ServerAddress,
        _: Trust,
        _: Option<&Identity>,
    ) -> Result<Box<dyn Way>, Failure> {
        Ok(Box::new(FakeWay(self.0.clone())))
    }
}

#[async_trait(?Send)]
impl Way for FakeWay {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let unreachable = || TransportError::Unreachable {
            address: "site".parse().expect("an address"),
            reason: "it is away".to_owned(),
        };
        if self.0.records().away {
            return Err(unreachable());
        }
        let (status, body) = self.0.answer(&request);
        let mut records = self.0.records();
        if records.lose_answers > 0 {
            records.lose_answers -= 1;
            return Err(unreachable());
        }
        Ok(Response {
            status,
            headers: Default::default(),
            body: body.into(),
        })
    }
}

pub fn device() -> DeviceId {
    DeviceId::from_entropy([7; 16])
}

/// A computer that belongs to a site.
pub struct Place {
    pub machine: Machine,
    pub site: Arc<FakeSite>,
    pub clock: Arc<TestClock>,
    pub folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self::with(true)
    }

    /// `verified`: somebody confirmed that the site is the right one.
    pub fn with(verified: bool) -> Self {
        let clock = Arc::new(TestClock {
            begin: SystemClock::new().now(),
            passed: AtomicI64::new(0),
            set: AtomicI64::new(0),
        });
        let site = FakeSite::new(clock.clone());
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine {
            layout: Layout::new(folder.path()),
            clock: clock.clone(),
            rng: Arc::new(SystemRng),
            network: Arc::new(FakeNetwork(site.clone())),
            facts: platform::facts,
            boot: "first".to_owned(),
            program: program(),
        };
        let record = SiteRecord {
            // Nobody listens there: programs of their own see a site that is away.
            server: "127.0.0.1:1".parse().expect("an address"),
            pin: site.pin,
            trust_verified: verified,
            check_name: true,
            user: "ann".to_owned(),
        };
        let store = machine.identities();
        let pending = store.stage("test", &record).expect("a key");
        let now = clock.now();
        let template = ClientTemplate {
            serial: SerialNumber::from_entropy([3; 16]),
            common_name: "ann".to_owned(),
            device: device(),
            not_before: now,
            not_after: now + SignedDuration::from_hours(10_000),
        };
        let issued = site
            .authority
            .issue_client(&pending.key.spki_der(), &template);
        store
            .add_certificate(&issued.expect("issued"))
            .expect("kept");
        store.promote().expect("in use");
        Self {
            machine,
            site,
            clock,
            folder,
        }
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A check-in, and what follows it.
    pub async fn check_in(&self) {
        renewal::check_in(&self.machine).await.expect("a check-in");
        compliance::deliver_and_note(&self.machine)
            .await
            .expect("noted");
    }

    /// Signs a list with these items, one deployment that remediates, and lets the device fetch it.
    pub async fn deploy(&self, items: Vec<ItemBody>) {
        self.publish(items, &[json!({})]);
        self.check_in().await;
        assert_eq!(self.machine.state().policy_problem, None);
    }

    /// The same, without the device: each deployment with all items, and with fields of its own.
    pub fn publish(&self, items: Vec<ItemBody>, deployments: &[Value]) -> PolicyList {
        let mut records = self.site.records();
        records.version.counter += 1;
        records.content = records.version.to_string();
        records.bodies.clear();
        let mut hashes: Vec<BodyHash> = Vec::new();
        for item in &items {
            let payload = serde_json::to_vec(item).expect("JSON");
            let hash = BodyHash::new(x509::sha256(&[&payload]));
            let signed = self.site.sign(PayloadType::Body, item);
            records.bodies.insert(hash.to_string(), signed);
            hashes.push(hash);
        }
        let deployments = deployments.iter().enumerate().map(|(at, fields)| {
            let mut deployment = json!({
                "number": at + 1, "baseline": format!("Baseline {}", at + 1), "items": hashes,
                "remediate": true, "schedule": "8h", "spread": "0s",
            });
            for (key, value) in fields.as_object().expect("an object") {
                deployment[key] = value.clone();
            }
            serde_json::from_value::<AssignedDeployment>(deployment).expect("a deployment")
        });
        let now = self.clock.real();
        let list = PolicyList {
            device: device().smsid(),
            version: records.version,
            issued_at: now,
            expires_at: now + SignedDuration::from_hours(24 * 14),
            content: records.content.clone(),
            deployments: deployments.collect(),
        };
        drop(records);
        self.sign_list(&list);
        list
    }

    /// The site gives an old list, under the name of a new one.
    pub fn publish_again_as(&self, old: &PolicyList) {
        self.site.records().content = "another".to_owned();
        self.sign_list(old);
    }

    /// The list that the site gives.
    pub fn list(&self) -> PolicyList {
        let records = self.site.records();
        let signed = records.list.as_ref().expect("a list");
        let payload = BASE64.decode(signed.payload.as_bytes()).expect("base64");
        serde_json::from_slice(&payload).expect("a list")
    }

    pub fn sign_list(&self, list: &PolicyList) {
        let signed = self.site.sign(PayloadType::List, list);
        self.site.records().list = Some(signed);
    }

    pub async fn evaluate(&self) -> Result<Outcome, Failure> {
        compliance::evaluate(&self.machine, &Selection::All, true, |_| ()).await
    }

    /// The state of each rule after an evaluation now.
    pub async fn states(&self) -> BTreeMap<String, (ComplianceState, String)> {
        let outcome = self.evaluate().await.expect("evaluated");
        outcome.found.into_iter().map(short).collect()
    }

    pub fn order(&self, order: Order) -> SignedDocument {
        let mut id = [0; 16];
        domain::Rng::fill(&SystemRng, &mut id);
        let now = self.clock.real();
        let command = Command {
            device: device().smsid(),
            id: CommandId::new(id),
            issued_at: now,
            expires_at: now + SignedDuration::from_hours(24),
            order,
        };
        self.site.sign(PayloadType::Command, &command)
    }

    /// A run of the program itself.
    pub fn agent(&self, words: &str, variables: &[(&str, &str)]) -> std::process::Output {
        let mut command = std::process::Command::new(program());
        command
            .arg("--root")
            .arg(self.root())
            .args(words.split(' '))
            .envs(variables.iter().copied())
            .stdin(std::process::Stdio::null());
        command.output().expect("it runs")
    }

    /// What the daemon starts when something is due.
    pub fn comply(&self, variables: &[(&str, &str)]) -> std::process::ExitStatus {
        let mut command = std::process::Command::new(program());
        command
            .arg("--root")
            .arg(self.root())
            .arg("comply")
            .envs(variables.iter().copied())
            .stdin(std::process::Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let open = child.stdin.take();
        // `wait` would close it.
        let ended = child.wait().expect("it ends");
        drop(open);
        ended
    }

    /// The program itself, which evaluates.
    pub fn start_evaluation(&self) -> std::process::Child {
        std::process::Command::new(program())
            .arg("--root")
            .arg(self.root())
            .arg("evaluate")
            .spawn()
            .expect("it runs")
    }

    /// Processes of scripts of this computer that are still there.
    pub fn left_behind(&self) -> Vec<String> {
        let mark = format!("PERENNIAL_ROOT={}", self.root().display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            if variables.any(|variable| variable == mark.as_bytes()) {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        found
    }
}

fn short(found: Found) -> (String, (ComplianceState, String)) {
    let told = found.reason.or(found.value).unwrap_or_default();
    (found.name.to_string(), (found.state, told))
}

pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_perennial-agent"))
}

/// A configuration item for this system, out of its settings and rules.
pub fn item(name: &str, settings: &[Value], rules: &[Value]) -> ItemBody {
    // A number for each rule that is the same each time.
    let number = |rule: &Value| {
        let named = format!("{name}/{}", rule["name"]);
        let digest = x509::sha256(&[named.as_bytes()]);
        i64::from(u32::from_be_bytes([
            digest[0], digest[1], digest[2], digest[3],
        ]))
    };
    serde_json::from_value(json!({
        "item": name, "revision": 1,
        "content": {
            "platforms": [{"os": "Linux"}, {"os": "macOS"}], "settings": settings, "rules": rules,
        },
        "rules": rules.iter().map(number).collect::<Vec<_>>(),
    }))
    .expect("an item")
}

/// A setting with one rule: what the script prints equals `expected`.
pub struct Check {
    setting: Value,
    rule: Value,
}

pub fn check(name: &str, discovery: &str, expected: &str) -> Check {
    Check {
        setting: json!({"name": name, "data_type": "string", "source": {"script": {
            "discovery": discovery, "time_limit": "5s",
        }}}),
        rule: json!({"name": name, "setting": name, "condition": {"value": {
            "type": "string", "operator": "equals", "operands": [expected],
        }}}),
    }
}

impl Check {
    pub fn remediated_by(mut self, script: &str) -> Self {
        self.setting["source"]["script"]["remediation"] = script.into();
        self.rule["remediate"] = true.into();
        self
    }

    pub fn without_remediation(mut self) -> Self {
        self.rule["remediate"] = false.into();
        self
    }

    pub fn within(mut self, limit: &str) -> Self {
        self.setting["source"]["script"]["time_limit"] = limit.into();
        self
    }
}

pub fn item_of(name: &str, checks: Vec<Check>) -> ItemBody {
    let (settings, rules): (Vec<Value>, Vec<Value>) = checks
        .into_iter()
        .map(|check| (check.setting, check.rule))
        .unzip();
    item(name, &settings, &rules)
}

/// # Panics
/// When it takes longer than anything here may.
pub async fn wait_until(mut reached: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if reached() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("that never happened");
}
