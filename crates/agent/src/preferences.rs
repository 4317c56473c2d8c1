//! The preference domain `com.microsoft.ccmclient`, on levels: managed, root's own, machine. The
//! strongest level that has a key decides. Unknown keys are kept, writes are atomic.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use plist::{Dictionary, Value};

use crate::files;
use crate::platform::Layout;

pub const CCMCLIENT: &str = "com.microsoft.ccmclient";

/// Larger property lists are refused.
const MOST_BYTES: u64 = 1 << 20;

/// Where a preference is set, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// By an administrator's device management.
    Managed,
    /// By root: what `sudo defaults write` writes.
    Root,
    /// For everybody on the machine.
    Machine,
}

impl Level {
    pub const STRONGEST_FIRST: [Level; 3] = [Level::Managed, Level::Root, Level::Machine];
}

/// Preference domains of one machine.
pub struct Preferences<'a> {
    layout: &'a Layout,
}

impl<'a> Preferences<'a> {
    pub fn new(layout: &'a Layout) -> Self {
        Self { layout }
    }

    /// The value of a key, and the level that it comes from. A list that cannot be read counts as
    /// empty.
    pub fn value(&self, domain: &str, key: &str) -> Option<(Value, Level)> {
        Level::STRONGEST_FIRST.into_iter().find_map(|level| {
            let found = self.read(domain, level).unwrap_or_default();
            found.get(key).map(|value| (value.clone(), level))
        })
    }

    /// A key of the client's domain, when it is a string.
    pub fn string(&self, key: &str) -> Option<String> {
        self.value(CCMCLIENT, key)?.0.into_string()
    }

    /// A key that only device management may set.
    ///
    /// # Errors
    /// When management's list is there and cannot be read: what it prescribes is then unknown.
    pub fn managed(&self, key: &str) -> io::Result<Option<Value>> {
        Ok(self.read(CCMCLIENT, Level::Managed)?.get(key).cloned())
    }

    /// All keys of a domain, each from the strongest level that has it.
    pub fn all(&self, domain: &str) -> Dictionary {
        let mut all = Dictionary::new();
        for level in Level::STRONGEST_FIRST.into_iter().rev() {
            for (key, value) in self.read(domain, level).unwrap_or_default() {
                all.insert(key, value);
            }
        }
        all
    }

    /// One level of a domain.
    ///
    /// # Errors
    /// When the list is there and cannot be read: then nothing may be written over it.
    pub fn read(&self, domain: &str, level: Level) -> io::Result<Dictionary> {
        let file = self.file(domain, level);
        match fs::metadata(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Dictionary::new()),
            Err(error) => return Err(files::named(&file, &error)),
            Ok(found) if found.len() > MOST_BYTES => {
                return Err(io::Error::other(format!("{} is too large", file.display())));
            }
            Ok(_) => {}
        }
        match Value::from_file(&file) {
            Ok(Value::Dictionary(dictionary)) => Ok(dictionary),
            Ok(_) => Err(io::Error::other(format!(
                "{} holds no dictionary",
                file.display()
            ))),
            Err(error) => Err(io::Error::other(format!("{}: {error}", file.display()))),
        }
    }

    /// Changes root's own level of a domain.
    ///
    /// # Errors
    /// When the list cannot be read or written; then it is as it was.
    pub fn change<T>(
        &self,
        domain: &str,
        change: impl FnOnce(&mut Dictionary) -> T,
    ) -> io::Result<T> {
        let folder = self.layout.preferences(Level::Root);
        files::make_folder(&folder, 0o700)?;
        let lock = File::create(folder.join(".lock"))?;
        lock.lock()?;
        let mut dictionary = self.read(domain, Level::Root)?;
        let before = dictionary.clone();
        let done = change(&mut dictionary);
        if dictionary != before {
            let mut text = Vec::new();
            Value::Dictionary(dictionary)
                .to_writer_xml(&mut text)
                .map_err(io::Error::other)?;
            text.push(b'\n');
            files::replace(&self.file(domain, Level::Root), &text, 0o600)?;
        }
        Ok(done)
    }

    /// Sets strings of the client's domain.
    pub fn set(&self, keys: &[(&str, String)]) -> io::Result<()> {
        self.change(CCMCLIENT, |dictionary| {
            for (key, value) in keys {
                dictionary.insert((*key).to_owned(), Value::String(value.clone()));
            }
        })
    }

    fn file(&self, domain: &str, level: Level) -> PathBuf {
        self.layout
            .preferences(level)
            .join(format!("{domain}.plist"))
    }
}
