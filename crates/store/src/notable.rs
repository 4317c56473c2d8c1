//! How the rules of a deployment stand on one device, kept beside the deployment's state there: so what
//! a device adds to the sums of `rule_summary` is known when it changes, whatever changed it.

use std::collections::BTreeMap;

use domain::ComplianceState;

/// The rules that are not simply compliant, by number. Hardly any, mostly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notable(BTreeMap<i64, ComplianceState>);

/// What a row has of it is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("rules that are not compliant cannot be read")]
pub(crate) struct InvalidNotable;

impl Notable {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, ComplianceState)> {
        self.0.iter().map(|(rule, state)| (*rule, *state))
    }

    /// For each rule the step from the rule before, in groups of seven bits, the lowest first; then the
    /// state's code. A rule takes two or three bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(3 * self.0.len());
        let mut before = 0;
        for (rule, state) in &self.0 {
            let mut step = rule.wrapping_sub(before).cast_unsigned();
            before = *rule;
            while step > 0x7f {
                bytes.push(step.to_le_bytes()[0] | 0x80);
                step >>= 7;
            }
            bytes.push(step.to_le_bytes()[0]);
            bytes.push(state.code().to_le_bytes()[0]);
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidNotable> {
        let mut found = BTreeMap::new();
        let mut bytes = bytes.iter().copied();
        let mut rule = 0_i64;
        while let Some(first) = bytes.next() {
            let (mut step, mut shift, mut byte) = (0_u64, 0, first);
            loop {
                step |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
                shift += 7;
                if shift > 63 {
                    return Err(InvalidNotable);
                }
                byte = bytes.next().ok_or(InvalidNotable)?;
            }
            rule = rule.wrapping_add(step.cast_signed());
            let code = bytes.next().ok_or(InvalidNotable)?;
            let state = ComplianceState::from_code(i16::from(code)).ok_or(InvalidNotable)?;
            found.insert(rule, state);
        }
        Ok(Self(found))
    }
}

/// How a deployment stands on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The greatest state of its rules; remediated counts as compliant, and a failed remediation as
    /// non-compliant.
    pub state: ComplianceState,
    pub notable: Notable,
}

impl Standing {
    /// Reads what the databases put together: how many rules there are, then each that is not
    /// compliant with its state's code, as in `500 17:6 18:4`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidNotable> {
        let mut words = text.split_ascii_whitespace();
        let rules = words.next().and_then(|word| word.parse().ok());
        let rules: usize = rules.ok_or(InvalidNotable)?;
        let mut notable = BTreeMap::new();
        for word in words {
            let (rule, code) = word.split_once(':').ok_or(InvalidNotable)?;
            let code: i16 = code.parse().map_err(|_| InvalidNotable)?;
            let state = ComplianceState::from_code(code).ok_or(InvalidNotable)?;
            notable.insert(rule.parse().map_err(|_| InvalidNotable)?, state);
        }
        Self::of(Notable(notable), rules).ok_or(InvalidNotable)
    }

    /// What it is when some rules changed, of `rules` in all; none when one of them has no result any
    /// more.
    pub(crate) fn after(
        &self,
        changes: impl Iterator<Item = (i64, Option<ComplianceState>)>,
        rules: usize,
    ) -> Option<Self> {
        let mut notable = self.notable.clone();
        for (rule, state) in changes {
            match state? {
                ComplianceState::Compliant => notable.0.remove(&rule),
                state => notable.0.insert(rule, state),
            };
        }
        Self::of(notable, rules)
    }

    fn of(notable: Notable, rules: usize) -> Option<Self> {
        let others = (notable.0.len() < rules).then_some(ComplianceState::Compliant);
        let worst = notable.0.values().map(|state| match state {
            ComplianceState::Remediated => ComplianceState::Compliant,
            ComplianceState::RemediationFailed => ComplianceState::NonCompliant,
            state => *state,
        });
        let state = worst.chain(others).max()?;
        Some(Self { state, notable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ComplianceState::{Compliant, Exempt, NonCompliant, NotApplicable, Remediated};

    #[test]
    fn a_deployment_stands_as_its_worst_rule() {
        for (text, state) in [
            ("3", Compliant),
            ("3 7:4", Compliant),
            ("1 7:4", Compliant),
            ("1 7:7", NonCompliant),
            ("2 7:1 8:1", NotApplicable),
            ("2 7:1", Compliant),
            ("2 7:1 8:2", Exempt),
            ("9 7:6 8:8", ComplianceState::Error),
        ] {
            assert_eq!(Standing::parse(text).expect(text).state, state, "{text}");
        }
        for bad in ["", "0", "x", "1 7", "1 7:9", "1 7:x"] {
            assert!(Standing::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_is_as_if_all_were_read_again() {
        let before = Standing::parse("3 7:6").expect("a text");
        for (changes, after) in [
            (vec![(8, Some(ComplianceState::Error))], Some("3 7:6 8:8")),
            (vec![(7, Some(Compliant))], Some("3")),
            (
                vec![(7, Some(Remediated)), (9, Some(Compliant))],
                Some("3 7:4"),
            ),
            (vec![(7, Some(Compliant)), (8, None)], None),
        ] {
            let expected = after.map(|text| Standing::parse(text).expect(text));
            assert_eq!(before.after(changes.into_iter(), 3), expected, "{after:?}");
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for rules in [
            vec![],
            vec![(1, NonCompliant)],
            vec![
                (1, NonCompliant),
                (2, Remediated),
                (400, Exempt),
                (3_000_000, NonCompliant),
            ],
            vec![(i64::MAX, Remediated)],
        ] {
            let notable = Notable(rules.into_iter().collect());
            let bytes = notable.to_bytes();
            assert_eq!(Notable::from_bytes(&bytes).expect("bytes"), notable);
            if !bytes.is_empty() {
                assert!(Notable::from_bytes(&bytes[..bytes.len() - 1]).is_err());
            }
        }
        assert!(Notable::from_bytes(&[0x80; 20]).is_err());
    }
}
