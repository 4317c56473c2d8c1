//! What a device's report does to what is recorded of its rules: which changes count, when each state
//! began, and which intervals end. Pure: the statements are in `sql/results.rs`.
//!
//! A device's clock may be wrong, and its reports may come late, twice or out of order. Whatever it
//! claims, intervals of a rule never overlap, none is empty, and none ends in the site's future.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::{ComplianceState, DeviceId, Timestamp};

/// What a device reports: changes of its set of results, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewResults {
    pub device: DeviceId,
    /// Names the device's memory of results.
    pub stream: [u8; 16],
    pub changes: Vec<ResultsChange>,
    /// When an evaluation ended last; not in the site's future.
    pub evaluated_at: Timestamp,
    /// Nothing of it began before: when the device was enrolled.
    pub not_before: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultsChange {
    /// One more than the change before it; a whole set may leave numbers out.
    pub sequence: i64,
    pub at: Timestamp,
    /// Rules that are not in it have no result any more.
    pub whole: bool,
    /// Of the device's set after it, and before it; none before a whole set.
    pub digest: [u8; 16],
    pub follows: Option<[u8; 16]>,
    pub results: Vec<NewResult>,
    pub gone: Vec<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewResult {
    pub rule: i64,
    /// One that a device reports.
    pub state: ComplianceState,
    pub finding: Option<Finding>,
    pub since: Timestamp,
}

/// What was found, and why it could not be found out or mended. Texts without control characters,
/// bounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Finding {
    pub value: Option<String>,
    pub reason: Option<String>,
}

impl Finding {
    /// None when there is neither.
    pub fn new(value: Option<String>, reason: Option<String>) -> Option<Self> {
        (value.is_some() || reason.is_some()).then_some(Self { value, reason })
    }
}

/// Where the records of a device's results stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedResults {
    pub stream: [u8; 16],
    /// Of the last change that is recorded.
    pub sequence: i64,
    /// Of the device's set after it.
    pub digest: [u8; 16],
    pub evaluated_at: Timestamp,
}

/// The last change that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub stream: [u8; 16],
    pub sequence: i64,
    pub digest: [u8; 16],
}

/// Which changes of reports count, given what is recorded.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    recorded: Option<Recorded>,
}

impl Sequence {
    pub(crate) fn new(recorded: Option<Recorded>) -> Self {
        Self { recorded }
    }

    pub(crate) fn recorded(&self) -> Option<Recorded> {
        self.recorded
    }

    /// The changes of a report that are to be applied, and whether the device has to send its whole
    /// set. What was applied before is left out; after a gap, and where it goes on from another set,
    /// nothing counts but a whole set.
    pub(crate) fn take<'a>(&mut self, report: &'a NewResults) -> (Vec<&'a ResultsChange>, bool) {
        let mut applied = Vec::new();
        let mut gap = false;
        for change in &report.changes {
            let next = match self.recorded {
                Some(last) if last.stream == report.stream => {
                    if change.sequence <= last.sequence {
                        continue;
                    }
                    change.sequence == last.sequence + 1 && change.follows == Some(last.digest)
                }
                _ => false,
            };
            if next || change.whole {
                self.recorded = Some(Recorded {
                    stream: report.stream,
                    sequence: change.sequence,
                    digest: change.digest,
                });
                applied.push(change);
                gap = false;
            } else {
                gap = true;
            }
        }
        let other = self
            .recorded
            .is_none_or(|recorded| recorded.stream != report.stream);
        (applied, gap || other)
    }
}

/// A rule's present state, since when (in seconds), and the number of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleState {
    pub state: ComplianceState,
    pub finding: Option<i64>,
    pub since: i64,
}

/// An interval that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PastState {
    pub rule: i64,
    pub was: RuleState,
    pub until: i64,
}

/// The results of one device, while changes are applied to them.
#[derive(Debug)]
pub(crate) struct ResultSet {
    now: i64,
    not_before: i64,
    before: BTreeMap<i64, RuleState>,
    /// What is touched by the changes, or the whole set.
    current: BTreeMap<i64, RuleState>,
    /// When a rule's last interval ended, and the state before the present one.
    ended: HashMap<i64, (i64, ComplianceState)>,
    pub past: Vec<PastState>,
    /// For each rule: how often its state changed, and how often to the one before.
    pub counted: BTreeMap<i64, (i64, i64)>,
}

impl ResultSet {
    pub(crate) fn new(
        now: Timestamp,
        not_before: Timestamp,
        current: BTreeMap<i64, RuleState>,
        ended: HashMap<i64, (i64, ComplianceState)>,
    ) -> Self {
        Self {
            now: now.as_second(),
            not_before: not_before.as_second(),
            before: current.clone(),
            current,
            ended,
            past: Vec::new(),
            counted: BTreeMap::new(),
        }
    }

    /// Applies a change; results of rules that are not `known` are left out.
    pub(crate) fn apply(
        &mut self,
        change: &ResultsChange,
        known: &HashSet<i64>,
        number_of: impl Fn(&Finding) -> Option<i64>,
    ) {
        let at = change.at.as_second();
        for result in change.results.iter().filter(|r| known.contains(&r.rule)) {
            let finding = result.finding.as_ref().and_then(&number_of);
            self.set(result, finding, at);
        }
        if change.whole {
            let kept: HashSet<i64> = change.results.iter().map(|result| result.rule).collect();
            let gone: Vec<i64> = self.current.keys().copied().collect();
            for rule in gone.into_iter().filter(|rule| !kept.contains(rule)) {
                self.close(rule, at);
            }
        }
        for rule in &change.gone {
            self.close(*rule, at);
        }
    }

    /// Rules whose row is written anew.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (i64, RuleState)> {
        self.current
            .iter()
            .filter(|(rule, state)| self.before.get(*rule) != Some(state))
            .map(|(rule, state)| (*rule, *state))
    }

    /// Rules that have no row any more.
    pub(crate) fn removed(&self) -> impl Iterator<Item = i64> {
        self.before
            .keys()
            .filter(|rule| !self.current.contains_key(rule))
            .copied()
    }

    fn set(&mut self, result: &NewResult, finding: Option<i64>, at: i64) {
        let (rule, state) = (result.rule, result.state);
        let since = result.since.as_second();
        let Some(was) = self.current.get(&rule).copied() else {
            let end = self.ended.get(&rule).map_or(i64::MIN, |(until, _)| *until);
            let since = self.moment([since, at], end.max(self.not_before));
            let new = RuleState {
                state,
                finding,
                since,
            };
            self.current.insert(rule, new);
            return;
        };
        if (was.state, was.finding) == (state, finding) {
            return;
        }
        if was.state != state {
            let (changes, returns) = self.counted.entry(rule).or_default();
            *changes += 1;
            let before = self.ended.get(&rule);
            *returns += i64::from(before.is_some_and(|(_, before)| *before == state));
        }
        let since = self.moment([since, at], was.since);
        self.end(rule, was, since, Some(state));
        let new = RuleState {
            state,
            finding,
            since,
        };
        self.current.insert(rule, new);
    }

    fn close(&mut self, rule: i64, at: i64) {
        if let Some(was) = self.current.remove(&rule) {
            let until = self.moment([at, self.now], was.since);
            self.end(rule, was, until, None);
            // Also where that was no time at all: what follows does not begin before.
            self.ended.entry(rule).or_insert((until, was.state));
        }
    }

    /// What lasted less than a second is forgotten. `next`: the state that follows.
    fn end(&mut self, rule: i64, was: RuleState, until: i64, next: Option<ComplianceState>) {
        if until > was.since {
            self.past.push(PastState { rule, was, until });
            // With another value in the same state, the state before stays the one before.
            let before = self.ended.get(&rule).filter(|_| next == Some(was.state));
            let before = before.map_or(was.state, |(_, before)| *before);
            self.ended.insert(rule, (until, before));
        }
    }

    /// The first of the device's claims that is possible: not before `earliest`, which is recorded, and
    /// not in the future. Else it is now: the site learned of it now.
    fn moment(&self, claims: [i64; 2], earliest: i64) -> i64 {
        // The site's own clock may have been set back.
        let latest = self.now.max(earliest);
        let possible = claims
            .into_iter()
            .find(|claim| (earliest..=latest).contains(claim));
        possible.unwrap_or(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ComplianceState::{Compliant, NonCompliant, Remediated};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment")
    }

    fn result(rule: i64, state: ComplianceState, since: i64) -> NewResult {
        NewResult {
            rule,
            state,
            finding: None,
            since: at(since),
        }
    }

    fn change(sequence: i64, whole: bool, results: Vec<NewResult>) -> ResultsChange {
        ResultsChange {
            sequence,
            at: at(500),
            whole,
            digest: digest(sequence),
            follows: (!whole).then(|| digest(sequence - 1)),
            results,
            gone: Vec::new(),
        }
    }

    fn digest(sequence: i64) -> [u8; 16] {
        [u8::try_from(sequence).expect("a small number"); 16]
    }

    fn report(stream: u8, changes: Vec<ResultsChange>) -> NewResults {
        NewResults {
            device: DeviceId::from_entropy([7; 16]),
            stream: [stream; 16],
            changes,
            evaluated_at: at(500),
            not_before: at(0),
        }
    }

    #[test]
    fn each_change_counts_once_and_a_gap_needs_the_whole() {
        // What is recorded; what comes: stream, sequences, whole; what is applied; whether the whole
        // set is wanted.
        let rows = [
            (None, 1, vec![(1, false)], vec![], true),
            (None, 1, vec![(1, true), (2, false)], vec![1, 2], false),
            (None, 1, vec![(7, true)], vec![7], false),
            (Some((1, 3)), 1, vec![], vec![], false),
            (Some((1, 3)), 2, vec![], vec![], true),
            (
                Some((1, 3)),
                1,
                vec![(2, true), (3, false), (4, false)],
                vec![4],
                false,
            ),
            (Some((1, 3)), 1, vec![(5, false)], vec![], true),
            (
                Some((1, 3)),
                1,
                vec![(4, false), (6, false), (7, true), (8, false)],
                vec![4, 7, 8],
                false,
            ),
            (
                Some((1, 3)),
                1,
                vec![(6, true), (7, false)],
                vec![6, 7],
                false,
            ),
            (Some((1, 3)), 2, vec![(4, false)], vec![], true),
            (
                Some((1, 3)),
                2,
                vec![(1, true), (2, false)],
                vec![1, 2],
                false,
            ),
        ];
        for (recorded, stream, sent, applied, wants_whole) in rows {
            let mut sequence = Sequence::new(recorded.map(|(stream, last)| Recorded {
                stream: [stream; 16],
                sequence: last,
                digest: digest(last),
            }));
            let changes = sent.iter().map(|(n, whole)| change(*n, *whole, Vec::new()));
            let report = report(stream, changes.collect());
            let (taken, wanted) = sequence.take(&report);
            let taken: Vec<_> = taken.iter().map(|change| change.sequence).collect();
            assert_eq!(
                (taken, wanted),
                (applied, wants_whole),
                "{recorded:?} {sent:?}"
            );
            // Once more: nothing is applied twice.
            assert!(sequence.take(&report).0.is_empty(), "{recorded:?} {sent:?}");
        }
    }

    #[test]
    fn a_change_of_another_set_needs_the_whole() {
        let mut sequence = Sequence::new(Some(Recorded {
            stream: [1; 16],
            sequence: 3,
            digest: [99; 16],
        }));
        let report = report(1, vec![change(4, false, Vec::new())]);
        let (taken, wants_whole) = sequence.take(&report);
        assert!(taken.is_empty() && wants_whole);
    }

    #[test]
    fn what_a_wrong_clock_claims_is_put_where_it_is_possible() {
        let was = RuleState {
            state: Compliant,
            finding: None,
            since: 100,
        };
        // The claimed `since`; what becomes of it when it is 1000, and the change says 500.
        for (claimed, since) in [
            (300, 300),
            (100, 100),
            (1000, 1000),
            // Before what is recorded, or in the future: the change's own moment.
            (99, 500),
            (2000, 500),
            (-5, 500),
        ] {
            let current = BTreeMap::from([(1, was)]);
            let mut set = ResultSet::new(at(1000), at(50), current, HashMap::new());
            let change = change(1, false, vec![result(1, NonCompliant, claimed)]);
            set.apply(&change, &HashSet::from([1]), |_| None);
            let (_, now) = set.changed().next().expect("a change");
            assert_eq!(now.since, since, "{claimed}");
            let ended: Vec<_> = set.past.iter().map(|past| past.until).collect();
            let expected = if since == 100 { vec![] } else { vec![since] };
            assert_eq!(ended, expected, "{claimed}");
        }
    }

    #[test]
    fn a_whole_set_closes_what_is_not_in_it() {
        let known = HashSet::from([1, 2, 3]);
        let mut set = ResultSet::new(at(1000), at(50), BTreeMap::new(), HashMap::new());
        let first = vec![result(1, Compliant, 60), result(2, NonCompliant, 10)];
        set.apply(&change(1, true, first), &known, |_| None);
        // Unknown rules do not count; before the enrollment nothing began.
        let second = vec![result(1, Compliant, 70), result(9, Compliant, 70)];
        set.apply(&change(2, true, second), &known, |_| None);
        let current: Vec<_> = set.changed().collect();
        assert_eq!(current.len(), 1);
        assert_eq!((current[0].0, current[0].1.since), (1, 60));
        // It began at the change (500), and ended with the next one: that is no time at all.
        assert!(set.past.is_empty());
        assert_eq!(set.removed().count(), 0);
    }

    #[test]
    fn what_comes_back_begins_where_it_ended() {
        let known = HashSet::from([1]);
        let was = RuleState {
            state: Compliant,
            finding: None,
            since: 500,
        };
        // Before it was something else, until 500; it goes and comes back in one report.
        let mut set = ResultSet::new(at(1000), at(0), BTreeMap::from([(1, was)]), HashMap::new());
        let mut gone = change(1, false, Vec::new());
        gone.gone = vec![1];
        set.apply(&gone, &known, |_| None);
        let again = change(2, false, vec![result(1, Compliant, 20)]);
        set.apply(&again, &known, |_| None);
        assert_eq!(set.current[&1].since, 500);
    }

    #[test]
    fn coming_back_is_counted_whatever_the_values_are() {
        let known = HashSet::from([1]);
        let mut set = ResultSet::new(at(1000), at(0), BTreeMap::new(), HashMap::new());
        let found = [
            (Compliant, "1"),
            (NonCompliant, "3"),
            (NonCompliant, "4"),
            (Compliant, "1"),
        ];
        for (n, (state, value)) in (1..).zip(found) {
            let found = NewResult {
                finding: Finding::new(Some(value.to_owned()), None),
                ..result(1, state, 100 * n)
            };
            set.apply(&change(n, n == 1, vec![found]), &known, |finding| {
                finding.value.as_ref()?.parse().ok()
            });
        }
        assert_eq!(set.counted[&1], (2, 1));
    }

    #[test]
    fn coming_back_is_counted() {
        let known = HashSet::from([1]);
        let mut set = ResultSet::new(at(1000), at(0), BTreeMap::new(), HashMap::new());
        let states = [Compliant, NonCompliant, Compliant, Remediated, Remediated];
        for (n, state) in (1..).zip(states) {
            let results = vec![result(1, state, 100 * n)];
            set.apply(&change(n, n == 1, results), &known, |_| None);
        }
        assert_eq!(set.counted[&1], (3, 1));
        assert_eq!(set.past.len(), 3);
        for pair in set.past.windows(2) {
            assert!(pair[0].until <= pair[1].was.since);
        }
    }
}
