//! The journal of what becomes durable, for tests. Other builds have nothing of it.

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
