//! A password while it is typed: in one place that never moves, overwritten when it is handed over.

use std::any::TypeId;
use std::ops::Range;

use egui::TextBuffer;
use egui::text::CharIndex;
use zeroize::{Zeroize, Zeroizing};

/// In bytes: more is not typed, and the memory is never moved.
const ROOM: usize = 4 * 1024;

pub struct Secret(Zeroizing<String>);

impl Default for Secret {
    fn default() -> Self {
        Self(Zeroizing::new(String::with_capacity(ROOM)))
    }
}

impl Secret {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands it over, and keeps nothing.
    pub fn take_out(&mut self) -> String {
        let taken = self.0.as_str().to_owned();
        self.forget();
        taken
    }

    pub fn forget(&mut self) {
        // Overwrites, and empties.
        self.0.zeroize();
    }
}

impl TextBuffer for Secret {
    fn is_mutable(&self) -> bool {
        true
    }

    fn as_str(&self) -> &str {
        &self.0
    }

    fn insert_text(&mut self, text: &str, char_index: CharIndex) -> usize {
        if self.0.len() + text.len() > ROOM {
            return 0;
        }
        <String as TextBuffer>::insert_text(&mut self.0, text, char_index)
    }

    fn delete_char_range(&mut self, char_range: Range<CharIndex>) {
        <String as TextBuffer>::delete_char_range(&mut self.0, char_range);
    }

    fn type_id(&self) -> TypeId {
        TypeId::of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_is_kept_nowhere() {
        let mut secret = Secret::default();
        let index = CharIndex::default();
        assert_eq!(secret.insert_text("hunter2", index), 7);
        let place = secret.0.as_ptr();
        assert_eq!(secret.take_out(), "hunter2");
        assert!(secret.is_empty());
        assert_eq!(secret.insert_text("other", index), 5);
        assert_eq!(secret.0.as_ptr(), place, "it never moves");
    }

    #[test]
    fn it_never_grows() {
        let mut secret = Secret::default();
        let long = "x".repeat(ROOM + 1);
        assert_eq!(secret.insert_text(&long, CharIndex::default()), 0);
        assert!(secret.is_empty());
    }
}
