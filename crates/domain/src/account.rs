//! The name that a person types to log in.

use std::fmt;
use std::str::FromStr;

/// A user name in one of the three forms that the incumbent's users know: `name`, `DOMAIN\name` and
/// `name@domain`. The directory decides what a domain means; local accounts have none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserName {
    name: String,
    domain: Option<String>,
}

/// What was typed is not a user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserName {
    #[error("the user name is empty")]
    Empty,
    #[error("the user name is longer than {} characters", UserName::MAX_CHARS)]
    TooLong,
    #[error("the user name contains a control character or a colon")]
    Character,
}

impl UserName {
    /// Longer than any directory's limit (Active Directory: 256 for a principal name).
    pub const MAX_CHARS: usize = 320;

    /// The name without its domain.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }
}

impl FromStr for UserName {
    type Err = InvalidUserName;

    fn from_str(given: &str) -> Result<Self, InvalidUserName> {
        let given = given.trim();
        if given.chars().count() > Self::MAX_CHARS {
            return Err(InvalidUserName::TooLong);
        }
        // HTTP Basic cannot carry a colon in a user name (RFC 7617 section 2).
        if given.chars().any(|c| c.is_control() || c == ':') {
            return Err(InvalidUserName::Character);
        }
        let (domain, name) = if let Some((domain, name)) = given.split_once('\\') {
            (Some(domain), name)
        } else if let Some((name, domain)) = given.rsplit_once('@') {
            (Some(domain), name)
        } else {
            (None, given)
        };
        if name.is_empty() || domain.is_some_and(str::is_empty) {
            return Err(InvalidUserName::Empty);
        }
        Ok(Self {
            name: name.to_owned(),
            domain: domain.map(str::to_owned),
        })
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.domain {
            Some(domain) => write!(f, "{}@{domain}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms() {
        let rows = [
            ("ann", "ann", None),
            ("CORP\\ann", "ann", Some("CORP")),
            ("ann@corp.example", "ann", Some("corp.example")),
            ("o'hara <x> \"+=,", "o'hara <x> \"+=,", None),
            ("a@b@corp", "a@b", Some("corp")),
        ];
        for (given, name, domain) in rows {
            let user: UserName = given.parse().expect(given);
            assert_eq!((user.name(), user.domain()), (name, domain), "{given}");
        }
    }

    #[test]
    fn what_is_refused() {
        for given in ["", "  ", "CORP\\", "\\ann", "@corp", "ann@", "a:b", "a\nb"] {
            assert!(given.parse::<UserName>().is_err(), "{given:?}");
        }
        assert!("x".repeat(400).parse::<UserName>().is_err());
    }
}
