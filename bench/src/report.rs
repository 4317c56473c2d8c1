//! The table.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::peers::cfssl::Cfssl;
use crate::peers::cpu;
use crate::peers::nginx::Nginx;

/// One line: what we do, what the peer does, and the bound that we set ourselves.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    pub ours: f64,
    pub peer: Option<f64>,
    pub unit: &'static str,
    /// Ours divided by the peer's.
    pub ratio: Option<f64>,
    pub bound: &'static str,
}

#[derive(Serialize)]
pub struct Report {
    machine: String,
    versions: Vec<String>,
    rows: Vec<Row>,
    not_measured: Vec<String>,
}

impl Report {
    pub fn new() -> Self {
        let version = |name: &str, version: std::io::Result<String>| match version {
            Ok(version) => format!("{name} {version}"),
            Err(error) => format!("{name}: {error}"),
        };
        Self {
            machine: cpu::machine(),
            versions: vec![
                format!("perennial {}", env!("CARGO_PKG_VERSION")),
                version("cfssl", Cfssl::version()),
                version("nginx", Nginx::version()),
            ],
            rows: Vec::new(),
            not_measured: Vec::new(),
        }
    }

    pub fn row(
        &mut self,
        name: impl Into<String>,
        ours: f64,
        peer: Option<f64>,
        unit: &'static str,
        bound: &'static str,
    ) {
        let ratio = peer.map(|peer| ours / peer);
        self.rows.push(Row {
            name: name.into(),
            ours,
            peer,
            unit,
            ratio,
            bound,
        });
    }

    pub fn not_measured(&mut self, what: &str, why: &str) {
        self.not_measured.push(format!("{what}: {why}"));
    }

    pub fn print(&self) {
        println!("{}", self.machine);
        println!("{}\n", self.versions.join("; "));
        println!(
            "{:<58} {:>10} {:>10} {:<12} {:>7}  bound",
            "", "ours", "peer", "unit", "ratio"
        );
        let number = |value: Option<f64>| {
            value.map_or("-".to_owned(), |value| match value {
                value if value >= 100.0 => format!("{value:.0}"),
                value => format!("{value:.3}"),
            })
        };
        for row in &self.rows {
            println!(
                "{:<58} {:>10} {:>10} {:<12} {:>7}  {}",
                row.name,
                number(Some(row.ours)),
                number(row.peer),
                row.unit,
                row.ratio
                    .map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
                row.bound
            );
        }
        for missing in &self.not_measured {
            println!("not measured: {missing}");
        }
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        std::fs::write(file, serde_json::to_vec_pretty(self)?)?;
        println!("\nwritten: {}", file.display());
        Ok(())
    }
}
