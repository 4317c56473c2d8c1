//! What differs between operating systems: where files lie, what the machine says of itself, how a
//! service is managed, and how to wait. Nothing else of the agent asks which system it runs on.

mod layout;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as system;

use std::path::PathBuf;

use domain::DeviceFacts;

pub use layout::Layout;
pub use system::{
    Alarm, ChildEnd, FilePlace, HOME, LANG, NetworkWatch, SEARCH_PATH, ScriptFile, Seat,
    adopt_orphans, boot, cgroup, descendants, descendants_of, leave_terminal, marked,
    mounted_below, os_version_number, own_children, own_memory, peer_user, prepare_runner,
    processes, remove_folder, share_of_memory, start_service, start_uninstalling, stop_service,
    tell_terminals, version,
};

/// A process, without its command line: there may be a password in it.
pub struct Process {
    pub id: u32,
    pub name: String,
    pub user: String,
}

/// The file that this program runs from.
pub fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("perennial-agent"))
}

/// What this machine says of itself.
pub fn facts() -> DeviceFacts {
    let facts = DeviceFacts {
        host_name: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..system::facts()
    };
    as_tested(facts)
}

/// In a test build, the operating system that `PERENNIAL_TEST_PLATFORM` names: `macOS:26.1`.
#[cfg(feature = "test-clock")]
fn as_tested(facts: DeviceFacts) -> DeviceFacts {
    let Ok(platform) = std::env::var("PERENNIAL_TEST_PLATFORM") else {
        return facts;
    };
    let (name, version) = platform
        .split_once(':')
        .expect("PERENNIAL_TEST_PLATFORM is NAME:VERSION");
    DeviceFacts {
        os_name: name.to_owned(),
        os_version: version.to_owned(),
        ..facts
    }
}

#[cfg(not(feature = "test-clock"))]
fn as_tested(facts: DeviceFacts) -> DeviceFacts {
    facts
}
