//! TLS and HTTP for both ends of a connection: which server a client trusts and why, the client
//! itself (HTTP/1.1, one thread is enough), and the server's side of TLS. The only crate that
//! names the TLS library's types.

mod address;
mod client;
mod server;
mod tls;
mod trust;

pub use address::{InvalidAddress, ServerAddress};
pub use client::{Client, ClientIdentity, Connection, Request, Response, TransportError};
pub use hyper::{HeaderMap, Method};
pub use server::{ServerIdentity, ServerTls, peer_certificate};
pub use trust::Trust;

/// The TLS library's set-up of one side failed: a key that does not fit its certificate, or a
/// certificate that is none.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS: {0}")]
pub struct TlsSetup(pub(crate) String);
