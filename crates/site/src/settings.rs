//! What an administrator decides about a site.

use domain::{HardwareUuid, Period, RenewalMode};
use serde::{Deserialize, Serialize};

/// The part of the configuration that the use cases need.
#[derive(Debug, Clone)]
pub struct Settings {
    pub name: String,
    /// Host names and addresses of the listeners, for their certificates.
    pub host_names: Vec<String>,
    pub profile: EnrollmentProfile,
    /// How long a device waits between two check-ins.
    pub check_in_interval: Period,
    /// How long a revocation list is good for; it is made anew at half of it.
    pub crl_lifetime: Period,
    /// Stamped into certificates when set; a dead address would break strict verifiers.
    pub crl_url: Option<String>,
    /// Hardware UUIDs that tell no two computers apart: of cloned disks, of a maker's firmware.
    pub excluded_hardware_uuids: Vec<HardwareUuid>,
    /// How long a device runs a policy list; it asks for a new one at half of it.
    pub policy_lifetime: Period,
    /// How long the history of a deleted device is kept.
    pub deleted_device_retention: Period,
    /// How long it is known how rules and deployments stood.
    pub compliance_history: Period,
}

/// What a certificate contains and who may have how many. The request decides nothing but the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrollmentProfile {
    pub validity: Period,
    /// notBefore lies this much before the issue, for clocks that are slow.
    pub backdating: Period,
    /// How long after its expiry a certificate can be renewed by proof of its key; `0s`: not at all.
    pub grace: Period,
    /// Who renews: the computer silently, or its user on a reminder.
    pub renewal_mode: RenewalMode,
    /// Certificates of one user that are valid at once.
    pub live_certificates_per_user: u32,
    pub enrollments_per_user_per_hour: u32,
    pub enrollments_per_address_per_hour: u32,
    pub renewals_per_device_per_hour: u32,
}

impl Default for EnrollmentProfile {
    fn default() -> Self {
        Self {
            validity: Period::from_days(365),
            backdating: Period::from_seconds(3600),
            grace: Period::from_days(30),
            renewal_mode: RenewalMode::Automatic,
            live_certificates_per_user: 20,
            enrollments_per_user_per_hour: 10,
            enrollments_per_address_per_hour: 60,
            renewals_per_device_per_hour: 10,
        }
    }
}
