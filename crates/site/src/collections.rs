//! Collections: groups of devices that administrators make.

use domain::{Action, CollectionName, DeviceId};
use store::{Applied, Collection, Device, Kind};

use crate::{Administrator, Error, Page, Result, Site};

/// Devices that one request can add to a collection, or remove from it: each stands in the audit
/// entry.
pub const MOST_MEMBERS_AT_ONCE: usize = 1_000;

impl Site {
    /// # Errors
    /// When the name is taken.
    pub async fn create_collection(
        &self,
        by: &Administrator,
        name: CollectionName,
    ) -> Result<Collection> {
        by.require(Action::ManageCollections)?;
        let created_at = self.now();
        let kind = Kind::CreateCollection { name: name.clone() };
        self.commit(by.actor(), kind).await?;
        Ok(Collection {
            name,
            created_at,
            members: 0,
        })
    }

    /// # Errors
    /// When there is no such collection, or something uses it.
    pub async fn delete_collection(&self, by: &Administrator, name: CollectionName) -> Result<()> {
        by.require(Action::ManageCollections)?;
        self.commit(by.actor(), Kind::DeleteCollection { name })
            .await?;
        Ok(())
    }

    /// # Errors
    /// When the page's beginning is none.
    pub async fn collections(
        &self,
        by: &Administrator,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Collection>> {
        by.require(Action::ReadCollections)?;
        if after.is_some_and(|after| after.contains(char::is_control)) {
            return Err(no_page());
        }
        Ok(self.0.store.collections(after, limit).await?)
    }

    /// # Errors
    /// When there is no such collection.
    pub async fn collection(
        &self,
        by: &Administrator,
        name: &CollectionName,
    ) -> Result<Collection> {
        by.require(Action::ReadCollections)?;
        let found = self.0.store.collection(name).await?;
        found.ok_or_else(|| Error::NotFound(format!("there is no collection `{name}`")))
    }

    /// # Errors
    /// When there is no such collection, or the page's beginning is none.
    pub async fn members(
        &self,
        by: &Administrator,
        name: &CollectionName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Device>> {
        by.require(Action::ReadCollections)?;
        by.require(Action::ReadDevices)?;
        self.collection(by, name).await?;
        let after = after
            .map(|after| after.parse().map_err(|_| no_page()))
            .transpose()?;
        let mut page = self.0.store.members(name, after, limit).await?;
        page.items
            .iter_mut()
            .for_each(|device| self.add_last_seen(device));
        Ok(page)
    }

    /// Returns how many became members: those that were members already do not count.
    ///
    /// # Errors
    /// When there is no such collection, or one of the devices is not there: then none was added.
    pub async fn add_members(
        &self,
        by: &Administrator,
        collection: CollectionName,
        devices: Vec<DeviceId>,
    ) -> Result<u64> {
        by.require(Action::ManageCollections)?;
        check_number(&devices)?;
        let kind = Kind::AddMembers {
            collection,
            devices,
        };
        Ok(changed(&self.commit(by.actor(), kind).await?))
    }

    /// Returns how many were members.
    ///
    /// # Errors
    /// When there is no such collection.
    pub async fn remove_members(
        &self,
        by: &Administrator,
        collection: CollectionName,
        devices: Vec<DeviceId>,
    ) -> Result<u64> {
        by.require(Action::ManageCollections)?;
        check_number(&devices)?;
        let kind = Kind::RemoveMembers {
            collection,
            devices,
        };
        Ok(changed(&self.commit(by.actor(), kind).await?))
    }
}

fn check_number(devices: &[DeviceId]) -> Result<()> {
    match devices.len() {
        1..=MOST_MEMBERS_AT_ONCE => Ok(()),
        _ => Err(Error::Invalid(format!(
            "say 1 to {MOST_MEMBERS_AT_ONCE} devices at once"
        ))),
    }
}

fn changed(applied: &Applied) -> u64 {
    match applied {
        Applied::Members { changed } => *changed,
        _ => 0,
    }
}

fn no_page() -> Error {
    Error::Invalid("that is not where a page begins".to_owned())
}
