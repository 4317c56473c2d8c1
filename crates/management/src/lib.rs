//! The management point: what enrolled devices talk to, over mutual TLS. A thin face of the site;
//! device and certificate are judged anew at each request. Only when a certificate is to be renewed is
//! told to everybody who knows it.

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Extension, FromRequest, Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use data_encoding::BASE64;
use protocol::{
    BODY_LIMIT, BodyHash, CHECK_IN_PATH, COMMAND_PATH, Challenge, CheckIn, CheckInAnswer,
    CommandId, CommandResult, LEAVE_PATH, Leave, LeaveAnswer, POLICY_BODY_PATH, POLICY_PATH,
    PROBLEM_TYPE, Problem, ProblemKind, RENEW_EXPIRED_PATH, RENEWAL_INFO_PATH, RESULTS_LIMIT,
    RESULTS_PATH, RenewExpired, RenewalInfo, RenewedExpired, ResultReceipt, ResultReport,
    SignedDocument,
};
use site::{Error, Peer, Site};

pub fn routes(site: Site) -> Router {
    Router::new()
        .route(CHECK_IN_PATH, post(check_in))
        .route(LEAVE_PATH, post(leave))
        .route(
            &format!("{RENEWAL_INFO_PATH}/{{certificate}}"),
            get(renewal_info),
        )
        .route(RENEW_EXPIRED_PATH, get(challenge).post(renew_expired))
        .route(POLICY_PATH, get(policy_list))
        .route(&format!("{POLICY_BODY_PATH}/{{hash}}"), get(policy_body))
        .route(&format!("{COMMAND_PATH}/{{id}}"), post(end_command))
        .route(
            RESULTS_PATH,
            // The innermost limit counts.
            post(results).layer(DefaultBodyLimit::max(RESULTS_LIMIT)),
        )
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(site)
}

async fn check_in(
    State(site): State<Site>,
    Extension(peer): Extension<Peer>,
    body: Result<Json<CheckIn>, JsonRejection>,
) -> Result<Json<CheckInAnswer>, Refusal> {
    let device = site
        .authenticate_device(peer.certificate, peer.address)
        .await?;
    let Json(report) = body?;
    Ok(Json(site.check_in(device, report).await?))
}

async fn leave(
    State(site): State<Site>,
    Extension(peer): Extension<Peer>,
    body: Result<Json<Leave>, JsonRejection>,
) -> Result<Json<LeaveAnswer>, Refusal> {
    let device = site
        .authenticate_device(peer.certificate, peer.address)
        .await?;
    let Json(leave) = body?;
    Ok(Json(site.leave(&device, leave).await?))
}

/// The body is large: it is not read before the device is known to be a good one.
async fn results(
    State(site): State<Site>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Json<ResultReceipt>, Refusal> {
    let device = site
        .authenticate_device(peer.certificate, peer.address)
        .await?;
    let Json(report): Json<ResultReport> = Json::from_request(request, &()).await?;
    Ok(Json(site.report_results(device, report).await?))
}

/// RFC 9773 section 4: for whoever knows the certificate, without authentication.
async fn renewal_info(
    State(site): State<Site>,
    Path(certificate): Path<String>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<RenewalInfo>), Refusal> {
    let (info, ask_again) = site.renewal_info_of(&certificate).await?;
    let ask_again = HeaderValue::from(ask_again.seconds());
    Ok(([(header::RETRY_AFTER, ask_again)], Json(info)))
}

async fn challenge(State(site): State<Site>) -> Json<Challenge> {
    Json(site.challenge())
}

/// Without a certificate on the connection: what it proves is in the request.
async fn renew_expired(
    State(site): State<Site>,
    Extension(peer): Extension<Peer>,
    body: Result<Json<RenewExpired>, JsonRejection>,
) -> Result<Json<RenewedExpired>, Refusal> {
    let Json(asked) = body?;
    let issued = site.renew_expired(&asked, peer.address).await?;
    Ok(Json(RenewedExpired {
        certificate: BASE64.encode(&issued.der),
        time: issued.time,
    }))
}

async fn policy_list(
    State(site): State<Site>,
    Extension(peer): Extension<Peer>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<SignedDocument>), Refusal> {
    let device = site
        .authenticate_device(peer.certificate, peer.address)
        .await?;
    let list = site.policy_list(&device).await?;
    // It is for one device, and another one a moment later.
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((headers, Json(list)))
}

async fn policy_body(
    State(site): State<Site>,
    Extension(peer): Extension<Peer>,
    Path(hash): Path<String>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<SignedDocument>), Refusal> {
    let device = site
        .authenticate_device(peer.certificate, peer.address)
        .await?;
    let hash: BodyHash = hash.parse().map_err(invalid)?;
    let body = site.policy_body(&device, hash).await?;
    // What a hash names never changes.
    let forever = HeaderValue::from_static("private, max-age=31536000, immutable");
    Ok(([(header::CACHE_CONTROL, forever)], Json(body)))
}

async fn end_command(
    State(site): State<Site>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Result<Json<CommandResult>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let device = site
        .authenticate_device(peer.certificate, peer.address)
        .await?;
    let id: CommandId = id.parse().map_err(invalid)?;
    let Json(result) = body?;
    site.end_command(&device, id, result).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::Invalid(error.to_string())
}

enum Refusal {
    Site(Error),
    Body(JsonRejection),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Site(error)
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::Body(rejection)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, detail, retry_after) = match &self {
            Self::Site(error) => (error.status(), error.to_string(), error.retry_after()),
            Self::Body(rejection) => (rejection.status().as_u16(), rejection.body_text(), None),
        };
        let kind = match &self {
            Self::Site(Error::Expired(_)) => ProblemKind::CertificateExpired,
            _ => ProblemKind::Blank,
        };
        let problem = Problem {
            kind,
            status,
            detail,
        };
        let problem = serde_json::to_vec(&problem).expect("plain data");
        let status = StatusCode::from_u16(status).expect("a status of our own table");
        let mut response =
            (status, [(header::CONTENT_TYPE, PROBLEM_TYPE)], problem).into_response();
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
