//! Configuration items, baselines, deployments, exemptions, policy and commands.

use domain::DeviceId;
use domain::compliance::{BaselineName, Deployment, ItemName};
use protocol::CommandId;
use transport::Method;

use super::{ApiClient, Result, segment};
use crate::types::compliance::*;
use crate::types::*;

impl ApiClient {
    pub async fn items(&self, query: &PageQuery) -> Result<List<ItemSummary>> {
        self.get("/api/v1/configuration-items", query).await
    }

    /// A revision of an item; None is the latest.
    pub async fn item(&self, name: &ItemName, revision: Option<u32>) -> Result<ItemDetail> {
        let rest = match revision {
            Some(revision) => format!("/revisions/{revision}"),
            None => String::new(),
        };
        self.get(&item_path(name, &rest), &()).await
    }

    pub async fn create_item(&self, new: &NewItem) -> Result<ItemDetail> {
        self.ask(Method::POST, "/api/v1/configuration-items", Some(new))
            .await
    }

    pub async fn revise_item(&self, name: &ItemName, new: &ReviseItem) -> Result<RevisedItem> {
        self.ask(Method::PUT, &item_path(name, ""), Some(new)).await
    }

    pub async fn delete_item(&self, name: &ItemName) -> Result<()> {
        self.tell(Method::DELETE, &item_path(name, ""), None::<&()>)
            .await
    }

    /// Newest first.
    pub async fn item_history(
        &self,
        name: &ItemName,
        query: &PageQuery,
    ) -> Result<List<ItemRevision>> {
        self.get(&item_path(name, "/revisions"), query).await
    }

    pub async fn item_difference(
        &self,
        name: &ItemName,
        query: DifferenceQuery,
    ) -> Result<ItemDifference> {
        self.get(&item_path(name, "/difference"), &query).await
    }

    pub async fn baselines(&self, query: &PageQuery) -> Result<List<BaselineSummary>> {
        self.get("/api/v1/baselines", query).await
    }

    pub async fn baseline(&self, name: &BaselineName) -> Result<BaselineDetail> {
        self.get(&baseline_path(name), &()).await
    }

    pub async fn create_baseline(&self, new: &NewBaseline) -> Result<BaselineDetail> {
        self.ask(Method::POST, "/api/v1/baselines", Some(new)).await
    }

    pub async fn set_baseline(
        &self,
        name: &BaselineName,
        set: &SetBaseline,
    ) -> Result<BaselineDetail> {
        self.ask(Method::PUT, &baseline_path(name), Some(set)).await
    }

    pub async fn delete_baseline(&self, name: &BaselineName) -> Result<()> {
        self.tell(Method::DELETE, &baseline_path(name), None::<&()>)
            .await
    }

    pub async fn deployments(&self, query: &PageQuery) -> Result<List<DeploymentDetail>> {
        self.get("/api/v1/deployments", query).await
    }

    pub async fn deployment(&self, number: i64) -> Result<DeploymentDetail> {
        self.get(&format!("/api/v1/deployments/{number}"), &())
            .await
    }

    pub async fn create_deployment(&self, new: &Deployment) -> Result<DeploymentDetail> {
        self.ask(Method::POST, "/api/v1/deployments", Some(new))
            .await
    }

    pub async fn set_deployment(
        &self,
        number: i64,
        set: &SetDeployment,
    ) -> Result<DeploymentDetail> {
        let path = format!("/api/v1/deployments/{number}");
        self.ask(Method::PUT, &path, Some(set)).await
    }

    pub async fn delete_deployment(&self, number: i64) -> Result<()> {
        let path = format!("/api/v1/deployments/{number}");
        self.tell(Method::DELETE, &path, None::<&()>).await
    }

    /// Newest first.
    pub async fn exemptions(&self, query: &ExemptionQuery) -> Result<List<ExemptionDetail>> {
        self.get("/api/v1/exemptions", query).await
    }

    pub async fn create_exemption(&self, new: &NewExemption) -> Result<Numbered> {
        self.ask(Method::POST, "/api/v1/exemptions", Some(new))
            .await
    }

    pub async fn remove_exemption(&self, number: i64) -> Result<()> {
        let path = format!("/api/v1/exemptions/{number}");
        self.tell(Method::DELETE, &path, None::<&()>).await
    }

    pub async fn policy(&self) -> Result<PolicyDetail> {
        self.get("/api/v1/policy", &()).await
    }

    pub async fn raise_policy_epoch(&self) -> Result<RaisedEpoch> {
        self.ask(Method::POST, "/api/v1/policy/raise-epoch", None::<&()>)
            .await
    }

    /// Newest first.
    pub async fn device_commands(
        &self,
        device: DeviceId,
        query: &PageQuery,
    ) -> Result<List<CommandDetail>> {
        self.get(&format!("/api/v1/devices/{device}/commands"), query)
            .await
    }

    pub async fn device_command(&self, device: DeviceId, id: &CommandId) -> Result<CommandDetail> {
        self.get(&format!("/api/v1/devices/{device}/commands/{id}"), &())
            .await
    }

    pub async fn command_device(&self, device: DeviceId, new: NewCommand) -> Result<CommandDetail> {
        let path = format!("/api/v1/devices/{device}/commands");
        self.ask(Method::POST, &path, Some(&new)).await
    }

    pub async fn uninstall_client(
        &self,
        device: DeviceId,
        order: Uninstall,
    ) -> Result<CommandDetail> {
        let path = format!("/api/v1/devices/{device}/uninstall");
        self.ask(Method::POST, &path, Some(&order)).await
    }

    pub async fn test_script(&self, device: DeviceId, test: &TestScript) -> Result<CommandDetail> {
        let path = format!("/api/v1/devices/{device}/test-script");
        self.ask(Method::POST, &path, Some(test)).await
    }
}

fn item_path(name: &ItemName, rest: &str) -> String {
    format!(
        "/api/v1/configuration-items/{}{rest}",
        segment(name.as_str())
    )
}

fn baseline_path(name: &BaselineName) -> String {
    format!("/api/v1/baselines/{}", segment(name.as_str()))
}
