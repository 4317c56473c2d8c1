//! The server's side of TLS.

use std::sync::Arc;

use domain::Clock;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::TlsSetup;
use crate::tls::{TlsTime, provider};

/// What a server shows of itself: certificates (DER, its own first, the root last) and its key.
#[derive(Clone)]
pub struct ServerIdentity {
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
}

/// Accepts TLS 1.2 and 1.3 connections.
#[derive(Clone)]
pub struct ServerTls(TlsAcceptor);

impl ServerTls {
    /// A server that asks for a client certificate when `client_authorities` (DER) are given. A
    /// client without one is let in: routes decide what it may do. A certificate of another
    /// authority, or outside of its dates, ends the handshake.
    ///
    /// # Errors
    /// When the key does not belong to the certificate, or an authority is not a certificate.
    pub fn new(
        identity: ServerIdentity,
        client_authorities: Option<&[Vec<u8>]>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsSetup> {
        let setup = |error: &dyn std::fmt::Display| TlsSetup(error.to_string());
        let provider = provider();
        let builder =
            ServerConfig::builder_with_details(provider.clone(), Arc::new(TlsTime(clock)))
                .with_safe_default_protocol_versions()
                .map_err(|error| setup(&error))?;
        let builder = match client_authorities {
            None => builder.with_no_client_auth(),
            Some(ders) => {
                let mut roots = RootCertStore::empty();
                for der in ders {
                    roots
                        .add(CertificateDer::from(der.clone()))
                        .map_err(|error| setup(&error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .allow_unauthenticated()
                        .build()
                        .map_err(|error| setup(&error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(
                identity
                    .chain
                    .into_iter()
                    .map(CertificateDer::from)
                    .collect(),
                PrivatePkcs8KeyDer::from(identity.key.to_vec()).into(),
            )
            .map_err(|error| setup(&error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer =
            rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| setup(&error))?;
        config.send_tls13_tickets = 1;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Completes a handshake.
    ///
    /// # Errors
    /// When the client breaks it off or is refused.
    pub async fn accept(&self, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.0.accept(tcp).await
    }
}

/// The certificate (DER) that the client of a connection showed; verified during the handshake.
pub fn peer_certificate(stream: &TlsStream<TcpStream>) -> Option<&[u8]> {
    let (_, connection) = stream.get_ref();
    connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|der| der.as_ref())
}
