//! One transaction of the writer. Compiled once for each database: `super` says which.
//!
//! Changes that come in numbers (renewals, first uses, facts) are written by one statement for all
//! neighbours of a kind; the rest one by one.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use domain::fault::step;
use domain::filter::{TextField, VersionField};
use domain::{
    CertificateState, DeviceFacts, DeviceId, DeviceState, DeviceTransition, RevocationReason,
    SerialNumber, Timestamp,
};
use sqlx::{Connection, QueryBuilder, Row};

use super::memberships::mark_due;
use super::reads::{CERTIFICATE, certificate, device_id, serial, word};
use super::{BEGIN, Database, Db, DbConnection, LOCK_DEVICE_ROWS};
use super::{
    collections, commands, compliance, deployment_states, identity, memberships, renewal_orders,
    results,
};
use crate::Unavailable;
use crate::change::{Applied, Change, Conflict, Kind, NewCertificate, NewDevice};
use crate::model::{AuditEvent, Certificate, Segment};
use crate::writer::{Backend, Recorded};

type Result<T> = std::result::Result<T, Unavailable>;
pub(super) type Outcome = std::result::Result<Applied, Conflict>;

/// Rows that one statement writes at most, with up to twelve values each: SQLite takes 32,766 values,
/// PostgreSQL 65,535.
const ROWS_AT_ONCE: usize = 2_000;

#[async_trait]
impl Backend for Database {
    async fn transact(
        &self,
        changes: &[Change],
        record: &mut (dyn for<'a> FnMut(&'a Vec<Outcome>) -> Recorded + Send),
    ) -> Result<Vec<Outcome>> {
        let mut connection = self.writer.acquire().await?;
        let mut transaction = connection.begin_with(BEGIN).await?;
        let mut outcomes = Vec::with_capacity(changes.len());
        let mut rest = changes;
        while let Some(first) = rest.first() {
            let kind = std::mem::discriminant(&first.kind);
            let run = rest
                .iter()
                .take(ROWS_AT_ONCE)
                .take_while(|change| std::mem::discriminant(&change.kind) == kind)
                .count();
            let (run, later) = rest.split_at(run);
            outcomes.extend(apply_run(&mut transaction, run).await?);
            rest = later;
        }
        let recorded = record(&outcomes);
        if let Some(segment) = &recorded.segment {
            append_segment(&mut transaction, segment).await?;
        }
        append_events(&mut transaction, &recorded.events).await?;
        step("applied");
        transaction.commit().await?;
        step("committed");
        Ok(outcomes)
    }
}

/// Applies neighbours of one kind.
async fn apply_run(db: &mut DbConnection, run: &[Change]) -> Result<Vec<Outcome>> {
    match &run[0].kind {
        Kind::Renew { .. } => {
            let issues: Vec<_> = run
                .iter()
                .filter_map(|change| match &change.kind {
                    Kind::Renew {
                        certificate,
                        replaces,
                        ..
                    } => Some(Issue {
                        certificate,
                        at: change.at,
                        replaces: Some(*replaces),
                    }),
                    _ => None,
                })
                .collect();
            issue(db, &issues).await
        }
        Kind::UseCertificate { .. } => use_certificates(db, run).await,
        Kind::ReportFacts { .. } => report_facts(db, run).await,
        Kind::ReportPolicy { .. } => commands::report_policy(db, run).await,
        Kind::ReportResults(_) => results::report(db, run).await,
        _ => {
            let mut outcomes = Vec::with_capacity(run.len());
            for change in run {
                outcomes.push(apply_one(db, change).await?);
            }
            Ok(outcomes)
        }
    }
}

async fn apply_one(db: &mut DbConnection, change: &Change) -> Result<Outcome> {
    let at = change.at.as_millisecond();
    match &change.kind {
        Kind::AddAccount(account) => {
            let sql = "INSERT INTO account (id, name, common_name, password_hash, created_at) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
            let done = sqlx::query(sql)
                .bind(&account.id)
                .bind(&account.name)
                .bind(&account.common_name)
                .bind(&account.password_hash)
                .bind(at)
                .execute(db)
                .await?;
            Ok(one_row(done.rows_affected(), || {
                Conflict::Exists(format!("the account `{}`", account.name))
            }))
        }
        Kind::SetPassword {
            name,
            password_hash,
        } => {
            let done = sqlx::query("UPDATE account SET password_hash = $2 WHERE name = $1")
                .bind(name)
                .bind(password_hash)
                .execute(db)
                .await?;
            Ok(one_row(done.rows_affected(), || no_account(name)))
        }
        Kind::RemoveAccount { name } => {
            let done = sqlx::query("DELETE FROM account WHERE name = $1")
                .bind(name)
                .execute(db)
                .await?;
            Ok(one_row(done.rows_affected(), || no_account(name)))
        }
        Kind::AddToken(token) => {
            if token.replaces {
                sqlx::query("DELETE FROM token WHERE name = $1")
                    .bind(&token.name)
                    .execute(&mut *db)
                    .await?;
            }
            let sql = "INSERT INTO token (digest, name, role, created_at, expires_at) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
            let done = sqlx::query(sql)
                .bind(token.digest.as_bytes().to_vec())
                .bind(&token.name)
                .bind(token.role.word())
                .bind(at)
                .bind(token.expires_at.map(|end| end.as_millisecond()))
                .execute(db)
                .await?;
            Ok(one_row(done.rows_affected(), || {
                Conflict::Exists(format!("the token `{}`", token.name))
            }))
        }
        Kind::Enroll {
            device,
            certificate,
        } => enroll(db, device, certificate, change.at).await,
        Kind::Transition {
            device,
            transition,
            revoke,
        } => transit(db, *device, *transition, *revoke, change.at).await,
        Kind::RevokeCertificate { serial, reason } => {
            revoke_certificate(db, *serial, *reason, change.at).await
        }
        Kind::DeleteDevice { device } => identity::delete(db, *device, change.at).await,
        Kind::PublishCrl {
            number,
            this_update,
            next_update,
            revocations,
            der,
        } => {
            let sql = "INSERT INTO crl (one, number, this_update, next_update, revocations, der) \
                 VALUES (1, $1, $2, $3, $4, $5) ON CONFLICT (one) DO UPDATE SET number = excluded.number, \
                 this_update = excluded.this_update, next_update = excluded.next_update, \
                 revocations = excluded.revocations, \
                 der = excluded.der WHERE crl.number < excluded.number";
            let done = sqlx::query(sql)
                .bind(number)
                .bind(this_update.as_millisecond())
                .bind(next_update.as_millisecond())
                .bind(*revocations)
                .bind(der.clone())
                .execute(db)
                .await?;
            Ok(one_row(done.rows_affected(), || Conflict::CrlNumber))
        }
        Kind::AllowRenewal { device, until } => {
            let sql = "UPDATE device SET renewal_allowed_until = $2 WHERE id = $1 \
                 AND state = 'active'";
            let done = sqlx::query(sql)
                .bind(device.as_bytes().to_vec())
                .bind(until.as_millisecond())
                .execute(&mut *db)
                .await?;
            if done.rows_affected() == 1 {
                return Ok(Ok(Applied::Done));
            }
            Ok(Err(match device_state(db, *device).await? {
                None => no_device(*device),
                Some(state) => Conflict::DeviceNotActive(state),
            }))
        }
        Kind::RaiseAlert {
            alert,
            device,
            detail,
        } => {
            let sql = "INSERT INTO alert (kind, device, detail, first_at, last_at) \
                 VALUES ($1, $2, $3, $4, $4) ON CONFLICT (kind, device) WHERE closed_at IS NULL \
                 DO UPDATE SET last_at = excluded.last_at, detail = excluded.detail, \
                 times = alert.times + 1";
            sqlx::query(sql)
                .bind(alert.word())
                .bind(device.as_bytes().to_vec())
                .bind(detail)
                .bind(at)
                .execute(db)
                .await?;
            Ok(Ok(Applied::Done))
        }
        Kind::RaiseSiteAlert { alert, detail } => {
            let sql = "INSERT INTO alert (kind, detail, first_at, last_at) \
                 SELECT v.kind, CAST($2 AS TEXT), CAST($3 AS BIGINT), CAST($3 AS BIGINT) \
                 FROM (SELECT CAST($1 AS TEXT) AS kind) v WHERE NOT EXISTS \
                 (SELECT 1 FROM alert a WHERE a.kind = v.kind AND a.closed_at IS NULL)";
            let done = sqlx::query(sql)
                .bind(alert.word())
                .bind(detail)
                .bind(at)
                .execute(db)
                .await?;
            Ok(Ok(Applied::of_rows(done.rows_affected())))
        }
        Kind::CloseAlert { number } => {
            let sql = "UPDATE alert SET closed_at = $2 WHERE number = $1 AND closed_at IS NULL";
            let done = sqlx::query(sql).bind(*number).bind(at).execute(db).await?;
            Ok(one_row(done.rows_affected(), || {
                Conflict::NotFound(format!("open alert {number}"))
            }))
        }
        Kind::Noted(_) => Ok(Ok(Applied::Done)),
        Kind::CreateCollection { name, rules } => {
            collections::create(db, name, rules, change.at).await
        }
        Kind::SetCollectionRules { name, rules } => {
            collections::set_rules(db, name, rules, change.at).await
        }
        Kind::DeleteCollection { name } => collections::delete(db, name, change.at).await,
        Kind::AddMembers {
            collection,
            devices,
        } => collections::add(db, collection, devices, change.at).await,
        Kind::RemoveMembers {
            collection,
            devices,
        } => collections::remove(db, collection, devices, change.at).await,
        Kind::SetRenewalWindow {
            scope,
            window,
            explanation_url,
        } => renewal_orders::set(db, scope, *window, explanation_url.as_ref(), change.at).await,
        Kind::RemoveRenewalWindow { number } => renewal_orders::remove(db, *number).await,
        Kind::MergeDevices { from, into } => identity::merge(db, *from, *into, change.at).await,
        Kind::KeepBoth { a, b } => identity::keep_both(db, *a, *b).await,
        Kind::PurgeDevices {
            deleted_until,
            expired_until,
        } => identity::purge(db, *deleted_until, *expired_until, change.at).await,
        Kind::Object(object) => compliance::apply(db, object, &change.by, change.at).await,
        Kind::IssueCommand(new) => commands::issue(db, new, &change.by, change.at).await,
        Kind::EndCommand { device, id, result } => {
            commands::end(db, *device, id, result, change.at).await
        }
        Kind::ExpireCommands { device } => commands::expire(db, *device, change.at).await,
        Kind::NotePolicyKey { key, .. } => commands::note_key(db, key, change.at).await,
        Kind::RaiseEpoch => commands::raise_epoch(db, change.at).await,
        Kind::Renew { .. }
        | Kind::UseCertificate { .. }
        | Kind::ReportFacts { .. }
        | Kind::ReportPolicy { .. }
        | Kind::ReportResults(_) => {
            unreachable!("these kinds are written in sets")
        }
        Kind::WorkOutDeployments => deployment_states::work_out_due(db, change.at).await,
        Kind::EndExemptions => deployment_states::end_exemptions(db, change.at).await,
        Kind::JudgeCompliance {
            deployment,
            alert_at,
            below,
        } => {
            deployment_states::judge(db, *deployment, *alert_at, below.as_deref(), change.at).await
        }
        Kind::EvaluateDevices { most } => memberships::evaluate_due(db, *most, change.at).await,
        Kind::EvaluateCollections { most } => {
            memberships::evaluate_collections(db, *most, change.at).await
        }
        Kind::SweepMemberships => memberships::sweep(db, change.at).await,
    }
}

pub(super) fn one_row(rows: u64, conflict: impl FnOnce() -> Conflict) -> Outcome {
    if rows == 1 {
        Ok(Applied::Done)
    } else {
        Err(conflict())
    }
}

fn no_account(name: &str) -> Conflict {
    Conflict::NotFound(format!("account `{name}`"))
}

pub(super) fn no_device(device: DeviceId) -> Conflict {
    Conflict::NotFound(format!("device {device}"))
}

/// Records the device if it is new, then its certificate.
async fn enroll(
    db: &mut DbConnection,
    device: &NewDevice,
    certificate: &NewCertificate,
    at: Timestamp,
) -> Result<Outcome> {
    let state = device_state(db, device.id).await?;
    // A device that was deleted does not come back with its old key.
    if state == Some(DeviceState::Deleted)
        || (state.is_none() && identity::is_gone(db, device.id).await?)
    {
        return Ok(Err(Conflict::KeySpent));
    }
    if state.is_none() {
        let sql = "INSERT INTO device (id, state, owner, user_name, enrolled_at, predecessor) \
             VALUES ($1, 'active', $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        sqlx::query(sql)
            .bind(device.id.as_bytes().to_vec())
            .bind(&device.owner)
            .bind(&device.user_name)
            .bind(at.as_millisecond())
            .bind(device.predecessor.map(|device| device.as_bytes().to_vec()))
            .execute(&mut *db)
            .await?;
    }
    let row = sqlx::query("SELECT owner FROM device WHERE id = $1")
        .bind(device.id.as_bytes().to_vec())
        .fetch_one(&mut *db)
        .await?;
    if row.try_get::<String, _>("owner")? != device.owner {
        return Ok(Err(Conflict::OtherOwner));
    }
    let mut outcomes = issue(
        db,
        &[Issue {
            certificate,
            at,
            replaces: None,
        }],
    )
    .await?;
    mark_due(db, [device.id]).await?;
    Ok(outcomes.pop().unwrap_or_else(|| Err(no_device(device.id))))
}

/// A certificate to record. `replaces`: the one that asked for it, which must still be good; none
/// when a person logged in.
struct Issue<'a> {
    certificate: &'a NewCertificate,
    at: Timestamp,
    replaces: Option<SerialNumber>,
}

/// Records certificates of active devices. The same device with the same key has its certificate
/// already: that one is the answer (`UNIQUE (device, key)`), so a lost answer costs nothing.
async fn issue(db: &mut DbConnection, issues: &[Issue<'_>]) -> Result<Vec<Outcome>> {
    let mut query = QueryBuilder::<Db>::new(
        "INSERT INTO certificate (serial, device, owner, key, state, subject, common_name, \
         issued_at, not_before, not_after, der, by_login, generation, newest_order) \
         SELECT v.column1, v.column2, v.column3, v.column4, 'valid', v.column5, v.column6, \
         v.column7, v.column8, v.column9, v.column10, v.column11, \
         (SELECT COALESCE(MAX(g.generation), 0) + 1 FROM certificate g WHERE g.device = v.column2), \
         (SELECT COALESCE(MAX(r.number), 0) FROM renewal_order r) \
         FROM (",
    );
    query.push_values(
        issues,
        |mut row,
         Issue {
             certificate,
             at,
             replaces,
         }| {
            row.push_bind(certificate.serial.as_bytes().to_vec())
                .push_bind(certificate.device.as_bytes().to_vec())
                .push_bind(certificate.owner.clone())
                .push_bind(certificate.key.as_bytes().to_vec())
                .push_bind(certificate.subject.clone())
                .push_bind(certificate.common_name.clone())
                .push_bind(at.as_millisecond())
                .push_bind(certificate.not_before.as_millisecond())
                .push_bind(certificate.not_after.as_millisecond())
                .push_bind(certificate.der.clone())
                .push_bind(i64::from(replaces.is_none()))
                .push_bind(replaces.map(|serial| serial.as_bytes().to_vec()));
        },
    );
    query.push(
        ") AS v JOIN device d ON d.id = v.column2 AND d.state = 'active' \
         WHERE (v.column12 IS NULL OR EXISTS \
         (SELECT 1 FROM certificate r WHERE r.serial = v.column12 AND r.state = 'valid'))",
    );
    query.push(LOCK_DEVICE_ROWS);
    query.push(" ON CONFLICT DO NOTHING RETURNING serial");
    let rows = query.build().fetch_all(&mut *db).await?;
    let issued: HashSet<SerialNumber> = rows.iter().map(serial).collect::<Result<_>>()?;

    let mut outcomes = Vec::with_capacity(issues.len());
    for Issue {
        certificate, at, ..
    } in issues
    {
        outcomes.push(if issued.contains(&certificate.serial) {
            let certificate = Box::new(recorded(certificate, *at));
            Ok(Applied::Issued {
                certificate,
                repeated: false,
            })
        } else {
            issued_before(db, certificate, *at).await?
        });
    }
    Ok(outcomes)
}

/// Why a certificate was not recorded: it is there already, or its device may have none.
async fn issued_before(
    db: &mut DbConnection,
    wanted: &NewCertificate,
    at: Timestamp,
) -> Result<Outcome> {
    let Some(state) = device_state(db, wanted.device).await? else {
        return Ok(Err(no_device(wanted.device)));
    };
    if state != DeviceState::Active {
        return Ok(Err(Conflict::DeviceNotActive(state)));
    }
    let Some(found) = of_key(db, wanted).await? else {
        return Ok(Err(Conflict::Replaced));
    };
    Ok(
        if found.state == CertificateState::Valid && found.not_after > at {
            Ok(Applied::Issued {
                certificate: Box::new(found),
                repeated: true,
            })
        } else {
            Err(Conflict::KeySpent)
        },
    )
}

async fn of_key(db: &mut DbConnection, wanted: &NewCertificate) -> Result<Option<Certificate>> {
    let mut query = QueryBuilder::<Db>::new(CERTIFICATE);
    query
        .push(" WHERE c.device = ")
        .push_bind(wanted.device.as_bytes().to_vec());
    query
        .push(" AND c.key = ")
        .push_bind(wanted.key.as_bytes().to_vec());
    query
        .build()
        .fetch_optional(&mut *db)
        .await?
        .map(certificate)
        .transpose()
}

fn recorded(new: &NewCertificate, at: Timestamp) -> Certificate {
    Certificate {
        serial: new.serial,
        device: new.device,
        key: new.key,
        state: CertificateState::Valid,
        subject: new.subject.clone(),
        host_name: String::new(),
        issued_at: at,
        not_before: new.not_before,
        not_after: new.not_after,
        first_used_at: None,
        revoked: None,
        der: new.der.clone(),
    }
}

/// Notes first uses, and supersedes what is older than a used certificate of the same device.
async fn use_certificates(db: &mut DbConnection, run: &[Change]) -> Result<Vec<Outcome>> {
    let used: Vec<_> = run
        .iter()
        .filter_map(|change| match &change.kind {
            Kind::UseCertificate { serial, .. } => Some((*serial, change.at)),
            _ => None,
        })
        .collect();
    let mut query =
        QueryBuilder::<Db>::new("UPDATE certificate SET first_used_at = v.column2 FROM (");
    query.push_values(&used, |mut row, (serial, at)| {
        row.push_bind(serial.as_bytes().to_vec())
            .push_bind(at.as_millisecond());
    });
    query.push(
        ") AS v WHERE certificate.serial = v.column1 AND certificate.first_used_at IS NULL \
         AND certificate.state = 'valid' \
         RETURNING serial, device",
    );
    let rows = query.build().fetch_all(&mut *db).await?;
    let first: HashSet<SerialNumber> = rows.iter().map(serial).collect::<Result<_>>()?;
    if !first.is_empty() {
        let mut query = QueryBuilder::<Db>::new(
            "UPDATE certificate SET state = 'superseded' WHERE state = 'valid' AND EXISTS \
             (SELECT 1 FROM certificate n WHERE n.device = certificate.device \
             AND (n.generation, n.serial) > (certificate.generation, certificate.serial) \
             AND n.serial IN (",
        );
        let mut list = query.separated(", ");
        for serial in &first {
            list.push_bind(serial.as_bytes().to_vec());
        }
        query.push(")) AND device IN (");
        let devices = rows
            .iter()
            .map(|row| device_id(row, "device"))
            .collect::<Result<HashSet<_>>>()?;
        let mut list = query.separated(", ");
        for device in &devices {
            list.push_bind(device.as_bytes().to_vec());
        }
        query.push(")");
        query.build().execute(&mut *db).await?;
        // Another certificate is in use now, with another end.
        mark_due(db, devices).await?;
    }
    for change in run {
        if let Kind::UseCertificate {
            serial,
            device,
            spends_permission,
            takes_place_of,
        } = &change.kind
            && first.contains(serial)
        {
            if *spends_permission {
                spend_permission(db, *device, *serial).await?;
            }
            if let Some(before) = takes_place_of {
                // A record that ended meanwhile stays as it is.
                let _ended = identity::merge(db, *before, *device, change.at).await?;
            }
        }
    }
    let outcome = |serial| {
        Ok(if first.contains(serial) {
            Applied::Done
        } else {
            Applied::Unchanged
        })
    };
    Ok(used.iter().map(|(serial, _)| outcome(serial)).collect())
}

/// Once is once: what else was asked for under the permission is worth nothing.
async fn spend_permission(
    db: &mut DbConnection,
    device: DeviceId,
    used: SerialNumber,
) -> Result<()> {
    sqlx::query("UPDATE device SET renewal_allowed_until = NULL WHERE id = $1")
        .bind(device.as_bytes().to_vec())
        .execute(&mut *db)
        .await?;
    let sql = "UPDATE certificate SET state = 'superseded' WHERE device = $1 \
         AND serial <> $2 AND state = 'valid' AND first_used_at IS NULL";
    sqlx::query(sql)
        .bind(device.as_bytes().to_vec())
        .bind(used.as_bytes().to_vec())
        .execute(db)
        .await?;
    Ok(())
}

async fn report_facts(db: &mut DbConnection, run: &[Change]) -> Result<Vec<Outcome>> {
    // The last report of a device in a batch is the one that counts.
    // In one order on every node.
    let mut last: BTreeMap<DeviceId, (&DeviceFacts, Timestamp)> = BTreeMap::new();
    for change in run {
        if let Kind::ReportFacts { device, facts } = &change.kind {
            last.insert(*device, (facts, change.at));
        }
    }
    let mut query = QueryBuilder::<Db>::new(
        "UPDATE device SET host_name = v.column2, facts = v.column3, hardware_uuid = v.column4, \
         hardware_reported_at = CASE WHEN device.hardware_uuid IS NOT DISTINCT FROM v.column4 \
         THEN device.hardware_reported_at ELSE v.column5 END, model = v.column6, \
         os_name = v.column7, os_release = v.column8, hardware_serial = v.column9, \
         os_version = v.column10, agent_version = v.column11, trust_verified = v.column12 FROM (",
    );
    query.push_values(last, |mut row, (device, (facts, at))| {
        row.push_bind(device.as_bytes().to_vec())
            .push_bind(facts.host_name.clone())
            .push_bind(serde_json::to_string(facts).expect("facts are plain data"))
            .push_bind(facts.text(TextField::HardwareUuid))
            .push_bind(at.as_millisecond())
            .push_bind(facts.text(TextField::Model))
            .push_bind(facts.text(TextField::OsName))
            .push_bind(facts.text(TextField::OsRelease))
            .push_bind(facts.text(TextField::HardwareSerial));
        for field in [VersionField::OsVersion, VersionField::AgentVersion] {
            row.push_bind(facts.version(field).map(|version| version.sort_key()));
        }
        row.push_bind(facts.trust_verified.map(i64::from));
    });
    query.push(") AS v WHERE device.id = v.column1 RETURNING device.id");
    let rows = query.build().fetch_all(&mut *db).await?;
    let known = rows
        .iter()
        .map(|row| device_id(row, "id"))
        .collect::<Result<HashSet<_>>>()?;
    mark_due(db, known.iter().copied()).await?;
    Ok(run
        .iter()
        .map(|change| match &change.kind {
            Kind::ReportFacts { device, .. } if !known.contains(device) => Err(no_device(*device)),
            _ => Ok(Applied::Done),
        })
        .collect())
}

pub(super) async fn device_state(
    db: &mut DbConnection,
    device: DeviceId,
) -> Result<Option<DeviceState>> {
    let row = sqlx::query("SELECT state FROM device WHERE id = $1")
        .bind(device.as_bytes().to_vec())
        .fetch_optional(db)
        .await?;
    row.map(|row| word(&row, "state")).transpose()
}

async fn transit(
    db: &mut DbConnection,
    device: DeviceId,
    transition: DeviceTransition,
    reason: Option<RevocationReason>,
    at: Timestamp,
) -> Result<Outcome> {
    let Some(before) = device_state(db, device).await? else {
        return Ok(Err(no_device(device)));
    };
    let after = match before.after(transition) {
        Ok(after) => after,
        Err(refused) => return Ok(Err(refused.into())),
    };
    // The update takes the row's lock: an issue that is under way finishes first, and is then seen.
    let done = sqlx::query("UPDATE device SET state = $3 WHERE id = $1 AND state = $2")
        .bind(device.as_bytes().to_vec())
        .bind(before.word())
        .bind(after.word())
        .execute(&mut *db)
        .await?;
    if done.rows_affected() != 1 {
        // Another node changed it between the two statements.
        return Ok(Err(Conflict::Changed));
    }
    let certificates = match reason {
        Some(reason) => revoke_all(db, device, reason, at).await?,
        None => 0,
    };
    mark_due(db, [device]).await?;
    Ok(Ok(if before == after && certificates == 0 {
        Applied::Unchanged
    } else {
        Applied::Revoked { certificates }
    }))
}

pub(super) async fn revoke_all(
    db: &mut DbConnection,
    device: DeviceId,
    reason: RevocationReason,
    at: Timestamp,
) -> Result<u64> {
    let sql = "UPDATE certificate SET state = 'revoked', revoked_at = $2, revocation_reason = $3 \
         WHERE device = $1 AND state <> 'revoked' AND not_after > $2";
    let done = sqlx::query(sql)
        .bind(device.as_bytes().to_vec())
        .bind(at.as_millisecond())
        .bind(reason.word())
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

async fn revoke_certificate(
    db: &mut DbConnection,
    serial: SerialNumber,
    reason: RevocationReason,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "UPDATE certificate SET state = 'revoked', revoked_at = $2, revocation_reason = $3 \
         WHERE serial = $1 AND state <> 'revoked' RETURNING device";
    let revoked = sqlx::query(sql)
        .bind(serial.as_bytes().to_vec())
        .bind(at.as_millisecond())
        .bind(reason.word())
        .fetch_optional(&mut *db)
        .await?;
    if let Some(row) = revoked {
        mark_due(db, [device_id(&row, "device")?]).await?;
        return Ok(Ok(Applied::Revoked { certificates: 1 }));
    }
    let known = sqlx::query("SELECT serial FROM certificate WHERE serial = $1")
        .bind(serial.as_bytes().to_vec())
        .fetch_optional(db)
        .await?;
    Ok(match known {
        Some(_) => Ok(Applied::Unchanged),
        None => Err(Conflict::NotFound(format!("certificate {serial}"))),
    })
}

async fn append_segment(db: &mut DbConnection, segment: &Segment) -> Result<()> {
    sqlx::query("INSERT INTO audit_segment (id, node, started_at) VALUES ($1, $2, $3)")
        .bind(segment.id.to_vec())
        .bind(&segment.node)
        .bind(segment.started_at.as_millisecond())
        .execute(db)
        .await?;
    Ok(())
}

async fn append_events(db: &mut DbConnection, events: &[AuditEvent]) -> Result<()> {
    for events in events.chunks(ROWS_AT_ONCE) {
        let mut query = QueryBuilder::<Db>::new(
            "INSERT INTO audit_event (segment, number, at, actor, address, action, subject, \
             payload, payload_digest, hash) ",
        );
        query.push_values(events, |mut row, event| {
            row.push_bind(event.segment.to_vec())
                .push_bind(event.number)
                .push_bind(event.at.as_millisecond())
                .push_bind(event.actor.clone())
                .push_bind(event.address.clone())
                .push_bind(event.action.clone())
                .push_bind(event.subject.clone())
                .push_bind(event.payload.as_ref().map(ToString::to_string))
                .push_bind(event.payload_digest.to_vec())
                .push_bind(event.hash.to_vec());
        });
        query.build().execute(&mut *db).await?;
    }
    Ok(())
}
