//! Collections: groups of devices that an administrator names.

use std::fmt;
use std::str::FromStr;

/// The name of a collection: 1 to 127 characters without control characters, and without white
/// space at its ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CollectionName(String);

/// What was given is not a collection's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a collection's name has 1 to 127 characters, none of them a control character")]
pub struct InvalidCollectionName;

impl CollectionName {
    const MOST: usize = 127;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CollectionName {
    type Err = InvalidCollectionName;

    fn from_str(given: &str) -> Result<Self, InvalidCollectionName> {
        // Before trimming: a tab or a line's end is a control character wherever it stands.
        if given.chars().any(char::is_control) {
            return Err(InvalidCollectionName);
        }
        let name = given.trim();
        match name.chars().take(Self::MOST + 1).count() {
            1..=Self::MOST => Ok(Self(name.to_owned())),
            _ => Err(InvalidCollectionName),
        }
    }
}

crate::serde_as_text!(CollectionName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_length_and_nothing_hidden() {
        for good in ["a", " Labs / north ", &"ü".repeat(127), "' or 1=1 --"] {
            assert_eq!(
                good.parse::<CollectionName>().expect(good).as_str(),
                good.trim()
            );
        }
        for bad in [
            "",
            "   ",
            &"a".repeat(128),
            "a\u{1b}[31m",
            "a\nb",
            "a\0",
            "a\n",
        ] {
            assert_eq!(
                bad.parse::<CollectionName>(),
                Err(InvalidCollectionName),
                "{bad:?}"
            );
        }
    }
}
