//! Collections: groups of devices that administrators make.

use domain::{Action, CollectionName, CollectionRules, DeviceId, Filter};
use store::{Applied, Collection, CollectionPreview, Device, Kind};

use crate::{Administrator, Error, Page, Result, Site};

/// Devices that one request can add to a collection, or remove from it: each stands in the audit
/// entry.
pub const MOST_MEMBERS_AT_ONCE: usize = 1_000;

/// Devices that a preview shows.
const PREVIEWED: u32 = 10;

/// What naming devices did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembersChanged {
    /// How many are named now, or are not any more.
    pub changed: u64,
    /// How many of the named ones are no members all the same: the limiting collection does not have
    /// them, or an excluded one does.
    pub outside: u64,
}

impl Site {
    /// Its members are found in the background.
    ///
    /// # Errors
    /// When the name is taken, or the rules name what is not there or make a circle.
    pub async fn create_collection(
        &self,
        by: &Administrator,
        name: CollectionName,
        rules: CollectionRules,
    ) -> Result<Collection> {
        by.require(Action::ManageCollections)?;
        let kind = Kind::CreateCollection {
            name: name.clone(),
            rules,
        };
        self.commit(by.actor(), kind).await?;
        self.found(&name).await
    }

    /// Replaces its rules; the devices that it names stay. Its members are found in the background.
    ///
    /// # Errors
    /// When there is no such collection, it is built in, or the rules name what is not there or make a
    /// circle.
    pub async fn set_collection_rules(
        &self,
        by: &Administrator,
        name: CollectionName,
        rules: CollectionRules,
    ) -> Result<Collection> {
        by.require(Action::ManageCollections)?;
        self.require_aim(by, &name).await?;
        let kind = Kind::SetCollectionRules {
            name: name.clone(),
            rules,
        };
        self.commit(by.actor(), kind).await?;
        self.found(&name).await
    }

    /// Whom a query would mean now, without saving it. Looks at every device.
    ///
    /// # Errors
    /// When there is no such limiting collection.
    pub async fn preview_collection(
        &self,
        by: &Administrator,
        query: &Filter,
        limited_to: &CollectionName,
    ) -> Result<CollectionPreview> {
        by.require(Action::ReadCollections)?;
        by.require(Action::ReadDevices)?;
        let store = &self.0.store;
        let found = store
            .preview(query, limited_to, self.now(), PREVIEWED)
            .await?;
        let mut preview = found.ok_or_else(|| no_collection(limited_to))?;
        preview
            .first
            .iter_mut()
            .for_each(|device| self.add_last_seen(device));
        Ok(preview)
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
        self.found(name).await
    }

    /// Who says which devices are in a collection that something is deployed to says what runs as root on
    /// them.
    async fn require_aim(&self, by: &Administrator, name: &CollectionName) -> Result<()> {
        if self.0.store.collection_aims(name).await? {
            by.require(Action::Deploy)?;
        }
        Ok(())
    }

    async fn found(&self, name: &CollectionName) -> Result<Collection> {
        let found = self.0.store.collection(name).await?;
        found.ok_or_else(|| no_collection(name))
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

    /// Names devices as members. Those that were named already do not count.
    ///
    /// # Errors
    /// When there is no such collection, or one of the devices is not there: then none was added.
    pub async fn add_members(
        &self,
        by: &Administrator,
        collection: CollectionName,
        devices: Vec<DeviceId>,
    ) -> Result<MembersChanged> {
        by.require(Action::ManageCollections)?;
        self.require_aim(by, &collection).await?;
        check_number(&devices)?;
        let kind = Kind::AddMembers {
            collection,
            devices,
        };
        Ok(changed(&self.commit(by.actor(), kind).await?))
    }

    /// Names devices as members no more. A query or an included collection may have them all the same.
    ///
    /// # Errors
    /// When there is no such collection.
    pub async fn remove_members(
        &self,
        by: &Administrator,
        collection: CollectionName,
        devices: Vec<DeviceId>,
    ) -> Result<MembersChanged> {
        by.require(Action::ManageCollections)?;
        self.require_aim(by, &collection).await?;
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

fn changed(applied: &Applied) -> MembersChanged {
    let (changed, outside) = match applied {
        Applied::Members { changed, outside } => (*changed, *outside),
        _ => (0, 0),
    };
    MembersChanged { changed, outside }
}

fn no_collection(name: &CollectionName) -> Error {
    Error::NotFound(format!("there is no collection `{name}`"))
}

fn no_page() -> Error {
    Error::Invalid("that is not where a page begins".to_owned())
}
