//! The queries. Compiled once for each database: `super` says which.

use async_trait::async_trait;
use domain::filter::DAY_MILLISECONDS;
use domain::{
    AlertKind, DeviceFacts, DeviceId, KeyDigest, Pin, SerialNumber, Timestamp, TokenDigest,
};
use protocol::PolicyState;
use sqlx::{Connection, QueryBuilder, Row};

use super::compliance_reads::{policy_place, version};
use super::memberships::{evaluated_again, mark_due};
use super::renewal_orders::{ORDER_OF_CERTIFICATE, ordered};
use super::{BEGIN, DEPLOYMENT_NUMBERS, Database, Db, DbConnection, DbRow};
use crate::audit::Head;
use crate::model::{
    Account, Alert, AlertFilter, AuditEvent, Certificate, CertificateFilter, Checkpoint, Crl,
    Device, DeviceFilter, Page, Revocation, Segment, Standing, Token, Usage,
};
use crate::results::RecordedResults;
use crate::{Reads, Unavailable};

type Result<T> = std::result::Result<T, Unavailable>;

/// No page is longer, whatever was asked for.
pub(super) const MOST: u32 = 5_000;

pub(super) const DEVICE: &str = "SELECT d.id, d.state, d.owner, d.user_name, d.enrolled_at, d.facts, d.host_name, d.successor, \
     d.renewal_allowed_until, d.policy_epoch, d.policy_counter, d.policy_problem, s.at AS last_seen \
     FROM device d LEFT JOIN device_seen s ON s.device = d.id";

pub(super) const CERTIFICATE: &str = "SELECT c.serial, c.device, c.key, c.state, c.subject, c.issued_at, c.not_before, \
     c.not_after, c.first_used_at, c.revoked_at, c.revocation_reason, c.der, \
     COALESCE(d.host_name, '') AS host_name \
     FROM certificate c LEFT JOIN device d ON d.id = c.device";

pub(super) const EVENT: &str = "SELECT segment, number, at, actor, address, action, subject, payload, \
     payload_digest, hash FROM audit_event";

#[async_trait]
impl Reads for Database {
    async fn bind_site(&self, pin: Pin) -> Result<()> {
        sqlx::query("INSERT INTO site (one, pin) VALUES (1, $1) ON CONFLICT DO NOTHING")
            .bind(pin.to_string())
            .execute(&self.writer)
            .await?;
        let row = sqlx::query("SELECT pin FROM site")
            .fetch_one(&self.readers)
            .await?;
        let theirs: String = row.try_get("pin")?;
        if theirs == pin.to_string() {
            Ok(())
        } else {
            Err(Unavailable::OtherSite { theirs, ours: pin })
        }
    }

    async fn moment(&self) -> Result<Timestamp> {
        let row = sqlx::query("SELECT moment FROM site")
            .fetch_optional(&self.readers)
            .await?;
        row.map_or(Ok(Timestamp::UNIX_EPOCH), |row| time(&row, "moment"))
    }

    async fn record_moment(&self, now: Timestamp, accepted: bool) -> Result<()> {
        let sql = "UPDATE site SET moment = $1 WHERE moment < $1 OR $2 = 1";
        sqlx::query(sql)
            .bind(now.as_millisecond())
            .bind(i32::from(accepted))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT one FROM site")
            .fetch_optional(&self.readers)
            .await?;
        Ok(())
    }

    async fn account(&self, name: &str) -> Result<Option<Account>> {
        let sql =
            "SELECT id, name, common_name, password_hash, created_at FROM account WHERE name = $1";
        let row = sqlx::query(sql)
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        row.map(account).transpose()
    }

    async fn accounts(&self, after: Option<&str>, limit: u32) -> Result<Page<Account>> {
        let sql = "SELECT id, name, common_name, password_hash, created_at FROM account \
             WHERE name > $1 ORDER BY name LIMIT $2";
        let limit = limit.min(MOST);
        let rows = sqlx::query(sql)
            .bind(after.unwrap_or(""))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        page(rows, limit, account, |account| account.name.clone())
    }

    async fn token(&self, digest: &TokenDigest) -> Result<Option<Token>> {
        let row = sqlx::query("SELECT name, role, expires_at FROM token WHERE digest = $1")
            .bind(digest.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            Ok(Token {
                name: row.try_get("name")?,
                role: word(&row, "role")?,
                expires_at: optional_time(&row, "expires_at")?,
            })
        })
        .transpose()
    }

    async fn standing(&self, serial: SerialNumber) -> Result<Option<Standing>> {
        let sql = "SELECT c.device, c.owner, d.state AS device_state, c.state AS certificate_state, c.key, \
             c.common_name, c.issued_at, c.not_after, c.first_used_at, d.facts, \
             d.renewal_allowed_until, d.predecessor, d.policy_epoch, d.policy_counter, \
             d.policy_problem, o.starts_at, o.ends_at, o.explanation_url, \
             d.enrolled_at, y.epoch, y.counter, y.objects, r.stream, r.sequence, r.digest, \
             r.evaluated_at, \
             CASE WHEN EXISTS (SELECT 1 FROM command w \
             WHERE w.device = c.device AND w.ended_at IS NULL) THEN 1 ELSE 0 END AS has_commands, \
             (SELECT ";
        let mut query = QueryBuilder::<Db>::new(sql);
        query
            .push(DEPLOYMENT_NUMBERS)
            .push(
                " FROM membership m JOIN deployment p ON p.collection = m.collection \
                 WHERE m.device = c.device) AS deployments \
                 FROM certificate c JOIN device d ON d.id = c.device JOIN policy y ON y.one = 1 \
                 LEFT JOIN compliance_device r ON r.device = c.device",
            )
            .push(ORDER_OF_CERTIFICATE)
            .push(" WHERE c.serial = ");
        let row = query
            .push_bind(serial.as_bytes().to_vec())
            .build()
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            Ok(Standing {
                serial,
                device: device_id(&row, "device")?,
                owner: row.try_get("owner")?,
                device_state: word(&row, "device_state")?,
                certificate_state: word(&row, "certificate_state")?,
                key: key(&row)?,
                common_name: row.try_get("common_name")?,
                issued_at: time(&row, "issued_at")?,
                not_after: time(&row, "not_after")?,
                used: optional_time(&row, "first_used_at")?.is_some(),
                facts: facts(&row)?,
                renewal_allowed_until: optional_time(&row, "renewal_allowed_until")?,
                predecessor: optional_device_id(&row, "predecessor")?,
                enrolled_at: time(&row, "enrolled_at")?,
                ordered: ordered(&row)?,
                policy: policy_state(&row)?,
                place: policy_place(&row)?,
                deployments: numbers(&row, "deployments")?,
                has_commands: row.try_get::<i32, _>("has_commands")? != 0,
                results: recorded_results(&row)?,
            })
        })
        .transpose()
    }

    async fn device(&self, id: DeviceId) -> Result<Option<Device>> {
        let mut query = QueryBuilder::<Db>::new(DEVICE);
        query
            .push(" WHERE d.id = ")
            .push_bind(id.as_bytes().to_vec());
        let row = query.build().fetch_optional(&self.readers).await?;
        row.map(device).transpose()
    }

    async fn devices(&self, filter: &DeviceFilter) -> Result<Page<Device>> {
        let limit = filter.limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(DEVICE);
        query.push(" WHERE 1 = 1");
        match filter.state {
            Some(state) => query.push(" AND d.state = ").push_bind(state.word()),
            // Deleted ones are on their way out: who wants to see them says so.
            None => query.push(" AND d.state <> 'deleted'"),
        };
        if let Some(name) = &filter.name {
            // A range on the index, not LIKE: its case rules differ between databases.
            query.push(" AND d.host_name >= ").push_bind(name.clone());
            query
                .push(" AND d.host_name < ")
                .push_bind(format!("{name}\u{10ffff}"));
        }
        if let Some(after) = &filter.after {
            let (name, id) = after.rsplit_once('\n').ok_or_else(|| no_cursor(after))?;
            // PostgreSQL's texts have no NUL.
            if name.contains('\0') {
                return Err(no_cursor(after));
            }
            let id: DeviceId = id.parse().map_err(no_cursor)?;
            query
                .push(" AND (d.host_name, d.id) > (")
                .push_bind(name.to_owned());
            query.push(", ").push_bind(id.as_bytes().to_vec()).push(")");
        }
        query
            .push(" ORDER BY d.host_name, d.id LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, device, |device| {
            format!("{}\n{}", device.facts.host_name, device.id)
        })
    }

    async fn certificate(&self, serial: SerialNumber) -> Result<Option<Certificate>> {
        let mut query = QueryBuilder::<Db>::new(CERTIFICATE);
        query
            .push(" WHERE c.serial = ")
            .push_bind(serial.as_bytes().to_vec());
        query
            .build()
            .fetch_optional(&self.readers)
            .await?
            .map(certificate)
            .transpose()
    }

    async fn certificate_of_key(
        &self,
        device: DeviceId,
        key: KeyDigest,
    ) -> Result<Option<Certificate>> {
        let mut query = QueryBuilder::<Db>::new(CERTIFICATE);
        query
            .push(" WHERE c.device = ")
            .push_bind(device.as_bytes().to_vec());
        query
            .push(" AND c.key = ")
            .push_bind(key.as_bytes().to_vec());
        query
            .build()
            .fetch_optional(&self.readers)
            .await?
            .map(certificate)
            .transpose()
    }

    async fn certificates(&self, filter: &CertificateFilter) -> Result<Page<Certificate>> {
        let limit = filter.limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(CERTIFICATE);
        query.push(" WHERE 1 = 1");
        if let Some(state) = filter.state {
            query.push(" AND c.state = ").push_bind(state.word());
        }
        if let Some(device) = filter.device {
            query
                .push(" AND c.device = ")
                .push_bind(device.as_bytes().to_vec());
        }
        if let Some(after) = filter.expires_after {
            query
                .push(" AND c.not_after > ")
                .push_bind(after.as_millisecond());
        }
        if let Some(before) = filter.expires_before {
            query
                .push(" AND c.not_after <= ")
                .push_bind(before.as_millisecond());
        }
        if let Some(after) = &filter.after {
            let (end, serial) = after.split_once('/').ok_or_else(|| no_cursor(after))?;
            let end: i64 = end.parse().map_err(no_cursor)?;
            let serial: SerialNumber = serial.parse().map_err(no_cursor)?;
            query
                .push(" AND (c.not_after, c.serial) > (")
                .push_bind(end);
            query
                .push(", ")
                .push_bind(serial.as_bytes().to_vec())
                .push(")");
        }
        query
            .push(" ORDER BY c.not_after, c.serial LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, certificate, |certificate| {
            format!(
                "{}/{}",
                certificate.not_after.as_millisecond(),
                certificate.serial
            )
        })
    }

    async fn has_open_alert(&self, kind: AlertKind, device: DeviceId) -> Result<bool> {
        let sql = "SELECT number FROM alert WHERE kind = $1 AND device = $2 AND closed_at IS NULL";
        let found = sqlx::query(sql)
            .bind(kind.word())
            .bind(device.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.is_some())
    }

    async fn alerts(&self, filter: &AlertFilter) -> Result<Page<Alert>> {
        let limit = filter.limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(
            "SELECT a.number, a.kind, a.device, a.deployment, a.detail, a.first_at, a.last_at, a.times, \
             a.closed_at, COALESCE(d.host_name, '') AS host_name \
             FROM alert a LEFT JOIN device d ON d.id = a.device WHERE a.number < ",
        );
        let before = match &filter.after {
            Some(after) => after.parse().map_err(no_cursor)?,
            None => i64::MAX,
        };
        query.push_bind(before);
        if !filter.closed {
            query.push(" AND a.closed_at IS NULL");
        }
        if let Some(device) = filter.device {
            query
                .push(" AND a.device = ")
                .push_bind(device.as_bytes().to_vec());
        }
        query
            .push(" ORDER BY a.number DESC LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, alert, |alert| alert.number.to_string())
    }

    async fn usage(&self, owner: &str, now: Timestamp, since: Timestamp) -> Result<Usage> {
        let sql = "SELECT \
             (SELECT COUNT(*) FROM certificate WHERE owner = $1 AND state = 'valid' AND not_after > $2) AS live, \
             (SELECT COUNT(*) FROM certificate WHERE owner = $1 AND issued_at > $3 AND by_login = 1) AS issued";
        let row = sqlx::query(sql)
            .bind(owner)
            .bind(now.as_millisecond())
            .bind(since.as_millisecond())
            .fetch_one(&self.readers)
            .await?;
        Ok(Usage {
            live: row.try_get("live")?,
            issued: row.try_get("issued")?,
        })
    }

    async fn revocations(&self, expired_after: Timestamp) -> Result<Vec<Revocation>> {
        let sql = "SELECT serial, revoked_at, revocation_reason FROM certificate \
             WHERE state = 'revoked' AND not_after > $1 ORDER BY not_after, serial";
        let rows = sqlx::query(sql)
            .bind(expired_after.as_millisecond())
            .fetch_all(&self.readers)
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Revocation {
                    serial: serial(&row)?,
                    at: time(&row, "revoked_at")?,
                    reason: word(&row, "revocation_reason")?,
                })
            })
            .collect()
    }

    async fn revocation_count(&self) -> Result<i64> {
        let sql = "SELECT (SELECT COUNT(*) FROM certificate WHERE revoked_at > 0) \
             + COALESCE((SELECT revocations FROM purged), 0) AS n";
        let row = sqlx::query(sql).fetch_one(&self.readers).await?;
        Ok(row.try_get("n")?)
    }

    async fn crl(&self) -> Result<Option<Crl>> {
        let row = sqlx::query("SELECT number, this_update, next_update, revocations, der FROM crl")
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            Ok(Crl {
                number: row.try_get("number")?,
                this_update: time(&row, "this_update")?,
                next_update: time(&row, "next_update")?,
                revocations: row.try_get("revocations")?,
                der: row.try_get("der")?,
            })
        })
        .transpose()
    }

    async fn audit_events(&self, before: Option<&str>, limit: u32) -> Result<Page<AuditEvent>> {
        let limit = limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(EVENT);
        if let Some(before) = before {
            after_event(query.push(" WHERE "), before)?;
        }
        query
            .push(" ORDER BY at DESC, segment DESC, number DESC LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, event, event_cursor)
    }

    async fn segments(&self) -> Result<Vec<Segment>> {
        let rows =
            sqlx::query("SELECT id, node, started_at FROM audit_segment ORDER BY started_at, id")
                .fetch_all(&self.readers)
                .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Segment {
                    id: bytes(&row, "id")?,
                    node: row.try_get("node")?,
                    started_at: time(&row, "started_at")?,
                })
            })
            .collect()
    }

    async fn segment_events(
        &self,
        segment: &[u8; 16],
        number: i64,
        limit: u32,
    ) -> Result<Vec<AuditEvent>> {
        let mut query = QueryBuilder::<Db>::new(EVENT);
        query.push(" WHERE segment = ").push_bind(segment.to_vec());
        query.push(" AND number >= ").push_bind(number);
        query
            .push(" ORDER BY number LIMIT ")
            .push_bind(i64::from(limit));
        query
            .build()
            .fetch_all(&self.readers)
            .await?
            .into_iter()
            .map(event)
            .collect()
    }

    async fn checkpoints(&self, after: i64, limit: u32) -> Result<Vec<Checkpoint>> {
        let sql = "SELECT number, at, message, signature FROM audit_checkpoint \
             WHERE number > $1 ORDER BY number LIMIT $2";
        let rows = sqlx::query(sql)
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Checkpoint {
                    number: row.try_get("number")?,
                    at: time(&row, "at")?,
                    message: row.try_get("message")?,
                    signature: row.try_get("signature")?,
                })
            })
            .collect()
    }

    async fn heads(&self) -> Result<Vec<Head>> {
        let sql = "SELECT e.segment, e.number, e.hash FROM audit_segment s JOIN audit_event e \
             ON e.segment = s.id \
             AND e.number = (SELECT MAX(l.number) FROM audit_event l WHERE l.segment = s.id) \
             ORDER BY e.segment";
        let rows = sqlx::query(sql).fetch_all(&self.readers).await?;
        rows.into_iter()
            .map(|row| {
                let segment: [u8; 16] = bytes(&row, "segment")?;
                let hash: [u8; 32] = bytes(&row, "hash")?;
                Ok(Head {
                    segment: data_encoding::HEXLOWER.encode(&segment),
                    number: row.try_get("number")?,
                    hash: data_encoding::HEXLOWER.encode(&hash),
                })
            })
            .collect()
    }

    async fn record_seen(&self, seen: &[(DeviceId, Timestamp)]) -> Result<()> {
        for chunk in seen.chunks(1_000) {
            let mut connection = self.writer.acquire().await?;
            let mut transaction = connection.begin_with(BEGIN).await?;
            let returned = returned(&mut transaction, chunk).await?;
            let mut query = QueryBuilder::<Db>::new("INSERT INTO device_seen (device, at) ");
            query.push_values(chunk, |mut row, (device, at)| {
                row.push_bind(device.as_bytes().to_vec())
                    .push_bind(at.as_millisecond());
            });
            query.push(
                " ON CONFLICT (device) DO UPDATE SET at = excluded.at WHERE device_seen.at < excluded.at",
            );
            query.build().execute(&mut *transaction).await?;
            mark_due(&mut transaction, returned).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    async fn record_evaluated(&self, evaluated: &[(DeviceId, Timestamp)]) -> Result<()> {
        for chunk in evaluated.chunks(1_000) {
            let mut connection = self.writer.acquire().await?;
            let mut transaction = connection.begin_with(BEGIN).await?;
            evaluated_again(&mut transaction, chunk).await?;
            let mut query = QueryBuilder::<Db>::new(
                "UPDATE compliance_device SET evaluated_at = v.column2 FROM (",
            );
            query.push_values(chunk, |mut row, (device, at)| {
                row.push_bind(device.as_bytes().to_vec())
                    .push_bind(at.as_millisecond());
            });
            query.push(
                ") AS v WHERE compliance_device.device = v.column1 \
                 AND compliance_device.evaluated_at < v.column2",
            );
            query.build().execute(&mut *transaction).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    async fn record_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        sqlx::query("INSERT INTO audit_checkpoint (at, message, signature) VALUES ($1, $2, $3)")
            .bind(checkpoint.at.as_millisecond())
            .bind(checkpoint.message.clone())
            .bind(checkpoint.signature.clone())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn close(&self) {
        // SQLite's last connection empties the log as it ends: each is waited for.
        self.readers.close().await;
        self.close_beside().await;
        self.writer.close().await;
    }
}

/// Which of the seen devices were not seen for a day or more, or never: their days since then change
/// now. Those of the others stay at none.
async fn returned(db: &mut DbConnection, seen: &[(DeviceId, Timestamp)]) -> Result<Vec<DeviceId>> {
    if seen.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::<Db>::default();
    push_returned(&mut query, seen);
    let rows = query.build().fetch_all(db).await?;
    rows.iter().map(|row| device_id(row, "device")).collect()
}

/// A sweep may have counted a day for a device that was seen just before, as that is written later.
const WRITTEN_LATER: i64 = 600_000;

pub(super) fn push_returned(query: &mut QueryBuilder<Db>, seen: &[(DeviceId, Timestamp)]) {
    query.push("SELECT v.column1 AS device FROM (");
    query.push_values(seen, |mut row, (device, at)| {
        row.push_bind(device.as_bytes().to_vec())
            .push_bind(at.as_millisecond() - DAY_MILLISECONDS + WRITTEN_LATER);
    });
    query.push(
        ") AS v WHERE NOT EXISTS (SELECT 1 FROM device_seen s \
         WHERE s.device = v.column1 AND s.at > v.column2)",
    );
}

pub(super) fn page<T>(
    rows: Vec<DbRow>,
    limit: u32,
    read: impl Fn(DbRow) -> Result<T>,
    cursor: impl Fn(&T) -> String,
) -> Result<Page<T>> {
    let full = rows.len() >= limit as usize;
    let items: Vec<T> = rows.into_iter().map(read).collect::<Result<_>>()?;
    let next = items.last().filter(|_| full).map(cursor);
    Ok(Page { items, next })
}

fn account(row: DbRow) -> Result<Account> {
    Ok(Account {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        common_name: row.try_get("common_name")?,
        password_hash: row.try_get("password_hash")?,
        created_at: time(&row, "created_at")?,
    })
}

pub(super) fn device(row: DbRow) -> Result<Device> {
    Ok(Device {
        id: device_id(&row, "id")?,
        state: word(&row, "state")?,
        owner: row.try_get("owner")?,
        user_name: row.try_get("user_name")?,
        enrolled_at: time(&row, "enrolled_at")?,
        last_seen: optional_time(&row, "last_seen")?,
        facts: facts(&row)?,
        successor: optional_device_id(&row, "successor")?,
        renewal_allowed_until: optional_time(&row, "renewal_allowed_until")?,
        policy: policy_state(&row)?,
    })
}

/// What a device said of its policy; none when it never said anything.
fn policy_state(row: &DbRow) -> Result<Option<PolicyState>> {
    let epoch: Option<i64> = row.try_get("policy_epoch")?;
    let counter: Option<i64> = row.try_get("policy_counter")?;
    let (Some(epoch), Some(counter)) = (epoch, counter) else {
        return Ok(None);
    };
    Ok(Some(PolicyState {
        version: version(epoch, counter)?,
        problem: row.try_get("policy_problem")?,
    }))
}

/// Numbers with commas between them, sorted.
fn numbers(row: &DbRow, column: &str) -> Result<Vec<i64>> {
    let list: Option<String> = row.try_get(column)?;
    let list = list.unwrap_or_default();
    let mut numbers = list
        .split(',')
        .filter(|number| !number.is_empty())
        .map(|number| number.parse().map_err(corrupt))
        .collect::<Result<Vec<i64>>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

pub(super) fn certificate(row: DbRow) -> Result<Certificate> {
    let revoked = match optional_time(&row, "revoked_at")? {
        Some(at) => Some((at, word(&row, "revocation_reason")?)),
        None => None,
    };
    Ok(Certificate {
        serial: serial(&row)?,
        device: device_id(&row, "device")?,
        key: key(&row)?,
        state: word(&row, "state")?,
        subject: row.try_get("subject")?,
        host_name: row.try_get("host_name")?,
        issued_at: time(&row, "issued_at")?,
        not_before: time(&row, "not_before")?,
        not_after: time(&row, "not_after")?,
        first_used_at: optional_time(&row, "first_used_at")?,
        revoked,
        der: row.try_get("der")?,
    })
}

fn alert(row: DbRow) -> Result<Alert> {
    Ok(Alert {
        number: row.try_get("number")?,
        kind: word(&row, "kind")?,
        device: optional_device_id(&row, "device")?,
        deployment: row.try_get("deployment")?,
        host_name: row.try_get("host_name")?,
        detail: row.try_get("detail")?,
        first_at: time(&row, "first_at")?,
        last_at: time(&row, "last_at")?,
        times: row.try_get("times")?,
        closed_at: optional_time(&row, "closed_at")?,
    })
}

fn recorded_results(row: &DbRow) -> Result<Option<RecordedResults>> {
    let Some(evaluated_at) = optional_time(row, "evaluated_at")? else {
        return Ok(None);
    };
    Ok(Some(RecordedResults {
        stream: bytes(row, "stream")?,
        sequence: row.try_get("sequence")?,
        digest: bytes(row, "digest")?,
        evaluated_at,
    }))
}

pub(super) fn event(row: DbRow) -> Result<AuditEvent> {
    let payload: Option<String> = row.try_get("payload")?;
    Ok(AuditEvent {
        segment: bytes(&row, "segment")?,
        number: row.try_get("number")?,
        at: time(&row, "at")?,
        actor: row.try_get("actor")?,
        address: row.try_get("address")?,
        action: row.try_get("action")?,
        subject: row.try_get("subject")?,
        // What is no JSON any more was tampered with: shown as text, found by verification.
        payload: payload
            .map(|text| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))),
        payload_digest: bytes(&row, "payload_digest")?,
        hash: bytes(&row, "hash")?,
    })
}

/// Where the page after an event begins.
pub(super) fn event_cursor(event: &AuditEvent) -> String {
    let segment = data_encoding::HEXLOWER.encode(&event.segment);
    format!("{}/{segment}/{}", event.at.as_millisecond(), event.number)
}

/// The condition for events that come after the one of a cursor.
pub(super) fn after_event(query: &mut QueryBuilder<Db>, cursor: &str) -> Result<()> {
    let [at, segment, number] = cursor.split('/').collect::<Vec<_>>()[..] else {
        return Err(no_cursor(cursor));
    };
    let at: i64 = at.parse().map_err(no_cursor)?;
    let segment = data_encoding::HEXLOWER
        .decode(segment.as_bytes())
        .map_err(no_cursor)?;
    let number: i64 = number.parse().map_err(no_cursor)?;
    query.push("(at, segment, number) < (").push_bind(at);
    query.push(", ").push_bind(segment);
    query.push(", ").push_bind(number).push(")");
    Ok(())
}

pub(super) fn no_cursor(given: impl std::fmt::Display) -> Unavailable {
    Unavailable::Cursor(given.to_string())
}

pub(super) fn corrupt(what: impl std::fmt::Display) -> Unavailable {
    Unavailable::Corrupt(what.to_string())
}

pub(super) fn time(row: &DbRow, column: &str) -> Result<Timestamp> {
    Timestamp::from_millisecond(row.try_get(column)?).map_err(corrupt)
}

pub(super) fn optional_time(row: &DbRow, column: &str) -> Result<Option<Timestamp>> {
    let milliseconds: Option<i64> = row.try_get(column)?;
    milliseconds
        .map(|at| Timestamp::from_millisecond(at).map_err(corrupt))
        .transpose()
}

pub(super) fn word<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &DbRow,
    column: &str,
) -> Result<T> {
    let word: String = row.try_get(column)?;
    word.parse().map_err(corrupt)
}

pub(super) fn bytes<const N: usize>(row: &DbRow, column: &str) -> Result<[u8; N]> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes
        .try_into()
        .map_err(|_| corrupt(format!("{column} has another length")))
}

pub(super) fn device_id(row: &DbRow, column: &str) -> Result<DeviceId> {
    DeviceId::from_bytes(&row.try_get::<Vec<u8>, _>(column)?).map_err(corrupt)
}

pub(super) fn optional_device_id(row: &DbRow, column: &str) -> Result<Option<DeviceId>> {
    let bytes: Option<Vec<u8>> = row.try_get(column)?;
    bytes
        .map(|bytes| DeviceId::from_bytes(&bytes).map_err(corrupt))
        .transpose()
}

pub(super) fn serial(row: &DbRow) -> Result<SerialNumber> {
    SerialNumber::from_bytes(&row.try_get::<Vec<u8>, _>("serial")?).map_err(corrupt)
}

fn key(row: &DbRow) -> Result<KeyDigest> {
    KeyDigest::from_bytes(&row.try_get::<Vec<u8>, _>("key")?).map_err(corrupt)
}

pub(super) fn facts(row: &DbRow) -> Result<DeviceFacts> {
    serde_json::from_str(row.try_get("facts")?).map_err(corrupt)
}
