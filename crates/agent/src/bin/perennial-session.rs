//! `perennial-session ROOT`: what `perennial-agent session` becomes. A program of its own, as it runs for each
//! user, all day: the pages of all other tools would stay in its memory.

use std::path::PathBuf;

use agent::platform::Layout;
use agent::session;

fn main() {
    let root = std::env::args_os().nth(1);
    session::main(&Layout::new(
        &root.map_or_else(|| "/".into(), PathBuf::from),
    ));
}
