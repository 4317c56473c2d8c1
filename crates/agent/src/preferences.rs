//! Preference domains, above all `com.microsoft.ccmclient`, on levels: managed, root's own, machine.
//! The strongest level that has a key decides. Unknown keys are kept, a list keeps its format, and
//! writes are atomic.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use plist::{Dictionary, Value};

use crate::files;
use crate::platform::Layout;
use crate::property_list::{self, Format};

pub const CCMCLIENT: &str = "com.microsoft.ccmclient";

/// The domain that all programs share, under the name that its file has on a Mac.
pub const GLOBAL: &str = ".GlobalPreferences";

pub use domain::PreferenceLevel as Level;

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
        self.snapshot(domain)(key)
    }

    /// One reading of a domain, for many keys: the value of a key, and the level that it comes from.
    pub fn snapshot(&self, domain: &str) -> impl Fn(&str) -> Option<(Value, Level)> + use<> {
        let levels = Level::STRONGEST_FIRST
            .map(|level| (level, self.read(domain, level).unwrap_or_default()));
        move |key| {
            let mut levels = levels.iter();
            levels.find_map(|(level, found)| Some((found.get(key)?.clone(), *level)))
        }
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

    /// The names of the domains that have a key on any level, in order.
    pub fn domains(&self) -> Vec<String> {
        let folders =
            Level::STRONGEST_FIRST.map(|level| fs::read_dir(self.layout.preferences(level)));
        let names: BTreeSet<String> = folders
            .into_iter()
            .flatten()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some(name.strip_suffix(".plist")?.to_owned())
            })
            .filter(|name| is_domain(name) && !self.all(name).is_empty())
            .collect();
        names.into_iter().collect()
    }

    /// One level of a domain.
    ///
    /// # Errors
    /// When the list is there and cannot be read: then nothing may be written over it.
    pub fn read(&self, domain: &str, level: Level) -> io::Result<Dictionary> {
        let list = self.list(domain, level)?;
        Ok(list.map(|(dictionary, _)| dictionary).unwrap_or_default())
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
        let (mut dictionary, format) = self
            .list(domain, Level::Root)?
            .unwrap_or((Dictionary::new(), Format::Xml));
        let before = dictionary.clone();
        let done = change(&mut dictionary);
        if dictionary != before {
            let file = self.file(domain, Level::Root)?;
            let bytes = property_list::encode(&dictionary.into(), format)
                .map_err(|error| files::named(&file, &io::Error::other(error)))?;
            files::replace(&file, &bytes, 0o600)?;
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

    /// One level of a domain with its format, when it is there.
    fn list(&self, domain: &str, level: Level) -> io::Result<Option<(Dictionary, Format)>> {
        let path = self.file(domain, level)?;
        let named = |error: io::Error| files::named(&path, &error);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(named)?,
        };
        let mut bytes = Vec::new();
        // One byte more than is allowed tells that there is more.
        file.take(property_list::MOST_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(named)?;
        match property_list::decode(&bytes) {
            Ok(Value::Dictionary(dictionary)) => Ok(Some((dictionary, Format::of(&bytes)))),
            Ok(_) => Err(named(io::Error::other("it holds no dictionary"))),
            Err(error) => Err(named(io::Error::other(error))),
        }
    }

    fn file(&self, domain: &str, level: Level) -> io::Result<PathBuf> {
        if !is_domain(domain) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{domain:?} is no preference domain"),
            ));
        }
        Ok(self
            .layout
            .preferences(level)
            .join(format!("{domain}.plist")))
    }
}

/// A domain's name becomes a file's: it must not lead elsewhere.
pub fn is_domain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain = !name.starts_with(['.', '-']) && name.chars().all(allowed);
    name == GLOBAL || (plain && (1..=200).contains(&name.len()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;
    use crate::property_list::testing::{nested_binary, nested_xml};

    const DOMAIN: &str = "com.example.app";

    struct Place {
        _folder: tempfile::TempDir,
        layout: Layout,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let layout = Layout::new(folder.path());
            Self {
                _folder: folder,
                layout,
            }
        }

        fn path(&self, level: Level) -> PathBuf {
            self.layout
                .preferences(level)
                .join(format!("{DOMAIN}.plist"))
        }

        fn put(&self, level: Level, bytes: &[u8]) {
            fs::create_dir_all(self.layout.preferences(level)).expect("a folder");
            fs::write(self.path(level), bytes).expect("written");
        }

        fn put_keys(&self, level: Level, format: Format, keys: &[(&str, Value)]) {
            let keys = keys
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()));
            let list = Value::Dictionary(keys.collect());
            self.put(
                level,
                &property_list::encode(&list, format).expect("a list"),
            );
        }
    }

    #[test]
    fn the_strongest_level_that_has_the_key_decides() {
        let place = Place::new();
        let preferences = Preferences::new(&place.layout);
        assert_eq!(preferences.value(DOMAIN, "a"), None);
        for (level, value) in [
            (Level::Machine, "machine"),
            (Level::Root, "root"),
            (Level::Managed, "managed"),
        ] {
            let keys = [("a", value.into()), (value, 1.into())];
            place.put_keys(level, Format::Xml, &keys);
            assert_eq!(preferences.value(DOMAIN, "a"), Some((value.into(), level)));
        }
        // Keys that only a weaker level has are seen too.
        assert_eq!(
            preferences.value(DOMAIN, "machine"),
            Some((1.into(), Level::Machine))
        );
        let keys: Vec<_> = preferences.all(DOMAIN).into_iter().collect();
        assert_eq!(keys.len(), 4);
        assert_eq!(preferences.domains(), [DOMAIN]);
    }

    #[test]
    fn an_unusable_value_does_not_fall_through() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        let preferences = Preferences::new(&layout);
        preferences
            .set(&[("RenewalPeriod1", "1728000".to_owned())])
            .expect("set");
        assert_eq!(
            preferences.string("RenewalPeriod1").as_deref(),
            Some("1728000")
        );
        let managed = layout.preferences(Level::Managed);
        fs::create_dir_all(&managed).expect("a folder");
        let list: Dictionary = [("RenewalPeriod1".to_owned(), Value::from(1_728_000))]
            .into_iter()
            .collect();
        Value::from(list)
            .to_file_xml(managed.join("com.microsoft.ccmclient.plist"))
            .expect("written");
        // An integer is no usable period, and the string of the weaker level does not step in.
        assert_eq!(preferences.string("RenewalPeriod1"), None);
        assert_eq!(
            preferences.value(CCMCLIENT, "RenewalPeriod1"),
            Some((1_728_000.into(), Level::Managed))
        );
    }

    #[test]
    fn a_list_keeps_its_format_and_its_unknown_keys() {
        for format in [Format::Xml, Format::Binary] {
            let place = Place::new();
            let preferences = Preferences::new(&place.layout);
            let other = Value::Array(vec![true.into(), Value::Data(vec![1, 2])]);
            place.put_keys(Level::Root, format, &[("other", other.clone())]);
            preferences
                .change(DOMAIN, |keys| keys.insert("a".to_owned(), "b".into()))
                .expect("changed");
            let bytes = fs::read(place.path(Level::Root)).expect("there");
            assert_eq!(Format::of(&bytes), format);
            assert_eq!(
                preferences.value(DOMAIN, "other"),
                Some((other, Level::Root))
            );
            let metadata = fs::metadata(place.path(Level::Root)).expect("there");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_list_that_cannot_be_read_is_never_written_over() {
        let broken: [Vec<u8>; 6] = [
            b"no property list".to_vec(),
            b"".to_vec(),
            b"bplist00 and then nothing".to_vec(),
            b"<plist><array/></plist>".to_vec(),
            nested_xml(65_000),
            nested_binary(65_000),
        ];
        for bytes in broken {
            let place = Place::new();
            let preferences = Preferences::new(&place.layout);
            place.put(Level::Root, &bytes);
            let changed = preferences.change(DOMAIN, |keys| keys.insert("a".to_owned(), 1.into()));
            let error = changed.expect_err("must fail").to_string();
            assert!(error.contains("com.example.app.plist"), "{error}");
            assert_eq!(fs::read(place.path(Level::Root)).expect("there"), bytes);
            // And a reader goes on with what the other levels have.
            place.put_keys(Level::Machine, Format::Xml, &[("a", 2.into())]);
            assert_eq!(
                preferences.value(DOMAIN, "a"),
                Some((2.into(), Level::Machine))
            );
        }
    }

    #[test]
    fn a_large_list_is_neither_read_nor_made() {
        let place = Place::new();
        let preferences = Preferences::new(&place.layout);
        let large = || Value::Data(vec![7; property_list::MOST_BYTES]);
        let changed = preferences.change(DOMAIN, |keys| keys.insert("a".to_owned(), large()));
        assert!(changed.is_err());
        assert!(!place.path(Level::Root).exists());
        let spaces = " ".repeat(property_list::MOST_BYTES);
        place.put(
            Level::Root,
            format!("<plist><dict/></plist>{spaces}").as_bytes(),
        );
        assert!(preferences.read(DOMAIN, Level::Root).is_err());
    }

    #[test]
    fn a_managed_list_that_cannot_be_read_is_an_error() {
        let place = Place::new();
        let managed = place.layout.preferences(Level::Managed);
        fs::create_dir_all(&managed).expect("a folder");
        fs::write(managed.join("com.microsoft.ccmclient.plist"), "?").expect("written");
        assert!(Preferences::new(&place.layout).managed("Pin").is_err());
    }

    #[test]
    fn a_domain_is_no_path() {
        let place = Place::new();
        let preferences = Preferences::new(&place.layout);
        let long = "a".repeat(201);
        for name in [
            "",
            ".",
            "..",
            "../x",
            "/etc/passwd",
            ".hidden",
            "a/b",
            "-g",
            "a b",
            "a\0b",
            "ü",
            &long,
        ] {
            assert!(!is_domain(name), "{name}");
            assert!(preferences.read(name, Level::Root).is_err(), "{name}");
            assert!(preferences.change(name, |_| ()).is_err(), "{name}");
        }
        for name in [CCMCLIENT, GLOBAL, "a", "a-b_c.D9"] {
            assert!(is_domain(name), "{name}");
        }
    }

    /// Another program reads what is written here, where Debian's libplist-utils is installed.
    #[test]
    fn plistutil_reads_what_was_written() {
        for format in [Format::Xml, Format::Binary] {
            let place = Place::new();
            place.put_keys(Level::Root, format, &[("key", "ü & <b>".into())]);
            let mut command = Command::new("plistutil");
            command.arg("-i").arg(place.path(Level::Root));
            command.args(["-f", "xml"]);
            let Ok(output) = command.output() else { return };
            let text = String::from_utf8(output.stdout).expect("text");
            assert!(text.contains("ü &amp; &lt;b&gt;"), "{text}");
        }
    }
}
