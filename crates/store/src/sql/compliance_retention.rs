//! What is forgotten of results: history that is too old, and texts that nothing refers to any more.
//! Compiled once for each database: `super` says which.
//!
//! Everything is looked up beside the writer and removed in small steps.

use std::collections::HashSet;

use async_trait::async_trait;
use domain::Timestamp;
use futures_util::TryStreamExt;
use sqlx::{QueryBuilder, Row};

use super::{Database, Db};
use crate::{ForgetResults, Unavailable};

type Result<T> = std::result::Result<T, Unavailable>;

/// Rows that one step removes: others wait for it.
const ROWS_AT_ONCE: i64 = 500;
/// Texts that are looked at together.
const VALUES_AT_ONCE: i64 = 10_000;

#[async_trait]
impl ForgetResults for Database {
    async fn forget_history(&self, until: Timestamp) -> Result<u64> {
        let second = until.as_second();
        let day = second.div_euclid(86_400);
        let mut removed = self
            .remove(
                "DELETE FROM rule_change WHERE (day, rule, node) IN \
                 (SELECT c.day, c.rule, c.node FROM rule_change c WHERE c.day < $1 LIMIT $2)",
                day,
                None,
            )
            .await?;
        let sql = "SELECT DISTINCT p.deployment AS number FROM deployment_state_past p \
             WHERE p.until < $1";
        for deployment in self.numbers(sql, second).await? {
            removed += self
                .remove(
                    "DELETE FROM deployment_state_past WHERE (device, deployment, until) IN \
                     (SELECT p.device, p.deployment, p.until FROM deployment_state_past p \
                     WHERE p.until < $1 AND p.deployment = $3 LIMIT $2)",
                    second,
                    Some(deployment),
                )
                .await?;
        }
        let sql = "SELECT DISTINCT CAST(p.device AS BIGINT) AS number FROM rule_state_past p \
             WHERE p.until < $1";
        for device in self.numbers(sql, second).await? {
            removed += self
                .remove(
                    "DELETE FROM rule_state_past WHERE (device, rule, until) IN \
                     (SELECT p.device, p.rule, p.until FROM rule_state_past p \
                     WHERE p.until < $1 AND p.device = $3 LIMIT $2)",
                    second,
                    Some(device),
                )
                .await?;
        }
        Ok(removed)
    }

    async fn forget_values(&self) -> Result<u64> {
        // A text is taken out of use in one round, and removed in another one: whoever looked it up
        // before has written by then what refers to it.
        let mut removed = 0;
        for (statement, is_last) in [
            (
                "UPDATE value SET digest = NULL WHERE digest IS NOT NULL AND id IN (",
                false,
            ),
            ("DELETE FROM value WHERE digest IS NULL AND id IN (", true),
        ] {
            let row = sqlx::query("SELECT COALESCE(MAX(id), 0) AS last FROM value")
                .fetch_one(&self.readers)
                .await?;
            let last: i64 = row.try_get("last")?;
            let used = self.used_values().await?;
            let mut after = 0;
            loop {
                let sql = "SELECT id FROM value WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3";
                let rows = sqlx::query(sql)
                    .bind(after)
                    .bind(last)
                    .bind(VALUES_AT_ONCE)
                    .fetch_all(&self.readers)
                    .await?;
                let ids: Vec<i64> = rows
                    .iter()
                    .map(|row| row.try_get("id"))
                    .collect::<std::result::Result<_, _>>()?;
                let Some(last_of_them) = ids.last() else {
                    break;
                };
                after = *last_of_them;
                let unused: Vec<i64> = ids.into_iter().filter(|id| !used.contains(id)).collect();
                for some in unused.chunks(ROWS_AT_ONCE as usize) {
                    let mut query = QueryBuilder::<Db>::new(statement);
                    let mut list = query.separated(", ");
                    for id in some {
                        list.push_bind(*id);
                    }
                    let query = query.push(")").build().persistent(false);
                    let done = query.execute(&self.writer).await?;
                    removed += if is_last { done.rows_affected() } else { 0 };
                }
            }
        }
        Ok(removed)
    }
}

impl Database {
    async fn remove(&self, sql: &'static str, until: i64, of: Option<i64>) -> Result<u64> {
        let mut removed = 0;
        loop {
            let query = sqlx::query(sql).bind(until).bind(ROWS_AT_ONCE);
            let query = match of {
                Some(of) => query.bind(of),
                None => query,
            };
            let rows = query.execute(&self.writer).await?.rows_affected();
            removed += rows;
            if (rows as i64) < ROWS_AT_ONCE {
                return Ok(removed);
            }
        }
    }

    async fn numbers(&self, sql: &'static str, until: i64) -> Result<Vec<i64>> {
        let rows = sqlx::query(sql)
            .bind(until)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok(row.try_get("number")?)).collect()
    }

    async fn used_values(&self) -> Result<HashSet<i64>> {
        let sql = "SELECT CAST(s.value AS BIGINT) AS value FROM rule_state s \
             WHERE s.value IS NOT NULL GROUP BY s.value UNION ALL \
             SELECT CAST(p.value AS BIGINT) FROM rule_state_past p WHERE p.value IS NOT NULL \
             GROUP BY p.value";
        let mut used = HashSet::new();
        let mut rows = sqlx::query(sql).fetch(&self.readers);
        while let Some(row) = rows.try_next().await? {
            used.insert(row.try_get("value")?);
        }
        Ok(used)
    }
}
