//! Records that may be one computer, records that were one, and records that are to be forgotten.
//! Compiled once for each database: `super` says which.

use async_trait::async_trait;
use domain::{DeviceId, DeviceState, DeviceTransition, HardwareUuid, RevocationReason, Timestamp};
use sqlx::{QueryBuilder, Row};

use super::collections::push_devices;
use super::deployment_states::{self, share_definitions};
use super::memberships::{evaluate_at_once, hold, leave, mark_due};
use super::reads::{
    DEVICE, EVENT, MOST, after_event, corrupt, device, device_id, event, event_cursor, no_cursor,
    optional_device_id, page, time, word,
};
use super::writes::{Outcome, no_device, revoke_all};
use super::{Database, Db, DbConnection, DbRow, LOCK_ROW, SERIAL_TEXT, results};
use crate::change::{Applied, Conflict, PURGED_AT_ONCE, Purged};
use crate::model::{AuditEvent, ClaimedDevice, Device, DeviceConflict, Page};
use crate::{ReadIdentities, Unavailable};

type Result<T> = std::result::Result<T, Unavailable>;

/// Devices that one step of a purge looks at: so that one statement names them all.
const DEVICES_AT_ONCE: i64 = 500;

/// Two active devices claim the same hardware, and nobody said that they are two. A record is shown
/// with the nearest older one, so that a disk that was cloned a thousand times gives a thousand
/// rows and not half a million. Only hardware that is claimed twice is looked at closer, by the
/// index `device_hardware`.
const CONFLICTS: &str = "SELECT n.hardware_uuid, \
     o.id AS o_id, o.host_name AS o_host_name, o.user_name AS o_user_name, \
     o.enrolled_at AS o_enrolled_at, o.hardware_reported_at AS o_reported_at, os.at AS o_seen, \
     n.id AS n_id, n.host_name AS n_host_name, n.user_name AS n_user_name, \
     n.enrolled_at AS n_enrolled_at, n.hardware_reported_at AS n_reported_at, ns.at AS n_seen \
     FROM (SELECT g.hardware_uuid FROM device g \
     WHERE g.state = 'active' AND g.hardware_uuid IS NOT NULL";

const CONFLICTS_OF_SHARED: &str = " GROUP BY g.hardware_uuid HAVING COUNT(*) > 1) AS shared \
     CROSS JOIN device n JOIN device o ON o.id = (SELECT p.id FROM device p \
     WHERE p.state = 'active' AND p.hardware_uuid IS NOT NULL \
     AND p.hardware_uuid = n.hardware_uuid AND (p.enrolled_at, p.id) < (n.enrolled_at, n.id) \
     AND NOT EXISTS (SELECT 1 FROM device_distinct x WHERE x.a = p.id AND x.b = n.id) \
     AND NOT EXISTS (SELECT 1 FROM device_distinct y WHERE y.a = n.id AND y.b = p.id) \
     ORDER BY p.enrolled_at DESC, p.id DESC LIMIT 1) \
     LEFT JOIN device_seen os ON os.device = o.id LEFT JOIN device_seen ns ON ns.device = n.id \
     WHERE n.hardware_uuid = shared.hardware_uuid \
     AND n.state = 'active' AND n.hardware_uuid IS NOT NULL";

#[async_trait]
impl ReadIdentities for Database {
    async fn device_conflicts(
        &self,
        excluded: &[HardwareUuid],
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeviceConflict>> {
        let limit = limit.min(MOST);
        let after = after.map(conflict_place).transpose()?;
        let mut query = QueryBuilder::<Db>::new(CONFLICTS);
        if let Some((uuid, ..)) = &after {
            query
                .push(" AND g.hardware_uuid >= ")
                .push_bind(uuid.to_string());
        }
        if !excluded.is_empty() {
            query.push(" AND g.hardware_uuid NOT IN (");
            let mut list = query.separated(", ");
            for uuid in excluded {
                list.push_bind(uuid.to_string());
            }
            query.push(")");
        }
        query.push(CONFLICTS_OF_SHARED);
        if let Some((uuid, enrolled_at, device)) = after {
            // Hardware before the cursor's is not among the shared any more. Written so that no index
            // takes it for a range: the one on the hardware is the better one.
            query
                .push(" AND (n.hardware_uuid <> ")
                .push_bind(uuid.to_string());
            query.push(" OR n.enrolled_at > ").push_bind(enrolled_at);
            query
                .push(" OR (n.enrolled_at = ")
                .push_bind(enrolled_at)
                .push(" AND n.id > ")
                .push_bind(device.as_bytes().to_vec())
                .push("))");
        }
        query
            .push(" ORDER BY n.hardware_uuid, n.enrolled_at, n.id LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, conflict, |found| {
            format!(
                "{}/{}/{}",
                found.hardware_uuid,
                found.newer.enrolled_at.as_millisecond(),
                found.newer.id
            )
        })
    }

    async fn earlier_records(
        &self,
        of: DeviceId,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Page<Device>> {
        let limit = limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(EARLIER);
        query
            .push_bind(of.as_bytes().to_vec())
            .push(EARLIER_OF_EARLIER)
            .push(DEVICE)
            .push(" WHERE d.id IN (SELECT e.id FROM earlier e)");
        if let Some(after) = after {
            query
                .push(" AND d.id > ")
                .push_bind(after.as_bytes().to_vec());
        }
        query
            .push(" ORDER BY d.id LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, device, |device| device.id.to_string())
    }

    async fn device_events(
        &self,
        of: DeviceId,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Page<AuditEvent>> {
        let limit = limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(EVENT);
        query
            .push(" WHERE subject IN (SELECT ")
            .push(SERIAL_TEXT)
            .push(" FROM certificate c WHERE c.device = ")
            .push_bind(of.as_bytes().to_vec())
            .push(" UNION ALL SELECT ")
            .push_bind(of.to_string())
            .push(")");
        if let Some(before) = before {
            after_event(query.push(" AND "), before)?;
        }
        query
            .push(" ORDER BY at DESC, segment DESC, number DESC LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, event, event_cursor)
    }
}

/// The records that a device replaced, and those that they replaced. Nobody replaces a computer's
/// record 64 times: it ends there, whatever the records say.
pub(super) const EARLIER: &str = "WITH RECURSIVE earlier (id, depth) AS \
     (SELECT f.id, 1 FROM device f WHERE f.successor = ";
pub(super) const EARLIER_OF_EARLIER: &str = " UNION ALL SELECT b.id, l.depth + 1 FROM device b \
     JOIN earlier l ON b.successor = l.id WHERE l.depth < 64) ";

pub(super) async fn merge(
    db: &mut DbConnection,
    from: DeviceId,
    into: DeviceId,
    at: Timestamp,
) -> Result<Outcome> {
    let held = hold(db, at).await?;
    share_definitions(db).await?;
    // Both rows stay as they are, taken in one order by all nodes: of two merges in opposite
    // directions the second one finds that its goal has ended. So no chain of records has a loop.
    let mut query =
        QueryBuilder::<Db>::new("SELECT id, state, successor FROM device WHERE id IN (");
    push_devices(&mut query, &[from, into]);
    query.push(") ORDER BY id").push(LOCK_ROW);
    let rows = query.build().fetch_all(&mut *db).await?;
    let mut found = Vec::with_capacity(2);
    for row in &rows {
        let state: DeviceState = word(row, "state")?;
        let successor = optional_device_id(row, "successor")?;
        found.push((device_id(row, "id")?, state, successor));
    }
    let record = |wanted| found.iter().find(|(id, ..)| *id == wanted);
    let (Some((_, from_state, successor)), Some((_, into_state, _))) = (record(from), record(into))
    else {
        let missing = if record(from).is_none() { from } else { into };
        return Ok(Err(no_device(missing)));
    };
    match successor {
        Some(successor) if *successor == into => return Ok(Ok(Applied::Unchanged)),
        Some(successor) => return Ok(Err(Conflict::MergedElsewhere(from, *successor))),
        None => {}
    }
    if !matches!(into_state, DeviceState::Active | DeviceState::Blocked) || from == into {
        return Ok(Err(Conflict::MergeInto(*into_state)));
    }
    if let Err(refused) = from_state.after(DeviceTransition::Supersede) {
        return Ok(Err(refused.into()));
    }
    for sql in [
        "UPDATE device SET state = 'obsolete', successor = $2 WHERE id = $1",
        "UPDATE exemption SET device = $2 WHERE device = $1",
        "INSERT INTO collection_direct (collection, device) SELECT n.collection, $2 \
         FROM collection_direct n WHERE n.device = $1 ON CONFLICT DO NOTHING",
    ] {
        sqlx::query(sql)
            .bind(from.as_bytes().to_vec())
            .bind(into.as_bytes().to_vec())
            .execute(&mut *db)
            .await?;
    }
    sqlx::query("DELETE FROM collection_direct WHERE device = $1")
        .bind(from.as_bytes().to_vec())
        .execute(&mut *db)
        .await?;
    let certificates = revoke_all(db, from, RevocationReason::Superseded, at).await?;
    evaluate_at_once(db, &[from, into], held, at).await?;
    // Exemptions came, also where memberships are the same.
    deployment_states::work_out(db, &[into], None, at).await?;
    Ok(Ok(Applied::Revoked { certificates }))
}

pub(super) async fn keep_both(db: &mut DbConnection, a: DeviceId, b: DeviceId) -> Result<Outcome> {
    for device in [a, b] {
        match super::writes::device_state(db, device).await? {
            None => return Ok(Err(no_device(device))),
            Some(DeviceState::Active | DeviceState::Blocked) => {}
            Some(ended) => return Ok(Err(Conflict::DeviceNotActive(ended))),
        }
    }
    let sql = "INSERT INTO device_distinct (a, b) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let done = sqlx::query(sql)
        .bind(a.min(b).as_bytes().to_vec())
        .bind(a.max(b).as_bytes().to_vec())
        .execute(db)
        .await?;
    Ok(Ok(Applied::of_rows(done.rows_affected())))
}

/// Deletes a device and the records that it replaced: they are its history.
pub(super) async fn delete(
    db: &mut DbConnection,
    device: DeviceId,
    at: Timestamp,
) -> Result<Outcome> {
    // Locked first: no other node merges a record into it meanwhile.
    let mut query = QueryBuilder::<Db>::new("SELECT id FROM device WHERE id = ");
    query
        .push_bind(device.as_bytes().to_vec())
        .push(LOCK_ROW)
        .build()
        .fetch_optional(&mut *db)
        .await?;
    let mut query = QueryBuilder::<Db>::new(EARLIER);
    query
        .push_bind(device.as_bytes().to_vec())
        .push(EARLIER_OF_EARLIER)
        .push("SELECT d.id FROM device d WHERE d.id = ")
        .push_bind(device.as_bytes().to_vec())
        .push(" OR d.id IN (SELECT e.id FROM earlier e)");
    let rows = query.build().fetch_all(&mut *db).await?;
    let mut devices = Vec::with_capacity(rows.len());
    for row in &rows {
        devices.push(device_id(row, "id")?);
    }
    if !devices.contains(&device) {
        return Ok(Err(no_device(device)));
    }
    // What is deleted does not count any more.
    hold(db, at).await?;
    leave(db, at, |query| {
        query.push("device IN (");
        push_devices(query, &devices);
        query.push(")");
    })
    .await?;
    let mut deleted = 0;
    let mut certificates = 0;
    mark_due(db, devices.iter().copied()).await?;
    for device in devices {
        // The update takes the row's lock: an issue that is under way finishes first, and is then
        // seen.
        let sql = "UPDATE device SET state = 'deleted', deleted_at = $2 \
             WHERE id = $1 AND state <> 'deleted'";
        let done = sqlx::query(sql)
            .bind(device.as_bytes().to_vec())
            .bind(at.as_millisecond())
            .execute(&mut *db)
            .await?;
        deleted += done.rows_affected();
        let reason = RevocationReason::CessationOfOperation;
        certificates += revoke_all(db, device, reason, at).await?;
    }
    Ok(Ok(if deleted + certificates == 0 {
        Applied::Unchanged
    } else {
        Applied::Revoked { certificates }
    }))
}

/// True for a device that was deleted, and whose record is gone since.
pub(super) async fn is_gone(db: &mut DbConnection, device: DeviceId) -> Result<bool> {
    let row = sqlx::query("SELECT device FROM device_gone WHERE device = $1")
        .bind(device.as_bytes().to_vec())
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// One step. First the details in the audit log, then the certificates, then the records: a step
/// that ends early leaves the record, by which the next one finds the rest.
pub(super) async fn purge(
    db: &mut DbConnection,
    deleted_until: Timestamp,
    expired_until: Timestamp,
    at: Timestamp,
) -> Result<Outcome> {
    let mut purged = Purged::default();
    let sql = "SELECT id FROM device WHERE deleted_at IS NOT NULL AND deleted_at <= $1 \
         ORDER BY deleted_at, id LIMIT $2";
    let rows = sqlx::query(sql)
        .bind(deleted_until.as_millisecond())
        .bind(DEVICES_AT_ONCE)
        .fetch_all(&mut *db)
        .await?;
    let mut devices = Vec::with_capacity(rows.len());
    for row in &rows {
        devices.push(device_id(row, "id")?);
    }
    if !devices.is_empty() {
        purged.entries = erase_details(db, &devices).await?;
        if purged.entries >= u64::from(PURGED_AT_ONCE) {
            purged.more = true;
            return Ok(Ok(Applied::Purged(purged)));
        }
        purged.certificates = remove_certificates(db, &devices, expired_until).await?;
        if purged.certificates >= u64::from(PURGED_AT_ONCE) {
            purged.more = true;
            return Ok(Ok(Applied::Purged(purged)));
        }
        hold(db, at).await?;
        purged.results = results::purge(db, &devices).await?;
        if purged.results >= u64::from(PURGED_AT_ONCE) {
            purged.more = true;
            return Ok(Ok(Applied::Purged(purged)));
        }
        purged.devices = remove_devices(db, &devices, at).await?;
        purged.more = devices.len() as i64 == DEVICES_AT_ONCE;
    }

    // Certificates that a revocation list needed when their devices went.
    let sql = "SELECT device FROM device_gone WHERE certificates_until IS NOT NULL \
         AND certificates_until <= $1 ORDER BY certificates_until LIMIT $2";
    let rows = sqlx::query(sql)
        .bind(expired_until.as_millisecond())
        .bind(DEVICES_AT_ONCE)
        .fetch_all(&mut *db)
        .await?;
    let mut gone = Vec::with_capacity(rows.len());
    for row in &rows {
        gone.push(device_id(row, "device")?);
    }
    if !gone.is_empty() {
        let removed = remove_certificates(db, &gone, expired_until).await?;
        purged.certificates += removed;
        if removed >= u64::from(PURGED_AT_ONCE) {
            purged.more = true;
            return Ok(Ok(Applied::Purged(purged)));
        }
        let mut query = QueryBuilder::<Db>::new(
            "UPDATE device_gone SET certificates_until = NULL WHERE device IN (",
        );
        push_devices(&mut query, &gone);
        query.push(")").build().execute(&mut *db).await?;
        purged.more |= gone.len() as i64 == DEVICES_AT_ONCE;
    }
    let nothing = purged.devices + purged.certificates + purged.entries + purged.results == 0;
    Ok(Ok(if nothing {
        Applied::Unchanged
    } else {
        Applied::Purged(purged)
    }))
}

/// What the log keeps about `devices` and their certificates. The digests stay, and with them the
/// chain.
async fn erase_details(db: &mut DbConnection, devices: &[DeviceId]) -> Result<u64> {
    let mut query = QueryBuilder::<Db>::new(
        "UPDATE audit_event SET payload = NULL WHERE (segment, number) IN \
         (SELECT e.segment, e.number FROM audit_event e WHERE e.payload IS NOT NULL \
         AND e.subject IN (SELECT ",
    );
    query
        .push(SERIAL_TEXT)
        .push(" FROM certificate c WHERE c.device IN (");
    push_devices(&mut query, devices);
    query.push(") UNION ALL SELECT v.column1 FROM (");
    query.push_values(devices, |mut row, device| {
        row.push_bind(device.to_string());
    });
    query
        .push(") AS v) LIMIT ")
        .push_bind(i64::from(PURGED_AT_ONCE))
        .push(")");
    Ok(query.build().execute(db).await?.rows_affected())
}

/// Removes certificates of `devices` that left every revocation list.
async fn remove_certificates(
    db: &mut DbConnection,
    devices: &[DeviceId],
    expired_until: Timestamp,
) -> Result<u64> {
    let mut query = QueryBuilder::<Db>::new(
        "DELETE FROM certificate WHERE serial IN (SELECT c.serial FROM certificate c \
         WHERE c.not_after <= ",
    );
    query
        .push_bind(expired_until.as_millisecond())
        .push(" AND c.device IN (");
    push_devices(&mut query, devices);
    query
        .push(") LIMIT ")
        .push_bind(i64::from(PURGED_AT_ONCE))
        .push(") RETURNING revoked_at");
    let rows = query.build().fetch_all(&mut *db).await?;
    let mut revoked: i64 = 0;
    for row in &rows {
        revoked += i64::from(row.try_get::<Option<i64>, _>("revoked_at")?.is_some());
    }
    if revoked > 0 {
        let sql = "INSERT INTO purged (one, revocations) VALUES (1, $1) \
             ON CONFLICT (one) DO UPDATE SET revocations = purged.revocations + excluded.revocations";
        sqlx::query(sql).bind(revoked).execute(db).await?;
    }
    Ok(rows.len() as u64)
}

async fn remove_devices(db: &mut DbConnection, devices: &[DeviceId], at: Timestamp) -> Result<u64> {
    let mut query = QueryBuilder::<Db>::new(
        "INSERT INTO device_gone (device, certificates_until) SELECT d.id, \
         (SELECT MAX(c.not_after) FROM certificate c WHERE c.device = d.id) \
         FROM device d WHERE d.id IN (",
    );
    push_devices(&mut query, devices);
    query.push(") ON CONFLICT DO NOTHING");
    query.build().execute(&mut *db).await?;
    leave(db, at, |query| {
        query.push("device IN (");
        push_devices(query, devices);
        query.push(")");
    })
    .await?;
    for sql in [
        "DELETE FROM device_seen WHERE device IN (",
        "DELETE FROM collection_direct WHERE device IN (",
        "DELETE FROM membership_due WHERE device IN (",
        "DELETE FROM compliance_device WHERE device IN (",
        "DELETE FROM deployment_state_past WHERE device IN (",
        "DELETE FROM device_distinct WHERE a IN (",
        "DELETE FROM device_distinct WHERE b IN (",
        "DELETE FROM renewal_order WHERE device IN (",
        "DELETE FROM alert WHERE device IN (",
        "DELETE FROM command WHERE device IN (",
        "DELETE FROM exemption WHERE device IN (",
    ] {
        let mut query = QueryBuilder::<Db>::new(sql);
        push_devices(&mut query, devices);
        query.push(")").build().execute(&mut *db).await?;
    }
    let mut query = QueryBuilder::<Db>::new("DELETE FROM device WHERE id IN (");
    push_devices(&mut query, devices);
    let done = query.push(")").build().execute(db).await?;
    Ok(done.rows_affected())
}

fn conflict_place(cursor: &str) -> Result<(HardwareUuid, i64, DeviceId)> {
    let [uuid, enrolled_at, device] = cursor.split('/').collect::<Vec<_>>()[..] else {
        return Err(no_cursor(cursor));
    };
    Ok((
        uuid.parse().map_err(no_cursor)?,
        enrolled_at.parse().map_err(no_cursor)?,
        device.parse().map_err(no_cursor)?,
    ))
}

fn conflict(row: DbRow) -> Result<DeviceConflict> {
    let uuid: String = row.try_get("hardware_uuid")?;
    let claims = ["o_reported_at", "n_reported_at"].map(|column| time(&row, column));
    let [older, newer] = claims;
    Ok(DeviceConflict {
        hardware_uuid: uuid.parse().map_err(corrupt)?,
        older: claimed(
            &row,
            [
                "o_id",
                "o_host_name",
                "o_user_name",
                "o_enrolled_at",
                "o_seen",
            ],
        )?,
        newer: claimed(
            &row,
            [
                "n_id",
                "n_host_name",
                "n_user_name",
                "n_enrolled_at",
                "n_seen",
            ],
        )?,
        found_at: older?.max(newer?),
    })
}

fn claimed(row: &DbRow, [id, host, user, enrolled, seen]: [&str; 5]) -> Result<ClaimedDevice> {
    Ok(ClaimedDevice {
        id: device_id(row, id)?,
        host_name: row.try_get(host)?,
        user_name: row.try_get(user)?,
        enrolled_at: time(row, enrolled)?,
        last_seen: super::reads::optional_time(row, seen)?,
    })
}
