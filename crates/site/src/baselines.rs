//! Configuration baselines: configuration items and other baselines under one name.

use domain::Action;
use domain::compliance::{BaselineContent, BaselineName};
use store::{Baseline, BaselineSummary, Kind, ObjectChange};

use crate::configuration_items::name_page;
use crate::{Administrator, Error, Page, Result, Site};

/// A baseline, and all baselines that are in it, at any depth.
#[derive(Debug, Clone)]
pub struct BaselineView {
    pub baseline: Baseline,
    pub inside: Vec<Baseline>,
}

impl Site {
    /// # Errors
    /// When the name is taken, a part is not there, or there are too many.
    pub async fn create_baseline(
        &self,
        by: &Administrator,
        name: BaselineName,
        content: BaselineContent,
    ) -> Result<BaselineView> {
        by.require(Action::ManageCompliance)?;
        check(&content)?;
        let change = ObjectChange::CreateBaseline {
            name: name.clone(),
            content,
        };
        self.commit(by.actor(), Kind::Object(change)).await?;
        self.baseline_of(&name).await
    }

    /// Gives a baseline another content. `base`: the version that the administrator saw.
    ///
    /// # Errors
    /// When a part is not there, it would be a part of itself, or somebody else changed it meanwhile.
    pub async fn set_baseline(
        &self,
        by: &Administrator,
        name: BaselineName,
        content: BaselineContent,
        base: Option<i64>,
    ) -> Result<BaselineView> {
        by.require(Action::ManageCompliance)?;
        check(&content)?;
        let change = ObjectChange::SetBaseline {
            name: name.clone(),
            content,
            base,
        };
        self.commit(by.actor(), Kind::Object(change)).await?;
        self.baseline_of(&name).await
    }

    /// # Errors
    /// When there is no such baseline, or something uses it.
    pub async fn delete_baseline(&self, by: &Administrator, name: BaselineName) -> Result<()> {
        by.require(Action::ManageCompliance)?;
        let change = ObjectChange::DeleteBaseline { name };
        self.commit(by.actor(), Kind::Object(change)).await?;
        Ok(())
    }

    /// # Errors
    /// When the page's beginning is none.
    pub async fn baselines(
        &self,
        by: &Administrator,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<BaselineSummary>> {
        by.require(Action::ReadCompliance)?;
        Ok(self.0.store.baselines(name_page(after)?, limit).await?)
    }

    /// # Errors
    /// When there is no such baseline.
    pub async fn baseline(&self, by: &Administrator, name: &BaselineName) -> Result<BaselineView> {
        by.require(Action::ReadCompliance)?;
        self.baseline_of(name).await
    }

    async fn baseline_of(&self, name: &BaselineName) -> Result<BaselineView> {
        let mut tree = self.0.store.baseline_tree(name).await?.into_iter();
        let baseline = tree
            .next()
            .ok_or_else(|| Error::NotFound(format!("there is no baseline `{name}`")))?;
        Ok(BaselineView {
            baseline,
            inside: tree.collect(),
        })
    }
}

fn check(content: &BaselineContent) -> Result<()> {
    content
        .check()
        .map_err(|error| Error::Invalid(error.to_string()))
}
