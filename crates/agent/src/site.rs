//! The site that this computer belongs to, and how to talk to it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use clock::SystemClock;
use domain::Pin;
use protocol::{
    CHECK_IN_PATH, CheckIn, CheckInAnswer, EST_PREFIX, LEAVE_PATH, Leave, LeaveAnswer, Problem,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use transport::{Client, Method, Request, Response, ServerAddress, Trust};
use x509::{Certificate, PrivateKey};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::files;
use crate::identity::Identity;

/// What is remembered of the site since the enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRecord {
    pub server: ServerAddress,
    pub pin: Pin,
    /// False after an enrollment without a check of the server, until root confirms the pin.
    pub trust_verified: bool,
    /// Whether the server's name was right at the enrollment, and has to stay so. A server that was
    /// accepted without a check may go by another name under its pinned root.
    pub check_name: bool,
    pub user: String,
}

impl SiteRecord {
    const FILE: &str = "site.json";

    /// Reads the record beside a key.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let file = folder.join(Self::FILE);
        let text = fs::read(&file).map_err(|error| files::named(&file, &error))?;
        serde_json::from_slice(&text).map_err(|error| files::named(&file, &error.into()))
    }

    pub fn write(&self, folder: &Path) -> io::Result<()> {
        files::replace(
            &folder.join(Self::FILE),
            &serde_json::to_vec_pretty(self)?,
            0o600,
        )
    }

    pub fn trust(&self) -> Trust {
        Trust::Pinned {
            pin: self.pin,
            check_name: self.check_name,
        }
    }
}

/// A site's connection points, as one caller may use them.
pub struct SiteClient {
    client: Client,
    pin: Pin,
}

impl SiteClient {
    /// To the site of `record`, as `identity` or as nobody.
    pub fn new(
        record: &SiteRecord,
        identity: Option<&Identity>,
        clock: SystemClock,
    ) -> Result<Self, Failure> {
        let identity = identity.map(Identity::for_tls);
        let client = Client::new(
            record.server.clone(),
            record.trust(),
            identity,
            Arc::new(clock),
        )
        .map_err(|error| Failure::other(error.to_string()))?;
        Ok(Self {
            client,
            pin: record.pin,
        })
    }

    /// The site's issuing CAs, each signed by the pinned root.
    pub async fn authorities(&self) -> Result<Authorities, Failure> {
        let response = accepted(
            self.client
                .send(Request::get(format!("{EST_PREFIX}/cacerts")))
                .await?,
        )?;
        let certificates: Vec<Certificate> = x509::certs_only_from_base64(&response.body)
            .map_err(|error| Failure::other(format!("the server's CA certificates: {error}")))?
            .iter()
            .filter_map(|der| Certificate::from_der(der).ok())
            .collect();
        let root = certificates
            .iter()
            .find(|certificate| {
                Pin::new(certificate.key()) == self.pin && certificate.is_signed_by(certificate)
            })
            .ok_or_else(|| {
                Failure::other("the server's CA certificates do not contain the pinned root")
            })?;
        let issuing = certificates
            .iter()
            .filter(|certificate| {
                *certificate != root && certificate.is_ca() && certificate.is_signed_by(root)
            })
            .cloned()
            .collect();
        Ok(Authorities { issuing })
    }

    /// Enrolls the key with a user's name and password.
    pub async fn enroll(
        &self,
        key: &PrivateKey,
        user: &str,
        password: &Zeroizing<String>,
    ) -> Result<Certificate, Failure> {
        let credentials = Zeroizing::new(format!("{user}:{}", **password));
        let credentials = Zeroizing::new(data_encoding::BASE64.encode(credentials.as_bytes()));
        let request = est_request("simpleenroll", key)
            .secret_header("authorization", &format!("Basic {}", *credentials));
        issued(self.client.send(request).await?)
    }

    /// Renews with the identity of this client, for a new key.
    pub async fn renew(&self, key: &PrivateKey) -> Result<Certificate, Failure> {
        issued(self.client.send(est_request("simplereenroll", key)).await?)
    }

    pub async fn check_in(&self, report: &CheckIn) -> Result<CheckInAnswer, Failure> {
        self.post(CHECK_IN_PATH, report).await
    }

    pub async fn leave(&self, leave: Leave) -> Result<LeaveAnswer, Failure> {
        self.post(LEAVE_PATH, &leave).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::other(error.to_string()))?;
        let request =
            Request::new(Method::POST, path, body).header("content-type", "application/json");
        let response = accepted(self.client.send(request).await?)?;
        serde_json::from_slice(&response.body)
            .map_err(|error| Failure::other(format!("the server's answer cannot be read: {error}")))
    }
}

/// The issuing CAs under the pinned root.
pub struct Authorities {
    issuing: Vec<Certificate>,
}

impl Authorities {
    /// True when one of the issuing CAs signed `leaf`.
    pub fn issued(&self, leaf: &Certificate) -> bool {
        self.issuing
            .iter()
            .any(|issuing| leaf.is_signed_by(issuing))
    }
}

fn est_request(operation: &str, key: &PrivateKey) -> Request {
    // The site names devices and people itself: the request asks for nothing but its key.
    let request = data_encoding::BASE64.encode(&x509::request_der(key, ""));
    Request::new(Method::POST, format!("{EST_PREFIX}/{operation}"), request)
        .header("content-type", "application/pkcs10")
        .header("content-transfer-encoding", "base64")
}

fn issued(response: Response) -> Result<Certificate, Failure> {
    let response = accepted(response)?;
    let ders = x509::certs_only_from_base64(&response.body)
        .map_err(|error| Failure::other(format!("the server's answer: {error}")))?;
    match &ders[..] {
        [der] => Certificate::from_der(der).map_err(|error| Failure::other(error.to_string())),
        _ => Err(Failure::other(
            "the server's answer holds more than one certificate",
        )),
    }
}

/// An answer that did what was asked, or the site's sentence.
fn accepted(response: Response) -> Result<Response, Failure> {
    if response.is_success() {
        return Ok(response);
    }
    let reason = match serde_json::from_slice::<Problem>(&response.body) {
        Ok(problem) => problem.detail,
        Err(_) => response.text(),
    };
    // It goes to a person's terminal.
    let reason: String = reason
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    Err(match response.status {
        500.. => Failure::Unreachable(format!("the server cannot answer now: {reason}")),
        status => Failure::Refused { status, reason },
    })
}
