//! A collection's members are worked out at a million devices while check-ins go on: how fast that
//! is, how long one step takes, and what a check-in that writes notices of it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use acceptance::est;
use acceptance::programs::{PASSWORD, Server, Site, run};
use anyhow::{Context, Result, ensure};
use clock::SystemClock;
use domain::{Clock, DeviceFacts};
use protocol::{CHECK_IN_PATH, CheckIn};
use tokio::sync::watch;
use transport::{Connection, Method, Request};
use x509::PrivateKey;

use crate::report::Report;

const DEVICES: u32 = 1_000_000;
/// How long check-ins are measured alone.
const ALONE: Duration = Duration::from_secs(10);
/// Half of the devices that are filled in.
const QUERY: &str = r#"os.name == "macOS" && os.version >= v"14.4" && certificate.days_left < 250"#;

/// Check-ins that each change something, one after another on one connection.
struct CheckIns {
    each_second: f64,
    longest: f64,
}

pub async fn measure(report: &mut Report) -> Result<()> {
    eprintln!("memberships: {DEVICES} devices");
    let site = Site::new()?;
    // The built-ins are worked out for nobody first: what is measured is one collection.
    let server = site.serve()?;
    evaluated(&site, "Obsolete").await?;
    site.add_user("ann")?;
    let key = PrivateKey::generate();
    let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
    let certificate = est::certificate(&answer);
    server.stop()?;
    fill(&site.folder().join("site.db"))?;
    let server = site.serve()?;
    let client = est::client(&server.devices, server.pin, Some((&key, &certificate)));
    let mut connection = client.connect().await?;

    let (stop, stopped) = watch::channel(false);
    let alone = {
        let (alone, ()) = tokio::join!(check_in(&mut connection, stopped), async {
            tokio::time::sleep(ALONE).await;
            stop.send_replace(true);
        });
        alone?
    };
    let (stop, stopped) = watch::channel(false);
    let begun = Instant::now();
    let (beside, took) = tokio::join!(check_in(&mut connection, stopped), async {
        let found = found_by_query(&site).await;
        let took = begun.elapsed();
        stop.send_replace(true);
        found.map(|members| (members, took))
    });
    let (beside, (members, took)) = (beside?, took?);
    ensure!(members > i64::from(DEVICES) / 3, "{members} members");
    let step = longest_step(&server).await?;

    report.row(
        "membership at 1,000,000 devices: looked at",
        f64::from(DEVICES) / took.as_secs_f64(),
        None,
        "1/s",
        "-",
    );
    report.row(
        "membership at 1,000,000 devices: longest step",
        step * 1000.0,
        None,
        "ms",
        "-",
    );
    report.row(
        "check-ins beside it, against none beside them: rate",
        beside.each_second,
        Some(alone.each_second),
        "1/s",
        "reach 0.5",
    );
    report.row(
        "check-ins beside it, against none beside them: longest",
        beside.longest * 1000.0,
        Some(alone.longest * 1000.0),
        "ms",
        "-",
    );
    Ok(())
}

/// Devices with a certificate each, all in All Devices; written as a restored database would have
/// them, since enrolling them would take half an hour.
fn fill(database: &Path) -> Result<()> {
    let now = SystemClock::new().now().as_millisecond();
    let sql = format!(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -500000; BEGIN; \
         CREATE TEMP TABLE n (id BLOB PRIMARY KEY, r INTEGER) WITHOUT ROWID; \
         INSERT INTO n SELECT randomblob(16), abs(random()) % 1000 FROM generate_series(1, {DEVICES}); \
         INSERT INTO device (id, state, owner, user_name, enrolled_at, host_name, facts, os_name, \
         os_release, os_version) SELECT id, 'active', 'local:bob', 'bob', {now} - r * 8640000, \
         'mac-' || lower(hex(id)), \
         '{{\"host_name\":\"mac-' || lower(hex(id)) || '\",\"os_name\":\"macOS\",\"os_version\":\"14.5\"}}', \
         'macOS', '14.5', 'b14a5' FROM n; \
         INSERT INTO certificate (serial, device, owner, key, state, generation, by_login, subject, \
         common_name, issued_at, not_before, not_after, first_used_at, newest_order, der) \
         SELECT id, id, 'local:bob', id, 'valid', 1, 1, 'CN=Bob', 'Bob', {now} - r * 8640000, \
         {now} - r * 8640000, {now} + r * 43200000, {now}, 0, zeroblob(500) FROM n; \
         INSERT INTO device_seen SELECT id, {now} FROM n; \
         INSERT INTO membership SELECT c.id, n.id FROM n, collection c WHERE c.name = 'All Devices'; \
         INSERT INTO membership_count SELECT id, {DEVICES} FROM collection WHERE name = 'All Devices' \
         ON CONFLICT (collection) DO UPDATE SET members = members + excluded.members; COMMIT;"
    );
    let mut child = Command::new("sqlite3")
        .arg("-bail")
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("sqlite3")?;
    let mut input = child.stdin.take().context("a pipe")?;
    input.write_all(sql.as_bytes())?;
    drop(input);
    ensure!(
        child.wait()?.success(),
        "sqlite3 does not fill the database"
    );
    Ok(())
}

async fn found_by_query(site: &Site) -> Result<i64> {
    let mut command = site.command("collection");
    command.args(["create", "Measured", "--query", QUERY]);
    // Not on this thread: the check-ins go on.
    let ran = tokio::task::spawn_blocking(move || run(&mut command, "")).await??;
    ran.succeeded();
    evaluated(site, "Measured").await
}

/// Waits until a collection's members are worked out, and returns how many there are.
async fn evaluated(site: &Site, name: &str) -> Result<i64> {
    loop {
        let mut command = site.command("collection");
        command.args(["list", "--json"]);
        let listed = tokio::task::spawn_blocking(move || run(&mut command, "")).await??;
        let listed = listed.succeeded().json();
        let found = listed.as_array().into_iter().flatten();
        let found = found
            .filter(|collection| collection["evaluated"].is_null())
            .find(|collection| collection["name"] == name);
        if let Some(collection) = found {
            return collection["members"].as_i64().context("a number");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Checks in with another host name each time, so that each writes, until it is told to stop.
async fn check_in(connection: &mut Connection, stopped: watch::Receiver<bool>) -> Result<CheckIns> {
    let clock = SystemClock::new();
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    let mut done = 0_u32;
    while !*stopped.borrow() {
        let report = CheckIn {
            facts: DeviceFacts {
                host_name: format!("bench-{done}-{}", begun.elapsed().as_nanos()),
                ..DeviceFacts::default()
            },
            time: clock.now(),
            policy: None,
            results: None,
        };
        let request = Request::new(Method::POST, CHECK_IN_PATH, serde_json::to_vec(&report)?)
            .header("content-type", "application/json");
        let sent = Instant::now();
        let answer = connection.send(request).await?;
        ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
        longest = longest.max(sent.elapsed());
        done += 1;
    }
    Ok(CheckIns {
        each_second: f64::from(done) / begun.elapsed().as_secs_f64(),
        longest: longest.as_secs_f64(),
    })
}

/// The longest step of the job so far, in seconds, as the server counts it itself.
async fn longest_step(server: &Server) -> Result<f64> {
    let trust = transport::Trust::Pinned {
        pin: server.pin,
        check_name: true,
        known_time: None,
    };
    let clock = Arc::new(SystemClock::new());
    let client = transport::Client::new(server.console.clone(), trust, None, clock)?;
    let text = client.send(Request::get("/metrics")).await?.text();
    let name = "site_membership_step_seconds{quantile=\"1\"} ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|number| number.parse().ok())
        .context("site_membership_step_seconds")
}
