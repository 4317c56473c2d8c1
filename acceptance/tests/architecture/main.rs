//! The arrows between crates (ARCHITECTURE.md): a crate depends on those that it is allowed to, and
//! on no other.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Crate, and the crates of ours that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &["domain"]),
    ("x509", &["domain"]),
    ("protocol", &["domain"]),
    ("transport", &["domain", "x509"]),
    ("authority", &["domain", "x509"]),
    ("directory", &["domain"]),
    ("store", &["domain", "protocol"]),
    (
        "site",
        &[
            "domain",
            "x509",
            "protocol",
            "authority",
            "directory",
            "store",
        ],
    ),
    ("est", &["protocol", "site", "x509"]),
    ("management", &["protocol", "site"]),
    ("api", &["domain", "protocol", "site", "transport"]),
    ("console", &["site"]),
    (
        "perennial",
        &[
            "api",
            "authority",
            "clock",
            "console",
            "domain",
            "est",
            "management",
            "site",
            "store",
            "transport",
            "x509",
        ],
    ),
    (
        "agent",
        &["clock", "domain", "protocol", "transport", "x509"],
    ),
    ("wizard", &["domain", "protocol"]),
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("metadata is JSON")
}

/// Our crates with the ones of ours that each uses; what only tests use does not count.
fn arrows() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let mut ours: Vec<String> = dependencies
                .iter()
                .filter(|dependency| !dependency["path"].is_null() && dependency["kind"] != "dev")
                .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
                .collect();
            ours.sort();
            (package["name"].as_str().expect("a name").to_owned(), ours)
        })
        .collect()
}

#[test]
fn arrows_point_one_way() {
    let mut found = arrows();
    // They test and measure everything.
    for outside in ["acceptance", "bench"] {
        found.remove(outside);
    }
    for (name, allowed) in ARROWS {
        let uses = found
            .remove(*name)
            .unwrap_or_else(|| panic!("there is no crate {name}"));
        for used in uses {
            assert!(
                allowed.contains(&used.as_str()),
                "{name} must not use {used}"
            );
        }
    }
    assert!(
        found.is_empty(),
        "crates without a place in the house: {found:?}"
    );
}

#[test]
fn only_the_store_speaks_sql_and_only_transport_speaks_tls() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            if dependency["kind"] == "dev" {
                continue;
            }
            match dependency["name"].as_str().expect("a name") {
                "sqlx" => assert_eq!(name, "store"),
                "rustls" | "tokio-rustls" => assert_eq!(name, "transport"),
                "axum" => assert!(
                    [
                        "est",
                        "management",
                        "api",
                        "console",
                        "perennial",
                        "acceptance"
                    ]
                    .contains(&name),
                    "{name}"
                ),
                "rcgen" => assert!(["authority", "x509"].contains(&name), "{name}"),
                _ => {}
            }
        }
    }
}
