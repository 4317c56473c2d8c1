//! Deployments: a baseline for the devices of a collection.

use domain::Action;
use domain::compliance::{Deployment, ItemName};
use store::{Applied, DeploymentRecord, Kind, ObjectChange};

use crate::configuration_items::no_page;
use crate::{Administrator, Error, Page, Result, Site};

/// A deployment, and what it comes to.
#[derive(Debug, Clone)]
pub struct DeploymentView {
    pub record: DeploymentRecord,
    /// Configuration items and the revisions that devices get.
    pub items: Vec<(ItemName, u32)>,
}

impl Site {
    /// # Errors
    /// When baseline or collection are not there, or the same was deployed before.
    pub async fn create_deployment(
        &self,
        by: &Administrator,
        deployment: Deployment,
    ) -> Result<DeploymentView> {
        by.require(Action::Deploy)?;
        check(&deployment)?;
        let change = ObjectChange::CreateDeployment(Box::new(deployment));
        match self.commit(by.actor(), Kind::Object(change)).await? {
            Applied::Numbered(number) => self.deployment_of(number).await,
            other => unreachable!("a deployment gets a number, not {other:?}"),
        }
    }

    /// Gives a deployment another content. `base`: the version that the administrator saw.
    ///
    /// # Errors
    /// When there is no such deployment, or somebody else changed it meanwhile.
    pub async fn set_deployment(
        &self,
        by: &Administrator,
        number: i64,
        deployment: Deployment,
        base: Option<i64>,
    ) -> Result<DeploymentView> {
        by.require(Action::Deploy)?;
        check(&deployment)?;
        let change = ObjectChange::SetDeployment {
            number,
            deployment: Box::new(deployment),
            base,
        };
        self.commit(by.actor(), Kind::Object(change)).await?;
        self.deployment_of(number).await
    }

    /// # Errors
    /// When there is no such deployment.
    pub async fn delete_deployment(&self, by: &Administrator, number: i64) -> Result<()> {
        by.require(Action::Deploy)?;
        let change = ObjectChange::DeleteDeployment { number };
        self.commit(by.actor(), Kind::Object(change)).await?;
        Ok(())
    }

    /// Deployments by number.
    ///
    /// # Errors
    /// When the page's beginning is none.
    pub async fn deployments(
        &self,
        by: &Administrator,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeploymentRecord>> {
        by.require(Action::ReadCompliance)?;
        let after = after.map(str::parse).transpose().map_err(|_| no_page())?;
        Ok(self.0.store.deployments(after, limit).await?)
    }

    /// # Errors
    /// When there is no such deployment.
    pub async fn deployment(&self, by: &Administrator, number: i64) -> Result<DeploymentView> {
        by.require(Action::ReadCompliance)?;
        self.deployment_of(number).await
    }

    async fn deployment_of(&self, number: i64) -> Result<DeploymentView> {
        let found = self.0.store.deployment(number).await?;
        let record =
            found.ok_or_else(|| Error::NotFound(format!("there is no deployment {number}")))?;
        Ok(DeploymentView {
            record,
            items: self.0.store.deployed_items(number).await?,
        })
    }
}

fn check(deployment: &Deployment) -> Result<()> {
    deployment
        .check()
        .map_err(|error| Error::Invalid(error.to_string()))
}
