//! `diagnostics` and `CMDiagnostics`: a zip with what helps to find a fault, and without secrets. It
//! works with a broken install: each part fails alone, and `diagnostics.txt` says so.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use domain::Timestamp;
use plist::{Dictionary, Value};
use rustix::fs::OFlags;
use serde_json::json;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::cli::Diagnostics;
use crate::compliance::Standing;
use crate::failure::Failure;
use crate::files;
use crate::identity::Machine;
use crate::platform::{self, Layout};
use crate::preferences::{Level, is_domain};
use crate::property_list::{self, Format};
use crate::session;
use crate::tools::install::{TOOLS, WIZARD};
use crate::tools::status::{self, Status};

/// Of a longer file, the end is taken: there is what happened last.
const MOST_OF_A_FILE: u64 = 10 << 20;
/// All parts together, before they are compressed.
const MOST_OF_ALL: u64 = 100 << 20;
const MOST_LOGS: usize = 100;

pub fn run(machine: &Machine, arguments: &Diagnostics) -> Result<(), Failure> {
    let folder = std::path::absolute(&arguments.output)?;
    let path = folder.join(file_name(machine.now()));
    write(machine, &path)?;
    println!("{}", path.display());
    Ok(())
}

/// `cmdiag-<hostname>-<datetime>.zip`
fn file_name(now: Timestamp) -> String {
    let host: String = platform::facts()
        .host_name
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') => c,
            _ => '_',
        })
        .collect();
    format!("cmdiag-{host}-{}.zip", now.strftime("%Y%m%dT%H%M%SZ"))
}

/// How much goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// For root.
    All,
    /// For every user of this computer: what they may see anyway.
    Public,
}

/// The archive as a file without a name, which goes when it is closed.
pub fn archive(machine: &Machine, scope: Scope) -> Result<File, Failure> {
    let mut archive = Archive::new(tempfile::tempfile()?, machine.now());
    archive.scope = scope;
    collect(machine, &mut archive)?;
    let mut file = archive.finish()?;
    file.rewind()?;
    Ok(file)
}

fn write(machine: &Machine, path: &Path) -> Result<(), Failure> {
    // A file or a link that is there already is never written to.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| {
            Failure::other(format!(
                "cannot make {}: {error}; nothing was written; choose another folder with --output",
                path.display()
            ))
        })?;
    let mut archive = Archive::new(file, machine.now());
    match collect(machine, &mut archive).and_then(|()| archive.finish()) {
        Ok(_) => Ok(()),
        Err(error) => {
            let _ = fs::remove_file(path);
            Err(Failure::other(format!(
                "cannot write {}: {error}; it was removed again; choose another folder with --output",
                path.display()
            )))
        }
    }
}

/// Puts all parts in. What a part lacks is noted; an error is one of the archive itself.
fn collect(machine: &Machine, archive: &mut Archive) -> io::Result<()> {
    let layout = &machine.layout;
    let (text, json) = status_of(machine);
    archive.text("status.txt", Ok::<_, io::Error>(text))?;
    archive.text("status.json", Ok::<_, io::Error>(json))?;
    archive.text("system.txt", system(machine))?;
    archive.text("receipt.json", receipt(layout))?;
    logs(layout, archive)?;
    archive.leave_out("crash reports", "this system keeps none for the agent");
    archive.text("compliance.txt", rules(machine))?;
    match archive.scope {
        Scope::All => {
            archive.text("processes.txt", processes())?;
            preferences(machine, archive)?;
            archive.file("state.json", &layout.state().join("state.json"))?;
        }
        Scope::Public => archive.leave_out(
            "processes, preferences, state.json, site.json, and logs that not everybody can read",
            "they are for root",
        ),
    }
    archive.leave_out(
        "policy and results",
        "scripts and the values that they found are never collected",
    );
    // The one file of an identity that is not for others is its key. It is not opened here.
    for generation in ["current", "pending"] {
        let folder = layout.identity().join(generation);
        for name in ["certificate.pem", "site.json"] {
            if name == "site.json" && archive.scope == Scope::Public {
                continue;
            }
            archive.file(&format!("identity/{generation}/{name}"), &folder.join(name))?;
        }
    }
    archive.leave_out(
        "identity/current/key.pem",
        "private keys are never collected",
    );
    Ok(())
}

/// What `status` says, for people and for programs.
fn status_of(machine: &Machine) -> (String, String) {
    let (text, json) = match Status::of(machine) {
        Ok(status) => (status::text(&status), serde_json::to_value(&status)),
        Err(failure) => {
            let hint = failure.hint().unwrap_or_default();
            let json = json!({
                "enrolled": false,
                "error": failure.to_string(),
                "agent_version": env!("CARGO_PKG_VERSION"),
                "daemon_running": machine.daemon().is_some(),
            });
            (format!("{failure}\n{hint}\n"), Ok(json))
        }
    };
    let json = json.and_then(|json| serde_json::to_string_pretty(&json));
    (
        text,
        json.unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string()),
    )
}

fn system(machine: &Machine) -> io::Result<String> {
    let facts = platform::facts();
    Ok(format!(
        "host    {}\nagent   {}\ntime    {}\n\n{}",
        facts.host_name,
        facts.agent_version,
        machine.now(),
        platform::version()?
    ))
}

fn processes() -> io::Result<String> {
    let lines = platform::processes()?.into_iter().map(|process| {
        format!(
            "{:>8}  {:<20}  {}\n",
            process.id, process.user, process.name
        )
    });
    Ok(format!("{:>8}  {:<20}  NAME\n", "PID", "USER") + &lines.collect::<String>())
}

/// How each rule stands: without its value, and without reasons that may repeat what a script said.
fn rules(machine: &Machine) -> Result<String, Failure> {
    let identity = machine.enrolled()?;
    let mut text = String::new();
    for held in Standing::rules(machine, &identity) {
        let found = &held.found;
        text += &format!(
            "{}  {:<18}  since {}  {} / {}\n",
            found.rule,
            found.state.to_string(),
            status::to_the_second(held.since),
            found.item,
            found.name
        );
    }
    Ok(text)
}

/// What installing put on this machine, and how it is now.
fn receipt(layout: &Layout) -> io::Result<String> {
    let mut paths = vec![
        layout.program(),
        layout.command(),
        layout.service(),
        layout.autostart(),
        layout.programs().join(session::PROGRAM),
        layout.programs().join(WIZARD),
    ];
    paths.extend(TOOLS.map(|tool| layout.tools().join(tool)));
    let entries: Vec<_> = paths
        .iter()
        .map(|path| match receipt_entry(path) {
            Ok(entry) => entry,
            Err(error) => json!({ "path": path, "error": error.to_string() }),
        })
        .collect();
    Ok(serde_json::to_string_pretty(&entries)?)
}

fn receipt_entry(path: &Path) -> io::Result<serde_json::Value> {
    let metadata = fs::symlink_metadata(path)?;
    let mode = format!("{:04o}", metadata.mode() & 0o7777);
    if metadata.is_symlink() {
        return Ok(json!({ "path": path, "kind": "link", "target": fs::read_link(path)? }));
    }
    if !metadata.is_file() {
        return Ok(json!({ "path": path, "kind": "other", "mode": mode }));
    }
    let digest = x509::sha256(&[&fs::read(path)?]);
    Ok(json!({
        "path": path,
        "kind": "file",
        "size": metadata.len(),
        "mode": mode,
        "owner": metadata.uid(),
        "sha256": data_encoding::HEXLOWER.encode(&digest),
    }))
}

/// The lists of every level, as XML, with secrets blotted out.
fn preferences(machine: &Machine, archive: &mut Archive) -> io::Result<()> {
    for (level, called) in [
        (Level::Managed, "managed"),
        (Level::Root, "root"),
        (Level::Machine, "machine"),
    ] {
        for file in files_in(&machine.layout.preferences(level)) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let Some(domain) = name.strip_suffix(".plist").filter(|name| is_domain(name)) else {
                continue;
            };
            let list = machine.preferences().read(domain, level);
            let xml = list.and_then(|keys| {
                let list = Value::Dictionary(without_secrets(keys));
                let xml = property_list::encode(&list, Format::Xml).map_err(io::Error::other)?;
                String::from_utf8(xml).map_err(io::Error::other)
            });
            archive.text(&format!("preferences/{called}/{name}"), xml)?;
        }
    }
    Ok(())
}

/// Parts of keys' names whose values are nobody else's business.
const SECRET: [&str; 6] = [
    "password",
    "passphrase",
    "secret",
    "token",
    "key",
    "credential",
];

fn without_secrets(keys: Dictionary) -> Dictionary {
    keys.into_iter()
        .map(|(key, value)| {
            let lower = key.to_lowercase();
            let value = if SECRET.iter().any(|part| lower.contains(part)) {
                Value::from("<redacted>")
            } else {
                without_secret(value)
            };
            (key, value)
        })
        .collect()
}

fn without_secret(value: Value) -> Value {
    match value {
        Value::Dictionary(keys) => Value::Dictionary(without_secrets(keys)),
        Value::Array(items) => Value::Array(items.into_iter().map(without_secret).collect()),
        // Nobody sees what bytes are: they may be a key.
        Value::Data(bytes) => format!("<{} bytes of data>", bytes.len()).into(),
        Value::String(text) => without_user_info(text).into(),
        other => other,
    }
}

/// An address without the name and the password that it may carry: `http://ann:word@proxy`.
fn without_user_info(text: String) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text;
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://<redacted>@{host}{}", &rest[end..]),
        None => text,
    }
}

fn logs(layout: &Layout, archive: &mut Archive) -> io::Result<()> {
    let files = files_in(&layout.logs());
    if files.is_empty() {
        archive.leave_out("logs", "there are none");
    }
    for (number, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if archive.scope == Scope::Public && !is_for_everybody(file) {
            continue;
        }
        if number < MOST_LOGS {
            archive.file(&format!("logs/{name}"), file)?;
        } else {
            archive.leave_out(&format!("logs/{name}"), "there are too many logs");
        }
    }
    Ok(())
}

/// Everybody may read it.
fn is_for_everybody(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok_and(|found| found.is_file() && found.mode() & 0o004 != 0)
}

/// What lies in a folder, by name; nothing where there is no folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// The zip while it is written.
struct Archive {
    zip: ZipWriter<File>,
    options: SimpleFileOptions,
    scope: Scope,
    /// How many bytes may still go in.
    room: u64,
    inside: Vec<String>,
    left_out: Vec<String>,
}

impl Archive {
    fn new(file: File, now: Timestamp) -> Self {
        let mut options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated)
            .unix_permissions(0o600);
        if let Some(at) = zip_time(now) {
            options = options.last_modified_time(at);
        }
        Self {
            zip: ZipWriter::new(file),
            options,
            scope: Scope::All,
            room: MOST_OF_ALL,
            inside: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Puts in a part that was made here, or notes why there is none.
    fn text<E: Display>(&mut self, name: &str, text: Result<String, E>) -> io::Result<()> {
        match text {
            Ok(text) => self.part(name, text.as_bytes(), ""),
            Err(error) => {
                self.leave_out(name, error);
                Ok(())
            }
        }
    }

    /// Puts in a file, or the end of a long one.
    fn file(&mut self, name: &str, path: &Path) -> io::Result<()> {
        match end_of(path) {
            Ok((bytes, true)) => self.part(name, &bytes, ", the end of a longer file"),
            Ok((bytes, false)) => self.part(name, &bytes, ""),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.leave_out(name, "it is not there");
                Ok(())
            }
            Err(error) => {
                self.leave_out(name, error);
                Ok(())
            }
        }
    }

    fn part(&mut self, name: &str, bytes: &[u8], remark: &str) -> io::Result<()> {
        let length = bytes.len() as u64;
        if holds_private_key(bytes) {
            self.leave_out(name, "there is a private key in it");
        } else if length > self.room {
            self.leave_out(
                name,
                format!("the whole would be larger than {MOST_OF_ALL} bytes"),
            );
        } else {
            self.room -= length;
            self.zip.start_file(name, self.options)?;
            self.zip.write_all(bytes)?;
            self.inside.push(format!("{name} ({length} bytes{remark})"));
        }
        Ok(())
    }

    fn leave_out(&mut self, name: &str, why: impl Display) {
        self.left_out.push(format!("{name}: {why}"));
    }

    /// Writes the list of contents, and everything to the disk.
    fn finish(mut self) -> io::Result<File> {
        let list = format!(
            "In this archive:\n  {}\n\nLeft out:\n  {}\n\nValues of preferences that may be secret \
             were replaced with <redacted>.\n",
            self.inside.join("\n  "),
            self.left_out.join("\n  ")
        );
        self.zip.start_file("diagnostics.txt", self.options)?;
        self.zip.write_all(list.as_bytes())?;
        let file = self.zip.finish()?;
        file.sync_all()?;
        Ok(file)
    }
}

/// The last bytes of a regular file, and whether there are more before them. A link is not followed:
/// it could lead to a key.
fn end_of(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let named = |error: io::Error| files::named(path, &error);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(named)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(named(io::Error::other("it is no regular file")));
    }
    let skipped = metadata.len().saturating_sub(MOST_OF_A_FILE);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    // A log may grow meanwhile.
    file.take(MOST_OF_A_FILE).read_to_end(&mut bytes)?;
    Ok((bytes, skipped > 0))
}

/// True when a PEM block of a private key of any kind begins or ends in `bytes`.
fn holds_private_key(bytes: &[u8]) -> bool {
    const WORDS: &[u8] = b"PRIVATE KEY";
    bytes
        .windows(WORDS.len())
        .any(|window| window.eq_ignore_ascii_case(WORDS))
}

fn zip_time(at: Timestamp) -> Option<zip::DateTime> {
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    let part = |number: i8| u8::try_from(number).ok();
    zip::DateTime::from_date_and_time(
        u16::try_from(at.year()).ok()?,
        part(at.month())?,
        part(at.day())?,
        part(at.hour())?,
        part(at.minute())?,
        part(at.second())?,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::site::SiteRecord;

    const CANARY: &str = "canary-5f0c";

    struct Place {
        folder: tempfile::TempDir,
        machine: Machine,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let machine = Machine::new(&folder.path().join("root"));
            Self { folder, machine }
        }

        fn enrolled() -> Self {
            let place = Self::new();
            let store = place.machine.identities();
            let site = SiteRecord {
                server: "127.0.0.1".parse().expect("an address"),
                pin: domain::Pin::new(domain::KeyDigest::new([0; 32])),
                trust_verified: true,
                check_name: true,
                user: "ann".to_owned(),
            };
            let pending = store.stage("enroll", &site).expect("staged");
            let der = x509::testing::self_signed(&pending.key);
            let certificate = x509::Certificate::from_der(&der).expect("a certificate");
            store.add_certificate(&certificate).expect("added");
            store.promote().expect("promoted");
            place
        }

        fn put(&self, path: PathBuf, content: &[u8]) {
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, content).expect("written");
        }

        fn log(&self, name: &str, content: &[u8]) {
            self.put(self.machine.layout.logs().join(name), content);
        }

        /// The parts of the zip that is written now.
        fn diagnose(&self) -> BTreeMap<String, Vec<u8>> {
            let path = self.folder.path().join("d.zip");
            let _ = fs::remove_file(&path);
            write(&self.machine, &path).expect("written");
            let metadata = fs::metadata(&path).expect("there");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            parts_of(File::open(path).expect("there"))
        }
    }

    fn parts_of(file: File) -> BTreeMap<String, Vec<u8>> {
        let mut zip = zip::ZipArchive::new(file).expect("a zip");
        (0..zip.len())
            .map(|number| {
                let mut part = zip.by_index(number).expect("a part");
                let mut bytes = Vec::new();
                part.read_to_end(&mut bytes).expect("whole");
                (part.name().expect("text").into_owned(), bytes)
            })
            .collect()
    }

    fn text(parts: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
        let part = parts.get(name);
        let part = part.unwrap_or_else(|| panic!("no {name} in {:?}", parts.keys()));
        String::from_utf8(part.clone()).expect("text")
    }

    #[test]
    fn what_helps_is_inside() {
        let place = Place::enrolled();
        let layout = &place.machine.layout;
        place.log("agent.log", b"event=started\n");
        place.put(layout.program(), b"program");
        place
            .machine
            .preferences()
            .set(&[("SMSID", "GUID:1".to_owned())])
            .expect("set");
        place
            .machine
            .write_state(&crate::state::State::default())
            .expect("written");
        let parts = place.diagnose();
        let status: serde_json::Value =
            serde_json::from_str(&text(&parts, "status.json")).expect("JSON");
        assert_eq!(status["enrolled"], true);
        assert_eq!(status["smsid"], "GUID:1");
        assert!(text(&parts, "status.txt").contains("at 127.0.0.1:8444 as ann"));
        assert_eq!(text(&parts, "logs/agent.log"), "event=started\n");
        let preferences = text(&parts, "preferences/root/com.microsoft.ccmclient.plist");
        assert!(
            preferences.contains("<string>GUID:1</string>"),
            "{preferences}"
        );
        assert!(text(&parts, "identity/current/certificate.pem").contains("CERTIFICATE"));
        assert!(text(&parts, "identity/current/site.json").contains("ann"));
        assert!(parts.contains_key("state.json"));
        assert!(text(&parts, "system.txt").contains("agent "));
        let receipt = text(&parts, "receipt.json");
        let entries: Vec<serde_json::Value> = serde_json::from_str(&receipt).expect("JSON");
        assert_eq!(entries[0]["size"], 7);
        let expected = data_encoding::HEXLOWER.encode(&x509::sha256(&[b"program"]));
        assert_eq!(entries[0]["sha256"], *expected);
        let list = text(&parts, "diagnostics.txt");
        for name in parts.keys().filter(|name| *name != "diagnostics.txt") {
            assert!(list.contains(&format!("  {name} (")), "{name} in {list}");
        }
        let own = std::process::id().to_string();
        let processes = text(&parts, "processes.txt");
        assert!(
            processes
                .lines()
                .any(|line| line.trim_start().starts_with(&own))
        );
    }

    #[test]
    fn no_secret_is_inside() {
        let place = Place::enrolled();
        let layout = &place.machine.layout;
        let key_file = layout.identity().join("current/key.pem");
        let key = fs::read_to_string(&key_file).expect("a key");
        let block =
            format!("-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----\n");
        place.log("agent.log", format!("before\n{block}after\n").as_bytes());
        // The beginning of this block is cut off.
        let mut long = vec![b'x'; usize::try_from(MOST_OF_A_FILE).expect("small")];
        long.extend_from_slice(format!("\n{CANARY}\n-----END PRIVATE KEY-----\n").as_bytes());
        place.log("long.log", &long);
        place.log("good.log", b"fine\n");
        symlink(&key_file, layout.logs().join("link.log")).expect("linked");
        // What a link leads to need not look like a key.
        let elsewhere = place.folder.path().join("elsewhere");
        fs::write(&elsewhere, CANARY).expect("written");
        symlink(&elsewhere, layout.state().join("state.json")).expect("linked");
        // Somebody put the key beside the certificate.
        let certificate = layout.identity().join("current/certificate.pem");
        let both = fs::read_to_string(&certificate).expect("there") + &key;
        fs::write(&certificate, both).expect("written");
        let set = |key: &str, value: Value| {
            let preferences = place.machine.preferences();
            preferences
                .change("com.example.app", |keys| keys.insert(key.to_owned(), value))
                .expect("set");
        };
        let inner = |key: &str| -> Value {
            Value::Dictionary(
                [(key.to_owned(), Value::from(CANARY))]
                    .into_iter()
                    .collect(),
            )
        };
        set("ProxyPassword", CANARY.into());
        set("apiTOKEN", CANARY.into());
        set("PrivateKey", Value::Data(CANARY.into()));
        set("Certificate", Value::Data(CANARY.into()));
        set("nested", Value::Array(vec![inner("ClientSecret")]));
        set(
            "Proxy",
            format!("http://ann:{CANARY}@proxy.example.com:8080/x").into(),
        );
        set("Pin", "sha256:0123".into());
        place.put(
            layout
                .preferences(Level::Machine)
                .join("com.example.block.plist"),
            format!("<plist><dict><key>a</key><string>{block}</string></dict></plist>").as_bytes(),
        );

        let parts = place.diagnose();
        let secret_line = key.lines().nth(1).expect("a line of the key");
        let encoded = data_encoding::BASE64.encode(CANARY.as_bytes());
        for (name, bytes) in &parts {
            let text = String::from_utf8_lossy(bytes);
            for secret in [CANARY, secret_line, &encoded, "PRIVATE KEY"] {
                assert!(!text.contains(secret), "{secret} in {name}:\n{text}");
            }
        }
        let preferences = text(&parts, "preferences/root/com.example.app.plist");
        assert_eq!(
            preferences.matches("&lt;redacted>").count()
                + preferences.matches("&lt;redacted&gt;").count(),
            5,
            "{preferences}"
        );
        assert!(preferences.contains("sha256:0123"));
        assert!(preferences.contains("@proxy.example.com:8080/x"));
        let list = text(&parts, "diagnostics.txt");
        for name in [
            "logs/agent.log",
            "logs/long.log",
            "preferences/machine/com.example.block.plist",
        ] {
            assert!(
                list.contains(&format!("{name}: there is a private key in it")),
                "{list}"
            );
        }
        assert!(list.contains("logs/link.log: "), "{list}");
        assert_eq!(text(&parts, "logs/good.log"), "fine\n");
    }

    #[test]
    fn users_get_what_they_may_see_anyway() {
        let place = Place::enrolled();
        let layout = &place.machine.layout;
        place.log("agent.log", b"event=started\n");
        place.log("private.log", CANARY.as_bytes());
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(layout.logs().join("private.log"), mode).expect("set");
        place.put(layout.state().join("state.json"), CANARY.as_bytes());
        let set = |keys: &mut Dictionary| keys.insert("a".to_owned(), CANARY.into());
        let preferences = place.machine.preferences();
        preferences.change("com.example.app", set).expect("set");
        let file = archive(&place.machine, Scope::Public).expect("made");
        let parts = parts_of(file);
        let names: Vec<&str> = parts.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "compliance.txt",
                "diagnostics.txt",
                "identity/current/certificate.pem",
                "logs/agent.log",
                "receipt.json",
                "status.json",
                "status.txt",
                "system.txt",
            ]
        );
        for (name, bytes) in &parts {
            assert!(!String::from_utf8_lossy(bytes).contains(CANARY), "{name}");
        }
    }

    #[test]
    fn it_works_when_nothing_is_installed() {
        let place = Place::new();
        let parts = place.diagnose();
        let status: serde_json::Value =
            serde_json::from_str(&text(&parts, "status.json")).expect("JSON");
        assert_eq!(status["enrolled"], false);
        assert_eq!(status["error"], "this computer is not enrolled");
        assert!(text(&parts, "status.txt").contains("not enrolled"));
        let list = text(&parts, "diagnostics.txt");
        assert!(list.contains("logs: there are none"), "{list}");
        assert!(list.contains("state.json: "), "{list}");
    }

    #[test]
    fn it_works_with_a_broken_install() {
        let place = Place::enrolled();
        let layout = &place.machine.layout;
        fs::write(layout.identity().join("current/certificate.pem"), "?").expect("written");
        place.put(layout.state().join("state.json"), b"{");
        place.put(
            layout
                .preferences(Level::Managed)
                .join("com.microsoft.ccmclient.plist"),
            b"broken",
        );
        fs::create_dir_all(layout.program()).expect("made");
        fs::create_dir_all(layout.logs().join("agent.log")).expect("made");
        let parts = place.diagnose();
        assert!(text(&parts, "status.txt").contains("not a certificate"));
        let list = text(&parts, "diagnostics.txt");
        for left_out in [
            "preferences/managed/com.microsoft.ccmclient.plist: ",
            "logs/agent.log: ",
        ] {
            assert!(list.contains(left_out), "{left_out} in {list}");
        }
    }

    #[test]
    fn of_a_long_file_the_end_is_taken_and_the_whole_is_bounded() {
        let place = Place::new();
        let mut long = vec![b'a'; usize::try_from(MOST_OF_A_FILE).expect("small")];
        long.extend_from_slice(b"the end\n");
        for number in 0..11 {
            place.log(&format!("{number:02}.log"), &long);
        }
        let parts = place.diagnose();
        let first = &parts["logs/00.log"];
        assert_eq!(first.len() as u64, MOST_OF_A_FILE);
        assert!(first.ends_with(b"the end\n"));
        let all: usize = parts.values().map(Vec::len).sum();
        assert!((all as u64) < MOST_OF_ALL + 100_000);
        let list = text(&parts, "diagnostics.txt");
        assert!(
            list.contains("logs/10.log: the whole would be larger"),
            "{list}"
        );
    }

    #[test]
    fn nothing_that_is_there_is_written_over() {
        let place = Place::new();
        let folder = place.folder.path();
        let target = folder.join("target");
        fs::write(&target, "precious").expect("written");
        let link = folder.join("link.zip");
        symlink(&target, &link).expect("linked");
        let dangling = folder.join("dangling.zip");
        symlink(folder.join("nowhere"), &dangling).expect("linked");
        for path in [&target, &link, &dangling] {
            assert!(write(&place.machine, path).is_err());
        }
        assert_eq!(fs::read_to_string(&target).expect("there"), "precious");
        assert!(!folder.join("nowhere").exists());
        assert!(write(&place.machine, &folder.join("no/such/folder.zip")).is_err());
    }

    #[test]
    fn the_file_is_named_after_host_and_time() {
        let name = file_name("2026-11-22T15:00:00Z".parse().expect("a moment"));
        assert!(
            name.starts_with("cmdiag-") && name.ends_with("-20261122T150000Z.zip"),
            "{name}"
        );
        assert!(!name.contains('/'));
    }
}
