//! Renewals that an administrator moves: one order for many devices, and how far it was followed.

use domain::{Action, ExplanationUrl, Period, RenewalScope, Timestamp, Window};
use store::{Applied, Kind, RenewalOrder, RenewalProgress};

use crate::{Administrator, Error, Page, Result, Site};

/// What an administrator orders.
#[derive(Debug, Clone)]
pub struct NewRenewalWindow {
    pub scope: RenewalScope,
    /// None: now.
    pub start: Option<Timestamp>,
    /// None: a day.
    pub spread: Option<Period>,
    pub explanation_url: Option<ExplanationUrl>,
}

const SPREAD: Period = Period::from_days(1);

impl Site {
    /// Moves the renewal of all certificates of a scope that were issued until now. Returns the
    /// order, and whom it covers.
    ///
    /// # Errors
    /// When the window is none, or the scope names what is not there.
    pub async fn set_renewal_window(
        &self,
        by: &Administrator,
        new: NewRenewalWindow,
    ) -> Result<(RenewalOrder, RenewalProgress)> {
        by.require(Action::MoveRenewalWindows)?;
        let now = self.now();
        let spread = new.spread.unwrap_or(SPREAD);
        let window = Window::of_order(new.start.unwrap_or(now), spread, now)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let kind = Kind::SetRenewalWindow {
            scope: new.scope,
            window,
            explanation_url: new.explanation_url,
        };
        let Applied::Numbered(number) = self.commit(by.actor(), kind).await? else {
            unreachable!("an order gets a number");
        };
        self.order(number).await
    }

    /// # Errors
    /// When there is no such order.
    pub async fn remove_renewal_window(&self, by: &Administrator, number: i64) -> Result<()> {
        by.require(Action::MoveRenewalWindows)?;
        self.commit(by.actor(), Kind::RemoveRenewalWindow { number })
            .await?;
        Ok(())
    }

    /// Orders, newest first.
    ///
    /// # Errors
    /// When the page's beginning is none.
    pub async fn renewal_windows(
        &self,
        by: &Administrator,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<RenewalOrder>> {
        by.require(Action::ReadCertificates)?;
        let before = after
            .map(str::parse)
            .transpose()
            .map_err(|_| Error::Invalid("that is not where a page begins".to_owned()))?;
        Ok(self.0.store.renewal_orders(before, limit).await?)
    }

    /// An order, and how far it was followed.
    ///
    /// # Errors
    /// When there is no such order.
    pub async fn renewal_window(
        &self,
        by: &Administrator,
        number: i64,
    ) -> Result<(RenewalOrder, RenewalProgress)> {
        by.require(Action::ReadCertificates)?;
        self.order(number).await
    }

    async fn order(&self, number: i64) -> Result<(RenewalOrder, RenewalProgress)> {
        let found = self.0.store.renewal_order(number).await?;
        let order =
            found.ok_or_else(|| Error::NotFound(format!("there is no renewal window {number}")))?;
        let progress = self.0.store.renewal_progress(&order).await?;
        Ok((order, progress))
    }
}
