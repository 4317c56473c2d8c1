//! Cold check-ins: a new mutual-TLS connection each, nothing changed, beside nginx's full handshake
//! with the same certificates, curve and cipher, driven by the same generator.

use std::sync::Arc;

use acceptance::est;
use acceptance::programs::{PASSWORD, Server, Site};
use anyhow::{Result, ensure};
use authority::Authority;
use clock::{SystemClock, SystemRng};
use domain::Clock;
use jiff::SignedDuration;
use protocol::{CHECK_IN_PATH, CheckIn};
use transport::{Method, Request};
use x509::{Certificate, PrivateKey};

use crate::peers::cpu;
use crate::peers::nginx::{Nginx, Settings};
use crate::report::Report;

const CONNECTIONS: usize = 8;
const CHECK_INS: usize = 4_000;

pub async fn measure(report: &mut Report) -> Result<()> {
    eprintln!("cold check-ins: {CHECK_INS} connections, {CONNECTIONS} at once");
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let key = Arc::new(PrivateKey::generate());
    let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
    let certificate = Arc::new(est::certificate(&answer));
    let clock = SystemClock::new();
    let report_body = serde_json::to_vec(&CheckIn {
        facts: domain::DeviceFacts {
            host_name: "bench".to_owned(),
            ..Default::default()
        },
        time: clock.now(),
        policy: None,
        results: None,
    })?;
    let check_in = Request::new(Method::POST, CHECK_IN_PATH, report_body)
        .header("content-type", "application/json");

    // Once, so that the measured ones change nothing.
    connect_and_send(&server, &server.devices, &key, &certificate, &check_in).await?;
    let ours = drive(
        &server,
        &server.devices,
        &key,
        &certificate,
        check_in,
        &[server.pid()],
    )
    .await?;

    let nginx = start_nginx(&site)?;
    let address = nginx.address().to_string().parse()?;
    let pids = nginx.pids()?;
    let peer = drive(
        &server,
        &address,
        &key,
        &certificate,
        Request::get("/"),
        &pids,
    )
    .await?;
    report.row(
        "cold check-in: CPU, against nginx's full handshake",
        ours,
        Some(peer),
        "ms",
        "must 1.0",
    );
    Ok(())
}

/// nginx with a certificate of the same authority, asking for one of the same authority.
fn start_nginx(site: &Site) -> Result<Nginx> {
    let authority = Authority::open(&site.folder().join("keys"), None)?;
    let now = SystemClock::new().now();
    let server = authority.issue_server(
        authority::new_serial(&SystemRng),
        &["127.0.0.1".to_owned()],
        now - SignedDuration::from_hours(1),
        now + SignedDuration::from_hours(24),
    )?;
    let chain = x509::certificates_to_pem(server.chain.iter().map(Vec::as_slice));
    let key = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        data_encoding::BASE64.encode(&server.key)
    );
    let authorities =
        x509::certificates_to_pem([authority.root().der(), authority.issuing().der()]);
    let folder = site.folder().join("nginx");
    std::fs::create_dir_all(&folder)?;
    let settings = Settings {
        cipher: "TLS_AES_256_GCM_SHA384",
        ..Settings::default()
    };
    Ok(Nginx::start(&folder, &chain, &key, &authorities, settings)?)
}

/// Milliseconds of the servers' CPU for each connection.
async fn drive(
    server: &Server,
    address: &transport::ServerAddress,
    key: &Arc<PrivateKey>,
    certificate: &Arc<Certificate>,
    request: Request,
    pids: &[u32],
) -> Result<f64> {
    let before = cpu::cpu_seconds(pids)?;
    let pin = server.pin;
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (address, key, certificate, request) = (
                address.clone(),
                key.clone(),
                certificate.clone(),
                request.clone(),
            );
            tokio::spawn(async move {
                for _ in 0..CHECK_INS / CONNECTIONS {
                    // A client of its own each time: it remembers no session.
                    let client = est::client(&address, pin, Some((&*key, &*certificate)));
                    let answer = client.send(request.clone()).await?;
                    ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok((cpu::cpu_seconds(pids)? - before) * 1000.0 / CHECK_INS as f64)
}

async fn connect_and_send(
    server: &Server,
    address: &transport::ServerAddress,
    key: &PrivateKey,
    certificate: &Certificate,
    request: &Request,
) -> Result<()> {
    let client = est::client(address, server.pin, Some((key, certificate)));
    let answer = client.send(request.clone()).await?;
    ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
    Ok(())
}
