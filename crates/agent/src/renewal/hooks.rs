//! Programs of the administrator that run after a renewal (`renewed.d/`), for services that use the
//! certificate, in the order of their names.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::identity::{Identity, Machine};
use crate::programs;

pub async fn run(machine: &Machine, identity: &Identity) {
    let is_program = |path: &std::path::PathBuf| {
        fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
    };
    let mut found: Vec<_> = fs::read_dir(machine.layout.hooks())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(is_program)
        .collect();
    found.sort();
    let file = |name: &str| identity.folder.join(name).display().to_string();
    let told = [
        ("PERENNIAL_KEY_FILE", file("key.pem")),
        ("PERENNIAL_CERTIFICATE_FILE", file("certificate.pem")),
    ];
    for program in found {
        programs::run(&program, &told).await;
    }
}
