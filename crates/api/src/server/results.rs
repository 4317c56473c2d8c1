//! How rules and deployments stand, now and before.

use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use domain::Period;
use site::{DeployedDevices, DeploymentFilter, Error, Site};

use super::{Answer, Asked, By, device_id};
use crate::results::*;
use crate::types::{List, PageQuery};

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/api/v1/compliance/summary", get(summary))
        .route("/api/v1/compliance/deployments/{number}/rules", get(rules))
        .route(
            "/api/v1/compliance/deployments/{number}/devices",
            get(devices),
        )
        .route("/api/v1/compliance/deployments/{number}/at", get(at))
        .route(
            "/api/v1/compliance/devices/{device}/deployments",
            get(device_deployments),
        )
        .route(
            "/api/v1/compliance/devices/{device}/rules",
            get(device_rules),
        )
        .route("/api/v1/compliance/devices/{device}/history", get(history))
        .route("/api/v1/compliance/flapping", get(flapping))
}

/// The longest time over which rules flap.
const LONGEST: Period = Period::from_days(10 * 366);

async fn summary(
    State(site): State<Site>,
    By(by): By,
    query: Asked<DeploymentQuery>,
) -> Answer<List<DeploymentStanding>> {
    let Query(query) = query?;
    let filter = DeploymentFilter {
        deployment: query.deployment,
        baseline: query.baseline,
        after: query.after,
        limit: query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT),
    };
    let page = site.deployment_summaries(&by, &filter).await?;
    Ok(Json(List::of(page, DeploymentStanding::from)))
}

async fn rules(
    State(site): State<Site>,
    By(by): By,
    Path(number): Path<String>,
) -> Answer<Vec<RuleStanding>> {
    let found = site.rule_summaries(&by, parse(&number)?).await?;
    Ok(Json(found.into_iter().map(RuleStanding::from).collect()))
}

async fn devices(
    State(site): State<Site>,
    By(by): By,
    Path(number): Path<String>,
    query: Asked<DeployedDeviceQuery>,
) -> Answer<List<DeployedDevice>> {
    let Query(query) = query?;
    let after = query.after.as_deref().map(device_id).transpose()?;
    let filter = DeployedDevices {
        deployment: parse(&number)?,
        state: query.state,
        after,
        limit: query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT),
    };
    let page = site.deployed_devices(&by, &filter).await?;
    Ok(Json(List::of(page, DeployedDevice::from)))
}

async fn at(
    State(site): State<Site>,
    By(by): By,
    Path(number): Path<String>,
    query: Asked<AtQuery>,
) -> Answer<StandingAt> {
    let Query(AtQuery { moment }) = query?;
    let deployment = parse(&number)?;
    let states = site.compliance_at(&by, deployment, moment).await?;
    Ok(Json(StandingAt {
        deployment,
        moment,
        devices: states.total(),
        compliant_percent: states.percent_compliant(),
        states,
    }))
}

async fn device_deployments(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
) -> Answer<Vec<DeviceDeployment>> {
    let found = site.device_deployments(&by, device_id(&device)?).await?;
    Ok(Json(
        found.into_iter().map(DeviceDeployment::from).collect(),
    ))
}

async fn device_rules(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    query: Asked<PageQuery>,
) -> Answer<List<DeviceRule>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let device = device_id(&device)?;
    let page = site
        .device_rules(&by, device, query.after.as_deref(), limit)
        .await?;
    Ok(Json(List::of(page, DeviceRule::from)))
}

async fn history(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    query: Asked<HistoryQuery>,
) -> Answer<List<RuleInterval>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let device = device_id(&device)?;
    let page = site
        .rule_history(&by, device, query.rule, query.after, limit)
        .await?;
    Ok(Json(List::of(page, RuleInterval::from)))
}

async fn flapping(
    State(site): State<Site>,
    By(by): By,
    query: Asked<FlappingQuery>,
) -> Answer<Vec<FlappingRule>> {
    let Query(query) = query?;
    let within = query.within.unwrap_or(Period::from_days(30)).min(LONGEST);
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let found = site
        .flapping_rules(&by, within, query.deployment, limit)
        .await?;
    Ok(Json(found.into_iter().map(FlappingRule::from).collect()))
}

fn parse(number: &str) -> Result<i64, Error> {
    number
        .parse()
        .map_err(|_| Error::Invalid("a deployment has a number".to_owned()))
}
