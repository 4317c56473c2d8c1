//! Where a file is, when a part of the way there belongs to a user: root follows no link that somebody
//! else put there, and works on the folder that it opened, whatever is renamed meanwhile.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Links on a way, at most (path_resolution(7)).
const MOST_LINKS: usize = 40;
const FOLDER_MODE: u32 = 0o755;

/// A file's folder, opened, and its name there.
pub struct FilePlace {
    folder: OwnedFd,
    name: OsString,
}

impl FilePlace {
    /// The way to `path` below `root`. Missing folders are made where `make` says so. None when one is
    /// missing.
    ///
    /// # Errors
    /// When a link of somebody else than root is on the way.
    pub fn find(root: &Path, path: &Path, make: bool) -> io::Result<Option<Self>> {
        let root = File::open(root)?;
        let mut folder = root.as_fd().try_clone_to_owned()?;
        let mut rest: VecDeque<OsString> = parts(path).collect();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            let is_last = rest.is_empty();
            let found = look(&folder, &name);
            let (found, about) = match found {
                Err(Errno::NOENT) if is_last => return Ok(Some(Self { folder, name })),
                Err(Errno::NOENT) if make => {
                    mkdirat(&folder, &name, Mode::from_raw_mode(FOLDER_MODE))?;
                    look(&folder, &name)?
                }
                Err(Errno::NOENT) => return Ok(None),
                found => found?,
            };
            match FileType::from_raw_mode(about.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    if links > MOST_LINKS || !is_roots(&about) || !is_roots(&fstat(&folder)?) {
                        let name = Path::new(&name).display();
                        return Err(io::Error::other(format!(
                            "{name} is a symbolic link that a user may have made"
                        )));
                    }
                    let target = readlinkat(&found, "", Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        folder = root.as_fd().try_clone_to_owned()?;
                    }
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        rest.push_front(part);
                    }
                }
                _ if is_last => return Ok(Some(Self { folder, name })),
                FileType::Directory => folder = found,
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        Err(io::Error::other("it is a folder"))
    }

    /// Opens it to be read, when it is a regular file; none where there is none. Nothing else is
    /// opened: that may wait for ever, or do something.
    pub fn open(&self) -> io::Result<Option<File>> {
        let is_regular = |about: Stat| FileType::from_raw_mode(about.st_mode).is_file();
        let irregular = || io::Error::other("it is no regular file");
        match look(&self.folder, &self.name) {
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok((_, about)) if !is_regular(about) => return Err(irregular()),
            Ok(_) => {}
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = openat(
            &self.folder,
            &self.name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let file = match opened {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        match is_regular(fstat(&file)?) {
            true => Ok(Some(file.into())),
            false => Err(irregular()),
        }
    }

    /// The opened folder, wherever it is now.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))
    }

    /// The file in it.
    pub fn path(&self) -> PathBuf {
        self.folder().join(&self.name)
    }
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        _ => None,
    })
}

fn look(folder: &OwnedFd, name: &OsStr) -> Result<(OwnedFd, Stat), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(folder, name.as_bytes(), flags, Mode::empty())?;
    let about = fstat(&found)?;
    Ok((found, about))
}

/// Root's, or of the user that this process runs as.
fn is_roots(about: &Stat) -> bool {
    about.st_uid == 0 || about.st_uid == geteuid().as_raw()
}
