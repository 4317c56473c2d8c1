//! nginx, the peer for the mutual TLS handshake: it verifies the client's certificate, answers
//! `ok` and remembers nothing, so that each connection is a full handshake.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Instant;

use super::{PATIENCE, POLL, cpu, free_address, run, spawn, wait_until_ready};

const PACKAGE: &str = "nginx-light";

/// Where Debian installs it: not on the path of an ordinary user.
const PROGRAM: &str = "/usr/sbin/nginx";

/// What both sides of a comparison must have in common, beside the certificates.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Number of worker processes, at least 1. A worker is one thread.
    pub workers: usize,
    /// The only key exchange group, in OpenSSL's name.
    pub curve: &'static str,
    /// The only TLS 1.3 cipher suite, in the name of RFC 8446.
    pub cipher: &'static str,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            workers: 1,
            curve: "X25519",
            cipher: "TLS_AES_128_GCM_SHA256",
        }
    }
}

/// A running nginx: a master process and its workers.
pub struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    /// Starts nginx with all its files below `folder` and waits until its workers run. It speaks
    /// TLS 1.3 alone, sends `server_chain_pem` (leaf first) and answers `GET /` with status 200
    /// and `ok` to a client whose certificate leads to a self-signed certificate in
    /// `client_ca_pem`. Intermediate certificates may be there too, or be sent by the client; one
    /// that stands alone is no trust anchor for nginx.
    ///
    /// A client without a valid certificate completes its handshake and gets status 400, so a
    /// measurement has to look at the status.
    ///
    /// # Errors
    /// If nginx is missing, refuses the certificates, or is not ready in time.
    pub fn start(
        folder: &Path,
        server_chain_pem: &str,
        server_key_pem: &str,
        client_ca_pem: &str,
        settings: Settings,
    ) -> io::Result<Nginx> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let address = free_address()?;
        fs::write(folder.join("server.pem"), server_chain_pem)?;
        write_private(&folder.join("server-key.pem"), server_key_pem)?;
        fs::write(folder.join("client-ca.pem"), client_ca_pem)?;
        fs::write(folder.join("nginx.conf"), configuration(address, settings))?;

        let log = folder.join("nginx.log");
        let child = spawn(
            Command::new(PROGRAM)
                .arg("-p")
                .arg(&folder)
                .arg("-c")
                .arg(folder.join("nginx.conf"))
                .args(["-e", "stderr"]),
            PACKAGE,
            &log,
        )?;
        let mut nginx = Nginx { child, address };
        let master = nginx.child.id();
        // The master binds the address before it starts workers: if they run, the port is ours.
        wait_until_ready(&mut nginx.child, &log, || {
            cpu::children(master).is_ok_and(|workers| workers.len() == settings.workers)
                && TcpStream::connect(address).is_ok()
        })?;
        Ok(nginx)
    }

    /// Where it listens, for HTTP/1.1 over TLS 1.3.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The master (first) and its workers, for the functions of [`cpu`]. The master does nothing
    /// while the workers serve.
    ///
    /// # Errors
    /// If nginx has ended.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let master = self.child.id();
        let mut pids = vec![master];
        pids.extend(cpu::children(master)?);
        Ok(pids)
    }

    /// The versions of nginx and of the OpenSSL that it runs with, as it prints them.
    ///
    /// # Errors
    /// If nginx is not installed or prints no version.
    pub fn version() -> io::Result<String> {
        let written = run(Command::new(PROGRAM).arg("-V"), PACKAGE)?;
        let line = |start: &str| written.lines().find_map(|line| line.strip_prefix(start));
        let nginx = line("nginx version: nginx/").ok_or_else(|| {
            io::Error::other(format!("nginx printed {written:?} instead of its version"))
        })?;
        Ok(match line("built with ") {
            Some(library) => format!("{nginx}, {library}"),
            None => nginx.to_owned(),
        })
    }
}

impl Drop for Nginx {
    /// Asks the master to stop, because workers outlive a master that is killed.
    fn drop(&mut self) {
        let start = Instant::now();
        let mut asked = false;
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > PATIENCE {
                send("KILL", &cpu::children(self.child.id()).unwrap_or_default());
                // Both fail only if the process has just ended.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            if !asked {
                send("TERM", &[self.child.id()]);
                asked = true;
            }
            sleep(POLL);
        }
    }
}

/// The configuration file. Paths in it are relative to its folder.
///
/// `ssl_session_cache off` with `ssl_session_tickets off` is what makes each handshake a full one;
/// without `NumTickets 0`, OpenSSL sends two tickets all the same, which nobody could redeem.
/// The depth leaves room for an issuing CA below the root, which nginx's default of 1 does not.
fn configuration(address: SocketAddr, settings: Settings) -> String {
    let Settings {
        workers,
        curve,
        cipher,
    } = settings;
    format!(
        "\
daemon off;
worker_processes {workers};
pid nginx.pid;
lock_file nginx.lock;
error_log stderr warn;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
    client_body_temp_path temporary-body;
    proxy_temp_path temporary-proxy;
    fastcgi_temp_path temporary-fastcgi;
    uwsgi_temp_path temporary-uwsgi;
    scgi_temp_path temporary-scgi;
    server {{
        listen {address} ssl;
        ssl_protocols TLSv1.3;
        ssl_ecdh_curve {curve};
        ssl_conf_command Ciphersuites {cipher};
        ssl_conf_command NumTickets 0;
        ssl_certificate server.pem;
        ssl_certificate_key server-key.pem;
        ssl_client_certificate client-ca.pem;
        ssl_verify_client on;
        ssl_verify_depth 3;
        ssl_session_tickets off;
        ssl_session_cache off;
        location / {{
            return 200 \"ok\";
        }}
    }}
}}
"
    )
}

fn write_private(path: &Path, content: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(content.as_bytes())
}

/// Sends a signal to processes of ours. The standard library sends SIGKILL alone; `kill` is built
/// into every POSIX shell.
fn send(signal: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    // It fails only if the process has already ended.
    let _ = run(
        Command::new("/bin/sh").args(["-c", &format!("kill -{signal} {}", pids.join(" "))]),
        "dash",
    );
}
