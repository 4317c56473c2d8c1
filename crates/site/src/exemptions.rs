//! Exemptions: a rule that a device, or a collection, need not keep for a while.

use domain::Action;
use store::{Applied, Exemption, ExemptionFilter, Kind, NewExemption, ObjectChange};

use crate::{Administrator, Error, Page, Result, Site};

impl Site {
    /// Returns the number of the exemption.
    ///
    /// # Errors
    /// When its end is over, or what it names is not there.
    pub async fn create_exemption(&self, by: &Administrator, new: NewExemption) -> Result<i64> {
        by.require(Action::ManageCompliance)?;
        if new.until.is_some_and(|until| until <= self.now()) {
            return Err(Error::Invalid(
                "the end of the exemption is over; say a moment to come".to_owned(),
            ));
        }
        let change = ObjectChange::Exempt(Box::new(new));
        match self.commit(by.actor(), Kind::Object(change)).await? {
            Applied::Numbered(number) => Ok(number),
            other => unreachable!("an exemption gets a number, not {other:?}"),
        }
    }

    /// Ends an exemption. It stays in the records.
    ///
    /// # Errors
    /// When no such exemption is in force.
    pub async fn remove_exemption(&self, by: &Administrator, number: i64) -> Result<()> {
        by.require(Action::ManageCompliance)?;
        let change = ObjectChange::EndExemption { number };
        self.commit(by.actor(), Kind::Object(change)).await?;
        Ok(())
    }

    /// Exemptions, newest first.
    ///
    /// # Errors
    /// When the page's beginning is none.
    pub async fn exemptions(
        &self,
        by: &Administrator,
        filter: &ExemptionFilter,
    ) -> Result<Page<Exemption>> {
        by.require(Action::ReadCompliance)?;
        Ok(self.0.store.exemptions(filter).await?)
    }
}
