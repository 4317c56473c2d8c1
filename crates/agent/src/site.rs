//! The site that this computer belongs to, and how to talk to it.

use std::fs;
use std::io;
use std::path::Path;

use data_encoding::BASE64;
use domain::fault::step;
use domain::{Pin, Timestamp};
use protocol::{
    BodyHash, CHECK_IN_PATH, COMMAND_PATH, Challenge, CheckIn, CheckInAnswer, CommandId,
    CommandResult, EST_PREFIX, LEAVE_PATH, Leave, LeaveAnswer, NEW_RECORD, POLICY_BODY_PATH,
    POLICY_LIMIT, POLICY_PATH, PROOF_HEADER, Problem, ProblemKind, Proof, ProofPurpose,
    RECORD_HEADER, RENEW_EXPIRED_PATH, RESULTS_PATH, RenewExpired, RenewedExpired, ResultReceipt,
    ResultReport, SignedDocument, proved_message,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use transport::{Method, Request, Response, ServerAddress, Trust};
use x509::{Certificate, PrivateKey};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::files;
use crate::identity::{Identity, Machine};
use crate::network::Way;

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

    /// `known_time`: a moment that has certainly passed.
    pub fn trust(&self, known_time: Option<Timestamp>) -> Trust {
        Trust::Pinned {
            pin: self.pin,
            check_name: self.check_name,
            known_time,
        }
    }
}

/// A site's connection points, as one caller may use them.
pub struct SiteClient {
    way: Box<dyn Way>,
    pin: Pin,
}

impl SiteClient {
    /// To the site of `record`, as `identity` or as nobody.
    pub fn new(
        record: &SiteRecord,
        identity: Option<&Identity>,
        machine: &Machine,
    ) -> Result<Self, Failure> {
        let trust = record.trust(machine.known_time());
        Ok(Self {
            way: machine.network.way(&record.server, trust, identity)?,
            pin: record.pin,
        })
    }

    async fn send(&self, request: Request) -> Result<Response, Failure> {
        step("asking");
        let answer = self.way.send(request).await;
        step("answered");
        accepted(answer?)
    }

    /// The site's issuing CAs, each signed by the pinned root.
    pub async fn authorities(&self) -> Result<Authorities, Failure> {
        let response = self
            .send(Request::get(format!("{EST_PREFIX}/cacerts")))
            .await?;
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

    /// Enrolls the key with a user's name and password. `old`: the identity that the computer had,
    /// whose key is proved beside the log-in. `new_record`: its record is not to be kept.
    pub async fn enroll(
        &self,
        key: &PrivateKey,
        user: &str,
        password: &Zeroizing<String>,
        old: Option<&Identity>,
        new_record: bool,
    ) -> Result<Certificate, Failure> {
        let der = x509::request_der(key, "");
        let credentials = Zeroizing::new(format!("{user}:{}", **password));
        let credentials = Zeroizing::new(BASE64.encode(credentials.as_bytes()));
        let mut request = est_request("simpleenroll", &der)
            .secret_header("authorization", &format!("Basic {}", *credentials));
        if let Some(old) = old {
            let proof = self.proof(ProofPurpose::Enroll, old, &der).await?;
            request = request.header(PROOF_HEADER, &proof.to_header());
        }
        if new_record {
            request = request.header(RECORD_HEADER, NEW_RECORD);
        }
        issued(&self.send(request).await?)
    }

    /// Renews with the identity of this client, for a new key.
    pub async fn renew(&self, key: &PrivateKey) -> Result<Certificate, Failure> {
        let request = est_request("simplereenroll", &x509::request_der(key, ""));
        issued(&self.send(request).await?)
    }

    /// Renews an identity that TLS lets in no more, by a signature of its key.
    pub async fn renew_expired(
        &self,
        old: &Identity,
        key: &PrivateKey,
    ) -> Result<Certificate, Failure> {
        let der = x509::request_der(key, "");
        let asked = RenewExpired {
            request: BASE64.encode(&der),
            proof: self.proof(ProofPurpose::RenewExpired, old, &der).await?,
        };
        let answer: RenewedExpired = self.post(RENEW_EXPIRED_PATH, &asked).await?;
        BASE64
            .decode(answer.certificate.as_bytes())
            .ok()
            .and_then(|der| Certificate::from_der(&der).ok())
            .ok_or_else(|| Failure::other("the server's answer holds no certificate"))
    }

    async fn proof(
        &self,
        purpose: ProofPurpose,
        old: &Identity,
        request: &[u8],
    ) -> Result<Proof, Failure> {
        let serial = old.certificate.serial().ok_or_else(|| {
            Failure::other("the certificate's serial number is not one of a site's")
        })?;
        let answer = self.send(Request::get(RENEW_EXPIRED_PATH)).await?;
        let Challenge { nonce, .. } = read(&answer)?;
        let message = proved_message(purpose, self.pin, &nonce, request);
        Ok(Proof {
            serial,
            signature: BASE64.encode(&old.key.sign(&message)),
            nonce,
        })
    }

    pub async fn check_in(&self, report: &CheckIn) -> Result<CheckInAnswer, Failure> {
        self.post(CHECK_IN_PATH, report).await
    }

    pub async fn leave(&self, leave: Leave) -> Result<LeaveAnswer, Failure> {
        self.post(LEAVE_PATH, &leave).await
    }

    /// The signed list of what this device is to evaluate.
    pub async fn policy(&self) -> Result<SignedDocument, Failure> {
        self.document(POLICY_PATH.to_owned()).await
    }

    /// A signed body of the list.
    pub async fn policy_body(&self, hash: BodyHash) -> Result<SignedDocument, Failure> {
        self.document(format!("{POLICY_BODY_PATH}/{hash}")).await
    }

    pub async fn results(&self, report: &ResultReport) -> Result<ResultReceipt, Failure> {
        self.post(RESULTS_PATH, report).await
    }

    pub async fn command_result(
        &self,
        id: &CommandId,
        result: &CommandResult,
    ) -> Result<(), Failure> {
        let path = format!("{COMMAND_PATH}/{id}");
        self.send(posted(&path, result)?).await.map(drop)
    }

    async fn document(&self, path: String) -> Result<SignedDocument, Failure> {
        let response = self.send(Request::get(path)).await?;
        if response.body.len() > POLICY_LIMIT {
            return Err(Failure::other("the server's answer is too large"));
        }
        read(&response)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        read(&self.send(posted(path, body)?).await?)
    }
}

fn posted(path: &str, body: &impl Serialize) -> Result<Request, Failure> {
    let body = serde_json::to_vec(body).map_err(|error| Failure::other(error.to_string()))?;
    Ok(Request::new(Method::POST, path, body).header("content-type", "application/json"))
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

/// The site names devices and people itself: a request asks for nothing but its key.
fn est_request(operation: &str, der: &[u8]) -> Request {
    let path = format!("{EST_PREFIX}/{operation}");
    Request::new(Method::POST, path, BASE64.encode(der))
        .header("content-type", "application/pkcs10")
        .header("content-transfer-encoding", "base64")
}

fn read<T: DeserializeOwned>(response: &Response) -> Result<T, Failure> {
    serde_json::from_slice(&response.body)
        .map_err(|error| Failure::other(format!("the server's answer cannot be read: {error}")))
}

fn issued(response: &Response) -> Result<Certificate, Failure> {
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
    let (kind, reason) = match serde_json::from_slice::<Problem>(&response.body) {
        Ok(problem) => (problem.kind, problem.detail),
        Err(_) => (ProblemKind::Blank, response.text()),
    };
    // It goes to a person's terminal.
    let reason: String = reason
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    Err(match response.status {
        _ if kind == ProblemKind::CertificateExpired => Failure::Expired(reason),
        500.. => Failure::Unreachable(format!("the server cannot answer now: {reason}")),
        status => Failure::Refused { status, reason },
    })
}
