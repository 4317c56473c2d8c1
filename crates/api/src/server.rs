//! The routes. Each is a line of [`ROUTES`]; a test asks every one of them as nobody, as a device
//! and in each role.

mod collections;
mod compliance;
mod identity;
mod policy;
mod renewal_windows;
mod results;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use data_encoding::BASE64;
use domain::{Action, DeviceId, RevocationReason, SerialNumber};
use protocol::{PROBLEM_TYPE, Problem, ProblemKind};
use site::{
    Administrator, AlertFilter, AuditProof, CertificateFilter, DeviceFilter, Error, NewPassword,
    Peer, Site,
};
use zeroize::Zeroizing;

use crate::types::*;

/// A route, and what it takes.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    /// None: every administrator.
    pub action: Option<Action>,
}

const fn route(method: &'static str, path: &'static str, action: Option<Action>) -> Route {
    Route {
        method,
        path,
        action,
    }
}

/// Every route of this face, by topic.
pub const ROUTES: &[&[Route]] = &[OF_THIS_FILE, compliance::ROUTES, policy::ROUTES];

const OF_THIS_FILE: &[Route] = &[
    route("GET", "/api/v1/users", Some(Action::ReadAccounts)),
    route("POST", "/api/v1/users", Some(Action::ManageAccounts)),
    route(
        "DELETE",
        "/api/v1/users/{name}",
        Some(Action::ManageAccounts),
    ),
    route(
        "PUT",
        "/api/v1/users/{name}/password",
        Some(Action::ManageAccounts),
    ),
    route("GET", "/api/v1/devices", Some(Action::ReadDevices)),
    route("GET", "/api/v1/devices/{device}", Some(Action::ReadDevices)),
    route(
        "DELETE",
        "/api/v1/devices/{device}",
        Some(Action::DeleteDevices),
    ),
    route(
        "POST",
        "/api/v1/devices/{device}/block",
        Some(Action::BlockDevices),
    ),
    route(
        "POST",
        "/api/v1/devices/{device}/unblock",
        Some(Action::BlockDevices),
    ),
    route(
        "POST",
        "/api/v1/devices/{device}/revoke",
        Some(Action::RevokeCertificates),
    ),
    route(
        "GET",
        "/api/v1/certificates",
        Some(Action::ReadCertificates),
    ),
    route(
        "GET",
        "/api/v1/certificates/{serial}",
        Some(Action::ReadCertificates),
    ),
    route(
        "POST",
        "/api/v1/certificates/{serial}/revoke",
        Some(Action::RevokeCertificates),
    ),
    route("GET", "/api/v1/audit/events", Some(Action::ReadAudit)),
    route("GET", "/api/v1/audit/verify", Some(Action::ReadAudit)),
    route("GET", "/api/v1/crl", None),
    route(
        "POST",
        "/api/v1/devices/{device}/allow-renewal",
        Some(Action::AllowRenewal),
    ),
    route("GET", "/api/v1/alerts", Some(Action::ReadAlerts)),
    route(
        "POST",
        "/api/v1/alerts/{number}/close",
        Some(Action::CloseAlerts),
    ),
    route("GET", "/api/v1/clock", Some(Action::ReadAlerts)),
    route("POST", "/api/v1/clock/accept", Some(Action::AcceptClock)),
    route("GET", "/api/v1/collections", Some(Action::ReadCollections)),
    route(
        "POST",
        "/api/v1/collections",
        Some(Action::ManageCollections),
    ),
    route(
        "GET",
        "/api/v1/collections/{name}",
        Some(Action::ReadCollections),
    ),
    route(
        "DELETE",
        "/api/v1/collections/{name}",
        Some(Action::ManageCollections),
    ),
    route(
        "PUT",
        "/api/v1/collections/{name}/rules",
        Some(Action::ManageCollections),
    ),
    // This one takes ReadDevices as well.
    route(
        "POST",
        "/api/v1/collection-preview",
        Some(Action::ReadCollections),
    ),
    route("GET", "/api/v1/collection-fields", None),
    route(
        "GET",
        "/api/v1/collections/{name}/members",
        Some(Action::ReadCollections),
    ),
    route(
        "POST",
        "/api/v1/collections/{name}/members/add",
        Some(Action::ManageCollections),
    ),
    route(
        "POST",
        "/api/v1/collections/{name}/members/remove",
        Some(Action::ManageCollections),
    ),
    route(
        "GET",
        "/api/v1/renewal-windows",
        Some(Action::ReadCertificates),
    ),
    route(
        "POST",
        "/api/v1/renewal-windows",
        Some(Action::MoveRenewalWindows),
    ),
    route(
        "GET",
        "/api/v1/renewal-windows/{number}",
        Some(Action::ReadCertificates),
    ),
    route(
        "DELETE",
        "/api/v1/renewal-windows/{number}",
        Some(Action::MoveRenewalWindows),
    ),
    route("GET", "/api/v1/device-conflicts", Some(Action::ReadDevices)),
    route(
        "POST",
        "/api/v1/devices/{device}/merge",
        Some(Action::MergeDevices),
    ),
    route(
        "POST",
        "/api/v1/devices/{device}/keep-both",
        Some(Action::MergeDevices),
    ),
    route(
        "GET",
        "/api/v1/devices/{device}/earlier",
        Some(Action::ReadDevices),
    ),
    // These two take ReadDevices as well.
    route(
        "GET",
        "/api/v1/devices/{device}/export/certificates",
        Some(Action::ReadAudit),
    ),
    route(
        "GET",
        "/api/v1/devices/{device}/export/events",
        Some(Action::ReadAudit),
    ),
    // Those about devices take ReadDevices as well.
    route(
        "GET",
        "/api/v1/compliance/summary",
        Some(Action::ReadCompliance),
    ),
    route(
        "GET",
        "/api/v1/compliance/deployments/{number}/rules",
        Some(Action::ReadCompliance),
    ),
    route(
        "GET",
        "/api/v1/compliance/deployments/{number}/devices",
        Some(Action::ReadCompliance),
    ),
    route(
        "GET",
        "/api/v1/compliance/deployments/{number}/at",
        Some(Action::ReadCompliance),
    ),
    route(
        "GET",
        "/api/v1/compliance/devices/{device}/deployments",
        Some(Action::ReadCompliance),
    ),
    route(
        "GET",
        "/api/v1/compliance/devices/{device}/rules",
        Some(Action::ReadCompliance),
    ),
    route(
        "GET",
        "/api/v1/compliance/devices/{device}/history",
        Some(Action::ReadCompliance),
    ),
    route(
        "GET",
        "/api/v1/compliance/flapping",
        Some(Action::ReadCompliance),
    ),
];

const BODY_LIMIT: usize = 1 << 20;

pub fn routes(site: Site) -> Router {
    Router::new()
        .route("/api/v1/users", get(users).post(add_user))
        .route("/api/v1/users/{name}", delete(remove_user))
        .route("/api/v1/users/{name}/password", put(set_password))
        .route("/api/v1/devices", get(devices))
        .route(
            "/api/v1/devices/{device}",
            get(device).delete(delete_device),
        )
        .route("/api/v1/devices/{device}/block", post(block_device))
        .route("/api/v1/devices/{device}/unblock", post(unblock_device))
        .route("/api/v1/devices/{device}/revoke", post(revoke_device))
        .route(
            "/api/v1/devices/{device}/allow-renewal",
            post(allow_renewal),
        )
        .route("/api/v1/alerts", get(alerts))
        .route("/api/v1/alerts/{number}/close", post(close_alert))
        .route("/api/v1/clock", get(clock))
        .route("/api/v1/clock/accept", post(accept_clock))
        .route("/api/v1/certificates", get(certificates))
        .route("/api/v1/certificates/{serial}", get(certificate))
        .route(
            "/api/v1/certificates/{serial}/revoke",
            post(revoke_certificate),
        )
        .route("/api/v1/audit/events", get(audit_events))
        .route("/api/v1/audit/verify", get(verify_audit))
        .route("/api/v1/crl", get(crl))
        .merge(collections::routes())
        .merge(compliance::routes())
        .merge(identity::routes())
        .merge(policy::routes())
        .merge(renewal_windows::routes())
        .merge(results::routes())
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(site)
}

type Answer<T> = Result<Json<T>, Refusal>;
type Body<T> = Result<Json<T>, JsonRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

/// The administrator who sent a request.
struct By(Administrator);

impl FromRequestParts<Site> for By {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Refusal> {
        let peer = parts.extensions.get::<Peer>().copied();
        let peer = peer.expect("the listener tells every request its peer");
        let secret = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        Ok(Self(
            site.authenticate_administrator(secret, peer.address)
                .await?,
        ))
    }
}

async fn users(
    State(site): State<Site>,
    By(by): By,
    query: Asked<PageQuery>,
) -> Answer<List<User>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site.accounts(&by, query.after.as_deref(), limit).await?;
    Ok(Json(List::of(page, user)))
}

async fn add_user(
    State(site): State<Site>,
    By(by): By,
    body: Body<NewUser>,
) -> Result<(StatusCode, Json<User>), Refusal> {
    let Json(new) = body?;
    let password = NewPassword(Zeroizing::new(new.password));
    let account = site
        .add_account(&by, &new.name, new.common_name.as_deref(), password)
        .await?;
    Ok((StatusCode::CREATED, Json(user(account))))
}

async fn remove_user(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    site.remove_account(&by, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_password(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
    body: Body<Password>,
) -> Result<StatusCode, Refusal> {
    let Json(new) = body?;
    site.set_password(&by, &name, NewPassword(Zeroizing::new(new.password)))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn devices(
    State(site): State<Site>,
    By(by): By,
    query: Asked<DeviceQuery>,
) -> Answer<List<DeviceDetail>> {
    let Query(query) = query?;
    let filter = DeviceFilter {
        state: query.state,
        name: query.name,
        after: query.after,
        limit: query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT),
    };
    Ok(Json(List::of(
        site.devices(&by, &filter).await?,
        DeviceDetail::from,
    )))
}

async fn device(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
) -> Answer<DeviceDetail> {
    Ok(Json(site.device(&by, device_id(&device)?).await?.into()))
}

async fn delete_device(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
) -> Answer<Revoked> {
    Ok(Json(Revoked {
        revoked: site.delete_device(&by, device_id(&device)?).await?,
    }))
}

async fn block_device(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
) -> Result<StatusCode, Refusal> {
    site.block_device(&by, device_id(&device)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unblock_device(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
) -> Result<StatusCode, Refusal> {
    site.unblock_device(&by, device_id(&device)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn revoke_device(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    body: Body<Revoke>,
) -> Answer<Revoked> {
    let Json(revoke) = body?;
    let reason = revoke.reason.unwrap_or(RevocationReason::Unspecified);
    Ok(Json(Revoked {
        revoked: site.revoke_device(&by, device_id(&device)?, reason).await?,
    }))
}

async fn allow_renewal(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    body: Body<AllowRenewal>,
) -> Answer<RenewalAllowed> {
    let Json(asked) = body?;
    let until = site
        .allow_renewal(&by, device_id(&device)?, asked.within)
        .await?;
    Ok(Json(RenewalAllowed { until }))
}

async fn alerts(
    State(site): State<Site>,
    By(by): By,
    query: Asked<AlertQuery>,
) -> Answer<List<AlertDetail>> {
    let Query(query) = query?;
    let filter = AlertFilter {
        device: query.device,
        closed: query.closed.unwrap_or(false),
        after: query.after,
        limit: query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT),
    };
    let page = site.alerts(&by, &filter).await?;
    Ok(Json(List::of(page, AlertDetail::from)))
}

async fn close_alert(
    State(site): State<Site>,
    By(by): By,
    Path(number): Path<String>,
) -> Result<StatusCode, Refusal> {
    let number = number
        .parse()
        .map_err(|_| Error::Invalid("an alert has a number".to_owned()))?;
    site.close_alert(&by, number).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn clock(State(site): State<Site>, By(by): By) -> Answer<ClockDetail> {
    let (time, step) = site.clock_step(&by)?;
    Ok(Json(ClockDetail {
        time,
        stepped_to: step.map(|step| step.machine),
    }))
}

async fn accept_clock(State(site): State<Site>, By(by): By) -> Answer<ClockDetail> {
    let time = site.accept_clock(&by).await?;
    Ok(Json(ClockDetail {
        time,
        stepped_to: None,
    }))
}

async fn certificates(
    State(site): State<Site>,
    By(by): By,
    query: Asked<CertificateQuery>,
) -> Answer<List<CertificateSummary>> {
    let Query(query) = query?;
    let mut filter = CertificateFilter {
        state: query.state,
        device: query.device,
        after: query.after,
        limit: query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT),
        ..CertificateFilter::default()
    };
    if let Some(period) = query.expiring_within {
        let (now, end) = site.within(period);
        filter.state = filter.state.or(Some(domain::CertificateState::Valid));
        (filter.expires_after, filter.expires_before) = (Some(now), Some(end));
    }
    let page = site.certificates(&by, &filter).await?;
    Ok(Json(List::of(page, |certificate| {
        CertificateSummary::from(&certificate)
    })))
}

async fn certificate(
    State(site): State<Site>,
    By(by): By,
    Path(serial): Path<String>,
) -> Answer<CertificateDetail> {
    Ok(Json(
        (&site.certificate(&by, serial_number(&serial)?).await?).into(),
    ))
}

async fn revoke_certificate(
    State(site): State<Site>,
    By(by): By,
    Path(serial): Path<String>,
    body: Body<Revoke>,
) -> Answer<Revoked> {
    let Json(revoke) = body?;
    let reason = revoke.reason.unwrap_or(RevocationReason::Unspecified);
    let revoked = site
        .revoke_certificate(&by, serial_number(&serial)?, reason)
        .await?;
    Ok(Json(Revoked { revoked }))
}

async fn audit_events(
    State(site): State<Site>,
    By(by): By,
    query: Asked<PageQuery>,
) -> Answer<List<AuditEntry>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site
        .audit_events(&by, query.after.as_deref(), limit)
        .await?;
    Ok(Json(List::of(page, AuditEntry::from)))
}

async fn verify_audit(State(site): State<Site>, By(by): By) -> Answer<AuditProof> {
    Ok(Json(site.verify_audit(&by).await?))
}

async fn crl(State(site): State<Site>, By(_): By) -> Answer<CrlDetail> {
    let crl = site.crl().await?;
    Ok(Json(CrlDetail {
        number: crl.number,
        this_update: crl.this_update,
        next_update: crl.next_update,
        der: BASE64.encode(&crl.der),
    }))
}

fn user(account: site::AccountView) -> User {
    User {
        name: account.name,
        common_name: account.common_name,
        created_at: account.created_at,
    }
}

fn device_id(given: &str) -> Result<DeviceId, Error> {
    given
        .parse()
        .map_err(|error| Error::Invalid(format!("{error}")))
}

fn serial_number(given: &str) -> Result<SerialNumber, Error> {
    given
        .parse()
        .map_err(|error| Error::Invalid(format!("{error}")))
}

enum Refusal {
    Site(Error),
    Body(JsonRejection),
    Query(QueryRejection),
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

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::Query(rejection)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, detail, retry_after) = match &self {
            Self::Site(error) => (error.status(), error.to_string(), error.retry_after()),
            Self::Body(rejection) => (rejection.status().as_u16(), rejection.body_text(), None),
            Self::Query(rejection) => (rejection.status().as_u16(), rejection.body_text(), None),
        };
        let problem = Problem {
            kind: ProblemKind::Blank,
            status,
            detail,
        };
        let problem = serde_json::to_vec(&problem).expect("plain data");
        let status = StatusCode::from_u16(status).expect("a status of our own table");
        let mut response =
            (status, [(header::CONTENT_TYPE, PROBLEM_TYPE)], problem).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
