//! `perennial deployment`.

use api::{ApiClient, DeploymentDetail, SetDeployment};
use domain::compliance::{ComplianceAlert, Deployment as Content};

use super::{Done, all, confirm, whole_page};
use crate::cli::Format;
use crate::cli::compliance::{Deployment, DeploymentOptions};
use crate::output::{Column, done, list, print, record};

pub(super) async fn run(
    api: &ApiClient,
    command: Deployment,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        Deployment::Create {
            baseline,
            collection,
            options,
        } => {
            let plain = serde_json::json!({ "baseline": baseline, "collection": collection });
            let content = with(serde_json::from_value(plain)?, options);
            let created = api.create_deployment(&content).await?;
            let sentence = format!(
                "deployment {}: {} to {}, {}",
                created.number,
                created.deployment.baseline,
                created.deployment.collection,
                comes_to(&created)
            );
            done(format, &sentence, &created)
        }
        Deployment::Set {
            number,
            baseline,
            collection,
            options,
            no_remediate,
            no_remediation_window,
            no_alert,
        } => {
            let before = api.deployment(number).await?;
            let mut content = with(before.deployment, options);
            if let Some(baseline) = baseline {
                content.baseline = baseline;
            }
            if let Some(collection) = collection {
                content.collection = collection;
            }
            content.remediate &= !no_remediate;
            if no_remediation_window {
                content.remediation_window = None;
            }
            if no_alert {
                content.alert = None;
            }
            let set = SetDeployment {
                deployment: content,
                base: Some(before.version),
            };
            let after = api.set_deployment(number, &set).await?;
            let sentence = match after.version == before.version {
                true => format!("nothing changes; deployment {number} stays as it is"),
                false => format!("changed deployment {number}: {}", comes_to(&after)),
            };
            done(format, &sentence, &after)
        }
        Deployment::List => {
            let deployments = all(async |after| api.deployments(&whole_page(after)).await).await?;
            let columns = [
                Column("NUMBER", "/number"),
                Column("BASELINE", "/deployment/baseline"),
                Column("COLLECTION", "/deployment/collection"),
                Column("REMEDIATE", "/deployment/remediate"),
                Column("SCHEDULE", "/deployment/schedule"),
                Column("ITEMS", "/items"),
                Column("RULES", "/rules"),
                Column("CHANGED", "/changed_at"),
            ];
            list(format, &deployments, &columns)
        }
        Deployment::Show { number } => {
            let found = api.deployment(number).await?;
            let columns = [
                Column("Number", "/number"),
                Column("Baseline", "/deployment/baseline"),
                Column("Collection", "/deployment/collection"),
                Column("Remediate", "/deployment/remediate"),
                Column("Schedule", "/deployment/schedule"),
                Column("Spread", "/deployment/spread"),
                Column("Remediation window", "/deployment/remediation_window"),
                Column("Stale after", "/deployment/stale_after"),
                Column("Alert below (percent)", "/deployment/alert/below"),
                Column("Alert at", "/deployment/alert/at"),
                Column("Configuration items", "/items"),
                Column("Rules", "/rules"),
                Column("Made", "/made_at"),
                Column("Changed", "/changed_at"),
            ];
            record(format, &found, &columns)?;
            if !format.json && !format.csv {
                print("")?;
                let columns = [
                    Column("CONFIGURATION ITEM", "/item"),
                    Column("REVISION", "/revision"),
                ];
                list(format, &found.revisions, &columns)?;
            }
            Ok(())
        }
        Deployment::Delete { number, yes } => {
            let found = api.deployment(number).await?.deployment;
            let question = format!(
                "Delete deployment {number} of {} to {}? Its states go with it.",
                found.baseline, found.collection
            );
            confirm(&question, yes)?;
            api.delete_deployment(number).await?;
            done(format, &format!("deleted deployment {number}"), &Done {})
        }
    }
}

fn with(mut content: Content, options: DeploymentOptions) -> Content {
    content.remediate |= options.remediate;
    if let Some(schedule) = options.every.or(options.cron) {
        content.schedule = schedule;
    }
    if let Some(spread) = options.spread {
        content.spread = spread;
    }
    if let Some(stale_after) = options.stale_after {
        content.stale_after = stale_after;
    }
    content.remediation_window = options.remediation_window.or(content.remediation_window);
    if let (Some(below), Some(at)) = (options.alert_below, options.alert_at) {
        content.alert = Some(ComplianceAlert { below, at: at.0 });
    }
    content
}

fn comes_to(deployment: &DeploymentDetail) -> String {
    match (deployment.items, deployment.deployment.remediate) {
        (0, _) => "which comes to nothing: its baseline is not enabled".to_owned(),
        (items, true) => format!("{items} configuration items, remediated"),
        (items, false) => format!("{items} configuration items, not remediated"),
    }
}
