//! Property lists, XML and binary, within bounds. A list comes from a file that somebody else may
//! have written: a hostile one ends in an error, never in a full stack or a full memory.

use std::io::Cursor;
use std::time::SystemTime;

use domain::Timestamp;
use plist::Value;
use plist::stream::{BinaryReader, Event, OwnedEvent, XmlReader};

/// Larger lists are refused, when they are read and when they are written.
pub const MOST_BYTES: usize = 1 << 20;
/// Containers in containers. Values are dropped, compared and printed by recursion.
pub const DEEPEST: usize = 64;
/// A binary list can name one value many times: a small file can stand for endless values.
const MOST_VALUES: usize = 200_000;
/// The bytes of all texts and data together, for the same reason.
const MOST_CONTENT: usize = 4 * MOST_BYTES;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Xml,
    Binary,
}

impl Format {
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"bplist00") {
            Self::Binary
        } else {
            Self::Xml
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PropertyListError {
    #[error("it is larger than {MOST_BYTES} bytes")]
    TooLarge,
    #[error("it is nested deeper than {DEEPEST} levels")]
    TooDeep,
    #[error("it holds more than {MOST_VALUES} values, or too much text in them")]
    TooMuch,
    #[error("it holds a date outside of the years 0 to 9999")]
    Date,
    #[error("it is no XML or binary property list: {0}")]
    Broken(plist::Error),
    #[error("a value in it cannot be kept in a list of the format {0:?}")]
    NotKept(Format),
}

/// Reads a list of either format.
///
/// # Errors
/// When it is broken or goes beyond the bounds.
pub fn decode(bytes: &[u8]) -> Result<Value, PropertyListError> {
    if bytes.len() > MOST_BYTES {
        return Err(PropertyListError::TooLarge);
    }
    let mut bounds = Bounds::default();
    let built = match Format::of(bytes) {
        Format::Binary => Value::from_events(bounds.watch(BinaryReader::new(Cursor::new(bytes)))),
        Format::Xml => Value::from_events(bounds.watch(XmlReader::new(bytes))),
    };
    match bounds.exceeded {
        Some(error) => Err(error),
        None => built.map_err(PropertyListError::Broken),
    }
}

/// Writes a list, so that [`decode`] gives the same value again.
///
/// # Errors
/// When it would not: beyond the bounds, or for a value that the format has no words for (a control
/// character in XML).
pub fn encode(value: &Value, format: Format) -> Result<Vec<u8>, PropertyListError> {
    let mut bytes = Vec::new();
    match format {
        Format::Binary => value.to_writer_binary(&mut bytes),
        Format::Xml => value.to_writer_xml(&mut bytes),
    }
    .map_err(|_| PropertyListError::NotKept(format))?;
    if format == Format::Xml {
        bytes.push(b'\n');
        // This library would read them again; other programs would not read the list at all.
        if !String::from_utf8_lossy(&bytes)
            .chars()
            .all(is_xml_character)
        {
            return Err(PropertyListError::NotKept(format));
        }
    }
    match decode(&bytes) {
        Ok(again) if again == *value => Ok(bytes),
        Ok(_) | Err(PropertyListError::Broken(_)) => Err(PropertyListError::NotKept(format)),
        Err(beyond) => Err(beyond),
    }
}

/// XML 1.0, production 2.
fn is_xml_character(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        c => c >= ' ',
    }
}

/// What was seen so far of one list.
#[derive(Default)]
struct Bounds {
    depth: usize,
    values: usize,
    content: usize,
    exceeded: Option<PropertyListError>,
}

impl Bounds {
    /// Passes on events within the bounds, and ends the stream at the first one beyond them.
    fn watch<'a>(
        &'a mut self,
        events: impl Iterator<Item = Result<OwnedEvent, plist::Error>> + 'a,
    ) -> impl Iterator<Item = Result<OwnedEvent, plist::Error>> + 'a {
        events.map_while(|event| match event.map(|event| self.admit(event)) {
            Ok(Ok(event)) => Some(Ok(event)),
            Ok(Err(exceeded)) => {
                self.exceeded = Some(exceeded);
                None
            }
            Err(broken) => Some(Err(broken)),
        })
    }

    fn admit(&mut self, event: OwnedEvent) -> Result<OwnedEvent, PropertyListError> {
        self.values += 1;
        match &event {
            Event::StartArray(_) | Event::StartDictionary(_) => self.depth += 1,
            Event::EndCollection => self.depth = self.depth.saturating_sub(1),
            Event::String(text) => self.content += text.len(),
            Event::Data(data) => self.content += data.len(),
            Event::Date(date) => {
                // The library cannot write years before 0, and panics when it tries.
                let at = Timestamp::try_from(SystemTime::from(*date));
                let year_0 = -62_167_219_200;
                if !at.is_ok_and(|at| at.as_second() >= year_0) {
                    return Err(PropertyListError::Date);
                }
            }
            _ => {}
        }
        if self.depth > DEEPEST {
            return Err(PropertyListError::TooDeep);
        }
        if self.values > MOST_VALUES || self.content > MOST_CONTENT {
            return Err(PropertyListError::TooMuch);
        }
        Ok(match event {
            // A length is what the file claims: nothing is allocated for it in advance.
            Event::StartArray(_) => Event::StartArray(None),
            event => event,
        })
    }
}

#[cfg(test)]
pub mod testing {
    /// A binary list of `depth` arrays, each in the one before it.
    pub fn nested_binary(depth: usize) -> Vec<u8> {
        // Object i is an array with one element: object i + 1. The last one is empty.
        let mut bytes = b"bplist00".to_vec();
        let mut offsets = Vec::new();
        for object in 0..depth {
            offsets.push(bytes.len());
            if object + 1 == depth {
                bytes.push(0xa0);
            } else {
                bytes.push(0xa1);
                bytes.extend(u32::try_from(object + 1).unwrap().to_be_bytes());
            }
        }
        finished(bytes, &offsets)
    }

    /// A binary list in which each of `levels` arrays names the next one twice.
    pub fn doubling_binary(levels: u32) -> Vec<u8> {
        let mut bytes = b"bplist00".to_vec();
        let mut offsets = Vec::new();
        for object in 0..=levels {
            offsets.push(bytes.len());
            if object == levels {
                bytes.push(0xa0);
            } else {
                bytes.push(0xa2);
                bytes.extend((object + 1).to_be_bytes());
                bytes.extend((object + 1).to_be_bytes());
            }
        }
        finished(bytes, &offsets)
    }

    /// The table of offsets and the trailer.
    fn finished(mut bytes: Vec<u8>, offsets: &[usize]) -> Vec<u8> {
        let table = bytes.len();
        for offset in offsets {
            bytes.extend(u32::try_from(*offset).unwrap().to_be_bytes());
        }
        bytes.extend([0, 0, 0, 0, 0, 0, 4, 4]);
        bytes.extend((offsets.len() as u64).to_be_bytes());
        bytes.extend(0_u64.to_be_bytes());
        bytes.extend((table as u64).to_be_bytes());
        bytes
    }

    pub fn nested_xml(depth: usize) -> Vec<u8> {
        let open = "<array>".repeat(depth);
        let close = "</array>".repeat(depth);
        format!("<plist version=\"1.0\">{open}{close}</plist>").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use plist::Dictionary;
    use proptest::prelude::*;

    use super::testing::{doubling_binary, nested_binary, nested_xml};
    use super::*;

    fn of_every_type() -> Value {
        let mut list = Dictionary::new();
        list.insert("text".to_owned(), "ü <&>\n\ttwo lines ".into());
        list.insert("whole".to_owned(), (-5).into());
        list.insert("large".to_owned(), u64::MAX.into());
        list.insert("real".to_owned(), 0.25.into());
        list.insert("on".to_owned(), true.into());
        list.insert("data".to_owned(), Value::Data(vec![0, 255]));
        let date = plist::Date::from_xml_format("2026-11-22T15:00:00Z").unwrap();
        list.insert("date".to_owned(), date.into());
        list.insert("empty".to_owned(), Dictionary::new().into());
        list.insert("many".to_owned(), vec![1.into(), "a".into()].into());
        list.into()
    }

    #[test]
    fn both_formats_give_back_what_was_written() {
        for format in [Format::Xml, Format::Binary] {
            let bytes = encode(&of_every_type(), format).unwrap();
            assert_eq!(Format::of(&bytes), format);
            assert_eq!(decode(&bytes).unwrap(), of_every_type());
        }
    }

    #[test]
    fn what_a_format_cannot_hold_is_not_written() {
        for text in ["\u{0}", "a\u{1b}b", "\u{ffff}"] {
            let value = Value::String(text.to_owned());
            assert!(matches!(
                encode(&value, Format::Xml),
                Err(PropertyListError::NotKept(Format::Xml))
            ));
            assert!(encode(&value, Format::Binary).is_ok());
        }
        let uid = Value::Uid(plist::Uid::new(1));
        assert!(matches!(
            encode(&uid, Format::Xml),
            Err(PropertyListError::NotKept(_))
        ));
        assert!(encode(&uid, Format::Binary).is_ok());
        let large = Value::Data(vec![0; MOST_BYTES]);
        assert!(matches!(
            encode(&large, Format::Xml),
            Err(PropertyListError::TooLarge)
        ));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_full_stack() {
        for list in [
            nested_xml(DEEPEST + 1),
            nested_binary(DEEPEST + 1),
            nested_xml(69_000),
            nested_binary(110_000),
        ] {
            assert!(list.len() <= MOST_BYTES);
            let error = decode(&list).expect_err("too deep");
            assert!(matches!(error, PropertyListError::TooDeep), "{error}");
        }
        for list in [nested_xml(DEEPEST), nested_binary(DEEPEST)] {
            assert!(decode(&list).is_ok());
        }
        // Never closed.
        let open = format!("<plist>{}", "<array>".repeat(140_000));
        assert!(decode(open.as_bytes()).is_err());
    }

    #[test]
    fn a_small_file_that_stands_for_endless_values_is_an_error() {
        let error = decode(&doubling_binary(40)).expect_err("too much");
        assert!(matches!(error, PropertyListError::TooMuch), "{error}");
    }

    #[test]
    fn a_date_that_cannot_be_written_is_an_error() {
        for seconds in [-1e11_f64, 1e12, f64::NAN, f64::INFINITY] {
            let mut list = b"bplist00\x33".to_vec();
            list.extend(seconds.to_be_bytes());
            list.push(8);
            list.extend([0, 0, 0, 0, 0, 0, 1, 1]);
            for number in [1_u64, 0, 17] {
                list.extend(number.to_be_bytes());
            }
            assert!(decode(&list).is_err(), "{seconds}");
        }
    }

    #[test]
    fn other_files_are_errors() {
        for text in [
            "",
            "bplist00",
            "hello",
            "{ a = b; }",
            "<plist><dict><key>a",
            "\0\0",
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn damaged_binary_lists_never_panic(at in 0_usize..400, to in any::<u8>(), cut in 0_usize..60) {
            let mut bytes = encode(&of_every_type(), Format::Binary).unwrap();
            let length = bytes.len();
            bytes[at % length] = to;
            bytes.truncate(length - cut.min(length));
            if let Ok(value) = decode(&bytes) {
                let _ = encode(&value, Format::Xml);
            }
        }
    }
}
