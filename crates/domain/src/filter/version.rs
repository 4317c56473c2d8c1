//! Versions as operating systems and agents have them: numbers with points between them.

use std::fmt;
use std::str::FromStr;

/// Numbers with points between them. Zeros at the end do not count: `14.0` is `14`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(Vec<u64>);

/// What was given is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version: write numbers with points between them, such as 14.4.1")]
pub struct InvalidVersion(String);

impl Version {
    /// Numbers of a version that are looked at.
    const MOST: usize = 8;

    /// The first version in a text that a computer wrote for people: 12 in `Debian GNU/Linux 12
    /// (bookworm)`. None in `Arch Linux`.
    pub fn find(text: &str) -> Option<Self> {
        let mut before = None;
        let start = text.char_indices().find_map(|(at, c)| {
            let begins = c.is_ascii_digit()
                && !before.is_some_and(|c: char| c.is_alphanumeric() || c == '_');
            before = Some(c);
            begins.then_some(at)
        })?;
        let rest = &text[start..];
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        rest[..end].trim_end_matches('.').parse().ok()
    }

    /// A text whose order by bytes is the order of versions, for databases: for each number a letter
    /// that counts its digits, then the digits. `14.4` is `b14a4`.
    pub fn sort_key(&self) -> String {
        let mut key = String::new();
        for number in &self.0 {
            let digits = number.to_string();
            // No more than the 20 digits of a u64.
            key.push(char::from(b'a' + (digits.len() - 1) as u8));
            key.push_str(&digits);
        }
        key
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(given: &str) -> Result<Self, InvalidVersion> {
        let invalid = || InvalidVersion(given.chars().take(40).collect());
        let mut numbers = Vec::new();
        for part in given.split('.') {
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(invalid());
            }
            numbers.push(part.parse().map_err(|_| invalid())?);
        }
        if numbers.len() > Self::MOST {
            return Err(invalid());
        }
        while numbers.len() > 1 && numbers.last() == Some(&0) {
            numbers.pop();
        }
        Ok(Self(numbers))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, number) in self.0.iter().enumerate() {
            let point = if at == 0 { "" } else { "." };
            write!(f, "{point}{number}")?;
        }
        Ok(())
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
            ("14.0", Some("14")),
            ("Debian GNU/Linux 12 (bookworm)", Some("12")),
            ("Ubuntu 22.04.3 LTS", Some("22.4.3")),
            ("openSUSE Leap 15.5", Some("15.5")),
            ("x86_64 build 7", Some("7")),
            ("Version 3.", Some("3")),
            ("0.0", Some("0")),
            ("Arch Linux", None),
            ("", None),
            ("99999999999999999999999", None),
        ] {
            let version = Version::find(text).map(|version| version.to_string());
            assert_eq!(version.as_deref(), found, "{text}");
        }
        for bad in ["", "1.", ".1", "1..2", "1.2a", "-1", "1.2.3.4.5.6.7.8.9"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
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
