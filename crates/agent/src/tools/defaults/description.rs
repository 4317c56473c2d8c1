//! How Apple's tool prints values: what Foundation calls their description, the old property list
//! style in Foundation's own layout.
//!
//! Seen in published output of Macs (logs and dumps in public repositories): a container inside of a
//! container begins with the indentation of its own level, also behind `key = `; keys are sorted;
//! only letters and digits stand bare, so that `a_b`, `-1` and `0.5` have quotation marks; everything
//! beyond ASCII is `\Uxxxx` in units of UTF-16; data of more than 24 bytes is cut in its middle. At
//! the top, a text, a number and a date stand as they are.
//!
//! Not published, so decided here: control characters without a letter of their own are `\Uxxxx` too.

use std::time::SystemTime;

use domain::Timestamp;
use plist::{Date, Dictionary, Value};

/// What `read` prints for a value.
pub fn description(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Dictionary(_) | Value::Array(_) => element(value, 0),
        scalar => bare(scalar),
    }
}

/// A value inside of another one. Containers begin and end with their indentation.
fn element(value: &Value, level: usize) -> String {
    let indent = "    ".repeat(level);
    match value {
        Value::Dictionary(entries) => {
            format!("{indent}{{\n{}{indent}}}", lines(entries, level + 1))
        }
        Value::Array(items) => {
            let inner = "    ".repeat(level + 1);
            let items: Vec<_> = items
                .iter()
                .map(|item| format!("{inner}{}", element(item, level + 1)))
                .collect();
            let end = if items.is_empty() { "" } else { "\n" };
            format!("{indent}(\n{}{end}{indent})", items.join(",\n"))
        }
        Value::Data(_) => bare(value),
        scalar => quoted(&bare(scalar)),
    }
}

fn lines(entries: &Dictionary, level: usize) -> String {
    let indent = "    ".repeat(level);
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
        .into_iter()
        .map(|(key, value)| format!("{indent}{} = {};\n", quoted(key), element(value, level)))
        .collect()
}

/// A scalar without quotation marks.
fn bare(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Boolean(on) => if *on { "1" } else { "0" }.to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => real(*number),
        Value::Date(date) => moment(*date),
        Value::Data(bytes) => data(bytes),
        Value::Uid(uid) => format!("<CFKeyedArchiverUID>{{value = {}}}", uid.get()),
        // The library's type may grow.
        _ => String::new(),
    }
}

/// As C's `%.17g` writes it, with the fewest digits that give the same number.
fn real(number: f64) -> String {
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-5..17).contains(&exponent) {
        return number.to_string().to_lowercase();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `2026-11-22 15:00:00 +0000`; fractions of a second are not shown.
fn moment(date: Date) -> String {
    let Ok(at) = Timestamp::try_from(SystemTime::from(date)) else {
        return String::new();
    };
    at.strftime("%Y-%m-%d %H:%M:%S +0000").to_string()
}

fn data(bytes: &[u8]) -> String {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let words = |bytes: &[u8]| bytes.chunks(4).map(hex).collect::<Vec<_>>().join(" ");
    let length = bytes.len();
    if length <= 24 {
        return format!("{{length = {length}, bytes = 0x{}}}", hex(bytes));
    }
    let (first, last) = (words(&bytes[..16]), words(&bytes[length - 8..]));
    format!("{{length = {length}, bytes = 0x{first} ... {last} }}")
}

fn quoted(text: &str) -> String {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric()) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\t' => quoted.push_str("\\t"),
            '\n' => quoted.push_str("\\n"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\r' => quoted.push_str("\\r"),
            ' '..='~' => quoted.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    quoted.push_str(&format!("\\U{unit:04x}"));
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionary(entries: Vec<(&str, Value)>) -> Value {
        let entries = entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        Value::Dictionary(entries.collect())
    }

    #[test]
    fn containers_begin_with_the_indentation_of_their_level() {
        let inner = dictionary(vec![("b", true.into())]);
        let outer = dictionary(vec![
            ("SMSID", "GUID:1".into()),
            (
                "list",
                Value::Array(vec![(-1).into(), inner.clone(), Value::Array(vec![])]),
            ),
            ("deep", inner),
            ("none", dictionary(vec![])),
        ]);
        let expected = r#"{
    SMSID = "GUID:1";
    deep =     {
        b = 1;
    };
    list =     (
        "-1",
                {
            b = 1;
        },
                (
        )
    );
    none =     {
    };
}"#;
        assert_eq!(description(&outer), expected);
    }

    #[test]
    fn scalars_at_the_top_and_inside() {
        let date = |text| Value::Date(Date::from_xml_format(text).expect("a date"));
        for (value, top, inside) in [
            ("a b".into(), "a b", "\"a b\""),
            ("abc9".into(), "abc9", "abc9"),
            ("".into(), "", "\"\""),
            ("a_b".into(), "a_b", "\"a_b\""),
            ("ü😀".into(), "ü😀", r#""\U00fc\Ud83d\Ude00""#),
            (
                "\"\\\n\t\u{1}".into(),
                "\"\\\n\t\u{1}",
                r#""\"\\\n\t\U0001""#,
            ),
            (5.into(), "5", "5"),
            ((-5).into(), "-5", "\"-5\""),
            (0.5.into(), "0.5", "\"0.5\""),
            (1.0.into(), "1", "1"),
            (1e20.into(), "1e+20", "\"1e+20\""),
            (1.5e-7.into(), "1.5e-07", "\"1.5e-07\""),
            (true.into(), "1", "1"),
            (false.into(), "0", "0"),
            (
                date("2026-11-22T15:00:00.5Z"),
                "2026-11-22 15:00:00 +0000",
                "\"2026-11-22 15:00:00 +0000\"",
            ),
        ] {
            assert_eq!(description(&value), top);
            assert_eq!(element(&value, 0), inside);
        }
    }

    #[test]
    fn long_data_is_cut_in_its_middle() {
        let bytes: Vec<u8> = (0..32).collect();
        for (length, expected) in [
            (0, "{length = 0, bytes = 0x}"),
            (4, "{length = 4, bytes = 0x00010203}"),
            (
                24,
                "{length = 24, bytes = 0x000102030405060708090a0b0c0d0e0f1011121314151617}",
            ),
            (
                32,
                "{length = 32, bytes = 0x00010203 04050607 08090a0b 0c0d0e0f ... 18191a1b 1c1d1e1f }",
            ),
        ] {
            assert_eq!(
                description(&Value::Data(bytes[..length].to_vec())),
                expected
            );
        }
    }
}
