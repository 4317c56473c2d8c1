//! An EST client that speaks to a site directly: for what no well-behaved client would send, and
//! for many at once.

use std::sync::Arc;

use clock::SystemClock;
use data_encoding::BASE64;
use domain::Pin;
use transport::{
    Client, ClientIdentity, Connection, Method, Request, Response, ServerAddress, TransportError,
    Trust,
};
use x509::{Certificate, PrivateKey};

/// A client of `server`, as the holder of `identity` or as nobody.
pub fn client(
    server: &ServerAddress,
    pin: Pin,
    identity: Option<(&PrivateKey, &Certificate)>,
) -> Client {
    let identity = identity.map(|(key, certificate)| ClientIdentity {
        chain: vec![certificate.der().to_vec()],
        key: key.to_der(),
    });
    let trust = Trust::Pinned {
        pin,
        check_name: true,
        known_time: None,
    };
    Client::new(
        server.clone(),
        trust,
        identity,
        Arc::new(SystemClock::new()),
    )
    .expect("a key and its certificate")
}

/// A request to an EST operation. `body` goes as it is.
pub fn request(operation: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new(
        Method::POST,
        format!("/.well-known/est/{operation}"),
        body.into(),
    )
    .header("content-type", "application/pkcs10")
}

/// The same, with a user's name and password.
pub fn with_password(request: Request, user: &str, password: &str) -> Request {
    let credentials = BASE64.encode(format!("{user}:{password}").as_bytes());
    request.secret_header("authorization", &format!("Basic {credentials}"))
}

/// The body of a request for `key`.
pub fn body(key: &PrivateKey) -> String {
    BASE64.encode(&x509::request_der(key, "client"))
}

/// The one certificate of an answer.
///
/// # Panics
/// When the answer is none.
pub fn certificate(response: &Response) -> Certificate {
    assert!(
        response.is_success(),
        "{}: {}",
        response.status,
        response.text()
    );
    let ders = x509::certs_only_from_base64(&response.body).expect("certs-only");
    assert_eq!(ders.len(), 1);
    Certificate::from_der(&ders[0]).expect("a certificate")
}

/// Enrolls `key` as `user`.
pub async fn enroll(
    server: &ServerAddress,
    pin: Pin,
    key: &PrivateKey,
    user: &str,
    password: &str,
) -> Result<Response, TransportError> {
    let request = with_password(request("simpleenroll", body(key)), user, password);
    client(server, pin, None).send(request).await
}

/// Renews for `key` on an open connection.
pub async fn renew(
    connection: &mut Connection,
    key: &PrivateKey,
) -> Result<Response, TransportError> {
    connection.send(request("simplereenroll", body(key))).await
}
