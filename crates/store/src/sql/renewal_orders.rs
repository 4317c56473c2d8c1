//! Administrators' orders about when certificates are renewed. One row for each order, none for the
//! devices. Compiled once for each database: `super` says which.

use async_trait::async_trait;
use domain::{ExplanationUrl, RenewalScope, Timestamp, Window};
use sqlx::{QueryBuilder, Row};

use super::collections::{id, no_collection};
use super::reads::{MOST, device_id, optional_time, page, time, word};
use super::writes::{Outcome, no_device, one_row};
use super::{Database, Db, DbConnection, DbRow, LOCK_ROW, SHARE_ROW};
use crate::change::{Applied, Conflict};
use crate::model::{OrderedWindow, Page, RenewalOrder, RenewalProgress};
use crate::{ReadRenewalOrders, Unavailable};

type Result<T> = std::result::Result<T, Unavailable>;

/// Orders that there can be: each is looked at, at worst, when a device checks in.
const MOST_ORDERS: i64 = 200;

/// Joins to a certificate `c` the newest order `o` that concerns it: one that was made after it was
/// issued. Their numbers say so, and no clock, which may have been wrong at either. Orders that are
/// older than the certificate are not even looked at: a fleet that has renewed costs nothing more than
/// before.
pub(super) const ORDER_OF_CERTIFICATE: &str = " LEFT JOIN renewal_order o ON o.number = \
     (SELECT r.number FROM renewal_order r WHERE r.number > c.newest_order \
     AND (r.scope = 'all' OR (r.scope = 'device' AND r.device = c.device) \
     OR (r.scope = 'collection' AND EXISTS (SELECT 1 FROM membership m \
     WHERE m.device = c.device AND m.collection = r.collection))) \
     ORDER BY r.number DESC LIMIT 1)";

const ORDER: &str = "SELECT o.number, o.scope, o.device, o.starts_at, o.ends_at, o.made_at, \
     o.explanation_url, c.name AS collection_name \
     FROM renewal_order o LEFT JOIN collection c ON c.id = o.collection";

#[async_trait]
impl ReadRenewalOrders for Database {
    async fn renewal_order(&self, number: i64) -> Result<Option<RenewalOrder>> {
        let mut query = QueryBuilder::<Db>::new(ORDER);
        query.push(" WHERE o.number = ").push_bind(number);
        let row = query.build().fetch_optional(&self.readers).await?;
        row.map(order).transpose()
    }

    async fn renewal_orders(&self, before: Option<i64>, limit: u32) -> Result<Page<RenewalOrder>> {
        let limit = limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(ORDER);
        query
            .push(" WHERE o.number < ")
            .push_bind(before.unwrap_or(i64::MAX));
        query
            .push(" ORDER BY o.number DESC LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, order, |order| order.number.to_string())
    }

    async fn renewal_progress(&self, order: &RenewalOrder) -> Result<RenewalProgress> {
        let made_at = order.made_at.as_millisecond();
        let mut query = QueryBuilder::<Db>::new(
            "SELECT COALESCE(SUM(p.renewed), 0) AS renewed, \
             COALESCE(SUM(CASE WHEN p.renewed = 0 AND p.seen = 1 THEN 1 ELSE 0 END), 0) AS waiting, \
             COALESCE(SUM(CASE WHEN p.renewed = 0 AND p.seen = 0 THEN 1 ELSE 0 END), 0) AS unseen \
             FROM (SELECT CASE WHEN EXISTS (SELECT 1 FROM certificate n WHERE n.device = d.id \
             AND n.first_used_at IS NOT NULL AND n.newest_order >= ",
        );
        query
            .push_bind(order.number)
            .push(") THEN 1 ELSE 0 END AS renewed, CASE WHEN s.at >= ")
            .push_bind(made_at)
            .push(
                " THEN 1 ELSE 0 END AS seen \
                 FROM device d LEFT JOIN device_seen s ON s.device = d.id \
                 WHERE d.state = 'active' AND EXISTS (SELECT 1 FROM certificate c \
                 WHERE c.device = d.id AND c.state <> 'revoked' AND c.newest_order < ",
            )
            .push_bind(order.number)
            .push(" AND c.not_after > ")
            .push_bind(made_at)
            .push(")");
        match &order.scope {
            RenewalScope::All => {}
            RenewalScope::Collection(name) => {
                query
                    .push(
                        " AND EXISTS (SELECT 1 FROM membership m \
                         JOIN collection g ON g.id = m.collection \
                         WHERE m.device = d.id AND g.name = ",
                    )
                    .push_bind(name.to_string())
                    .push(")");
            }
            RenewalScope::Device(device) => {
                query
                    .push(" AND d.id = ")
                    .push_bind(device.as_bytes().to_vec());
            }
        }
        query.push(") AS p");
        let row = query.build().fetch_one(&self.readers).await?;
        Ok(RenewalProgress {
            renewed: row.try_get("renewed")?,
            waiting: row.try_get("waiting")?,
            unseen: row.try_get("unseen")?,
        })
    }
}

pub(super) async fn set(
    db: &mut DbConnection,
    scope: &RenewalScope,
    window: Window,
    explanation_url: Option<&ExplanationUrl>,
    at: Timestamp,
) -> Result<Outcome> {
    // One after the other on all nodes: who sees a number sees those before it.
    let mut query = QueryBuilder::<Db>::new("SELECT one FROM site WHERE one = 1");
    query
        .push(LOCK_ROW)
        .build()
        .fetch_optional(&mut *db)
        .await?;
    let row = sqlx::query("SELECT COUNT(*) AS n FROM renewal_order")
        .fetch_one(&mut *db)
        .await?;
    if row.try_get::<i64, _>("n")? >= MOST_ORDERS {
        return Ok(Err(Conflict::RenewalWindows(MOST_ORDERS)));
    }
    let (word, collection, device) = match scope {
        RenewalScope::All => ("all", None, None),
        RenewalScope::Collection(name) => match id(db, name, SHARE_ROW).await? {
            Some(id) => ("collection", Some(id), None),
            None => return Ok(Err(no_collection(name))),
        },
        RenewalScope::Device(device) => {
            let found = sqlx::query("SELECT id FROM device WHERE id = $1 AND state <> 'deleted'")
                .bind(device.as_bytes().to_vec())
                .fetch_optional(&mut *db)
                .await?;
            if found.is_none() {
                return Ok(Err(no_device(*device)));
            }
            ("device", None, Some(device.as_bytes().to_vec()))
        }
    };
    let sql = "INSERT INTO renewal_order (scope, collection, device, starts_at, ends_at, made_at, \
         explanation_url) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING number";
    let row = sqlx::query(sql)
        .bind(word)
        .bind(collection)
        .bind(device)
        .bind(window.start.as_millisecond())
        .bind(window.end.as_millisecond())
        .bind(at.as_millisecond())
        .bind(explanation_url.map(ExplanationUrl::as_str))
        .fetch_one(db)
        .await?;
    Ok(Ok(Applied::Numbered(row.try_get("number")?)))
}

pub(super) async fn remove(db: &mut DbConnection, number: i64) -> Result<Outcome> {
    let done = sqlx::query("DELETE FROM renewal_order WHERE number = $1")
        .bind(number)
        .execute(db)
        .await?;
    Ok(one_row(done.rows_affected(), || {
        Conflict::NotFound(format!("renewal window {number}"))
    }))
}

/// The order that was joined to a certificate.
pub(super) fn ordered(row: &DbRow) -> Result<Option<OrderedWindow>> {
    let Some(start) = optional_time(row, "starts_at")? else {
        return Ok(None);
    };
    Ok(Some(OrderedWindow {
        window: Window {
            start,
            end: time(row, "ends_at")?,
        },
        explanation_url: row.try_get("explanation_url")?,
    }))
}

fn order(row: DbRow) -> Result<RenewalOrder> {
    let scope: String = row.try_get("scope")?;
    let scope = match scope.as_str() {
        "collection" => RenewalScope::Collection(word(&row, "collection_name")?),
        "device" => RenewalScope::Device(device_id(&row, "device")?),
        _ => RenewalScope::All,
    };
    Ok(RenewalOrder {
        number: row.try_get("number")?,
        scope,
        window: Window {
            start: time(&row, "starts_at")?,
            end: time(&row, "ends_at")?,
        },
        made_at: time(&row, "made_at")?,
        explanation_url: row.try_get("explanation_url")?,
    })
}
