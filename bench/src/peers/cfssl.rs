//! cfssl, the peer for issuing certificates: JSON over plain HTTP without a login, with or without
//! a row in SQLite for each certificate.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use super::{POLL, free_address, run, spawn, wait_until_ready};

const PACKAGE: &str = "golang-cfssl";

/// The path to which [`Cfssl::sign_body`] is posted.
pub const SIGN_PATH: &str = "/api/v1/cfssl/sign";

/// Client certificates for a year; the backdating of 5 minutes is cfssl's default.
const SIGNING_CONFIG: &str = r#"{
  "signing": {
    "profiles": {
      "client": { "usages": ["digital signature", "client auth"], "expiry": "8760h" }
    }
  }
}"#;

const DATABASE: &str = "certificates.db";

const DATABASE_CONFIG: &str = r#"{ "driver": "sqlite3", "data_source": "certificates.db" }"#;

/// The one table that signing writes, with the columns that cfssl 1.2 names in its INSERT. Later
/// versions fill more columns.
const SCHEMA: &str = "
    CREATE TABLE certificates (
        serial_number BLOB NOT NULL,
        authority_key_identifier BLOB NOT NULL,
        ca_label BLOB,
        status BLOB NOT NULL,
        reason INTEGER,
        expiry TIMESTAMP,
        revoked_at TIMESTAMP,
        pem BLOB NOT NULL,
        PRIMARY KEY (serial_number, authority_key_identifier)
    );";

/// A running `cfssl serve` with a P-256 CA of its own.
pub struct Cfssl {
    child: Child,
    address: SocketAddr,
    database: Option<PathBuf>,
}

impl Cfssl {
    /// Makes the CA and its configuration in an empty `folder`, starts cfssl and waits until it
    /// answers with that CA. With `certdb`, it writes each certificate to a SQLite database there
    /// before it answers, in the mode that cfssl gets when nobody tunes it: rollback journal,
    /// `synchronous=FULL`. Its log (four lines a certificate, the default) goes to a file there.
    ///
    /// Requests that wait for the database longer than go-sqlite3's 5 s fail with status 400, so
    /// a measurement has to look at the status.
    ///
    /// # Errors
    /// If a tool is missing or fails, or cfssl does not answer in time.
    pub fn start(folder: &Path, certdb: bool) -> io::Result<Cfssl> {
        fs::create_dir_all(folder)?;
        make_authority(folder)?;
        fs::write(folder.join("signing.json"), SIGNING_CONFIG)?;

        let address = free_address()?;
        let mut serve = Command::new("cfssl");
        serve
            .current_dir(folder)
            .args([
                "serve",
                "-ca",
                "ca.pem",
                "-ca-key",
                "ca-key.pem",
                "-config",
                "signing.json",
            ])
            .args([
                "-address",
                &address.ip().to_string(),
                "-port",
                &address.port().to_string(),
            ]);
        let database = certdb.then(|| folder.join(DATABASE));
        if let Some(database) = &database {
            run(Command::new("sqlite3").arg(database).arg(SCHEMA), "sqlite3")?;
            fs::write(folder.join("database.json"), DATABASE_CONFIG)?;
            serve.args(["-db-config", "database.json"]);
        }

        let authority = fs::read_to_string(folder.join("ca.pem"))?;
        let log = folder.join("cfssl.log");
        let child = spawn(&mut serve, PACKAGE, &log)?;
        let mut cfssl = Cfssl {
            child,
            address,
            database,
        };
        wait_until_ready(&mut cfssl.child, &log, || {
            issues_from(address, &authority).unwrap_or(false)
        })?;
        Ok(cfssl)
    }

    /// Where it listens, for plain HTTP/1.1 with kept connections.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its one process, for the functions of [`super::cpu`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The JSON body that asks for a client certificate, to be posted to [`SIGN_PATH`]. An answer
    /// with a certificate has status 200 and contains `"success":true`.
    #[must_use]
    pub fn sign_body(&self, csr_pem: &str) -> String {
        format!(
            r#"{{"certificate_request":{},"profile":"client"}}"#,
            json_string(csr_pem)
        )
    }

    /// How many certificates the database holds, 0 without a database: the check that recording
    /// was part of what was measured.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn recorded(&self) -> io::Result<u64> {
        let Some(database) = &self.database else {
            return Ok(0);
        };
        let count = run(
            Command::new("sqlite3")
                .args(["-readonly", "-cmd", ".timeout 5000"])
                .arg(database)
                .arg("SELECT count(*) FROM certificates"),
            "sqlite3",
        )?;
        count.trim().parse().map_err(|_| {
            io::Error::other(format!(
                "sqlite3 printed {count:?} instead of a number of rows"
            ))
        })
    }

    /// Puts the database into write-ahead mode, where a commit costs one flush instead of several
    /// and cfssl is more than twice as fast: the peer as somebody would run it who knows SQLite.
    /// Certificates are still durable before the answer. To be called before the load; does
    /// nothing without a database.
    ///
    /// # Errors
    /// If SQLite does not change the mode.
    pub fn use_write_ahead_log(&self) -> io::Result<()> {
        let Some(database) = &self.database else {
            return Ok(());
        };
        let mode = run(
            Command::new("sqlite3")
                .arg(database)
                .arg("PRAGMA journal_mode = WAL"),
            "sqlite3",
        )?;
        match mode.trim() {
            "wal" => Ok(()),
            other => Err(io::Error::other(format!(
                "the database of cfssl stays in journal mode {other:?}"
            ))),
        }
    }

    /// The version that cfssl says it has, such as `1.2.0`.
    ///
    /// # Errors
    /// If cfssl is not installed or says no version.
    pub fn version() -> io::Result<String> {
        let written = run(Command::new("cfssl").arg("version"), PACKAGE)?;
        written
            .lines()
            .find_map(|line| line.strip_prefix("Version:"))
            .map(|version| version.trim().to_owned())
            .ok_or_else(|| io::Error::other(format!("cfssl printed {written:?} as its version")))
    }
}

impl Drop for Cfssl {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A self-signed P-256 CA in `ca.pem` and `ca-key.pem`.
fn make_authority(folder: &Path) -> io::Result<()> {
    run(
        Command::new("openssl")
            .current_dir(folder)
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args([
                "-nodes",
                "-sha256",
                "-days",
                "3650",
                "-subj",
                "/CN=Benchmark CA",
            ])
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
            .args(["-keyout", "ca-key.pem", "-out", "ca.pem"]),
        "openssl",
    )
    .map(|_| ())
}

/// Whether a cfssl with this CA answers at the address, and not another program that took the
/// port.
fn issues_from(address: SocketAddr, authority_pem: &str) -> io::Result<bool> {
    const BODY: &str = r#"{"label":""}"#;
    let mut stream = TcpStream::connect_timeout(&address, POLL)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(
        stream,
        "POST /api/v1/cfssl/info HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let certificate = json_string(authority_pem.trim_end());
    Ok(answer.contains(certificate.trim_matches('"')))
}

/// A JSON string literal (RFC 8259, section 7).
fn json_string(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 32);
    literal.push('"');
    for character in text.chars() {
        match character {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            control if control < ' ' => {
                literal.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => literal.push(other),
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use super::json_string;

    #[test]
    fn json_strings_escape_what_json_forbids() {
        for (text, literal) in [
            ("", r#""""#),
            ("a\nb\r\n", r#""a\nb\r\n""#),
            (r#"say "hi" \o/"#, r#""say \"hi\" \\o/""#),
            ("tab\tü", r#""tab\u0009ü""#),
        ] {
            assert_eq!(json_string(text), literal);
        }
    }
}
