//! Reads what a person types as a property list: the old style of NeXT (`{ a = (1, 2); }`), or a
//! piece of XML. Depth and size are bounded, and no input panics.
//!
//! The grammar is the one of Apple's documentation "Old-Style ASCII Property Lists" and of
//! CoreFoundation's published source: strings stand bare when they consist of letters, digits and
//! `_ $ / : . -`, or in single or double quotation marks with C's escapes and `\Uxxxx`; data is
//! `<0fbd77 1c>`; a dictionary's entry ends with a semicolon; the comma after the last element is
//! optional; comments are C's. Numbers, dates and booleans are strings: the old style has no others.
//! `key;` stands for `key = key;`, and entries without braces are a dictionary, as in strings files.
//!
//! Octal escapes above 177 are refused: they mean characters of NeXT's own encoding.

use plist::{Dictionary, Value};

use crate::property_list::{self, DEEPEST};

/// Characters that need no quotation marks when they are read. (Fewer are written without.)
fn stands_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '/' | ':' | '.' | '-')
}

/// The value that `text` describes.
pub fn parse(text: &str) -> Option<Value> {
    if text.len() > property_list::MOST_BYTES {
        return None;
    }
    if is_xml(text) {
        return parse_xml(text);
    }
    let mut parser = Parser { rest: text };
    parser.skip_blank()?;
    let begins_with_string = parser.peek() != Some('<');
    let first = parser.value(0)?;
    parser.skip_blank()?;
    match first {
        first if parser.rest.is_empty() => Some(first),
        Value::String(_) if begins_with_string => {
            let mut parser = Parser { rest: text };
            let entries = parser.entries(0, None)?;
            Some(Value::Dictionary(entries))
        }
        _ => None,
    }
}

/// Data begins with `<` too, but no name of an element consists of hexadecimal digits alone.
fn is_xml(text: &str) -> bool {
    let Some(inside) = text.trim_start().strip_prefix('<') else {
        return false;
    };
    let name: &str = inside
        .split(|c: char| !c.is_ascii_alphanumeric())
        .next()
        .unwrap_or_default();
    inside.starts_with(['?', '!']) || name.contains(|c: char| !c.is_ascii_hexdigit())
}

/// A whole XML list, or one element of it.
fn parse_xml(text: &str) -> Option<Value> {
    let whole = ["<?", "<!", "<plist"]
        .iter()
        .any(|start| text.trim_start().starts_with(start));
    if whole {
        return property_list::decode(text.trim_start().as_bytes()).ok();
    }
    let wrapped = format!("<plist version=\"1.0\">{text}</plist>");
    property_list::decode(wrapped.as_bytes()).ok()
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Goes past `c`, if it is next.
    fn take(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// White space and comments. None when a comment has no end.
    fn skip_blank(&mut self) -> Option<()> {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(comment) = self.rest.strip_prefix("//") {
                self.rest = comment
                    .find(['\n', '\r', '\u{2028}', '\u{2029}'])
                    .map_or("", |end| &comment[end..]);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = &comment[comment.find("*/")? + 2..];
            } else {
                return Some(());
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth >= DEEPEST {
            return None;
        }
        match self.peek()? {
            '{' => {
                self.next();
                Some(Value::Dictionary(self.entries(depth, Some('}'))?))
            }
            '(' => {
                self.next();
                Some(Value::Array(self.elements(depth)?))
            }
            '<' => {
                self.next();
                Some(Value::Data(self.data()?))
            }
            _ => Some(Value::String(self.string()?)),
        }
    }

    /// The entries of a dictionary, to `end` or to the end of the text.
    fn entries(&mut self, depth: usize, end: Option<char>) -> Option<Dictionary> {
        let mut entries = Dictionary::new();
        loop {
            self.skip_blank()?;
            match end {
                Some(end) if self.take(end) => return Some(entries),
                None if self.rest.is_empty() => return Some(entries),
                _ => {}
            }
            let key = self.string()?;
            self.skip_blank()?;
            let value = if self.take('=') {
                self.skip_blank()?;
                self.value(depth + 1)?
            } else {
                Value::String(key.clone())
            };
            self.skip_blank()?;
            if !self.take(';') {
                return None;
            }
            entries.insert(key, value);
        }
    }

    fn elements(&mut self, depth: usize) -> Option<Vec<Value>> {
        let mut elements = Vec::new();
        loop {
            self.skip_blank()?;
            if self.take(')') {
                return Some(elements);
            }
            elements.push(self.value(depth + 1)?);
            self.skip_blank()?;
            if !self.take(',') {
                return self.take(')').then_some(elements);
            }
        }
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        let (digits, rest) = self.rest.split_once('>')?;
        self.rest = rest;
        let digits: String = digits.split_whitespace().collect();
        data_encoding::HEXLOWER_PERMISSIVE
            .decode(digits.as_bytes())
            .ok()
    }

    fn string(&mut self) -> Option<String> {
        match self.peek()? {
            quote @ ('"' | '\'') => {
                self.next();
                self.quoted(quote)
            }
            _ => {
                let end = self.rest.find(|c| !stands_bare(c));
                let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                self.rest = rest;
                (!word.is_empty()).then(|| word.to_owned())
            }
        }
    }

    /// The rest of a string in quotation marks. `\U` writes one unit of UTF-16: two of them can be one
    /// character.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut units = Vec::new();
        loop {
            let c = match self.next()? {
                c if c == quote => return String::from_utf16(&units).ok(),
                '\\' => match self.next()? {
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\u{b}',
                    'U' => {
                        units.push(self.number(16, 4)?);
                        continue;
                    }
                    digit @ '0'..='7' => {
                        let first = u16::try_from(digit.to_digit(8)?).ok()?;
                        let more = self.digits(8, 2);
                        let code = more
                            .chars()
                            .filter_map(|digit| digit.to_digit(8))
                            .fold(u32::from(first), |code, digit| code * 8 + digit);
                        char::from_u32(code).filter(char::is_ascii)?
                    }
                    other => other,
                },
                c => c,
            };
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
    }

    fn number(&mut self, radix: u32, most: usize) -> Option<u16> {
        u16::from_str_radix(self.digits(radix, most), radix).ok()
    }

    /// Up to `most` digits.
    fn digits(&mut self, radix: u32, most: usize) -> &str {
        let count = self
            .rest
            .chars()
            .take(most)
            .take_while(|c| c.is_digit(radix))
            .count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        digits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::description::description;
    use super::*;

    fn dictionary(entries: &[(&str, Value)]) -> Value {
        let entries = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()));
        Value::Dictionary(entries.collect())
    }

    #[test]
    fn what_a_person_types() {
        let list = |items: &[&str]| Value::Array(items.iter().map(|item| (*item).into()).collect());
        for (text, expected) in [
            ("plain", "plain".into()),
            ("a_b$c/d:e.f-9", "a_b$c/d:e.f-9".into()),
            ("\"two words\"", "two words".into()),
            ("'single \"quoted\"'", "single \"quoted\"".into()),
            (
                r#""\U00fc \Ud83d\Ude00 \"\\\n\t\101\q""#,
                "ü 😀 \"\\\n\tAq".into(),
            ),
            ("(a, b, )", list(&["a", "b"])),
            ("( a , \"b c\" )", list(&["a", "b c"])),
            ("()", list(&[])),
            ("{}", dictionary(&[])),
            (
                "{ a = 1; \"b c\" = (x); }",
                dictionary(&[("a", "1".into()), ("b c", list(&["x"]))]),
            ),
            ("{ a; }", dictionary(&[("a", "a".into())])),
            (
                "a = b; c = \"d\";",
                dictionary(&[("a", "b".into()), ("c", "d".into())]),
            ),
            ("/* why */ ( a, // because\n b )", list(&["a", "b"])),
            (
                "<0fbd77 1c27 35ae>",
                Value::Data(vec![0x0f, 0xbd, 0x77, 0x1c, 0x27, 0x35, 0xae]),
            ),
            ("<>", Value::Data(vec![])),
            ("<integer>5</integer>", 5.into()),
            (
                "<dict><key>a</key><true/></dict>",
                dictionary(&[("a", true.into())]),
            ),
            (
                "<?xml version=\"1.0\"?><plist><string>x</string></plist>",
                "x".into(),
            ),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_property_list() {
        for text in [
            "",
            " ",
            "(",
            ")",
            "(a",
            "(a b)",
            "(,)",
            "{",
            "}",
            "{a}",
            "{a = b}",
            "{a = b; ",
            "{= b;}",
            "{a b;}",
            "{(a) = b;}",
            "\"open",
            "'open",
            "\"a\" b",
            "a = b",
            "<abc>",
            "<xy>",
            "<0f",
            "/* open",
            "<dict>",
            "<string>a</string> b",
            "\"\\Ud83d\"",
            "\"\\U\"",
            "\"\\377\"",
            "[a]",
            "{} {}",
            "ü",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn deep_and_long_texts_are_refused() {
        for (open, close) in [("(", ")"), ("{a=", ";}"), ("<array>", "</array>")] {
            let nested = |depth: usize| format!("{}x{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(parse(&nested(100_000)), None);
            assert_eq!(parse(&open.repeat(100_000)), None);
        }
        assert!(parse(&format!("{}{}", "(".repeat(50), ")".repeat(50))).is_some());
        assert_eq!(parse(&"a".repeat(property_list::MOST_BYTES + 1)), None);
    }

    /// Strings, and arrays and dictionaries of them.
    fn values() -> impl Strategy<Value = Value> {
        let text = any::<String>().prop_map(Value::String);
        text.prop_recursive(5, 40, 6, |inner| {
            let entries = prop::collection::vec((any::<String>(), inner.clone()), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Value::Array),
                entries.prop_map(|entries| Value::Dictionary(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_read_prints_can_be_typed_again(value in values()) {
            // At the top a string is printed as it is; anywhere else it can be read again.
            let value = Value::Array(vec![value]);
            let mut again = parse(&description(&value)).expect("a property list");
            let mut value = value;
            sort(&mut again);
            sort(&mut value);
            prop_assert_eq!(again, value);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), list in "[\\\\(){}<>=;,\"'/* aU0-9\n]{0,40}") {
            let _ = parse(&text);
            let _ = parse(&list);
        }
    }

    fn sort(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(sort),
            Value::Dictionary(entries) => {
                entries.sort_keys();
                entries.iter_mut().for_each(|(_, value)| sort(value));
            }
            _ => {}
        }
    }
}
