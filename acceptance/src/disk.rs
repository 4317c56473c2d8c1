//! A disk that loses at a power cut what was not flushed: what was written to a file that was not
//! synced since, and the name of whatever was made, moved or removed in a folder that was not synced
//! since.
//!
//! The agent's test builds write a journal of what they do (`PERENNIAL_TEST_JOURNAL`). It is replayed
//! here on the disk as it was before. What the site does is replayed from a [`crate::trace::Trace`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::HEXLOWER;

/// What of the unflushed is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the program was killed, and the machine ran on.
    Nothing,
    Everything,
    /// Some, by this seed. Of a folder's changes the last ones are lost; of what was written to a
    /// file, any of it, or the end of it.
    Some(u64),
}

/// A disk below a root.
pub struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
}

type Entries = BTreeMap<OsString, usize>;

enum Node {
    File {
        flushed: Vec<u8>,
        /// Since then, in their order.
        writes: Vec<Write>,
        mode: u32,
    },
    Link(PathBuf),
    Folder {
        flushed: Entries,
        /// Since then, in their order. A move within the folder is one change.
        changes: Vec<Vec<(OsString, Option<usize>)>>,
        mode: u32,
    },
}

enum Write {
    At(usize, Vec<u8>),
    Length(usize),
}

/// A file of a disk. It stays the same one when it is moved or removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileNumber(usize);

impl Disk {
    /// The disk as it is, all of it flushed.
    pub fn read(root: &Path) -> Result<Self> {
        let mut disk = Self {
            root: root.to_owned(),
            nodes: Vec::new(),
        };
        disk.take(root)?;
        Ok(disk)
    }

    fn take(&mut self, path: &Path) -> Result<usize> {
        let found = fs::symlink_metadata(path)?;
        let mode = found.permissions().mode() & 0o7777;
        let number = self.nodes.len();
        if found.is_symlink() {
            self.nodes.push(Node::Link(fs::read_link(path)?));
        } else if found.is_dir() {
            self.nodes.push(Node::folder(mode));
            let mut entries = Entries::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                entries.insert(entry.file_name(), self.take(&entry.path())?);
            }
            let Node::Folder { flushed, .. } = &mut self.nodes[number] else {
                bail!("a folder");
            };
            *flushed = entries;
        } else {
            let content = fs::read(path)?;
            self.nodes.push(Node::File {
                flushed: content,
                writes: Vec::new(),
                mode,
            });
        }
        Ok(number)
    }

    /// Does again what a journal says.
    ///
    /// # Errors
    /// When it does something to what is not there: then model and program do not agree.
    pub fn replay(&mut self, journal: &str) -> Result<()> {
        for line in journal.lines() {
            let mut parts = line.split('\t');
            let (operation, path) = (parts.next(), parts.next());
            let content = HEXLOWER.decode(parts.next().unwrap_or("").as_bytes())?;
            let path = Path::new(path.context("a path")?);
            self.apply(operation.unwrap_or(""), path, content)
                .with_context(|| format!("the journal's line: {line}"))?;
        }
        Ok(())
    }

    fn apply(&mut self, operation: &str, path: &Path, content: Vec<u8>) -> Result<()> {
        match operation {
            "write" => {
                let file = match self.file(path) {
                    Some(file) => file,
                    None => self.make_file(path, 0o600)?,
                };
                self.set_length(file, 0)?;
                self.write(file, 0, content)?;
            }
            // What is outside of the root cannot be lost.
            "sync-folder" if !path.starts_with(&self.root) => {}
            "sync" | "sync-folder" => self.sync(path)?,
            "folder" => self.make_folder(path, 0o700)?,
            "link" => self.make(path, Node::Link(OsString::from_vec(content).into()))?,
            "rename" => self.rename(path, Path::new(&OsString::from_vec(content)))?,
            "remove" => self.remove(path)?,
            other => bail!("what is `{other}`?"),
        }
        Ok(())
    }

    pub(crate) fn file(&self, path: &Path) -> Option<FileNumber> {
        let number = self.find(path)?;
        matches!(self.nodes[number], Node::File { .. }).then_some(FileNumber(number))
    }

    pub(crate) fn make_file(&mut self, path: &Path, mode: u32) -> Result<FileNumber> {
        let file = Node::File {
            flushed: Vec::new(),
            writes: Vec::new(),
            mode,
        };
        self.make(path, file)?;
        Ok(FileNumber(self.nodes.len() - 1))
    }

    pub(crate) fn make_folder(&mut self, path: &Path, mode: u32) -> Result<()> {
        self.make(path, Node::folder(mode))
    }

    pub(crate) fn write(&mut self, file: FileNumber, at: usize, content: Vec<u8>) -> Result<()> {
        self.writes(file)?.push(Write::At(at, content));
        Ok(())
    }

    pub(crate) fn set_length(&mut self, file: FileNumber, length: usize) -> Result<()> {
        self.writes(file)?.push(Write::Length(length));
        Ok(())
    }

    fn writes(&mut self, file: FileNumber) -> Result<&mut Vec<Write>> {
        match &mut self.nodes[file.0] {
            Node::File { writes, .. } => Ok(writes),
            _ => bail!("not a file"),
        }
    }

    /// As a running program reads it.
    pub(crate) fn content(&self, file: FileNumber) -> Result<Vec<u8>> {
        match &self.nodes[file.0] {
            Node::File {
                flushed, writes, ..
            } => Ok(after(flushed, writes)),
            _ => bail!("not a file"),
        }
    }

    pub(crate) fn sync_file(&mut self, file: FileNumber) -> Result<()> {
        let content = self.content(file)?;
        if let Node::File {
            flushed, writes, ..
        } = &mut self.nodes[file.0]
        {
            *flushed = content;
            writes.clear();
        }
        Ok(())
    }

    /// Flushes a file, or the names in a folder.
    pub(crate) fn sync(&mut self, path: &Path) -> Result<()> {
        let number = self.find(path).context("not there")?;
        let entries = self.entries(number);
        match &mut self.nodes[number] {
            Node::File { .. } => self.sync_file(FileNumber(number))?,
            Node::Link(_) => bail!("a link"),
            Node::Folder {
                flushed, changes, ..
            } => {
                *flushed = entries;
                changes.clear();
            }
        }
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        ensure!(from.parent() == to.parent(), "moved to another folder");
        let moved = self.find(from).context("not there")?;
        self.change(to, vec![(name(from), None), (name(to), Some(moved))])
    }

    /// Removes a file, or a folder with what is in it.
    pub(crate) fn remove(&mut self, path: &Path) -> Result<()> {
        let removed = self.find(path).context("not there")?;
        self.empty(removed);
        self.change(path, vec![(name(path), None)])
    }

    /// Removes what is in a folder, one by one.
    fn empty(&mut self, folder: usize) {
        for (name, inside) in self.entries(folder) {
            self.empty(inside);
            if let Node::Folder { changes, .. } = &mut self.nodes[folder] {
                changes.push(vec![(name, None)]);
            }
        }
    }

    fn make(&mut self, path: &Path, node: Node) -> Result<()> {
        ensure!(self.find(path).is_none(), "there already");
        self.nodes.push(node);
        self.change(path, vec![(name(path), Some(self.nodes.len() - 1))])
    }

    /// Changes the folder that `path` is in.
    fn change(&mut self, path: &Path, change: Vec<(OsString, Option<usize>)>) -> Result<()> {
        let folder = self.find(path.parent().context("a folder")?);
        match &mut self.nodes[folder.context("its folder is not there")?] {
            Node::Folder { changes, .. } => changes.push(change),
            _ => bail!("not in a folder"),
        }
        Ok(())
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let below = path.strip_prefix(&self.root).ok()?;
        below.iter().try_fold(0, |folder, name| {
            self.entries(folder).get(name).copied() //
        })
    }

    /// As a running program sees them.
    fn entries(&self, folder: usize) -> Entries {
        self.entries_after(folder, usize::MAX)
    }

    fn entries_after(&self, folder: usize, number: usize) -> Entries {
        let Node::Folder {
            flushed, changes, ..
        } = &self.nodes[folder]
        else {
            return Entries::new();
        };
        let mut entries = flushed.clone();
        for (name, node) in changes.iter().take(number).flatten() {
            match node {
                Some(node) => entries.insert(name.clone(), *node),
                None => entries.remove(name),
            };
        }
        entries
    }

    /// Puts what is left after a power cut into the place of the root's content.
    pub fn put_in_place(&self, loss: Loss) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        self.left(loss).put_into(&self.root)
    }

    /// What is left after a power cut.
    pub fn left(&self, loss: Loss) -> Left {
        let mut left = Left::default();
        self.leave(0, Path::new(""), &mut Fate::new(loss), &mut left);
        left
    }

    fn leave(&self, number: usize, path: &Path, fate: &mut Fate, left: &mut Left) {
        let entry = match &self.nodes[number] {
            Node::Link(target) => Entry::Link(target.clone()),
            Node::File {
                flushed,
                writes,
                mode,
            } => Entry::File(fate.of_content(flushed, writes), *mode),
            Node::Folder { changes, mode, .. } => {
                for (name, inside) in self.entries_after(number, fate.of_changes(changes.len())) {
                    self.leave(inside, &path.join(name), fate, left);
                }
                Entry::Folder(*mode)
            }
        };
        left.0.insert(path.to_owned(), entry);
    }
}

/// The content of a disk, by paths below its root.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Left(BTreeMap<PathBuf, Entry>);

#[derive(Debug, PartialEq, Eq, Hash)]
enum Entry {
    Folder(u32),
    Link(PathBuf),
    File(Vec<u8>, u32),
}

impl Left {
    /// Puts it into an empty folder.
    pub fn put_into(&self, folder: &Path) -> Result<()> {
        // A folder comes before what is in it.
        for (below, entry) in &self.0 {
            let path = folder.join(below);
            match entry {
                Entry::Folder(_) if path.is_dir() => {}
                Entry::Folder(_) => fs::create_dir(path)?,
                Entry::Link(target) => std::os::unix::fs::symlink(target, path)?,
                Entry::File(content, mode) => {
                    fs::write(&path, content)?;
                    fs::set_permissions(path, fs::Permissions::from_mode(*mode))?;
                }
            }
        }
        for (below, entry) in &self.0 {
            if let Entry::Folder(mode) = entry {
                fs::set_permissions(folder.join(below), fs::Permissions::from_mode(*mode))?;
            }
        }
        Ok(())
    }
}

impl Node {
    fn folder(mode: u32) -> Self {
        Self::Folder {
            flushed: Entries::new(),
            changes: Vec::new(),
            mode,
        }
    }
}

/// A file's content after writes.
fn after<'a>(flushed: &[u8], writes: impl IntoIterator<Item = &'a Write>) -> Vec<u8> {
    let mut content = flushed.to_vec();
    for write in writes {
        match write {
            Write::At(at, bytes) => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
            Write::Length(length) => content.resize(*length, 0),
        }
    }
    content
}

fn name(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

/// Decides what a power cut leaves.
struct Fate {
    loss: Loss,
    random: u64,
}

impl Fate {
    fn new(loss: Loss) -> Self {
        let random = match loss {
            Loss::Some(seed) => seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            Loss::Nothing | Loss::Everything => 1,
        };
        Self { loss, random }
    }

    /// How many of the changes stay.
    fn of_changes(&mut self, number: usize) -> usize {
        match self.loss {
            Loss::Nothing => number,
            Loss::Everything => 0,
            Loss::Some(_) => self.up_to(number),
        }
    }

    fn of_content(&mut self, flushed: &[u8], writes: &[Write]) -> Vec<u8> {
        let kept = match self.loss {
            Loss::Nothing => return after(flushed, writes),
            Loss::Everything => return flushed.to_vec(),
            Loss::Some(_) => match self.up_to(2) {
                0 => return flushed.to_vec(),
                1 => writes.iter().filter_map(|write| self.of_write(write)),
                _ => return after(flushed, writes),
            },
        };
        after(flushed, &kept.collect::<Vec<_>>())
    }

    /// A system writes in the order that it likes, and may not come to the end.
    fn of_write(&mut self, write: &Write) -> Option<Write> {
        match (self.up_to(3), write) {
            (0, _) => None,
            (1, Write::At(at, bytes)) => {
                Some(Write::At(*at, bytes[..self.up_to(bytes.len())].to_vec()))
            }
            (_, Write::At(at, bytes)) => Some(Write::At(*at, bytes.clone())),
            (_, Write::Length(length)) => Some(Write::Length(*length)),
        }
    }

    /// A number from 0 to `most` (xorshift).
    fn up_to(&mut self, most: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 11).unwrap_or(0) % (most + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(operations: &str, loss: Loss) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::write(root.join("old"), "old").expect("written");
        let mut disk = Disk::read(root).expect("read");
        let journal = operations
            .replace("ROOT", &root.display().to_string())
            .replace(
                "HEX(b)",
                &HEXLOWER.encode(root.join("b").as_os_str().as_encoded_bytes()),
            );
        disk.replay(&journal).expect("replayed");
        disk.put_in_place(loss).expect("put");
        let mut found: Vec<String> = fs::read_dir(root)
            .expect("a folder")
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let text = fs::read_to_string(&path).unwrap_or_default();
                format!("{name}={text}")
            })
            .collect();
        found.sort();
        found.join(" ")
    }

    #[test]
    fn only_what_was_flushed_survives() {
        let write = "write\tROOT/a\t6e6577\n";
        let rename = "rename\tROOT/a\tHEX(b)\n";
        let (sync, folder) = ("sync\tROOT/a\t\n", "sync-folder\tROOT\t\n");
        for (operations, lost, kept) in [
            (format!("{write}{sync}"), "old=old", "a=new old=old"),
            (format!("{write}{folder}"), "a= old=old", "a=new old=old"),
            (format!("{write}{sync}{rename}"), "old=old", "b=new old=old"),
            (
                format!("{write}{sync}{folder}{rename}"),
                "a=new old=old",
                "b=new old=old",
            ),
            (
                format!("{write}{rename}{folder}"),
                "b= old=old",
                "b=new old=old",
            ),
            ("remove\tROOT/old\t\n".to_owned(), "old=old", ""),
            ("folder\tROOT/f\t\n".to_owned(), "old=old", "f= old=old"),
        ] {
            assert_eq!(left(&operations, Loss::Everything), lost, "{operations}");
            assert_eq!(left(&operations, Loss::Nothing), kept, "{operations}");
            let whole = format!("{operations}{folder}");
            if operations.contains("sync\t") {
                for seed in 0..20 {
                    assert_eq!(left(&whole, Loss::Some(seed)), kept, "{operations}");
                }
            }
        }
        let some: std::collections::BTreeSet<String> = (0..50)
            .map(|seed| left(&format!("{write}{folder}"), Loss::Some(seed)))
            .collect();
        assert!(some.contains("a=new old=old") && some.contains("a= old=old"));
        assert!(some.len() > 2, "torn in the middle, too: {some:?}");
    }
}
