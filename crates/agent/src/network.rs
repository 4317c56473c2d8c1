//! The way to the site. The one implementation speaks TLS; tests put a site in its place that is away
//! for weeks or loses its answers.

use std::sync::Arc;

use async_trait::async_trait;
use domain::Clock;
use transport::{Client, Request, Response, ServerAddress, TransportError, Trust};

use crate::failure::Failure;
use crate::identity::Identity;

/// Opens ways to a site.
pub trait Network: Send + Sync {
    /// To `server`, as the holder of `identity` or as nobody.
    ///
    /// # Errors
    /// When the identity's key does not belong to its certificate.
    fn way(
        &self,
        server: &ServerAddress,
        trust: Trust,
        identity: Option<&Identity>,
    ) -> Result<Box<dyn Way>, Failure>;
}

/// A way to a site.
#[async_trait(?Send)]
pub trait Way {
    /// Sends one request, on a connection of its own.
    async fn send(&self, request: Request) -> Result<Response, TransportError>;
}

/// HTTPS.
pub struct Https {
    pub clock: Arc<dyn Clock>,
}

impl Network for Https {
    fn way(
        &self,
        server: &ServerAddress,
        trust: Trust,
        identity: Option<&Identity>,
    ) -> Result<Box<dyn Way>, Failure> {
        let identity = identity.map(Identity::for_tls);
        let client = Client::new(server.clone(), trust, identity, self.clock.clone())
            .map_err(|error| Failure::other(error.to_string()))?;
        Ok(Box::new(client))
    }
}

#[async_trait(?Send)]
impl Way for Client {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        Client::send(self, request).await
    }
}
