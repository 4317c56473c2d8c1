//! What an administrator of the computer set for its windows, in managed preferences. It is shown to
//! people: bounded, and without characters that are none.

use data_encoding::BASE64;
use plist::{Dictionary, Value};
use protocol::Look;
use transport::ServerAddress;

use crate::identity::Machine;
use crate::preferences::{CCMCLIENT, Level};

/// A picture of a few hundred points.
const MOST_OF_A_LOGO: usize = 64 << 10;
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

pub fn of(machine: &Machine) -> Look {
    let keys = managed(machine);
    let language = text(&keys, "Language", 16);
    let is_language = |name: &String| {
        let mut all = name.chars();
        all.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    Look {
        company: text(&keys, "CompanyName", 100),
        help_desk: text(&keys, "HelpDesk", 200),
        logo: keys.get("Logo").and_then(logo),
        language: language.filter(is_language),
    }
}

/// The server that managed preferences name, for an enrollment.
pub fn server(machine: &Machine) -> Option<ServerAddress> {
    text(&managed(machine), "Server", 300)?.parse().ok()
}

fn managed(machine: &Machine) -> Dictionary {
    let keys = machine.preferences().read(CCMCLIENT, Level::Managed);
    keys.unwrap_or_default()
}

fn text(keys: &Dictionary, key: &str, most: usize) -> Option<String> {
    let text = keys.get(key)?.as_string()?;
    let text: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(most)
        .collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn logo(value: &Value) -> Option<String> {
    let bytes = value.as_data()?;
    (bytes.len() <= MOST_OF_A_LOGO && bytes.starts_with(PNG)).then(|| BASE64.encode(bytes))
}
