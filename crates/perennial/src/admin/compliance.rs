//! `perennial compliance`.

use api::{
    ApiClient, AtQuery, DeployedDeviceQuery, DeploymentQuery, FlappingQuery, HistoryQuery,
    PageQuery,
};
use domain::{ComplianceState, DeviceId};

use super::{all, resolve};
use crate::cli::{Compliance, Format};
use crate::output::{Column, list, print, record};

const AT_ONCE: Option<u32> = Some(1000);

pub(super) async fn run(
    api: &ApiClient,
    command: Compliance,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        Compliance::Summary {
            deployment,
            baseline,
        } => {
            let found = all(async |after| {
                api.compliance_summary(&DeploymentQuery {
                    deployment,
                    baseline: baseline.clone(),
                    after,
                    limit: AT_ONCE,
                })
                .await
            })
            .await?;
            let columns = [
                Column("DEPLOYMENT", "/deployment"),
                Column("BASELINE", "/baseline"),
                Column("COLLECTION", "/collection"),
                Column("DEVICES", "/devices"),
                Column("PERCENT", "/compliant_percent"),
                Column("COMPLIANT", "/states/compliant"),
                Column("NON-COMPLIANT", "/states/non_compliant"),
                Column("ERROR", "/states/error"),
                Column("UNKNOWN", "/states/unknown"),
                Column("EXEMPT", "/states/exempt"),
                Column("NOT APPLICABLE", "/states/not_applicable"),
            ];
            list(format, &found, &columns)?;
            if !format.json && !format.csv {
                for standing in &found {
                    if let Some(percent) = standing.worked_out_percent {
                        print(&format!(
                            "\ndeployment {} changed, and its devices are worked out anew: {percent} percent so far",
                            standing.deployment
                        ))?;
                    }
                }
            }
            Ok(())
        }
        Compliance::Rules { deployment } => {
            let columns = [
                Column("CONFIGURATION ITEM", "/configuration_item"),
                Column("RULE", "/name"),
                Column("SEVERITY", "/severity"),
                Column("PERCENT", "/compliant_percent"),
                Column("COMPLIANT", "/states/compliant"),
                Column("REMEDIATED", "/states/remediated"),
                Column("NON-COMPLIANT", "/states/non_compliant"),
                Column("REMEDIATION FAILED", "/states/remediation_failed"),
                Column("ERROR", "/states/error"),
                Column("UNKNOWN", "/states/unknown"),
                Column("EXEMPT", "/states/exempt"),
                Column("NOT APPLICABLE", "/states/not_applicable"),
            ];
            list(format, &api.compliance_rules(deployment).await?, &columns)
        }
        Compliance::Devices { deployment, state } => {
            let devices = all(async |after| {
                let query = DeployedDeviceQuery {
                    state,
                    after,
                    limit: AT_ONCE,
                };
                api.deployed_devices(deployment, &query).await
            })
            .await?;
            let columns = [
                Column("NAME", "/host_name"),
                Column("STATE", "/state"),
                Column("SINCE", "/since"),
                Column("EVALUATED", "/evaluated_at"),
                Column("USER", "/user_name"),
                Column("SMSID", "/smsid"),
            ];
            list(format, &devices, &columns)
        }
        Compliance::Device { device, all } => {
            show(api, resolve(api, &device).await?, all, format).await
        }
        Compliance::History { device, rule } => {
            let device = resolve(api, &device).await?;
            let intervals = all(async |after| {
                api.rule_history(
                    device,
                    &HistoryQuery {
                        rule: rule.clone(),
                        after,
                        limit: AT_ONCE,
                    },
                )
                .await
            })
            .await?;
            let columns = [
                Column("SINCE", "/since"),
                Column("UNTIL", "/until"),
                Column("STATE", "/state"),
                Column("CONFIGURATION ITEM", "/configuration_item"),
                Column("RULE", "/name"),
                Column("VALUE", "/value"),
                Column("REASON", "/reason"),
            ];
            list(format, &intervals, &columns)
        }
        Compliance::At { moment, deployment } => {
            let at = AtQuery { moment: moment.0 };
            let columns = [
                Column("Moment", "/moment"),
                Column("Devices", "/devices"),
                Column("Percent compliant", "/compliant_percent"),
                Column("Compliant", "/states/compliant"),
                Column("Non-compliant", "/states/non_compliant"),
                Column("Error", "/states/error"),
                Column("Unknown", "/states/unknown"),
                Column("Exempt", "/states/exempt"),
                Column("Not applicable", "/states/not_applicable"),
            ];
            record(format, &api.compliance_at(deployment, &at).await?, &columns)
        }
        Compliance::Flapping { within, deployment } => {
            let query = FlappingQuery {
                within: Some(within),
                deployment,
                limit: None,
            };
            let columns = [
                Column("CONFIGURATION ITEM", "/configuration_item"),
                Column("RULE", "/name"),
                Column("SEVERITY", "/severity"),
                Column("RETURNS", "/returns"),
                Column("CHANGES", "/changes"),
            ];
            list(format, &api.flapping_rules(&query).await?, &columns)
        }
    }
}

async fn show(
    api: &ApiClient,
    device: DeviceId,
    every_rule: bool,
    format: Format,
) -> anyhow::Result<()> {
    let deployments = api.device_deployments(device).await?;
    let mut rules = all(async |after| {
        api.device_rules(
            device,
            &PageQuery {
                after,
                limit: AT_ONCE,
            },
        )
        .await
    })
    .await?;
    if format.json {
        let whole = serde_json::json!({ "deployments": deployments, "rules": rules });
        return print(&serde_json::to_string_pretty(&whole)?);
    }
    if !every_rule {
        rules.retain(|rule| {
            !matches!(
                rule.state,
                ComplianceState::Compliant | ComplianceState::NotApplicable
            )
        });
    }
    rules.sort_by(|a, b| {
        b.state
            .cmp(&a.state)
            .then_with(|| a.configuration_item.cmp(&b.configuration_item))
            .then_with(|| a.name.cmp(&b.name))
    });
    if !format.csv {
        let columns = [
            Column("DEPLOYMENT", "/deployment"),
            Column("BASELINE", "/baseline"),
            Column("COLLECTION", "/collection"),
            Column("STATE", "/state"),
            Column("SINCE", "/since"),
            Column("EVALUATED", "/evaluated_at"),
        ];
        list(format, &deployments, &columns)?;
        print("")?;
    }
    let columns = [
        Column("STATE", "/state"),
        Column("CONFIGURATION ITEM", "/configuration_item"),
        Column("RULE", "/name"),
        Column("SEVERITY", "/severity"),
        Column("SINCE", "/since"),
        Column("VALUE", "/value"),
        Column("REASON", "/reason"),
        Column("EXEMPT BECAUSE", "/exemption/reason"),
        Column("EXEMPT UNTIL", "/exemption/until"),
    ];
    list(format, &rules, &columns)
}
