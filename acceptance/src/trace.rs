//! What a program does to the files below a folder, as the system saw it: its calls are written down
//! by strace, and done again on a [`Disk`].

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use data_encoding::HEXLOWER;
use domain::{Clock, Timestamp};

use crate::disk::{Disk, FileNumber, Left, Loss};

/// All calls that change a file, and those that answer somebody. What is not understood of them ends
/// in an error, see [`understood`].
const CALLS: &str = "trace=open,openat,openat2,creat,lseek,write,pwrite64,writev,pwritev,pwritev2,\
     ftruncate,truncate,fallocate,copy_file_range,sendfile,splice,msync,mmap,io_uring_setup,dup,dup2,\
     dup3,fsync,fdatasync,sync_file_range,sync,syncfs,rename,renameat,renameat2,unlink,unlinkat,rmdir,\
     mkdir,mkdirat,link,linkat,symlink,symlinkat,sendto,sendmsg";

/// How files end that are memory which processes share, and not on the disk of the model.
pub const SHARED_MEMORY: &str = ".db-shm";

/// What TLS says at a connection's end is shorter than this, and no answer.
const SHORTEST_ANSWER: usize = 64;

/// The same command, whose calls are written to `log`. It stays the child that is started: the one
/// who writes is its own child.
pub fn traced(command: &Command, log: &Path) -> Command {
    let mut traced = Command::new("strace");
    traced
        .args(["-D", "-f", "-ttt", "-y", "-xx", "-s", "16777216"])
        .args(["--seccomp-bpf", "-e", CALLS, "-o"])
        .arg(log)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced
}

/// # Errors
/// When programs cannot be traced here, and what helps.
pub fn is_possible() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("calls");
    let tried = traced(&Command::new("true"), &log)
        .output()
        .context("strace is missing; run: make tools")?;
    let written = fs::read_to_string(&log).unwrap_or_default();
    ensure!(
        written.contains("exited with 0"),
        "strace may not trace programs here. A container needs the right to \
         (--cap-add=SYS_PTRACE), and /proc/sys/kernel/yama/ptrace_scope less than 3. It says: {}",
        String::from_utf8_lossy(&tried.stderr)
    );
    Ok(())
}

/// What programs did, one after the other, to the files below a folder.
pub struct Trace {
    root: PathBuf,
    calls: Vec<Call>,
}

/// A call that succeeded, at the place in the order where it was done, but [`Call::Answer`] where it
/// was begun: nothing that comes after it was done when somebody could know.
enum Call {
    /// A program begins: it has nothing open.
    Begin,
    Open {
        descriptor: u32,
        path: PathBuf,
        create: bool,
        truncate: bool,
        append: bool,
    },
    Seek {
        descriptor: u32,
        to: usize,
    },
    /// Without a place: where the descriptor is.
    Write {
        descriptor: u32,
        at: Option<usize>,
        content: Vec<u8>,
    },
    SetLength {
        descriptor: u32,
        length: usize,
    },
    Sync {
        descriptor: u32,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
    MakeFolder(PathBuf),
    Answer(Timestamp),
}

impl Trace {
    pub fn below(root: &Path) -> Result<Self> {
        Ok(Self {
            root: root.canonicalize()?,
            calls: Vec::new(),
        })
    }

    /// Adds the calls of a program that has ended, and forgets what it wrote down.
    pub fn add(&mut self, log: &Path) -> Result<()> {
        self.calls.push(Call::Begin);
        let text = fs::read_to_string(log)?;
        // What was begun by which thread, and is not done yet.
        let mut begun: HashMap<&str, &str> = HashMap::new();
        for line in text.lines() {
            let (thread, rest) = line.split_once(' ').context("a thread")?;
            let (at, call) = rest.trim_start().split_once(' ').context("a time")?;
            let short = || format!("{line:.200}");
            let (head, tail) = if let Some(head) = call.strip_suffix(" <unfinished ...>") {
                self.answer(at, head).with_context(short)?;
                begun.insert(thread, head);
                continue;
            } else if let Some((_, tail)) = call.split_once(" resumed>") {
                let Some(head) = begun.remove(thread) else {
                    bail!("what goes on here was not begun: {}", short());
                };
                (head, tail)
            } else {
                self.answer(at, call).with_context(short)?;
                (call, "")
            };
            self.done(head, tail).with_context(short)?;
        }
        Ok(fs::remove_file(log)?)
    }

    /// Notes what is sent to somebody.
    fn answer(&mut self, at: &str, call: &str) -> Result<()> {
        let name = call.split('(').next().unwrap_or("");
        let sends = matches!(name, "write" | "writev" | "sendto" | "sendmsg");
        let sent = call.matches("\\x").count();
        // The name of what it goes to is counted, too.
        if sends && call.contains(&hexadecimal("socket:")) && sent >= SHORTEST_ANSWER {
            let (seconds, micros) = at.split_once('.').context("a time")?;
            let micros: i64 = format!("{seconds}{micros}").parse()?;
            self.calls
                .push(Call::Answer(Timestamp::from_microsecond(micros)?));
        }
        Ok(())
    }

    /// Notes a call that is done: what strace wrote of it, in one piece or two.
    fn done(&mut self, head: &str, tail: &str) -> Result<()> {
        let call = format!("{head}{tail}");
        let Some((name, rest)) = call.split_once('(') else {
            return Ok(()); // a signal, or a thread's end
        };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else {
            return Ok(());
        };
        let arguments: Vec<&str> = arguments
            .trim_end()
            .strip_suffix(')')
            .context("its end")?
            .split(", ")
            .collect();
        // What is written may begin with the name of a file.
        let names = match name.contains("write") {
            true => &arguments[..1],
            false => &arguments,
        };
        let mut names = names.iter().chain([&result]);
        let concerned = names.any(|name| self.is_below(name));
        if result.starts_with('-') || result.starts_with('?') || !concerned {
            return Ok(());
        }
        if let Some(call) = understood(name, &arguments, result)? {
            self.calls.push(call);
        }
        Ok(())
    }

    fn is_below(&self, argument: &str) -> bool {
        let quoted = argument.split(['"', '<', '>']).nth(1);
        quoted
            .and_then(text)
            .is_some_and(|path| Path::new(&path).starts_with(&self.root))
    }

    /// How many calls were done when something was known that an answer before `at` told.
    pub fn until_answered(&self, at: Timestamp) -> usize {
        let before = |call: &Call| matches!(call, Call::Answer(sent) if *sent < at);
        self.calls
            .iter()
            .rposition(before)
            .map_or(0, |last| last + 1)
    }

    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Does them again on the disk as it was before.
    pub fn replay(&self, disk: Disk) -> Replay<'_> {
        Replay {
            calls: &self.calls,
            done: 0,
            disk,
            open: HashMap::new(),
        }
    }
}

/// A call that concerns a file below the root. None when it changes nothing.
///
/// # Errors
/// When the model has nothing like it.
fn understood(name: &str, arguments: &[&str], result: &str) -> Result<Option<Call>> {
    let argument = |number: usize| arguments.get(number).copied().context("an argument");
    let number = |number: usize| Ok::<usize, anyhow::Error>(argument(number)?.parse()?);
    let descriptor = |of: &str| -> Result<u32> {
        let digits = of.split('<').next().unwrap_or("");
        digits
            .parse()
            .with_context(|| format!("a descriptor: {of}"))
    };
    // An absolute one, or one in the folder that is given before it.
    let path = |number: usize| -> Result<PathBuf> {
        let path = text(argument(number)?.trim_matches('"')).context("a path")?;
        let folder = number.checked_sub(1).and_then(|before| {
            let given = arguments[before].split(['<', '>']).nth(1)?;
            text(given)
        });
        Ok(Path::new(&folder.unwrap_or_default()).join(path))
    };
    // SQLite's index of its log is shared memory. It is made anew by whoever comes first.
    let shared = hexadecimal(SHARED_MEMORY);
    if arguments.iter().any(|argument| argument.contains(&shared)) {
        return Ok(None);
    }
    let call = match name {
        "openat" => {
            let opened = result.split(['<', '>']).nth(1).and_then(text);
            let flags = argument(2)?;
            Call::Open {
                descriptor: descriptor(result)?,
                path: opened.context("what was opened")?.into(),
                create: flags.contains("O_CREAT"),
                truncate: flags.contains("O_TRUNC"),
                append: flags.contains("O_APPEND"),
            }
        }
        "lseek" => Call::Seek {
            descriptor: descriptor(argument(0)?)?,
            to: result.parse()?,
        },
        "write" | "pwrite64" => {
            let mut content = bytes(argument(1)?.trim_matches('"')).context("a content")?;
            let written = result.parse()?;
            ensure!(content.len() >= written, "more than was written down");
            content.truncate(written);
            Call::Write {
                descriptor: descriptor(argument(0)?)?,
                at: (name == "pwrite64").then(|| number(3)).transpose()?,
                content,
            }
        }
        "ftruncate" => Call::SetLength {
            descriptor: descriptor(argument(0)?)?,
            length: number(1)?,
        },
        "fsync" | "fdatasync" => Call::Sync {
            descriptor: descriptor(argument(0)?)?,
        },
        "rename" => Call::Rename {
            from: path(0)?,
            to: path(1)?,
        },
        "renameat" | "renameat2" => Call::Rename {
            from: path(1)?,
            to: path(3)?,
        },
        "unlink" | "rmdir" => Call::Remove(path(0)?),
        "unlinkat" => Call::Remove(path(1)?),
        "mkdir" => Call::MakeFolder(path(0)?),
        "mkdirat" => Call::MakeFolder(path(1)?),
        // SQLite's index of its log is shared memory. It is made anew by whoever comes first.
        "mmap"
            if arguments
                .iter()
                .any(|word| word.contains(&hexadecimal("-shm"))) =>
        {
            return Ok(None);
        }
        "mmap" if !(argument(2)?.contains("PROT_WRITE") && argument(3)?.contains("MAP_SHARED")) => {
            return Ok(None);
        }
        _ => bail!("the model of a disk has no `{name}`"),
    };
    Ok(Some(call))
}

/// A disk while calls are done on it.
pub struct Replay<'a> {
    calls: &'a [Call],
    done: usize,
    disk: Disk,
    open: HashMap<u32, Open>,
}

enum Open {
    File { file: FileNumber, at: usize },
    Folder(PathBuf),
}

impl Replay<'_> {
    /// Goes on until `calls` were done.
    ///
    /// # Errors
    /// When model and program do not agree.
    pub fn advance_to(&mut self, calls: usize) -> Result<()> {
        while self.done < calls {
            let call = self
                .calls
                .get(self.done)
                .context("there are no more calls")?;
            self.apply(call)
                .with_context(|| format!("call {}", self.done))?;
            self.done += 1;
        }
        Ok(())
    }

    /// True when a power cut here leaves something else than one before or after it: the last call
    /// made something durable, changed names, or told somebody, or the next one makes it durable.
    pub fn is_worth_a_cut(&self) -> bool {
        let last = self
            .done
            .checked_sub(1)
            .and_then(|last| self.calls.get(last));
        let changes = !matches!(
            last,
            None | Some(
                Call::Begin
                    | Call::Open { create: false, .. }
                    | Call::Seek { .. }
                    | Call::Write { .. }
            )
        );
        changes || matches!(self.calls.get(self.done), Some(Call::Sync { .. }))
    }

    /// What a power cut leaves now.
    pub fn left(&self, loss: Loss) -> Left {
        self.disk.left(loss)
    }

    fn apply(&mut self, call: &Call) -> Result<()> {
        match call {
            Call::Begin => self.open.clear(),
            Call::Open {
                descriptor,
                path,
                create,
                truncate,
                append,
            } => {
                let opened = match self.disk.file(path) {
                    None if !create => Open::Folder(path.clone()),
                    found => {
                        let file = match found {
                            Some(file) => file,
                            None => self.disk.make_file(path, 0o600)?,
                        };
                        if *truncate {
                            self.disk.set_length(file, 0)?;
                        }
                        let at = match append {
                            true => self.disk.content(file)?.len(),
                            false => 0,
                        };
                        Open::File { file, at }
                    }
                };
                self.open.insert(*descriptor, opened);
            }
            Call::Seek { descriptor, to } => {
                if let Some(Open::File { at, .. }) = self.open.get_mut(descriptor) {
                    *at = *to;
                }
            }
            Call::Write {
                descriptor,
                at,
                content,
            } => {
                let Some(Open::File { file, at: here }) = self.open.get_mut(descriptor) else {
                    bail!("written to what is not open");
                };
                self.disk
                    .write(*file, at.unwrap_or(*here), content.clone())?;
                if at.is_none() {
                    *here += content.len();
                }
            }
            Call::SetLength { descriptor, length } => {
                let Some(Open::File { file, .. }) = self.open.get(descriptor) else {
                    bail!("cut off what is not open");
                };
                self.disk.set_length(*file, *length)?;
            }
            Call::Sync { descriptor } => match self.open.get(descriptor) {
                Some(Open::File { file, .. }) => self.disk.sync_file(*file)?,
                Some(Open::Folder(path)) => self.disk.sync(path)?,
                None => bail!("flushed what is not open"),
            },
            Call::Rename { from, to } => self.disk.rename(from, to)?,
            Call::Remove(path) => self.disk.remove(path)?,
            Call::MakeFolder(path) => self.disk.make_folder(path, 0o700)?,
            Call::Answer(_) => {}
        }
        Ok(())
    }
}

/// What strace writes as `\x2f\x74\x6d\x70`, with what else is around it left away.
fn text(hexadecimal: &str) -> Option<std::ffi::OsString> {
    bytes(hexadecimal).map(std::ffi::OsString::from_vec)
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    HEXLOWER
        .decode(hexadecimal.replace("\\x", "").as_bytes())
        .ok()
}

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// The system's time, which a trace has, too.
pub fn now() -> Timestamp {
    clock::SystemClock::new().now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As strace writes, with `ROOT` for the root. What is between tildes is written in hexadecimal.
    const LOG: &str = r#"
7 1.000001 openat(AT_FDCWD<~/~>, "~/etc/hosts~", O_RDONLY) = 3<~/etc/hosts~>
7 1.000002 mkdir("~ROOT/f~", 0700) = 0
7 1.000003 mkdir("~ROOT/f~", 0700) = -1 EEXIST (File exists)
8 1.000004 openat(AT_FDCWD<~/~>, "~ROOT/f/a~", O_WRONLY|O_CREAT, 0600 <unfinished ...>
7 1.000005 write(4<~socket:[12]~>, "~an answer, of which all have more than sixty-four bytes, so I hope~", 66 <unfinished ...>
8 1.000006 <... openat resumed>) = 5<~ROOT/f/a~>
8 1.000007 write(5<~ROOT/f/a~>, "~abc~", 3) = 3
7 1.000008 <... write resumed>) = 66
8 1.000009 pwrite64(5<~ROOT/f/a~>, "~X~", 1, 1) = 1
8 1.000010 write(5<~ROOT/f/a~>, "~d~", 1) = 1
7 1.000011 fsync(5<~ROOT/f/a~> <unfinished ...>
7 1.000012 <... fsync resumed>) = ?
7 1.000013 +++ exited with 0 +++"#;

    fn trace_of(root: &Path, log: &str) -> Result<Trace> {
        let log = log.replace("ROOT", &root.canonicalize()?.display().to_string());
        let written: Vec<String> = log
            .trim_start()
            .split('~')
            .enumerate()
            .map(|(number, part)| match number % 2 {
                0 => part.to_owned(),
                _ => hexadecimal(part),
            })
            .collect();
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), written.concat())?;
        let mut trace = Trace::below(root)?;
        trace.add(&file.into_temp_path().keep()?)?;
        Ok(trace)
    }

    #[test]
    fn what_was_done_is_done_again() {
        let root = tempfile::tempdir().expect("a folder");
        let trace = trace_of(root.path(), LOG).expect("understood");
        let mut replay = trace.replay(Disk::read(root.path()).expect("read"));
        replay.advance_to(trace.calls()).expect("replayed");
        for (loss, left) in [(Loss::Nothing, Some("aXcd")), (Loss::Everything, None)] {
            let disk = tempfile::tempdir().expect("a folder");
            replay.left(loss).put_into(disk.path()).expect("put");
            let found = fs::read_to_string(disk.path().join("f/a")).ok();
            assert_eq!(found.as_deref(), left);
        }
    }

    #[test]
    fn an_answer_was_known_from_when_it_was_begun() {
        let root = tempfile::tempdir().expect("a folder");
        let trace = trace_of(root.path(), LOG).expect("understood");
        let known = |micros: i64| {
            let at = Timestamp::from_microsecond(1_000_000 + micros).expect("a time");
            trace.until_answered(at)
        };
        // The program's begin, the folder, the answer; the file was opened later.
        assert_eq!((known(5), known(6), known(99)), (0, 3, 3));
    }

    #[test]
    fn what_the_model_does_not_have_is_an_error() {
        let root = tempfile::tempdir().expect("a folder");
        for call in [
            r#"link("~ROOT/a~", "~ROOT/b~") = 0"#,
            r#"mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 5<~ROOT/a~>, 0) = 0x7f"#,
            r#"writev(5<~ROOT/a~>, [{iov_base="~x~", iov_len=1}], 1) = 1"#,
        ] {
            let log = format!("7 1.000001 {call}\n");
            assert!(trace_of(root.path(), &log).is_err(), "{call}");
        }
    }
}
