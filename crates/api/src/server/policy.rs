//! The site's policy, and commands for devices.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::Action;
use protocol::CommandId;
use site::{Error, Site};

use super::{Answer, Asked, Body, By, Refusal, Route, device_id, route};
use crate::types::compliance::*;
use crate::types::*;

pub(super) const ROUTES: &[Route] = &[
    route("GET", "/api/v1/policy", Some(Action::ReadCompliance)),
    route(
        "POST",
        "/api/v1/policy/raise-epoch",
        Some(Action::ManagePolicy),
    ),
    route(
        "GET",
        "/api/v1/devices/{device}/commands",
        Some(Action::ReadDevices),
    ),
    route(
        "POST",
        "/api/v1/devices/{device}/commands",
        Some(Action::RunCommands),
    ),
    route(
        "GET",
        "/api/v1/devices/{device}/commands/{command}",
        Some(Action::ReadDevices),
    ),
    route(
        "POST",
        "/api/v1/devices/{device}/uninstall",
        Some(Action::UninstallClients),
    ),
    route(
        "POST",
        "/api/v1/devices/{device}/test-script",
        Some(Action::TestScripts),
    ),
];

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/api/v1/policy", get(policy))
        .route("/api/v1/policy/raise-epoch", post(raise_epoch))
        .route(
            "/api/v1/devices/{device}/commands",
            get(commands).post(command_device),
        )
        .route("/api/v1/devices/{device}/commands/{command}", get(command))
        .route("/api/v1/devices/{device}/uninstall", post(uninstall))
        .route("/api/v1/devices/{device}/test-script", post(test_script))
}

type Created<T> = Result<(StatusCode, Json<T>), Refusal>;

async fn policy(State(site): State<Site>, By(by): By) -> Answer<PolicyDetail> {
    Ok(Json(site.policy(&by).await?.into()))
}

async fn raise_epoch(State(site): State<Site>, By(by): By) -> Answer<RaisedEpoch> {
    let version = site.raise_policy_epoch(&by).await?;
    Ok(Json(RaisedEpoch { version }))
}

async fn commands(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    query: Asked<PageQuery>,
) -> Answer<List<CommandDetail>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PageQuery::DEFAULT_LIMIT);
    let page = site
        .device_commands(&by, device_id(&device)?, query.after.as_deref(), limit)
        .await?;
    Ok(Json(List::of(page, CommandDetail::from)))
}

async fn command_device(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    body: Body<NewCommand>,
) -> Created<CommandDetail> {
    let Json(new) = body?;
    let given = site
        .command_device(&by, device_id(&device)?, new.command, new.expires)
        .await?;
    Ok((StatusCode::CREATED, Json(given.into())))
}

async fn command(
    State(site): State<Site>,
    By(by): By,
    Path((device, command)): Path<(String, String)>,
) -> Answer<CommandDetail> {
    let command: CommandId = command
        .parse()
        .map_err(|error| Error::Invalid(format!("{error}")))?;
    let found = site
        .device_command(&by, device_id(&device)?, command)
        .await?;
    Ok(Json(found.into()))
}

async fn uninstall(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    body: Body<Uninstall>,
) -> Created<CommandDetail> {
    let Json(new) = body?;
    let given = site
        .uninstall_client(&by, device_id(&device)?, new.expires)
        .await?;
    Ok((StatusCode::CREATED, Json(given.into())))
}

async fn test_script(
    State(site): State<Site>,
    By(by): By,
    Path(device): Path<String>,
    body: Body<TestScript>,
) -> Created<CommandDetail> {
    let Json(test) = body?;
    let given = site
        .test_script(
            &by,
            device_id(&device)?,
            &test.item,
            test.revision,
            &test.setting,
            test.expires,
        )
        .await?;
    Ok((StatusCode::CREATED, Json(given.into())))
}
