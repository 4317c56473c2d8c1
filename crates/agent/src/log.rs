//! The agent's log: one line an event, to a file of bounded size and to standard error (which is
//! the journal under systemd).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::files;
use crate::platform::Layout;

/// The file is put aside at this size; one older file is kept.
const MOST_BYTES: u64 = 5 << 20;

/// Starts logging. Tools log to the file alone; the daemon to both.
pub fn start(layout: &Layout, to_stderr: bool) {
    let level = std::env::var("PERENNIAL_LOG")
        .ok()
        .and_then(|level| level.parse().ok());
    let filter = level.unwrap_or(LevelFilter::INFO);
    let file = LogFile::open(&layout.logs()).ok().map(|file| {
        tracing_subscriber::fmt::layer()
            .with_writer(file)
            .with_ansi(false)
            .with_target(false)
    });
    let stderr = to_stderr.then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(false)
            .with_target(false)
    });
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(file)
        .with(stderr)
        .try_init();
}

struct LogFile(Mutex<Open>);

struct Open {
    path: PathBuf,
    file: File,
    size: u64,
}

impl LogFile {
    fn open(folder: &Path) -> io::Result<Self> {
        files::make_folder(folder, 0o755)?;
        let path = folder.join("agent.log");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self(Mutex::new(Open { path, file, size })))
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a Mutex<Open>);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self
            .0
            .lock()
            .map_err(|_| io::Error::other("the log's writer panicked"))?;
        if open.size > MOST_BYTES {
            fs::rename(&open.path, open.path.with_extension("log.1"))?;
            open.file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&open.path)?;
            open.size = 0;
        }
        let written = open.file.write(bytes)?;
        open.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
