//! Files that must not be lost: written aside, flushed, and put in place in one step. Everything
//! that the agent has to find again after a power cut goes through here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use domain::fault::step;

use crate::journal::journal;

/// Replaces `file` atomically and durably. A reader sees the old content or the new one, also after
/// a power cut.
pub fn replace(file: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // Two programs that write at once do not write into each other's file.
    let part = folder.join(format!(".{name}.{}.part", std::process::id()));
    let write = || {
        let mut handle = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&part)?;
        step("opened");
        handle.write_all(content)?;
        journal("write", &part, content);
        step("written");
        handle.sync_all()?;
        journal("sync", &part, b"");
        rename(&part, file)?;
        sync_folder(folder)
    };
    write().map_err(|error| named(file, &error))
}

/// Makes a folder and those above it, with `mode` for those that are new. It is durable on return, also
/// when it was there.
pub fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    let above = folder.parent().unwrap_or(Path::new("/"));
    let make = || {
        if !folder.is_dir() {
            make_folder(above, mode)?;
            match fs::DirBuilder::new().mode(mode).create(folder) {
                // Another program was first.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    journal("folder", folder, b"");
                    step("folder-made");
                }
            }
        }
        // Whoever made it may have been killed before this. Those above were flushed before it was made.
        match sync_folder(above) {
            // The other users' folders are not ours to read, and not ours to make either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            done => done,
        }
    };
    make().map_err(|error: io::Error| named(folder, &error))
}

/// Makes a folder that nobody needs after a power cut, in one that is there.
pub fn make_passing_folder(folder: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(named(folder, &error)),
        Ok(()) => {
            journal("folder", folder, b"");
            Ok(())
        }
    }
}

/// Writes a file that nobody needs after a power cut: whole or not at all, for root alone.
pub fn write_passing(file: &Path, content: &[u8]) -> io::Result<()> {
    let part = file.with_extension("part");
    let write = || {
        let mut handle = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        handle.write_all(content)?;
        journal("write", &part, content);
        rename(&part, file)
    };
    write().map_err(|error| named(file, &error))
}

/// Moves a file or a folder. The folder above is not flushed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step("moving");
    fs::rename(from, to).map_err(|error| named(to, &error))?;
    journal("rename", from, to.as_os_str().as_encoded_bytes());
    step("moved");
    Ok(())
}

/// Makes a symbolic link. The folder above is not flushed.
pub fn link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link).map_err(|error| named(link, &error))?;
    journal("link", link, target.as_os_str().as_encoded_bytes());
    step("linked");
    Ok(())
}

/// Removes a file, or a folder with all that is in it, when it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    step("removing");
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(named(path, &error)),
        Ok(()) => {
            journal("remove", path, b"");
            step("removed");
            Ok(())
        }
    }
}

pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    journal("sync-folder", folder, b"");
    step("folder-flushed");
    Ok(())
}

/// An error that names its file.
pub fn named(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}
