//! The results of evaluations on disk: one for each rule, and the changes that the site does not have
//! yet. A site may be away for weeks: the queue is bounded, and what is dropped first is what a later
//! change of the same rule made old.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use domain::{BaselineName, ComplianceState, ItemName, Rng, RuleName, Severity, Timestamp};
use protocol::{
    RecordedSet, ResultChange, ResultReceipt, ResultReport, ResultsState, RuleNumber, RuleResult,
    SetDigest, StreamId,
};
use serde::{Deserialize, Serialize};

use super::policy::Owner;
use crate::files;
use crate::platform::Layout;

/// Changes that wait for the site, at most. More become one whole set, without their history.
const MOST_CHANGES: usize = 2_000;
/// Bytes that wait for the site, at most, unless one result of each rule is more.
const MOST_QUEUED: usize = 2 << 20;
/// Results in one change: an evaluation that changes more becomes several.
const MOST_IN_A_CHANGE: usize = ResultReport::MOST_RULES;
/// Bytes in one report, about.
const MOST_IN_A_REPORT: usize = 3 << 20;

/// What an evaluation found out about one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub rule: RuleNumber,
    pub item: ItemName,
    pub name: RuleName,
    pub severity: Severity,
    pub baselines: Vec<BaselineName>,
    pub state: ComplianceState,
    /// It is non-compliant, and a remediation comes: in its window, or with the next evaluation.
    #[serde(default)]
    pub mends_itself: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a rule stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    #[serde(flatten)]
    pub found: Found,
    /// When it became so.
    pub since: Timestamp,
}

impl Held {
    fn result(&self) -> RuleResult {
        RuleResult {
            rule: self.found.rule,
            state: self.found.state,
            value: self.found.value.clone(),
            reason: self.found.reason.clone(),
            since: self.since,
        }
    }

    /// What `found` makes of it, when that is news.
    ///
    /// Another value that is compliant, too, is none. What was remediated stays "remediated" while it
    /// is compliant: that is how it became so. Each remediation is news.
    fn followed_by(&self, found: &Found) -> bool {
        let (before, now) = (&self.found, found);
        match (before.state, now.state) {
            (_, ComplianceState::Remediated) => true,
            (before, now) if before.is_compliant() && now.is_compliant() => false,
            _ => {
                before.state != now.state
                    || before.value != now.value
                    || before.reason != now.reason
            }
        }
    }
}

/// The first line of the file: all that a check-in needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub owner: Owner,
    pub stream: StreamId,
    /// Of the last change.
    pub sequence: u64,
    /// Of the set after it.
    pub digest: SetDigest,
    /// When an evaluation ended last.
    pub evaluated_at: Timestamp,
    /// Changes that the site does not have.
    pub waiting: usize,
}

impl Header {
    /// Of the results on disk, when they are those of `owner`.
    pub fn read(layout: &Layout, owner: &Owner) -> Option<Self> {
        let mut line = String::new();
        BufReader::new(File::open(file(layout)).ok()?)
            .read_line(&mut line)
            .ok()?;
        let header: Self = serde_json::from_str(&line).ok()?;
        (header.owner == *owner).then_some(header)
    }

    pub fn state(&self) -> ResultsState {
        ResultsState {
            stream: self.stream,
            sequence: self.sequence,
            digest: self.digest,
            evaluated_at: self.evaluated_at,
        }
    }
}

/// All of it. Read, changed and written by who holds the machine's lock.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    pub header: Header,
    pub held: BTreeMap<RuleNumber, Held>,
    queue: VecDeque<ResultChange>,
}

/// The lines of the file after the first.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Held(Held),
    Change(ResultChange),
}

fn file(layout: &Layout) -> PathBuf {
    layout.compliance().join("results.jsonl")
}

impl Results {
    /// Those on disk, or none yet. What is unreadable, or of another device, counts as forgotten: the
    /// next evaluation begins another stream.
    pub fn read(layout: &Layout, owner: &Owner, rng: &dyn Rng, now: Timestamp) -> Self {
        match Self::of_file(&file(layout)) {
            Some(results) if results.header.owner == *owner => results,
            _ => Self {
                header: Header {
                    owner: owner.clone(),
                    stream: new_stream(rng),
                    sequence: 0,
                    digest: digest(&BTreeMap::new()),
                    evaluated_at: now,
                    waiting: 0,
                },
                held: BTreeMap::new(),
                queue: VecDeque::new(),
            },
        }
    }

    /// Those on disk, for people.
    pub fn on_disk(layout: &Layout, owner: &Owner) -> Option<Self> {
        Self::of_file(&file(layout)).filter(|results| results.header.owner == *owner)
    }

    fn of_file(file: &Path) -> Option<Self> {
        Self::parse(BufReader::new(File::open(file).ok()?))
    }

    fn parse(text: impl BufRead) -> Option<Self> {
        let mut lines = text.lines();
        let header = serde_json::from_str(&lines.next()?.ok()?).ok()?;
        let mut results = Self {
            header,
            held: BTreeMap::new(),
            queue: VecDeque::new(),
        };
        for line in lines {
            match serde_json::from_str(&line.ok()?).ok()? {
                Line::Held(held) => {
                    results.held.insert(held.found.rule, held);
                }
                Line::Change(change) => results.queue.push_back(change),
            }
        }
        Some(results)
    }

    pub fn write(&mut self, layout: &Layout) -> io::Result<()> {
        let text = self.text()?;
        files::make_folder(&layout.compliance(), 0o700)?;
        files::replace(&file(layout), &text, 0o600)
    }

    fn text(&mut self) -> io::Result<Vec<u8>> {
        self.header.waiting = self.queue.len();
        let mut text = Vec::new();
        let mut line = |value: serde_json::Result<Vec<u8>>| -> io::Result<()> {
            text.extend(value?);
            text.push(b'\n');
            Ok(())
        };
        line(serde_json::to_vec(&self.header))?;
        for held in self.held.values() {
            line(serde_json::to_vec(&Line::Held(held.clone())))?;
        }
        for change in &self.queue {
            line(serde_json::to_vec(&Line::Change(change.clone())))?;
        }
        Ok(text)
    }

    /// Takes what an evaluation found at `at`. `all`: the rules of the whole policy, so that others
    /// are known to be gone; none when a part of it could not be read. Returns what changed.
    pub fn take(
        &mut self,
        found: Vec<Found>,
        all: Option<&HashSet<RuleNumber>>,
        at: Timestamp,
    ) -> Vec<Held> {
        self.header.evaluated_at = at;
        let mut changed = Vec::new();
        for found in found {
            let before = self.held.get_mut(&found.rule);
            let news = before
                .as_ref()
                .is_none_or(|before| before.followed_by(&found));
            match before {
                Some(before) if !news => {
                    before.found.item = found.item;
                    before.found.name = found.name;
                    before.found.severity = found.severity;
                    before.found.baselines = found.baselines;
                }
                before => {
                    let same = before.filter(|before| {
                        before.found.state == found.state
                            && found.state != ComplianceState::Remediated
                    });
                    let since = same.map_or(at, |before| before.since);
                    let held = Held { found, since };
                    self.held.insert(held.found.rule, held.clone());
                    changed.push(held);
                }
            }
        }
        let mut gone = Vec::new();
        if let Some(all) = all {
            self.held.retain(|rule, _| {
                let stays = all.contains(rule);
                if !stays {
                    gone.push(*rule);
                }
                stays
            });
        }
        if self.header.sequence == 0 {
            self.send_whole(at);
        } else if !changed.is_empty() || !gone.is_empty() {
            let results = changed.iter().map(Held::result).collect();
            self.push(false, results, gone, at);
            self.bound(at);
        }
        changed
    }

    /// The site named the set that it has, of this stream: none of another one.
    pub fn settle(&mut self, recorded: Option<RecordedSet>, rng: &dyn Rng, at: Timestamp) {
        match recorded {
            None if self.header.sequence == 0 => {}
            None if self.queue.front().is_some_and(|change| change.whole) => {}
            None => self.begin_anew(rng, at),
            Some(recorded) => self.acknowledge(recorded, rng, at),
        }
    }

    /// The site's answer to a report.
    pub fn receive(&mut self, receipt: &ResultReceipt, rng: &dyn Rng, at: Timestamp) {
        match receipt.recorded {
            Some(recorded) if !receipt.wants_whole => self.acknowledge(recorded, rng, at),
            _ => self.begin_anew(rng, at),
        }
    }

    /// What the site should have next.
    pub fn report(&self) -> Option<ResultReport> {
        let mut changes = Vec::new();
        let (mut rules, mut bytes) = (0, 0);
        for change in &self.queue {
            rules += 1 + change.results.len() + change.gone.len();
            bytes += size(change);
            let full = rules > ResultReport::MOST_RULES || bytes > MOST_IN_A_REPORT;
            if full && !changes.is_empty() {
                break;
            }
            changes.push(change.clone());
        }
        (!changes.is_empty()).then_some(ResultReport {
            stream: self.header.stream,
            changes,
            evaluated_at: self.header.evaluated_at,
        })
    }

    /// The site has this set. When this memory does not lead there, or not on from there, one of the two
    /// was put back to an earlier day.
    fn acknowledge(&mut self, recorded: RecordedSet, rng: &dyn Rng, at: Timestamp) {
        let mut reached = None;
        while let Some(change) = self.queue.front()
            && change.sequence <= recorded.sequence
        {
            reached = Some(change.digest);
            self.queue.pop_front();
        }
        let goes_on = match self.queue.front() {
            Some(next) if next.whole => true,
            Some(next) => {
                next.sequence == recorded.sequence + 1 && next.follows == Some(recorded.digest)
            }
            None => {
                let last = (self.header.sequence, self.header.digest);
                (recorded.sequence, recorded.digest) == last
            }
        };
        if !goes_on || reached.is_some_and(|digest| digest != recorded.digest) {
            self.begin_anew(rng, at);
        }
    }

    /// Another stream, which begins with the whole set.
    fn begin_anew(&mut self, rng: &dyn Rng, at: Timestamp) {
        let nothing_yet = self.header.sequence == 0;
        self.header.stream = new_stream(rng);
        self.header.sequence = 0;
        if !nothing_yet {
            self.send_whole(at);
        }
    }

    /// One set that stands for all that waits.
    fn send_whole(&mut self, at: Timestamp) {
        self.queue.clear();
        let results = self.held.values().map(Held::result).collect();
        self.push(true, results, Vec::new(), at);
    }

    /// Queues changes with the next numbers.
    fn push(
        &mut self,
        whole: bool,
        results: Vec<RuleResult>,
        gone: Vec<RuleNumber>,
        at: Timestamp,
    ) {
        let set = digest(&self.held);
        let mut results = results.into_iter().peekable();
        let mut gone = gone.into_iter().peekable();
        let mut first = true;
        while first || results.peek().is_some() || gone.peek().is_some() {
            let mut part = Vec::new();
            let mut bytes = 0;
            while part.len() < MOST_IN_A_CHANGE - 1 && bytes < MOST_IN_A_REPORT / 2 {
                let Some(result) = results.next() else { break };
                bytes += size_of_result(&result);
                part.push(result);
            }
            let left = MOST_IN_A_CHANGE - 1 - part.len();
            let gone_now = gone.by_ref().take(left).collect();
            let before = self.header.digest;
            self.header.sequence += 1;
            self.header.digest = match results.peek().is_some() || gone.peek().is_some() {
                false => set,
                // No set, but a part of one: another than all sets and parts before.
                true => part_of(set, self.header.sequence),
            };
            self.queue.push_back(ResultChange {
                sequence: self.header.sequence,
                at,
                whole: whole && first,
                digest: self.header.digest,
                follows: (!whole || !first).then_some(before),
                results: part,
                gone: gone_now,
            });
            first = false;
        }
    }

    /// Keeps the queue within its bounds. Numbers stay without a gap: a change may become empty.
    fn bound(&mut self, at: Timestamp) {
        if self.queue.len() > MOST_CHANGES {
            self.send_whole(at);
            return;
        }
        let mut bytes: usize = self.queue.iter().map(size).sum();
        if bytes <= MOST_QUEUED {
            return;
        }
        let mut last: HashMap<RuleNumber, u64> = HashMap::new();
        for change in &self.queue {
            let rules = change.results.iter().map(|result| result.rule);
            for rule in rules.chain(change.gone.iter().copied()) {
                last.insert(rule, change.sequence);
            }
        }
        for change in &mut self.queue {
            if bytes <= MOST_QUEUED {
                break;
            }
            let before = size(change);
            let sequence = change.sequence;
            let is_last = |rule| last.get(&rule) == Some(&sequence);
            change.results.retain(|result| is_last(result.rule));
            change.gone.retain(|rule| is_last(*rule));
            bytes -= before - size(change);
        }
    }
}

/// What the site would have to be told, in few bytes.
fn digest(held: &BTreeMap<RuleNumber, Held>) -> SetDigest {
    let results: Vec<RuleResult> = held.values().map(Held::result).collect();
    let text = serde_json::to_vec(&results).expect("results are plain data");
    shortened(x509::sha256(&[&text]))
}

fn part_of(set: SetDigest, sequence: u64) -> SetDigest {
    shortened(x509::sha256(&[&set.bytes(), &sequence.to_be_bytes()]))
}

fn shortened(digest: [u8; 32]) -> SetDigest {
    let (first, _) = digest.split_at(16);
    SetDigest::new(first.try_into().expect("these are 16 bytes"))
}

/// About as many bytes as it is in JSON.
fn size(change: &ResultChange) -> usize {
    let results: usize = change.results.iter().map(size_of_result).sum();
    100 + results + 12 * change.gone.len()
}

fn size_of_result(result: &RuleResult) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    120 + length(&result.value) + length(&result.reason)
}

fn new_stream(rng: &dyn Rng) -> StreamId {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    StreamId::new(bytes)
}

#[cfg(test)]
mod tests {
    use domain::{KeyDigest, Pin};
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;

    struct Counting(std::sync::atomic::AtomicU8);
    impl domain::Rng for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment")
    }

    struct Place {
        _folder: tempfile::TempDir,
        layout: Layout,
        owner: Owner,
        rng: Counting,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            Self {
                layout: Layout::new(folder.path()),
                _folder: folder,
                owner: Owner {
                    pin: Pin::new(KeyDigest::new([0; 32])),
                    device: domain::DeviceId::from_entropy([1; 16]).smsid(),
                },
                rng: Counting(0.into()),
            }
        }

        fn results(&self) -> Results {
            Results::read(&self.layout, &self.owner, &self.rng, at(0))
        }
    }

    fn found(rule: i64, state: ComplianceState, value: &str) -> Found {
        Found {
            rule: RuleNumber(rule),
            item: "item".parse().expect("a name"),
            name: "rule".parse().expect("a name"),
            severity: Severity::None,
            baselines: vec!["baseline".parse().expect("a name")],
            state,
            mends_itself: false,
            value: Some(value.to_owned()),
            reason: None,
        }
    }

    use ComplianceState::{Compliant, NonCompliant, Remediated};

    /// What a site does with reports (`protocol::ResultChange`).
    #[derive(Default)]
    struct Site {
        stream: Option<StreamId>,
        sequence: u64,
        digest: Option<SetDigest>,
        set: BTreeMap<RuleNumber, RuleResult>,
        applied: Vec<u64>,
    }

    impl Site {
        fn take(&mut self, report: &ResultReport) -> ResultReceipt {
            if self.stream.as_ref() != Some(&report.stream) {
                self.stream = Some(report.stream);
                self.sequence = 0;
                self.digest = None;
            }
            for change in &report.changes {
                if change.sequence <= self.sequence {
                    continue;
                }
                let follows = change.sequence == self.sequence + 1 && change.follows == self.digest;
                if !change.whole && !follows {
                    return ResultReceipt {
                        recorded: self.recorded(),
                        wants_whole: true,
                    };
                }
                if change.whole {
                    self.set.clear();
                }
                for result in &change.results {
                    self.set.insert(result.rule, result.clone());
                }
                for rule in &change.gone {
                    self.set.remove(rule);
                }
                self.sequence = change.sequence;
                self.digest = Some(change.digest);
                self.applied.push(change.sequence);
            }
            ResultReceipt {
                recorded: self.recorded(),
                wants_whole: false,
            }
        }

        fn recorded(&self) -> Option<RecordedSet> {
            let (sequence, digest) = (self.sequence, self.digest?);
            Some(RecordedSet { sequence, digest })
        }

        /// What a check-in's answer says.
        fn known(&self, results: &Results) -> Option<RecordedSet> {
            let same = self.stream == Some(results.header.stream);
            self.recorded().filter(|_| same)
        }

        fn takes_all(&mut self, results: &mut Results) {
            for _ in 0..100 {
                let Some(report) = results.report() else {
                    break;
                };
                let receipt = self.take(&report);
                results.receive(&receipt, &Counting(100.into()), at(0));
            }
            let ours: Vec<RuleResult> = results.held.values().map(Held::result).collect();
            let theirs: Vec<RuleResult> = self.set.values().cloned().collect();
            assert_eq!(ours, theirs);
            assert_eq!(self.sequence, results.header.sequence);
        }
    }

    #[test]
    fn an_evaluation_that_changes_nothing_changes_nothing() {
        let place = Place::new();
        let mut results = place.results();
        let mut site = Site::default();
        results.take(vec![found(1, Compliant, "a")], None, at(1));
        site.takes_all(&mut results);
        // Another value that is compliant, too.
        assert!(
            results
                .take(vec![found(1, Compliant, "b")], None, at(2))
                .is_empty()
        );
        assert_eq!(results.report(), None);
        assert_eq!(results.header.evaluated_at, at(2));
        let changed = results.take(vec![found(1, NonCompliant, "c")], None, at(3));
        assert_eq!(changed[0].since, at(3));
        // Another value that is not compliant is news of the same state.
        let changed = results.take(vec![found(1, NonCompliant, "d")], None, at(4));
        assert_eq!(changed[0].since, at(3));
        results.write(&place.layout).expect("written");
        assert_eq!(place.results(), results);
        site.takes_all(&mut results);
    }

    #[test]
    fn what_was_remediated_stays_so_while_it_is_compliant() {
        let place = Place::new();
        let mut results = place.results();
        results.take(vec![found(1, NonCompliant, "a")], None, at(1));
        assert_eq!(
            results
                .take(vec![found(1, Remediated, "b")], None, at(2))
                .len(),
            1
        );
        assert!(
            results
                .take(vec![found(1, Compliant, "b")], None, at(3))
                .is_empty()
        );
        assert_eq!(results.held[&RuleNumber(1)].found.state, Remediated);
        // Another remediation is news.
        let changed = results.take(vec![found(1, Remediated, "b")], None, at(4));
        assert_eq!(changed[0].since, at(4));
    }

    #[test]
    fn rules_that_left_the_policy_are_gone() {
        let place = Place::new();
        let mut results = place.results();
        let mut site = Site::default();
        let both = vec![found(1, Compliant, "a"), found(2, Compliant, "a")];
        results.take(both, None, at(1));
        site.takes_all(&mut results);
        let all = HashSet::from([RuleNumber(2)]);
        results.take(vec![], Some(&all), at(2));
        site.takes_all(&mut results);
        assert_eq!(site.set.len(), 1);
    }

    #[test]
    fn the_queue_stays_within_its_bounds() {
        let place = Place::new();
        let mut results = place.results();
        let mut site = Site::default();
        results.take(vec![found(0, Compliant, "")], None, at(1));
        site.takes_all(&mut results);
        let bytes = |results: &Results| results.queue.iter().map(size).sum::<usize>();
        // 300 rules of a kilobyte, 20 times: 6 MiB.
        let text = "x".repeat(1000);
        for round in 0..20 {
            let evaluation =
                (1..=300).map(|rule| found(rule, NonCompliant, &format!("{round}{text}")));
            results.take(evaluation.collect(), None, at(round));
            assert!(bytes(&results) <= MOST_QUEUED);
        }
        // Nothing but history was dropped, the oldest first, and numbers have no gap.
        assert!(results.queue.front().expect("a change").results.is_empty());
        assert_eq!(results.queue.back().expect("a change").results.len(), 300);
        assert!(!results.queue.iter().any(|change| change.whole));
        site.takes_all(&mut results);
        let mut results = Place::new().results();
        for round in 0..3000 {
            let state = if round % 2 == 0 {
                Compliant
            } else {
                NonCompliant
            };
            results.take(vec![found(1, state, "")], None, at(round));
            assert!(results.queue.len() <= MOST_CHANGES);
        }
        site.takes_all(&mut results);
    }

    #[test]
    fn thousands_of_rules_go_in_parts() {
        let place = Place::new();
        let mut results = place.results();
        let text = "x".repeat(1000);
        let many = (0..12_000)
            .map(|rule| found(rule, NonCompliant, &text))
            .collect();
        results.take(many, None, at(1));
        let report = results.report().expect("a report");
        assert!(report.changes[0].whole);
        let bytes = serde_json::to_vec(&report).expect("JSON").len();
        assert!(bytes < protocol::RESULTS_LIMIT, "{bytes}");
        let mut site = Site::default();
        site.takes_all(&mut results);
    }

    proptest! {
        /// Whatever gets lost or is forgotten on either side: in the end the site has the device's
        /// set, and it took no change twice.
        #[test]
        fn the_site_ends_with_the_devices_set(steps in prop::collection::vec((0..8_u8, 0..4_i64, 0..3_u8), 1..60)) {
            let place = Place::new();
            let mut results = place.results();
            let mut backup = results.clone();
            let mut site = Site::default();
            let mut site_backup = (None, 0, None, BTreeMap::new());
            for (now, (kind, rule, value)) in steps.into_iter().enumerate() {
                let now = at(i64::try_from(now).expect("a number"));
                match kind {
                    0..=2 => {
                        let state = if value == 0 { Compliant } else { NonCompliant };
                        results.take(vec![found(rule, state, &value.to_string())], None, now);
                    }
                    3 => {
                        let all = results.held.keys().copied().filter(|held| held.0 != rule).collect();
                        results.take(vec![], Some(&all), now);
                    }
                    // The answer gets lost.
                    4 => if let Some(report) = results.report() { site.take(&report); },
                    5 => if let Some(report) = results.report() {
                        let receipt = site.take(&report);
                        results.receive(&receipt, &place.rng, now);
                    },
                    // An old disk comes back, on one of the sides; sooner or later a check-in tells.
                    6 if value == 0 => results = backup.clone(),
                    6 if value == 1 => {
                        (site.stream, site.sequence, site.digest, site.set) = site_backup.clone();
                    }
                    6 => results.settle(site.known(&results), &place.rng, now),
                    _ => {
                        backup = results.clone();
                        site_backup = (site.stream, site.sequence, site.digest, site.set.clone());
                    }
                }
                let text = results.text().expect("text");
                let read = Results::parse(&text[..]);
                prop_assert_eq!(read.as_ref(), Some(&results));
            }
            results.take(vec![found(9, NonCompliant, "end")], None, at(1001));
            results.settle(site.known(&results), &place.rng, at(1000));
            site.takes_all(&mut results);
        }
    }
}
