//! Preference settings: a key of a property list, read as text and written with the right type. A
//! domain is a list of the whole machine (`/Library/Preferences`); a path is any list.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::PathBuf;
use std::time::SystemTime;

use domain::Timestamp;
use domain::compliance::{ApplicationId, Condition, KeyPath, Reading, TypedValue};
use plist::{Dictionary, Value};

use crate::files;
use crate::platform::{FilePlace, Layout};
use crate::preferences::{CCMCLIENT, Preferences};
use crate::property_list::{self, Format};

/// Of a list that was not there: others read it.
const MODE: u32 = 0o644;

/// Where a preference setting's value is.
pub struct Preference<'a> {
    pub layout: &'a Layout,
    pub application: &'a ApplicationId,
    pub key: &'a KeyPath,
}

/// What was found: none where there is no such key, or why it cannot be told.
pub type Discovered = Result<Option<Value>, String>;

impl Preference<'_> {
    pub fn discover(&self) -> Discovered {
        let (first, rest) = self.path();
        let outermost = if self.is_agents_own() {
            Preferences::new(self.layout)
                .value(CCMCLIENT, first)
                .map(|(value, _)| value)
        } else {
            let list = self.read().map_err(|error| error.to_string())?;
            list.and_then(|(mut list, _)| list.remove(first))
        };
        Ok(rest.iter().fold(outermost, |found, key| {
            found?.into_dictionary()?.remove(key.as_str())
        }))
    }

    /// Writes a value, making the dictionaries around it. Everything else stays as it is.
    ///
    /// # Errors
    /// When it cannot be written; then the list is as it was.
    pub fn write(&self, value: &TypedValue) -> io::Result<()> {
        let value = typed(value)?;
        let keys = self.key.parts();
        if self.is_agents_own() {
            return Preferences::new(self.layout)
                .change(CCMCLIENT, |list| insert(list, keys, value))?;
        }
        let named = |error| files::named(&self.file(), &error);
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let place = self.place(true).map_err(named)?;
        let place = place.ok_or_else(missing).map_err(named)?;
        let list = read(&place).map_err(named)?;
        let (mut list, format) = list.unwrap_or((Dictionary::new(), Format::Xml));
        insert(&mut list, keys, value)?;
        let bytes = property_list::encode(&list.into(), format).map_err(io::Error::other)?;
        replace(&place, &bytes).map_err(named)
    }

    fn read(&self) -> io::Result<Option<(Dictionary, Format)>> {
        let found = self.place(false);
        let list = found.and_then(|place| place.as_ref().map_or(Ok(None), read));
        list.map_err(|error| files::named(&self.file(), &error))
    }

    /// None where a folder is missing on the way, unless it is made.
    fn place(&self, make: bool) -> io::Result<Option<FilePlace>> {
        let root = self.layout.root();
        let file = self.file();
        let below = file.strip_prefix(root).unwrap_or(&file);
        FilePlace::find(root, below, make)
    }

    fn path(&self) -> (&str, &[String]) {
        let (first, rest) = self
            .key
            .parts()
            .split_first()
            .expect("a key path is never empty");
        (first, rest)
    }

    /// The client's domain has levels, and files of its own on a system without `/Library`.
    fn is_agents_own(&self) -> bool {
        self.application.as_str() == CCMCLIENT
    }

    fn file(&self) -> PathBuf {
        let application = self.application.as_str();
        match application.strip_prefix('/') {
            Some(path) => self.layout.root().join(path),
            None => self
                .layout
                .library_preferences()
                .join(format!("{application}.plist")),
        }
    }
}

/// The value under a rule: as text by its type. What has no text still exists.
pub fn reading(discovered: &Discovered, condition: &Condition) -> Reading {
    let value = match discovered {
        Err(reason) => return Reading::Failed(reason.clone()),
        Ok(None) => return Reading::Missing,
        Ok(Some(value)) => value,
    };
    if matches!(condition, Condition::Existential(_)) {
        // An empty string is there, too.
        let shown = text(value).filter(|text| !text.is_empty());
        return Reading::Value(shown.unwrap_or_else(|| format!("({})", kind(value))));
    }
    match text(value) {
        Some(text) => Reading::Value(text),
        None => Reading::Failed(format!("it is {}, which cannot be compared", kind(value))),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Boolean(value) => Some(value.to_string()),
        Value::Integer(value) => Some(value.to_string()),
        Value::Real(value) => Some(value.to_string()),
        Value::Date(date) => Timestamp::try_from(SystemTime::from(*date))
            .ok()
            .map(|at| at.to_string()),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Dictionary(_) => "a dictionary",
        Value::Array(_) => "an array",
        Value::Data(_) => "data",
        _ => "a value of another kind",
    }
}

fn typed(value: &TypedValue) -> io::Result<Value> {
    Ok(match value {
        TypedValue::String(text) => text.as_str().into(),
        TypedValue::Version(version) => version.to_string().into(),
        TypedValue::Boolean(value) => (*value).into(),
        TypedValue::FloatingPoint(value) => (*value).into(),
        TypedValue::Integer(value) => {
            let signed = i64::try_from(*value).map(Value::from);
            signed
                .or_else(|_| u64::try_from(*value).map(Value::from))
                .map_err(|_| io::Error::other(format!("{value} is too large for a list")))?
        }
        TypedValue::DateAndTime(at) => Value::Date(SystemTime::from(*at).into()),
    })
}

fn insert(list: &mut Dictionary, keys: &[String], value: Value) -> io::Result<()> {
    let (key, around) = keys.split_last().expect("a key path is never empty");
    let mut inner = list;
    for name in around {
        let found = inner
            .entry(name.clone())
            .or_insert_with(|| Value::Dictionary(Dictionary::new()));
        let what = kind(found);
        inner = found
            .as_dictionary_mut()
            .ok_or_else(|| io::Error::other(format!("{name} is {what}, not a dictionary")))?;
    }
    inner.insert(key.clone(), value);
    Ok(())
}

/// None where there is no such list.
fn read(place: &FilePlace) -> io::Result<Option<(Dictionary, Format)>> {
    let Some(handle) = place.open()? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    handle
        .take(property_list::MOST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    match property_list::decode(&bytes) {
        Ok(Value::Dictionary(list)) => Ok(Some((list, Format::of(&bytes)))),
        Ok(_) => Err(io::Error::other("it holds no dictionary")),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Replaces a list in one step; it keeps its owner and its mode. The folder may be a user's own: a
/// name that nobody can guess is no link that somebody put there.
fn replace(place: &FilePlace, bytes: &[u8]) -> io::Result<()> {
    let mut part = tempfile::NamedTempFile::new_in(place.folder())?;
    part.write_all(bytes)?;
    let mode = match place.open()? {
        Some(present) => {
            let (own, present) = (part.as_file().metadata()?, present.metadata()?);
            if (own.uid(), own.gid()) != (present.uid(), present.gid()) {
                fchown(part.as_file(), Some(present.uid()), Some(present.gid()))?;
            }
            present.permissions().mode() & 0o7777
        }
        None => MODE,
    };
    part.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    part.as_file().sync_all()?;
    part.persist(place.path()).map_err(|error| error.error)?;
    files::sync_folder(&place.folder())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use domain::compliance::{Comparison, DataType, Existence, Operator, Verdict};

    use super::*;

    struct Place {
        _folder: tempfile::TempDir,
        layout: Layout,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            Self {
                layout: Layout::new(folder.path()),
                _folder: folder,
            }
        }

        fn with<T>(
            &self,
            application: &str,
            key: &str,
            act: impl FnOnce(Preference<'_>) -> T,
        ) -> T {
            let (application, key) = (
                application.parse().expect("an id"),
                key.parse().expect("a key"),
            );
            act(Preference {
                layout: &self.layout,
                application: &application,
                key: &key,
            })
        }
    }

    fn equals(data_type: DataType, operand: &str) -> Condition {
        let operands = vec![operand.to_owned()];
        let comparison = Comparison::new(data_type, Operator::Equals, operands);
        Condition::Value(comparison.expect("a comparison"))
    }

    #[test]
    fn what_is_written_is_read_back_with_its_type() {
        let rows = [
            (DataType::String, "a b", "a b"),
            (DataType::Integer, "-7", "-7"),
            (
                DataType::Integer,
                "18446744073709551615",
                "18446744073709551615",
            ),
            (DataType::FloatingPoint, "1.5", "1.5"),
            (DataType::Boolean, "yes", "true"),
            (DataType::Version, "14.4.1", "14.4.1"),
            (DataType::DateAndTime, "2026-11-22", "2026-11-22T00:00:00Z"),
        ];
        for application in ["com.example.app", "/Users/Shared/a.plist", CCMCLIENT] {
            let place = Place::new();
            for (row, (data_type, written, read)) in rows.into_iter().enumerate() {
                let key = format!("/outer/inner/{row}");
                let condition = equals(data_type, written);
                place.with(application, &key, |preference| {
                    assert_eq!(preference.discover(), Ok(None));
                    let value = data_type.parse(written).expect("a value");
                    preference.write(&value).expect("written");
                    let found = preference.discover();
                    assert_eq!(reading(&found, &condition), Reading::Value(read.to_owned()));
                    assert_eq!(
                        condition.judge(&reading(&found, &condition)),
                        Verdict::Compliant
                    );
                });
            }
        }
    }

    #[test]
    fn a_list_keeps_its_other_keys_its_format_and_its_mode() {
        for format in [Format::Xml, Format::Binary] {
            let place = Place::new();
            let folder = place.layout.library_preferences();
            fs::create_dir_all(&folder).expect("a folder");
            let file = folder.join("com.example.app.plist");
            let other = Value::Array(vec![Value::Data(vec![1, 2])]);
            let list: Dictionary = [("other".to_owned(), other.clone())].into_iter().collect();
            let bytes = property_list::encode(&list.into(), format).expect("a list");
            fs::write(&file, bytes).expect("written");
            fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("set");
            place.with("com.example.app", "a/b", |preference| {
                preference
                    .write(&TypedValue::Boolean(true))
                    .expect("written");
            });
            let bytes = fs::read(&file).expect("a list");
            assert_eq!(Format::of(&bytes), format);
            let list = property_list::decode(&bytes).expect("a list");
            let list = list.into_dictionary().expect("a dictionary");
            assert_eq!(list.get("other"), Some(&other));
            let mode = fs::metadata(&file).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o640);
            assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
        }
    }

    #[test]
    fn what_has_no_text_exists_and_cannot_be_compared() {
        let place = Place::new();
        let nested = |preference: Preference<'_>| preference.discover();
        place.with("com.example.app", "a/b", |preference| {
            preference
                .write(&TypedValue::String(String::new()))
                .expect("written");
        });
        let exists = Condition::Existential(Existence::MustExist);
        let dictionary = place.with("com.example.app", "a", nested);
        assert_eq!(
            exists.judge(&reading(&dictionary, &exists)),
            Verdict::Compliant
        );
        let one = equals(DataType::Integer, "1");
        assert!(matches!(
            one.judge(&reading(&dictionary, &one)),
            Verdict::Error(_)
        ));
        let empty = place.with("com.example.app", "a/b", nested);
        assert_eq!(exists.judge(&reading(&empty, &exists)), Verdict::Compliant);
        // A way that leads through a string leads nowhere.
        assert_eq!(place.with("com.example.app", "a/b/c", nested), Ok(None));
        place.with("com.example.app", "a/b/c", |preference| {
            assert!(preference.write(&TypedValue::Boolean(true)).is_err());
        });
    }

    #[test]
    fn a_broken_list_is_an_error_and_stays_as_it_is() {
        let place = Place::new();
        let file = place.layout.root().join("broken.plist");
        fs::write(&file, "broken").expect("written");
        place.with("/broken.plist", "a", |preference| {
            assert!(preference.discover().is_err());
            assert!(preference.write(&TypedValue::Boolean(true)).is_err());
        });
        assert_eq!(fs::read(&file).expect("there"), b"broken");
    }

    /// A user whose folders are on the way, as root sees it.
    const USER: u32 = 4711;

    fn is_refused(place: &Place, list: &str, why: &str) {
        place.with(list, "a", |preference| {
            let told = preference.discover().expect_err("refused");
            assert!(told.contains(why), "{told}");
            let written = preference.write(&TypedValue::Boolean(true));
            let told = written.expect_err("refused").to_string();
            assert!(told.contains(why), "{told}");
        });
    }

    #[test]
    fn what_is_no_file_is_an_error_and_nobody_waits_for_it() {
        let place = Place::new();
        let root = place.layout.root();
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), fifo, mode, 0).expect("made");
        fs::create_dir(root.join("folder")).expect("made");
        is_refused(&place, "/fifo", "no regular file");
        is_refused(&place, "/folder", "no regular file");
        is_refused(&place, "/fifo/list", "Not a directory");
    }

    #[test]
    fn root_follows_its_own_links_and_no_users() {
        let place = Place::new();
        let root = place.layout.root();
        fs::create_dir_all(root.join("real")).expect("made");
        fs::create_dir_all(root.join("home")).expect("made");
        symlink("/real", root.join("link")).expect("made");
        place.with("/link/a.plist", "a", |preference| {
            let value = TypedValue::Boolean(true);
            preference.write(&value).expect("written");
            assert_eq!(preference.discover(), Ok(Some(Value::Boolean(true))));
        });
        assert!(root.join("real/a.plist").is_file());
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(root.join("home"), Some(USER), None).expect("root");
        symlink("../real", root.join("home/folder")).expect("made");
        symlink("../real/a.plist", root.join("home/a.plist")).expect("made");
        for link in ["folder", "a.plist"] {
            std::os::unix::fs::lchown(root.join("home").join(link), Some(USER), None)
                .expect("root");
        }
        is_refused(&place, "/home/folder/a.plist", "folder is a symbolic link");
        is_refused(&place, "/home/a.plist", "a.plist is a symbolic link");
    }

    #[test]
    fn a_folder_that_is_exchanged_meanwhile_leads_nowhere_else() {
        let place = Place::new();
        let root = place.layout.root();
        for folder in ["home", "etc"] {
            fs::create_dir(root.join(folder)).expect("made");
        }
        let found = FilePlace::find(root, "home/a.plist".as_ref(), true).expect("found");
        fs::rename(root.join("home"), root.join("moved")).expect("moved");
        symlink("etc", root.join("home")).expect("made");
        replace(&found.expect("a place"), b"list").expect("written");
        assert_eq!(
            fs::read(root.join("moved/a.plist")).expect("there"),
            b"list"
        );
        assert!(!root.join("etc/a.plist").exists());
    }
}
