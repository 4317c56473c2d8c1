//! How deployments stand on devices, and how many devices they have in which state. Compiled once for
//! each database: `super` says which.
//!
//! A device's states are worked out from its memberships, the deployments' rules, its results and the
//! exemptions, in the transaction that changes one of them for this device. Whoever does so holds the
//! device's row: nobody works with what is about to change. When a deployment itself changes, all
//! its devices are worked out by a walk in steps ([`work_out_due`]).
//!
//! `summary` and `rule_summary` are changed in the same transaction by what is written: their sums are what
//! the rows say. How a deployment stood before is kept, too: what was asked about a moment that is past
//! is answered again in the same way, whatever changed since.

use std::collections::{BTreeMap, BTreeSet};

use domain::{ComplianceState, DeviceId, Timestamp};
use sqlx::{QueryBuilder, Row};

use super::collections::push_devices;
use super::compliance::bump;
use super::memberships::compliance_changed;
use super::reads::{corrupt, device_id};
use super::results::{BINDS, optional_state};
use super::writes::Outcome;
use super::{
    CHANGE_DEFINITIONS, Db, DbConnection, DbRow, LOCK_ROW, LOCK_ROW_UNLESS_TAKEN, NODE,
    SHARE_DEFINITIONS,
};
use crate::Unavailable;
use crate::change::{Applied, WorkedOut};
use crate::notable::{Notable, Standing};

type Result<T> = std::result::Result<T, Unavailable>;

/// States of rules that one change, or one step of a walk, reads, about: others wait for it.
const RULES_AT_ONCE: i64 = 5_000;
/// Members that one step of a walk looks at.
const MEMBERS_AT_ONCE: i64 = 5_000;
/// Rows that one step of a walk looks at to remove them.
const ROWS_AT_ONCE: i64 = 500;

/// Waits until nobody changes what deployments are, and keeps it so until the transaction's end: for
/// those who work out states of devices.
pub(super) async fn share_definitions(db: &mut DbConnection) -> Result<()> {
    if !SHARE_DEFINITIONS.is_empty() {
        sqlx::query(SHARE_DEFINITIONS).execute(db).await?;
    }
    Ok(())
}

/// Holds devices until the transaction's end, in one order on every node.
pub(super) async fn lock_devices(db: &mut DbConnection, devices: &[DeviceId]) -> Result<()> {
    if LOCK_ROW.is_empty() {
        return Ok(());
    }
    for some in devices.chunks(BINDS) {
        let mut query = QueryBuilder::<Db>::new("SELECT id FROM device WHERE id IN (");
        push_devices(&mut query, some);
        query.push(") ORDER BY id").push(LOCK_ROW);
        query.build().execute(&mut *db).await?;
    }
    Ok(())
}

/// Devices became members: pairs of collection and device. Called by whoever inserts memberships,
/// after it did.
pub(super) async fn entered(
    db: &mut DbConnection,
    pairs: &[(i64, DeviceId)],
    at: Timestamp,
) -> Result<()> {
    for (deployment, devices) in deployed(db, pairs).await? {
        work_out_or_due(db, deployment, &devices, at).await?;
    }
    exemptions_changed(db, pairs, at).await
}

/// Devices are no members any more. Called by whoever deletes memberships, after it did.
pub(super) async fn left(
    db: &mut DbConnection,
    pairs: &[(i64, DeviceId)],
    at: Timestamp,
) -> Result<()> {
    for (deployment, devices) in deployed(db, pairs).await? {
        lock_devices(db, &devices).await?;
        remove_strays(db, &devices, Some(deployment), at).await?;
    }
    exemptions_changed(db, pairs, at).await
}

async fn rule_count(db: &mut DbConnection, deployment: i64) -> Result<i64> {
    let sql = "SELECT COUNT(*) AS n FROM deployment_rule WHERE deployment = $1";
    let row = sqlx::query(sql).bind(deployment).fetch_one(db).await?;
    Ok(row.try_get("n")?)
}

/// A few devices at once; more of them by the walk.
async fn work_out_or_due(
    db: &mut DbConnection,
    deployment: i64,
    devices: &[DeviceId],
    at: Timestamp,
) -> Result<()> {
    let rules = rule_count(db, deployment).await?;
    if devices.len() as i64 * rules <= RULES_AT_ONCE {
        work_out(db, devices, Some(deployment), at).await?;
    } else if let Some(first) = devices.iter().min() {
        due_from(db, deployment, *first).await?;
    }
    Ok(())
}

/// Devices came to collections that are exempt from a rule, or left them: deployments with the rule to
/// other collections stand otherwise on them.
async fn exemptions_changed(
    db: &mut DbConnection,
    pairs: &[(i64, DeviceId)],
    at: Timestamp,
) -> Result<()> {
    let collections: BTreeSet<i64> = pairs.iter().map(|(collection, _)| *collection).collect();
    if collections.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Db>::new(
        "SELECT DISTINCT e.collection, r.deployment FROM exemption e \
         JOIN rule u ON u.item = e.item AND u.name = e.rule \
         JOIN deployment_rule r ON r.rule = u.id WHERE e.ended_at IS NULL AND e.collection IN (",
    );
    let mut list = query.separated(", ");
    for collection in &collections {
        list.push_bind(*collection);
    }
    query.push(") ORDER BY r.deployment");
    let rows = query.build().fetch_all(&mut *db).await?;
    for row in rows {
        let (collection, deployment): (i64, i64) =
            (row.try_get("collection")?, row.try_get("deployment")?);
        let of_collection = pairs.iter().filter(|(id, _)| *id == collection);
        let devices: Vec<_> = of_collection.map(|(_, device)| *device).collect();
        work_out_or_due(db, deployment, &devices, at).await?;
    }
    Ok(())
}

/// The deployments of the pairs' collections, each with the devices.
async fn deployed(
    db: &mut DbConnection,
    pairs: &[(i64, DeviceId)],
) -> Result<BTreeMap<i64, Vec<DeviceId>>> {
    if pairs.is_empty() {
        return Ok(BTreeMap::new());
    }
    // A deployment that is made meanwhile is walked over when this is done.
    share_definitions(db).await?;
    let mut members: BTreeMap<i64, Vec<DeviceId>> = BTreeMap::new();
    for (collection, device) in pairs {
        members.entry(*collection).or_default().push(*device);
    }
    let mut deployed = BTreeMap::new();
    for (collection, devices) in members {
        let rows = sqlx::query("SELECT number FROM deployment WHERE collection = $1")
            .bind(collection)
            .fetch_all(&mut *db)
            .await?;
        for row in rows {
            deployed.insert(row.try_get("number")?, devices.clone());
        }
    }
    if !deployed.is_empty() {
        // Their lists are others now.
        bump(db).await?;
    }
    Ok(deployed)
}

/// Works out how deployments stand on `devices`: all that they are members for, or `only` one. Returns
/// the devices for which one stands otherwise than before.
pub(super) async fn work_out(
    db: &mut DbConnection,
    devices: &[DeviceId],
    only: Option<i64>,
    at: Timestamp,
) -> Result<Vec<DeviceId>> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    share_definitions(db).await?;
    lock_devices(db, devices).await?;
    let exempted = exempted_rules(db).await?;
    let mut changed = Vec::new();
    for some in devices.chunks(BINDS / 2) {
        let mut query = QueryBuilder::<Db>::new("WITH given (id) AS (");
        push_given(&mut query, some);
        query.push(") SELECT p.number AS deployment, g.id AS device, ");
        query.push(BEFORE).push(
            ", (SELECT CASE WHEN COUNT(*) > 0 AND COUNT(*) = COUNT(o.state) \
             THEN CAST(COUNT(*) AS TEXT) || COALESCE(string_agg(CASE WHEN o.state <> 3 \
             THEN ' ' || CAST(o.rule AS TEXT) || ':' || CAST(o.state AS TEXT) END, ''), '') END \
             FROM (SELECT r.rule, ",
        );
        push_state_of_rule(&mut query, &exempted);
        query.push(
            " AS state FROM deployment_rule r LEFT JOIN rule_state t \
             ON t.device = c.number AND t.rule = r.rule WHERE r.deployment = p.number) AS o) \
             AS stands FROM given g CROSS JOIN compliance_device c CROSS JOIN membership m \
             CROSS JOIN deployment p \
             LEFT JOIN deployment_state s ON s.device = g.id AND s.deployment = p.number \
             WHERE c.device = g.id AND m.device = g.id AND p.collection = m.collection",
        );
        if let Some(only) = only {
            query.push(" AND p.number = ").push_bind(only);
        }
        let rows = query.build().persistent(false).fetch_all(&mut *db).await?;
        let mut changes = Vec::new();
        for row in &rows {
            let stands: Option<String> = row.try_get("stands")?;
            let stands = stands.as_deref().map(Standing::parse).transpose();
            let change = StateChange::read(row, stands.map_err(corrupt)?)?;
            if change.changes_something() {
                changes.push(change);
            }
        }
        let other = changes.iter().filter(|change| change.changes_state());
        changed.extend(other.map(|change| change.device));
        write(db, &changes, at).await?;
        changed.extend(remove_strays(db, some, only, at).await?);
    }
    if !changed.is_empty() {
        compliance_changed(db, changed.iter().copied()).await?;
    }
    Ok(changed)
}

/// Rules of devices that changed, each with its new state; none when it has no result any more.
pub(super) type ChangedRules = BTreeMap<DeviceId, BTreeMap<i64, Option<ComplianceState>>>;

/// Results of devices changed. What a deployment's state on a device says of its rules is changed by just
/// that, without reading all of them; where there is none yet, or it may not be right, it is worked out.
/// Whoever calls it holds the devices.
pub(super) async fn results_changed(
    db: &mut DbConnection,
    changed: &ChangedRules,
    at: Timestamp,
) -> Result<()> {
    let rules: BTreeSet<i64> = changed.values().flat_map(|of| of.keys().copied()).collect();
    let deployments_of = deployments_of(db, &rules).await?;
    if deployments_of.is_empty() {
        return Ok(());
    }
    let deployments: BTreeSet<i64> = deployments_of.values().flatten().copied().collect();
    let exempted: BTreeSet<i64> = exempted_rules(db).await?.into_iter().collect();
    let rows = sqlx::query("SELECT deployment FROM deployment_due").fetch_all(&mut *db);
    let due: BTreeSet<i64> = rows
        .await?
        .iter()
        .map(|row| row.try_get("deployment"))
        .collect::<std::result::Result<_, _>>()?;

    let mut anew: BTreeMap<i64, Vec<DeviceId>> = BTreeMap::new();
    let mut other = Vec::new();
    let devices: Vec<DeviceId> = changed.keys().copied().collect();
    for some in devices.chunks(BINDS / 2) {
        let mut query = QueryBuilder::<Db>::new("WITH given (id) AS (");
        push_given(&mut query, some);
        query
            .push(
                ") SELECT p.number AS deployment, g.id AS device, \
                 (SELECT COUNT(*) FROM deployment_rule r WHERE r.deployment = p.number) AS rules, ",
            )
            .push(BEFORE)
            .push(
                " FROM given g CROSS JOIN membership m CROSS JOIN deployment p \
                 LEFT JOIN deployment_state s ON s.device = g.id AND s.deployment = p.number \
                 WHERE m.device = g.id AND p.collection = m.collection AND p.number IN (",
            );
        let mut list = query.separated(", ");
        for deployment in &deployments {
            list.push(deployment);
        }
        query.push(")");
        let rows = query.build().persistent(false).fetch_all(&mut *db).await?;
        let mut changes = Vec::new();
        for row in &rows {
            let mut change = StateChange::read(row, None)?;
            let deployment = change.deployment;
            let of_device = changed.get(&change.device).into_iter().flatten();
            let touched: Vec<(i64, Option<ComplianceState>)> = of_device
                .filter(|(rule, _)| {
                    let of = deployments_of.get(rule);
                    of.is_some_and(|of| of.contains(&deployment))
                })
                .map(|(rule, state)| (*rule, *state))
                .collect();
            if touched.is_empty() {
                continue;
            }
            let is_exempted = touched.iter().any(|(rule, _)| exempted.contains(rule));
            let Some(was) = change
                .was
                .as_ref()
                .filter(|_| !is_exempted && !due.contains(&deployment))
            else {
                anew.entry(deployment).or_default().push(change.device);
                continue;
            };
            let rules: i64 = row.try_get("rules")?;
            change.stands = was.after(touched.into_iter(), usize::try_from(rules).unwrap_or(0));
            if change.changes_something() {
                changes.push(change);
            }
        }
        let others = changes.iter().filter(|change| change.changes_state());
        other.extend(others.map(|change| change.device));
        write(db, &changes, at).await?;
    }
    if !other.is_empty() {
        compliance_changed(db, other).await?;
    }
    for (deployment, devices) in anew {
        work_out(db, &devices, Some(deployment), at).await?;
    }
    Ok(())
}

/// The deployments that have these rules.
async fn deployments_of(
    db: &mut DbConnection,
    rules: &BTreeSet<i64>,
) -> Result<BTreeMap<i64, BTreeSet<i64>>> {
    let rules: Vec<i64> = rules.iter().copied().collect();
    let mut found: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for some in rules.chunks(BINDS) {
        let mut query = QueryBuilder::<Db>::new(
            "SELECT r.rule, r.deployment FROM deployment_rule r WHERE r.rule IN (",
        );
        let mut list = query.separated(", ");
        for rule in some {
            list.push_bind(*rule);
        }
        let query = query.push(")").build().persistent(false);
        for row in query.fetch_all(&mut *db).await? {
            let of_rule = found.entry(row.try_get("rule")?).or_default();
            of_rule.insert(row.try_get("deployment")?);
        }
    }
    Ok(found)
}

/// Removes states of deployments that are not the devices' any more.
async fn remove_strays(
    db: &mut DbConnection,
    devices: &[DeviceId],
    only: Option<i64>,
    at: Timestamp,
) -> Result<Vec<DeviceId>> {
    let mut removed = Vec::new();
    for some in devices.chunks(BINDS / 2) {
        let mut query = QueryBuilder::<Db>::new("WITH given (id) AS (");
        push_given(&mut query, some);
        query.push(") SELECT s.deployment, s.device, ").push(BEFORE);
        query.push(" FROM given g CROSS JOIN deployment_state s WHERE s.device = g.id");
        if let Some(only) = only {
            query.push(" AND s.deployment = ").push_bind(only);
        }
        query.push(
            " AND NOT EXISTS (SELECT 1 FROM deployment p JOIN membership m \
             ON m.collection = p.collection AND m.device = s.device \
             WHERE p.number = s.deployment AND EXISTS (SELECT 1 FROM deployment_rule r \
             WHERE r.deployment = p.number))",
        );
        let rows = query.build().persistent(false).fetch_all(&mut *db).await?;
        let changes: Vec<_> = rows
            .iter()
            .map(|row| StateChange::read(row, None))
            .collect::<Result<_>>()?;
        removed.extend(changes.iter().map(|change| change.device));
        write(db, &changes, at).await?;
    }
    Ok(removed)
}

fn push_given(query: &mut QueryBuilder<Db>, devices: &[DeviceId]) {
    query.push_values(devices, |mut row, device| {
        row.push_bind(device.as_bytes().to_vec());
    });
}

/// The state of rule `r` on device `g`, whose row is `t`, with exemptions. `exempted` are
/// all rules with an exemption: hardly any, mostly, so that the others are not looked up.
fn push_state_of_rule(query: &mut QueryBuilder<Db>, exempted: &[i64]) {
    if exempted.is_empty() {
        query.push("t.state");
        return;
    }
    query.push("CASE WHEN r.rule IN (");
    let mut list = query.separated(", ");
    for rule in exempted {
        list.push(rule);
    }
    query.push(
        ") AND EXISTS (SELECT 1 FROM rule u JOIN exemption e ON e.item = u.item \
         AND e.rule = u.name AND e.ended_at IS NULL WHERE u.id = r.rule \
         AND (e.device = g.id OR EXISTS (SELECT 1 FROM membership x \
         WHERE x.collection = e.collection AND x.device = g.id))) THEN 2 ELSE t.state END",
    );
}

async fn exempted_rules(db: &mut DbConnection) -> Result<Vec<i64>> {
    let sql = "SELECT DISTINCT u.id FROM exemption e \
         JOIN rule u ON u.item = e.item AND u.name = e.rule WHERE e.ended_at IS NULL";
    let rows = sqlx::query(sql).fetch_all(db).await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get("id"))
        .collect::<std::result::Result<_, _>>()?)
}

/// What is recorded of a deployment on a device, in row `s`.
const BEFORE: &str =
    "CAST(s.state AS BIGINT) AS was, s.since AS was_since, s.notable AS was_notable";

struct StateChange {
    deployment: i64,
    device: DeviceId,
    was: Option<Standing>,
    was_since: i64,
    stands: Option<Standing>,
}

impl StateChange {
    fn read(row: &DbRow, stands: Option<Standing>) -> Result<Self> {
        let was = match optional_state(row, "was")? {
            Some(state) => {
                let notable: Vec<u8> = row.try_get("was_notable")?;
                let notable = Notable::from_bytes(&notable).map_err(corrupt)?;
                Some(Standing { state, notable })
            }
            None => None,
        };
        let was_since: Option<i64> = row.try_get("was_since")?;
        Ok(Self {
            deployment: row.try_get("deployment")?,
            device: device_id(row, "device")?,
            was,
            was_since: was_since.unwrap_or(0),
            stands,
        })
    }

    fn changes_something(&self) -> bool {
        self.was != self.stands
    }

    fn changes_state(&self) -> bool {
        let state = |standing: &Option<Standing>| standing.as_ref().map(|standing| standing.state);
        state(&self.was) != state(&self.stands)
    }
}

/// Writes states, and changes the sums by just that.
async fn write(db: &mut DbConnection, changes: &[StateChange], at: Timestamp) -> Result<()> {
    let mut sums: BTreeMap<(i64, ComplianceState), i64> = BTreeMap::new();
    let mut of_rules: BTreeMap<(i64, i64, ComplianceState), i64> = BTreeMap::new();
    for change in changes {
        for (standing, by) in [(&change.was, -1), (&change.stands, 1)] {
            let Some(standing) = standing else { continue };
            *sums.entry((change.deployment, standing.state)).or_default() += by;
            for (rule, state) in standing.notable.iter() {
                *of_rules
                    .entry((change.deployment, rule, state))
                    .or_default() += by;
            }
        }
    }
    sums.retain(|_, devices| *devices != 0);
    of_rules.retain(|_, devices| *devices != 0);
    keep_past(db, changes, at).await?;
    let set: Vec<_> = changes
        .iter()
        .filter_map(|change| Some((change, change.stands.as_ref()?)))
        .collect();
    for some in set.chunks(BINDS / 5) {
        // Clocks differ: no interval begins before the one that is recorded ended.
        let mut query = QueryBuilder::<Db>::new(
            "INSERT INTO deployment_state (device, deployment, since, state, notable) \
             SELECT v.column1, v.column2, COALESCE((SELECT MAX(p.until) \
             FROM deployment_state_past p WHERE p.device = v.column1 \
             AND p.deployment = v.column2 AND p.until > v.column3), v.column3), v.column4, \
             v.column5 FROM (",
        );
        query.push_values(some, |mut row, (change, standing)| {
            row.push_bind(change.device.as_bytes().to_vec())
                .push_bind(change.deployment)
                .push_bind(at.as_second())
                .push_bind(i64::from(standing.state.code()))
                .push_bind(standing.notable.to_bytes());
        });
        query.push(
            ") AS v WHERE true ON CONFLICT (device, deployment) DO UPDATE SET since = CASE \
             WHEN deployment_state.state = excluded.state \
             OR deployment_state.since > excluded.since THEN deployment_state.since \
             ELSE excluded.since END, state = excluded.state, notable = excluded.notable",
        );
        query.build().persistent(false).execute(&mut *db).await?;
    }
    let gone: Vec<_> = changes.iter().filter(|c| c.stands.is_none()).collect();
    for some in gone.chunks(BINDS / 2) {
        let mut query =
            QueryBuilder::<Db>::new("DELETE FROM deployment_state WHERE (device, deployment) IN (");
        query.push_values(some, |mut row, change| {
            row.push_bind(change.device.as_bytes().to_vec())
                .push_bind(change.deployment);
        });
        let query = query.push(")").build().persistent(false);
        query.execute(&mut *db).await?;
    }
    if !sums.is_empty() {
        let mut query = QueryBuilder::<Db>::new(
            "INSERT INTO summary (deployment, state, node, devices) SELECT v.column1, v.column2, ",
        );
        query.push(NODE).push(", v.column3 FROM (");
        query.push_values(sums, |mut row, ((deployment, state), devices)| {
            row.push_bind(deployment)
                .push_bind(i64::from(state.code()))
                .push_bind(devices);
        });
        query.push(
            ") AS v WHERE true ON CONFLICT (deployment, state, node) DO UPDATE \
             SET devices = summary.devices + excluded.devices",
        );
        query.build().persistent(false).execute(&mut *db).await?;
    }
    let of_rules: Vec<_> = of_rules.into_iter().collect();
    for some in of_rules.chunks(BINDS / 4) {
        let mut query = QueryBuilder::<Db>::new(
            "INSERT INTO rule_summary (deployment, rule, state, node, devices) \
             SELECT v.column1, v.column2, v.column3, ",
        );
        query.push(NODE).push(", v.column4 FROM (");
        query.push_values(some, |mut row, ((deployment, rule, state), devices)| {
            row.push_bind(*deployment)
                .push_bind(*rule)
                .push_bind(i64::from(state.code()))
                .push_bind(*devices);
        });
        query.push(
            ") AS v WHERE true ON CONFLICT (deployment, rule, state, node) DO UPDATE \
             SET devices = rule_summary.devices + excluded.devices",
        );
        query.build().persistent(false).execute(&mut *db).await?;
    }
    Ok(())
}

/// Keeps how it was until now. What lasted less than a second is forgotten, and so is all of a
/// deployment that is gone.
async fn keep_past(db: &mut DbConnection, changes: &[StateChange], at: Timestamp) -> Result<()> {
    let until = at.as_second();
    let ended: Vec<_> = changes
        .iter()
        .filter(|change| change.changes_state() && change.was_since < until)
        .filter_map(|change| Some((change, change.was.as_ref()?.state)))
        .collect();
    for some in ended.chunks(BINDS / 5) {
        let mut query = QueryBuilder::<Db>::new(
            "INSERT INTO deployment_state_past (device, deployment, until, since, state) \
             SELECT v.column1, v.column2, v.column3, v.column4, v.column5 FROM (",
        );
        query.push_values(some, |mut row, (change, state)| {
            row.push_bind(change.device.as_bytes().to_vec())
                .push_bind(change.deployment)
                .push_bind(until)
                .push_bind(change.was_since)
                .push_bind(i64::from(state.code()));
        });
        query.push(
            ") AS v WHERE EXISTS (SELECT 1 FROM deployment p WHERE p.number = v.column2) \
             ON CONFLICT DO NOTHING",
        );
        query.build().persistent(false).execute(&mut *db).await?;
    }
    Ok(())
}

// The walk over a deployment's devices.

/// Where a walk is. First it goes over the members of the deployment's collection, then over the
/// states that are recorded, to find those of devices that are members no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// 0: among the members. Else among the recorded states, at this one.
    state: u8,
    device: [u8; 16],
}

impl Place {
    const BEGINNING: Self = Self {
        state: 0,
        device: [0; 16],
    };
    /// Behind all states: of a deployment that is gone, its past is removed.
    const PAST: Self = Self {
        state: u8::MAX,
        device: [0; 16],
    };

    fn read(bytes: Option<Vec<u8>>) -> Result<Self> {
        let Some(bytes) = bytes else {
            return Ok(Self::BEGINNING);
        };
        match <[u8; 17]>::try_from(bytes) {
            Ok([state, device @ ..]) => Ok(Self { state, device }),
            Err(_) => Err(corrupt("a walk's place has another length")),
        }
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.state];
        bytes.extend(self.device);
        bytes
    }
}

/// Makes a deployment due from a device on: a walk that is beyond it goes back.
async fn due_from(db: &mut DbConnection, deployment: i64, device: DeviceId) -> Result<()> {
    // A walk goes on after its place: just before the device.
    let before = u128::from_be_bytes(*device.as_bytes()).saturating_sub(1);
    let place = Place {
        state: 0,
        device: before.to_be_bytes(),
    };
    let sql = "INSERT INTO deployment_due (deployment, after, anew) VALUES ($1, $2, 0) \
         ON CONFLICT (deployment) DO UPDATE SET after = CASE \
         WHEN deployment_due.after > excluded.after THEN excluded.after \
         ELSE deployment_due.after END";
    sqlx::query(sql)
        .bind(deployment)
        .bind(place.bytes())
        .execute(db)
        .await?;
    Ok(())
}

/// One step of the walk over a deployment that is due.
pub(super) async fn work_out_due(db: &mut DbConnection, at: Timestamp) -> Result<Outcome> {
    // The one that waits longest: a large one keeps no other from its turn.
    let sql = "SELECT deployment, after FROM deployment_due ORDER BY step, deployment LIMIT 1";
    let Some(row) = sqlx::query(sql).fetch_optional(&mut *db).await? else {
        return Ok(Ok(Applied::Unchanged));
    };
    let deployment: i64 = row.try_get("deployment")?;
    let begins = Place::read(row.try_get("after")?)? == Place::BEGINNING;
    if begins && !CHANGE_DEFINITIONS.is_empty() {
        // Who works out states by the deployment's old definition finishes first, and is then seen.
        // Before the row, as whoever makes one due takes them.
        sqlx::query(CHANGE_DEFINITIONS).execute(&mut *db).await?;
    }
    share_definitions(db).await?;
    let mut query = QueryBuilder::<Db>::new("SELECT after FROM deployment_due WHERE deployment = ");
    query.push_bind(deployment).push(LOCK_ROW_UNLESS_TAKEN);
    let Some(row) = query.build().fetch_optional(&mut *db).await? else {
        return Ok(Ok(Applied::Unchanged));
    };
    let place = Place::read(row.try_get("after")?)?;
    if place == Place::BEGINNING && !begins {
        // It changed just now: the next step begins.
        return Ok(Ok(Applied::WorkedOut(WorkedOut {
            deployment,
            devices: 0,
        })));
    }
    let (devices, next) = match place.state {
        0 => walk_members(db, deployment, place, at).await?,
        _ => walk_states(db, deployment, place, at).await?,
    };
    let next = match next {
        None if remove_past(db, deployment).await? => Some(Place::PAST),
        next => next,
    };
    match next {
        Some(next) => {
            let sql = "UPDATE deployment_due SET after = $2, \
                 step = (SELECT MAX(d.step) + 1 FROM deployment_due d) WHERE deployment = $1";
            sqlx::query(sql)
                .bind(deployment)
                .bind(next.bytes())
                .execute(db)
                .await?;
        }
        None => {
            for sql in [
                "DELETE FROM deployment_due WHERE deployment = $1",
                "DELETE FROM summary WHERE deployment = $1 AND NOT EXISTS \
                 (SELECT 1 FROM deployment p WHERE p.number = $1)",
                // All that counted was worked out anew: of other rules there is nothing left.
                "DELETE FROM rule_summary WHERE deployment = $1 AND NOT EXISTS \
                 (SELECT 1 FROM deployment_rule r WHERE r.deployment = $1 \
                 AND r.rule = rule_summary.rule)",
            ] {
                sqlx::query(sql).bind(deployment).execute(&mut *db).await?;
            }
        }
    }
    Ok(Ok(Applied::WorkedOut(WorkedOut {
        deployment,
        devices,
    })))
}

/// Removes some of the past of a deployment that is gone; false when there is none.
async fn remove_past(db: &mut DbConnection, deployment: i64) -> Result<bool> {
    let sql = "DELETE FROM deployment_state_past WHERE (device, deployment, until) IN \
         (SELECT a.device, a.deployment, a.until FROM deployment_state_past a \
         WHERE a.deployment = $1 AND NOT EXISTS \
         (SELECT 1 FROM deployment p WHERE p.number = $1) LIMIT $2)";
    let done = sqlx::query(sql)
        .bind(deployment)
        .bind(ROWS_AT_ONCE)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Returns how many devices it looked at, and where the walk goes on.
async fn walk_members(
    db: &mut DbConnection,
    deployment: i64,
    place: Place,
    at: Timestamp,
) -> Result<(u64, Option<Place>)> {
    let rules = rule_count(db, deployment).await?;
    let most = usize::try_from(RULES_AT_ONCE / rules.max(1))
        .unwrap_or(0)
        .max(1);
    // Devices that never reported cost nothing but a look.
    let sql = "SELECT l.device FROM (SELECT m.device FROM deployment p CROSS JOIN membership m \
         WHERE p.number = $1 AND m.collection = p.collection AND m.device > $2 \
         ORDER BY m.device LIMIT $3) AS l CROSS JOIN compliance_device c \
         WHERE c.device = l.device ORDER BY l.device LIMIT $4";
    let rows = sqlx::query(sql)
        .bind(deployment)
        .bind(place.device.to_vec())
        .bind(MEMBERS_AT_ONCE)
        .bind(most as i64)
        .fetch_all(&mut *db)
        .await?;
    let devices: Vec<DeviceId> = rows
        .iter()
        .map(|row| device_id(row, "device"))
        .collect::<Result<_>>()?;
    work_out(db, &devices, Some(deployment), at).await?;
    let last = match devices.last() {
        Some(last) if devices.len() == most => Some(*last),
        _ => {
            let sql = "SELECT m.device FROM deployment p CROSS JOIN membership m \
                 WHERE p.number = $1 AND m.collection = p.collection AND m.device > $2 \
                 ORDER BY m.device LIMIT 1 OFFSET $3";
            let row = sqlx::query(sql)
                .bind(deployment)
                .bind(place.device.to_vec())
                .bind(MEMBERS_AT_ONCE - 1)
                .fetch_optional(&mut *db)
                .await?;
            row.map(|row| device_id(&row, "device")).transpose()?
        }
    };
    let next = match last {
        Some(last) => Place {
            state: 0,
            device: *last.as_bytes(),
        },
        None => Place {
            state: 1,
            device: [0; 16],
        },
    };
    Ok((devices.len() as u64, Some(next)))
}

async fn walk_states(
    db: &mut DbConnection,
    deployment: i64,
    place: Place,
    at: Timestamp,
) -> Result<(u64, Option<Place>)> {
    let sql = "SELECT device, CAST(state AS BIGINT) AS state FROM deployment_state \
         WHERE deployment = $1 AND (state, device) > ($2, $3) ORDER BY state, device LIMIT $4";
    let rows = sqlx::query(sql)
        .bind(deployment)
        .bind(i64::from(place.state))
        .bind(place.device.to_vec())
        .bind(ROWS_AT_ONCE)
        .fetch_all(&mut *db)
        .await?;
    let mut devices = Vec::with_capacity(rows.len());
    let mut next = None;
    for row in &rows {
        let device = device_id(row, "device")?;
        devices.push(device);
        let state: i64 = row.try_get("state")?;
        next = Some(Place {
            state: u8::try_from(state).map_err(corrupt)?,
            device: *device.as_bytes(),
        });
    }
    if !devices.is_empty() {
        lock_devices(db, &devices).await?;
        remove_strays(db, &devices, Some(deployment), at).await?;
    }
    let more = rows.len() as i64 == ROWS_AT_ONCE;
    Ok((rows.len() as u64, next.filter(|_| more)))
}

// Exemptions that end, and alerts whose moment comes.

/// Notices exemptions whose time is over: a few at once.
pub(super) async fn end_exemptions(db: &mut DbConnection, at: Timestamp) -> Result<Outcome> {
    let mut query = QueryBuilder::<Db>::new(
        "SELECT number, device FROM exemption WHERE ended_at IS NULL AND until IS NOT NULL \
         AND until <= ",
    );
    query
        .push_bind(at.as_millisecond())
        .push(" ORDER BY until, number LIMIT 10")
        .push(LOCK_ROW_UNLESS_TAKEN);
    let rows = query.build().fetch_all(&mut *db).await?;
    let mut numbers: Vec<i64> = Vec::with_capacity(rows.len());
    let mut devices = Vec::new();
    for row in &rows {
        let number = row.try_get("number")?;
        sqlx::query("UPDATE exemption SET ended_at = $2 WHERE number = $1")
            .bind(number)
            .bind(at.as_millisecond())
            .execute(&mut *db)
            .await?;
        match super::reads::optional_device_id(row, "device")? {
            Some(device) => devices.push(device),
            None => {
                let sql = "INSERT INTO deployment_due (deployment, after, anew) \
                     SELECT DISTINCT r.deployment, CAST(NULL AS ";
                let mut query = QueryBuilder::<Db>::new(sql);
                query
                    .push(super::BYTES)
                    .push(
                        "), 0 FROM exemption e \
                         JOIN rule u ON u.item = e.item AND u.name = e.rule \
                         JOIN deployment_rule r ON r.rule = u.id WHERE e.number = ",
                    )
                    .push_bind(number)
                    .push(" ON CONFLICT (deployment) DO UPDATE SET after = excluded.after");
                query.build().execute(&mut *db).await?;
            }
        }
        numbers.push(number);
    }
    devices.sort_unstable();
    devices.dedup();
    work_out(db, &devices, None, at).await?;
    Ok(Ok(match numbers.is_empty() {
        true => Applied::Unchanged,
        false => Applied::ExemptionsEnded(numbers),
    }))
}

/// The moment of a deployment's alert came: once.
pub(super) async fn judge(
    db: &mut DbConnection,
    deployment: i64,
    alert_at: Timestamp,
    below: Option<&str>,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "UPDATE deployment SET alert_judged_at = alert_at WHERE number = $1 \
         AND alert_at = $2 AND (alert_judged_at IS NULL OR alert_judged_at <> $2)";
    let done = sqlx::query(sql)
        .bind(deployment)
        .bind(alert_at.as_millisecond())
        .execute(&mut *db)
        .await?;
    let (1, Some(detail)) = (done.rows_affected(), below) else {
        return Ok(Ok(Applied::Unchanged));
    };
    let sql = "INSERT INTO alert (kind, deployment, detail, first_at, last_at) \
         VALUES ($1, $2, $3, $4, $4) ON CONFLICT (kind, deployment) WHERE closed_at IS NULL \
         DO UPDATE SET last_at = excluded.last_at, detail = excluded.detail, \
         times = alert.times + 1";
    sqlx::query(sql)
        .bind(domain::AlertKind::ComplianceBelow.word())
        .bind(deployment)
        .bind(detail)
        .bind(at.as_millisecond())
        .execute(db)
        .await?;
    Ok(Ok(Applied::Done))
}
