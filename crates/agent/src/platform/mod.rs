//! What differs between operating systems: where files lie, what the machine says of itself, how a
//! service is managed, and how to wait. Nothing else of the agent asks which system it runs on.

mod layout;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as system;

use domain::DeviceFacts;

pub use layout::Layout;
pub use system::{
    Alarm, NetworkWatch, boot, processes, start_service, stop_service, tell_terminals, version,
};

/// A process, without its command line: there may be a password in it.
pub struct Process {
    pub id: u32,
    pub name: String,
    pub user: String,
}

/// What this machine says of itself.
pub fn facts() -> DeviceFacts {
    DeviceFacts {
        host_name: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..system::facts()
    }
}
