//! Removing a folder in which root's scripts worked: what they mounted there is somebody else's, and
//! must not be deleted with it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

/// Mounts on top of each other, at most.
const LAYERS: usize = 50;

/// Removes a folder with all that is in it, after what is mounted on it or below it was unmounted.
///
/// # Errors
/// When a mount stays: then nothing was removed.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    for _ in 0..LAYERS {
        let mounts = mounted_at(folder)?;
        if mounts.is_empty() {
            return fs::remove_dir_all(folder);
        }
        // The last one lies on top.
        for mount in mounts.iter().rev() {
            detach(mount).map_err(|error| crate::files::named(mount, &error))?;
        }
    }
    Err(io::Error::other(format!(
        "something is mounted below {} again and again",
        folder.display()
    )))
}

/// What is mounted below a folder; not the folder itself.
pub fn mounted_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut mounts = mounted_at(folder)?;
    let folder = fs::canonicalize(folder)?;
    mounts.retain(|mount| *mount != folder);
    Ok(mounts)
}

fn detach(mount: &Path) -> io::Result<()> {
    // Or the copy of a shared mount (`mount --rbind /`) would take the system's own ones with it.
    let alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(mount, alone)?;
    Ok(unmount(
        mount,
        UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    )?)
}

/// Mount points that are this folder or below it, in the order in which they were made.
fn mounted_at(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = fs::canonicalize(folder)?;
    let mut mounts = mount_points(&fs::read("/proc/self/mountinfo")?);
    mounts.retain(|mount| mount.starts_with(&folder));
    Ok(mounts)
}

/// The fifth field of each line (proc_pid_mountinfo(5)).
fn mount_points(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.map(unescaped).collect()
}

/// A space, a tab, a line's end and a backslash are written as `\` and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_spaces() {
        let text = b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            90 22 0:5 / /var/a\\040b\\134c rw - tmpfs t rw\n";
        let expected = ["/", "/var/a b\\c"].map(PathBuf::from);
        assert_eq!(mount_points(text), expected);
    }

    #[test]
    fn a_folder_without_mounts_is_removed() {
        let above = tempfile::tempdir().expect("a folder");
        let folder = above.path().join("a");
        fs::create_dir_all(folder.join("b/c")).expect("made");
        assert!(mounted_below(&folder).expect("read").is_empty());
        remove_folder(&folder).expect("removed");
        assert!(!folder.exists());
    }
}
