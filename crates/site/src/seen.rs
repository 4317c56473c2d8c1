//! When each device was last seen, and when it evaluated last: kept in memory, written every half
//! minute in one statement.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use domain::{DeviceId, Timestamp};
use store::Unavailable;

use crate::Site;

/// How often a node writes them.
pub(crate) const FLUSH: Duration = Duration::from_secs(30);

/// A moment for each device.
#[derive(Default)]
pub(crate) struct Seen(Mutex<HashMap<DeviceId, Timestamp>>);

impl Seen {
    pub(crate) fn note(&self, device: DeviceId, at: Timestamp) {
        self.0.lock().expect("no holder panics").insert(device, at);
    }

    /// What this node noted of the device since the last flush.
    pub(crate) fn last(&self, device: DeviceId) -> Option<Timestamp> {
        self.0
            .lock()
            .expect("no holder panics")
            .get(&device)
            .copied()
    }

    /// All that is noted. In one order on every node: two nodes that write the same devices do not
    /// deadlock.
    pub(crate) fn noted(&self) -> Vec<(DeviceId, Timestamp)> {
        let noted = self.0.lock().expect("no holder panics");
        let mut noted: Vec<_> = noted.iter().map(|(device, at)| (*device, *at)).collect();
        noted.sort_unstable();
        noted
    }

    /// Forgets what was written, unless it was noted again meanwhile.
    pub(crate) fn forget(&self, written: &[(DeviceId, Timestamp)]) {
        let mut kept = self.0.lock().expect("no holder panics");
        for (device, at) in written {
            if kept.get(device) == Some(at) {
                kept.remove(device);
            }
        }
    }
}

impl Site {
    pub(crate) async fn flush_seen(&self) {
        loop {
            tokio::time::sleep(FLUSH).await;
            if let Err(error) = self.write_seen().await {
                tracing::error!(event = "last-seen-not-written", %error, "will be tried again");
            }
        }
    }

    pub(crate) async fn write_seen(&self) -> Result<(), Unavailable> {
        let seen = self.0.seen.noted();
        self.0.store.record_seen(&seen).await?;
        self.0.seen.forget(&seen);
        Ok(())
    }
}
