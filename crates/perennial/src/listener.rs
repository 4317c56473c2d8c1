//! A listener: accepts TLS connections, tells each request its peer, and ends gracefully.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use site::Peer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;
use transport::ServerTls;

/// Time for a TLS handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time for open requests when the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// What a listener grants.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once. Past it new ones wait in the system's queue.
    connections: usize,
    /// Time for a whole request, its body and its answer.
    request: Duration,
}

impl Bounds {
    /// For devices: their requests are small and quick. `descriptors` is what the system grants.
    pub fn devices(descriptors: u64) -> Self {
        Self {
            connections: share(descriptors, 20_000),
            request: Duration::from_secs(60),
        }
    }

    /// For administrators: a few connections that are theirs whatever devices do, and time for
    /// requests over the whole fleet.
    pub fn console(descriptors: u64) -> Self {
        Self {
            connections: share(descriptors, 256),
            request: Duration::from_secs(600),
        }
    }
}

/// Half of the descriptors at most: files, the database and the other listener need some too.
fn share(descriptors: u64, most: usize) -> usize {
    usize::try_from(descriptors / 2)
        .unwrap_or(most)
        .clamp(16, most)
}

/// TLS settings that can be replaced while connections go on.
#[derive(Clone)]
pub struct CurrentTls(Arc<RwLock<ServerTls>>);

impl CurrentTls {
    pub fn new(tls: ServerTls) -> Self {
        Self(Arc::new(RwLock::new(tls)))
    }

    pub fn replace(&self, tls: ServerTls) {
        *self.0.write().expect("no holder panics") = tls;
    }

    fn get(&self) -> ServerTls {
        self.0.read().expect("no holder panics").clone()
    }
}

/// Serves `router` on `listener` until `stop` changes.
pub async fn serve(
    listener: TcpListener,
    tls: CurrentTls,
    router: Router,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            next = next => next,
            _ = stop.changed() => break,
        };
        // Reap what has ended, so that the set stays as small as the number of connections.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((tcp, address)) => {
                let connection = connection(
                    tcp,
                    address,
                    tls.get(),
                    router.clone(),
                    bounds.request,
                    graceful.watcher(),
                );
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: connections end and give some back.
                tracing::error!(event = "accept-failed", %error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    // What is still open after the grace is aborted with the set.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

async fn connection(
    tcp: TcpStream,
    address: SocketAddr,
    tls: ServerTls,
    router: Router,
    time: Duration,
    graceful: Watcher,
) {
    let _ = tcp.set_nodelay(true);
    let stream = match tokio::time::timeout(PATIENCE, tls.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(event = "handshake-failed", %address, %error);
            return;
        }
        Err(_) => {
            tracing::debug!(event = "handshake-slow", %address);
            return;
        }
    };
    let certificate = transport::peer_certificate(&stream)
        .and_then(|der| x509::Certificate::from_der(der).ok())
        .and_then(|certificate| certificate.serial());
    let peer = Peer {
        certificate,
        address: address.ip().to_canonical(),
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request);
        async move {
            // Whoever sends half a request and waits is let go.
            let answer = tokio::time::timeout(time, answer).await;
            Ok::<_, Infallible>(answer.map_or_else(
                |_| StatusCode::REQUEST_TIMEOUT.into_response(),
                |Ok(answer)| answer,
            ))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = graceful.watch(connection).await {
        tracing::debug!(event = "connection-broke", %address, %error);
    }
}
