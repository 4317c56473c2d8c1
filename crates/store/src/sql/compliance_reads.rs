//! The queries about compliance objects and policy. Compiled once for each database: `super` says
//! which.

use async_trait::async_trait;
use domain::compliance::{
    BaselineContent, BaselineName, BaselinePart, ComplianceAlert, Deployment, ExemptionScope,
    ItemName,
};
use domain::{DeviceId, Period};
use protocol::{BodyHash, CommandId, ItemBody, PolicyVersion};
use sqlx::{Connection, QueryBuilder, Row};

use super::compliance::sha256;
use super::reads::{MOST, corrupt, device_id, no_cursor, optional_time, page, time, word};
use super::{Database, Db, DbRow, READ_ONE_MOMENT};
use crate::Unavailable;
use crate::compliance::{
    Baseline, BaselineSummary, Command, DeployedBodies, DeploymentRecord, Exemption,
    ExemptionFilter, Item, ItemRevision, MOST_WAITING_COMMANDS, OpenCommand, PolicyPlace,
    ReadCompliance, RevisionSummary,
};
use crate::model::Page;

type Result<T> = std::result::Result<T, Unavailable>;

/// Pages whose rows count something are shorter than others.
const MOST_COUNTED: u32 = 100;

/// A baseline's parts with their names.
pub(super) const PARTS: &str = "SELECT p.baseline, p.revision, i.name AS item_name, \
     n.name AS part_name FROM baseline_part p LEFT JOIN configuration_item i ON i.id = p.item \
     LEFT JOIN baseline n ON n.id = p.part";

pub(super) const DEPLOYMENT: &str = "SELECT d.number, b.name AS baseline_name, \
     c.name AS collection_name, d.remediate, d.schedule, d.spread, d.remediation_window, \
     d.stale_after, d.alert_below, d.alert_at, d.made_at, d.changed_at, d.version, \
     (SELECT COUNT(*) FROM deployment_item n WHERE n.deployment = d.number) AS items, \
     (SELECT COUNT(*) FROM deployment_rule n WHERE n.deployment = d.number) AS rules \
     FROM deployment d JOIN baseline b ON b.id = d.baseline \
     JOIN collection c ON c.id = d.collection";

const PLACE: &str = "SELECT epoch, counter, objects FROM policy WHERE one = 1";

const COMMAND: &str = "SELECT id, device, what, about, issued_at, issued_by, expires_at, ended_at, \
     done, detail FROM command";

#[async_trait]
impl ReadCompliance for Database {
    async fn items(&self, after: Option<&str>, limit: u32) -> Result<Page<Item>> {
        let limit = limit.min(MOST_COUNTED);
        let sql = "SELECT i.name, i.latest, i.created_at, r.platforms, r.created_at AS changed_at, \
             r.author, (SELECT COUNT(*) FROM revision_rule u \
             WHERE u.item = i.id AND u.revision = i.latest) AS rules \
             FROM configuration_item i JOIN item_revision r ON r.item = i.id AND r.number = i.latest \
             WHERE i.deleted_at IS NULL AND i.name > $1 ORDER BY i.name LIMIT $2";
        let rows = sqlx::query(sql)
            .bind(after.unwrap_or(""))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        page(rows, limit, item, |item| item.name.to_string())
    }

    async fn item_revision(
        &self,
        item: &ItemName,
        revision: Option<u32>,
    ) -> Result<Option<ItemRevision>> {
        let mut query = QueryBuilder::<Db>::new(
            "SELECT i.name, r.number, r.created_at, r.author, r.body_hash, r.body \
             FROM configuration_item i JOIN item_revision r ON r.item = i.id \
             WHERE i.deleted_at IS NULL AND i.name = ",
        );
        query
            .push_bind(item.as_str().to_owned())
            .push(" AND r.number = ");
        match revision {
            Some(revision) => query.push_bind(i64::from(revision)),
            None => query.push("i.latest"),
        };
        let row = query.build().fetch_optional(&self.readers).await?;
        row.map(|row| {
            // Out of what devices get: what people see, and what is tested, is what its hash says.
            let bytes: Vec<u8> = row.try_get("body")?;
            let hash = body_hash(&row)?;
            if sha256(&bytes) != *hash.as_bytes() {
                return Err(corrupt(format!(
                    "the body {hash} is not what its hash says"
                )));
            }
            let body: ItemBody = serde_json::from_slice(&bytes).map_err(corrupt)?;
            Ok(ItemRevision {
                item: word(&row, "name")?,
                revision: count(&row, "number")?,
                created_at: time(&row, "created_at")?,
                author: row.try_get("author")?,
                body: hash,
                content: body.content,
            })
        })
        .transpose()
    }

    async fn item_history(
        &self,
        item: &ItemName,
        before: Option<u32>,
        limit: u32,
    ) -> Result<Page<RevisionSummary>> {
        let limit = limit.min(MOST);
        let sql = "SELECT r.number, r.created_at, r.author, r.body_hash \
             FROM configuration_item i JOIN item_revision r ON r.item = i.id \
             WHERE i.deleted_at IS NULL AND i.name = $1 AND r.number < $2 \
             ORDER BY r.number DESC LIMIT $3";
        let rows = sqlx::query(sql)
            .bind(item.as_str())
            .bind(before.map_or(i64::MAX, i64::from))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        let summary = |row: DbRow| {
            Ok(RevisionSummary {
                revision: count(&row, "number")?,
                created_at: time(&row, "created_at")?,
                author: row.try_get("author")?,
                body: body_hash(&row)?,
            })
        };
        page(rows, limit, summary, |found| found.revision.to_string())
    }

    async fn baselines(&self, after: Option<&str>, limit: u32) -> Result<Page<BaselineSummary>> {
        let limit = limit.min(MOST_COUNTED);
        let sql = "SELECT b.name, b.enabled, b.changed_at, \
             (SELECT COUNT(*) FROM baseline_part p WHERE p.baseline = b.id) AS parts, \
             (SELECT COUNT(*) FROM deployment d WHERE d.baseline = b.id) AS deployments \
             FROM baseline b WHERE b.name > $1 ORDER BY b.name LIMIT $2";
        let rows = sqlx::query(sql)
            .bind(after.unwrap_or(""))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        let summary = |row: DbRow| {
            Ok(BaselineSummary {
                name: word(&row, "name")?,
                enabled: row.try_get::<i64, _>("enabled")? != 0,
                parts: row.try_get("parts")?,
                deployments: row.try_get("deployments")?,
                changed_at: time(&row, "changed_at")?,
            })
        };
        page(rows, limit, summary, |found| found.name.to_string())
    }

    async fn baseline_tree(&self, name: &BaselineName) -> Result<Vec<Baseline>> {
        const INSIDE: &str = "WITH RECURSIVE inside (baseline) AS \
             (SELECT b.id FROM baseline b WHERE b.name = ";
        const OF_INSIDE: &str = " UNION SELECT p.part FROM inside i \
             JOIN baseline_part p ON p.baseline = i.baseline WHERE p.part IS NOT NULL) ";
        let mut query = QueryBuilder::<Db>::new(INSIDE);
        query
            .push_bind(name.as_str().to_owned())
            .push(OF_INSIDE)
            .push(
                "SELECT b.id, b.name, b.description, b.enabled, b.created_at, b.changed_at, \
                 b.version FROM inside i JOIN baseline b ON b.id = i.baseline ORDER BY b.name",
            );
        let rows = query.build().fetch_all(&self.readers).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            found.push((row.try_get::<i64, _>("id")?, baseline(row)?));
        }
        let mut query = QueryBuilder::<Db>::new(INSIDE);
        query
            .push_bind(name.as_str().to_owned())
            .push(OF_INSIDE)
            .push(PARTS)
            .push(" JOIN inside i2 ON i2.baseline = p.baseline ORDER BY p.baseline, p.position");
        for row in query.build().fetch_all(&self.readers).await? {
            let of: i64 = row.try_get("baseline")?;
            if let Some((_, baseline)) = found.iter_mut().find(|(id, _)| *id == of) {
                baseline.content.parts.push(part(&row)?);
            }
        }
        let mut baselines: Vec<_> = found.into_iter().map(|(_, baseline)| baseline).collect();
        baselines.sort_by_key(|baseline| baseline.name != *name);
        Ok(baselines)
    }

    async fn deployment(&self, number: i64) -> Result<Option<DeploymentRecord>> {
        let mut query = QueryBuilder::<Db>::new(DEPLOYMENT);
        query.push(" WHERE d.number = ").push_bind(number);
        let row = query.build().fetch_optional(&self.readers).await?;
        row.map(deployment).transpose()
    }

    async fn deployments(&self, after: Option<i64>, limit: u32) -> Result<Page<DeploymentRecord>> {
        let limit = limit.min(MOST_COUNTED);
        let mut query = QueryBuilder::<Db>::new(DEPLOYMENT);
        query
            .push(" WHERE d.number > ")
            .push_bind(after.unwrap_or(0))
            .push(" ORDER BY d.number LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, deployment, |found| found.number.to_string())
    }

    async fn deployed_items(&self, number: i64) -> Result<Vec<(ItemName, u32)>> {
        let sql = "SELECT i.name, d.revision FROM deployment_item d \
             JOIN configuration_item i ON i.id = d.item WHERE d.deployment = $1 ORDER BY i.name";
        let rows = sqlx::query(sql)
            .bind(number)
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| Ok((word(row, "name")?, count(row, "revision")?)))
            .collect()
    }

    async fn exemptions(&self, filter: &ExemptionFilter) -> Result<Page<Exemption>> {
        let limit = filter.limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(
            "SELECT e.number, i.name AS item_name, e.rule, e.device, c.name AS collection_name, \
             COALESCE(d.host_name, '') AS host_name, e.reason, e.until, e.made_at, e.made_by, \
             e.ended_at FROM exemption e JOIN configuration_item i ON i.id = e.item \
             LEFT JOIN collection c ON c.id = e.collection LEFT JOIN device d ON d.id = e.device \
             WHERE e.number < ",
        );
        let before = match &filter.after {
            Some(after) => after.parse().map_err(no_cursor)?,
            None => i64::MAX,
        };
        query.push_bind(before);
        if !filter.ended {
            query.push(" AND e.ended_at IS NULL");
        }
        if let Some(device) = filter.device {
            query
                .push(" AND e.device = ")
                .push_bind(device.as_bytes().to_vec());
        }
        if let Some(item) = &filter.item {
            query
                .push(" AND i.name = ")
                .push_bind(item.as_str().to_owned());
        }
        query
            .push(" ORDER BY e.number DESC LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, exemption, |found| found.number.to_string())
    }

    async fn policy(&self) -> Result<PolicyPlace> {
        let row = sqlx::query(PLACE).fetch_one(&self.readers).await?;
        policy_place(&row)
    }

    async fn deployed_bodies(&self, numbers: &[i64]) -> Result<(PolicyPlace, Vec<DeployedBodies>)> {
        // At one moment: what is half old would be remembered under the counter of the new.
        let mut connection = self.readers.acquire().await?;
        let mut db = connection.begin_with(READ_ONE_MOMENT).await?;
        let row = sqlx::query(PLACE).fetch_one(&mut *db).await?;
        let place = policy_place(&row)?;
        if numbers.is_empty() {
            return Ok((place, Vec::new()));
        }
        let mut query = QueryBuilder::<Db>::new(DEPLOYMENT);
        push_numbers(query.push(" WHERE d.number IN ("), numbers);
        query.push(" ORDER BY d.number");
        let mut deployed = Vec::with_capacity(numbers.len());
        for row in query.build().fetch_all(&mut *db).await? {
            deployed.push(DeployedBodies {
                number: row.try_get("number")?,
                deployment: deployment_of(&row)?,
                bodies: Vec::new(),
            });
        }
        let mut query = QueryBuilder::<Db>::new(
            "SELECT i.deployment, r.body_hash FROM deployment_item i \
             JOIN item_revision r ON r.item = i.item AND r.number = i.revision \
             WHERE i.deployment IN (",
        );
        push_numbers(&mut query, numbers);
        query.push(" ORDER BY i.deployment, i.item");
        for row in query.build().fetch_all(&mut *db).await? {
            let of: i64 = row.try_get("deployment")?;
            if let Ok(at) = deployed.binary_search_by_key(&of, |deployed| deployed.number) {
                deployed[at].bodies.push(body_hash(&row)?);
            }
        }
        db.rollback().await?;
        deployed.retain(|deployed| !deployed.bodies.is_empty());
        Ok((place, deployed))
    }

    async fn body(&self, hash: BodyHash) -> Result<Option<Vec<u8>>> {
        let row = sqlx::query("SELECT body FROM item_revision WHERE body_hash = $1")
            .bind(hash.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map(|row| row.try_get("body")).transpose()?)
    }

    async fn open_commands(&self, device: DeviceId) -> Result<Vec<OpenCommand>> {
        let sql = "SELECT expires_at, document FROM command \
             WHERE device = $1 AND ended_at IS NULL ORDER BY issued_at, id LIMIT $2";
        let rows = sqlx::query(sql)
            .bind(device.as_bytes().to_vec())
            .bind(MOST_WAITING_COMMANDS)
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(OpenCommand {
                    expires_at: time(row, "expires_at")?,
                    document: row.try_get("document")?,
                })
            })
            .collect()
    }

    async fn command(&self, device: DeviceId, id: CommandId) -> Result<Option<Command>> {
        let mut query = QueryBuilder::<Db>::new(COMMAND);
        query
            .push(" WHERE id = ")
            .push_bind(id.as_bytes().to_vec())
            .push(" AND device = ")
            .push_bind(device.as_bytes().to_vec());
        let row = query.build().fetch_optional(&self.readers).await?;
        row.map(command).transpose()
    }

    async fn commands(
        &self,
        device: DeviceId,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Page<Command>> {
        let limit = limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(COMMAND);
        query
            .push(" WHERE device = ")
            .push_bind(device.as_bytes().to_vec());
        if let Some(before) = before {
            let (at, id) = before.split_once('/').ok_or_else(|| no_cursor(before))?;
            let at: i64 = at.parse().map_err(no_cursor)?;
            let id: CommandId = id.parse().map_err(no_cursor)?;
            query.push(" AND (issued_at, id) < (").push_bind(at);
            query.push(", ").push_bind(id.as_bytes().to_vec()).push(")");
        }
        query
            .push(" ORDER BY issued_at DESC, id DESC LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, command, |found| {
            format!("{}/{}", found.issued_at.as_millisecond(), found.id)
        })
    }
}

fn item(row: DbRow) -> Result<Item> {
    Ok(Item {
        name: word(&row, "name")?,
        latest: count(&row, "latest")?,
        platforms: row.try_get("platforms")?,
        rules: row.try_get("rules")?,
        created_at: time(&row, "created_at")?,
        changed_at: time(&row, "changed_at")?,
        changed_by: row.try_get("author")?,
    })
}

fn baseline(row: &DbRow) -> Result<Baseline> {
    Ok(Baseline {
        name: word(row, "name")?,
        content: BaselineContent {
            description: row.try_get("description")?,
            enabled: row.try_get::<i64, _>("enabled")? != 0,
            parts: Vec::new(),
        },
        created_at: time(row, "created_at")?,
        changed_at: time(row, "changed_at")?,
        version: row.try_get("version")?,
    })
}

/// A row of [`PARTS`].
pub(super) fn part(row: &DbRow) -> Result<BaselinePart> {
    let inner: Option<String> = row.try_get("part_name")?;
    if let Some(name) = inner {
        let name = name.parse().map_err(corrupt)?;
        return Ok(BaselinePart::Baseline { name });
    }
    let revision: Option<i64> = row.try_get("revision")?;
    Ok(BaselinePart::Item {
        name: word(row, "item_name")?,
        revision: revision.map(u32::try_from).transpose().map_err(corrupt)?,
    })
}

fn deployment(row: DbRow) -> Result<DeploymentRecord> {
    Ok(DeploymentRecord {
        number: row.try_get("number")?,
        deployment: deployment_of(&row)?,
        made_at: time(&row, "made_at")?,
        changed_at: time(&row, "changed_at")?,
        version: row.try_get("version")?,
        items: row.try_get("items")?,
        rules: row.try_get("rules")?,
    })
}

/// What a row of [`DEPLOYMENT`] says.
pub(super) fn deployment_of(row: &DbRow) -> Result<Deployment> {
    let window: Option<String> = row.try_get("remediation_window")?;
    let below: Option<i64> = row.try_get("alert_below")?;
    let alert = match (below, optional_time(row, "alert_at")?) {
        (Some(below), Some(at)) => Some(ComplianceAlert {
            below: below.try_into().map_err(corrupt)?,
            at,
        }),
        _ => None,
    };
    Ok(Deployment {
        baseline: word(row, "baseline_name")?,
        collection: word(row, "collection_name")?,
        remediate: row.try_get::<i64, _>("remediate")? != 0,
        schedule: word(row, "schedule")?,
        spread: period(row, "spread")?,
        remediation_window: window
            .map(|window| window.parse().map_err(corrupt))
            .transpose()?,
        stale_after: period(row, "stale_after")?,
        alert,
    })
}

fn exemption(row: DbRow) -> Result<Exemption> {
    let collection: Option<String> = row.try_get("collection_name")?;
    let scope = match collection {
        Some(name) => ExemptionScope::Collection(name.parse().map_err(corrupt)?),
        None => ExemptionScope::Device(device_id(&row, "device")?),
    };
    Ok(Exemption {
        number: row.try_get("number")?,
        item: word(&row, "item_name")?,
        rule: word(&row, "rule")?,
        scope,
        host_name: row.try_get("host_name")?,
        reason: row.try_get("reason")?,
        until: optional_time(&row, "until")?,
        made_at: time(&row, "made_at")?,
        made_by: row.try_get("made_by")?,
        ended_at: optional_time(&row, "ended_at")?,
    })
}

fn command(row: DbRow) -> Result<Command> {
    let id: Vec<u8> = row.try_get("id")?;
    let id = id.try_into().map_err(|_| corrupt("a command's name"))?;
    let done: Option<i64> = row.try_get("done")?;
    Ok(Command {
        id: CommandId::new(id),
        device: device_id(&row, "device")?,
        kind: word(&row, "what")?,
        about: row.try_get("about")?,
        issued_at: time(&row, "issued_at")?,
        issued_by: row.try_get("issued_by")?,
        expires_at: time(&row, "expires_at")?,
        ended_at: optional_time(&row, "ended_at")?,
        done: done.map(|done| done != 0),
        detail: row.try_get("detail")?,
    })
}

/// The columns `epoch`, `counter` and `objects` of the table `policy`.
pub(super) fn policy_place(row: &DbRow) -> Result<PolicyPlace> {
    Ok(PolicyPlace {
        version: version(row.try_get("epoch")?, row.try_get("counter")?)?,
        objects: row.try_get("objects")?,
    })
}

pub(super) fn version(epoch: i64, counter: i64) -> Result<PolicyVersion> {
    Ok(PolicyVersion {
        epoch: epoch.try_into().map_err(corrupt)?,
        counter: counter.try_into().map_err(corrupt)?,
    })
}

fn body_hash(row: &DbRow) -> Result<BodyHash> {
    let bytes: Vec<u8> = row.try_get("body_hash")?;
    let hash = bytes.try_into().map_err(|_| corrupt("a body's hash"))?;
    Ok(BodyHash::new(hash))
}

fn count(row: &DbRow, column: &str) -> Result<u32> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(corrupt)
}

fn period(row: &DbRow, column: &str) -> Result<Period> {
    let seconds = u64::try_from(row.try_get::<i64, _>(column)?).map_err(corrupt)?;
    Ok(Period::from_seconds(seconds))
}

fn push_numbers(query: &mut QueryBuilder<Db>, numbers: &[i64]) {
    let mut list = query.separated(", ");
    for number in numbers {
        list.push_bind(*number);
    }
    query.push(")");
}
