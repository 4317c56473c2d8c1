//! Who is a member of which collection. Compiled once for each database: `super` says which.
//!
//! Memberships are worked out from rules, in two ways. A device that something happened to is due:
//! all collections are evaluated for it, in memory. A collection whose rules changed is evaluated
//! for all devices, in SQL, chunk after chunk. Both hold the row of `membership_time`, which says
//! for which moment memberships hold; a sweep moves it on and makes the devices due whose memberships
//! change by that.

use std::collections::{BTreeMap, BTreeSet};

use domain::filter::{Boundary, DaysField, Subject};
use domain::{
    BaselineName, Collections, ComplianceState, Deployed, DeviceId, Filter, Rules, Timestamp,
};
use sqlx::{QueryBuilder, Row};

use super::collections::push_devices;
use super::deployment_states::{entered, left, lock_devices, share_definitions};
use super::filters::{CERTIFICATE_END, push_filter};
use super::reads::{corrupt, device_id, facts, optional_time, time, word};
use super::writes::Outcome;
use super::{Db, DbConnection, DbRow, LOCK_ROW, LOCK_ROW_UNLESS_TAKEN};
use crate::Unavailable;
use crate::change::{Applied, Evaluated};

type Result<T> = std::result::Result<T, Unavailable>;

/// Devices that one sweep makes due for each boundary, about.
const SWEPT_AT_ONCE: i64 = 5_000;
/// Memberships that one statement names: databases take so many values and no more.
const PAIRS_AT_ONCE: usize = 5_000;
/// A clock behind the moment for which memberships hold by no more than this is another node's. One
/// that is further behind was set back, and the site believes it.
const CLOCKS_DIFFER: i64 = 3_600_000;

/// Puts members into collections. Every row of `membership` comes by this function: `source` pushes a
/// SELECT of collections and devices. What follows from it for deployments is done with it. Returns what
/// was not there before.
pub(super) async fn join(
    db: &mut DbConnection,
    at: Timestamp,
    source: impl FnOnce(&mut QueryBuilder<Db>),
) -> Result<Vec<(i64, DeviceId)>> {
    let mut query = QueryBuilder::<Db>::new("INSERT INTO membership (collection, device) ");
    source(&mut query);
    query.push(" ON CONFLICT DO NOTHING RETURNING collection, device");
    let rows = query.build().fetch_all(&mut *db).await?;
    let joined = pairs(&rows)?;
    changed(db, &joined, 1).await?;
    entered(db, &joined, at).await?;
    Ok(joined)
}

/// Takes members out of collections. Every row of `membership` goes by this function: `condition`
/// pushes what is true for it. Returns what was there.
pub(super) async fn leave(
    db: &mut DbConnection,
    at: Timestamp,
    condition: impl FnOnce(&mut QueryBuilder<Db>),
) -> Result<Vec<(i64, DeviceId)>> {
    let mut query = QueryBuilder::<Db>::new("DELETE FROM membership WHERE ");
    condition(&mut query);
    query.push(" RETURNING collection, device");
    let rows = query.build().fetch_all(&mut *db).await?;
    let gone = pairs(&rows)?;
    changed(db, &gone, -1).await?;
    left(db, &gone, at).await?;
    Ok(gone)
}

fn pairs(rows: &[DbRow]) -> Result<Vec<(i64, DeviceId)>> {
    rows.iter()
        .map(|row| Ok((row.try_get("collection")?, device_id(row, "device")?)))
        .collect()
}

/// What follows from members that came (`by` 1) or went (`by` -1).
async fn changed(db: &mut DbConnection, members: &[(i64, DeviceId)], by: i64) -> Result<()> {
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

/// Something happened to devices: their memberships are worked out soon. Whoever works at one of them
/// just now will see it again.
pub(super) async fn mark_due(
    db: &mut DbConnection,
    devices: impl IntoIterator<Item = DeviceId>,
) -> Result<()> {
    // In one order on every node.
    let devices: BTreeSet<DeviceId> = devices.into_iter().collect();
    if devices.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Db>::new("INSERT INTO membership_due (device) ");
    query.push_values(devices, |mut row, device| {
        row.push_bind(device.as_bytes().to_vec());
    });
    // Not DO NOTHING: that would not lock the row, and a node that has read the devices before this
    // change could take it away.
    query.push(" ON CONFLICT (device) DO UPDATE SET device = excluded.device");
    query.build().execute(db).await?;
    Ok(())
}

/// How a baseline stands on devices changed: where that decides about members, they are due.
pub(super) async fn compliance_changed(
    db: &mut DbConnection,
    devices: impl IntoIterator<Item = DeviceId>,
) -> Result<()> {
    if !is_compliance_asked(db).await? {
        return Ok(());
    }
    match readable_collections(db).await? {
        Some(collections) if collections.asked_deployments().is_empty() => Ok(()),
        _ => mark_due(db, devices).await,
    }
}

/// Whether a query asks for compliance at all, without reading them all: mostly none does.
async fn is_compliance_asked(db: &mut DbConnection) -> Result<bool> {
    let sql = "SELECT 1 AS n FROM collection WHERE query LIKE '%compliance%' LIMIT 1";
    Ok(sqlx::query(sql).fetch_optional(db).await?.is_some())
}

/// A baseline has one deployment more, or one less: the members of collections that ask for it are
/// worked out anew. Called by who holds the right to.
pub(super) async fn deployments_changed(
    db: &mut DbConnection,
    baseline: &BaselineName,
) -> Result<()> {
    let collections = collections(db).await?;
    let asking = collections.iter().filter(|(_, rules)| {
        let query = rules.query.as_ref();
        query.is_some_and(|query| query.baselines().contains(baseline))
    });
    let concerned: BTreeSet<i64> = asking
        .flat_map(|(id, _)| collections.with_dependents(id))
        .collect();
    begin_evaluation(db, &concerned.into_iter().collect::<Vec<_>>()).await
}

/// Takes the right to change rules and memberships until the transaction's end. Returns the moment
/// for which memberships hold, which begins with the first one that asks.
pub(super) async fn hold(db: &mut DbConnection, at: Timestamp) -> Result<Timestamp> {
    let held = hold_with(db, at, LOCK_ROW).await?;
    held.ok_or_else(|| corrupt("membership_time has no row"))
}

async fn hold_with(db: &mut DbConnection, at: Timestamp, lock: &str) -> Result<Option<Timestamp>> {
    let mut query = QueryBuilder::<Db>::new("SELECT at FROM membership_time WHERE one = 1");
    query.push(lock);
    let Some(row) = query.build().fetch_optional(&mut *db).await? else {
        return Ok(None);
    };
    let held = time(&row, "at")?;
    if held != Timestamp::UNIX_EPOCH {
        return Ok(Some(held));
    }
    set_time(db, at.as_millisecond()).await?;
    Ok(Some(at))
}

async fn set_time(db: &mut DbConnection, at: i64) -> Result<()> {
    sqlx::query("UPDATE membership_time SET at = $1 WHERE one = 1")
        .bind(at)
        .execute(db)
        .await?;
    Ok(())
}

/// All collections with their rules.
pub(super) async fn collections(db: &mut DbConnection) -> Result<Collections<i64>> {
    let rules = rules(db).await?;
    let deployed = deployed(db).await?;
    // Rules that make a circle are refused when they are given.
    Collections::new(rules, deployed).map_err(|circle| {
        corrupt(format!(
            "collections depend on each other: {:?}",
            circle.path
        ))
    })
}

/// The same; none when a node with a newer program wrote a query that this one cannot read. Then this
/// node leaves memberships to that one: an error would fail the changes beside.
async fn readable_collections(db: &mut DbConnection) -> Result<Option<Collections<i64>>> {
    match collections(db).await {
        Err(Unavailable::Corrupt(why)) => {
            tracing::error!(event = "collections-not-readable", why);
            Ok(None)
        }
        other => other.map(Some),
    }
}

pub(super) async fn rules(db: &mut DbConnection) -> Result<BTreeMap<i64, Rules<i64>>> {
    let mut found = BTreeMap::new();
    let rows = sqlx::query("SELECT id, limited_to, query FROM collection")
        .fetch_all(&mut *db)
        .await?;
    for row in &rows {
        let rules = Rules {
            limited_to: row.try_get("limited_to")?,
            query: query(row)?,
            include: Vec::new(),
            exclude: Vec::new(),
        };
        found.insert(row.try_get("id")?, rules);
    }
    let rows = sqlx::query("SELECT collection, other, includes FROM collection_other")
        .fetch_all(db)
        .await?;
    for row in &rows {
        let Some(rules) = found.get_mut(&row.try_get("collection")?) else {
            continue;
        };
        match row.try_get::<i64, _>("includes")? {
            1 => rules.include.push(row.try_get("other")?),
            _ => rules.exclude.push(row.try_get("other")?),
        }
    }
    Ok(found)
}

pub(super) fn query(row: &DbRow) -> Result<Option<Filter>> {
    let text: Option<String> = row.try_get("query")?;
    text.map(|text| text.parse().map_err(corrupt)).transpose()
}

pub(super) async fn deployed(db: &mut DbConnection) -> Result<Vec<Deployed<i64>>> {
    let sql = "SELECT p.number, b.name, p.collection FROM deployment p \
         JOIN baseline b ON b.id = p.baseline";
    let rows = sqlx::query(sql).fetch_all(db).await?;
    rows.iter()
        .map(|row| {
            Ok(Deployed {
                deployment: row.try_get("number")?,
                baseline: word(row, "name")?,
                collection: row.try_get("collection")?,
            })
        })
        .collect()
}

/// Works out the memberships of devices in all collections, now and not by and by.
/// `held`: the moment for which memberships hold.
pub(super) async fn evaluate_at_once(
    db: &mut DbConnection,
    devices: &[DeviceId],
    held: Timestamp,
    at: Timestamp,
) -> Result<()> {
    match readable_collections(db).await? {
        Some(collections) => evaluate_devices(db, &collections, devices, held, at)
            .await
            .map(drop),
        None => mark_due(db, devices.iter().copied()).await,
    }
}

async fn evaluate_devices(
    db: &mut DbConnection,
    collections: &Collections<i64>,
    devices: &[DeviceId],
    held: Timestamp,
    at: Timestamp,
) -> Result<Evaluated> {
    let mut evaluated = Evaluated {
        looked_at: devices.len() as u64,
        ..Evaluated::default()
    };
    if devices.is_empty() {
        return Ok(evaluated);
    }
    let subjects = subjects(db, devices).await?;
    let named = of_devices(db, "collection_direct", devices).await?;
    let states = states(db, devices, &collections.asked_deployments(), held).await?;
    let members = of_devices(db, "membership", devices).await?;
    let known: BTreeSet<i64> = collections.iter().map(|(id, _)| id).collect();
    let (none, nothing) = (BTreeSet::new(), BTreeMap::new());
    let (mut join_these, mut leave_these) = (Vec::new(), Vec::new());
    for device in devices {
        let is = members.get(device).unwrap_or(&none);
        // A record that is gone is in no collection.
        let shall_be = match subjects.get(device) {
            Some(subject) => collections.of_device(
                subject.clone(),
                named.get(device).unwrap_or(&none),
                states.get(device).unwrap_or(&nothing),
                held,
            ),
            None => BTreeSet::new(),
        };
        join_these.extend(
            shall_be
                .difference(is)
                .map(|collection| (*collection, *device)),
        );
        // Members of collections that are gone are taken out by and by.
        let leaving = is.difference(&shall_be).filter(|id| known.contains(id));
        leave_these.extend(leaving.map(|collection| (*collection, *device)));
    }
    for these in join_these.chunks(PAIRS_AT_ONCE) {
        let joined = join(db, at, |query| {
            query.push("SELECT v.column1, v.column2 FROM (");
            push_pairs(query, these);
            query.push(") AS v WHERE TRUE");
        })
        .await?;
        evaluated.joined += joined.len() as u64;
    }
    for these in leave_these.chunks(PAIRS_AT_ONCE) {
        let left = leave(db, at, |query| {
            query.push("(collection, device) IN (SELECT v.column1, v.column2 FROM (");
            push_pairs(query, these);
            query.push(") AS v)");
        })
        .await?;
        evaluated.left += left.len() as u64;
    }
    Ok(evaluated)
}

fn push_pairs(query: &mut QueryBuilder<Db>, pairs: &[(i64, DeviceId)]) {
    query.push_values(pairs, |mut row, (collection, device)| {
        row.push_bind(*collection)
            .push_bind(device.as_bytes().to_vec());
    });
}

async fn subjects(
    db: &mut DbConnection,
    devices: &[DeviceId],
) -> Result<BTreeMap<DeviceId, Subject>> {
    let mut query = QueryBuilder::<Db>::default();
    push_subjects(&mut query, devices);
    let rows = query.build().fetch_all(db).await?;
    rows.iter()
        .map(|row| {
            let subject = Subject {
                state: word(row, "state")?,
                user_name: row.try_get("user_name")?,
                facts: facts(row)?,
                enrolled_at: time(row, "enrolled_at")?,
                last_seen: optional_time(row, "last_seen")?,
                certificate_end: optional_time(row, "certificate_end")?,
                compliance: BTreeMap::new(),
            };
            Ok((device_id(row, "id")?, subject))
        })
        .collect()
}

fn push_subjects(query: &mut QueryBuilder<Db>, devices: &[DeviceId]) {
    query
        .push("SELECT d.id, d.state, d.user_name, d.facts, d.enrolled_at, s.at AS last_seen, ")
        .push(CERTIFICATE_END)
        .push(
            " AS certificate_end FROM device d LEFT JOIN device_seen s ON s.device = d.id \
             WHERE d.id IN (",
        );
    push_devices(query, devices);
    query.push(")");
}

/// The collections that devices have in a table, by device.
async fn of_devices(
    db: &mut DbConnection,
    table: &str,
    devices: &[DeviceId],
) -> Result<BTreeMap<DeviceId, BTreeSet<i64>>> {
    let mut query = QueryBuilder::<Db>::default();
    push_of_devices(&mut query, table, devices);
    let rows = query.build().fetch_all(db).await?;
    let mut found: BTreeMap<DeviceId, BTreeSet<i64>> = BTreeMap::new();
    for (collection, device) in pairs(&rows)? {
        found.entry(device).or_default().insert(collection);
    }
    Ok(found)
}

fn push_of_devices(query: &mut QueryBuilder<Db>, table: &str, devices: &[DeviceId]) {
    query.push("SELECT collection, device FROM ").push(table);
    query.push(" WHERE device IN (");
    push_devices(query, devices);
    query.push(")");
}

/// How deployments stand on devices: nothing of those that evaluated too long ago.
async fn states(
    db: &mut DbConnection,
    devices: &[DeviceId],
    deployments: &[i64],
    held: Timestamp,
) -> Result<BTreeMap<DeviceId, BTreeMap<i64, ComplianceState>>> {
    let mut found: BTreeMap<DeviceId, BTreeMap<i64, ComplianceState>> = BTreeMap::new();
    if deployments.is_empty() {
        return Ok(found);
    }
    let mut query = QueryBuilder::<Db>::new(
        "SELECT s.device, s.deployment, s.state FROM deployment_state s \
         JOIN deployment p ON p.number = s.deployment \
         JOIN compliance_device c ON c.device = s.device AND c.evaluated_at >= ",
    );
    query.push_bind(held.as_millisecond());
    query.push(" - p.stale_after * 1000 WHERE s.device IN (");
    push_devices(&mut query, devices);
    query.push(") AND s.deployment IN (");
    let mut list = query.separated(", ");
    for deployment in deployments {
        list.push_bind(*deployment);
    }
    query.push(")");
    for row in &query.build().fetch_all(db).await? {
        let code: i16 = row.try_get("state")?;
        let state = ComplianceState::from_code(code)
            .ok_or_else(|| corrupt(format!("there is no compliance state {code}")))?;
        let of_device = found.entry(device_id(row, "device")?).or_default();
        of_device.insert(row.try_get("deployment")?, state);
    }
    Ok(found)
}

/// Works out the memberships of devices that are due, of no more than `most`.
pub(super) async fn evaluate_due(
    db: &mut DbConnection,
    most: u32,
    at: Timestamp,
) -> Result<Outcome> {
    // Another node does it just now.
    let Some(held) = hold_with(db, at, LOCK_ROW_UNLESS_TAKEN).await? else {
        return Ok(Ok(Applied::Unchanged));
    };
    let mut query =
        QueryBuilder::<Db>::new("SELECT device FROM membership_due ORDER BY device LIMIT ");
    query.push_bind(i64::from(most));
    let rows = query.build().fetch_all(&mut *db).await?;
    let due = |rows: &[DbRow]| -> Result<Vec<DeviceId>> {
        rows.iter().map(|row| device_id(row, "device")).collect()
    };
    let mut devices = due(&rows)?;
    if !LOCK_ROW_UNLESS_TAKEN.is_empty() && !devices.is_empty() {
        // Devices before what is due of them, as whoever changes a device takes them.
        share_definitions(db).await?;
        lock_devices(db, &devices).await?;
        let mut query =
            QueryBuilder::<Db>::new("SELECT device FROM membership_due WHERE device IN (");
        push_devices(&mut query, &devices);
        query.push(") ORDER BY device").push(LOCK_ROW_UNLESS_TAKEN);
        devices = due(&query.build().fetch_all(&mut *db).await?)?;
    }
    if devices.is_empty() {
        return Ok(Ok(Applied::Unchanged));
    }
    let Some(collections) = readable_collections(db).await? else {
        return Ok(Ok(Applied::Unchanged));
    };
    let mut evaluated = evaluate_devices(db, &collections, &devices, held, at).await?;
    evaluated.more = devices.len() as i64 >= i64::from(most);
    let mut query = QueryBuilder::<Db>::new("DELETE FROM membership_due WHERE device IN (");
    push_devices(&mut query, &devices);
    query.push(")").build().execute(db).await?;
    Ok(Ok(Applied::Evaluated(evaluated)))
}

/// A collection's members are to be worked out, and those of all that depend on it.
pub(super) async fn evaluate_anew(db: &mut DbConnection, collection: i64) -> Result<()> {
    let all = collections(db).await?.with_dependents(collection);
    begin_evaluation(db, &all).await
}

pub(super) async fn begin_evaluation(db: &mut DbConnection, collections: &[i64]) -> Result<()> {
    if collections.is_empty() {
        return Ok(());
    }
    let mut query =
        QueryBuilder::<Db>::new("INSERT INTO membership_evaluation (collection, reached) ");
    query.push_values(collections, |mut row, collection| {
        row.push_bind(*collection).push_bind(Vec::<u8>::new());
    });
    query.push(" ON CONFLICT (collection) DO UPDATE SET reached = excluded.reached");
    query.build().execute(db).await?;
    Ok(())
}

/// One step of the background's work: no more than `most` devices of one collection.
pub(super) async fn evaluate_collections(
    db: &mut DbConnection,
    most: u32,
    at: Timestamp,
) -> Result<Outcome> {
    let Some(held) = hold_with(db, at, LOCK_ROW_UNLESS_TAKEN).await? else {
        return Ok(Ok(Applied::Unchanged));
    };
    let rows = sqlx::query("SELECT collection, reached FROM membership_evaluation")
        .fetch_all(&mut *db)
        .await?;
    let mut waiting: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
    for row in &rows {
        waiting.insert(row.try_get("collection")?, row.try_get("reached")?);
    }
    let Some(collections) = readable_collections(db).await? else {
        return Ok(Ok(Applied::Unchanged));
    };
    // First those that others depend on.
    let first = collections.iter().find(|(id, _)| waiting.contains_key(id));
    let evaluated = match (first, waiting.first_key_value()) {
        (Some((id, rules)), _) => {
            let span = (&waiting[&id][..], most);
            evaluate_collection(db, id, rules, span, held, at).await?
        }
        (None, Some((gone, _))) => clear_collection(db, *gone, most, at).await?,
        (None, None) => return Ok(Ok(Applied::Unchanged)),
    };
    Ok(Ok(Applied::Evaluated(Evaluated {
        more: evaluated.more || waiting.len() > 1,
        ..evaluated
    })))
}

async fn evaluate_collection(
    db: &mut DbConnection,
    id: i64,
    rules: &Rules<i64>,
    (reached, most): (&[u8], u32),
    held: Timestamp,
    at: Timestamp,
) -> Result<Evaluated> {
    let sql = "SELECT d.id FROM device d WHERE d.id > $1 ORDER BY d.id LIMIT 1 OFFSET $2";
    let last = sqlx::query(sql)
        .bind(reached.to_vec())
        .bind(i64::from(most.max(1)) - 1)
        .fetch_optional(&mut *db)
        .await?;
    let last = last.map(|row| device_id(&row, "id")).transpose()?;
    let span = Span {
        after: reached,
        last,
    };
    let joined = join(db, at, |query| push_joining(query, id, rules, span, held)).await?;
    let left = leave(db, at, |query| push_leaving(query, id, rules, span, held)).await?;
    match last {
        Some(last) => {
            sqlx::query("UPDATE membership_evaluation SET reached = $2 WHERE collection = $1")
                .bind(id)
                .bind(last.as_bytes().to_vec())
                .execute(db)
                .await?;
        }
        None => end_evaluation(db, id).await?,
    }
    Ok(Evaluated {
        looked_at: u64::from(most),
        joined: joined.len() as u64,
        left: left.len() as u64,
        more: last.is_some(),
    })
}

async fn end_evaluation(db: &mut DbConnection, id: i64) -> Result<()> {
    sqlx::query("DELETE FROM membership_evaluation WHERE collection = $1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Takes out what a collection that is gone leaves behind.
async fn clear_collection(
    db: &mut DbConnection,
    id: i64,
    most: u32,
    at: Timestamp,
) -> Result<Evaluated> {
    let left = leave(db, at, |query| {
        query.push("collection = ").push_bind(id);
        query.push(" AND device IN (SELECT m.device FROM membership m WHERE m.collection = ");
        query.push_bind(id);
        query.push(" LIMIT ").push_bind(i64::from(most)).push(")");
    })
    .await?;
    let sql = "DELETE FROM collection_direct WHERE collection = $1 AND device IN \
         (SELECT n.device FROM collection_direct n WHERE n.collection = $1 LIMIT $2)";
    let unnamed = sqlx::query(sql)
        .bind(id)
        .bind(i64::from(most))
        .execute(&mut *db)
        .await?;
    let more = left.len() as u64 + unnamed.rows_affected() > 0;
    if !more {
        sqlx::query("DELETE FROM membership_count WHERE collection = $1")
            .bind(id)
            .execute(&mut *db)
            .await?;
        end_evaluation(db, id).await?;
    }
    Ok(Evaluated {
        looked_at: 0,
        joined: 0,
        left: left.len() as u64,
        more,
    })
}

/// Devices behind one, up to another one or to the end.
#[derive(Clone, Copy)]
struct Span<'a> {
    after: &'a [u8],
    last: Option<DeviceId>,
}

impl Span<'_> {
    fn push(self, query: &mut QueryBuilder<Db>, column: &str) {
        query
            .push(column)
            .push(" > ")
            .push_bind(self.after.to_vec());
        if let Some(last) = self.last {
            query.push(" AND ").push(column).push(" <= ");
            query.push_bind(last.as_bytes().to_vec());
        }
    }
}

/// The devices of a span that are to be members and are not.
fn push_joining(
    query: &mut QueryBuilder<Db>,
    id: i64,
    rules: &Rules<i64>,
    span: Span<'_>,
    at: Timestamp,
) {
    query
        .push("SELECT ")
        .push_bind(id)
        .push(", d.id FROM device d WHERE ");
    span.push(query, "d.id");
    query.push(" AND NOT EXISTS (SELECT 1 FROM membership m WHERE m.collection = ");
    query.push_bind(id).push(" AND m.device = d.id) AND ");
    push_member(query, id, rules, at);
}

/// The members of a span that are to be members no more.
fn push_leaving(
    query: &mut QueryBuilder<Db>,
    id: i64,
    rules: &Rules<i64>,
    span: Span<'_>,
    at: Timestamp,
) {
    query.push("collection = ").push_bind(id).push(" AND ");
    span.push(query, "device");
    query.push(" AND NOT EXISTS (SELECT 1 FROM device d WHERE d.id = membership.device AND ");
    push_member(query, id, rules, at);
    query.push(")");
}

/// The condition that `d` is a member of a collection, given the members of those that it depends
/// on. `Collections::of_device` says the same in memory.
fn push_member(query: &mut QueryBuilder<Db>, id: i64, rules: &Rules<i64>, at: Timestamp) {
    query.push("d.state <> 'deleted'");
    if let Some(limit) = rules.limited_to {
        query.push(" AND ");
        push_member_of(query, &[limit]);
    }
    query
        .push(" AND (EXISTS (SELECT 1 FROM collection_direct n WHERE n.collection = ")
        .push_bind(id)
        .push(" AND n.device = d.id)");
    if !rules.include.is_empty() {
        query.push(" OR ");
        push_member_of(query, &rules.include);
    }
    if let Some(filter) = &rules.query {
        query.push(" OR ");
        push_filter(query, filter, at);
    }
    query.push(")");
    if !rules.exclude.is_empty() {
        query.push(" AND NOT ");
        push_member_of(query, &rules.exclude);
    }
}

/// The condition that `d` is a member of one of some collections.
pub(super) fn push_member_of(query: &mut QueryBuilder<Db>, collections: &[i64]) {
    query.push("EXISTS (SELECT 1 FROM membership o WHERE o.device = d.id AND o.collection IN (");
    let mut list = query.separated(", ");
    for collection in collections {
        list.push_bind(*collection);
    }
    query.push("))");
}

/// Moves the moment for which memberships hold to `to`, or towards it, and makes the devices due
/// that cross a boundary of a query by that.
pub(super) async fn sweep(db: &mut DbConnection, to: Timestamp) -> Result<Outcome> {
    let Some(from) = hold_with(db, to, LOCK_ROW_UNLESS_TAKEN).await? else {
        return Ok(Ok(Applied::Unchanged));
    };
    let (from, to) = (from.as_millisecond(), to.as_millisecond());
    if to == from || (to < from && from - to < CLOCKS_DIFFER) {
        return Ok(Ok(Applied::Unchanged));
    }
    let Some(collections) = readable_collections(db).await? else {
        return Ok(Ok(Applied::Unchanged));
    };
    let boundaries = collections.boundaries();
    let stale_times = stale_times(db, &collections.asked_deployments()).await?;
    // Only so far that no boundary makes too many devices due at once.
    let mut reach = to;
    for boundary in &boundaries {
        reach = reachable(db, *boundary, from, reach).await?;
    }
    for stale in &stale_times {
        reach = stale_reachable(db, *stale, from, reach).await?;
    }
    let mut evaluated = Evaluated {
        more: reach != to,
        ..Evaluated::default()
    };
    for boundary in &boundaries {
        let mut query = QueryBuilder::<Db>::new("INSERT INTO membership_due (device) ");
        push_crossing(&mut query, *boundary, from, reach, "device");
        // What is due already stays so: nobody works at it while this transaction holds the row.
        query.push(" ON CONFLICT DO NOTHING");
        evaluated.looked_at += query.build().execute(&mut *db).await?.rows_affected();
    }
    for stale in &stale_times {
        let mut query = QueryBuilder::<Db>::new("INSERT INTO membership_due (device) ");
        push_going_stale(&mut query, *stale, from, reach, "device");
        query.push(" ON CONFLICT DO NOTHING");
        evaluated.looked_at += query.build().execute(&mut *db).await?.rows_affected();
    }
    set_time(db, reach).await?;
    Ok(Ok(Applied::Evaluated(evaluated)))
}

/// After which times, in milliseconds, results of some deployments do not count any more.
async fn stale_times(db: &mut DbConnection, deployments: &[i64]) -> Result<BTreeSet<i64>> {
    let mut found = BTreeSet::new();
    if deployments.is_empty() {
        return Ok(found);
    }
    let mut query = QueryBuilder::<Db>::new(
        "SELECT DISTINCT p.stale_after * 1000 AS stale FROM deployment p WHERE p.number IN (",
    );
    let mut list = query.separated(", ");
    for deployment in deployments {
        list.push_bind(*deployment);
    }
    for row in &query.push(")").build().fetch_all(db).await? {
        found.insert(row.try_get("stale")?);
    }
    Ok(found)
}

/// As [`reachable`], for devices whose results grow too old.
async fn stale_reachable(db: &mut DbConnection, stale: i64, from: i64, to: i64) -> Result<i64> {
    let mut query = QueryBuilder::<Db>::default();
    push_going_stale(&mut query, stale, from, to, "evaluated_at");
    query.push(" ORDER BY c.evaluated_at");
    if to < from {
        query.push(" DESC");
    }
    query.push(" LIMIT 1 OFFSET ").push_bind(SWEPT_AT_ONCE);
    let Some(row) = query.build().fetch_optional(db).await? else {
        return Ok(to);
    };
    let evaluated: i64 = row.try_get("evaluated_at")?;
    // At least one step, whatever crosses it at once.
    Ok(if to > from {
        (evaluated + stale).clamp(from + 1, to)
    } else {
        (evaluated + stale).clamp(to, from - 1)
    })
}

/// A SELECT of the devices whose results grow too old between two moments, or come to count again when
/// the clock was set back.
fn push_going_stale(query: &mut QueryBuilder<Db>, stale: i64, from: i64, to: i64, what: &str) {
    query
        .push("SELECT c.")
        .push(what)
        .push(" FROM compliance_device c WHERE c.evaluated_at >= ")
        .push_bind(from.min(to) - stale)
        .push(" AND c.evaluated_at < ")
        .push_bind(from.max(to) - stale);
}

/// Devices evaluated at these moments; called before that is recorded. Whose results were too old to
/// count are due, where that decides about members.
pub(super) async fn evaluated_again(
    db: &mut DbConnection,
    evaluated: &[(DeviceId, Timestamp)],
) -> Result<()> {
    if evaluated.is_empty() || !is_compliance_asked(db).await? {
        return Ok(());
    }
    let mut query = QueryBuilder::<Db>::new("SELECT v.column1 AS device FROM (");
    query.push_values(evaluated, |mut row, (device, at)| {
        row.push_bind(device.as_bytes().to_vec())
            .push_bind(at.as_millisecond());
    });
    query.push(
        ") AS v CROSS JOIN compliance_device c WHERE c.device = v.column1 AND c.evaluated_at < \
         v.column2 - (SELECT MIN(p.stale_after) * 1000 FROM deployment p)",
    );
    let rows = query.build().persistent(false).fetch_all(&mut *db).await?;
    let again: Vec<DeviceId> = rows
        .iter()
        .map(|row| device_id(row, "device"))
        .collect::<Result<_>>()?;
    mark_due(db, again).await
}

/// How far one can go from `from` towards `to` until a boundary is crossed by [`SWEPT_AT_ONCE`].
async fn reachable(db: &mut DbConnection, boundary: Boundary, from: i64, to: i64) -> Result<i64> {
    let mut query = QueryBuilder::<Db>::new("SELECT v.moment FROM (");
    push_crossing(&mut query, boundary, from, to, "moment");
    query.push(") AS v ORDER BY v.moment");
    if to < from {
        query.push(" DESC");
    }
    query.push(" LIMIT 1 OFFSET ").push_bind(SWEPT_AT_ONCE);
    let Some(row) = query.build().fetch_optional(db).await? else {
        return Ok(to);
    };
    let moment: i64 = row.try_get("moment")?;
    // At least one step, whatever crosses it at once.
    let crossed = boundary.crossed_at(moment);
    Ok(if to > from {
        crossed.clamp(from + 1, to)
    } else {
        (crossed - 1).clamp(to, from - 1)
    })
}

/// A SELECT of what crosses a boundary while the time goes from one moment to another: the devices,
/// or the moments that do. By an index each.
fn push_crossing(query: &mut QueryBuilder<Db>, boundary: Boundary, from: i64, to: i64, what: &str) {
    let (device, moment, table) = match boundary.field {
        DaysField::CertificateLeft => (
            "c.device",
            "c.not_after",
            "certificate c WHERE c.state = 'valid' AND ",
        ),
        DaysField::EnrolledAgo => ("d.id", "d.enrolled_at", "device d WHERE "),
        DaysField::LastSeenAgo => ("s.device", "s.at", "device_seen s WHERE "),
    };
    let (first, last) = boundary.crossed(from, to);
    match what {
        "device" => query.push("SELECT DISTINCT ").push(device),
        _ => query.push("SELECT ").push(moment).push(" AS moment"),
    };
    query
        .push(" FROM ")
        .push(table)
        .push(moment)
        .push(" >= ")
        .push_bind(first);
    query
        .push(" AND ")
        .push(moment)
        .push(" <= ")
        .push_bind(last);
}

#[cfg(test)]
#[path = "memberships_tests.rs"]
mod tests;
