//! Records that may be one computer, and what is known of one.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use site::Site;

use super::{Answer, Asked, Body, By, Refusal, device_id};
use crate::types::*;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/api/v1/device-conflicts", get(conflicts))
        .route("/api/v1/devices/{device}/merge", post(merge))
        .route("/api/v1/devices/{device}/keep-both", post(keep_both))
        .route("/api/v1/devices/{device}/earlier", get(earlier))
        .route(
            "/api/v1/devices/{device}/export/certificates",
            get(certificates),
        )
        .route("/api/v1/devices/{device}/export/events", get(events))
}

async fn conflicts(
    State(site): State<Site>,
    By(by): By,
    query: Asked<PageQuery>,
) -> Answer<List<DeviceConflict>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site
        .device_conflicts(&by, query.after.as_deref(), limit)
        .await?;
    Ok(Json(List::of(page, DeviceConflict::from)))
}

async fn merge(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    body: Body<Merge>,
) -> Answer<Revoked> {
    let Json(Merge { into }) = body?;
    let revoked = site.merge_devices(&by, device_id(&device)?, into).await?;
    Ok(Json(Revoked { revoked }))
}

async fn keep_both(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    body: Body<KeepBoth>,
) -> Result<StatusCode, Refusal> {
    let Json(KeepBoth { other }) = body?;
    site.keep_both_devices(&by, device_id(&device)?, other)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn earlier(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    query: Asked<PageQuery>,
) -> Answer<List<DeviceDetail>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let device = device_id(&device)?;
    let page = site
        .earlier_records(&by, device, query.after.as_deref(), limit)
        .await?;
    Ok(Json(List::of(page, DeviceDetail::from)))
}

async fn certificates(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    query: Asked<PageQuery>,
) -> Answer<List<CertificateDetail>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let device = device_id(&device)?;
    let page = site
        .export_certificates(&by, device, query.after, limit)
        .await?;
    Ok(Json(List::of(page, |certificate| {
        CertificateDetail::from(&certificate)
    })))
}

async fn events(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    query: Asked<PageQuery>,
) -> Answer<List<AuditEntry>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let device = device_id(&device)?;
    let page = site
        .export_events(&by, device, query.after.as_deref(), limit)
        .await?;
    Ok(Json(List::of(page, AuditEntry::from)))
}
