//! What a discovery gave: the value of a script's setting out of what the script printed.

use super::{Condition, DataType, Operator};

/// Bytes of a script's output that are kept. What prints more is in error.
pub const OUTPUT_LIMIT: usize = 64 * 1024;

/// Characters of the tail of STDERR that a reason repeats.
const TAIL: usize = 300;

/// A setting's value as it was discovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    Value(String),
    /// A preference that is not there.
    Missing,
    /// It could not be found out, and why.
    Failed(String),
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
    /// It was killed, or never ran: the sentence says why.
    Stopped(String),
}

/// What a script printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// At most [`OUTPUT_LIMIT`] bytes.
    pub stdout: Vec<u8>,
    /// All bytes that it printed.
    pub printed: u64,
    /// The beginning or the end of STDERR: at most [`OUTPUT_LIMIT`] bytes, ending with its end.
    pub stderr: Vec<u8>,
    pub ended: Ended,
}

impl Output {
    /// The value of a setting of this type, under this rule: STDOUT without newlines at its end. The
    /// exit status alone decides nothing, as `grep -c` prints a correct 0 and exits 1.
    ///
    /// One exception makes `defaults read` of a missing key work, which answers on STDERR: when STDOUT
    /// is empty, the status is 1 to 125, the type is String, the rule is Equals or One of, and the last
    /// line of STDERR is one of the expected values, that line is the value.
    pub fn reading(&self, data_type: DataType, condition: &Condition) -> Reading {
        let status = match &self.ended {
            Ended::Stopped(why) => return self.failed(why),
            Ended::Signal(signal) => {
                return self.failed(&format!("the script was killed by signal {signal}"));
            }
            Ended::Exit(126) => {
                return self.failed("a program that the script needs cannot be run (status 126)");
            }
            Ended::Exit(127) => {
                return self.failed("a program that the script needs was not found (status 127)");
            }
            Ended::Exit(status) => *status,
        };
        if self.printed > OUTPUT_LIMIT as u64 {
            return self.failed(&format!(
                "the script printed {} bytes; at most {OUTPUT_LIMIT} are a value",
                self.printed
            ));
        }
        let Ok(text) = std::str::from_utf8(&self.stdout) else {
            return self.failed("the script's output is not UTF-8");
        };
        let value = text.trim_end_matches(['\n', '\r']);
        if !value.is_empty() || status == 0 {
            return Reading::Value(value.to_owned());
        }
        match self.answer_on_stderr(status, data_type, condition) {
            Some(line) => Reading::Value(line),
            None => self.failed(&format!(
                "the script printed nothing and ended with status {status}"
            )),
        }
    }

    fn answer_on_stderr(
        &self,
        status: i32,
        data_type: DataType,
        condition: &Condition,
    ) -> Option<String> {
        let Condition::Value(comparison) = condition else {
            return None;
        };
        let asks_for_one = matches!(comparison.operator(), Operator::Equals | Operator::OneOf);
        if !(1..=125).contains(&status) || data_type != DataType::String || !asks_for_one {
            return None;
        }
        let stderr = String::from_utf8_lossy(&self.stderr);
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty())?;
        comparison
            .operands()
            .any(|expected| expected == last)
            .then(|| last.to_owned())
    }

    /// With the tail of STDERR.
    fn failed(&self, why: &str) -> Reading {
        let stderr = String::from_utf8_lossy(&self.stderr);
        let shown: Vec<char> = stderr
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let tail: String = shown[shown.len().saturating_sub(TAIL)..].iter().collect();
        Reading::Failed(if tail.is_empty() {
            why.to_owned()
        } else {
            format!("{why}: {tail}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Comparison, Existence, Verdict};
    use super::*;

    const MISSING: &str =
        "The domain/default pair of (com.microsoft.ccmclient, SMSID) does not exist";

    fn rule(data_type: DataType, operator: Operator, operands: &[&str]) -> Condition {
        let operands = operands.iter().map(|text| (*text).to_owned()).collect();
        Condition::Value(Comparison::new(data_type, operator, operands).expect("a comparison"))
    }

    fn output(stdout: &str, stderr: &str, ended: Ended) -> Output {
        Output {
            stdout: stdout.as_bytes().to_vec(),
            printed: stdout.len() as u64,
            stderr: stderr.as_bytes().to_vec(),
            ended,
        }
    }

    /// One that is true of most values, so that an error is not taken for "false".
    fn conditions(data_type: DataType, operand: &str) -> Vec<Condition> {
        let mut all = vec![
            Condition::Existential(Existence::MustExist),
            Condition::Existential(Existence::MustNotExist),
        ];
        for operator in Operator::ALL {
            let operands: &[&str] = match operator {
                Operator::Between => &[operand, operand],
                _ => &[operand],
            };
            let operands = operands.iter().map(|text| (*text).to_owned()).collect();
            if let Ok(comparison) = Comparison::new(data_type, *operator, operands) {
                all.push(Condition::Value(comparison));
            }
        }
        all
    }

    const OPERANDS: [(DataType, &str); 6] = [
        (DataType::String, "x"),
        (DataType::Integer, "1"),
        (DataType::FloatingPoint, "1"),
        (DataType::Version, "1"),
        (DataType::DateAndTime, "2026-01-01"),
        (DataType::Boolean, "true"),
    ];

    #[test]
    fn the_answer_of_defaults_for_a_missing_key_is_a_value() {
        let stderr = format!("2026-11-22 10:00:00.000 defaults[123:456] \n{MISSING}\n\n");
        let found = output("", &stderr, Ended::Exit(1));
        for operator in [Operator::Equals, Operator::OneOf] {
            let condition = rule(DataType::String, operator, &[MISSING]);
            let reading = found.reading(DataType::String, &condition);
            assert_eq!(reading, Reading::Value(MISSING.to_owned()));
            assert_eq!(condition.judge(&reading), Verdict::Compliant);
        }
        // In every other case it is an error.
        let is_error = |found: &Output, data_type, condition: &Condition| {
            let verdict = condition.judge(&found.reading(data_type, condition));
            assert!(
                matches!(verdict, Verdict::Error(_)),
                "{condition:?} {found:?}"
            );
        };
        let equals = rule(DataType::String, Operator::Equals, &[MISSING]);
        for ended in [
            Ended::Exit(126),
            Ended::Exit(127),
            Ended::Exit(128),
            Ended::Signal(9),
        ] {
            is_error(&output("", MISSING, ended), DataType::String, &equals);
        }
        for operator in [Operator::NotEqualTo, Operator::NoneOf, Operator::LessThan] {
            is_error(
                &found,
                DataType::String,
                &rule(DataType::String, operator, &[MISSING]),
            );
        }
        is_error(
            &found,
            DataType::String,
            &rule(DataType::String, Operator::Equals, &["other"]),
        );
        let almost = output("", &format!("{MISSING} "), Ended::Exit(1));
        is_error(&almost, DataType::String, &equals);
        is_error(&output("", "", Ended::Exit(1)), DataType::String, &equals);
    }

    #[test]
    fn the_exit_status_alone_decides_nothing() {
        let zero = rule(DataType::Integer, Operator::Equals, &["0"]);
        let counted = output("0\n", "", Ended::Exit(1));
        let reading = counted.reading(DataType::Integer, &zero);
        assert_eq!(zero.judge(&reading), Verdict::Compliant);
    }

    #[test]
    fn a_missing_tool_is_an_error_under_every_operator() {
        for (data_type, operand) in OPERANDS {
            for condition in conditions(data_type, operand) {
                for ended in [
                    Ended::Exit(127),
                    Ended::Exit(126),
                    Ended::Signal(15),
                    Ended::Stopped("its interpreter is missing".to_owned()),
                ] {
                    // Also when something was printed before.
                    for stdout in ["", "x\n", "1\n"] {
                        let found = output(stdout, "sh: tool: not found", ended.clone());
                        let verdict = condition.judge(&found.reading(data_type, &condition));
                        assert!(
                            matches!(verdict, Verdict::Error(_)),
                            "{condition:?} {found:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_text_or_too_much_is_an_error() {
        let exists = Condition::Existential(Existence::MustExist);
        let mut found = output("x", "", Ended::Exit(0));
        found.printed = OUTPUT_LIMIT as u64 + 1;
        assert!(matches!(
            found.reading(DataType::String, &exists),
            Reading::Failed(_)
        ));
        found.printed = 2;
        found.stdout = vec![0xff, 0xfe];
        assert!(matches!(
            found.reading(DataType::String, &exists),
            Reading::Failed(_)
        ));
    }

    #[test]
    fn the_tail_of_stderr_is_told_without_control_characters() {
        let found = output(
            "",
            &format!("{}\u{1b}[31mend\n", "a".repeat(1000)),
            Ended::Exit(3),
        );
        let Reading::Failed(why) = found.reading(
            DataType::Integer,
            &rule(DataType::Integer, Operator::Equals, &["1"]),
        ) else {
            panic!("an error");
        };
        assert!(why.ends_with("[31mend") && !why.contains('\u{1b}'), "{why}");
        assert!(why.chars().count() < 400);
    }

    /// Every operator, every data type: what matches, what does not, what is of another type, and
    /// what is missing.
    #[test]
    fn operators_and_types() {
        use DataType::{Boolean, DateAndTime, FloatingPoint, Integer, String, Version};
        use Operator::*;
        // Type, three values in rising order, and one of another type.
        let rows = [
            (String, "a", "b", "c", None),
            (Integer, "-5", "7", "10", Some("ten")),
            (FloatingPoint, "-0.5", "9.5", "10", Some("1,5")),
            (Version, "14.4", "14.10", "15", Some("15 beta")),
            (
                DateAndTime,
                "2026-01-01",
                "2026-01-01T00:00:01Z",
                "2027-01-01",
                Some("soon"),
            ),
        ];
        for (data_type, low, middle, high, wrong) in rows {
            // Operator, operands, and what low, middle and high give.
            let table: [(Operator, &[&str], [bool; 3]); 9] = [
                (Equals, &[middle], [false, true, false]),
                (NotEqualTo, &[middle], [true, false, true]),
                (GreaterThan, &[middle], [false, false, true]),
                (LessThan, &[middle], [true, false, false]),
                (Between, &[low, middle], [true, true, false]),
                (GreaterThanOrEqualTo, &[middle], [false, true, true]),
                (LessThanOrEqualTo, &[middle], [true, true, false]),
                (OneOf, &[low, high], [true, false, true]),
                (NoneOf, &[low, high], [false, true, false]),
            ];
            for (operator, operands, expected) in table {
                let condition = rule(data_type, operator, operands);
                for (given, expected) in [low, middle, high].into_iter().zip(expected) {
                    let found = output(&format!("{given}\n"), "", Ended::Exit(0));
                    let verdict = condition.judge(&found.reading(data_type, &condition));
                    let expected = if expected {
                        Verdict::Compliant
                    } else {
                        Verdict::NonCompliant
                    };
                    assert_eq!(
                        verdict, expected,
                        "{data_type} {given} {operator} {operands:?}"
                    );
                }
                if let Some(wrong) = wrong {
                    let found = output(wrong, "", Ended::Exit(0));
                    let verdict = condition.judge(&found.reading(data_type, &condition));
                    assert!(
                        matches!(verdict, Verdict::Error(_)),
                        "{data_type} {operator} {wrong}"
                    );
                    // A number or date that is not there is none.
                    let nothing = output("", "", Ended::Exit(0));
                    let verdict = condition.judge(&nothing.reading(data_type, &condition));
                    assert!(
                        matches!(verdict, Verdict::Error(_)),
                        "{data_type} {operator} nothing"
                    );
                }
                // A preference that is missing keeps no rule about its value.
                assert_eq!(condition.judge(&Reading::Missing), Verdict::NonCompliant);
            }
        }
        for (given, yes) in [("YES", true), ("false", false)] {
            for (operator, expected) in [
                (Equals, yes),
                (NotEqualTo, !yes),
                (OneOf, yes),
                (NoneOf, !yes),
            ] {
                let condition = rule(Boolean, operator, &["1"]);
                let verdict = condition.judge(&Reading::Value(given.to_owned()));
                assert_eq!(
                    verdict == Verdict::Compliant,
                    expected,
                    "{given} {operator}"
                );
            }
        }
        for operator in [Equals, NotEqualTo, OneOf, NoneOf] {
            let condition = rule(Boolean, operator, &["1"]);
            for wrong in ["on", "2", "truee", ""] {
                let found = output(wrong, "", Ended::Exit(0));
                let verdict = condition.judge(&found.reading(Boolean, &condition));
                assert!(
                    matches!(verdict, Verdict::Error(_)),
                    "{operator} {wrong:?}: {verdict:?}"
                );
            }
            assert_eq!(condition.judge(&Reading::Missing), Verdict::NonCompliant);
        }
        for operator in [
            GreaterThan,
            LessThan,
            Between,
            GreaterThanOrEqualTo,
            LessThanOrEqualTo,
        ] {
            let operands = vec!["true".to_owned(); if operator == Between { 2 } else { 1 }];
            assert!(Comparison::new(Boolean, operator, operands).is_err());
        }
    }

    #[test]
    fn existence() {
        let must = Condition::Existential(Existence::MustExist);
        let must_not = Condition::Existential(Existence::MustNotExist);
        for (reading, exists) in [
            (Reading::Value("x".to_owned()), true),
            (Reading::Value(String::new()), false),
            (Reading::Missing, false),
        ] {
            assert_eq!(must.judge(&reading) == Verdict::Compliant, exists);
            assert_eq!(must_not.judge(&reading) == Verdict::Compliant, !exists);
        }
    }

    #[test]
    fn comparisons_that_mean_nothing_are_refused() {
        let refused = |data_type, operator, operands: &[&str]| {
            let operands = operands.iter().map(|text| (*text).to_owned()).collect();
            Comparison::new(data_type, operator, operands).expect_err("refused")
        };
        refused(DataType::Integer, Operator::Equals, &[]);
        refused(DataType::Integer, Operator::Equals, &["1", "2"]);
        refused(DataType::Integer, Operator::Equals, &["one"]);
        refused(DataType::Integer, Operator::Between, &["1"]);
        refused(DataType::Integer, Operator::Between, &["2", "1"]);
        refused(DataType::String, Operator::OneOf, &[]);
    }
}
