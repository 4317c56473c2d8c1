//! Collections and their members.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use domain::filter::Field;
use domain::{BuiltInCollection, CollectionName, CollectionRules};
use site::{Error, Site};

use super::{Answer, Asked, Body, By, Refusal};
use crate::types::*;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/api/v1/collections", get(collections).post(create))
        .route("/api/v1/collections/{name}", get(collection).delete(remove))
        .route("/api/v1/collections/{name}/rules", put(set_rules))
        .route("/api/v1/collections/{name}/members", get(members))
        .route("/api/v1/collections/{name}/members/add", post(add_members))
        .route(
            "/api/v1/collections/{name}/members/remove",
            post(remove_members),
        )
        .route("/api/v1/collection-preview", post(preview))
        .route("/api/v1/collection-fields", get(fields))
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
    let created = site.create_collection(&by, new.name, new.rules).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

async fn collection(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
) -> Answer<CollectionDetail> {
    Ok(Json(site.collection(&by, &parse(&name)?).await?.into()))
}

async fn set_rules(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
    body: Body<CollectionRules>,
) -> Answer<CollectionDetail> {
    let Json(rules) = body?;
    let changed = site.set_collection_rules(&by, parse(&name)?, rules).await?;
    Ok(Json(changed.into()))
}

async fn preview(State(site): State<Site>, By(by): By, body: Body<NewPreview>) -> Answer<Preview> {
    let Json(asked) = body?;
    let limited_to = asked
        .limited_to
        .unwrap_or_else(|| BuiltInCollection::AllDevices.name());
    let found = site
        .preview_collection(&by, &asked.query, &limited_to)
        .await?;
    Ok(Json(Preview {
        devices: found.devices,
        first: found.first.into_iter().map(DeviceDetail::from).collect(),
    }))
}

/// The filter language's fields: the same for everybody who may sign in.
async fn fields(By(_): By) -> Answer<Vec<FilterField>> {
    Ok(Json(Field::all_help().map(FilterField::from).collect()))
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
    Ok(Json(changed.into()))
}

async fn remove_members(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
    body: Body<Devices>,
) -> Answer<Changed> {
    let Json(Devices { devices }) = body?;
    let changed = site.remove_members(&by, parse(&name)?, devices).await?;
    Ok(Json(changed.into()))
}

fn parse(name: &str) -> Result<CollectionName, Error> {
    name.parse()
        .map_err(|error| Error::Invalid(format!("{error}")))
}
