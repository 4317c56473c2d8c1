//! Results of evaluations: what a report costs the site, and what a year of history costs and how
//! long its questions take, against the same at a tenth of the size.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acceptance::est;
use acceptance::programs::{PASSWORD, Server, Site};
use anyhow::{Context, Result, ensure};
use clock::{SystemClock, SystemRng};
use domain::compliance::ComplianceState;
use domain::{Clock, DeviceId, KeyDigest, Period, Rng, SerialNumber, Timestamp};
use protocol::{
    RESULTS_PATH, ResultChange, ResultReport, RuleNumber, RuleResult, SetDigest, StreamId,
};
use store::{
    Actor, Applied, Change, DeployedDevices, DeploymentFilter, HistoryFilter, Kind, Location,
    NewCertificate, NewDevice, SampleDeployment, SampleResults, Store,
};
use transport::{Connection, Method, Request};
use x509::PrivateKey;

use crate::peers::cpu;
use crate::renewals::commits;
use crate::report::Report;

const RULES: usize = 500;
const CONNECTIONS: usize = 8;
/// Of each connection. A device may send no more in an hour than 240.
const REPORTS: usize = 40;

pub async fn measure_intake(report: &mut Report) -> Result<()> {
    eprintln!("results: {CONNECTIONS} connections, {REPORTS} reports of {RULES} rules each");
    let site = Site::new()?;
    site.without_limits()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let mut devices = Vec::new();
    let mut names = String::new();
    for _ in 0..CONNECTIONS {
        let key = PrivateKey::generate();
        let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
        let certificate = est::certificate(&answer);
        let id = certificate.device().context("a device")?;
        names.push_str(&format!(" {id}"));
        let client = est::client(&server.devices, server.pin, Some((&key, &certificate)));
        devices.push(client.connect().await?);
    }
    site.admin("collection create Bench")?.succeeded();
    site.admin(&format!("collection add Bench{names}"))?
        .succeeded();
    let store = open(&site.folder().join("site.db")).await?;
    let now = SystemClock::new().now();
    let (_, rules) = store.deploy_sample(&sample(now)?).await?;
    drop(store);

    // Each changes all: there and back. Then the last one again and again, as when answers are lost.
    let changing = (1..=REPORTS).map(|n| (n, n));
    let (rate, cost) = drive(&server, &mut devices, &rules, changing.collect()).await?;
    for (name, value, unit) in [
        ("all changed, rate", rate, "1/s"),
        ("all changed, CPU each", cost.cpu, "ms"),
        ("all changed, commits each", cost.commits, "commits"),
        ("all changed, written each", cost.written, "bytes"),
    ] {
        report.row(
            format!("results, {RULES} rules: {name}"),
            value,
            None,
            unit,
            "-",
        );
    }
    let repeated = (1..=REPORTS).map(|_| (REPORTS, REPORTS)).collect();
    let (rate, cost) = drive(&server, &mut devices, &rules, repeated).await?;
    for (name, value, unit) in [
        ("nothing new, rate", rate, "1/s"),
        ("nothing new, CPU each", cost.cpu, "ms"),
        ("nothing new, commits each", cost.commits, "commits"),
        ("nothing new, written each", cost.written, "bytes"),
    ] {
        report.row(
            format!("results, {RULES} rules: {name}"),
            value,
            None,
            unit,
            "-",
        );
    }
    Ok(())
}

struct Cost {
    cpu: f64,
    commits: f64,
    written: f64,
}

/// Each device sends reports with these sequences; odd and even ones have different states.
async fn drive(
    server: &Server,
    devices: &mut Vec<Connection>,
    rules: &[i64],
    sequences: Vec<(usize, usize)>,
) -> Result<(f64, Cost)> {
    let requests: Vec<Request> = sequences
        .iter()
        .map(|(sequence, state)| request(rules, *sequence, *state))
        .collect::<Result<_>>()?;
    let pid = server.pid();
    let before = (
        cpu::cpu_seconds(&[pid])?,
        commits(server).await?,
        cpu::write_bytes(pid)?,
    );
    let begun = Instant::now();
    let tasks: Vec<_> = devices
        .drain(..)
        .map(|mut connection| {
            let requests = requests.clone();
            tokio::spawn(async move {
                for request in requests {
                    let answer = connection.send(request).await?;
                    ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
                }
                Ok(connection)
            })
        })
        .collect();
    for task in tasks {
        devices.push(task.await??);
    }
    let reports = (devices.len() * sequences.len()) as f64;
    let rate = reports / begun.elapsed().as_secs_f64();
    let cost = Cost {
        cpu: (cpu::cpu_seconds(&[pid])? - before.0) * 1000.0 / reports,
        commits: (commits(server).await? - before.1) / reports,
        written: (cpu::write_bytes(pid)? - before.2) as f64 / reports,
    };
    Ok((rate, cost))
}

fn request(rules: &[i64], sequence: usize, state: usize) -> Result<Request> {
    let now = SystemClock::new().now();
    let state = match state % 2 {
        0 => ComplianceState::Compliant,
        _ => ComplianceState::NonCompliant,
    };
    let results = rules.iter().map(|rule| RuleResult {
        rule: RuleNumber(*rule),
        state,
        value: Some("1".to_owned()),
        reason: None,
        since: now,
    });
    let report = ResultReport {
        stream: StreamId::new([1; 16]),
        changes: vec![ResultChange {
            sequence: sequence as u64,
            at: now,
            whole: sequence == 1,
            digest: SetDigest::new([1; 16]),
            follows: (sequence != 1).then_some(SetDigest::new([1; 16])),
            results: results.collect(),
            gone: Vec::new(),
        }],
        evaluated_at: now,
    };
    Ok(
        Request::new(Method::POST, RESULTS_PATH, serde_json::to_vec(&report)?)
            .header("content-type", "application/json"),
    )
}

/// A year's size and its questions.
pub async fn measure_history(report: &mut Report) -> Result<()> {
    let small = History::make(2_500).await?;
    let large = History::make(25_000).await?;
    let megabytes = |history: &History| history.bytes as f64 / 1e6;
    report.row(
        "a year of 500 rules, 25,000 devices (peer: 2,500): size",
        megabytes(&large),
        Some(megabytes(&small)),
        "MB",
        "-",
    );
    let rows = (25_000 * (RULES + History::CHANGES)) as f64;
    report.row(
        "the same: for each present or past state",
        large.bytes as f64 / rows,
        None,
        "bytes",
        "-",
    );
    report.row(
        "the same: working out a deployment that changed",
        large.worked_out.as_secs_f64() * 1000.0,
        Some(small.worked_out.as_secs_f64() * 1000.0),
        "ms",
        "-",
    );
    report.row(
        "the same: the longest step of it",
        large.longest_step.as_secs_f64() * 1000.0,
        Some(small.longest_step.as_secs_f64() * 1000.0),
        "ms",
        "-",
    );
    report.row(
        "the same: 99 of 100 steps of it, at most",
        large.most_steps.as_secs_f64() * 1000.0,
        Some(small.most_steps.as_secs_f64() * 1000.0),
        "ms",
        "-",
    );
    let ours = large.ask().await?;
    let peers = small.ask().await?;
    for ((what, took), (_, peer)) in ours.into_iter().zip(peers) {
        report.row(format!("the same: {what}"), took, Some(peer), "ms", "-");
    }
    Ok(())
}

struct History {
    store: Store,
    deployment: i64,
    device: DeviceId,
    now: Timestamp,
    bytes: u64,
    worked_out: Duration,
    longest_step: Duration,
    /// 99 of 100 steps take less.
    most_steps: Duration,
    _folder: tempfile::TempDir,
}

impl History {
    /// Changes of a device in a year: 1 percent of the states each week.
    const CHANGES: usize = 52 * RULES / 100;

    async fn make(devices: usize) -> Result<Self> {
        eprintln!("a year of history: {devices} devices");
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("site.db");
        let store = open(&file).await?;
        let now = SystemClock::new().now();
        let change = |kind| Change {
            at: now,
            by: Actor::site(),
            kind,
        };
        let collection: domain::CollectionName = "Bench".parse()?;
        let kind = Kind::CreateCollection {
            name: collection.clone(),
            rules: domain::CollectionRules::default(),
        };
        store.commit_one(change(kind)).await??;
        let (deployment, rules) = store.deploy_sample(&sample(now)?).await?;
        let mut ids = Vec::with_capacity(devices);
        while ids.len() < devices {
            let enrollments: Vec<_> = (0..500.min(devices - ids.len()))
                .map(|_| enroll())
                .collect();
            ids.extend(enrollments.iter().filter_map(|kind| match kind {
                Kind::Enroll { device, .. } => Some(device.id),
                _ => None,
            }));
            for outcome in store
                .commit(enrollments.into_iter().map(change).collect())
                .await?
            {
                outcome?;
            }
        }
        let mut dice = Dice(devices as u64);
        for some in ids.chunks(250) {
            let results: Vec<_> = some
                .iter()
                .map(|device| year(*device, &rules, now, &mut dice))
                .collect();
            store.write_sample(&results).await?;
        }
        store.write_sample(&[]).await?;
        for some in ids.chunks(1_000) {
            let kind = Kind::AddMembers {
                collection: collection.clone(),
                devices: some.to_vec(),
            };
            store.commit_one(change(kind)).await??;
        }
        let mut steps = Vec::new();
        loop {
            let begun = Instant::now();
            let applied = store.commit_one(change(Kind::WorkOutDeployments)).await??;
            if applied == Applied::Unchanged {
                break;
            }
            steps.push(begun.elapsed());
        }
        let worked_out = steps.iter().sum();
        steps.sort();
        let longest_step = steps.last().copied().unwrap_or_default();
        let most_steps = steps
            .get(steps.len() * 99 / 100)
            .copied()
            .unwrap_or_default();
        Ok(Self {
            store,
            deployment,
            device: ids[devices / 2],
            now,
            bytes: std::fs::metadata(&file)?.len(),
            worked_out,
            longest_step,
            most_steps,
            _folder: folder,
        })
    }

    /// What an administrator asks, and how many milliseconds the answer takes.
    async fn ask(&self) -> Result<Vec<(&'static str, f64)>> {
        let (store, now) = (&self.store, self.now);
        let mut took = Vec::new();
        let mut asked = Instant::now();
        let mut note = |what| {
            took.push((what, asked.elapsed().as_secs_f64() * 1000.0));
            asked = Instant::now();
        };
        let filter = DeploymentFilter {
            limit: 100,
            ..DeploymentFilter::default()
        };
        let found = store.deployment_summaries(&filter, now).await?;
        note("how deployments stand");
        ensure!(found.items[0].devices.unknown == 0, "{found:?}");
        store.rule_summaries(self.deployment, now).await?;
        note("how rules stand");
        let filter = DeployedDevices {
            deployment: self.deployment,
            state: Some(ComplianceState::NonCompliant),
            after: None,
            limit: 1_000,
        };
        store.deployed_devices(&filter, now).await?;
        note("1,000 devices that do not comply");
        store.device_rules(self.device, None, 1_000).await?;
        note("the rules of a device");
        let filter = HistoryFilter {
            device: self.device,
            rule: None,
            after: None,
            limit: 100,
        };
        store.rule_history(&filter).await?;
        note("the history of a device");
        store
            .flapping_rules(now - Period::from_days(30).duration(), None, 100)
            .await?;
        note("which rules flap");
        let then = now - Period::from_days(180).duration();
        store.compliance_at(self.deployment, then).await?;
        note("how it was half a year ago");
        Ok(took)
    }
}

async fn open(file: &Path) -> Result<Store> {
    let location = Location::Sqlite(file.to_owned());
    Ok(Store::open(&location, "bench", Arc::new(SystemRng)).await?)
}

fn sample(at: Timestamp) -> Result<SampleDeployment> {
    Ok(SampleDeployment {
        baseline: "Bench".parse()?,
        collection: "Bench".parse()?,
        rules: RULES,
        stale_after: Period::from_days(30),
        alert: None,
        at,
    })
}

fn enroll() -> Kind {
    let random = || {
        let mut bytes = [0; 16];
        SystemRng.fill(&mut bytes);
        bytes
    };
    let mut key = [0; 32];
    SystemRng.fill(&mut key);
    let now = SystemClock::new().now();
    let device = NewDevice {
        id: DeviceId::from_entropy(random()),
        owner: "local:ann".to_owned(),
        user_name: "ann".to_owned(),
        predecessor: None,
    };
    let certificate = NewCertificate {
        serial: SerialNumber::from_entropy(random()),
        device: device.id,
        owner: device.owner.clone(),
        key: KeyDigest::new(key),
        subject: "CN=Ann".to_owned(),
        common_name: "Ann".to_owned(),
        not_before: now,
        not_after: now + Period::from_days(365).duration(),
        der: vec![0x30, 0x00],
        differences: None,
    };
    Kind::Enroll {
        device,
        certificate,
    }
}

/// A year of a device: each week a hundredth of its rules changes, most of the time to be kept again.
fn year(device: DeviceId, rules: &[i64], now: Timestamp, dice: &mut Dice) -> SampleResults {
    const WEEK: i64 = 7 * 86_400;
    let begin = now.as_second() - 52 * WEEK;
    let mut states: Vec<_> = rules
        .iter()
        .map(|rule| (*rule, ComplianceState::Compliant, begin))
        .collect();
    let mut past = Vec::with_capacity(History::CHANGES);
    for week in 0..52 {
        for _ in 0..RULES / 100 {
            let at = begin + week * WEEK + 1 + dice.roll(WEEK as u64 - 1) as i64;
            let (rule, state, since) = &mut states[dice.roll(RULES as u64) as usize];
            if at <= *since {
                continue;
            }
            past.push((*rule, *state, *since, at));
            *since = at;
            *state = match (*state, dice.roll(4)) {
                (ComplianceState::Compliant, 0) => ComplianceState::NonCompliant,
                (ComplianceState::Compliant, _) => ComplianceState::Remediated,
                _ => ComplianceState::Compliant,
            };
        }
    }
    SampleResults {
        device,
        evaluated_at: now,
        now: states,
        past,
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
