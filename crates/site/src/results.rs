//! A device reports what its evaluations found. Each change is recorded once, however often it comes.
//! An evaluation that changes nothing writes nothing but its time, which is kept in memory for half a
//! minute, as last-seen times are.

use domain::fault::step;
use domain::{DeviceId, Timestamp};
use protocol::{
    CheckIn, RecordedSet, ResultReceipt, ResultReport, ResultsState, RuleResult, SetDigest,
};
use store::{Applied, Change, Finding, Kind, NewResult, NewResults, ResultsChange, Unavailable};

use crate::seen::FLUSH;
use crate::{DevicePrincipal, Error, Result, Site};

/// Reports of one device in an hour: a client that evaluates every five minutes sends twelve.
const REPORTS_PER_HOUR: u32 = 240;
/// An evaluation that is later than the recorded one by no more than this is the same: the way
/// to the site takes time, and a corrected clock is never exact.
const SAME_EVALUATION: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

impl Site {
    /// # Errors
    /// When the report is too large or comes too often, or the records cannot be reached.
    pub async fn report_results(
        &self,
        device: DevicePrincipal,
        report: ResultReport,
    ) -> Result<ResultReceipt> {
        let now = self.now();
        self.0
            .limits
            .count_report(device.device(), REPORTS_PER_HOUR, now)?;
        let results = parse(&device, report, now)?;
        let recorded = device
            .standing
            .results
            .filter(|recorded| recorded.stream == results.stream);
        metrics::counter!("site_result_reports_total").increment(1);
        if let Some(recorded) = recorded
            && results
                .changes
                .iter()
                .all(|change| change.sequence <= recorded.sequence)
        {
            // All of it is recorded already: an answer was lost.
            self.note_evaluated(&device, results.evaluated_at);
            return Ok(receipt(Some((recorded.sequence, recorded.digest)), false));
        }
        let mut changes = Vec::new();
        let mut add = |kind| {
            changes.push(Change {
                at: now,
                by: device.actor(),
                kind,
            });
        };
        if !device.standing.used {
            add(device.first_use());
        }
        add(Kind::ReportResults(results));
        step("results-received");
        let mut outcome = None;
        for done in self.0.store.commit(changes).await? {
            outcome = Some(done?);
        }
        step("results-recorded");
        match outcome {
            Some(Applied::Results {
                recorded,
                wants_whole,
                ..
            }) => Ok(receipt(recorded, wants_whole)),
            _ => unreachable!("the last change is the report"),
        }
    }

    /// What is recorded of a device's results, of the stream that its check-in names.
    pub(crate) fn results_of_check_in(
        &self,
        device: &DevicePrincipal,
        report: &CheckIn,
        now: Timestamp,
    ) -> Option<RecordedSet> {
        let ResultsState {
            stream,
            evaluated_at,
            ..
        } = report.results.as_ref()?;
        let recorded = device.standing.results?;
        if recorded.stream != stream.bytes() {
            return None;
        }
        // The check-in tells how far the device's clock is off.
        let evaluated_at = evaluated_at
            .checked_add(now.duration_since(report.time))
            .unwrap_or(now);
        self.note_evaluated(device, evaluated_at.min(now));
        Some(recorded_set(recorded.sequence, recorded.digest))
    }

    fn note_evaluated(&self, device: &DevicePrincipal, at: Timestamp) {
        let recorded = device.standing.results;
        if recorded
            .is_some_and(|recorded| at.duration_since(recorded.evaluated_at) > SAME_EVALUATION)
        {
            self.0.evaluated.note(device.device(), at);
        }
    }

    pub(crate) async fn flush_evaluated(&self) {
        loop {
            tokio::time::sleep(FLUSH).await;
            if let Err(error) = self.write_evaluated().await {
                tracing::error!(event = "evaluations-not-written", %error, "will be tried again");
            }
        }
    }

    pub(crate) async fn write_evaluated(&self) -> std::result::Result<(), Unavailable> {
        let noted = self.0.evaluated.noted();
        self.0.store.record_evaluated(&noted).await?;
        self.0.evaluated.forget(&noted);
        Ok(())
    }

    /// When this node heard of the device's last evaluation since the last flush.
    pub(crate) fn evaluated(&self, device: DeviceId) -> Option<Timestamp> {
        self.0.evaluated.last(device)
    }
}

fn receipt(recorded: Option<(i64, [u8; 16])>, wants_whole: bool) -> ResultReceipt {
    ResultReceipt {
        recorded: recorded.map(|(sequence, digest)| recorded_set(sequence, digest)),
        wants_whole,
    }
}

fn recorded_set(sequence: i64, digest: [u8; 16]) -> RecordedSet {
    RecordedSet {
        sequence: u64::try_from(sequence).unwrap_or(0),
        digest: SetDigest::new(digest),
    }
}

fn parse(device: &DevicePrincipal, report: ResultReport, now: Timestamp) -> Result<NewResults> {
    let rules = |change: &protocol::ResultChange| 1 + change.results.len() + change.gone.len();
    // A change counts, too: one that is empty is one more all the same.
    let most = 2 * ResultReport::MOST_RULES;
    if report.changes.iter().map(rules).sum::<usize>() > most {
        return Err(Error::TooLarge(format!(
            "a report has at most {} rules",
            ResultReport::MOST_RULES
        )));
    }
    Ok(NewResults {
        device: device.device(),
        stream: report.stream.bytes(),
        changes: report
            .changes
            .into_iter()
            .map(parse_change)
            .collect::<Result<_>>()?,
        evaluated_at: report.evaluated_at.min(now),
        not_before: device.standing.enrolled_at,
    })
}

fn parse_change(change: protocol::ResultChange) -> Result<ResultsChange> {
    Ok(ResultsChange {
        sequence: i64::try_from(change.sequence)
            .map_err(|_| Error::Invalid("that is no sequence of changes".to_owned()))?,
        at: change.at,
        whole: change.whole,
        digest: change.digest.bytes(),
        follows: change.follows.map(SetDigest::bytes),
        results: change
            .results
            .into_iter()
            .map(parse_result)
            .collect::<Result<_>>()?,
        gone: change.gone.into_iter().map(|rule| rule.0).collect(),
    })
}

fn parse_result(result: RuleResult) -> Result<NewResult> {
    if !result.state.is_reported() {
        return Err(Error::Invalid(format!(
            "a device does not report `{}`",
            result.state
        )));
    }
    Ok(NewResult {
        rule: result.rule.0,
        state: result.state,
        finding: Finding::new(result.value.map(bounded), result.reason.map(bounded)),
        since: result.since,
    })
}

/// Fit to be stored and shown. Lines stay apart.
fn bounded(text: String) -> String {
    let mut kept = String::new();
    for c in text.chars() {
        let c = if c == '\n' || c == '\t' { ' ' } else { c };
        if c.is_control() {
            continue;
        }
        if kept.len() + c.len_utf8() > RuleResult::MOST_TEXT {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_are_cut() {
        let text = bounded(format!("a\u{1b}[31m\n\0b{}", "ü".repeat(2000)));
        assert!(text.starts_with("a[31m bü"), "{text}");
        assert!(text.len() <= RuleResult::MOST_TEXT);
    }
}
