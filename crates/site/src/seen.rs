//! When each device was last seen: kept in memory, written every half minute in one statement.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use domain::{DeviceId, Timestamp};
use store::Unavailable;

use crate::Site;

const FLUSH: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Seen(Mutex<HashMap<DeviceId, Timestamp>>);

impl Seen {
    pub(crate) fn note(&self, device: DeviceId, at: Timestamp) {
        self.0.lock().expect("no holder panics").insert(device, at);
    }

    /// When this node saw the device since the last flush.
    pub(crate) fn last(&self, device: DeviceId) -> Option<Timestamp> {
        self.0
            .lock()
            .expect("no holder panics")
            .get(&device)
            .copied()
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
        let noted = self.0.seen.0.lock().expect("no holder panics").clone();
        let mut seen: Vec<_> = noted.into_iter().collect();
        // In one order on every node: two nodes that write the same devices do not deadlock.
        seen.sort_unstable();
        self.0.store.record_seen(&seen).await?;
        // Forgotten once it is written, unless it was seen again meanwhile.
        let mut kept = self.0.seen.0.lock().expect("no holder panics");
        for (device, at) in seen {
            if kept.get(&device) == Some(&at) {
                kept.remove(&device);
            }
        }
        Ok(())
    }
}
