//! A device leaves: its client is being uninstalled.

use domain::{DeviceTransition, RevocationReason};
use protocol::{Leave, LeaveAnswer};
use store::{Applied, Kind};

use crate::{DevicePrincipal, Result, Site};

impl Site {
    /// Retires the device and, unless it asks to keep them, revokes its certificates
    /// (cessationOfOperation).
    ///
    /// # Errors
    /// When the records cannot be reached.
    pub async fn leave(&self, device: &DevicePrincipal, leave: Leave) -> Result<LeaveAnswer> {
        let kind = Kind::Transition {
            device: device.device(),
            transition: DeviceTransition::Retire,
            revoke: (!leave.keep_certificate).then_some(RevocationReason::CessationOfOperation),
        };
        let applied = self.commit(device.actor(), kind).await?;
        let revoked = match applied {
            Applied::Revoked { certificates } => certificates,
            _ => 0,
        };
        if revoked > 0 {
            self.0.revoked.notify_one();
        }
        Ok(LeaveAnswer {
            device: device.device().smsid(),
            revoked,
        })
    }
}
