//! Walks the cases in `golden/`: for each, what is there before, the arguments, and then all that can
//! be seen of the run. `UPDATE_GOLDEN=1` writes what was seen; a person reviews the difference.
//!
//! A case is a file of sections. `--- arguments` is a JSON array. `--- before`, `--- managed` and
//! `--- machine` are the levels of `com.example.app`, as entries of a property list (XML) or as they
//! are, when they begin with `raw:`. The sections from `--- exit` on are what was seen.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const DOMAIN: &str = "com.example.app";

#[test]
fn every_case_is_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tools/defaults/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    cases.sort();
    assert!(cases.len() > 50, "{} cases", cases.len());
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differ = Vec::new();
    for case in cases {
        let expected = fs::read_to_string(&case).expect("a case");
        let seen = seen(&expected);
        if seen == expected {
            continue;
        }
        if update {
            fs::write(&case, seen).expect("written");
        } else {
            differ.push(format!("{}:\n{seen}", case.display()));
        }
    }
    assert!(
        differ.is_empty(),
        "other than before:\n{}",
        differ.join("\n")
    );
}

/// The case, with what is seen when it runs.
fn seen(case: &str) -> String {
    let given = case.split("--- exit\n").next().unwrap_or_default();
    let section = |name: &str| {
        let (_, rest) = given.split_once(&format!("--- {name}\n"))?;
        Some(rest.split("--- ").next().unwrap_or_default())
    };
    let root = tempfile::tempdir().expect("a folder");
    let layout = Layout::new(root.path());
    for (name, level) in [
        ("before", Level::Root),
        ("managed", Level::Managed),
        ("machine", Level::Machine),
    ] {
        if let Some(text) = section(name) {
            put(&layout.preferences(level), text);
        }
    }
    let own = layout
        .preferences(Level::Root)
        .join(format!("{DOMAIN}.plist"));
    let before = fs::read(&own).ok();
    let words: Vec<String> =
        serde_json::from_str(section("arguments").expect("arguments")).expect("an array");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut stdin = section("stdin").unwrap_or_default().as_bytes();

    let (code, out, err) = match answer(&layout, &words, &mut stdin) {
        Ok(output) => (0, output.text, output.complaint),
        Err(Refusal::Usage) => (255, USAGE.to_owned(), None),
        Err(Refusal::Complaint(text)) => (1, String::new(), Some(text)),
    };
    let is_usage = out == USAGE && words != ["help"];
    let out = if is_usage { "(the usage)\n" } else { &out };
    let err = err.map_or(String::new(), |text| {
        let root = root.path().display().to_string();
        line(&format!("TIME defaults[PID:PID] {text}").replace(&root, "ROOT"))
    });
    let after = fs::read(&own).ok();
    let after = match &after {
        _ if after == before => "(as before)\n".to_owned(),
        Some(bytes) => text_of(bytes),
        None => "(none)\n".to_owned(),
    };
    format!("{given}--- exit\n{code}\n--- stdout\n{out}--- stderr\n{err}--- after\n{after}")
}

fn put(folder: &Path, text: &str) {
    fs::create_dir_all(folder).expect("a folder");
    let list = match text.strip_prefix("raw:") {
        Some(raw) => raw.to_owned(),
        None => format!("<plist version=\"1.0\"><dict>\n{text}</dict></plist>\n"),
    };
    fs::write(folder.join(format!("{DOMAIN}.plist")), list).expect("written");
}

/// The entries of a list, as XML without its frame.
fn text_of(list: &[u8]) -> String {
    let value = property_list::decode(list).expect("a list");
    let xml = property_list::encode(&value, Format::Xml).expect("a list");
    let text = String::from_utf8(xml).expect("text");
    let (_, entries) = text.split_once("<dict>\n").unwrap_or_default();
    let (entries, _) = entries.rsplit_once("</dict>").unwrap_or_default();
    if entries.is_empty() {
        return "(empty)\n".to_owned();
    }
    let entries = entries.lines().map(|entry| {
        let entry = entry.strip_prefix('\t').unwrap_or(entry);
        line(&entry.replace('\t', "  "))
    });
    entries.collect()
}
