//! Configuration items: what administrators want to know of clients, in revisions that never change.

use domain::Action;
use domain::compliance::{ItemContent, ItemName, line_difference};
use store::{Applied, Item, ItemRevision, Kind, ObjectChange, RevisionSummary};

use crate::{Administrator, Error, Page, Result, Site};

/// The written form of one revision, in bytes: what it is as JSON.
pub const MOST_ITEM_BYTES: usize = 2 << 20;

/// What changed between two revisions.
#[derive(Debug, Clone)]
pub struct ItemDifference {
    pub from: u32,
    pub to: u32,
    /// Lines that went begin with `-`, lines that came with `+`.
    pub text: String,
}

impl Site {
    /// # Errors
    /// When the name is taken, or there are too many.
    pub async fn create_item(
        &self,
        by: &Administrator,
        name: ItemName,
        content: ItemContent,
    ) -> Result<ItemRevision> {
        by.require(Action::ManageCompliance)?;
        check(&content)?;
        let change = ObjectChange::CreateItem {
            name: name.clone(),
            content,
        };
        self.commit(by.actor(), Kind::Object(change)).await?;
        self.revision_of(&name, None).await
    }

    /// Makes a new revision, unless the latest one says the same. `base`: the revision that the
    /// administrator saw. Returns the latest revision, and whether it is new.
    ///
    /// # Errors
    /// When there is no such item, or somebody else changed it meanwhile.
    pub async fn revise_item(
        &self,
        by: &Administrator,
        name: ItemName,
        content: ItemContent,
        base: Option<u32>,
    ) -> Result<(ItemRevision, bool)> {
        by.require(Action::ManageCompliance)?;
        check(&content)?;
        let change = ObjectChange::ReviseItem {
            name: name.clone(),
            content,
            base,
        };
        let applied = self.commit(by.actor(), Kind::Object(change)).await?;
        let latest = self.revision_of(&name, None).await?;
        Ok((latest, applied != Applied::Unchanged))
    }

    /// # Errors
    /// When there is no such item, or a baseline uses it.
    pub async fn delete_item(&self, by: &Administrator, name: ItemName) -> Result<()> {
        by.require(Action::ManageCompliance)?;
        let change = ObjectChange::DeleteItem { name };
        self.commit(by.actor(), Kind::Object(change)).await?;
        Ok(())
    }

    /// # Errors
    /// When the page's beginning is none.
    pub async fn items(
        &self,
        by: &Administrator,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Item>> {
        by.require(Action::ReadCompliance)?;
        let after = name_page(after)?;
        Ok(self.0.store.items(after, limit).await?)
    }

    /// A revision of an item, or the latest.
    ///
    /// # Errors
    /// When there is none.
    pub async fn item(
        &self,
        by: &Administrator,
        name: &ItemName,
        revision: Option<u32>,
    ) -> Result<ItemRevision> {
        by.require(Action::ReadCompliance)?;
        self.revision_of(name, revision).await
    }

    /// An item's revisions, newest first.
    ///
    /// # Errors
    /// When there is no such item, or the page's beginning is none.
    pub async fn item_history(
        &self,
        by: &Administrator,
        name: &ItemName,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Page<RevisionSummary>> {
        by.require(Action::ReadCompliance)?;
        let before = before.map(str::parse).transpose().map_err(|_| no_page())?;
        let page = self.0.store.item_history(name, before, limit).await?;
        if page.items.is_empty() && before.is_none() {
            return Err(no_item(name));
        }
        Ok(page)
    }

    /// What changed between two revisions.
    ///
    /// # Errors
    /// When one of them is not there.
    pub async fn item_difference(
        &self,
        by: &Administrator,
        name: &ItemName,
        from: u32,
        to: u32,
    ) -> Result<ItemDifference> {
        by.require(Action::ReadCompliance)?;
        let old = self.revision_of(name, Some(from)).await?;
        let new = self.revision_of(name, Some(to)).await?;
        let text = line_difference(&old.content.written(), &new.content.written());
        Ok(ItemDifference { from, to, text })
    }

    pub(crate) async fn revision_of(
        &self,
        name: &ItemName,
        revision: Option<u32>,
    ) -> Result<ItemRevision> {
        let found = self.0.store.item_revision(name, revision).await?;
        found.ok_or_else(|| match revision {
            None => no_item(name),
            Some(revision) => Error::NotFound(format!(
                "there is no revision {revision} of a configuration item `{name}`"
            )),
        })
    }
}

fn check(content: &ItemContent) -> Result<()> {
    let bytes = serde_json::to_vec(content).expect("plain data").len();
    if bytes > MOST_ITEM_BYTES {
        return Err(Error::TooLarge(format!(
            "the configuration item has {bytes} bytes, and {MOST_ITEM_BYTES} are the most"
        )));
    }
    Ok(())
}

/// Where a page of names begins: after a name.
pub(crate) fn name_page(after: Option<&str>) -> Result<Option<&str>> {
    if after.is_some_and(|after| after.contains(char::is_control)) {
        return Err(no_page());
    }
    Ok(after)
}

pub(crate) fn no_page() -> Error {
    Error::Invalid("that is not where a page begins".to_owned())
}

fn no_item(name: &ItemName) -> Error {
    Error::NotFound(format!("there is no configuration item `{name}`"))
}
