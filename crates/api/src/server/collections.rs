//! Collections and their members.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::CollectionName;
use site::{Error, Site};

use super::{Answer, Asked, Body, By, Refusal};
use crate::types::*;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/api/v1/collections", get(collections).post(create))
        .route("/api/v1/collections/{name}", get(collection).delete(remove))
        .route("/api/v1/collections/{name}/members", get(members))
        .route("/api/v1/collections/{name}/members/add", post(add_members))
        .route(
            "/api/v1/collections/{name}/members/remove",
            post(remove_members),
        )
}

async fn collections(
    State(site): State<Site>,
    By(by): By,
    query: Asked<PageQuery>,
) -> Answer<List<CollectionDetail>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site.collections(&by, query.after.as_deref(), limit).await?;
    Ok(Json(List::of(page, CollectionDetail::from)))
}

async fn create(
    State(site): State<Site>,
    By(by): By,
    body: Body<NewCollection>,
) -> Result<(StatusCode, Json<CollectionDetail>), Refusal> {
    let Json(new) = body?;
    let created = site.create_collection(&by, new.name).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

async fn collection(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
) -> Answer<CollectionDetail> {
    Ok(Json(site.collection(&by, &parse(&name)?).await?.into()))
}

async fn remove(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    site.delete_collection(&by, parse(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn members(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
    query: Asked<PageQuery>,
) -> Answer<List<DeviceDetail>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site
        .members(&by, &parse(&name)?, query.after.as_deref(), limit)
        .await?;
    Ok(Json(List::of(page, DeviceDetail::from)))
}

async fn add_members(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
    body: Body<Devices>,
) -> Answer<Changed> {
    let Json(Devices { devices }) = body?;
    let changed = site.add_members(&by, parse(&name)?, devices).await?;
    Ok(Json(Changed { changed }))
}

async fn remove_members(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
    body: Body<Devices>,
) -> Answer<Changed> {
    let Json(Devices { devices }) = body?;
    let changed = site.remove_members(&by, parse(&name)?, devices).await?;
    Ok(Json(Changed { changed }))
}

fn parse(name: &str) -> Result<CollectionName, Error> {
    name.parse()
        .map_err(|error| Error::Invalid(format!("{error}")))
}
