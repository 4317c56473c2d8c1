//! The queries about results. Compiled once for each database: `super` says which.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::{ComplianceState, DeviceId, Period, RuleName, StateCounts, Timestamp};
use futures_util::TryStreamExt;
use sqlx::{Connection, QueryBuilder, Row};

use super::identity::{EARLIER, EARLIER_OF_EARLIER};
use super::reads::{MOST, corrupt, device_id, no_cursor, optional_time, page, time, word};
use super::results::{BINDS, optional_state, state};
use super::{BEGIN, BYTES, Database, Db, DbConnection, DbRow, NODE, READ_ONE_MOMENT};
use crate::model::Page;
use crate::notable::Notable;
use crate::read_results::{
    ComplianceAlertDue, DeployedDevice, DeployedDevices, DeploymentFilter, DeploymentSummary,
    DeviceDeployment, DeviceRule, FlappingRule, HistoryFilter, RuleExemption, RuleInterval,
    RuleSummary, SampleDeployment, SampleResults,
};
use crate::{ReadResults, Unavailable};

type Result<T> = std::result::Result<T, Unavailable>;

/// Members that are looked at for one page of unknown devices: most may be known.
const MEMBERS_AT_ONCE: i64 = 20_000;

/// A device of deployment `p` is stale when it evaluated last before this, at the moment that is bound.
const STALE_BEFORE: &str = " - p.stale_after * 1000";

#[async_trait]
impl ReadResults for Database {
    async fn deployment_summaries(
        &self,
        filter: &DeploymentFilter,
        now: Timestamp,
    ) -> Result<Page<DeploymentSummary>> {
        let limit = filter.limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(
            "SELECT p.number, b.name AS baseline_name, g.name AS collection_name, p.stale_after, \
             (SELECT COUNT(*) FROM deployment_rule r WHERE r.deployment = p.number) AS rules, \
             w.deployment AS due, w.after FROM deployment p JOIN baseline b ON b.id = p.baseline \
             JOIN collection g ON g.id = p.collection \
             LEFT JOIN deployment_due w ON w.deployment = p.number WHERE p.number > ",
        );
        let after: i64 = match &filter.after {
            Some(after) => after.parse().map_err(no_cursor)?,
            None => 0,
        };
        query.push_bind(after);
        if let Some(number) = filter.deployment {
            query.push(" AND p.number = ").push_bind(number);
        }
        if let Some(baseline) = &filter.baseline {
            query.push(" AND b.name = ").push_bind(baseline.to_string());
        }
        query
            .push(" ORDER BY p.number LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        let mut page = page(rows, limit, deployment, |found| {
            found.deployment.to_string()
        })?;
        if page.items.is_empty() {
            return Ok(page);
        }

        // One statement, so that it is one moment: the numbers add up.
        let numbers: Vec<i64> = page.items.iter().map(|found| found.deployment).collect();
        let mut query = QueryBuilder::<Db>::new(
            "SELECT s.deployment, CAST(s.state AS BIGINT) AS state, \
             CAST(SUM(s.devices) AS BIGINT) AS n FROM summary s WHERE s.deployment IN (",
        );
        push_numbers(&mut query, &numbers);
        query.push(
            ") GROUP BY s.deployment, s.state UNION ALL \
             SELECT p.number, 0, n.members FROM deployment p \
             JOIN membership_count n ON n.collection = p.collection WHERE p.number IN (",
        );
        push_numbers(&mut query, &numbers);
        query
            .push(
                ") UNION ALL SELECT p.number, -CAST(s.state AS BIGINT), COUNT(*) FROM deployment p \
                 CROSS JOIN compliance_device c CROSS JOIN deployment_state s \
                 WHERE c.evaluated_at < ",
            )
            .push_bind(now.as_millisecond())
            .push(STALE_BEFORE)
            .push(" AND s.device = c.device AND s.deployment = p.number AND p.number IN (");
        push_numbers(&mut query, &numbers);
        query.push(") GROUP BY p.number, s.state");
        let rows = query.build().fetch_all(&self.readers).await?;
        let mut counted: BTreeMap<i64, Counted> = BTreeMap::new();
        for row in &rows {
            let of_deployment = counted.entry(row.try_get("deployment")?).or_default();
            of_deployment.add(row.try_get("state")?, row.try_get("n")?)?;
        }
        for found in &mut page.items {
            let counted = counted.remove(&found.deployment).unwrap_or_default();
            found.devices = counted.states();
        }
        Ok(page)
    }

    async fn rule_summaries(&self, deployment: i64, now: Timestamp) -> Result<Vec<RuleSummary>> {
        let sql = "SELECT r.rule, i.name AS item_name, u.name AS rule_name, u.severity \
             FROM deployment_rule r JOIN rule u ON u.id = r.rule \
             JOIN configuration_item i ON i.id = u.item WHERE r.deployment = $1 \
             ORDER BY i.name, u.name, r.rule";
        let rules = sqlx::query(sql)
            .bind(deployment)
            .fetch_all(&self.readers)
            .await?;
        if rules.is_empty() {
            return Ok(Vec::new());
        }

        // Of the rules that are kept there is no sum: they are the rest. One statement, so that it is
        // one moment; what stale devices were counted with is taken off.
        let mut query = QueryBuilder::<Db>::new(
            "SELECT y.rule, CAST(y.state AS BIGINT) AS state, CAST(SUM(y.devices) AS BIGINT) AS n, \
             CAST(NULL AS ",
        );
        query
            .push(BYTES)
            .push(") AS stale FROM rule_summary y WHERE y.deployment = ")
            .push_bind(deployment)
            .push(
                " GROUP BY y.rule, y.state UNION ALL \
                 SELECT 0, 1, COALESCE(CAST(SUM(y.devices) AS BIGINT), 0), NULL FROM summary y \
                 WHERE y.deployment = ",
            )
            .push_bind(deployment)
            .push(
                " UNION ALL SELECT 0, 0, n.members, NULL FROM deployment p \
                 JOIN membership_count n ON n.collection = p.collection WHERE p.number = ",
            )
            .push_bind(deployment)
            .push(
                " UNION ALL SELECT 0, 1, -1, s.notable FROM deployment p \
                 CROSS JOIN compliance_device c CROSS JOIN deployment_state s \
                 WHERE c.evaluated_at < ",
            )
            .push_bind(now.as_millisecond())
            .push(STALE_BEFORE)
            .push(" AND s.device = c.device AND s.deployment = p.number AND p.number = ")
            .push_bind(deployment)
            .push(
                " UNION ALL SELECT 0, 2, 1, NULL FROM deployment_due w WHERE w.anew = 1 \
                 AND w.deployment = ",
            )
            .push_bind(deployment);
        let mut of_rule: BTreeMap<i64, StateCounts> = BTreeMap::new();
        let (mut known, mut members, mut anew) = (0, 0, false);
        let query = query.build();
        let mut rows = query.fetch(&self.readers);
        while let Some(row) = rows.try_next().await? {
            let n: i64 = row.try_get("n")?;
            match (row.try_get("rule")?, row.try_get::<i64, _>("state")?) {
                (0, 0) => members = n,
                (0, 1) => known += n,
                (0, _) => anew = true,
                (rule, code) => *of_rule.entry(rule).or_default().of(coded(code)?) += n,
            }
            if let Some(stale) = row.try_get::<Option<Vec<u8>>, _>("stale")? {
                for (rule, state) in Notable::from_bytes(&stale).map_err(corrupt)?.iter() {
                    *of_rule.entry(rule).or_default().of(state) -= 1;
                }
            }
        }
        drop(rows);
        rules
            .into_iter()
            .map(|row| {
                let rule = row.try_get("rule")?;
                let mut devices = of_rule.remove(&rule).unwrap_or_default();
                if anew {
                    // Of a new rule nothing is known yet: that is not kept.
                    devices.unknown = members - devices.total();
                } else {
                    devices.compliant = known - devices.total();
                    devices.unknown = members - known;
                }
                Ok(RuleSummary {
                    rule,
                    item: word(&row, "item_name")?,
                    name: word(&row, "rule_name")?,
                    severity: word(&row, "severity")?,
                    devices,
                })
            })
            .collect()
    }

    async fn deployed_devices(
        &self,
        filter: &DeployedDevices,
        now: Timestamp,
    ) -> Result<Page<DeployedDevice>> {
        let limit = filter.limit.min(MOST);
        let after = filter
            .after
            .map_or_else(Vec::new, |after| after.as_bytes().to_vec());
        let mut query = QueryBuilder::<Db>::new(
            "SELECT d.id AS device, d.host_name, d.user_name, c.evaluated_at, s.since, \
             CASE WHEN c.evaluated_at >= ",
        );
        query
            .push_bind(now.as_millisecond())
            .push(STALE_BEFORE)
            .push(" THEN CAST(s.state AS BIGINT) END AS state FROM ");
        let members = |query: &mut QueryBuilder<Db>, most: i64| {
            query
                .push(
                    "(SELECT m.device FROM deployment q CROSS JOIN membership m WHERE q.number = ",
                )
                .push_bind(filter.deployment)
                .push(" AND m.collection = q.collection AND m.device > ")
                .push_bind(after.clone())
                .push(" ORDER BY m.device LIMIT ")
                .push_bind(most)
                .push(") AS l");
        };
        // How many members are looked at; none when each is one of the page.
        let looked_at = match filter.state {
            Some(state) if state != ComplianceState::Unknown => {
                query
                    .push(
                        "deployment p CROSS JOIN deployment_state s CROSS JOIN compliance_device c \
                         CROSS JOIN device d WHERE s.deployment = p.number AND s.state = ",
                    )
                    .push_bind(i64::from(state.code()))
                    .push(" AND s.device > ")
                    .push_bind(after.clone())
                    .push(" AND c.device = s.device AND d.id = s.device AND c.evaluated_at >= ")
                    .push_bind(now.as_millisecond())
                    .push(STALE_BEFORE)
                    .push(" AND p.number = ")
                    .push_bind(filter.deployment)
                    .push(" ORDER BY s.device LIMIT ")
                    .push_bind(i64::from(limit));
                None
            }
            of_members => {
                let unknown = of_members.is_some();
                let most = match unknown {
                    true => MEMBERS_AT_ONCE,
                    false => i64::from(limit),
                };
                members(&mut query, most);
                query
                    .push(" JOIN deployment p ON p.number = ")
                    .push_bind(filter.deployment)
                    .push(
                        " JOIN device d ON d.id = l.device \
                         LEFT JOIN compliance_device c ON c.device = l.device \
                         LEFT JOIN deployment_state s \
                         ON s.device = l.device AND s.deployment = p.number",
                    );
                if unknown {
                    query
                        .push(" WHERE (s.state IS NULL OR c.evaluated_at < ")
                        .push_bind(now.as_millisecond())
                        .push(STALE_BEFORE)
                        .push(")");
                }
                query
                    .push(" ORDER BY l.device LIMIT ")
                    .push_bind(i64::from(limit));
                unknown.then_some(most)
            }
        };
        let rows = query.build().fetch_all(&self.readers).await?;
        let mut page = page(rows, limit, deployed_device, |found| {
            found.device.to_string()
        })?;
        if let (None, Some(most)) = (&page.next, looked_at) {
            // There may be more beyond the members that were looked at.
            let mut query = QueryBuilder::<Db>::new(
                "SELECT w.device FROM (SELECT l.device, \
                 ROW_NUMBER() OVER (ORDER BY l.device) AS n FROM ",
            );
            members(&mut query, most);
            query.push(") AS w WHERE w.n = ").push_bind(most);
            let row = query.build().fetch_optional(&self.readers).await?;
            let last = row.map(|row| device_id(&row, "device")).transpose()?;
            page.next = last.map(|last| last.to_string());
        }
        Ok(page)
    }

    async fn device_deployments(
        &self,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<Vec<DeviceDeployment>> {
        let mut query = QueryBuilder::<Db>::new(
            "SELECT p.number, b.name AS baseline_name, g.name AS collection_name, s.since, \
             c.evaluated_at, CASE WHEN c.evaluated_at >= ",
        );
        query
            .push_bind(now.as_millisecond())
            .push(STALE_BEFORE)
            .push(
                " THEN CAST(s.state AS BIGINT) END AS state FROM membership m \
                 JOIN deployment p ON p.collection = m.collection \
                 JOIN baseline b ON b.id = p.baseline JOIN collection g ON g.id = p.collection \
                 LEFT JOIN compliance_device c ON c.device = m.device \
                 LEFT JOIN deployment_state s ON s.device = m.device AND s.deployment = p.number \
                 WHERE m.device = ",
            )
            .push_bind(device.as_bytes().to_vec())
            .push(" ORDER BY p.number LIMIT ")
            .push_bind(i64::from(MOST));
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                let (state, since) = present(row)?;
                Ok(DeviceDeployment {
                    deployment: row.try_get("number")?,
                    baseline: word(row, "baseline_name")?,
                    collection: word(row, "collection_name")?,
                    state,
                    since,
                    evaluated_at: optional_time(row, "evaluated_at")?,
                })
            })
            .collect()
    }

    async fn device_rules(
        &self,
        device: DeviceId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<DeviceRule>> {
        let limit = limit.min(MOST);
        let mut query = QueryBuilder::<Db>::new(
            "SELECT x.rule, i.name AS item_name, u.name AS rule_name, u.severity, \
             CAST(t.state AS BIGINT) AS state, t.since, v.text, v.reason, \
             e.number AS exemption, e.reason AS exempted_for, e.until AS exempted_until \
             FROM (SELECT DISTINCT r.rule FROM membership m \
             JOIN deployment p ON p.collection = m.collection \
             JOIN deployment_rule r ON r.deployment = p.number WHERE m.device = ",
        );
        query
            .push_bind(device.as_bytes().to_vec())
            .push(" AND r.rule > ")
            .push_bind(after.unwrap_or(0))
            .push(
                ") AS x JOIN rule u ON u.id = x.rule JOIN configuration_item i ON i.id = u.item \
                 LEFT JOIN compliance_device c ON c.device = ",
            )
            .push_bind(device.as_bytes().to_vec())
            .push(
                " LEFT JOIN rule_state t ON t.device = c.number AND t.rule = x.rule \
                 LEFT JOIN value v ON v.id = t.value \
                 LEFT JOIN exemption e ON e.number = (SELECT MAX(f.number) FROM exemption f \
                 WHERE f.item = u.item AND f.rule = u.name AND f.ended_at IS NULL AND (f.device = ",
            )
            .push_bind(device.as_bytes().to_vec())
            .push(
                " OR EXISTS (SELECT 1 FROM membership y WHERE y.collection = f.collection \
                 AND y.device = ",
            )
            .push_bind(device.as_bytes().to_vec())
            .push("))) ORDER BY x.rule LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, device_rule, |found| found.rule.to_string())
    }

    async fn rule_history(&self, filter: &HistoryFilter) -> Result<Page<RuleInterval>> {
        let limit = filter.limit.min(MOST);
        let of = || filter.device.as_bytes().to_vec();
        let mut query = QueryBuilder::<Db>::new(EARLIER);
        query.push_bind(of()).push(EARLIER_OF_EARLIER).push(
            ", record (device, number) AS (SELECT c.device, c.number FROM compliance_device c \
             WHERE c.device IN (SELECT e.id FROM earlier e UNION ALL SELECT ",
        );
        query.push_bind(of()).push(
            ")) SELECT h.device, h.number, CAST(h.rule AS BIGINT) AS rule, i.name AS item_name, \
             u.name AS rule_name, CAST(h.state AS BIGINT) AS state, v.text, v.reason, h.since, \
             h.until FROM (SELECT k.device, k.number, t.rule, t.state, t.value, t.since, \
             CAST(NULL AS BIGINT) AS until FROM record k CROSS JOIN rule_state t \
             WHERE t.device = k.number UNION ALL \
             SELECT k.device, k.number, p.rule, p.state, p.value, p.since, p.until \
             FROM record k CROSS JOIN rule_state_past p WHERE p.device = k.number) AS h \
             JOIN rule u ON u.id = h.rule JOIN configuration_item i ON i.id = u.item \
             LEFT JOIN value v ON v.id = h.value WHERE true",
        );
        if let Some(rule) = &filter.rule {
            query.push(" AND u.name = ").push_bind(rule.to_string());
        }
        if let Some(after) = &filter.after {
            let [since, number, rule] = after.split('/').collect::<Vec<_>>()[..] else {
                return Err(no_cursor(after));
            };
            query.push(" AND (h.since, h.number, h.rule) < (");
            let mut list = query.separated(", ");
            for part in [since, number, rule] {
                let part: i64 = part.parse().map_err(no_cursor)?;
                list.push_bind(part);
            }
            query.push(")");
        }
        query
            .push(" ORDER BY h.since DESC, h.number DESC, h.rule DESC LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        page(rows, limit, interval, |found| found.place.clone())
    }

    async fn compliance_at(&self, deployment: i64, at: Timestamp) -> Result<StateCounts> {
        let (second, millisecond) = (at.as_second(), at.as_millisecond());
        let mut query = QueryBuilder::<Db>::new(
            "SELECT CAST(s.state AS BIGINT) AS state, COUNT(*) AS n, COUNT(*) AS members \
             FROM deployment_state s WHERE s.deployment = ",
        );
        query.push_bind(deployment).push(" AND s.since <= ");
        query.push_bind(second).push(
            " GROUP BY s.state UNION ALL SELECT CAST(p.state AS BIGINT), COUNT(*), \
             COUNT(m.device) FROM deployment q CROSS JOIN deployment_state_past p \
             LEFT JOIN membership m ON m.collection = q.collection AND m.device = p.device \
             WHERE q.number = ",
        );
        query.push_bind(deployment).push(" AND p.deployment = ");
        query.push_bind(deployment).push(" AND p.until > ");
        query.push_bind(second).push(" AND p.since <= ");
        // Of present members nothing was known then, but for those that had a state, and for those that
        // came later.
        query.push_bind(second).push(
            " GROUP BY p.state UNION ALL SELECT 0, 0, -n.members FROM deployment q \
             JOIN membership_count n ON n.collection = q.collection WHERE q.number = ",
        );
        query.push_bind(deployment).push(
            " UNION ALL SELECT 0, 0, COUNT(*) FROM deployment q CROSS JOIN device d \
             CROSS JOIN membership m WHERE q.number = ",
        );
        query.push_bind(deployment).push(" AND d.enrolled_at > ");
        query
            .push_bind(millisecond)
            .push(" AND m.device = d.id AND m.collection = q.collection");
        let rows = query.build().fetch_all(&self.readers).await?;
        let mut counts = StateCounts::default();
        for row in &rows {
            counts.unknown -= row.try_get::<i64, _>("members")?;
            match row.try_get("state")? {
                0 => {}
                code => *counts.of(coded(code)?) += row.try_get::<i64, _>("n")?,
            }
        }
        Ok(counts)
    }

    async fn flapping_rules(
        &self,
        since: Timestamp,
        deployment: Option<i64>,
        limit: u32,
    ) -> Result<Vec<FlappingRule>> {
        let mut query = QueryBuilder::<Db>::new(
            "SELECT u.id AS rule, i.name AS item_name, u.name AS rule_name, u.severity, \
             f.changes, f.returns FROM (SELECT x.rule, CAST(SUM(x.changes) AS BIGINT) AS changes, \
             CAST(SUM(x.returns) AS BIGINT) AS returns FROM rule_change x WHERE x.day >= ",
        );
        query.push_bind(since.as_second().div_euclid(86_400));
        if let Some(deployment) = deployment {
            query
                .push(" AND x.rule IN (SELECT r.rule FROM deployment_rule r WHERE r.deployment = ")
                .push_bind(deployment)
                .push(")");
        }
        query
            .push(
                " GROUP BY x.rule) AS f JOIN rule u ON u.id = f.rule \
                 JOIN configuration_item i ON i.id = u.item \
                 ORDER BY f.returns DESC, f.changes DESC, u.id LIMIT ",
            )
            .push_bind(i64::from(limit.min(MOST)));
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                Ok(FlappingRule {
                    rule: row.try_get("rule")?,
                    item: word(row, "item_name")?,
                    name: word(row, "rule_name")?,
                    severity: word(row, "severity")?,
                    changes: row.try_get("changes")?,
                    returns: row.try_get("returns")?,
                })
            })
            .collect()
    }

    async fn deployments_are_due(&self) -> Result<bool> {
        let row = sqlx::query("SELECT deployment FROM deployment_due LIMIT 1")
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.is_some())
    }

    async fn exemptions_end(&self, now: Timestamp) -> Result<bool> {
        let sql = "SELECT number FROM exemption WHERE ended_at IS NULL AND until <= $1 LIMIT 1";
        let row = sqlx::query(sql)
            .bind(now.as_millisecond())
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.is_some())
    }

    async fn compliance_alerts_due(&self, now: Timestamp) -> Result<Vec<ComplianceAlertDue>> {
        let sql = "SELECT number, alert_at, alert_below FROM deployment \
             WHERE alert_at IS NOT NULL AND alert_at <= $1 AND alert_below IS NOT NULL \
             AND (alert_judged_at IS NULL OR alert_judged_at <> alert_at) \
             ORDER BY alert_at LIMIT 100";
        let rows = sqlx::query(sql)
            .bind(now.as_millisecond())
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(ComplianceAlertDue {
                    deployment: row.try_get("number")?,
                    at: time(row, "alert_at")?,
                    below: row.try_get("alert_below")?,
                })
            })
            .collect()
    }

    async fn summary_faults(&self) -> Result<Vec<String>> {
        let sql = "SELECT 'summary' AS what, COALESCE(a.deployment, b.deployment) AS one, \
             CAST(COALESCE(a.state, b.state) AS BIGINT) AS two, \
             CAST(COALESCE(a.n, 0) AS BIGINT) AS said, COALESCE(b.n, 0) AS there FROM \
             (SELECT deployment, state, SUM(devices) AS n FROM summary GROUP BY deployment, state) \
             AS a FULL JOIN (SELECT deployment, state, COUNT(*) AS n FROM deployment_state \
             GROUP BY deployment, state) AS b ON a.deployment = b.deployment AND a.state = b.state \
             WHERE COALESCE(a.n, 0) <> COALESCE(b.n, 0) UNION ALL \
             SELECT 'members', COALESCE(a.collection, b.collection), 0, COALESCE(a.members, 0), \
             COALESCE(b.n, 0) FROM membership_count a FULL JOIN \
             (SELECT collection, COUNT(*) AS n FROM membership GROUP BY collection) AS b \
             ON a.collection = b.collection WHERE COALESCE(a.members, 0) <> COALESCE(b.n, 0) \
             UNION ALL SELECT 'overlap', CAST(a.device AS BIGINT), CAST(a.rule AS BIGINT), \
             a.since, a.until FROM rule_state_past a WHERE a.since >= a.until OR EXISTS \
             (SELECT 1 FROM rule_state_past b WHERE b.device = a.device AND b.rule = a.rule \
             AND b.until > a.until AND b.since < a.until) OR EXISTS \
             (SELECT 1 FROM rule_state c WHERE c.device = a.device AND c.rule = a.rule \
             AND c.since < a.until) \
             UNION ALL SELECT 'past', a.deployment, 0, a.since, a.until \
             FROM deployment_state_past a WHERE a.since >= a.until OR EXISTS \
             (SELECT 1 FROM deployment_state_past b WHERE b.device = a.device \
             AND b.deployment = a.deployment AND b.until > a.until AND b.since < a.until) OR EXISTS \
             (SELECT 1 FROM deployment_state c WHERE c.device = a.device \
             AND c.deployment = a.deployment AND c.since < a.until)";
        let mut reader = self.readers.begin_with(READ_ONE_MOMENT).await?;
        let rows = sqlx::query(sql).fetch_all(&mut *reader).await?;
        let mut faults: Vec<String> = rows
            .iter()
            .map(|row| {
                let what: String = row.try_get("what")?;
                let [one, two, said, there] =
                    ["one", "two", "said", "there"].map(|column| row.try_get::<i64, _>(column));
                Ok(format!("{what} {}/{}: {} {}", one?, two?, said?, there?))
            })
            .collect::<Result<_>>()?;
        // The sums of rules, against what devices were counted with.
        let sql = "SELECT deployment, rule, CAST(state AS BIGINT) AS state, \
             CAST(SUM(devices) AS BIGINT) AS n FROM rule_summary GROUP BY deployment, rule, state";
        let mut sums: BTreeMap<(i64, i64, i64), i64> = BTreeMap::new();
        for row in sqlx::query(sql).fetch_all(&mut *reader).await? {
            let key = (
                row.try_get("deployment")?,
                row.try_get("rule")?,
                row.try_get("state")?,
            );
            sums.insert(key, row.try_get("n")?);
        }
        let sql = "SELECT deployment, notable FROM deployment_state";
        for row in sqlx::query(sql).fetch_all(&mut *reader).await? {
            let notable: Vec<u8> = row.try_get("notable")?;
            for (rule, state) in Notable::from_bytes(&notable).map_err(corrupt)?.iter() {
                let key = (row.try_get("deployment")?, rule, i64::from(state.code()));
                *sums.entry(key).or_default() -= 1;
            }
        }
        let wrong = sums.into_iter().filter(|(_, difference)| *difference != 0);
        faults.extend(wrong.map(|((deployment, rule, state), difference)| {
            format!("rule_summary {deployment}/{rule}/{state}: {difference}")
        }));
        Ok(faults)
    }

    async fn deploy_sample(&self, sample: &SampleDeployment) -> Result<(i64, Vec<i64>)> {
        let mut connection = self.writer.acquire().await?;
        let mut transaction = connection.begin_with(BEGIN).await?;
        let deployed = deploy_sample(&mut transaction, sample).await?;
        transaction.commit().await?;
        Ok(deployed)
    }

    async fn write_sample(&self, sample: &[SampleResults]) -> Result<()> {
        let mut connection = self.writer.acquire().await?;
        let mut transaction = connection.begin_with(BEGIN).await?;
        for device in sample {
            write_sample(&mut transaction, device).await?;
        }
        if sample.is_empty() {
            count_sample(&mut transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// What a summary's statement counted.
#[derive(Default)]
struct Counted {
    members: i64,
    known: StateCounts,
}

impl Counted {
    /// `code` is a state's; 0 for members, negative for those of a state that are stale.
    fn add(&mut self, code: i64, n: i64) -> Result<()> {
        match code {
            0 => self.members = n,
            ..0 => *self.known.of(coded(-code)?) -= n,
            _ => *self.known.of(coded(code)?) += n,
        }
        Ok(())
    }

    fn states(mut self) -> StateCounts {
        self.known.unknown = self.members - self.known.total();
        self.known
    }
}

fn coded(code: i64) -> Result<ComplianceState> {
    i16::try_from(code)
        .ok()
        .and_then(ComplianceState::from_code)
        .ok_or_else(|| corrupt(format!("there is no compliance state {code}")))
}

fn push_numbers(query: &mut QueryBuilder<Db>, numbers: &[i64]) {
    let mut list = query.separated(", ");
    for number in numbers {
        list.push_bind(*number);
    }
}

fn deployment(row: DbRow) -> Result<DeploymentSummary> {
    let stale_after: i64 = row.try_get("stale_after")?;
    let due: Option<i64> = row.try_get("due")?;
    let after: Option<Vec<u8>> = row.try_get("after")?;
    // Identifiers are random: the walk's place in their order says how far it came.
    let worked_out = due.map(|_| match after.as_deref() {
        Some([0, first, ..]) => u8::try_from(u32::from(*first) * 100 / 256).unwrap_or(0),
        Some([_, ..]) => 99,
        _ => 0,
    });
    Ok(DeploymentSummary {
        deployment: row.try_get("number")?,
        baseline: word(&row, "baseline_name")?,
        collection: word(&row, "collection_name")?,
        stale_after: Period::from_seconds(u64::try_from(stale_after).map_err(corrupt)?),
        rules: row.try_get("rules")?,
        devices: StateCounts::default(),
        worked_out,
    })
}

/// A deployment's state on a device, and since when.
fn present(row: &DbRow) -> Result<(ComplianceState, Option<Timestamp>)> {
    Ok(match optional_state(row, "state")? {
        Some(state) => (state, optional_second(row, "since")?),
        None => (ComplianceState::Unknown, None),
    })
}

fn optional_second(row: &DbRow, column: &str) -> Result<Option<Timestamp>> {
    let second: Option<i64> = row.try_get(column)?;
    second
        .map(|second| Timestamp::from_second(second).map_err(corrupt))
        .transpose()
}

fn deployed_device(row: DbRow) -> Result<DeployedDevice> {
    let (state, since) = present(&row)?;
    Ok(DeployedDevice {
        device: device_id(&row, "device")?,
        host_name: row.try_get("host_name")?,
        user_name: row.try_get("user_name")?,
        state,
        since,
        evaluated_at: optional_time(&row, "evaluated_at")?,
    })
}

fn device_rule(row: DbRow) -> Result<DeviceRule> {
    let exemption = match row.try_get::<Option<i64>, _>("exemption")? {
        Some(number) => Some(RuleExemption {
            number,
            reason: row.try_get("exempted_for")?,
            until: optional_time(&row, "exempted_until")?,
        }),
        None => None,
    };
    let (state, since) = present(&row)?;
    Ok(DeviceRule {
        rule: row.try_get("rule")?,
        item: word(&row, "item_name")?,
        name: word(&row, "rule_name")?,
        severity: word(&row, "severity")?,
        state,
        since,
        value: row.try_get("text")?,
        reason: row.try_get("reason")?,
        exemption,
    })
}

fn interval(row: DbRow) -> Result<RuleInterval> {
    let since: i64 = row.try_get("since")?;
    let number: i64 = row.try_get("number")?;
    let rule: i64 = row.try_get("rule")?;
    let name: RuleName = word(&row, "rule_name")?;
    Ok(RuleInterval {
        device: device_id(&row, "device")?,
        rule,
        item: word(&row, "item_name")?,
        name,
        state: state(&row, "state")?,
        value: row.try_get("text")?,
        reason: row.try_get("reason")?,
        since: Timestamp::from_second(since).map_err(corrupt)?,
        until: optional_second(&row, "until")?,
        place: format!("{since}/{number}/{rule}"),
    })
}

// For tests and measurements.

async fn deploy_sample(
    db: &mut DbConnection,
    sample: &SampleDeployment,
) -> Result<(i64, Vec<i64>)> {
    let at = sample.at.as_millisecond();
    let sql = "INSERT INTO configuration_item (name, latest, created_at) VALUES ($1, 1, $2) \
         RETURNING id";
    let row = sqlx::query(sql)
        .bind(sample.baseline.to_string())
        .bind(at)
        .fetch_one(&mut *db)
        .await?;
    let item: i64 = row.try_get("id")?;
    let sql = "INSERT INTO baseline (name, description, enabled, created_at, changed_at, version) \
         VALUES ($1, '', 1, $2, $2, 1) RETURNING id";
    let row = sqlx::query(sql)
        .bind(sample.baseline.to_string())
        .bind(at)
        .fetch_one(&mut *db)
        .await?;
    let baseline: i64 = row.try_get("id")?;
    let mut rules = Vec::with_capacity(sample.rules);
    for number in 1..=sample.rules {
        let sql = "INSERT INTO rule (item, name, definition, severity) \
             VALUES ($1, $2, $3, 'warning') RETURNING id";
        let name = format!("Rule {number}");
        let row = sqlx::query(sql)
            .bind(item)
            .bind(&name)
            .bind(name.as_bytes())
            .fetch_one(&mut *db)
            .await?;
        rules.push(row.try_get("id")?);
    }
    let sql = "INSERT INTO deployment (baseline, collection, remediate, schedule, spread, \
         stale_after, alert_below, alert_at, made_at, changed_at, version) \
         SELECT $1, id, 0, '7d', 7200, $3, $4, $5, $6, $6, 1 FROM collection WHERE name = $2 \
         RETURNING number";
    let row = sqlx::query(sql)
        .bind(baseline)
        .bind(sample.collection.to_string())
        .bind(i64::try_from(sample.stale_after.seconds()).map_err(corrupt)?)
        .bind(sample.alert.map(|(below, _)| below))
        .bind(sample.alert.map(|(_, at)| at.as_millisecond()))
        .bind(at)
        .fetch_one(&mut *db)
        .await?;
    let deployment: i64 = row.try_get("number")?;
    for rule in &rules {
        sqlx::query("INSERT INTO deployment_rule (deployment, rule) VALUES ($1, $2)")
            .bind(deployment)
            .bind(*rule)
            .execute(&mut *db)
            .await?;
    }
    sqlx::query("INSERT INTO deployment_due (deployment, after) VALUES ($1, NULL)")
        .bind(deployment)
        .execute(db)
        .await?;
    Ok((deployment, rules))
}

async fn write_sample(db: &mut DbConnection, sample: &SampleResults) -> Result<()> {
    let sql = "INSERT INTO compliance_device (device, stream, sequence, digest, evaluated_at) \
         VALUES ($1, $2, 1, $2, $3) RETURNING number";
    let row = sqlx::query(sql)
        .bind(sample.device.as_bytes().to_vec())
        .bind(sample.device.as_bytes().to_vec())
        .bind(sample.evaluated_at.as_millisecond())
        .fetch_one(&mut *db)
        .await?;
    let number: i64 = row.try_get("number")?;
    // What is not kept has one of a hundred values.
    let value = |rule: &i64, state: &ComplianceState| match state {
        ComplianceState::Compliant => "NULL".to_owned(),
        _ => (rule % 100 + 1).to_string(),
    };
    // Numbers in the text: quicker than values that are bound, where there are so many.
    for some in sample.now.chunks(BINDS) {
        let mut query =
            QueryBuilder::<Db>::new("INSERT INTO rule_state (device, rule, since, value, state) ");
        query.push_values(some, |mut row, (rule, state, since)| {
            row.push(number)
                .push(rule)
                .push(since)
                .push(value(rule, state))
                .push(state.code());
        });
        query.build().persistent(false).execute(&mut *db).await?;
    }
    for some in sample.past.chunks(BINDS) {
        let mut query = QueryBuilder::<Db>::new(
            "INSERT INTO rule_state_past (device, rule, until, since, value, state) ",
        );
        query.push_values(some, |mut row, (rule, state, since, until)| {
            row.push(number)
                .push(rule)
                .push(until)
                .push(since)
                .push(value(rule, state))
                .push(state.code());
        });
        query.build().persistent(false).execute(&mut *db).await?;
    }
    Ok(())
}

/// The changes that the sample's history has.
async fn count_sample(db: &mut DbConnection) -> Result<()> {
    let mut query = QueryBuilder::<Db>::new(
        "INSERT INTO rule_change (day, rule, node, changes, returns) \
         SELECT p.until / 86400, p.rule, ",
    );
    query.push(NODE).push(
        ", COUNT(*), 0 FROM rule_state_past p WHERE true GROUP BY p.until / 86400, p.rule \
         ON CONFLICT (day, rule, node) DO UPDATE SET changes = excluded.changes",
    );
    query.build().execute(db).await?;
    Ok(())
}
