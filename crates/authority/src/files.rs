//! Files that hold keys: written once, durably, readable by their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {file}: {reason}")]
    Read { file: String, reason: io::Error },
    #[error("cannot write {file}: {reason}")]
    Write { file: String, reason: io::Error },
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
    write(file, bytes, 0o600).map_err(|reason| not_written(file, reason))
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
    let written = match fs::symlink_metadata(file) {
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
        Err(_) => write(file, bytes, mode),
    };
    written.map_err(|reason| not_written(file, reason))
}

/// It is there whole or not at all, also after a power cut: who finds half of a key or of a
/// configuration could not go on.
fn write(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    match fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut handle = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&part)?;
    handle.write_all(bytes)?;
    handle.sync_all()?;
    rename(&part, file)
}

/// Makes a folder and those above it, 0700, durable on return.
///
/// # Errors
/// When one of them cannot be made.
pub fn make_folder(folder: &Path) -> Result<(), FileError> {
    let make = || {
        if folder.is_dir() {
            // Whoever made it may have ended before this. Who made one that is not ours has done it.
            return match sync_folder(above(folder)) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
                done => done,
            };
        }
        fs::DirBuilder::new().mode(0o700).create(folder)?;
        sync_folder(above(folder))
    };
    if !above(folder).is_dir() {
        make_folder(above(folder))?;
    }
    make().map_err(|reason| not_written(folder, reason))
}

/// Moves what has no other name yet to its place in the same folder, durable on return.
///
/// # Errors
/// When it cannot be moved.
pub fn put_in_place(from: &Path, to: &Path) -> Result<(), FileError> {
    rename(from, to).map_err(|reason| not_written(to, reason))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(above(to))
}

/// Names are as durable as the folder that they are in.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

fn not_written(file: &Path, reason: io::Error) -> FileError {
    FileError::Write {
        file: file.display().to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_and_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.key");
        // Whoever was killed left a part.
        fs::write(folder.path().join("a.key.part"), "half of a k").expect("written");
        write_secret(&file, b"a key").expect("written");
        assert_eq!(*read_secret(&file).expect("read"), b"a key");
        assert!(write_secret(&file, b"another").is_err());
        assert_eq!(*read_secret(&file).expect("read"), b"a key");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn folders_are_made_for_their_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("a/b");
        make_folder(&inner).expect("made");
        make_folder(&inner).expect("there already");
        for made in [folder.path().join("a"), inner] {
            let mode = fs::metadata(made).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }
}
