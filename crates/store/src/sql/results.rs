//! Intake of results. Compiled once for each database: `super` says which.
//!
//! The reports of a batch are applied together: what they touch is read, [`ResultSet`] decides, and
//! what changed is written, each with one statement for all devices.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use domain::{ComplianceState, DeviceId, Timestamp};
use sqlx::{QueryBuilder, Row};

use super::collections::push_devices;
use super::deployment_states::{ChangedRules, lock_devices, results_changed, share_definitions};
use super::memberships::evaluated_again;
use super::reads::{bytes, corrupt, device_id};
use super::writes::{Outcome, no_device};
use super::{Db, DbConnection, DbRow, LOCK_ROW, NODE};
use crate::Unavailable;
use crate::change::{Applied, Change, Kind, PURGED_AT_ONCE};
use crate::results::{Finding, Recorded, ResultSet, RuleState, Sequence};

type Result<T> = std::result::Result<T, Unavailable>;

/// Values in one statement: SQLite takes 32,766.
pub(super) const BINDS: usize = 30_000;

/// A device's reports of a batch.
struct Reported<'a> {
    /// None for one that never reported before.
    number: Option<i64>,
    sequence: Sequence,
    is_new: bool,
    evaluated_at: Timestamp,
    not_before: Timestamp,
    changes: Vec<&'a crate::results::ResultsChange>,
    at: Timestamp,
}

/// Applies neighbouring reports.
pub(super) async fn report(db: &mut DbConnection, run: &[Change]) -> Result<Vec<Outcome>> {
    let reports: Vec<_> = run
        .iter()
        .filter_map(|change| match &change.kind {
            Kind::ReportResults(report) => Some((report, change.at)),
            _ => None,
        })
        .collect();
    let devices: BTreeSet<DeviceId> = reports.iter().map(|(report, _)| report.device).collect();
    let devices: Vec<DeviceId> = devices.into_iter().collect();
    share_definitions(db).await?;
    let there = present(db, &devices).await?;
    let mut recorded = recorded(db, &devices).await?;

    // Which changes count.
    let mut reported: BTreeMap<DeviceId, Reported<'_>> = BTreeMap::new();
    let mut outcomes = Vec::with_capacity(reports.len());
    for (report, at) in &reports {
        if !there.contains(&report.device) {
            outcomes.push(Err(no_device(report.device)));
            continue;
        }
        let entry = reported.entry(report.device).or_insert_with(|| {
            let found = recorded.remove(&report.device);
            Reported {
                number: found.map(|(number, ..)| number),
                sequence: Sequence::new(found.map(|(_, recorded, _)| recorded)),
                is_new: found.is_none(),
                evaluated_at: found.map_or(Timestamp::UNIX_EPOCH, |(.., evaluated)| evaluated),
                not_before: report.not_before,
                changes: Vec::new(),
                at: *at,
            }
        });
        let (changes, wants_whole) = entry.sequence.take(report);
        let (applied, recorded) = (!changes.is_empty(), entry.sequence.recorded());
        entry.changes.extend(changes);
        let recorded = recorded.filter(|recorded| recorded.stream == report.stream);
        if recorded.is_some() {
            entry.evaluated_at = entry.evaluated_at.max(report.evaluated_at);
        }
        entry.at = entry.at.max(*at);
        outcomes.push(Ok(Applied::Results {
            applied,
            recorded: recorded.map(|recorded| (recorded.sequence, recorded.digest)),
            wants_whole,
        }));
    }
    reported.retain(|_, device| device.sequence.recorded().is_some());

    let new = add_devices(db, &reported).await?;
    for (device, number) in &new {
        if let Some(reported) = reported.get_mut(device) {
            reported.number = Some(*number);
        }
    }
    let changed = apply(db, &reported, &new).await?;
    let evaluated: Vec<(DeviceId, Timestamp)> = reported
        .iter()
        .map(|(device, reported)| (*device, reported.evaluated_at))
        .collect();
    evaluated_again(db, &evaluated).await?;
    record_sequences(db, &reported).await?;
    if let Some(at) = reports.iter().map(|(_, at)| *at).max() {
        results_changed(db, &changed, at).await?;
    }
    Ok(outcomes)
}

/// Reads what the changes touch, applies them, and writes what is different. Returns what changed.
async fn apply(
    db: &mut DbConnection,
    reported: &BTreeMap<DeviceId, Reported<'_>>,
    new: &HashMap<DeviceId, i64>,
) -> Result<ChangedRules> {
    let of_device = |id: &DeviceId| reported[id].changes.iter().copied();
    let touched = || reported.keys().flat_map(of_device);
    let known = known_rules(
        db,
        &touched()
            .flat_map(|change| change.results.iter().map(|result| result.rule))
            .collect(),
    )
    .await?;
    let findings: BTreeSet<&Finding> = touched()
        .flat_map(|change| &change.results)
        .filter(|result| known.contains(&result.rule))
        .filter_map(|result| result.finding.as_ref())
        .collect();
    let findings = intern(db, &findings).await?;

    // What there is of them. A whole set touches all of the device's rules.
    let mut whole = Vec::new();
    let mut pairs = Vec::new();
    for (id, device) in reported {
        let Some(number) = device.number.filter(|_| !new.contains_key(id)) else {
            continue;
        };
        if device.changes.iter().any(|change| change.whole) {
            whole.push(number);
            continue;
        }
        let rules: BTreeSet<i64> = of_device(id)
            .flat_map(|change| {
                let results = change.results.iter().map(|result| result.rule);
                results.chain(change.gone.iter().copied())
            })
            .collect();
        pairs.extend(rules.into_iter().map(|rule| (number, rule)));
    }
    let mut current = current(db, &whole, &pairs).await?;
    let none = BTreeMap::new();
    let mut differing = Vec::new();
    for (id, device) in reported {
        let Some(number) = device.number.filter(|_| !new.contains_key(id)) else {
            continue;
        };
        let current = current.get(&number).unwrap_or(&none);
        let rules: BTreeSet<i64> = of_device(id)
            .flat_map(|change| &change.results)
            .filter(|result| {
                current
                    .get(&result.rule)
                    .is_none_or(|state| state.state != result.state)
            })
            .map(|result| result.rule)
            .collect();
        differing.extend(rules.into_iter().map(|rule| {
            let state = current
                .get(&rule)
                .map_or(0, |state| i64::from(state.state.code()));
            (number, rule, state)
        }));
    }
    let mut ended = ended(db, &differing).await?;

    let mut changed = ChangedRules::new();
    let mut written = Written::default();
    for (id, device) in reported {
        let Some(number) = device.number else {
            continue;
        };
        let mut set = ResultSet::new(
            device.at,
            device.not_before,
            current.remove(&number).unwrap_or_default(),
            ended.remove(&number).unwrap_or_default(),
        );
        for change in &device.changes {
            set.apply(change, &known, |finding| findings.get(finding).copied());
        }
        written.take(number, &set, device.at);
        let states = set.changed().map(|(rule, state)| (rule, Some(state.state)));
        let of_device: BTreeMap<_, _> = states
            .chain(set.removed().map(|rule| (rule, None)))
            .collect();
        if !of_device.is_empty() {
            changed.insert(*id, of_device);
        }
    }
    written.write(db).await?;
    Ok(changed)
}

/// The rows that a batch writes.
#[derive(Default)]
struct Written {
    states: Vec<(i64, i64, RuleState)>,
    removed: Vec<(i64, i64)>,
    past: Vec<(i64, crate::results::PastState)>,
    /// For each day and rule.
    counted: BTreeMap<(i64, i64), (i64, i64)>,
}

impl Written {
    fn take(&mut self, number: i64, set: &ResultSet, at: Timestamp) {
        self.states
            .extend(set.changed().map(|(rule, state)| (number, rule, state)));
        self.removed
            .extend(set.removed().map(|rule| (number, rule)));
        self.past
            .extend(set.past.iter().map(|past| (number, *past)));
        let day = at.as_second().div_euclid(86_400);
        for (rule, (changes, returns)) in &set.counted {
            let sum = self.counted.entry((day, *rule)).or_default();
            sum.0 += changes;
            sum.1 += returns;
        }
    }

    async fn write(self, db: &mut DbConnection) -> Result<()> {
        for some in self.past.chunks(BINDS / 6) {
            let mut query = QueryBuilder::<Db>::new(
                "INSERT INTO rule_state_past (device, rule, until, since, value, state) ",
            );
            query.push_values(some, |mut row, (device, past)| {
                row.push_bind(*device)
                    .push_bind(past.rule)
                    .push_bind(past.until)
                    .push_bind(past.was.since)
                    .push_bind(past.was.finding)
                    .push_bind(i64::from(past.was.state.code()));
            });
            query.push(" ON CONFLICT DO NOTHING");
            query.build().persistent(false).execute(&mut *db).await?;
        }
        for some in self.states.chunks(BINDS / 5) {
            let mut query = QueryBuilder::<Db>::new(
                "INSERT INTO rule_state (device, rule, since, value, state) ",
            );
            query.push_values(some, |mut row, (device, rule, state)| {
                row.push_bind(*device)
                    .push_bind(*rule)
                    .push_bind(state.since)
                    .push_bind(state.finding)
                    .push_bind(i64::from(state.state.code()));
            });
            query.push(
                " ON CONFLICT (device, rule) DO UPDATE SET since = excluded.since, \
                 value = excluded.value, state = excluded.state",
            );
            query.build().persistent(false).execute(&mut *db).await?;
        }
        for some in self.removed.chunks(BINDS / 2) {
            let mut query =
                QueryBuilder::<Db>::new("DELETE FROM rule_state WHERE (device, rule) IN (");
            query.push_values(some, |mut row, (device, rule)| {
                row.push_bind(*device).push_bind(*rule);
            });
            let query = query.push(")").build().persistent(false);
            query.execute(&mut *db).await?;
        }
        let counted: Vec<_> = self.counted.into_iter().collect();
        for some in counted.chunks(BINDS / 4) {
            let mut query = QueryBuilder::<Db>::new(
                "INSERT INTO rule_change (day, rule, node, changes, returns) \
                 SELECT v.column1, v.column2, ",
            );
            query.push(NODE).push(", v.column3, v.column4 FROM (");
            query.push_values(some, |mut row, ((day, rule), (changes, returns))| {
                row.push_bind(*day)
                    .push_bind(*rule)
                    .push_bind(*changes)
                    .push_bind(*returns);
            });
            query.push(
                ") AS v WHERE true ON CONFLICT (day, rule, node) DO UPDATE SET \
                 changes = rule_change.changes + excluded.changes, \
                 returns = rule_change.returns + excluded.returns",
            );
            query.build().persistent(false).execute(&mut *db).await?;
        }
        Ok(())
    }
}

/// Those of `devices` that are there. They stay as they are until the transaction's end: whoever works
/// out their states waits.
async fn present(db: &mut DbConnection, devices: &[DeviceId]) -> Result<HashSet<DeviceId>> {
    let mut query =
        QueryBuilder::<Db>::new("SELECT id FROM device WHERE state <> 'deleted' AND id IN (");
    push_devices(&mut query, devices);
    query.push(") ORDER BY id").push(LOCK_ROW);
    let rows = query.build().fetch_all(db).await?;
    rows.iter().map(|row| device_id(row, "id")).collect()
}

/// The devices' numbers, what is recorded, and when they evaluated.
async fn recorded(
    db: &mut DbConnection,
    devices: &[DeviceId],
) -> Result<HashMap<DeviceId, (i64, Recorded, Timestamp)>> {
    let mut query = QueryBuilder::<Db>::new(
        "SELECT number, device, stream, sequence, digest, evaluated_at FROM compliance_device \
         WHERE device IN (",
    );
    push_devices(&mut query, devices);
    let rows = query.push(")").build().fetch_all(db).await?;
    let read = |row: &DbRow| {
        let recorded = Recorded {
            stream: bytes(row, "stream")?,
            sequence: row.try_get("sequence")?,
            digest: bytes(row, "digest")?,
        };
        let evaluated_at = super::reads::time(row, "evaluated_at")?;
        let found = (row.try_get("number")?, recorded, evaluated_at);
        Ok((device_id(row, "device")?, found))
    };
    rows.iter().map(read).collect()
}

/// Gives numbers to devices that report for the first time.
async fn add_devices(
    db: &mut DbConnection,
    reported: &BTreeMap<DeviceId, Reported<'_>>,
) -> Result<HashMap<DeviceId, i64>> {
    let new: Vec<_> = reported
        .iter()
        .filter(|(_, device)| device.number.is_none())
        .filter_map(|(id, device)| Some((id, device, device.sequence.recorded()?)))
        .collect();
    if new.is_empty() {
        return Ok(HashMap::new());
    }
    let mut query = QueryBuilder::<Db>::new(
        "INSERT INTO compliance_device (device, stream, sequence, digest, evaluated_at) ",
    );
    query.push_values(new, |mut row, (id, device, recorded)| {
        row.push_bind(id.as_bytes().to_vec())
            .push_bind(recorded.stream.to_vec())
            .push_bind(recorded.sequence)
            .push_bind(recorded.digest.to_vec())
            .push_bind(device.evaluated_at.as_millisecond());
    });
    query.push(" RETURNING device, number");
    let rows = query.build().fetch_all(db).await?;
    rows.iter()
        .map(|row| Ok((device_id(row, "device")?, row.try_get("number")?)))
        .collect()
}

async fn record_sequences(
    db: &mut DbConnection,
    reported: &BTreeMap<DeviceId, Reported<'_>>,
) -> Result<()> {
    let moved: Vec<_> = reported
        .values()
        .filter(|device| !device.is_new)
        .filter_map(|device| Some((device, device.number?, device.sequence.recorded()?)))
        .collect();
    if moved.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Db>::new(
        "UPDATE compliance_device SET stream = v.column2, sequence = v.column3, \
         digest = v.column4, evaluated_at = v.column5 FROM (",
    );
    query.push_values(moved, |mut row, (device, number, recorded)| {
        row.push_bind(number)
            .push_bind(recorded.stream.to_vec())
            .push_bind(recorded.sequence)
            .push_bind(recorded.digest.to_vec())
            .push_bind(device.evaluated_at.as_millisecond());
    });
    query.push(") AS v WHERE compliance_device.number = v.column1");
    query.build().execute(db).await?;
    Ok(())
}

/// Rules that are not known do not count: a device cannot fill the tables with its own.
async fn known_rules(db: &mut DbConnection, asked: &BTreeSet<i64>) -> Result<HashSet<i64>> {
    let mut known = HashSet::new();
    let asked: Vec<i64> = asked.iter().copied().collect();
    for some in asked.chunks(BINDS) {
        let mut query = QueryBuilder::<Db>::new("SELECT id FROM rule WHERE id IN (");
        let mut list = query.separated(", ");
        for rule in some {
            list.push_bind(*rule);
        }
        let query = query.push(")").build().persistent(false);
        for row in query.fetch_all(&mut *db).await? {
            known.insert(row.try_get("id")?);
        }
    }
    let unknown = asked.len() - known.len();
    if unknown > 0 {
        metrics::counter!("store_unknown_rules_total").increment(unknown as u64);
    }
    Ok(known)
}

/// The numbers of what was found, made where there is none.
async fn intern<'a>(
    db: &mut DbConnection,
    findings: &BTreeSet<&'a Finding>,
) -> Result<HashMap<&'a Finding, i64>> {
    // In one order on every node: two nodes that add the same do not deadlock.
    let by_digest: BTreeMap<[u8; 16], &Finding> = findings
        .iter()
        .map(|finding| (digest(finding), *finding))
        .collect();
    let mut numbers = numbers(db, by_digest.keys()).await?;
    let missing: Vec<_> = by_digest
        .iter()
        .filter(|(digest, _)| !numbers.contains_key(*digest))
        .collect();
    for some in missing.chunks(BINDS / 3) {
        let mut query = QueryBuilder::<Db>::new("INSERT INTO value (digest, text, reason) ");
        query.push_values(some, |mut row, (digest, finding)| {
            row.push_bind(digest.to_vec())
                .push_bind(finding.value.clone())
                .push_bind(finding.reason.clone());
        });
        query.push(" ON CONFLICT (digest) DO NOTHING");
        query.build().persistent(false).execute(&mut *db).await?;
    }
    if !missing.is_empty() {
        let missing = missing.iter().map(|(digest, _)| *digest);
        numbers.extend(self::numbers(db, missing).await?);
    }
    Ok(by_digest
        .into_iter()
        .filter_map(|(digest, finding)| Some((finding, *numbers.get(&digest)?)))
        .collect())
}

/// Whatever is read here is not taken away before the transaction's end.
async fn numbers(
    db: &mut DbConnection,
    digests: impl Iterator<Item = &[u8; 16]>,
) -> Result<HashMap<[u8; 16], i64>> {
    let digests: Vec<_> = digests.collect();
    let mut found = HashMap::new();
    for some in digests.chunks(BINDS) {
        let mut query = QueryBuilder::<Db>::new("SELECT digest, id FROM value WHERE digest IN (");
        let mut list = query.separated(", ");
        for digest in some {
            list.push_bind(digest.to_vec());
        }
        query.push(") ORDER BY digest").push(super::SHARE_KEY);
        for row in query.build().persistent(false).fetch_all(&mut *db).await? {
            found.insert(bytes(&row, "digest")?, row.try_get("id")?);
        }
    }
    Ok(found)
}

fn digest(finding: &Finding) -> [u8; 16] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for text in [&finding.value, &finding.reason] {
        // Its length first, so that two texts are not another two.
        let length = text.as_ref().map_or(u64::MAX, |text| text.len() as u64);
        context.update(&length.to_be_bytes());
        context.update(text.as_deref().unwrap_or_default().as_bytes());
    }
    let digest = context.finish();
    digest.as_ref()[..16].try_into().expect("SHA-256 is longer")
}

const RULE_STATE: &str = "SELECT CAST(s.device AS BIGINT) AS device, \
     CAST(s.rule AS BIGINT) AS rule, s.since, CAST(s.value AS BIGINT) AS value, \
     CAST(s.state AS BIGINT) AS state";

/// All rules of the devices `whole`, and `pairs` of device and rule.
async fn current(
    db: &mut DbConnection,
    whole: &[i64],
    pairs: &[(i64, i64)],
) -> Result<HashMap<i64, BTreeMap<i64, RuleState>>> {
    let mut rows = Vec::new();
    for some in whole.chunks(BINDS) {
        let mut query = QueryBuilder::<Db>::new(RULE_STATE);
        query.push(" FROM rule_state s WHERE s.device IN (");
        let mut list = query.separated(", ");
        for device in some {
            list.push_bind(*device);
        }
        let query = query.push(")").build().persistent(false);
        rows.extend(query.fetch_all(&mut *db).await?);
    }
    for some in pairs.chunks(BINDS / 2) {
        let mut query = QueryBuilder::<Db>::new(RULE_STATE);
        push_pairs(query.push(" FROM ("), some);
        query.push(
            ") AS v CROSS JOIN rule_state s WHERE s.device = v.column1 AND s.rule = v.column2",
        );
        rows.extend(query.build().persistent(false).fetch_all(&mut *db).await?);
    }
    let mut current: HashMap<i64, BTreeMap<i64, RuleState>> = HashMap::new();
    for row in &rows {
        let state = RuleState {
            state: state(row, "state")?,
            finding: row.try_get("value")?,
            since: row.try_get("since")?,
        };
        let of_device = current.entry(row.try_get("device")?).or_default();
        of_device.insert(row.try_get("rule")?, state);
    }
    Ok(current)
}

/// When the last intervals of pairs of device and rule ended, and the state before the present one: that
/// is the third of them, 0 for none.
async fn ended(
    db: &mut DbConnection,
    pairs: &[(i64, i64, i64)],
) -> Result<HashMap<i64, HashMap<i64, (i64, ComplianceState)>>> {
    let mut ended: HashMap<i64, HashMap<i64, (i64, ComplianceState)>> = HashMap::new();
    for some in pairs.chunks(BINDS / 3) {
        let mut query = QueryBuilder::<Db>::new(
            "SELECT CAST(p.device AS BIGINT) AS device, CAST(p.rule AS BIGINT) AS rule, p.until, \
             CAST(CASE WHEN p.state <> v.column3 THEN p.state ELSE COALESCE((SELECT b.state \
             FROM rule_state_past b WHERE b.device = v.column1 AND b.rule = v.column2 \
             AND b.state <> v.column3 ORDER BY b.until DESC LIMIT 1), p.state) END AS BIGINT) \
             AS state FROM (",
        );
        query.push_values(some, |mut row, (device, rule, state)| {
            row.push_bind(*device).push_bind(*rule).push_bind(*state);
        });
        query.push(
            ") AS v CROSS JOIN rule_state_past p WHERE p.device = v.column1 \
             AND p.rule = v.column2 AND p.until = (SELECT MAX(l.until) FROM rule_state_past l \
             WHERE l.device = v.column1 AND l.rule = v.column2)",
        );
        for row in query.build().persistent(false).fetch_all(&mut *db).await? {
            let end = (row.try_get("until")?, state(&row, "state")?);
            let of_device = ended.entry(row.try_get("device")?).or_default();
            of_device.insert(row.try_get("rule")?, end);
        }
    }
    Ok(ended)
}

fn push_pairs(query: &mut QueryBuilder<Db>, pairs: &[(i64, i64)]) {
    query.push_values(pairs, |mut row, (device, rule)| {
        row.push_bind(*device).push_bind(*rule);
    });
}

/// A state that was read with its code as BIGINT.
pub(super) fn state(row: &DbRow, column: &str) -> Result<ComplianceState> {
    optional_state(row, column)?.ok_or_else(|| corrupt(format!("{column} is missing")))
}

pub(super) fn optional_state(row: &DbRow, column: &str) -> Result<Option<ComplianceState>> {
    let code: Option<i64> = row.try_get(column)?;
    code.map(|code| {
        i16::try_from(code)
            .ok()
            .and_then(ComplianceState::from_code)
            .ok_or_else(|| corrupt(format!("there is no compliance state {code}")))
    })
    .transpose()
}

/// Removes what `devices` reported, at most [`PURGED_AT_ONCE`] rows. Returns how many: less than that
/// means that nothing is left.
pub(super) async fn purge(db: &mut DbConnection, devices: &[DeviceId]) -> Result<u64> {
    lock_devices(db, devices).await?;
    let mut removed = 0;
    for sql in [
        "DELETE FROM rule_state_past WHERE (device, rule, until) IN (SELECT p.device, p.rule, p.until \
         FROM compliance_device c JOIN rule_state_past p ON p.device = c.number WHERE c.device IN (",
        "DELETE FROM rule_state WHERE (device, rule) IN (SELECT s.device, s.rule \
         FROM compliance_device c JOIN rule_state s ON s.device = c.number WHERE c.device IN (",
        "DELETE FROM deployment_state_past WHERE (device, deployment, until) IN \
         (SELECT p.device, p.deployment, p.until FROM deployment_state_past p WHERE p.device IN (",
    ] {
        let left = i64::from(PURGED_AT_ONCE) - i64::try_from(removed).unwrap_or(i64::MAX);
        let mut query = QueryBuilder::<Db>::new(sql);
        push_devices(&mut query, devices);
        query.push(") LIMIT ").push_bind(left).push(")");
        removed += query.build().execute(&mut *db).await?.rows_affected();
    }
    Ok(removed)
}
