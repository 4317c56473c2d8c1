//! Silent renewals over kept mutual-TLS connections, row and audit entry durable before the answer,
//! beside cfssl that signs the same requests over plain HTTP without a log-in, recording nothing,
//! recording in SQLite as it comes, and recording in SQLite with a write-ahead log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use acceptance::est;
use acceptance::programs::{PASSWORD, Server, Site};
use anyhow::{Context, Result, ensure};
use transport::{Connection, Request};
use x509::PrivateKey;

use crate::peers::cfssl::{Cfssl, SIGN_PATH};
use crate::peers::cpu;
use crate::report::Report;

/// Connections at once, and requests in all for each.
const LOADS: [(usize, usize); 3] = [(1, 4_000), (8, 12_000), (16, 16_000)];

/// What a load cost its server.
struct Cost {
    rate: f64,
    cpu_milliseconds: f64,
    written: f64,
}

pub async fn measure(report: &mut Report) -> Result<()> {
    let site = Site::new()?;
    site.without_limits()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    for (connections, requests) in LOADS {
        eprintln!("renewals: {connections} connections, {requests} requests");
        let keys: Vec<PrivateKey> = (0..requests).map(|_| PrivateKey::generate()).collect();
        let before = commits(&server).await?;
        let ours = renew(&server, connections, &keys).await?;
        let commits = (commits(&server).await? - before) / requests as f64;

        let pems: Vec<String> = keys
            .iter()
            .map(|key| x509::request_pem(key, "client"))
            .collect();
        let plain = sign(false, false, connections, &pems)?;
        let recorded = sign(true, false, connections, &pems[..requests.min(3_000)])?;
        let tuned = sign(true, true, connections, &pems)?;

        // The bounds are for a fleet, not for one client alone.
        let bound = |bound| if connections >= 8 { bound } else { "-" };
        let name = |what: &str| format!("renewals, {connections} connections: {what}");
        report.row(
            name("rate, against cfssl recording"),
            ours.rate,
            Some(recorded.rate),
            "1/s",
            bound("must 4"),
        );
        report.row(
            name("rate, against cfssl recording in WAL"),
            ours.rate,
            Some(tuned.rate),
            "1/s",
            "-",
        );
        report.row(
            name("rate, against cfssl without records"),
            ours.rate,
            Some(plain.rate),
            "1/s",
            bound("reach 1.0"),
        );
        report.row(
            name("CPU, against cfssl recording"),
            ours.cpu_milliseconds,
            Some(recorded.cpu_milliseconds),
            "ms",
            "-",
        );
        report.row(
            name("CPU, against cfssl without records"),
            ours.cpu_milliseconds,
            Some(plain.cpu_milliseconds),
            "ms",
            bound("reach 0.4 ms"),
        );
        report.row(
            name("commits each"),
            commits,
            None,
            "commits",
            bound("reach 0.1"),
        );
        report.row(
            name("written, against cfssl recording"),
            ours.written,
            Some(recorded.written),
            "bytes",
            "-",
        );
    }
    Ok(())
}

async fn renew(server: &Server, connections: usize, keys: &[PrivateKey]) -> Result<Cost> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let key = PrivateKey::generate();
        let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
        let certificate = est::certificate(&answer);
        let client = est::client(&server.devices, server.pin, Some((&key, &certificate)));
        open.push(client.connect().await?);
    }
    let bodies: Vec<Vec<Request>> = shares(keys, connections)
        .map(|keys| {
            keys.iter()
                .map(|key| est::request("simplereenroll", est::body(key)))
                .collect()
        })
        .collect();
    let meter = Meter::start(server.pid())?;
    let tasks: Vec<_> = open
        .into_iter()
        .zip(bodies)
        .map(|(connection, requests)| tokio::spawn(send_all(connection, requests)))
        .collect();
    for task in tasks {
        task.await??;
    }
    meter.stop(keys.len())
}

async fn send_all(mut connection: Connection, requests: Vec<Request>) -> Result<()> {
    for request in requests {
        let answer = connection.send(request).await?;
        ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
    }
    Ok(())
}

/// Commits since the server's start, as it counts them itself.
pub async fn commits(server: &Server) -> Result<f64> {
    let trust = transport::Trust::Pinned {
        pin: server.pin,
        check_name: true,
        known_time: None,
    };
    let clock = Arc::new(clock::SystemClock::new());
    let client = transport::Client::new(server.console.clone(), trust, None, clock)?;
    let text = client.send(Request::get("/metrics")).await?.text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("store_commits_total "));
    line.and_then(|number| number.parse().ok())
        .context("store_commits_total")
}

fn sign(certdb: bool, tuned: bool, connections: usize, pems: &[String]) -> Result<Cost> {
    let folder = tempfile::tempdir_in("target")?;
    let cfssl = Cfssl::start(folder.path(), certdb)?;
    if tuned {
        cfssl.use_write_ahead_log()?;
    }
    let bodies: Vec<String> = pems.iter().map(|pem| cfssl.sign_body(pem)).collect();
    let meter = Meter::start(cfssl.pid())?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = shares(&bodies, connections)
            .map(|bodies| scope.spawn(|| post_all(cfssl.address(), bodies)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let cost = meter.stop(pems.len())?;
    if certdb {
        ensure!(
            cfssl.recorded()? == pems.len() as u64,
            "cfssl recorded another number"
        );
    }
    Ok(cost)
}

/// Posts on one kept connection, and looks at each answer.
fn post_all(address: SocketAddr, bodies: &[String]) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    for body in bodies {
        let request = format!(
            "POST {SIGN_PATH} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut length = 0;
        let mut status = String::new();
        answers.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            answers.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        answers.read_exact(&mut answer)?;
        ensure!(
            status.contains(" 200 "),
            "cfssl: {status}{}",
            String::from_utf8_lossy(&answer)
        );
    }
    Ok(())
}

fn shares<T>(items: &[T], number: usize) -> impl Iterator<Item = &[T]> {
    items.chunks(items.len().div_ceil(number))
}

/// What a process uses between two moments.
struct Meter {
    pid: u32,
    cpu: f64,
    written: u64,
    began: Instant,
}

impl Meter {
    fn start(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            cpu: cpu::cpu_seconds(&[pid])?,
            written: cpu::write_bytes(pid)?,
            began: Instant::now(),
        })
    }

    fn stop(self, operations: usize) -> Result<Cost> {
        let seconds = self.began.elapsed().as_secs_f64();
        let operations = operations as f64;
        Ok(Cost {
            rate: operations / seconds,
            cpu_milliseconds: (cpu::cpu_seconds(&[self.pid])? - self.cpu) * 1000.0 / operations,
            written: (cpu::write_bytes(self.pid)? - self.written) as f64 / operations,
        })
    }
}
