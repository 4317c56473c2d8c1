//! Filters as conditions over a device `d`. Compiled once for each database: `super` says which.
//!
//! A condition is true or false and never NULL, so that `!` means here what it means in memory.
//! What people write goes in as parameters alone.

use domain::compliance::Version;
use domain::filter::{
    Comparison, Condition, DaysField, Ends, Expression, Field, Filter, FlagField, Span, Test,
    TextField, VersionField,
};
use domain::{BaselineName, ComplianceState, Timestamp};
use sqlx::QueryBuilder;

use super::Db;

/// The end of the certificate in use of a device `d`: of the valid ones the one that was used, else
/// the newest.
pub(super) const CERTIFICATE_END: &str = "(SELECT c.not_after FROM certificate c \
     WHERE c.device = d.id AND c.state = 'valid' \
     ORDER BY (c.first_used_at IS NULL), c.generation DESC, c.serial DESC LIMIT 1)";

const LAST_SEEN: &str = "(SELECT s.at FROM device_seen s WHERE s.device = d.id)";

/// Pushes the condition that a filter means the device `d` at a moment.
pub(super) fn push_filter(query: &mut QueryBuilder<Db>, filter: &Filter, at: Timestamp) {
    push(query, filter.expression(), at);
}

fn push(query: &mut QueryBuilder<Db>, expression: &Expression, at: Timestamp) {
    match expression {
        Expression::Any(parts) => push_joined(query, parts, " OR ", at),
        Expression::All(parts) => push_joined(query, parts, " AND ", at),
        Expression::Not(part) => {
            query.push("NOT (");
            push(query, part, at);
            query.push(")");
        }
        Expression::Is(condition) => push_condition(query, condition, at),
    }
}

fn push_joined(query: &mut QueryBuilder<Db>, parts: &[Expression], join: &str, at: Timestamp) {
    query.push("(");
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            query.push(join);
        }
        push(query, part, at);
    }
    query.push(")");
}

fn push_condition(query: &mut QueryBuilder<Db>, condition: &Condition, at: Timestamp) {
    query.push("((");
    match condition {
        Condition::State(test) => push_test(query, "d.state", test, |state| state.word()),
        Condition::Text(field, test) => push_test(query, text(*field), test, Clone::clone),
        Condition::Version(field, test) => {
            push_test(query, version(*field), test, Version::sort_key);
        }
        Condition::Days(field, test) => {
            for (index, span) in test.spans().into_iter().enumerate() {
                if index > 0 {
                    query.push(" OR ");
                }
                push_span(query, *field, span, at);
            }
        }
        Condition::Flag(field, wanted) => {
            query
                .push(flag(*field))
                .push(" = ")
                .push_bind(i64::from(*wanted));
        }
        Condition::Compliance(baseline, test) => push_compliance(query, baseline, test, at),
        Condition::Absent(field) => {
            match field {
                Field::State => query.push("d.state"),
                Field::Text(field) => query.push(text(*field)),
                Field::Version(field) => query.push(version(*field)),
                Field::Days(field) => query.push(moment(*field)),
                Field::Flag(field) => query.push(flag(*field)),
                Field::Compliance(baseline) => push_baseline(query, baseline, at),
            };
            query.push(" IS NULL");
        }
    }
    query.push(") IS TRUE)");
}

fn push_test<T, V>(
    query: &mut QueryBuilder<Db>,
    field: &str,
    test: &Test<T>,
    value: impl Fn(&T) -> V,
) where
    V: 'static + Send + sqlx::Encode<'static, Db> + sqlx::Type<Db>,
{
    query.push(field);
    push_value(query, test, value);
}

fn push_value<T, V>(query: &mut QueryBuilder<Db>, test: &Test<T>, value: impl Fn(&T) -> V)
where
    V: 'static + Send + sqlx::Encode<'static, Db> + sqlx::Type<Db>,
{
    match test {
        Test::Compare(comparison, wanted) => {
            query.push(sign(*comparison)).push_bind(value(wanted));
        }
        Test::OneOf(wanted) => {
            query.push(" IN (");
            let mut list = query.separated(", ");
            for one in wanted {
                list.push_bind(value(one));
            }
            query.push(")");
        }
    }
}

fn push_span(query: &mut QueryBuilder<Db>, field: DaysField, span: Span, at: Timestamp) {
    let moment = moment(field);
    query.push("(").push(moment).push(" IS NOT NULL");
    if let Some(days) = span.from {
        match field.at_least(days, at) {
            Ends::Every => {}
            Ends::Until(last) => {
                query
                    .push(" AND ")
                    .push(moment)
                    .push(" <= ")
                    .push_bind(last);
            }
            Ends::From(first) => {
                query
                    .push(" AND ")
                    .push(moment)
                    .push(" >= ")
                    .push_bind(first);
            }
        }
    }
    if let Some(days) = span.below {
        match field.at_least(days, at) {
            Ends::Every => {
                query.push(" AND FALSE");
            }
            Ends::Until(last) => {
                query.push(" AND ").push(moment).push(" > ").push_bind(last);
            }
            Ends::From(first) => {
                query
                    .push(" AND ")
                    .push(moment)
                    .push(" < ")
                    .push_bind(first);
            }
        }
    }
    query.push(")");
}

fn push_compliance(
    query: &mut QueryBuilder<Db>,
    baseline: &BaselineName,
    test: &Test<ComplianceState>,
    at: Timestamp,
) {
    push_baseline(query, baseline, at);
    push_value(query, test, |state| i64::from(state.code()));
}

/// How a baseline stands on `d`: of its deployments the greatest state. What was not reported, or too
/// long ago, is unknown; NULL when none of them is for `d`.
fn push_baseline<'q>(
    query: &'q mut QueryBuilder<Db>,
    baseline: &BaselineName,
    at: Timestamp,
) -> &'q mut QueryBuilder<Db> {
    query
        .push("(SELECT MAX(COALESCE(CASE WHEN pc.evaluated_at >= ")
        .push_bind(at.as_millisecond())
        .push(" - p.stale_after * 1000 THEN t.state END, ")
        .push_bind(i64::from(ComplianceState::Unknown.code()))
        .push(
            ")) FROM baseline b JOIN deployment p ON p.baseline = b.id \
             JOIN membership pm ON pm.collection = p.collection AND pm.device = d.id \
             LEFT JOIN compliance_device pc ON pc.device = d.id \
             LEFT JOIN deployment_state t ON t.deployment = p.number AND t.device = d.id \
             WHERE b.name = ",
        )
        .push_bind(baseline.to_string())
        .push(")")
}

fn text(field: TextField) -> &'static str {
    match field {
        TextField::HostName => "NULLIF(d.host_name, '')",
        TextField::Model => "d.model",
        TextField::OsName => "d.os_name",
        TextField::OsRelease => "d.os_release",
        TextField::HardwareSerial => "d.hardware_serial",
        TextField::HardwareUuid => "d.hardware_uuid",
        TextField::UserName => "NULLIF(d.user_name, '')",
    }
}

fn version(field: VersionField) -> &'static str {
    match field {
        VersionField::OsVersion => "d.os_version",
        VersionField::AgentVersion => "d.agent_version",
    }
}

fn flag(field: FlagField) -> &'static str {
    match field {
        FlagField::TrustVerified => "d.trust_verified",
    }
}

fn moment(field: DaysField) -> &'static str {
    match field {
        DaysField::EnrolledAgo => "d.enrolled_at",
        DaysField::LastSeenAgo => LAST_SEEN,
        DaysField::CertificateLeft => CERTIFICATE_END,
    }
}

fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => " = ",
        Comparison::NotEqual => " <> ",
        Comparison::Less => " < ",
        Comparison::LessOrEqual => " <= ",
        Comparison::Greater => " > ",
        Comparison::GreaterOrEqual => " >= ",
    }
}
