//! Preference settings: a key of a property list, read as text and written with the right type. A
//! domain is a list of the whole machine (`/Library/Preferences`); a path is any list.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use domain::Timestamp;
use domain::compliance::{ApplicationId, Condition, KeyPath, Reading, TypedValue};
use plist::{Dictionary, Value};

use crate::files;
use crate::platform::Layout;
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
            let list = read(&self.file()).map_err(|error| error.to_string())?;
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
        let file = self.file();
        let (mut list, format) = read(&file)?.unwrap_or((Dictionary::new(), Format::Xml));
        insert(&mut list, keys, value)?;
        let bytes = property_list::encode(&list.into(), format).map_err(io::Error::other)?;
        replace(&file, &bytes).map_err(|error| files::named(&file, &error))
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
fn read(file: &Path) -> io::Result<Option<(Dictionary, Format)>> {
    let named = |error: io::Error| files::named(file, &error);
    let handle = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(named)?,
    };
    if !handle.metadata().map_err(named)?.is_file() {
        return Err(named(io::Error::other("it is no file")));
    }
    let mut bytes = Vec::new();
    handle
        .take(property_list::MOST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(named)?;
    match property_list::decode(&bytes) {
        Ok(Value::Dictionary(list)) => Ok(Some((list, Format::of(&bytes)))),
        Ok(_) => Err(named(io::Error::other("it holds no dictionary"))),
        Err(error) => Err(named(io::Error::other(error))),
    }
}

/// Replaces a list in one step; it keeps its owner and its mode. The folder may be a user's own: a
/// name that nobody can guess is no link that somebody put there.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut part = tempfile::NamedTempFile::new_in(folder)?;
    part.write_all(bytes)?;
    let mode = match fs::metadata(file) {
        Ok(present) => {
            let own = part.as_file().metadata()?;
            if (own.uid(), own.gid()) != (present.uid(), present.gid()) {
                fchown(part.as_file(), Some(present.uid()), Some(present.gid()))?;
            }
            present.permissions().mode() & 0o7777
        }
        Err(_) => MODE,
    };
    part.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    part.as_file().sync_all()?;
    part.persist(file).map_err(|error| error.error)?;
    files::sync_folder(folder)
}

#[cfg(test)]
mod tests {
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
            let (list, now) = read(&file).expect("reads").expect("is there");
            assert_eq!(now, format);
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
}
