//! An evaluation of a hundred trivial scripts, beside a shell that runs the same hundred files one
//! after the other. Everything of an evaluation is in it: the process, the signatures, the judging.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use acceptance::programs::program;
use agent::compliance::Owner;
use agent::compliance::evaluator::{Line, Plan, Task};
use anyhow::{Context, Result, ensure};
use authority::{Authority, PolicySigner};
use clock::{SystemClock, SystemRng};
use data_encoding::BASE64;
use domain::{Clock, ComplianceState, DeviceId};
use jiff::SignedDuration;
use protocol::{
    AssignedDeployment, BodyHash, ItemBody, PayloadType, PolicyList, PolicyVersion, SignedDocument,
    signed_message,
};
use serde::Serialize;
use serde_json::json;

use crate::report::Report;

const ITEMS: usize = 10;
const SETTINGS: usize = 10;
const RUNS: usize = 11;
const SCRIPT: &str = "#!/bin/sh\necho right\n";

pub fn measure(report: &mut Report) -> Result<()> {
    let scripts = ITEMS * SETTINGS;
    eprintln!("evaluations: {scripts} scripts, {RUNS} times");
    let place = tempfile::tempdir()?;
    let owner = prepare(place.path())?;
    let files = place.path().join("scripts");
    fs::create_dir(&files)?;
    for at in 0..scripts {
        fs::write(files.join(format!("{at:03}.sh")), SCRIPT)?;
    }
    let (mut ours, mut shell) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(timed(|| evaluate(place.path(), &owner))?);
        shell.push(timed(|| run_files(&files))?);
    }
    report.row(
        format!("{scripts} trivial script settings, against a shell's loop"),
        median(ours).as_secs_f64() * 1000.0,
        Some(median(shell).as_secs_f64() * 1000.0),
        "ms",
        "must 1.3, reach 1.1",
    );
    Ok(())
}

/// A device's policy on disk, as the agent keeps it. Returns whose it is.
fn prepare(root: &Path) -> Result<Owner> {
    let keys = root.join("keys");
    fs::create_dir(&keys)?;
    let clock = SystemClock::new();
    Authority::create(&keys, "Bench", &clock, &SystemRng)?;
    let pin = Authority::open(&keys, None)?.pin();
    let signer = PolicySigner::open(&keys)?.context("a policy key")?;
    let device = DeviceId::from_entropy([1; 16]).smsid();
    let policy = root.join("var/lib/perennial-agent/policy");
    fs::create_dir_all(policy.join("bodies"))?;
    let mut hashes = Vec::new();
    for number in 0..ITEMS {
        let body = body(number)?;
        let payload = serde_json::to_vec(&body)?;
        let hash = BodyHash::new(x509::sha256(&[&payload]));
        let file = policy.join(format!("bodies/{hash}.json"));
        fs::write(file, sign(&signer, PayloadType::Body, &body)?)?;
        hashes.push(hash);
    }
    let now = clock.now();
    let deployment = json!({
        "number": 1, "baseline": "Bench", "items": hashes, "remediate": false,
        "schedule": "8h", "spread": "0s",
    });
    let list = PolicyList {
        device,
        version: PolicyVersion::default(),
        issued_at: now,
        expires_at: now + SignedDuration::from_hours(24),
        content: "bench".to_owned(),
        deployments: vec![serde_json::from_value::<AssignedDeployment>(deployment)?],
    };
    fs::write(
        policy.join("list.json"),
        sign(&signer, PayloadType::List, &list)?,
    )?;
    Ok(Owner { pin, device })
}

fn body(number: usize) -> Result<ItemBody> {
    let names = || (0..SETTINGS).map(|at| format!("setting {at}"));
    let settings = names().map(|name| {
        json!({"name": name, "data_type": "string", "source": {"script": {"discovery": SCRIPT}}})
    });
    let rules = names().map(|name| {
        json!({"name": name, "setting": name, "condition": {"value": {
            "type": "string", "operator": "equals", "operands": ["right"],
        }}})
    });
    let first = number * SETTINGS;
    Ok(serde_json::from_value(json!({
        "item": format!("item {number}"), "revision": 1,
        "content": {
            "platforms": [{"os": "Linux"}],
            "settings": settings.collect::<Vec<_>>(), "rules": rules.collect::<Vec<_>>(),
        },
        "rules": (first..first + SETTINGS).collect::<Vec<_>>(),
    }))?)
}

fn sign(signer: &PolicySigner, kind: PayloadType, payload: &impl Serialize) -> Result<Vec<u8>> {
    let payload = serde_json::to_vec(payload)?;
    Ok(serde_json::to_vec(&SignedDocument {
        payload_type: kind,
        signature: BASE64.encode(&signer.sign(&signed_message(kind, &payload))),
        payload: BASE64.encode(&payload),
        chain: signer.chain().map(|der| BASE64.encode(der)).to_vec(),
    })?)
}

/// As the agent starts an evaluation.
fn evaluate(root: &Path, owner: &Owner) -> Result<()> {
    let plan = Plan {
        owner: owner.clone(),
        now: SystemClock::new().now(),
        os_name: "Linux".to_owned(),
        os_version: String::new(),
        task: Task::Evaluate {
            deployments: vec![1],
            remediate: false,
        },
    };
    let mut child = Command::new(program("perennial-agent"))
        .arg("--root")
        .arg(root)
        .arg("evaluate-plan")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("an input")?;
    writeln!(input, "{}", serde_json::to_string(&plan)?)?;
    let output = BufReader::new(child.stdout.take().context("an output")?);
    let mut compliant = 0;
    for line in output.lines() {
        if let Line::Found(found) = serde_json::from_str(&line?)? {
            ensure!(found.state == ComplianceState::Compliant, "{found:?}");
            compliant += 1;
        }
    }
    ensure!(compliant == ITEMS * SETTINGS, "{compliant} results");
    child.wait()?;
    Ok(())
}

fn run_files(folder: &Path) -> Result<()> {
    // As low in priority as the agent's scripts are.
    let status = Command::new("nice")
        .args(["-n", "10", "sh", "-c"])
        .arg("for script in *; do sh \"$script\" >/dev/null; done")
        .current_dir(folder)
        .status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
