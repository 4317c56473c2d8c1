//! Files that must not be lost: written aside, flushed, and put in place in one step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

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
        handle.write_all(content)?;
        handle.sync_all()?;
        fs::rename(&part, file)?;
        sync_folder(folder)
    };
    write().map_err(|error| named(file, &error))
}

/// Makes a folder and those above it, with `mode` for those that are new.
pub fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(|error| named(folder, &error))
}

pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// An error that names its file.
pub fn named(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}
