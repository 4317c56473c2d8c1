//! A device says that it leaves: its client is being uninstalled.

use domain::Smsid;
use serde::{Deserialize, Serialize};

pub const LEAVE_PATH: &str = "/management/v1/leave";

/// From the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// The device is retired, but its certificates are not revoked.
    #[serde(default)]
    pub keep_certificate: bool,
}

/// From the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveAnswer {
    pub device: Smsid,
    /// How many certificates were revoked just now.
    pub revoked: u64,
}
