//! Names that administrators give to things.

/// A name: 1 to 127 characters without control characters, and without white space at its ends.
macro_rules! names {
    ($($(#[$meta:meta])* $name:ident = $what:literal),* $(,)?) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::name::InvalidName;

            fn from_str(given: &str) -> Result<Self, Self::Err> {
                $crate::name::checked(given, $what).map(Self)
            }
        }

        crate::serde_as_text!($name);
    )*};
}
pub(crate) use names;

/// What was given is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} has 1 to 127 characters, none of them a control character")]
pub struct InvalidName(&'static str);

const MOST: usize = 127;

pub(crate) fn checked(given: &str, what: &'static str) -> Result<String, InvalidName> {
    // Before trimming: a tab or a line's end is a control character wherever it stands.
    if given.chars().any(char::is_control) {
        return Err(InvalidName(what));
    }
    let name = given.trim();
    match name.chars().take(MOST + 1).count() {
        1..=MOST => Ok(name.to_owned()),
        _ => Err(InvalidName(what)),
    }
}
