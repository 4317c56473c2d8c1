//! Configuration items, baselines, deployments and exemptions, and what they come to. Compiled once for
//! each database: `super` says which.
//!
//! Each change begins with the lock of the `policy` row: changes of objects happen one after the other,
//! on all nodes. So a check that looks at several rows (nesting, use, numbers) holds at the commit.

use domain::Timestamp;
use domain::compliance::{
    BaselineContent, BaselineName, BaselinePart, Condition, Deployment, ExemptionScope,
    ItemContent, ItemName, Nesting, Platform, RuleName, SettingSource,
};
use protocol::{BodyHash, ItemBody, RuleNumber};
use serde::Serialize;
use sqlx::{Connection, QueryBuilder, Row};

use super::collections::{id as collection_id, no_collection, refuse_deployment, refuse_exemption};
use super::compliance_reads::{DEPLOYMENT, PARTS, deployment_of, part};
use super::deployment_states;
use super::memberships::{deployments_changed, hold};
use super::reads::{corrupt, optional_device_id, word};
use super::writes::{Outcome, device_state, no_device};
use super::{Db, DbConnection, LOCK_ROW, SHARE_ROW};
use crate::Unavailable;
use crate::change::{Actor, Applied, Conflict};
use crate::compliance::{
    MOST_BASELINES, MOST_DEPLOYED_ITEMS, MOST_DEPLOYED_RULES, MOST_DEPLOYMENTS, MOST_EXEMPTIONS,
    MOST_ITEMS, MOST_REVISED_BYTES, NewExemption, ObjectChange,
};

type Result<T> = std::result::Result<T, Unavailable>;

/// Rows that one statement inserts.
const AT_ONCE: usize = 2_000;

/// Applies a change whole or not at all: a conflict that shows at its end undoes what it began.
pub(super) async fn apply(
    db: &mut DbConnection,
    change: &ObjectChange,
    by: &Actor,
    at: Timestamp,
) -> Result<Outcome> {
    let mut part = db.begin().await?;
    // Members of collections may be chosen by it: first the right to change those, as whoever works
    // out memberships takes them in this order, too.
    if matches!(
        change,
        ObjectChange::CreateDeployment(_)
            | ObjectChange::SetDeployment { .. }
            | ObjectChange::DeleteDeployment { .. }
            | ObjectChange::Exempt(_)
            | ObjectChange::EndExemption { .. }
    ) {
        hold(&mut part, at).await?;
    }
    lock(&mut part).await?;
    let outcome = applied(&mut part, change, by, at).await?;
    match outcome {
        Ok(_) => part.commit().await?,
        Err(_) => part.rollback().await?,
    }
    Ok(outcome)
}

async fn lock(db: &mut DbConnection) -> Result<()> {
    let mut query = QueryBuilder::<Db>::new("SELECT counter FROM policy WHERE one = 1");
    query.push(LOCK_ROW).build().fetch_one(db).await?;
    Ok(())
}

async fn applied(
    db: &mut DbConnection,
    change: &ObjectChange,
    by: &Actor,
    at: Timestamp,
) -> Result<Outcome> {
    match change {
        ObjectChange::CreateItem { name, content } => create_item(db, name, content, by, at).await,
        ObjectChange::ReviseItem {
            name,
            content,
            base,
        } => revise_item(db, name, content, *base, by, at).await,
        ObjectChange::DeleteItem { name } => delete_item(db, name, at).await,
        ObjectChange::CreateBaseline { name, content } => {
            create_baseline(db, name, content, at).await
        }
        ObjectChange::SetBaseline {
            name,
            content,
            base,
        } => set_baseline(db, name, content, *base, at).await,
        ObjectChange::DeleteBaseline { name } => delete_baseline(db, name).await,
        ObjectChange::CreateDeployment(deployment) => create_deployment(db, deployment, at).await,
        ObjectChange::SetDeployment {
            number,
            deployment,
            base,
        } => set_deployment(db, *number, deployment, *base, at).await,
        ObjectChange::DeleteDeployment { number } => delete_deployment(db, *number).await,
        ObjectChange::Exempt(new) => exempt(db, new, by, at).await,
        ObjectChange::EndExemption { number } => end_exemption(db, *number, at).await,
    }
}

/// Raises the policy's counter: some device's list is another one from now on. Called with each change
/// of memberships, too, in its transaction, where the collection has a deployment.
pub(super) async fn bump(db: &mut DbConnection) -> Result<()> {
    sqlx::query("UPDATE policy SET counter = counter + 1 WHERE one = 1")
        .execute(db)
        .await?;
    Ok(())
}

/// [`bump`], and what nodes remember of deployments is old.
async fn bump_objects(db: &mut DbConnection) -> Result<()> {
    sqlx::query("UPDATE policy SET objects = objects + 1 WHERE one = 1")
        .execute(&mut *db)
        .await?;
    bump(db).await
}

// Configuration items.

async fn create_item(
    db: &mut DbConnection,
    name: &ItemName,
    content: &ItemContent,
    by: &Actor,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "SELECT COUNT(*) AS n FROM configuration_item WHERE deleted_at IS NULL";
    if let Some(full) = full(db, sql, MOST_ITEMS, "configuration items").await? {
        return Ok(Err(full));
    }
    let sql = "INSERT INTO configuration_item (name, latest, created_at) VALUES ($1, 0, $2) \
         ON CONFLICT DO NOTHING RETURNING id";
    let row = sqlx::query(sql)
        .bind(name.as_str())
        .bind(at.as_millisecond())
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else {
        return Ok(Err(Conflict::Exists(format!(
            "the configuration item `{name}`"
        ))));
    };
    let id = row.try_get("id")?;
    Ok(Ok(new_revision(db, id, name, 1, content, by, at).await?))
}

async fn revise_item(
    db: &mut DbConnection,
    name: &ItemName,
    content: &ItemContent,
    base: Option<u32>,
    by: &Actor,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "SELECT i.id, i.latest, r.content FROM configuration_item i \
         JOIN item_revision r ON r.item = i.id AND r.number = i.latest \
         WHERE i.name = $1 AND i.deleted_at IS NULL";
    let row = sqlx::query(sql)
        .bind(name.as_str())
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else {
        return Ok(Err(no_item(name)));
    };
    let (id, latest): (i64, i64) = (row.try_get("id")?, row.try_get("latest")?);
    if base.is_some_and(|base| i64::from(base) != latest) {
        return Ok(Err(Conflict::Changed));
    }
    if row.try_get::<String, _>("content")? == json(content) {
        return Ok(Ok(Applied::Unchanged));
    }
    let sql = "SELECT CAST(COALESCE(SUM(length(body)), 0) AS BIGINT) AS bytes FROM item_revision \
         WHERE item = $1";
    let row = sqlx::query(sql).bind(id).fetch_one(&mut *db).await?;
    let bytes = i64::try_from(json(content).len()).map_err(corrupt)?;
    if row.try_get::<i64, _>("bytes")? + bytes > MOST_REVISED_BYTES {
        return Ok(Err(Conflict::RevisedTooMuch(MOST_REVISED_BYTES >> 20)));
    }
    let revision = u32::try_from(latest + 1).map_err(corrupt)?;
    let revised = new_revision(db, id, name, revision, content, by, at).await?;
    let touched = numbers(
        db,
        "SELECT deployment AS number FROM deployment_item WHERE item = $1 ORDER BY deployment",
        id,
    )
    .await?;
    Ok(work_out(db, &touched, Otherwise::Same)
        .await?
        .map(|()| revised))
}

/// Records a revision: its rules get their numbers, and its body is made.
async fn new_revision(
    db: &mut DbConnection,
    item: i64,
    name: &ItemName,
    revision: u32,
    content: &ItemContent,
    by: &Actor,
    at: Timestamp,
) -> Result<Applied> {
    let mut rules = Vec::with_capacity(content.rules().len());
    for rule in content.rules() {
        let setting = content.setting_of(rule);
        let meaning = RuleMeaning {
            name: &rule.name,
            data_type: setting.data_type.word(),
            setting: setting.name.as_str(),
            source: &setting.source,
            condition: &rule.condition,
            platforms: content.platforms(),
        };
        let sql = "INSERT INTO rule (item, name, definition, severity) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (item, definition) DO UPDATE SET severity = excluded.severity \
             RETURNING id";
        let row = sqlx::query(sql)
            .bind(item)
            .bind(rule.name.as_str())
            .bind(sha256(json(&meaning).as_bytes()).to_vec())
            .bind(rule.severity.word())
            .fetch_one(&mut *db)
            .await?;
        rules.push(RuleNumber(row.try_get("id")?));
    }
    let body = json(&ItemBody {
        item: name.clone(),
        revision,
        content: content.clone(),
        rules: rules.clone(),
    });
    let hash = sha256(body.as_bytes());
    let platforms: Vec<_> = content
        .platforms()
        .iter()
        .map(|platform| platform.os.word())
        .collect();
    let sql = "INSERT INTO item_revision \
         (item, number, created_at, author, content, platforms, body_hash, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    sqlx::query(sql)
        .bind(item)
        .bind(i64::from(revision))
        .bind(at.as_millisecond())
        .bind(by.who())
        .bind(json(content))
        .bind(platforms.join(", "))
        .bind(hash.to_vec())
        .bind(body.into_bytes())
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE configuration_item SET latest = $2 WHERE id = $1")
        .bind(item)
        .bind(i64::from(revision))
        .execute(&mut *db)
        .await?;
    let mut query = QueryBuilder::<Db>::new("INSERT INTO revision_rule (item, revision, rule) ");
    query.push_values(&rules, |mut row, rule| {
        row.push_bind(item)
            .push_bind(i64::from(revision))
            .push_bind(rule.0);
    });
    query.build().execute(db).await?;
    Ok(Applied::Revised {
        revision,
        body: BodyHash::new(hash),
    })
}

/// What makes a rule another one: then its results are others. Its severity does not, nor whether it is
/// remediated.
#[derive(Serialize)]
struct RuleMeaning<'a> {
    name: &'a RuleName,
    setting: &'a str,
    data_type: &'a str,
    source: &'a SettingSource,
    condition: &'a Condition,
    platforms: &'a [Platform],
}

async fn delete_item(db: &mut DbConnection, name: &ItemName, at: Timestamp) -> Result<Outcome> {
    let Some(id) = item_id(db, name).await? else {
        return Ok(Err(no_item(name)));
    };
    let sql = "SELECT b.name FROM baseline_part p JOIN baseline b ON b.id = p.baseline \
         WHERE p.item = $1 ORDER BY b.name LIMIT 1";
    if let Some(row) = sqlx::query(sql).bind(id).fetch_optional(&mut *db).await? {
        let by: BaselineName = word(&row, "name")?;
        return Ok(Err(Conflict::UsedByBaseline("configuration item", by)));
    }
    for sql in [
        "UPDATE exemption SET ended_at = $2 WHERE item = $1 AND ended_at IS NULL",
        "UPDATE configuration_item SET deleted_at = $2 WHERE id = $1",
    ] {
        sqlx::query(sql)
            .bind(id)
            .bind(at.as_millisecond())
            .execute(&mut *db)
            .await?;
    }
    Ok(Ok(Applied::Done))
}

async fn item_id(db: &mut DbConnection, name: &ItemName) -> Result<Option<i64>> {
    let sql = "SELECT id FROM configuration_item WHERE name = $1 AND deleted_at IS NULL";
    let row = sqlx::query(sql)
        .bind(name.as_str())
        .fetch_optional(db)
        .await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?)
}

// Baselines.

async fn create_baseline(
    db: &mut DbConnection,
    name: &BaselineName,
    content: &BaselineContent,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "SELECT COUNT(*) AS n FROM baseline";
    if let Some(full) = full(db, sql, MOST_BASELINES, "baselines").await? {
        return Ok(Err(full));
    }
    let sql = "INSERT INTO baseline (name, description, enabled, created_at, changed_at, version) \
         VALUES ($1, $2, $3, $4, $4, 1) ON CONFLICT DO NOTHING RETURNING id";
    let row = sqlx::query(sql)
        .bind(name.as_str())
        .bind(&content.description)
        .bind(i64::from(content.enabled))
        .bind(at.as_millisecond())
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else {
        return Ok(Err(Conflict::Exists(format!("the baseline `{name}`"))));
    };
    let id = row.try_get("id")?;
    if let Err(conflict) = set_parts(db, id, name, content).await? {
        return Ok(Err(conflict));
    }
    Ok(Ok(Applied::Done))
}

async fn set_baseline(
    db: &mut DbConnection,
    name: &BaselineName,
    content: &BaselineContent,
    base: Option<i64>,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "SELECT id, description, enabled, version FROM baseline WHERE name = $1";
    let row = sqlx::query(sql)
        .bind(name.as_str())
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else {
        return Ok(Err(no_baseline(name)));
    };
    if base.is_some_and(|base| {
        row.try_get::<i64, _>("version")
            .is_ok_and(|now| now != base)
    }) {
        return Ok(Err(Conflict::Changed));
    }
    let id: i64 = row.try_get("id")?;
    let before = BaselineContent {
        description: row.try_get("description")?,
        enabled: row.try_get::<i64, _>("enabled")? != 0,
        parts: parts_of(db, id).await?,
    };
    if before == *content {
        return Ok(Ok(Applied::Unchanged));
    }
    let sql = "UPDATE baseline SET description = $2, enabled = $3, changed_at = $4, \
         version = version + 1 WHERE id = $1";
    sqlx::query(sql)
        .bind(id)
        .bind(&content.description)
        .bind(i64::from(content.enabled))
        .bind(at.as_millisecond())
        .execute(&mut *db)
        .await?;
    if let Err(conflict) = set_parts(db, id, name, content).await? {
        return Ok(Err(conflict));
    }
    let touched = numbers(
        db,
        "WITH RECURSIVE around (baseline) AS (SELECT b.id FROM baseline b WHERE b.id = $1 \
         UNION SELECT p.baseline FROM around a JOIN baseline_part p ON p.part = a.baseline) \
         SELECT d.number FROM around a JOIN deployment d ON d.baseline = a.baseline \
         ORDER BY d.number",
        id,
    )
    .await?;
    Ok(work_out(db, &touched, Otherwise::Same)
        .await?
        .map(|()| Applied::Done))
}

/// Gives a baseline its parts in the place of those that it had.
async fn set_parts(
    db: &mut DbConnection,
    baseline: i64,
    name: &BaselineName,
    content: &BaselineContent,
) -> Result<std::result::Result<(), Conflict>> {
    let mut rows = Vec::with_capacity(content.parts.len());
    for part in &content.parts {
        rows.push(match part {
            BaselinePart::Item { name, revision } => {
                let sql = "SELECT id, latest FROM configuration_item \
                     WHERE name = $1 AND deleted_at IS NULL";
                let row = sqlx::query(sql)
                    .bind(name.as_str())
                    .fetch_optional(&mut *db)
                    .await?;
                let Some(row) = row else {
                    return Ok(Err(no_item(name)));
                };
                let revision = revision.map(i64::from);
                if revision
                    .is_some_and(|wanted| row.try_get("latest").is_ok_and(|l: i64| wanted > l))
                {
                    let wanted = revision.unwrap_or_default();
                    return Ok(Err(Conflict::NotFound(format!(
                        "revision {wanted} of the configuration item `{name}`"
                    ))));
                }
                (Some(row.try_get::<i64, _>("id")?), revision, None)
            }
            BaselinePart::Baseline { name } => match baseline_id(db, name).await? {
                Some(id) => (None, None, Some(id)),
                None => return Ok(Err(no_baseline(name))),
            },
        });
    }
    sqlx::query("DELETE FROM baseline_part WHERE baseline = $1")
        .bind(baseline)
        .execute(&mut *db)
        .await?;
    let rows: Vec<_> = (0_i64..).zip(rows).collect();
    for some in rows.chunks(AT_ONCE) {
        let mut query = QueryBuilder::<Db>::new(
            "INSERT INTO baseline_part (baseline, position, item, revision, part) ",
        );
        query.push_values(some, |mut row, (position, (item, revision, part))| {
            row.push_bind(baseline)
                .push_bind(*position)
                .push_bind(*item)
                .push_bind(*revision)
                .push_bind(*part);
        });
        query.build().execute(&mut *db).await?;
    }
    if content.nested().next().is_none() {
        return Ok(Ok(()));
    }
    Ok(nesting(db).await?.check(name).map_err(Conflict::from))
}

/// Which baselines have which others as parts: all of them. They are some thousands at most, and they
/// are looked at only when somebody nests one.
async fn nesting(db: &mut DbConnection) -> Result<Nesting> {
    let sql = "SELECT o.name AS outside, i.name AS inside FROM baseline_part p \
         JOIN baseline o ON o.id = p.baseline JOIN baseline i ON i.id = p.part \
         WHERE p.part IS NOT NULL ORDER BY p.baseline, p.position";
    let mut nesting = Nesting::default();
    let mut of_one: Option<(BaselineName, Vec<BaselineName>)> = None;
    for row in sqlx::query(sql).fetch_all(db).await? {
        let (outside, inside): (BaselineName, _) = (word(&row, "outside")?, word(&row, "inside")?);
        match &mut of_one {
            Some((name, parts)) if *name == outside => parts.push(inside),
            _ => {
                if let Some((name, parts)) = of_one.replace((outside, vec![inside])) {
                    nesting.insert(name, parts);
                }
            }
        }
    }
    if let Some((name, parts)) = of_one {
        nesting.insert(name, parts);
    }
    Ok(nesting)
}

/// The parts of a baseline in their order.
async fn parts_of(db: &mut DbConnection, baseline: i64) -> Result<Vec<BaselinePart>> {
    let mut query = QueryBuilder::<Db>::new(PARTS);
    query
        .push(" WHERE p.baseline = ")
        .push_bind(baseline)
        .push(" ORDER BY p.position");
    let rows = query.build().fetch_all(db).await?;
    rows.iter().map(part).collect()
}

async fn delete_baseline(db: &mut DbConnection, name: &BaselineName) -> Result<Outcome> {
    let Some(id) = baseline_id(db, name).await? else {
        return Ok(Err(no_baseline(name)));
    };
    let sql = "SELECT b.name FROM baseline_part p JOIN baseline b ON b.id = p.baseline \
         WHERE p.part = $1 ORDER BY b.name LIMIT 1";
    if let Some(row) = sqlx::query(sql).bind(id).fetch_optional(&mut *db).await? {
        let by: BaselineName = word(&row, "name")?;
        return Ok(Err(Conflict::UsedByBaseline("baseline", by)));
    }
    let sql = "SELECT number FROM deployment WHERE baseline = $1 ORDER BY number LIMIT 1";
    if let Some(row) = sqlx::query(sql).bind(id).fetch_optional(&mut *db).await? {
        let number = row.try_get("number")?;
        return Ok(Err(Conflict::UsedByDeployment("baseline", number)));
    }
    for sql in [
        "DELETE FROM baseline_part WHERE baseline = $1",
        "DELETE FROM baseline WHERE id = $1",
    ] {
        sqlx::query(sql).bind(id).execute(&mut *db).await?;
    }
    Ok(Ok(Applied::Done))
}

async fn baseline_id(db: &mut DbConnection, name: &BaselineName) -> Result<Option<i64>> {
    let row = sqlx::query("SELECT id FROM baseline WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(db)
        .await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?)
}

// Deployments.

async fn create_deployment(
    db: &mut DbConnection,
    deployment: &Deployment,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "SELECT COUNT(*) AS n FROM deployment";
    if let Some(full) = full(db, sql, MOST_DEPLOYMENTS, "deployments").await? {
        return Ok(Err(full));
    }
    let (baseline, collection) = match ends_of(db, deployment, None).await? {
        Ok(ends) => ends,
        Err(conflict) => return Ok(Err(conflict)),
    };
    let sql = "INSERT INTO deployment (baseline, collection, remediate, schedule, spread, \
         remediation_window, stale_after, alert_below, alert_at, made_at, changed_at, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, 1) RETURNING number";
    let row = sqlx::query(sql)
        .bind(baseline)
        .bind(collection)
        .bind(i64::from(deployment.remediate))
        .bind(deployment.schedule.to_string())
        .bind(deployment.spread.seconds() as i64)
        .bind(deployment.remediation_window.map(|w| w.to_string()))
        .bind(deployment.stale_after.seconds() as i64)
        .bind(deployment.alert.map(|alert| i64::from(alert.below)))
        .bind(deployment.alert.map(|alert| alert.at.as_millisecond()))
        .bind(at.as_millisecond())
        .fetch_one(&mut *db)
        .await?;
    let number = row.try_get("number")?;
    deployments_changed(db, &deployment.baseline).await?;
    Ok(work_out(db, &[number], Otherwise::Aim)
        .await?
        .map(|()| Applied::Numbered(number)))
}

async fn set_deployment(
    db: &mut DbConnection,
    number: i64,
    deployment: &Deployment,
    base: Option<i64>,
    at: Timestamp,
) -> Result<Outcome> {
    let mut query = QueryBuilder::<Db>::new(DEPLOYMENT);
    query.push(" WHERE d.number = ").push_bind(number);
    let Some(row) = query.build().fetch_optional(&mut *db).await? else {
        return Ok(Err(no_deployment(number)));
    };
    if base.is_some_and(|base| {
        row.try_get::<i64, _>("version")
            .is_ok_and(|now| now != base)
    }) {
        return Ok(Err(Conflict::Changed));
    }
    let before = deployment_of(&row)?;
    if before == *deployment {
        return Ok(Ok(Applied::Unchanged));
    }
    let (baseline, collection) = match ends_of(db, deployment, Some(number)).await? {
        Ok(ends) => ends,
        Err(conflict) => return Ok(Err(conflict)),
    };
    let sql = "UPDATE deployment SET baseline = $2, collection = $3, remediate = $4, \
         schedule = $5, spread = $6, remediation_window = $7, stale_after = $8, alert_below = $9, \
         alert_at = $10, changed_at = $11, version = version + 1 WHERE number = $1";
    sqlx::query(sql)
        .bind(number)
        .bind(baseline)
        .bind(collection)
        .bind(i64::from(deployment.remediate))
        .bind(deployment.schedule.to_string())
        .bind(deployment.spread.seconds() as i64)
        .bind(deployment.remediation_window.map(|w| w.to_string()))
        .bind(deployment.stale_after.seconds() as i64)
        .bind(deployment.alert.map(|alert| i64::from(alert.below)))
        .bind(deployment.alert.map(|alert| alert.at.as_millisecond()))
        .bind(at.as_millisecond())
        .execute(&mut *db)
        .await?;
    for baseline in [&before.baseline, &deployment.baseline] {
        deployments_changed(db, baseline).await?;
    }
    let aims_elsewhere =
        (&before.baseline, &before.collection) != (&deployment.baseline, &deployment.collection);
    let otherwise = match aims_elsewhere {
        true => Otherwise::Aim,
        false => Otherwise::How,
    };
    Ok(work_out(db, &[number], otherwise)
        .await?
        .map(|()| Applied::Done))
}

/// The numbers of a deployment's baseline and collection. `number`: its own, when it is there already.
/// The same baseline twice for one collection would be evaluated twice on the same devices.
async fn ends_of(
    db: &mut DbConnection,
    deployment: &Deployment,
    number: Option<i64>,
) -> Result<std::result::Result<(i64, i64), Conflict>> {
    let Some(baseline) = baseline_id(db, &deployment.baseline).await? else {
        return Ok(Err(no_baseline(&deployment.baseline)));
    };
    let Some(collection) = collection_id(db, &deployment.collection, SHARE_ROW).await? else {
        return Ok(Err(no_collection(&deployment.collection)));
    };
    let sql = "SELECT number FROM deployment WHERE baseline = $1 AND collection = $2";
    for row in sqlx::query(sql)
        .bind(baseline)
        .bind(collection)
        .fetch_all(&mut *db)
        .await?
    {
        let other: i64 = row.try_get("number")?;
        if Some(other) != number {
            return Ok(Err(Conflict::Exists(format!(
                "a deployment of the baseline `{}` to the collection `{}` (deployment {other})",
                deployment.baseline, deployment.collection
            ))));
        }
    }
    if let Some(refused) = refuse_deployment(db, &deployment.baseline, collection).await? {
        return Ok(Err(refused));
    }
    Ok(Ok((baseline, collection)))
}

/// The states of its devices are many rows: the job that finds it in `deployment_due` removes them in
/// steps.
async fn delete_deployment(db: &mut DbConnection, number: i64) -> Result<Outcome> {
    let mut query = QueryBuilder::<Db>::new(DEPLOYMENT);
    query.push(" WHERE d.number = ").push_bind(number);
    let Some(row) = query.build().fetch_optional(&mut *db).await? else {
        return Ok(Err(no_deployment(number)));
    };
    let deployment = deployment_of(&row)?;
    sqlx::query("DELETE FROM deployment WHERE number = $1")
        .bind(number)
        .execute(&mut *db)
        .await?;
    deployments_changed(db, &deployment.baseline).await?;
    for sql in [
        "DELETE FROM deployment_item WHERE deployment = $1",
        "DELETE FROM deployment_rule WHERE deployment = $1",
    ] {
        sqlx::query(sql).bind(number).execute(&mut *db).await?;
    }
    due(db, number, true).await?;
    bump_objects(db).await?;
    Ok(Ok(Applied::Done))
}

/// A deployment or an exemption that uses a collection: then it is not deleted.
pub(super) async fn user_of_collection(
    db: &mut DbConnection,
    collection: i64,
) -> Result<Option<Conflict>> {
    let sql = "SELECT number FROM deployment WHERE collection = $1 ORDER BY number LIMIT 1";
    let user = sqlx::query(sql).bind(collection).fetch_optional(&mut *db);
    if let Some(row) = user.await? {
        let number = row.try_get("number")?;
        return Ok(Some(Conflict::UsedByDeployment("collection", number)));
    }
    let sql = "SELECT number FROM exemption WHERE collection = $1 AND ended_at IS NULL \
         ORDER BY number LIMIT 1";
    let user = sqlx::query(sql).bind(collection).fetch_optional(db);
    Ok(match user.await? {
        Some(row) => Some(Conflict::UsedByExemption(row.try_get("number")?)),
        None => None,
    })
}

// What deployments come to.

/// Works out deployments anew: which revision of which item their devices get, and the rules. One
/// revision of each item: where several parts name one, a fixed revision wins over the latest, and the
/// highest of several fixed ones. Their devices' states are worked out anew only where the rules, or the
/// devices, are others.
async fn work_out(
    db: &mut DbConnection,
    deployments: &[i64],
    otherwise: Otherwise,
) -> Result<std::result::Result<(), Conflict>> {
    let mut touched = otherwise != Otherwise::Same;
    for number in deployments {
        let resolved = match resolve(db, *number).await? {
            Ok(resolved) => resolved,
            Err(conflict) => return Ok(Err(conflict)),
        };
        touched |= resolved != Resolved::Same;
        if resolved == Resolved::Rules || otherwise == Otherwise::Aim {
            due(db, *number, true).await?;
        }
    }
    if touched {
        bump_objects(db).await?;
    }
    Ok(Ok(()))
}

/// What of deployments changed beside what they come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    Same,
    /// When and how they are evaluated.
    How,
    /// Their baseline or their collection.
    Aim,
}

/// What a deployment comes to, against before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolved {
    Same,
    /// Other revisions of items, with the same rules.
    Items,
    Rules,
}

const RULES: &str =
    "SELECT rule AS number FROM deployment_rule WHERE deployment = $1 ORDER BY rule";

async fn resolve(
    db: &mut DbConnection,
    number: i64,
) -> Result<std::result::Result<Resolved, Conflict>> {
    let sql = "WITH RECURSIVE inside (baseline) AS (SELECT b.id FROM deployment d \
         JOIN baseline b ON b.id = d.baseline AND b.enabled = 1 WHERE d.number = $1 \
         UNION SELECT n.id FROM inside i JOIN baseline_part p ON p.baseline = i.baseline \
         JOIN baseline n ON n.id = p.part AND n.enabled = 1) \
         SELECT p.item, COALESCE(MAX(p.revision), MAX(c.latest)) AS revision FROM inside i \
         JOIN baseline_part p ON p.baseline = i.baseline \
         JOIN configuration_item c ON c.id = p.item GROUP BY p.item ORDER BY p.item";
    let items = revisions(db, sql, number).await?;
    let sql = "SELECT item, revision FROM deployment_item WHERE deployment = $1 ORDER BY item";
    if items == revisions(db, sql, number).await? {
        return Ok(Ok(Resolved::Same));
    }
    if items.len() > MOST_DEPLOYED_ITEMS {
        return Ok(Err(Conflict::DeploymentTooLarge(
            number,
            MOST_DEPLOYED_ITEMS as i64,
            "configuration items",
        )));
    }
    let before = numbers(db, RULES, number).await?;
    for sql in [
        "DELETE FROM deployment_item WHERE deployment = $1",
        "DELETE FROM deployment_rule WHERE deployment = $1",
    ] {
        sqlx::query(sql).bind(number).execute(&mut *db).await?;
    }
    for some in items.chunks(AT_ONCE) {
        let mut query =
            QueryBuilder::<Db>::new("INSERT INTO deployment_item (deployment, item, revision) ");
        query.push_values(some, |mut row, (item, revision)| {
            row.push_bind(number).push_bind(*item).push_bind(*revision);
        });
        query.build().execute(&mut *db).await?;
    }
    let sql = "INSERT INTO deployment_rule (deployment, rule) \
         SELECT i.deployment, r.rule FROM deployment_item i \
         JOIN revision_rule r ON r.item = i.item AND r.revision = i.revision \
         WHERE i.deployment = $1";
    let rules = sqlx::query(sql).bind(number).execute(&mut *db).await?;
    if rules.rows_affected() as i64 > MOST_DEPLOYED_RULES {
        return Ok(Err(Conflict::DeploymentTooLarge(
            number,
            MOST_DEPLOYED_RULES,
            "rules",
        )));
    }
    Ok(Ok(match numbers(db, RULES, number).await? == before {
        true => Resolved::Items,
        false => Resolved::Rules,
    }))
}

async fn revisions(
    db: &mut DbConnection,
    sql: &'static str,
    deployment: i64,
) -> Result<Vec<(i64, i64)>> {
    let rows = sqlx::query(sql).bind(deployment).fetch_all(db).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("item")?, row.try_get("revision")?)))
        .collect()
}

/// The states of a deployment's devices have to be worked out anew, from the first device on.
/// `anew`: its rules are others than before.
async fn due(db: &mut DbConnection, deployment: i64, anew: bool) -> Result<()> {
    let sql = "INSERT INTO deployment_due (deployment, after, anew) VALUES ($1, NULL, $2) \
         ON CONFLICT (deployment) DO UPDATE SET after = NULL, \
         anew = CASE WHEN deployment_due.anew = 1 THEN 1 ELSE excluded.anew END";
    sqlx::query(sql)
        .bind(deployment)
        .bind(i64::from(anew))
        .execute(db)
        .await?;
    Ok(())
}

// Exemptions.

async fn exempt(
    db: &mut DbConnection,
    new: &NewExemption,
    by: &Actor,
    at: Timestamp,
) -> Result<Outcome> {
    let sql = "SELECT COUNT(*) AS n FROM exemption WHERE ended_at IS NULL";
    if let Some(full) = full(db, sql, MOST_EXEMPTIONS, "exemptions").await? {
        return Ok(Err(full));
    }
    let Some(item) = item_id(db, &new.item).await? else {
        return Ok(Err(no_item(&new.item)));
    };
    let sql = "SELECT id FROM rule WHERE item = $1 AND name = $2 LIMIT 1";
    let rule = sqlx::query(sql)
        .bind(item)
        .bind(new.rule.as_str())
        .fetch_optional(&mut *db)
        .await?;
    if rule.is_none() {
        return Ok(Err(Conflict::NotFound(format!(
            "rule `{}` in the configuration item `{}`",
            new.rule, new.item
        ))));
    }
    let (device, collection) = match &new.scope {
        ExemptionScope::Device(device) => {
            use domain::DeviceState::Deleted;
            if matches!(device_state(db, *device).await?, None | Some(Deleted)) {
                return Ok(Err(no_device(*device)));
            }
            (Some(device.as_bytes().to_vec()), None)
        }
        ExemptionScope::Collection(name) => match collection_id(db, name, SHARE_ROW).await? {
            Some(id) => (None, Some(id)),
            None => return Ok(Err(no_collection(name))),
        },
    };
    let sql = "INSERT INTO exemption (item, rule, device, collection, reason, until, made_at, made_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING number";
    let row = sqlx::query(sql)
        .bind(item)
        .bind(new.rule.as_str())
        .bind(device)
        .bind(collection)
        .bind(new.reason.as_str())
        .bind(new.until.map(|until| until.as_millisecond()))
        .bind(at.as_millisecond())
        .bind(by.who())
        .fetch_one(&mut *db)
        .await?;
    let number: i64 = row.try_get("number")?;
    match &new.scope {
        ExemptionScope::Device(device) => {
            deployment_states::work_out(db, &[*device], None, at).await?;
        }
        ExemptionScope::Collection(_) => {
            if let Some(refused) = refuse_exemption(db).await? {
                return Ok(Err(refused));
            }
            due_with_rule(db, item, new.rule.as_str()).await?;
        }
    }
    Ok(Ok(Applied::Numbered(number)))
}

async fn end_exemption(db: &mut DbConnection, number: i64, at: Timestamp) -> Result<Outcome> {
    let sql = "UPDATE exemption SET ended_at = $2 WHERE number = $1 AND ended_at IS NULL \
         RETURNING item, rule, device";
    let row = sqlx::query(sql)
        .bind(number)
        .bind(at.as_millisecond())
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else {
        return Ok(Err(Conflict::NotFound(format!(
            "exemption {number} that has not ended"
        ))));
    };
    match optional_device_id(&row, "device")? {
        Some(device) => {
            deployment_states::work_out(db, &[device], None, at).await?;
        }
        None => {
            let rule: String = row.try_get("rule")?;
            due_with_rule(db, row.try_get("item")?, &rule).await?;
        }
    }
    Ok(Ok(Applied::Done))
}

/// Deployments that have a rule of this name.
async fn due_with_rule(db: &mut DbConnection, item: i64, rule: &str) -> Result<()> {
    let sql = "SELECT DISTINCT d.deployment FROM rule r JOIN deployment_rule d ON d.rule = r.id \
         WHERE r.item = $1 AND r.name = $2 ORDER BY d.deployment";
    let rows = sqlx::query(sql)
        .bind(item)
        .bind(rule)
        .fetch_all(&mut *db)
        .await?;
    for row in rows {
        due(db, row.try_get("deployment")?, false).await?;
    }
    Ok(())
}

// Helpers.

/// The conflict when there are as many as there can be.
async fn full(
    db: &mut DbConnection,
    count: &'static str,
    most: i64,
    what: &'static str,
) -> Result<Option<Conflict>> {
    let row = sqlx::query(count).fetch_one(db).await?;
    let full = row.try_get::<i64, _>("n")? >= most;
    Ok(full.then_some(Conflict::TooMany(most, what)))
}

async fn numbers(db: &mut DbConnection, sql: &'static str, of: i64) -> Result<Vec<i64>> {
    let rows = sqlx::query(sql).bind(of).fetch_all(db).await?;
    rows.iter().map(|row| Ok(row.try_get("number")?)).collect()
}

fn no_item(name: &ItemName) -> Conflict {
    Conflict::NotFound(format!("configuration item `{name}`"))
}

fn no_baseline(name: &BaselineName) -> Conflict {
    Conflict::NotFound(format!("baseline `{name}`"))
}

fn no_deployment(number: i64) -> Conflict {
    Conflict::NotFound(format!("deployment {number}"))
}

/// One text for each value: fields in their order.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names and texts are plain data")
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
