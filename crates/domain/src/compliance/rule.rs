//! Compliance rules: what a setting's value must be.

use serde::{Deserialize, Serialize};

use super::{DataType, Reading, RuleName, SettingName, Severity, TypedValue};
use crate::state::words;

/// A rule of a configuration item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComplianceRule {
    pub name: RuleName,
    /// The setting that it looks at.
    pub setting: SettingName,
    pub condition: Condition,
    #[serde(default)]
    pub severity: Severity,
    /// "Run the specified remediation script when this setting is noncompliant". It happens where
    /// the deployment says so, too.
    #[serde(default)]
    pub remediate: bool,
}

/// What a rule asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    Value(Comparison),
    Existential(Existence),
}

words! {
    /// How a rule compares.
    Operator {
        Equals = "equals",
        NotEqualTo = "not-equal-to",
        GreaterThan = "greater-than",
        LessThan = "less-than",
        /// Both ends belong to it.
        Between = "between",
        GreaterThanOrEqualTo = "greater-than-or-equal-to",
        LessThanOrEqualTo = "less-than-or-equal-to",
        OneOf = "one-of",
        NoneOf = "none-of",
    }
}

words! {
    Existence {
        MustExist = "must-exist",
        MustNotExist = "must-not-exist",
    }
}

/// An operator with what it compares to, all of one data type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Comparison {
    data_type: DataType,
    operator: Operator,
    /// As they were written, and as they are compared.
    operands: Vec<(String, TypedValue)>,
}

/// As it is stored and sent.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "type")]
    data_type: DataType,
    operator: Operator,
    operands: Vec<String>,
}

/// A comparison that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidComparison {
    #[error("{operator} compares with {expected}, not with {given}")]
    Number {
        operator: Operator,
        expected: &'static str,
        given: usize,
    },
    #[error("the rule's value {0}")]
    Value(#[from] super::NotOfType),
    #[error("{0} needs values that have an order, and true and false have none")]
    NoOrder(Operator),
    #[error("the first value of between is greater than the second")]
    EmptyRange,
}

impl Comparison {
    /// Values that one operator compares with, at most.
    pub const MOST_OPERANDS: usize = 1_000;

    /// # Errors
    /// When the values are too many or too few, not of the data type, or have no order.
    pub fn new(
        data_type: DataType,
        operator: Operator,
        operands: Vec<String>,
    ) -> Result<Self, InvalidComparison> {
        use Operator::{
            Between, Equals, GreaterThan, GreaterThanOrEqualTo, LessThan, LessThanOrEqualTo,
            NoneOf, NotEqualTo, OneOf,
        };
        let (least, most, expected) = match operator {
            Between => (2, 2, "two values"),
            OneOf | NoneOf => (1, Self::MOST_OPERANDS, "1 to 1000 values"),
            Equals | NotEqualTo | GreaterThan | LessThan | GreaterThanOrEqualTo
            | LessThanOrEqualTo => (1, 1, "one value"),
        };
        if !(least..=most).contains(&operands.len()) {
            return Err(InvalidComparison::Number {
                operator,
                expected,
                given: operands.len(),
            });
        }
        let by_order = !matches!(operator, Equals | NotEqualTo | OneOf | NoneOf);
        if by_order && !data_type.is_ordered() {
            return Err(InvalidComparison::NoOrder(operator));
        }
        let operands = operands
            .into_iter()
            .map(|text| data_type.parse(&text).map(|value| (text, value)))
            .collect::<Result<Vec<_>, _>>()?;
        if let (Between, [(_, low), (_, high)]) = (operator, &operands[..])
            && low.compare(high).is_none_or(|order| order.is_gt())
        {
            return Err(InvalidComparison::EmptyRange);
        }
        Ok(Self {
            data_type,
            operator,
            operands,
        })
    }

    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values that it compares with, as they were written.
    pub fn operands(&self) -> impl Iterator<Item = &str> {
        self.operands.iter().map(|(text, _)| text.as_str())
    }

    /// The one value that makes a setting compliant, when there is one: what the remediation of a
    /// preference writes.
    pub fn expected(&self) -> Option<&TypedValue> {
        match (self.operator, &self.operands[..]) {
            (Operator::Equals, [(_, value)]) => Some(value),
            _ => None,
        }
    }

    fn holds(&self, value: &TypedValue) -> bool {
        use Operator::{
            Between, Equals, GreaterThan, GreaterThanOrEqualTo, LessThan, LessThanOrEqualTo,
            NoneOf, NotEqualTo, OneOf,
        };
        let equals_one = || self.operands.iter().any(|(_, operand)| operand == value);
        let to = |at: usize| {
            self.operands
                .get(at)
                .and_then(|(_, operand)| value.compare(operand))
        };
        match self.operator {
            Equals | OneOf => equals_one(),
            NotEqualTo | NoneOf => !equals_one(),
            GreaterThan => to(0).is_some_and(|order| order.is_gt()),
            LessThan => to(0).is_some_and(|order| order.is_lt()),
            GreaterThanOrEqualTo => to(0).is_some_and(|order| order.is_ge()),
            LessThanOrEqualTo => to(0).is_some_and(|order| order.is_le()),
            Between => {
                to(0).is_some_and(|order| order.is_ge()) && to(1).is_some_and(|order| order.is_le())
            }
        }
    }
}

impl TryFrom<Written> for Comparison {
    type Error = InvalidComparison;

    fn try_from(written: Written) -> Result<Self, InvalidComparison> {
        Self::new(written.data_type, written.operator, written.operands)
    }
}

impl From<Comparison> for Written {
    fn from(comparison: Comparison) -> Self {
        Self {
            data_type: comparison.data_type,
            operator: comparison.operator,
            operands: comparison
                .operands
                .into_iter()
                .map(|(text, _)| text)
                .collect(),
        }
    }
}

/// What a rule says of a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Compliant,
    NonCompliant,
    /// It could not be found out, and why. Nothing is remediated.
    Error(String),
}

impl Condition {
    /// Judges what was discovered. What could not be read is an error under every condition: a
    /// missing tool never looks compliant.
    pub fn judge(&self, reading: &Reading) -> Verdict {
        let holds = match (self, reading) {
            (_, Reading::Failed(reason)) => return Verdict::Error(reason.clone()),
            (Self::Existential(existence), _) => {
                let exists = matches!(reading, Reading::Value(value) if !value.is_empty());
                exists == (*existence == Existence::MustExist)
            }
            // What is not there equals nothing, and no comparison holds.
            (Self::Value(_), Reading::Missing) => false,
            (Self::Value(comparison), Reading::Value(text)) => {
                match comparison.data_type.parse(text) {
                    Ok(value) => comparison.holds(&value),
                    Err(error) => return Verdict::Error(error.to_string()),
                }
            }
        };
        if holds {
            Verdict::Compliant
        } else {
            Verdict::NonCompliant
        }
    }
}
