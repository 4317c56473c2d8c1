//! Nodes that die: nothing is lost, and nothing is issued twice for one request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use acceptance::est;
use acceptance::postgres::Postgres;
use acceptance::programs::{PASSWORD, Server, Site};
use anyhow::{Context, Result, bail};
use domain::Pin;
use tokio::sync::{Mutex, Semaphore};
use transport::ServerAddress;
use x509::{Certificate, PrivateKey};

const CLIENTS: usize = 200;

/// Where servers may be reached just now.
#[derive(Clone)]
struct Nodes {
    addresses: Arc<Mutex<Vec<ServerAddress>>>,
    pin: Pin,
}

impl Nodes {
    /// Tries the nodes in turn until one answers, as a client behind a balancer does. The request
    /// stays the same: its answer may have been lost.
    async fn ask(
        &self,
        first: usize,
        identity: Option<(&PrivateKey, &Certificate)>,
        request: transport::Request,
    ) -> Result<Certificate> {
        for attempt in first..first + 400 {
            let address = {
                let addresses = self.addresses.lock().await;
                addresses[attempt % addresses.len()].clone()
            };
            match est::client(&address, self.pin, identity)
                .send(request.clone())
                .await
            {
                Ok(answer) if answer.is_success() => return Ok(est::certificate(&answer)),
                Ok(answer) if answer.status < 500 => bail!("{}: {}", answer.status, answer.text()),
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        bail!("no node answers")
    }
}

/// A client's life: it enrolls, and renews twice. Returns the keys that it asked for.
async fn live(nodes: Nodes, number: usize) -> Result<Vec<(PrivateKey, Certificate)>> {
    let key = PrivateKey::generate();
    let request = est::with_password(
        est::request("simpleenroll", est::body(&key)),
        "ann",
        PASSWORD,
    );
    let certificate = nodes
        .ask(number, None, request)
        .await
        .context("enrolling")?;
    let mut lived = vec![(key, certificate)];
    for _ in 0..2 {
        let key = PrivateKey::generate();
        let request = est::request("simplereenroll", est::body(&key));
        let (old_key, old) = lived.last().context("a certificate")?;
        let certificate = nodes
            .ask(number + 1, Some((old_key, old)), request)
            .await
            .context("renewing")?;
        lived.push((key, certificate));
    }
    Ok(lived)
}

/// Lets all clients live at once while `disturb` does its worst, then compares what they hold with
/// what the site recorded.
async fn all_live(
    site: &Site,
    nodes: Nodes,
    disturb: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let places = Arc::new(Semaphore::new(32));
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (nodes, places) = (nodes.clone(), places.clone());
            tokio::spawn(async move {
                let _place = places.acquire_owned().await?;
                live(nodes, number).await
            })
        })
        .collect();
    disturb().await?;
    let mut held = Vec::new();
    for task in tasks {
        held.extend(task.await??);
    }
    assert_eq!(held.len(), CLIENTS * 3);

    let recorded = site.admin("certificate list --json")?.succeeded().json();
    let recorded = recorded.as_array().context("a list")?;
    let serials: HashMap<&str, &str> = recorded
        .iter()
        .map(|row| {
            (
                row["serial"].as_str().unwrap_or(""),
                row["device"].as_str().unwrap_or(""),
            )
        })
        .collect();
    for (key, certificate) in &held {
        assert_eq!(certificate.key(), key.digest());
        let serial = certificate.serial().context("a serial number")?.to_string();
        let device = certificate.device().context("a device")?.to_string();
        assert_eq!(
            serials.get(&*serial),
            Some(&&*device),
            "acknowledged and not recorded"
        );
    }
    // As many rows as requests: nothing was issued twice.
    assert_eq!(recorded.len(), CLIENTS * 3);
    let devices = site.admin("device list --json")?.json();
    assert_eq!(devices.as_array().map(Vec::len), Some(CLIENTS));
    let proof = site.admin("audit verify --json")?.succeeded().json();
    assert_eq!(proof["faults"].as_array().map(Vec::len), Some(0), "{proof}");
    let events = site.admin("audit list --limit 100000 --json")?.json();
    let count = |action: &str| {
        events
            .as_array()
            .into_iter()
            .flatten()
            .filter(|event| event["action"] == action)
            .count()
    };
    assert_eq!(
        (count("enrolled"), count("renewed")),
        (CLIENTS, CLIENTS * 2)
    );
    Ok(())
}

/// A third of the way through, as far as certificates go.
async fn wait_for_certificates(site: &Site, number: u64) -> Result<()> {
    for _ in 0..600 {
        let list = site.admin("certificate list --json")?;
        if list.code == 0
            && list
                .json()
                .as_array()
                .is_some_and(|rows| rows.len() as u64 >= number)
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the clients do not get on")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_nodes_on_postgresql_is_killed() -> Result<()> {
    let postgres = Postgres::start()?;
    let site = Site::with(&postgres.database()?, None)?;
    site.without_limits()?;
    let (doomed, staying) = (site.serve()?, site.serve()?);
    site.add_user("ann")?;
    let addresses = vec![doomed.devices.clone(), staying.devices.clone()];
    let nodes = Nodes {
        addresses: Arc::new(Mutex::new(addresses)),
        pin: staying.pin,
    };
    all_live(&site, nodes, async || {
        wait_for_certificates(&site, CLIENTS as u64).await?;
        doomed.kill()
    })
    .await?;
    staying.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_node_on_sqlite_is_killed_and_started_again() -> Result<()> {
    let site = Site::new()?;
    site.without_limits()?;
    let first = site.serve()?;
    site.add_user("ann")?;
    let nodes = Nodes {
        addresses: Arc::new(Mutex::new(vec![first.devices.clone()])),
        pin: first.pin,
    };
    let mut last: Option<Server> = None;
    all_live(&site, nodes.clone(), async || {
        let mut server = first;
        for round in 1..=3 {
            wait_for_certificates(&site, round * CLIENTS as u64 / 2).await?;
            server.kill()?;
            server = site.serve()?;
            *nodes.addresses.lock().await = vec![server.devices.clone()];
        }
        last = Some(server);
        Ok(())
    })
    .await?;
    last.context("a server")?.stop()?;
    Ok(())
}
