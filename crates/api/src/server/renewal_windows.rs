//! Renewals that an administrator moves.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use site::{Error, Site};

use super::{Answer, Asked, Body, By, Refusal};
use crate::types::*;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/api/v1/renewal-windows", get(windows).post(set))
        .route(
            "/api/v1/renewal-windows/{number}",
            get(window).delete(remove),
        )
}

async fn windows(
    State(site): State<Site>,
    By(by): By,
    query: Asked<PageQuery>,
) -> Answer<List<RenewalWindow>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site
        .renewal_windows(&by, query.after.as_deref(), limit)
        .await?;
    Ok(Json(List::of(page, RenewalWindow::from)))
}

async fn set(
    State(site): State<Site>,
    By(by): By,
    body: Body<NewRenewalWindow>,
) -> Result<(StatusCode, Json<RenewalWindowDetail>), Refusal> {
    let Json(new) = body?;
    let new = site::NewRenewalWindow {
        scope: new.scope,
        start: new.start,
        spread: new.spread,
        explanation_url: new.explanation_url,
    };
    let set = site.set_renewal_window(&by, new).await?;
    Ok((StatusCode::CREATED, Json(set.into())))
}

async fn window(
    State(site): State<Site>,
    By(by): By,
    Path(number): Path<String>,
) -> Answer<RenewalWindowDetail> {
    let found = site.renewal_window(&by, parse(&number)?).await?;
    Ok(Json(found.into()))
}

async fn remove(
    State(site): State<Site>,
    By(by): By,
    Path(number): Path<String>,
) -> Result<StatusCode, Refusal> {
    site.remove_renewal_window(&by, parse(&number)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn parse(number: &str) -> Result<i64, Error> {
    number
        .parse()
        .map_err(|_| Error::Invalid("a renewal window has a number".to_owned()))
}
