//! Enrollment over Secure Transport (RFC 7030, with RFC 8951's corrections): a thin face of the
//! site. Errors are one sentence of plain text.

use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use data_encoding::BASE64;
use protocol::{BODY_LIMIT, EST_PREFIX, NEW_RECORD, PROOF_HEADER, Proof, RECORD_HEADER};
use site::{Credentials, Error, IssuedCertificate, Peer, Record, Site};
use x509::CertificateRequest;
use zeroize::Zeroizing;

/// CsrAttrs (RFC 8951 section 4): a hint that keys are P-256 and signatures ECDSA with SHA-256.
/// `SEQUENCE { SEQUENCE { id-ecPublicKey, SET { secp256r1 } }, ecdsa-with-SHA256 }`
const CSR_ATTRIBUTES: &[u8] = &[
    0x30, 0x21, 0x30, 0x15, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x31, 0x0a, 0x06,
    0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x04, 0x03, 0x02,
];

const CERTS_ONLY: &str = "application/pkcs7-mime; smime-type=certs-only";

/// The routes below `/.well-known/est`, and the revocation list.
pub fn routes(site: Site) -> Router {
    let operations = Router::new()
        .route("/cacerts", get(ca_certificates))
        .route("/csrattrs", get(csr_attributes))
        .route("/simpleenroll", post(enroll))
        .route("/simplereenroll", post(renew))
        .route("/serverkeygen", post(server_key));
    Router::new()
        .nest(EST_PREFIX, operations)
        .route("/crl/0.crl", get(crl))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(site)
}

async fn ca_certificates(State(site): State<Site>) -> Response {
    certs_only(&site.ca_certificates())
}

async fn csr_attributes() -> Response {
    let body = format!("{}\n", BASE64.encode(CSR_ATTRIBUTES));
    transfer_encoded("application/csrattrs", body)
}

async fn enroll(
    State(site): State<Site>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let credentials = basic(&headers).ok_or_else(|| {
        Error::Unauthenticated("enrolling needs a user name and a password".to_owned())
    })?;
    let request = request(body)?;
    // A device that proves its key keeps its record: by its certificate on the connection, or by a
    // signature when that has expired.
    let proved = match headers.get(PROOF_HEADER) {
        None => site.proved_device(peer.certificate, peer.address).await?,
        Some(header) => {
            let proof = Proof::from_header(header.as_bytes())
                .ok_or_else(|| Error::Invalid(format!("{PROOF_HEADER} holds no proof")))?;
            site.device_proved_by(&proof, &request, peer.address)
                .await?
        }
    };
    let wants_new = headers
        .get(RECORD_HEADER)
        .is_some_and(|value| value == NEW_RECORD);
    let record = match &proved {
        None => Record::Unknown,
        Some(device) if wants_new => Record::Replaced(device),
        Some(device) => Record::Kept(device),
    };
    let issued = site
        .enroll(credentials, &request, record, peer.address)
        .await?;
    Ok(answer(&issued))
}

async fn renew(
    State(site): State<Site>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    let device = site
        .authenticate_device(peer.certificate, peer.address)
        .await?;
    let issued = site.renew(&device, &request(body)?).await?;
    Ok(answer(&issued))
}

async fn server_key() -> Response {
    let sentence = "this site makes no keys for its clients; make one and use simpleenroll\n";
    (StatusCode::NOT_IMPLEMENTED, sentence).into_response()
}

async fn crl(State(site): State<Site>) -> Result<Response, Refusal> {
    let crl = site.crl().await?;
    Ok(([(header::CONTENT_TYPE, "application/pkix-crl")], crl.der).into_response())
}

type Body = Result<Bytes, BytesRejection>;

fn request(body: Body) -> Result<CertificateRequest, Error> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge(format!(
            "the request is larger than {} KiB",
            BODY_LIMIT / 1024
        )),
        _ => Error::Invalid("the request did not arrive whole".to_owned()),
    })?;
    CertificateRequest::from_body(&body).map_err(|invalid| Error::Invalid(invalid.to_string()))
}

/// The user name and password of HTTP Basic (RFC 7617).
fn basic(headers: &HeaderMap) -> Option<Credentials> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = Zeroizing::new(BASE64.decode(encoded.trim_ascii()).ok()?);
    let text = std::str::from_utf8(&decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credentials {
        user: user.to_owned(),
        password: Zeroizing::new(password.to_owned()),
    })
}

/// RFC 7030 section 4.2.3: the answer holds the issued certificate and no other.
fn answer(issued: &IssuedCertificate) -> Response {
    certs_only(&[&issued.der])
}

fn certs_only(certificates: &[&[u8]]) -> Response {
    let body = x509::certs_only_to_base64(certificates).expect("our own certificates can be read");
    transfer_encoded(CERTS_ONLY, body)
}

/// RFC 8951 section 3.2.1: base64 whatever the header says; older clients want the header.
fn transfer_encoded(content_type: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), content_type),
        ("content-transfer-encoding", "base64"),
    ];
    (headers, body).into_response()
}

struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status()).expect("a status of our own table");
        let mut response = (status, format!("{}\n", self.0)).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"Perennial enrollment\", charset=\"UTF-8\""),
            );
        }
        if let Some(seconds) = self.0.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
