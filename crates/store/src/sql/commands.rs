//! Commands for devices, and what devices say of their policy. Compiled once for each database: `super`
//! says which.

use std::collections::HashMap;

use domain::{DeviceId, DeviceState, KeyDigest, Timestamp};
use protocol::{CommandId, CommandResult, PolicyState};
use sqlx::{QueryBuilder, Row};

use super::writes::{Outcome, device_state, no_device};
use super::{Db, DbConnection};
use crate::Unavailable;
use crate::change::{Actor, Applied, Change, Conflict, Kind};
use crate::compliance::{MOST_WAITING_COMMANDS, NewCommand};

type Result<T> = std::result::Result<T, Unavailable>;

pub(super) async fn issue(
    db: &mut DbConnection,
    new: &NewCommand,
    by: &Actor,
    at: Timestamp,
) -> Result<Outcome> {
    match device_state(db, new.device).await? {
        None => return Ok(Err(no_device(new.device))),
        Some(DeviceState::Active) => {}
        Some(other) => return Ok(Err(Conflict::DeviceNotActive(other))),
    }
    let sql = "SELECT COUNT(*) AS n FROM command \
         WHERE device = $1 AND ended_at IS NULL AND expires_at > $2";
    let row = sqlx::query(sql)
        .bind(new.device.as_bytes().to_vec())
        .bind(at.as_millisecond())
        .fetch_one(&mut *db)
        .await?;
    if row.try_get::<i64, _>("n")? >= MOST_WAITING_COMMANDS {
        let what = "commands that wait for this device";
        return Ok(Err(Conflict::TooMany(MOST_WAITING_COMMANDS, what)));
    }
    // Those whose time passed are not in the way of new ones.
    let _expired = expire(db, new.device, at).await?;
    let sql = "INSERT INTO command \
         (id, device, what, about, document, issued_at, issued_by, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    sqlx::query(sql)
        .bind(new.id.as_bytes().to_vec())
        .bind(new.device.as_bytes().to_vec())
        .bind(new.kind.word())
        .bind(&new.about)
        .bind(&new.document)
        .bind(at.as_millisecond())
        .bind(by.who())
        .bind(new.expires_at.as_millisecond())
        .execute(db)
        .await?;
    Ok(Ok(Applied::Done))
}

/// A device tells it until it is told that it was taken: the first time counts.
pub(super) async fn end(
    db: &mut DbConnection,
    device: DeviceId,
    id: &CommandId,
    result: &CommandResult,
    at: Timestamp,
) -> Result<Outcome> {
    // The device has it no more, and a script may be long.
    let sql = "UPDATE command SET ended_at = $3, done = $4, detail = $5, document = '' \
         WHERE id = $1 AND device = $2 AND done IS NULL";
    let done = sqlx::query(sql)
        .bind(id.as_bytes().to_vec())
        .bind(device.as_bytes().to_vec())
        .bind(at.as_millisecond())
        .bind(i64::from(result.done))
        .bind(&result.detail)
        .execute(&mut *db)
        .await?;
    if done.rows_affected() == 1 {
        return Ok(Ok(Applied::Done));
    }
    let known = sqlx::query("SELECT id FROM command WHERE id = $1 AND device = $2")
        .bind(id.as_bytes().to_vec())
        .bind(device.as_bytes().to_vec())
        .fetch_optional(db)
        .await?;
    Ok(match known {
        Some(_) => Ok(Applied::Unchanged),
        None => Err(Conflict::NotFound(format!("command {id} for this device"))),
    })
}

/// Ends those whose time passed: the device that asks for its commands does not get them any more.
pub(super) async fn expire(
    db: &mut DbConnection,
    device: DeviceId,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "UPDATE command SET ended_at = expires_at, document = '' \
         WHERE device = $1 AND ended_at IS NULL AND expires_at <= $2";
    let done = sqlx::query(sql)
        .bind(device.as_bytes().to_vec())
        .bind(at.as_millisecond())
        .execute(db)
        .await?;
    Ok(Ok(Applied::of_rows(done.rows_affected())))
}

pub(super) async fn note_key(
    db: &mut DbConnection,
    key: &KeyDigest,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "INSERT INTO policy_key (key, noted_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let done = sqlx::query(sql)
        .bind(key.as_bytes().to_vec())
        .bind(at.as_millisecond())
        .execute(db)
        .await?;
    Ok(Ok(Applied::of_rows(done.rows_affected())))
}

/// Records that were restored a second time have the same epoch as the first time: the time is one that no
/// device saw.
pub(super) async fn raise_epoch(db: &mut DbConnection, at: Timestamp) -> Result<Outcome> {
    let sql = "UPDATE policy SET epoch = CASE WHEN epoch + 1 > $1 THEN epoch + 1 ELSE $1 END, \
         counter = counter + 1, objects = objects + 1 WHERE one = 1 RETURNING epoch";
    let row = sqlx::query(sql).bind(at.as_second()).fetch_one(db).await?;
    Ok(Ok(Applied::Numbered(row.try_get("epoch")?)))
}

/// What devices said of their policy. The last word of a device in a batch is the one that counts.
pub(super) async fn report_policy(db: &mut DbConnection, run: &[Change]) -> Result<Vec<Outcome>> {
    let mut last: HashMap<DeviceId, &PolicyState> = HashMap::new();
    for change in run {
        if let Kind::ReportPolicy { device, state } = &change.kind {
            last.insert(*device, state);
        }
    }
    let mut query = QueryBuilder::<Db>::new(
        "UPDATE device SET policy_epoch = v.column2, policy_counter = v.column3, \
         policy_problem = v.column4 FROM (",
    );
    // A version is a device's own word: a number that no list ever had stays within the column.
    let number = |given: u64| i64::try_from(given).unwrap_or(i64::MAX);
    query.push_values(last, |mut row, (device, state)| {
        row.push_bind(device.as_bytes().to_vec())
            .push_bind(number(state.version.epoch))
            .push_bind(number(state.version.counter))
            .push_bind(state.problem.clone());
    });
    query.push(") AS v WHERE device.id = v.column1");
    query.build().execute(db).await?;
    Ok(run.iter().map(|_| Ok(Applied::Done)).collect())
}
