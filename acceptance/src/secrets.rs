//! Looks for secrets where none may be: in logs, states, databases and archives.

use std::fs;
use std::io::{Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use data_encoding::BASE64;

use crate::programs::{Client, PASSWORD, Site};

/// The site's file of its first administrator.
const TOKEN: &str = "administrator.token";

/// Asserts that no password is anywhere, the administrator's token in its own file alone, and no
/// private key outside of its file: in the site's folder, in the clients' roots, in the archives
/// that the clients make for their diagnostics, and in `logs`.
pub fn assert_none(site: &Site, clients: &[&Client], logs: &[String]) -> Result<()> {
    let archives = tempfile::tempdir()?;
    for (number, client) in clients.iter().enumerate() {
        let folder = archives.path().join(number.to_string());
        fs::create_dir(&folder)?;
        let mut command = client.command("diagnostics");
        command.arg("--output").arg(folder);
        crate::programs::run(&mut command, "")?.succeeded();
    }
    let mut files = Vec::new();
    for folder in [site.folder(), archives.path()]
        .into_iter()
        .chain(clients.iter().map(|client| client.root()))
    {
        walk(folder, &mut files)?;
    }
    let mut secrets = Secrets::new();
    for file in &files {
        secrets.learn_from(file)?;
    }
    let token = secrets.needles.iter().any(|(what, _)| *what == "the token");
    ensure!(token, "the site has no token");
    for file in &files {
        secrets.look_into(file)?;
    }
    for log in logs {
        secrets.look("a log", log.as_bytes(), false)?;
    }
    Ok(())
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), found)?;
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// What vanishes while programs run is empty.
fn read(file: &Path) -> Result<Vec<u8>> {
    match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => Ok(read?),
    }
}

const KEY: &str = "a private key";

struct Secrets {
    /// What each is, and how it would look.
    needles: Vec<(&'static str, Vec<u8>)>,
    /// Whether one of them begins with these two bytes: databases are large, and secrets are many.
    begins: Vec<bool>,
}

impl Secrets {
    fn new() -> Self {
        let mut secrets = Self {
            needles: Vec::new(),
            begins: vec![false; 1 << 16],
        };
        secrets.add("the password", PASSWORD.as_bytes());
        let basic = BASE64.encode(format!("ann:{PASSWORD}").as_bytes());
        secrets.add("the password", basic.as_bytes());
        secrets.add(KEY, b"PRIVATE KEY");
        secrets
    }

    fn add(&mut self, what: &'static str, needle: &[u8]) {
        self.begins[start(needle)] = true;
        self.needles.push((what, needle.to_vec()));
    }

    /// Takes the secret that a file is there for.
    fn learn_from(&mut self, file: &Path) -> Result<()> {
        if file.ends_with(TOKEN) {
            let token = fs::read_to_string(file)?.trim().to_owned();
            self.add("the token", token.as_bytes());
        } else if is_key_file(file) {
            let pem = String::from_utf8(read(file)?)?;
            let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("--")).collect();
            if let Ok(der) = BASE64.decode(lines.concat().as_bytes())
                && der.len() > 64
            {
                // As it is, and as a line of a PEM. The first line is all keys' alike, nearly.
                self.add(KEY, &der[der.len() / 3..der.len() / 2]);
                self.add(KEY, lines[1].as_bytes());
            }
        }
        Ok(())
    }

    fn look_into(&self, file: &Path) -> Result<()> {
        let bytes = read(file)?;
        let name = file.display().to_string();
        // The programs know how a key looks.
        let is_program = bytes.starts_with(b"\x7fELF");
        if is_program || file.ends_with(TOKEN) {
            return Ok(());
        }
        self.look(&name, &bytes, is_key_file(file))?;
        if name.ends_with(".zip") {
            let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
            for number in 0..archive.len() {
                let mut inside = archive.by_index(number)?;
                let mut bytes = Vec::new();
                inside.read_to_end(&mut bytes)?;
                let place = format!("{name}: {}", inside.name()?);
                self.look(&place, &bytes, false)?;
            }
        }
        Ok(())
    }

    fn look(&self, place: &str, bytes: &[u8], is_key_file: bool) -> Result<()> {
        for pair in 0..bytes.len().saturating_sub(1) {
            if !self.begins[start(&bytes[pair..])] {
                continue;
            }
            for (what, needle) in &self.needles {
                let own = is_key_file && *what == KEY;
                let found = !own && bytes[pair..].starts_with(needle);
                ensure!(!found, "{what} is in {place}");
            }
        }
        Ok(())
    }
}

/// The first two bytes, as a number.
fn start(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

/// A file that is there for a private key, also one that was not finished.
fn is_key_file(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name == "key.pem" || name.starts_with(".key.pem.") || name.ends_with(".key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_anywhere_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = x509::PrivateKey::generate();
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("written");
            path
        };
        let key_file = file("key.pem", key.to_pem().as_bytes());
        let token = file(TOKEN, b"pt_secret\n");
        let mut secrets = Secrets::new();
        for path in [&key_file, &token] {
            secrets.learn_from(path).expect("read");
            secrets.look_into(path).expect("they may hold it");
        }
        let mut raw = b"page".to_vec();
        raw.extend_from_slice(&key.to_der());
        let mut zipped = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zipped
            .start_file("a", zip::write::SimpleFileOptions::default())
            .expect("begun");
        std::io::Write::write_all(&mut zipped, b"with pt_secret").expect("written");
        let zipped = zipped.finish().expect("ended").into_inner();
        for (name, content) in [
            ("a.log", format!("login {PASSWORD} ok").into_bytes()),
            ("b.log", b"-----BEGIN PRIVATE KEY-----".to_vec()),
            ("c.db", raw),
            ("d.json", b"bearer pt_secret".to_vec()),
            ("e.zip", zipped),
        ] {
            let path = file(name, &content);
            assert!(secrets.look_into(&path).is_err(), "{name}");
        }
        let path = file("harmless.log", b"enrolled ann");
        secrets.look_into(&path).expect("nothing is in it");
    }
}
