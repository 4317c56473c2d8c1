//! What is known of a rule, a baseline or a device.

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
