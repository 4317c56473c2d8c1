//! Configuration items, baselines, deployments and exemptions.

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use domain::Action;
use domain::compliance::Deployment;
use site::{Error, MOST_ITEM_BYTES, Site};

use super::{Answer, Asked, Body, By, Refusal, Route, route};
use crate::types::compliance::*;
use crate::types::*;

pub(super) const ROUTES: &[Route] = &[
    route(
        "GET",
        "/api/v1/configuration-items",
        Some(Action::ReadCompliance),
    ),
    route(
        "POST",
        "/api/v1/configuration-items",
        Some(Action::ManageCompliance),
    ),
    route(
        "GET",
        "/api/v1/configuration-items/{name}",
        Some(Action::ReadCompliance),
    ),
    route(
        "PUT",
        "/api/v1/configuration-items/{name}",
        Some(Action::ManageCompliance),
    ),
    route(
        "DELETE",
        "/api/v1/configuration-items/{name}",
        Some(Action::ManageCompliance),
    ),
    route(
        "GET",
        "/api/v1/configuration-items/{name}/revisions",
        Some(Action::ReadCompliance),
    ),
    route(
        "GET",
        "/api/v1/configuration-items/{name}/revisions/{number}",
        Some(Action::ReadCompliance),
    ),
    route(
        "GET",
        "/api/v1/configuration-items/{name}/difference",
        Some(Action::ReadCompliance),
    ),
    route("GET", "/api/v1/baselines", Some(Action::ReadCompliance)),
    route("POST", "/api/v1/baselines", Some(Action::ManageCompliance)),
    route(
        "GET",
        "/api/v1/baselines/{name}",
        Some(Action::ReadCompliance),
    ),
    route(
        "PUT",
        "/api/v1/baselines/{name}",
        Some(Action::ManageCompliance),
    ),
    route(
        "DELETE",
        "/api/v1/baselines/{name}",
        Some(Action::ManageCompliance),
    ),
    route("GET", "/api/v1/deployments", Some(Action::ReadCompliance)),
    route("POST", "/api/v1/deployments", Some(Action::Deploy)),
    route(
        "GET",
        "/api/v1/deployments/{number}",
        Some(Action::ReadCompliance),
    ),
    route("PUT", "/api/v1/deployments/{number}", Some(Action::Deploy)),
    route(
        "DELETE",
        "/api/v1/deployments/{number}",
        Some(Action::Deploy),
    ),
    route("GET", "/api/v1/exemptions", Some(Action::ReadCompliance)),
    route("POST", "/api/v1/exemptions", Some(Action::ManageCompliance)),
    route(
        "DELETE",
        "/api/v1/exemptions/{number}",
        Some(Action::ManageCompliance),
    ),
];

pub(super) fn routes() -> Router<Site> {
    // Twice an item: JSON has escapes, and people like spaces.
    let items = Router::new()
        .route("/api/v1/configuration-items", get(items).post(create_item))
        .route(
            "/api/v1/configuration-items/{name}",
            get(item).put(revise_item).delete(delete_item),
        )
        .layer(DefaultBodyLimit::max(2 * MOST_ITEM_BYTES));
    Router::new()
        .route(
            "/api/v1/configuration-items/{name}/revisions",
            get(item_history),
        )
        .route(
            "/api/v1/configuration-items/{name}/revisions/{number}",
            get(item_revision),
        )
        .route(
            "/api/v1/configuration-items/{name}/difference",
            get(item_difference),
        )
        .route("/api/v1/baselines", get(baselines).post(create_baseline))
        .route(
            "/api/v1/baselines/{name}",
            get(baseline).put(set_baseline).delete(delete_baseline),
        )
        .route(
            "/api/v1/deployments",
            get(deployments).post(create_deployment),
        )
        .route(
            "/api/v1/deployments/{number}",
            get(deployment)
                .put(set_deployment)
                .delete(delete_deployment),
        )
        .route("/api/v1/exemptions", get(exemptions).post(create_exemption))
        .route("/api/v1/exemptions/{number}", delete(remove_exemption))
        .merge(items)
}

async fn items(
    State(site): State<Site>,
    By(by): By,
    query: Asked<PageQuery>,
) -> Answer<List<ItemSummary>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site.items(&by, query.after.as_deref(), limit).await?;
    Ok(Json(List::of(page, ItemSummary::from)))
}

async fn create_item(
    State(site): State<Site>,
    By(by): By,
    body: Body<NewItem>,
) -> Result<(StatusCode, Json<ItemDetail>), Refusal> {
    let Json(new) = body?;
    let created = site.create_item(&by, new.name, new.content).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

async fn item(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
) -> Answer<ItemDetail> {
    Ok(Json(site.item(&by, &parse(&name)?, None).await?.into()))
}

async fn revise_item(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
    body: Body<ReviseItem>,
) -> Answer<RevisedItem> {
    let Json(new) = body?;
    let (latest, is_new) = site
        .revise_item(&by, parse(&name)?, new.content, new.base)
        .await?;
    Ok(Json(RevisedItem {
        item: latest.into(),
        is_new,
    }))
}

async fn delete_item(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    site.delete_item(&by, parse(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn item_history(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
    query: Asked<PageQuery>,
) -> Answer<List<ItemRevision>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site
        .item_history(&by, &parse(&name)?, query.after.as_deref(), limit)
        .await?;
    Ok(Json(List::of(page, ItemRevision::from)))
}

async fn item_revision(
    State(site): State<Site>,
    By(by): By,
    Path((name, revision)): Path<(String, String)>,
) -> Answer<ItemDetail> {
    let revision = revision
        .parse()
        .map_err(|_| Error::Invalid("a revision has a number".to_owned()))?;
    let found = site.item(&by, &parse(&name)?, Some(revision)).await?;
    Ok(Json(found.into()))
}

async fn item_difference(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
    query: Asked<DifferenceQuery>,
) -> Answer<ItemDifference> {
    let Query(DifferenceQuery { from, to }) = query?;
    let difference = site.item_difference(&by, &parse(&name)?, from, to).await?;
    Ok(Json(difference.into()))
}

async fn baselines(
    State(site): State<Site>,
    By(by): By,
    query: Asked<PageQuery>,
) -> Answer<List<BaselineSummary>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site.baselines(&by, query.after.as_deref(), limit).await?;
    Ok(Json(List::of(page, BaselineSummary::from)))
}

async fn create_baseline(
    State(site): State<Site>,
    By(by): By,
    body: Body<NewBaseline>,
) -> Result<(StatusCode, Json<BaselineDetail>), Refusal> {
    let Json(new) = body?;
    let created = site.create_baseline(&by, new.name, new.content).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

async fn baseline(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
) -> Answer<BaselineDetail> {
    Ok(Json(site.baseline(&by, &parse(&name)?).await?.into()))
}

async fn set_baseline(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
    body: Body<SetBaseline>,
) -> Answer<BaselineDetail> {
    let Json(set) = body?;
    let changed = site
        .set_baseline(&by, parse(&name)?, set.content, set.base)
        .await?;
    Ok(Json(changed.into()))
}

async fn delete_baseline(
    State(site): State<Site>,
    By(by): By,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    site.delete_baseline(&by, parse(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn deployments(
    State(site): State<Site>,
    By(by): By,
    query: Asked<PageQuery>,
) -> Answer<List<DeploymentDetail>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site.deployments(&by, query.after.as_deref(), limit).await?;
    Ok(Json(List::of(page, DeploymentDetail::from)))
}

async fn create_deployment(
    State(site): State<Site>,
    By(by): By,
    body: Body<Deployment>,
) -> Result<(StatusCode, Json<DeploymentDetail>), Refusal> {
    let Json(new) = body?;
    let created = site.create_deployment(&by, new).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

async fn deployment(
    State(site): State<Site>,
    By(by): By,
    Path(number): Path<String>,
) -> Answer<DeploymentDetail> {
    let found = site
        .deployment(&by, numbered(&number, "a deployment")?)
        .await?;
    Ok(Json(found.into()))
}

async fn set_deployment(
    State(site): State<Site>,
    By(by): By,
    Path(number): Path<String>,
    body: Body<SetDeployment>,
) -> Answer<DeploymentDetail> {
    let Json(set) = body?;
    let number = numbered(&number, "a deployment")?;
    let changed = site
        .set_deployment(&by, number, set.deployment, set.base)
        .await?;
    Ok(Json(changed.into()))
}

async fn delete_deployment(
    State(site): State<Site>,
    By(by): By,
    Path(number): Path<String>,
) -> Result<StatusCode, Refusal> {
    site.delete_deployment(&by, numbered(&number, "a deployment")?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn exemptions(
    State(site): State<Site>,
    By(by): By,
    query: Asked<ExemptionQuery>,
) -> Answer<List<ExemptionDetail>> {
    let Query(query) = query?;
    let filter = site::ExemptionFilter {
        device: query.device,
        item: query.item,
        ended: query.ended.unwrap_or(false),
        after: query.after,
        limit: query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT),
    };
    let page = site.exemptions(&by, &filter).await?;
    Ok(Json(List::of(page, ExemptionDetail::from)))
}

async fn create_exemption(
    State(site): State<Site>,
    By(by): By,
    body: Body<NewExemption>,
) -> Result<(StatusCode, Json<Numbered>), Refusal> {
    let Json(new) = body?;
    let new = site::NewExemption {
        item: new.item,
        rule: new.rule,
        scope: new.scope,
        reason: new.reason,
        until: new.until,
    };
    let number = site.create_exemption(&by, new).await?;
    Ok((StatusCode::CREATED, Json(Numbered { number })))
}

async fn remove_exemption(
    State(site): State<Site>,
    By(by): By,
    Path(number): Path<String>,
) -> Result<StatusCode, Refusal> {
    site.remove_exemption(&by, numbered(&number, "an exemption")?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str) -> Result<T, Error> {
    name.parse()
        .map_err(|error| Error::Invalid(format!("{error}")))
}

fn numbered(number: &str, what: &str) -> Result<i64, Error> {
    number
        .parse()
        .map_err(|_| Error::Invalid(format!("{what} has a number")))
}
