//! What is known of a rule, a baseline or a device.

use serde::{Deserialize, Serialize};

use crate::state::words;

words! {
    /// How a rule stands on a device, or a deployment on a device: then it is the greatest of its
    /// rules. The order is that of what an administrator should look at first.
    ///
    /// A client reports all of them but `exempt` and `unknown`, which the site says.
    ComplianceState {
        /// The item is for another platform. Counted apart, never as compliant.
        NotApplicable = "not-applicable",
        /// An administrator exempted the device.
        Exempt = "exempt",
        Compliant = "compliant",
        /// It was non-compliant; the remediation ran, discovery ran again, and it is compliant.
        Remediated = "remediated",
        /// Not reported yet, or too long ago.
        Unknown = "unknown",
        NonCompliant = "non-compliant",
        /// The remediation ran, or was stopped by the guard, and it is non-compliant.
        RemediationFailed = "remediation-failed",
        /// It could not be found out. Never remediated.
        Error = "error",
    }
}

impl ComplianceState {
    /// As it is stored: the order of the states.
    pub const fn code(self) -> i16 {
        match self {
            Self::NotApplicable => 1,
            Self::Exempt => 2,
            Self::Compliant => 3,
            Self::Remediated => 4,
            Self::Unknown => 5,
            Self::NonCompliant => 6,
            Self::RemediationFailed => 7,
            Self::Error => 8,
        }
    }

    /// Reads what [`Self::code`] gave.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.code() == code)
    }

    /// True for what a client may report.
    pub const fn is_reported(self) -> bool {
        !matches!(self, Self::Exempt | Self::Unknown)
    }

    /// True when nothing is left to do.
    pub const fn is_compliant(self) -> bool {
        matches!(self, Self::Compliant | Self::Remediated)
    }
}

/// How many devices are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCounts {
    pub compliant: i64,
    pub remediated: i64,
    pub non_compliant: i64,
    pub remediation_failed: i64,
    pub error: i64,
    pub not_applicable: i64,
    pub exempt: i64,
    pub unknown: i64,
}

impl StateCounts {
    pub const fn of(&mut self, state: ComplianceState) -> &mut i64 {
        match state {
            ComplianceState::NotApplicable => &mut self.not_applicable,
            ComplianceState::Exempt => &mut self.exempt,
            ComplianceState::Compliant => &mut self.compliant,
            ComplianceState::Remediated => &mut self.remediated,
            ComplianceState::Unknown => &mut self.unknown,
            ComplianceState::NonCompliant => &mut self.non_compliant,
            ComplianceState::RemediationFailed => &mut self.remediation_failed,
            ComplianceState::Error => &mut self.error,
        }
    }

    pub const fn total(&self) -> i64 {
        self.compliant
            + self.remediated
            + self.non_compliant
            + self.remediation_failed
            + self.error
            + self.not_applicable
            + self.exempt
            + self.unknown
    }

    /// Percent of the devices that are compliant, rounded down. Those for which it is not applicable,
    /// and those that are exempt, are left out of the question; none when nobody remains.
    pub const fn percent_compliant(&self) -> Option<i64> {
        let asked = self.total() - self.not_applicable - self.exempt;
        if asked == 0 {
            return None;
        }
        Some((self.compliant + self.remediated) * 100 / asked)
    }
}

words! {
    /// How bad it is when a rule is not kept.
    #[derive(Default)]
    Severity {
        #[default]
        None = "none",
        Information = "information",
        Warning = "warning",
        Critical = "critical",
        /// Critical, and the client's system log tells it.
        CriticalWithEvent = "critical-with-event",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_leaves_out_whom_it_does_not_concern() {
        let mut counts = StateCounts::default();
        assert_eq!(counts.percent_compliant(), None);
        for (state, devices) in [
            (ComplianceState::Compliant, 5),
            (ComplianceState::Remediated, 1),
            (ComplianceState::Unknown, 3),
            (ComplianceState::NotApplicable, 90),
            (ComplianceState::Exempt, 1),
        ] {
            *counts.of(state) += devices;
        }
        assert_eq!(
            (counts.total(), counts.percent_compliant()),
            (100, Some(66))
        );
    }

    #[test]
    fn codes_are_read_back_and_keep_the_order() {
        for pair in ComplianceState::ALL.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].code() < pair[1].code());
        }
        for state in ComplianceState::ALL {
            assert_eq!(ComplianceState::from_code(state.code()), Some(*state));
        }
        assert_eq!(ComplianceState::from_code(0), None);
    }
}
