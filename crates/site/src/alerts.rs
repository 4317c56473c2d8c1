//! What an administrator should look at.

use domain::Action;
use store::{Alert, AlertFilter, Kind};

use crate::{Administrator, Page, Result, Site};

impl Site {
    /// # Errors
    /// When the role may not, or the page's beginning is none.
    pub async fn alerts(&self, by: &Administrator, filter: &AlertFilter) -> Result<Page<Alert>> {
        by.require(Action::ReadAlerts)?;
        Ok(self.0.store.alerts(filter).await?)
    }

    /// # Errors
    /// When the role may not, or no such alert is open.
    pub async fn close_alert(&self, by: &Administrator, number: i64) -> Result<()> {
        by.require(Action::CloseAlerts)?;
        self.commit(by.actor(), Kind::CloseAlert { number }).await?;
        Ok(())
    }
}
