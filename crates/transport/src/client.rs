//! An HTTPS client of one site: HTTP/1.1 over TLS, one connection at a time, bounded in time and
//! size. Small, because it lives in every agent.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use domain::{Clock, Pin};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::tls::{TlsTime, provider};
use crate::trust::TrustVerifier;
use crate::{ServerAddress, TlsSetup, Trust};

const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// No answer of a site is larger.
const BODY_LIMIT: usize = 64 << 20;

/// What a client shows of itself: certificates (DER, its own first) and the key of the first.
pub struct ClientIdentity {
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
}

/// A site, and how to talk to it.
pub struct Client {
    address: ServerAddress,
    config: Arc<ClientConfig>,
    observed: Arc<Mutex<Option<Pin>>>,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        address: ServerAddress,
        reason: String,
    },
    #[error("the server at {address} is not trusted: {reason}")]
    NotTrusted {
        address: ServerAddress,
        /// The root that the server showed, when all that is wrong is that it is not trusted.
        observed: Option<Pin>,
        reason: String,
    },
    #[error("the server at {address} refuses this client's certificate: {reason}")]
    Refused {
        address: ServerAddress,
        /// The server says that it expired.
        expired: bool,
        reason: String,
    },
    #[error("the connection to {address} broke: {reason}")]
    Broken {
        address: ServerAddress,
        reason: String,
    },
}

/// A request to a site. `path` begins with a slash.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

impl Request {
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, Bytes::new())
    }

    pub fn new(method: Method, path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Adds a header.
    ///
    /// # Panics
    /// When `value` holds control characters: callers pass what they made or checked.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("a header without control characters");
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    /// Adds a header whose value is never printed.
    pub fn secret_header(mut self, name: &'static str, value: &str) -> Self {
        self = self.header(name, value);
        if let Some((_, value)) = self.headers.last_mut() {
            value.set_sensitive(true);
        }
        self
    }
}

/// What a site answered.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text, for people: an error's sentence.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

impl Client {
    /// # Errors
    /// When `identity`'s key does not belong to its certificate.
    pub fn new(
        address: ServerAddress,
        trust: Trust,
        identity: Option<ClientIdentity>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsSetup> {
        let setup = |error: rustls::Error| TlsSetup(error.to_string());
        let provider = provider();
        let observed = Arc::new(Mutex::new(None));
        let verifier = TrustVerifier::new(trust, provider.clone(), observed.clone());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(TlsTime(clock)))
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(
                    identity
                        .chain
                        .into_iter()
                        .map(CertificateDer::from)
                        .collect(),
                    PrivatePkcs8KeyDer::from(identity.key.to_vec()).into(),
                )
                .map_err(setup)?,
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            address,
            config: Arc::new(config),
            observed,
        })
    }

    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// The root that the server showed at the last connection.
    pub fn observed(&self) -> Option<Pin> {
        *self.observed.lock().expect("no holder panics")
    }

    /// Opens a connection. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When the server cannot be reached or is not trusted.
    pub async fn connect(&self) -> Result<Connection, TransportError> {
        let unreachable = |reason: String| TransportError::Unreachable {
            address: self.address.clone(),
            reason,
        };
        let opening = async {
            let tcp = TcpStream::connect((self.address.host(), self.address.port()))
                .await
                .map_err(|error| unreachable(plain(&error)))?;
            tcp.set_nodelay(true)
                .map_err(|error| unreachable(plain(&error)))?;
            let tls = TlsConnector::from(self.config.clone())
                .connect(self.address.server_name(), tcp)
                .await
                .map_err(|error| self.classify(&error))?;
            let (sender, driver) = http1::handshake(TokioIo::new(tls))
                .await
                .map_err(|error| self.classify(&error))?;
            tokio::spawn(driver);
            Ok(Connection {
                address: self.address.clone(),
                sender,
            })
        };
        tokio::time::timeout(CONNECT_LIMIT, opening)
            .await
            .unwrap_or_else(|_| Err(unreachable("no answer in time".to_owned())))
    }

    /// Sends one request on a connection of its own.
    ///
    /// # Errors
    /// When no answer came. An answer with an error status is an answer.
    pub async fn send(&self, request: Request) -> Result<Response, TransportError> {
        self.connect().await?.send(request).await
    }

    fn classify(&self, error: &(dyn StdError + 'static)) -> TransportError {
        classify(&self.address, self.observed(), error)
    }
}

/// An open connection to a site. Requests go one after the other.
pub struct Connection {
    address: ServerAddress,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// # Errors
    /// When no answer came.
    pub async fn send(&mut self, request: Request) -> Result<Response, TransportError> {
        let address = self.address.clone();
        let broken = |reason: String| TransportError::Broken {
            address: address.clone(),
            reason,
        };
        let mut message = hyper::Request::builder()
            .method(request.method)
            .uri(request.path)
            .header(HOST, self.address.to_string())
            .header(USER_AGENT, concat!("perennial/", env!("CARGO_PKG_VERSION")));
        for (name, value) in request.headers {
            message = message.header(name, value);
        }
        let message = message
            .body(Full::new(request.body))
            .map_err(|error| broken(error.to_string()))?;
        let exchange = async {
            // The task that drives the connection may not have seen yet that the answer before this
            // one is read.
            self.sender
                .ready()
                .await
                .map_err(|error| classify(&address, None, &error))?;
            let answer = self
                .sender
                .send_request(message)
                .await
                .map_err(|error| classify(&address, None, &error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BODY_LIMIT)
                .collect()
                .await
                .map_err(|error| broken(error.to_string()))?;
            Ok(Response {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(ANSWER_LIMIT, exchange)
            .await
            .unwrap_or_else(|_| Err(broken("no answer in time".to_owned())))
    }
}

/// Tells what a failure means by the TLS library's own error, wherever it is wrapped.
fn classify(
    address: &ServerAddress,
    observed: Option<Pin>,
    error: &(dyn StdError + 'static),
) -> TransportError {
    let address = address.clone();
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(why)) => TransportError::NotTrusted {
            address,
            // Trusting the root would not make a wrong name right, nor a date.
            observed: observed.filter(|_| *why == rustls::CertificateError::UnknownIssuer),
            reason: in_words(why),
        },
        Some(rustls::Error::AlertReceived(alert)) => TransportError::Refused {
            address,
            expired: *alert == rustls::AlertDescription::CertificateExpired,
            reason: format!("{alert:?}"),
        },
        Some(other) => TransportError::Broken {
            address,
            reason: other.to_string(),
        },
        None => TransportError::Broken {
            address,
            reason: plain(error),
        },
    }
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // `io::Error::source` skips the wrapped error itself.
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
            && let Some(found) = inner.downcast_ref::<rustls::Error>()
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn in_words(why: &rustls::CertificateError) -> String {
    use rustls::CertificateError::*;
    match why {
        UnknownIssuer => {
            "its certificate comes from an authority that is not known here".to_owned()
        }
        NotValidForName | NotValidForNameContext { .. } => {
            "its certificate is for another name".to_owned()
        }
        Expired | ExpiredContext { .. } => "its certificate has expired".to_owned(),
        NotValidYet | NotValidYetContext { .. } => {
            "its certificate is not valid yet; is this machine's clock right?".to_owned()
        }
        other => format!("{other:?}"),
    }
}

/// An error and its causes in one line.
fn plain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
