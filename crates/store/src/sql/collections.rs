//! Collections and their members. Compiled once for each database: `super` says which.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use async_trait::async_trait;
use domain::{
    BuiltInCollection, CollectionName, CollectionRules, Collections, DeviceId, Filter, Rules,
    Timestamp,
};
use sqlx::{Connection, QueryBuilder, Row};

use super::compliance;
use super::filters::push_filter;
use super::memberships::{
    begin_evaluation, deployed, evaluate_anew, evaluate_at_once, hold, push_member_of, query, rules,
};
use super::reads::{DEVICE, MOST, device, device_id, optional_time, page, word};
use super::writes::{Outcome, no_device};
use super::{
    BEGIN, Database, Db, DbConnection, DbPool, DbRow, LOCK_DEVICE_ROWS, LOCK_ROW, SHARE_ROW,
};
use crate::change::{Applied, Conflict};
use crate::model::{Collection, CollectionPreview, Device, MembershipWork, Page};
use crate::{ReadCollections, Unavailable};

type Result<T> = std::result::Result<T, Unavailable>;

/// A page of collections is shorter than others: each counts the devices that it names.
/// Collections that a page lists.
const MOST_LISTED: u32 = 100;
/// Collections of a site: they are looked at together.
const MOST_COLLECTIONS: usize = 1_000;

const COLLECTION: &str = "SELECT c.id, c.name, c.created_at, c.query, l.name AS limited_to, \
     COALESCE(n.members, 0) AS members, e.reached, \
     (SELECT COUNT(*) FROM collection_direct t WHERE t.collection = c.id) AS named \
     FROM collection c LEFT JOIN collection l ON l.id = c.limited_to \
     LEFT JOIN membership_count n ON n.collection = c.id \
     LEFT JOIN membership_evaluation e ON e.collection = c.id";

/// Of the collections `above`, with those whose members depend on theirs: whether one is used by a
/// deployment, or by an exemption in force.
const AIMS: &str = " UNION SELECT e.collection FROM above a JOIN \
     (SELECT id AS collection, limited_to AS other FROM collection WHERE limited_to IS NOT NULL \
     UNION ALL SELECT collection, other FROM collection_other) e ON e.other = a.id) \
     SELECT 1 AS used FROM above a JOIN deployment d ON d.collection = a.id \
     UNION ALL SELECT 1 AS used FROM above a JOIN exemption x ON x.collection = a.id \
     WHERE x.ended_at IS NULL LIMIT 1";

#[async_trait]
impl ReadCollections for Database {
    async fn collection(&self, name: &CollectionName) -> Result<Option<Collection>> {
        let mut query = QueryBuilder::<Db>::new(COLLECTION);
        query.push(" WHERE c.name = ").push_bind(name.to_string());
        let rows = query.build().fetch_all(&self.readers).await?;
        Ok(self.with_others(rows).await?.pop())
    }

    async fn collections(&self, after: Option<&str>, limit: u32) -> Result<Page<Collection>> {
        let limit = limit.min(MOST_LISTED);
        let mut query = QueryBuilder::<Db>::new(COLLECTION);
        query
            .push(" WHERE c.name > ")
            .push_bind(after.unwrap_or("").to_owned());
        query
            .push(" ORDER BY c.name LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        let full = rows.len() >= limit as usize;
        let items = self.with_others(rows).await?;
        let next = items
            .last()
            .filter(|_| full)
            .map(|last| last.name.to_string());
        Ok(Page { items, next })
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

    async fn preview(
        &self,
        filter: &Filter,
        limited_to: &CollectionName,
        at: Timestamp,
        limit: u32,
    ) -> Result<Option<CollectionPreview>> {
        let row = sqlx::query("SELECT id FROM collection WHERE name = $1")
            .bind(limited_to.as_str())
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let within: i64 = row.try_get("id")?;
        let push = |query: &mut QueryBuilder<Db>| {
            query.push(" WHERE d.state <> 'deleted' AND ");
            push_member_of(query, &[within]);
            query.push(" AND ");
            push_filter(query, filter, at);
        };
        let mut query = QueryBuilder::<Db>::new("SELECT COUNT(*) AS n FROM device d");
        push(&mut query);
        let row = query.build().fetch_one(&self.readers).await?;
        let devices = row.try_get("n")?;
        let mut query = QueryBuilder::<Db>::new(DEVICE);
        push(&mut query);
        query
            .push(" ORDER BY d.host_name, d.id LIMIT ")
            .push_bind(i64::from(limit.min(MOST)));
        let rows = query.build().fetch_all(&self.readers).await?;
        let first = rows.into_iter().map(device).collect::<Result<_>>()?;
        Ok(Some(CollectionPreview { devices, first }))
    }

    async fn collection_aims(&self, name: &CollectionName) -> Result<bool> {
        let mut query =
            QueryBuilder::<Db>::new("WITH RECURSIVE above (id) AS (SELECT id FROM collection ");
        query.push("WHERE name = ").push_bind(name.to_string());
        let found = query.push(AIMS).build().fetch_optional(&self.readers);
        Ok(found.await?.is_some())
    }

    async fn named_device_aims(&self, device: DeviceId) -> Result<bool> {
        let mut query = QueryBuilder::<Db>::new(
            "WITH RECURSIVE above (id) AS (SELECT collection FROM collection_direct ",
        );
        query
            .push("WHERE device = ")
            .push_bind(device.as_bytes().to_vec());
        let found = query.push(AIMS).build().fetch_optional(&self.readers);
        Ok(found.await?.is_some())
    }

    async fn membership_work(&self) -> Result<MembershipWork> {
        let sql = "SELECT at, CASE WHEN EXISTS (SELECT 1 FROM membership_due) THEN 1 ELSE 0 END AS due, \
             CASE WHEN EXISTS (SELECT 1 FROM membership_evaluation) THEN 1 ELSE 0 END AS waiting \
             FROM membership_time";
        let row = sqlx::query(sql).fetch_one(&self.readers).await?;
        Ok(MembershipWork {
            swept_until: super::reads::time(&row, "at")?,
            devices: row.try_get::<i32, _>("due")? == 1,
            collections: row.try_get::<i32, _>("waiting")? == 1,
        })
    }
}

impl Database {
    /// Reads collections, and in one statement the others that their rules name.
    async fn with_others(&self, rows: Vec<DbRow>) -> Result<Vec<Collection>> {
        let mut found = Vec::with_capacity(rows.len());
        let mut places = BTreeMap::new();
        for row in rows {
            places.insert(row.try_get::<i64, _>("id")?, found.len());
            found.push(collection(&row)?);
        }
        if found.is_empty() {
            return Ok(found);
        }
        let mut query = QueryBuilder::<Db>::new(
            "SELECT x.collection, x.includes, o.name FROM collection_other x \
             JOIN collection o ON o.id = x.other WHERE x.collection IN (",
        );
        let mut list = query.separated(", ");
        for id in places.keys() {
            list.push_bind(*id);
        }
        query.push(")");
        for row in &query.build().fetch_all(&self.readers).await? {
            let place = places.get(&row.try_get("collection")?);
            let Some(found) = place.and_then(|place| found.get_mut(*place)) else {
                continue;
            };
            let name = word(row, "name")?;
            match row.try_get::<i64, _>("includes")? {
                1 => found.include.insert(name),
                _ => found.exclude.insert(name),
            };
        }
        Ok(found)
    }
}

/// Makes the built-ins, and gives them the queries that this program has for them.
pub(super) async fn keep_built_ins(writer: &DbPool) -> Result<()> {
    let mut connection = writer.acquire().await?;
    let mut db = connection.begin_with(BEGIN).await?;
    let mut held = QueryBuilder::<Db>::new("SELECT at FROM membership_time WHERE one = 1");
    held.push(LOCK_ROW).build().fetch_one(&mut *db).await?;
    for built_in in BuiltInCollection::ALL {
        let limited_to = match built_in.limited_to() {
            Some(limit) => id(&mut db, &limit.name(), "").await?,
            None => None,
        };
        let sql = "INSERT INTO collection (name, limited_to, query) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET limited_to = excluded.limited_to, \
             query = excluded.query, created_at = NULL \
             WHERE collection.query IS DISTINCT FROM excluded.query \
             OR collection.limited_to IS DISTINCT FROM excluded.limited_to \
             RETURNING id";
        let changed = sqlx::query(sql)
            .bind(built_in.word())
            .bind(limited_to)
            .bind(built_in.query())
            .fetch_optional(&mut *db)
            .await?;
        if let Some(row) = changed {
            evaluate_anew(&mut db, row.try_get("id")?).await?;
        }
    }
    db.commit().await?;
    Ok(())
}

pub(super) async fn create(
    db: &mut DbConnection,
    name: &CollectionName,
    rules: &CollectionRules,
    at: Timestamp,
) -> Result<Outcome> {
    hold(db, at).await?;
    if id(db, name, "").await?.is_some() {
        return Ok(Err(Conflict::Exists(format!("the collection `{name}`"))));
    }
    let new = match resolve(db, name, None, rules).await? {
        Ok(new) => new,
        Err(conflict) => return Ok(Err(conflict)),
    };
    let sql = "INSERT INTO collection (name, created_at) VALUES ($1, $2) RETURNING id";
    let row = sqlx::query(sql)
        .bind(name.as_str())
        .bind(at.as_millisecond())
        .fetch_one(&mut *db)
        .await?;
    let id = row.try_get("id")?;
    write(db, id, &new).await?;
    // Without a query and inclusions it begins empty.
    if new.query.is_some() || !new.include.is_empty() {
        begin_evaluation(db, &[id]).await?;
    }
    Ok(Ok(Applied::Done))
}

pub(super) async fn set_rules(
    db: &mut DbConnection,
    name: &CollectionName,
    rules: &CollectionRules,
    at: Timestamp,
) -> Result<Outcome> {
    hold(db, at).await?;
    let id = match own(db, name, LOCK_ROW).await? {
        Ok(id) => id,
        Err(conflict) => return Ok(Err(conflict)),
    };
    let new = match resolve(db, name, Some(id), rules).await? {
        Ok(new) => new,
        Err(conflict) => return Ok(Err(conflict)),
    };
    if let Some(old) = super::memberships::rules(db).await?.remove(&id)
        && same(&old, &new)
    {
        return Ok(Ok(Applied::Unchanged));
    }
    write(db, id, &new).await?;
    evaluate_anew(db, id).await?;
    Ok(Ok(Applied::Done))
}

/// Rules with the numbers of the collections that they name. Refused when one is not there, or when
/// members would depend on themselves.
async fn resolve(
    db: &mut DbConnection,
    name: &CollectionName,
    of: Option<i64>,
    given: &CollectionRules,
) -> Result<std::result::Result<Rules<i64>, Conflict>> {
    let mut numbers = BTreeMap::new();
    let others = given.include.iter().chain(&given.exclude);
    for other in others.chain([&given.limited_to]) {
        match id(db, other, "").await? {
            Some(id) => numbers.insert(other, id),
            // Of itself the circle tells more, where it is there.
            None => return Ok(Err(no_collection(other))),
        };
    }
    for baseline in given.query.iter().flat_map(Filter::baselines) {
        let found = sqlx::query("SELECT id FROM baseline WHERE name = $1")
            .bind(baseline.as_str())
            .fetch_optional(&mut *db)
            .await?;
        if found.is_none() {
            return Ok(Err(Conflict::NotFound(format!("baseline `{baseline}`"))));
        }
    }
    let of_names = |names: &BTreeSet<CollectionName>| {
        names
            .iter()
            .filter_map(|name| numbers.get(name).copied())
            .collect()
    };
    let new = Rules {
        limited_to: numbers.get(&given.limited_to).copied(),
        query: given.query.clone(),
        include: of_names(&given.include),
        exclude: of_names(&given.exclude),
    };
    let mut all = rules(db).await?;
    // No collection has a number below 1.
    let number = of.unwrap_or(0);
    all.insert(number, new.clone());
    if all.len() > MOST_COLLECTIONS {
        return Ok(Err(Conflict::TooMany(
            MOST_COLLECTIONS as i64,
            "collections",
        )));
    }
    let deployed = deployed(db).await?;
    let collections = match Collections::new(all, deployed) {
        Ok(collections) => collections,
        Err(circle) => return Ok(Err(closed(db, circle, Some((number, name))).await?)),
    };
    Ok(match exempt_by_compliance(db, &collections).await? {
        None => Ok(new),
        Some(refused) => Err(refused),
    })
}

/// An exemption of a collection whose members are chosen by how they comply: who is exempt complies, and
/// leaves the collection, is not exempt any more, does not comply, and so on.
async fn exempt_by_compliance(
    db: &mut DbConnection,
    collections: &Collections<i64>,
) -> Result<Option<Conflict>> {
    let chosen = collections.chosen_by_compliance();
    if chosen.is_empty() {
        return Ok(None);
    }
    let sql = "SELECT e.number, e.collection, g.name FROM exemption e \
         JOIN collection g ON g.id = e.collection WHERE e.ended_at IS NULL ORDER BY e.number";
    for row in sqlx::query(sql).fetch_all(db).await? {
        if chosen.contains(&row.try_get("collection")?) {
            let name = word(&row, "name")?;
            return Ok(Some(Conflict::ExemptByCompliance(
                name,
                row.try_get("number")?,
            )));
        }
    }
    Ok(None)
}

/// Why a collection cannot have an exemption that was just written.
pub(super) async fn refuse_exemption(db: &mut DbConnection) -> Result<Option<Conflict>> {
    let collections = super::memberships::collections(db).await?;
    exempt_by_compliance(db, &collections).await
}

/// Names the collections of a circle. `new` has no row yet.
async fn closed(
    db: &mut DbConnection,
    circle: domain::Circle<i64>,
    new: Option<(i64, &CollectionName)>,
) -> Result<Conflict> {
    let mut path = Vec::with_capacity(circle.path.len());
    for number in circle.path {
        match new {
            Some((own, name)) if own == number => path.push(name.clone()),
            _ => {
                let row = sqlx::query("SELECT name FROM collection WHERE id = $1")
                    .bind(number)
                    .fetch_one(&mut *db)
                    .await?;
                path.push(word(&row, "name")?);
            }
        }
    }
    Ok(match circle.baseline {
        None => Conflict::CollectionCircle(path),
        Some(baseline) => Conflict::ComplianceCircle { baseline, path },
    })
}

/// Why a baseline cannot be deployed to a collection: its members would be chosen by what that
/// deployment finds out.
pub(super) async fn refuse_deployment(
    db: &mut DbConnection,
    baseline: &domain::BaselineName,
    collection: i64,
) -> Result<Option<Conflict>> {
    let mut all = deployed(db).await?;
    all.push(domain::Deployed {
        deployment: 0,
        baseline: baseline.clone(),
        collection,
    });
    let rules = rules(db).await?;
    match Collections::new(rules, all) {
        Ok(_) => Ok(None),
        Err(circle) => closed(db, circle, None).await.map(Some),
    }
}

async fn write(db: &mut DbConnection, id: i64, new: &Rules<i64>) -> Result<()> {
    sqlx::query("UPDATE collection SET limited_to = $2, query = $3 WHERE id = $1")
        .bind(id)
        .bind(new.limited_to)
        .bind(new.query.as_ref().map(ToString::to_string))
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM collection_other WHERE collection = $1")
        .bind(id)
        .execute(&mut *db)
        .await?;
    let included = new.include.iter().map(|other| (other, 1_i64));
    let excluded = new.exclude.iter().map(|other| (other, 0));
    for (other, includes) in included.chain(excluded) {
        let sql = "INSERT INTO collection_other (collection, other, includes) VALUES ($1, $2, $3)";
        sqlx::query(sql)
            .bind(id)
            .bind(*other)
            .bind(includes)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

fn same(a: &Rules<i64>, b: &Rules<i64>) -> bool {
    let set = |numbers: &[i64]| numbers.iter().copied().collect::<BTreeSet<_>>();
    a.limited_to == b.limited_to
        && a.query == b.query
        && set(&a.include) == set(&b.include)
        && set(&a.exclude) == set(&b.exclude)
}

/// Its rules end at once; its members are taken out of the records by and by.
pub(super) async fn delete(
    db: &mut DbConnection,
    name: &CollectionName,
    at: Timestamp,
) -> Result<Outcome> {
    hold(db, at).await?;
    let id = match own(db, name, LOCK_ROW).await? {
        Ok(id) => id,
        Err(conflict) => return Ok(Err(conflict)),
    };
    // The row is locked: no order that names it is on its way.
    let sql = "SELECT number FROM renewal_order WHERE collection = $1 ORDER BY number LIMIT 1";
    let user = sqlx::query(sql).bind(id).fetch_optional(&mut *db).await?;
    if let Some(row) = user {
        return Ok(Err(Conflict::UsedByRenewalWindow(row.try_get("number")?)));
    }
    if let Some(user) = compliance::user_of_collection(db, id).await? {
        return Ok(Err(user));
    }
    let sql = "SELECT u.name FROM collection u WHERE u.limited_to = $1 \
         UNION SELECT u.name FROM collection_other x JOIN collection u ON u.id = x.collection \
         WHERE x.other = $1 ORDER BY name LIMIT 1";
    let user = sqlx::query(sql).bind(id).fetch_optional(&mut *db).await?;
    if let Some(row) = user {
        return Ok(Err(Conflict::UsedByCollection(word(&row, "name")?)));
    }
    for sql in [
        "DELETE FROM collection_other WHERE collection = $1",
        "DELETE FROM collection WHERE id = $1",
    ] {
        sqlx::query(sql).bind(id).execute(&mut *db).await?;
    }
    begin_evaluation(db, &[id]).await?;
    Ok(Ok(Applied::Done))
}

pub(super) async fn add(
    db: &mut DbConnection,
    name: &CollectionName,
    devices: &[DeviceId],
    at: Timestamp,
) -> Result<Outcome> {
    let held = hold(db, at).await?;
    let id = match own(db, name, SHARE_ROW).await? {
        Ok(id) => id,
        Err(conflict) => return Ok(Err(conflict)),
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
    let mut query =
        QueryBuilder::<Db>::new("INSERT INTO collection_direct (collection, device) SELECT ");
    query
        .push_bind(id)
        .push(", d.id FROM device d WHERE d.id IN (");
    push_devices(&mut query, devices);
    query.push(") ON CONFLICT DO NOTHING");
    let named = query.build().execute(&mut *db).await?.rows_affected();
    if named == 0 {
        return Ok(Ok(Applied::Unchanged));
    }
    evaluate_at_once(db, devices, held, at).await?;
    let mut query =
        QueryBuilder::<Db>::new("SELECT COUNT(*) AS n FROM membership WHERE collection = ");
    query.push_bind(id).push(" AND device IN (");
    push_devices(&mut query, devices);
    query.push(")");
    let row = query.build().fetch_one(db).await?;
    Ok(Ok(Applied::Members {
        changed: named,
        outside: known.len() as u64 - u64::try_from(row.try_get::<i64, _>("n")?).unwrap_or(0),
    }))
}

pub(super) async fn remove(
    db: &mut DbConnection,
    name: &CollectionName,
    devices: &[DeviceId],
    at: Timestamp,
) -> Result<Outcome> {
    let held = hold(db, at).await?;
    let id = match own(db, name, SHARE_ROW).await? {
        Ok(id) => id,
        Err(conflict) => return Ok(Err(conflict)),
    };
    if devices.is_empty() {
        return Ok(Ok(Applied::Unchanged));
    }
    let mut query = QueryBuilder::<Db>::new("DELETE FROM collection_direct WHERE collection = ");
    query.push_bind(id).push(" AND device IN (");
    push_devices(&mut query, devices);
    query.push(")");
    let unnamed = query.build().execute(&mut *db).await?.rows_affected();
    if unnamed == 0 {
        return Ok(Ok(Applied::Unchanged));
    }
    evaluate_at_once(db, devices, held, at).await?;
    Ok(Ok(Applied::Members {
        changed: unnamed,
        outside: 0,
    }))
}

/// The number of a collection that administrators may change.
async fn own(
    db: &mut DbConnection,
    name: &CollectionName,
    lock: &str,
) -> Result<std::result::Result<i64, Conflict>> {
    if BuiltInCollection::ALL
        .iter()
        .any(|built_in| built_in.word() == name.as_str())
    {
        return Ok(Err(Conflict::BuiltIn(name.clone())));
    }
    Ok(id(db, name, lock).await?.ok_or_else(|| no_collection(name)))
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

fn collection(row: &DbRow) -> Result<Collection> {
    let reached: Option<Vec<u8>> = row.try_get("reached")?;
    Ok(Collection {
        name: word(row, "name")?,
        created_at: optional_time(row, "created_at")?,
        members: row.try_get("members")?,
        named: row.try_get("named")?,
        limited_to: row
            .try_get::<Option<String>, _>("limited_to")?
            .map(|name| name.parse().map_err(super::reads::corrupt))
            .transpose()?,
        query: query(row)?,
        include: BTreeSet::new(),
        exclude: BTreeSet::new(),
        evaluated: reached.map(|reached| percent(&reached)),
    })
}

/// Identifiers are random: the one that was reached says how many lie before it.
fn percent(reached: &[u8]) -> u8 {
    let place = match reached {
        [first, second, ..] => u32::from(*first) << 8 | u32::from(*second),
        _ => 0,
    };
    u8::try_from((place * 100) >> 16).unwrap_or(99)
}
