//! Fault points for tests: a test build can be killed at any step at which something becomes
//! durable or goes to the site. Other builds have nothing of this.

/// Kills the program at the step whose number `PERENNIAL_TEST_KILL_AT` tells, counted from 1.
#[cfg(feature = "test-clock")]
pub fn step() {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static LAST: OnceLock<Option<u64>> = OnceLock::new();
    static STEPS: AtomicU64 = AtomicU64::new(0);
    let last = LAST.get_or_init(|| {
        let number = std::env::var("PERENNIAL_TEST_KILL_AT").ok()?;
        Some(number.parse().expect("PERENNIAL_TEST_KILL_AT is a number"))
    });
    if let Some(last) = last
        && STEPS.fetch_add(1, Ordering::Relaxed) + 1 == *last
    {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
}

#[cfg(not(feature = "test-clock"))]
pub fn step() {}

/// What was written, in its order, into the file that `PERENNIAL_TEST_JOURNAL` names: a test replays
/// it on a disk that loses what was not flushed.
#[cfg(feature = "test-clock")]
pub fn journal(operation: &str, path: &std::path::Path, content: &[u8]) {
    use std::io::Write;
    let Some(journal) = std::env::var_os("PERENNIAL_TEST_JOURNAL") else {
        return;
    };
    let line = format!(
        "{operation}\t{}\t{}\n",
        path.display(),
        data_encoding::HEXLOWER.encode(content)
    );
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(journal);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the test's journal can be written");
}

#[cfg(not(feature = "test-clock"))]
pub fn journal(_operation: &str, _path: &std::path::Path, _content: &[u8]) {}
