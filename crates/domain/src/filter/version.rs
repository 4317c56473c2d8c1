//! Versions as computers report them, and as databases compare them.

use crate::compliance::Version;

impl Version {
    /// The first version in a text that a computer wrote for people: 12 in `Debian GNU/Linux 12
    /// (bookworm)`. None in `Arch Linux`.
    pub fn find(text: &str) -> Option<Self> {
        let mut before = None;
        let start = text.char_indices().find_map(|(at, c)| {
            let inside = before.is_some_and(|c: char| c.is_alphanumeric() || c == '_');
            before = Some(c);
            (c.is_ascii_digit() && !inside).then_some(at)
        })?;
        let rest = &text[start..];
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        rest[..end].trim_end_matches('.').parse().ok()
    }

    /// A text whose order by bytes is the order of versions: for each number a letter that counts its
    /// digits, then the digits. `14.4` is `b14a4`.
    pub fn sort_key(&self) -> String {
        let mut key = String::new();
        for number in self.parts() {
            let digits = number.to_string();
            let letters = b'a'..=b'z';
            // A number has 20 digits at most.
            key.extend(letters.map(char::from).nth(digits.len() - 1));
            key.push_str(&digits);
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_found_in_what_computers_write() {
        for (text, found) in [
            ("14.4.1", Some("14.4.1")),
            ("14.0", Some("14.0")),
            ("Debian GNU/Linux 12 (bookworm)", Some("12")),
            ("Ubuntu 22.04.3 LTS", Some("22.4.3")),
            ("openSUSE Leap 15.5", Some("15.5")),
            ("x86_64 build 7", Some("7")),
            ("Version 3.", Some("3")),
            ("0.0", Some("0.0")),
            ("Arch Linux", None),
            ("", None),
            ("99999999999999999999999", None),
        ] {
            let version = Version::find(text).map(|version| version.to_string());
            assert_eq!(version.as_deref(), found, "{text}");
        }
    }

    proptest! {
        #[test]
        fn sort_keys_have_the_order_of_versions(
            a in prop::collection::vec(prop_oneof![0_u64..12, any::<u64>()], 1..5),
            b in prop::collection::vec(prop_oneof![0_u64..12, any::<u64>()], 1..5),
        ) {
            let text = |numbers: Vec<u64>| {
                numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
            };
            let a: Version = text(a).parse().expect("a version");
            let b: Version = text(b).parse().expect("a version");
            prop_assert_eq!(a.sort_key().cmp(&b.sort_key()), a.cmp(&b));
        }
    }
}
