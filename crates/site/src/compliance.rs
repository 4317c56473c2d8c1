//! How rules and deployments stand, now and before, and the jobs that keep it so: working out the
//! states of a deployment that changed, exemptions that end, and alerts whose moment comes.

use std::time::{Duration, Instant};

use domain::{Action, DeviceId, Period, RuleName, StateCounts, Timestamp};
use store::{
    Actor, Applied, DeployedDevice, DeployedDevices, DeploymentFilter, DeploymentSummary,
    DeviceDeployment, DeviceRule, FlappingRule, HistoryFilter, Kind, RuleInterval, RuleSummary,
};

use crate::{Administrator, Error, Page, Result, Site};

/// How often a node looks whether a deployment changed.
const LOOK: Duration = Duration::from_secs(2);
/// How often it looks for what comes with time.
const LOOK_AT_TIME: Duration = Duration::from_secs(60);

impl Site {
    /// # Errors
    /// When the role may not, or the page's beginning is none.
    pub async fn deployment_summaries(
        &self,
        by: &Administrator,
        filter: &DeploymentFilter,
    ) -> Result<Page<DeploymentSummary>> {
        by.require(Action::ReadCompliance)?;
        let store = &self.0.store;
        Ok(store.deployment_summaries(filter, self.now()).await?)
    }

    /// How many devices keep each rule of a deployment.
    ///
    /// # Errors
    /// When there is no such deployment.
    pub async fn rule_summaries(
        &self,
        by: &Administrator,
        deployment: i64,
    ) -> Result<Vec<RuleSummary>> {
        by.require(Action::ReadCompliance)?;
        self.deployment_summary(deployment).await?;
        let store = &self.0.store;
        Ok(store.rule_summaries(deployment, self.now()).await?)
    }

    /// # Errors
    /// When there is no such deployment.
    pub async fn deployed_devices(
        &self,
        by: &Administrator,
        filter: &DeployedDevices,
    ) -> Result<Page<DeployedDevice>> {
        by.require(Action::ReadCompliance)?;
        by.require(Action::ReadDevices)?;
        self.deployment_summary(filter.deployment).await?;
        let mut page = self.0.store.deployed_devices(filter, self.now()).await?;
        for found in &mut page.items {
            found.evaluated_at = found.evaluated_at.max(self.evaluated(found.device));
        }
        Ok(page)
    }

    /// The deployments that concern a device, and how they stand on it.
    ///
    /// # Errors
    /// When there is no such device.
    pub async fn device_deployments(
        &self,
        by: &Administrator,
        device: DeviceId,
    ) -> Result<Vec<DeviceDeployment>> {
        by.require(Action::ReadCompliance)?;
        self.device(by, device).await?;
        let store = &self.0.store;
        let mut found = store.device_deployments(device, self.now()).await?;
        for deployment in &mut found {
            deployment.evaluated_at = deployment.evaluated_at.max(self.evaluated(device));
        }
        Ok(found)
    }

    /// The rules that concern a device, and how they stand.
    ///
    /// # Errors
    /// When there is no such device, or the page's beginning is none.
    pub async fn device_rules(
        &self,
        by: &Administrator,
        device: DeviceId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeviceRule>> {
        by.require(Action::ReadCompliance)?;
        self.device(by, device).await?;
        let after = after
            .map(str::parse)
            .transpose()
            .map_err(|_| Error::Invalid("that is not where a page begins".to_owned()))?;
        Ok(self.0.store.device_rules(device, after, limit).await?)
    }

    /// How rules stood on a device, newest first: since when, and until when.
    ///
    /// # Errors
    /// When there is no such device, or the page's beginning is none.
    pub async fn rule_history(
        &self,
        by: &Administrator,
        device: DeviceId,
        rule: Option<RuleName>,
        after: Option<String>,
        limit: u32,
    ) -> Result<Page<RuleInterval>> {
        by.require(Action::ReadCompliance)?;
        self.device(by, device).await?;
        let filter = HistoryFilter {
            device,
            rule,
            after,
            limit,
        };
        Ok(self.0.store.rule_history(&filter).await?)
    }

    /// How a deployment stood at a moment that is past, as the site knew it then.
    ///
    /// # Errors
    /// When there is no such deployment, or the moment is to come.
    pub async fn compliance_at(
        &self,
        by: &Administrator,
        deployment: i64,
        at: Timestamp,
    ) -> Result<StateCounts> {
        by.require(Action::ReadCompliance)?;
        if at > self.now() {
            return Err(Error::Invalid("that is still to come".to_owned()));
        }
        self.deployment_summary(deployment).await?;
        Ok(self.0.store.compliance_at(deployment, at).await?)
    }

    /// Rules that went back and forth most within a time.
    ///
    /// # Errors
    /// When the role may not.
    pub async fn flapping_rules(
        &self,
        by: &Administrator,
        within: Period,
        deployment: Option<i64>,
        limit: u32,
    ) -> Result<Vec<FlappingRule>> {
        by.require(Action::ReadCompliance)?;
        let since = self
            .now()
            .checked_sub(within.duration())
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let store = &self.0.store;
        Ok(store.flapping_rules(since, deployment, limit).await?)
    }

    async fn deployment_summary(&self, number: i64) -> Result<DeploymentSummary> {
        let filter = DeploymentFilter {
            deployment: Some(number),
            limit: 1,
            ..DeploymentFilter::default()
        };
        let page = self
            .0
            .store
            .deployment_summaries(&filter, self.now())
            .await?;
        let found = page.items.into_iter().next();
        found.ok_or_else(|| Error::NotFound(format!("there is no deployment {number}")))
    }

    /// Works out the states of deployments that changed, for ever. Steps are commits of their own;
    /// nodes that do it at the same time take different deployments.
    pub(crate) async fn work_out_deployments(&self) {
        loop {
            if let Err(error) = self.work_out_due().await {
                tracing::error!(event = "deployments-not-worked-out", %error, "will be tried again");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn work_out_due(&self) -> Result<()> {
        while self.0.store.deployments_are_due().await? {
            let begun = Instant::now();
            let kind = Kind::WorkOutDeployments;
            let Applied::WorkedOut(step) = self.commit(Actor::site(), kind).await? else {
                return Ok(());
            };
            tracing::debug!(
                event = "deployment-step",
                deployment = step.deployment,
                devices = step.devices
            );
            self.rest_after(begun.elapsed()).await;
        }
        Ok(())
    }

    /// Ends exemptions whose time is over, and judges deployments at their alerts' moments, for ever.
    pub(crate) async fn watch_compliance(&self) {
        loop {
            // A clock that jumped forward must not end what is still to last.
            let watched = match self.require_clock() {
                Ok(()) => self.act_on_time().await,
                Err(_) => Ok(true),
            };
            let wait = match watched {
                Ok(true) => LOOK_AT_TIME,
                Ok(false) => LOOK,
                Err(error) => {
                    tracing::error!(event = "compliance-not-watched", %error, "will be tried again");
                    LOOK_AT_TIME
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// False when something has to wait for a deployment that is worked out.
    async fn act_on_time(&self) -> Result<bool> {
        let mut done = true;
        while self.0.store.exemptions_end(self.now()).await? {
            let ended = self.commit(Actor::site(), Kind::EndExemptions).await?;
            if ended == Applied::Unchanged {
                // Another node does it just now.
                break;
            }
        }
        for due in self.0.store.compliance_alerts_due(self.now()).await? {
            let deployment = self.deployment_summary(due.deployment).await?;
            if deployment.worked_out.is_some() {
                // Its numbers are not complete yet.
                done = false;
                continue;
            }
            let percent = deployment.devices.percent_compliant();
            let below = percent.filter(|percent| *percent < due.below);
            let detail = below.map(|percent| {
                format!(
                    "{percent} percent of the devices of `{}` comply with `{}`; at least {} were to",
                    deployment.collection, deployment.baseline, due.below
                )
            });
            let kind = Kind::JudgeCompliance {
                deployment: due.deployment,
                alert_at: due.at,
                below: detail,
            };
            self.commit(Actor::site(), kind).await?;
        }
        Ok(done)
    }
}
