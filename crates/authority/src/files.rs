//! Files that hold keys: written once, readable by their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {file}: {reason}")]
    Read {
        file: String,
        reason: std::io::Error,
    },
    #[error("cannot write {file}: {reason}")]
    Write {
        file: String,
        reason: std::io::Error,
    },
    #[error("{file} can be read by others (mode {mode:o}); run: chmod 600 {file}")]
    Exposed { file: String, mode: u32 },
}

pub(crate) fn read(file: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(file).map_err(|reason| FileError::Read {
        file: file.display().to_string(),
        reason,
    })
}

/// Reads a secret.
///
/// # Errors
/// When it cannot be read, or when others than its owner can read it too.
pub fn read_secret(file: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let name = || file.display().to_string();
    let failed = |reason| FileError::Read {
        file: name(),
        reason,
    };
    let mut handle = File::open(file).map_err(failed)?;
    let mode = handle.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { file: name(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    handle.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Puts a secret in the place of another one, at once and durably: a crash leaves one of them.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn replace_secret(file: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |reason| FileError::Write {
        file: file.display().to_string(),
        reason,
    };
    let new = file.with_extension("new");
    // What a crash left was never used.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    write_secret(&new, bytes)?;
    fs::rename(&new, file).map_err(failed)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

/// Writes a new secret, 0600, durable on return.
///
/// # Errors
/// When the file is there already or cannot be written.
pub fn write_secret(file: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_new(file, bytes, 0o600)
}

/// Writes a new file that everybody may read, durable on return.
///
/// # Errors
/// When the file is there already or cannot be written.
pub fn write_public(file: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_new(file, bytes, 0o644)
}

fn write_new(file: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let write = || {
        let mut handle = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(file)?;
        handle.write_all(bytes)?;
        handle.sync_all()?;
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|reason| FileError::Write {
        file: file.display().to_string(),
        reason,
    })
}
