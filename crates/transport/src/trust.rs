//! Which server a client trusts.

use std::sync::{Arc, Mutex};

use domain::{Pin, Timestamp};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509::Certificate;

/// How a client decides whether it talks to the right server.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The chain must lead to a root whose public key is pinned. Without `check_name` the server's
    /// name in its certificate may differ: for a server that was accepted without a check.
    ///
    /// When the chain fails on its dates alone, the machine's clock may be wrong: it is verified
    /// again at `known_time`, a moment that has certainly passed, or at its own beginning, whichever
    /// is later. So what had expired by then stays refused, and a dead clock strands nobody.
    Pinned {
        pin: Pin,
        check_name: bool,
        known_time: Option<Timestamp>,
    },
    /// The chain must lead to one of these roots (DER).
    Roots(Vec<Vec<u8>>),
    /// The chain must lead to a root that the operating system trusts.
    System,
    /// Any chain is accepted: the caller looks at what was observed.
    Unverified,
}

/// Verifies a server's chain as a [`Trust`] says, and remembers the root that it saw.
#[derive(Debug)]
pub(crate) struct TrustVerifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
    observed: Arc<Mutex<Option<Pin>>>,
}

#[derive(Debug)]
enum Rule {
    Pinned {
        pin: Pin,
        check_name: bool,
        known_time: Option<Timestamp>,
    },
    Roots(RootCertStore),
    Unverified,
}

impl TrustVerifier {
    pub(crate) fn new(
        trust: Trust,
        provider: Arc<CryptoProvider>,
        observed: Arc<Mutex<Option<Pin>>>,
    ) -> Self {
        let rule = match trust {
            Trust::Pinned {
                pin,
                check_name,
                known_time,
            } => Rule::Pinned {
                pin,
                check_name,
                known_time,
            },
            Trust::Roots(ders) => Rule::Roots(store_of(ders.into_iter().map(CertificateDer::from))),
            Trust::System => Rule::Roots(store_of(rustls_native_certs::load_native_certs().certs)),
            Trust::Unverified => Rule::Unverified,
        };
        Self {
            rule,
            provider,
            observed,
        }
    }
}

fn store_of(ders: impl IntoIterator<Item = CertificateDer<'static>>) -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(ders);
    store
}

/// The pin of the last certificate of a chain: a site sends its root along.
fn pin_of(chain_end: &CertificateDer<'_>) -> Option<Pin> {
    Certificate::from_der(chain_end)
        .ok()
        .map(|root| Pin::new(root.key()))
}

fn is_about_dates(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
        )
    )
}

/// The latest of `known` and the moments from which the certificates are valid.
fn latest<'a>(known: Timestamp, chain: impl Iterator<Item = &'a CertificateDer<'a>>) -> UnixTime {
    let latest = chain
        .filter_map(|der| Certificate::from_der(der).ok())
        .map(|certificate| certificate.not_before())
        .fold(known, Timestamp::max);
    let seconds = u64::try_from(latest.as_second()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

impl ServerCertVerifier for TrustVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain_end = intermediates.last().unwrap_or(end_entity);
        let observed = pin_of(chain_end);
        *self.observed.lock().expect("no holder panics") = observed;

        let own_root;
        let (roots, check_name, known_time) = match &self.rule {
            Rule::Pinned {
                pin,
                check_name,
                known_time,
            } => {
                if observed != Some(*pin) {
                    return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
                }
                own_root = store_of([chain_end.clone().into_owned()]);
                (&own_root, *check_name, *known_time)
            }
            Rule::Roots(roots) => (roots, true, None),
            Rule::Unverified => return Ok(ServerCertVerified::assertion()),
        };
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let verify = |at| {
            verify_server_cert_signed_by_trust_anchor(
                &leaf,
                roots,
                intermediates,
                at,
                self.provider.signature_verification_algorithms.all,
            )
        };
        match (verify(now), known_time) {
            (Err(error), Some(known)) if is_about_dates(&error) => {
                let chain = std::iter::once(end_entity).chain(intermediates);
                verify(latest(known, chain))?;
            }
            (verified, _) => verified?,
        }
        if check_name {
            verify_server_name(&leaf, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
