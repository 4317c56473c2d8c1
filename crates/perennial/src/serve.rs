//! `perennial serve`: runs the site.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Router};
use clock::{SystemClock, SystemRng};
use domain::Clock;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use site::{ServerKey, Site};
use store::{Location, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use transport::{ServerAddress, ServerIdentity, ServerTls};

use crate::cli::Serve;
use crate::configuration::Configuration;
use crate::folder::{Running, SiteFolder};
use crate::listener::{self, Bounds, CurrentTls};

pub async fn run(folder: &SiteFolder, arguments: &Serve) -> anyhow::Result<()> {
    start_logging();
    let descriptors = raise_descriptor_limit();
    let metrics = PrometheusBuilder::new()
        .install_recorder()
        .context("metrics")?;
    let configuration = Configuration::read(&folder.configuration())?;
    let location = configuration.location(folder)?;
    let _lock = match location {
        Location::Sqlite(_) => Some(folder.lock()?),
        Location::Postgres(_) => None,
    };
    let clock = Arc::new(SystemClock::new());
    let node = format!(
        "{}:{}",
        rustix::system::uname().nodename().to_string_lossy(),
        std::process::id()
    );
    let store = Store::open(&location, &node, Arc::new(SystemRng)).await?;
    let site = Site::open(
        &folder.keys(),
        store.clone(),
        configuration.settings(),
        clock.clone(),
        Arc::new(SystemRng),
    )
    .await?;
    site.refresh_crl().await?;

    let tls = Tls::new(&site).await?;
    let devices = bind(arguments.devices.unwrap_or(configuration.devices)).await?;
    let console = bind(arguments.console.unwrap_or(configuration.console)).await?;
    let running = Running {
        devices: reachable(&configuration, &devices)?,
        console: reachable(&configuration, &console)?,
        pin: site.pin(),
        pid: std::process::id(),
    };

    let (stop, stopped) = watch::channel(false);
    let (stop_jobs, jobs_stopped) = watch::channel(false);
    let jobs = {
        let (site, mut stopped) = (site.clone(), jobs_stopped);
        tokio::spawn(async move { site.run_jobs(async { drop(stopped.changed().await) }).await })
    };
    let renewing = tokio::spawn(tls.clone().keep_fresh(site.clone(), clock.clone()));
    let device_listener = tokio::spawn(listener::serve(
        devices,
        tls.devices,
        device_routes(&site),
        Bounds::devices(descriptors),
        stopped.clone(),
    ));
    let console_listener = tokio::spawn(listener::serve(
        console,
        tls.console,
        console_routes(&site, metrics),
        Bounds::console(descriptors),
        stopped,
    ));

    let mut signals = Signals::new()?;
    folder.set_running(&running)?;
    println!(
        "ready devices=https://{} console=https://{} pin={}",
        running.devices, running.console, running.pin
    );
    signals.wait().await;
    tracing::info!(event = "stopping");
    folder.clear_running(&running);
    stop.send_replace(true);
    renewing.abort();
    // First the listeners, so that what they still answer is recorded; then the jobs' last writes.
    let _ = tokio::join!(device_listener, console_listener);
    stop_jobs.send_replace(true);
    jobs.await.context("the jobs ended badly")?;
    store.close().await;
    tracing::info!(event = "stopped");
    Ok(())
}

/// The TLS settings of both listeners.
#[derive(Clone)]
struct Tls {
    devices: CurrentTls,
    console: CurrentTls,
    due: domain::Timestamp,
}

impl Tls {
    async fn new(site: &Site) -> anyhow::Result<Self> {
        let key = site.server_certificate().await?;
        let (devices, console) = both(site, &key)?;
        Ok(Self {
            devices: CurrentTls::new(devices),
            console: CurrentTls::new(console),
            due: site.server_certificate_due(key.not_after),
        })
    }

    /// Replaces the listeners' certificate when it is due, for ever.
    async fn keep_fresh(mut self, site: Site, clock: Arc<SystemClock>) {
        loop {
            let wait = |due: domain::Timestamp| clock.real(due.duration_since(site.clock().now()));
            // At most an hour: the machine's clock may be set meanwhile.
            let sleep = tokio::time::sleep(wait(self.due).min(Duration::from_secs(3600)));
            let guard = site.clock();
            tokio::select! {
                () = sleep => if wait(self.due) > Duration::ZERO {
                    continue;
                },
                () = guard.accepted() => {}
            }
            match self.renew(&site).await {
                Ok(()) => tracing::info!(event = "server-certificate-renewed"),
                Err(error) => {
                    tracing::error!(event = "server-certificate-not-renewed", error = %format!("{error:#}"), "will be tried again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn renew(&mut self, site: &Site) -> anyhow::Result<()> {
        let key = site.server_certificate().await?;
        let (devices, console) = both(site, &key)?;
        self.devices.replace(devices);
        self.console.replace(console);
        self.due = site.server_certificate_due(key.not_after);
        Ok(())
    }
}

fn both(site: &Site, key: &ServerKey) -> anyhow::Result<(ServerTls, ServerTls)> {
    // The site's time, not the machine's: a clock that stepped must not expire the whole fleet.
    let clock = Arc::new(site.clock());
    let identity = || ServerIdentity {
        chain: key.chain.clone(),
        key: key.key.clone(),
    };
    let [issuing, _] = site.ca_certificates();
    let devices = ServerTls::new(identity(), Some(&[issuing.to_vec()]), clock.clone())?;
    let console = ServerTls::new(identity(), None, clock.clone())?;
    Ok((devices, console))
}

fn device_routes(site: &Site) -> Router {
    est::routes(site.clone())
        .merge(management::routes(site.clone()))
        .merge(health(site))
}

fn console_routes(site: &Site, metrics: PrometheusHandle) -> Router {
    let metrics = Router::new()
        .route(
            "/metrics",
            get(async |Extension(metrics): Extension<PrometheusHandle>| metrics.render()),
        )
        .layer(Extension(metrics));
    console::routes(site.clone())
        .merge(api::routes(site.clone()))
        .merge(metrics)
        .merge(health(site))
}

/// `/healthz`: the process answers. `/readyz`: it reaches its records.
fn health(site: &Site) -> Router {
    async fn ready(State(site): State<Site>) -> (StatusCode, &'static str) {
        if site.is_ready().await {
            (StatusCode::OK, "ready\n")
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the records cannot be reached\n",
            )
        }
    }
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .with_state(site.clone())
}

async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

/// The address to give to clients: the listener's own, or the site's name when it listens on all.
fn reachable(
    configuration: &Configuration,
    listener: &TcpListener,
) -> anyhow::Result<ServerAddress> {
    let bound = listener.local_addr()?;
    let host = match (bound.ip().is_unspecified(), configuration.hostnames.first()) {
        (true, Some(name)) => name.clone(),
        _ => bound.ip().to_string(),
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    Ok(format!("{host}:{}", bound.port()).parse()?)
}

/// The signals that end the server. Listened for before it is said to be ready.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Each connection is a descriptor: takes as many as the system lets us, and returns their number.
fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn start_logging() {
    let level = std::env::var("PERENNIAL_LOG")
        .ok()
        .and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing::level_filters::LevelFilter::INFO))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
}
