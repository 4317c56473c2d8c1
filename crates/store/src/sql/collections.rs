//! Collections and their members. Compiled once for each database: `super` says which.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use domain::{CollectionName, DeviceId, Timestamp};
use sqlx::{QueryBuilder, Row};

use super::deployment_states::{entered, left};
use super::reads::{DEVICE, MOST, device, device_id, page, time, word};
use super::writes::{Outcome, no_device, one_row};
use super::{Database, Db, DbConnection, DbRow, LOCK_DEVICE_ROWS, LOCK_ROW, SHARE_ROW};
use crate::change::{Applied, Conflict};
use crate::model::{Collection, Device, Page};
use crate::{ReadCollections, Unavailable};

type Result<T> = std::result::Result<T, Unavailable>;

/// A page of collections is shorter than others: each counts its members.
const MOST_COLLECTIONS: u32 = 100;

const COLLECTION: &str = "SELECT c.name, c.created_at, \
     COALESCE((SELECT n.members FROM membership_count n WHERE n.collection = c.id), 0) AS members \
     FROM collection c";

#[async_trait]
impl ReadCollections for Database {
    async fn collection(&self, name: &CollectionName) -> Result<Option<Collection>> {
        let mut query = QueryBuilder::<Db>::new(COLLECTION);
        query.push(" WHERE c.name = ").push_bind(name.to_string());
        let row = query.build().fetch_optional(&self.readers).await?;
        row.map(collection).transpose()
    }

    async fn collections(&self, after: Option<&str>, limit: u32) -> Result<Page<Collection>> {
        let limit = limit.min(MOST_COLLECTIONS);
        let mut query = QueryBuilder::<Db>::new(COLLECTION);
        query
            .push(" WHERE c.name > ")
            .push_bind(after.unwrap_or("").to_owned());
        query
            .push(" ORDER BY c.name LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, collection, |found| found.name.to_string())
    }

    async fn members(
        &self,
        collection: &CollectionName,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Page<Device>> {
        let limit = limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(DEVICE);
        query
            .push(
                " JOIN membership m ON m.device = d.id \
                 JOIN collection c ON c.id = m.collection \
                 WHERE d.state <> 'deleted' AND c.name = ",
            )
            .push_bind(collection.to_string());
        if let Some(after) = after {
            query
                .push(" AND m.device > ")
                .push_bind(after.as_bytes().to_vec());
        }
        query
            .push(" ORDER BY m.device LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, device, |device| device.id.to_string())
    }
}

pub(super) async fn create(
    db: &mut DbConnection,
    name: &CollectionName,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "INSERT INTO collection (name, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let done = sqlx::query(sql)
        .bind(name.as_str())
        .bind(at.as_millisecond())
        .execute(db)
        .await?;
    Ok(one_row(done.rows_affected(), || {
        Conflict::Exists(format!("the collection `{name}`"))
    }))
}

pub(super) async fn delete(db: &mut DbConnection, name: &CollectionName) -> Result<Outcome> {
    let Some(id) = id(db, name, LOCK_ROW).await? else {
        return Ok(Err(no_collection(name)));
    };
    // The row is locked: no order that names it is on its way.
    let sql = "SELECT number FROM renewal_order WHERE collection = $1 ORDER BY number LIMIT 1";
    let user = sqlx::query(sql).bind(id).fetch_optional(&mut *db).await?;
    if let Some(row) = user {
        return Ok(Err(Conflict::UsedByRenewalWindow(row.try_get("number")?)));
    }
    for sql in [
        "DELETE FROM membership WHERE collection = $1",
        "DELETE FROM membership_count WHERE collection = $1",
        "DELETE FROM collection WHERE id = $1",
    ] {
        sqlx::query(sql).bind(id).execute(&mut *db).await?;
    }
    Ok(Ok(Applied::Done))
}

pub(super) async fn add(
    db: &mut DbConnection,
    name: &CollectionName,
    devices: &[DeviceId],
    at: Timestamp,
) -> Result<Outcome> {
    let Some(id) = id(db, name, SHARE_ROW).await? else {
        return Ok(Err(no_collection(name)));
    };
    if devices.is_empty() {
        return Ok(Ok(Applied::Unchanged));
    }
    let mut query = QueryBuilder::<Db>::new(
        "SELECT d.id FROM device d WHERE d.state <> 'deleted' AND d.id IN (",
    );
    push_devices(&mut query, devices);
    query.push(")").push(LOCK_DEVICE_ROWS);
    let known: HashSet<DeviceId> = query
        .build()
        .fetch_all(&mut *db)
        .await?
        .iter()
        .map(|row| device_id(row, "id"))
        .collect::<Result<_>>()?;
    if let Some(unknown) = devices.iter().find(|device| !known.contains(device)) {
        return Ok(Err(no_device(*unknown)));
    }
    let mut query = QueryBuilder::<Db>::new("INSERT INTO membership (collection, device) SELECT ");
    query
        .push_bind(id)
        .push(", d.id FROM device d WHERE d.id IN (");
    push_devices(&mut query, devices);
    query.push(")");
    let joined = join(db, query, at).await?;
    Ok(members(joined))
}

pub(super) async fn remove(
    db: &mut DbConnection,
    name: &CollectionName,
    devices: &[DeviceId],
) -> Result<Outcome> {
    let Some(id) = id(db, name, SHARE_ROW).await? else {
        return Ok(Err(no_collection(name)));
    };
    if devices.is_empty() {
        return Ok(Ok(Applied::Unchanged));
    }
    let mut query = QueryBuilder::<Db>::new("DELETE FROM membership WHERE collection = ");
    query.push_bind(id).push(" AND device IN (");
    push_devices(&mut query, devices);
    query.push(")");
    Ok(members(leave(db, query).await?))
}

/// Takes devices out of all collections.
pub(super) async fn leave_all(db: &mut DbConnection, devices: &[DeviceId]) -> Result<()> {
    let mut query = QueryBuilder::<Db>::new("DELETE FROM membership WHERE device IN (");
    push_devices(&mut query, devices);
    query.push(")");
    leave(db, query).await?;
    Ok(())
}

/// Runs an INSERT into `membership`, and does what follows from it. Returns how many became members.
pub(super) async fn join(
    db: &mut DbConnection,
    mut insert: QueryBuilder<Db>,
    at: Timestamp,
) -> Result<u64> {
    insert.push(" ON CONFLICT DO NOTHING RETURNING collection, device");
    let joined = pairs(&insert.build().fetch_all(&mut *db).await?)?;
    count(db, &joined, 1).await?;
    entered(db, &joined, at).await?;
    Ok(joined.len() as u64)
}

/// Runs a DELETE from `membership`, and does what follows from it. Returns how many were members.
async fn leave(db: &mut DbConnection, mut delete: QueryBuilder<Db>) -> Result<u64> {
    delete.push(" RETURNING collection, device");
    let gone = pairs(&delete.build().fetch_all(&mut *db).await?)?;
    count(db, &gone, -1).await?;
    left(db, &gone).await?;
    Ok(gone.len() as u64)
}

fn pairs(rows: &[DbRow]) -> Result<Vec<(i64, DeviceId)>> {
    rows.iter()
        .map(|row| Ok((row.try_get("collection")?, device_id(row, "device")?)))
        .collect()
}

async fn count(db: &mut DbConnection, members: &[(i64, DeviceId)], by: i64) -> Result<()> {
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for (collection, _) in members {
        *counts.entry(*collection).or_default() += by;
    }
    if counts.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Db>::new("INSERT INTO membership_count (collection, members) ");
    query.push_values(counts, |mut row, (collection, members)| {
        row.push_bind(collection).push_bind(members);
    });
    query.push(
        " ON CONFLICT (collection) DO UPDATE \
         SET members = membership_count.members + excluded.members",
    );
    query.build().execute(db).await?;
    Ok(())
}

/// The number of a collection, whose row stays as it is until the transaction's end.
pub(super) async fn id(
    db: &mut DbConnection,
    name: &CollectionName,
    lock: &str,
) -> Result<Option<i64>> {
    let mut query = QueryBuilder::<Db>::new("SELECT id FROM collection WHERE name = ");
    query.push_bind(name.to_string()).push(lock);
    let row = query.build().fetch_optional(db).await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?)
}

pub(super) fn no_collection(name: &CollectionName) -> Conflict {
    Conflict::NotFound(format!("collection `{name}`"))
}

pub(super) fn push_devices(query: &mut QueryBuilder<Db>, devices: &[DeviceId]) {
    let mut list = query.separated(", ");
    for device in devices {
        list.push_bind(device.as_bytes().to_vec());
    }
}

fn members(changed: u64) -> Outcome {
    Ok(if changed == 0 {
        Applied::Unchanged
    } else {
        Applied::Members { changed }
    })
}

fn collection(row: DbRow) -> Result<Collection> {
    Ok(Collection {
        name: word(&row, "name")?,
        created_at: time(&row, "created_at")?,
        members: row.try_get("members")?,
    })
}
