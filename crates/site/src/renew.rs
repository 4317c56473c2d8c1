//! When a certificate should be renewed silently.

use domain::{DEFAULT_RENEWAL_PERIOD_1, Period, Window};
use protocol::RenewalInfo;

use crate::{DevicePrincipal, Site};

impl Site {
    /// The window in which `device` should renew its certificate, given the renewal period that it
    /// reported last.
    pub fn renewal_info(&self, device: &DevicePrincipal) -> RenewalInfo {
        let standing = &device.standing;
        let reported = standing.facts.renewal_period_1.map(Period::from_seconds);
        RenewalInfo {
            suggested_window: Window::of_certificate(
                standing.issued_at,
                standing.not_after,
                reported.unwrap_or(DEFAULT_RENEWAL_PERIOD_1),
            ),
            explanation_url: None,
        }
    }
}
