//! One window at a time in a session: a lock on a file, which the system lets go when the program ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Held as long as the window is open.
pub struct Instance {
    _lock: File,
}

impl Instance {
    /// None when another one is open.
    pub fn take() -> io::Result<Option<Self>> {
        Self::take_in(&folder())
    }

    fn take_in(folder: &Path) -> io::Result<Option<Self>> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("perennial-wizard.lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _lock: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Of the session, and of this user alone. (On a Mac the temporary folder is the user's own.)
fn folder() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    match runtime {
        Some(folder) => PathBuf::from(folder),
        None if cfg!(target_os = "macos") => std::env::temp_dir(),
        None => std::env::home_dir().unwrap_or_else(std::env::temp_dir),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_finds_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Instance::take_in(folder.path()).expect("a lock");
        assert!(first.is_some());
        let second = Instance::take_in(folder.path()).expect("a lock");
        assert!(second.is_none());
        drop(first);
        let third = Instance::take_in(folder.path()).expect("a lock");
        assert!(third.is_some());
    }
}
