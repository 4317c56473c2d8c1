//! The daemon's socket for the programs of this computer's users (`protocol`'s `/local/v1/…`): HTTP on
//! the daemon's one thread. The system tells who calls; what each may do is decided here and in
//! `requests.rs`. Every caller counts as hostile: it has a share of everything and no more (`limits.rs`),
//! a limited time (`patience.rs`), and holds nothing that others wait for.

mod answer;
mod events;
mod limits;
mod look;
mod patience;
mod requests;
mod status;
mod work;

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::LOCAL_LIMIT;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};

use crate::identity::Machine;
use crate::platform::Layout;

use answer::Refusal;
use events::{Listeners, Present};
use limits::{Buckets, Place, Places};
use patience::Patient;
use work::Queue;

/// What callers are granted.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once: of all users, and of each.
    pub connections: usize,
    pub connections_each: usize,
    /// Requests of a user at once, and how long until there is one more.
    pub requests: u32,
    pub request_every: Duration,
    /// Attempts with a password of a user at once, and how long until there is one more.
    pub passwords: u32,
    pub password_every: Duration,
    /// Archives for diagnostics, in the same way.
    pub archives: u32,
    pub archive_every: Duration,
    /// Works that wait for their turn.
    pub works: usize,
    /// Time for a request's head, for its body, and until an answer is read on.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            connections_each: 8,
            requests: 100,
            request_every: Duration::from_millis(200),
            passwords: 3,
            password_every: Duration::from_secs(30),
            archives: 2,
            archive_every: Duration::from_secs(60),
            works: 8,
            patience: Duration::from_secs(10),
        }
    }
}

/// Who calls, as the system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Caller {
    uid: u32,
    /// Root, or who runs an agent below another root.
    is_root: bool,
}

/// What the daemon has for local callers. All of it is on one thread.
pub struct Local {
    machine: Machine,
    bounds: Bounds,
    /// What listeners hear about.
    present: watch::Sender<Present>,
    listeners: Rc<Listeners>,
    places: Rc<Places>,
    requests: RefCell<Buckets>,
    passwords: RefCell<Buckets>,
    queue: Rc<Queue>,
    /// Who waits to put a reminder off.
    put_offs: Rc<Queue>,
    archives: RefCell<Buckets>,
    /// One archive of users at a time.
    archiving: Arc<Semaphore>,
    /// Rings when a caller's work changed something: the daemon looks what is due now.
    changed: Notify,
}

impl Local {
    pub fn new(machine: &Machine, bounds: Bounds) -> Rc<Self> {
        let root = rustix::process::geteuid().as_raw();
        Rc::new(Self {
            machine: machine.clone(),
            bounds,
            present: watch::Sender::new(Present::of(machine)),
            listeners: Rc::default(),
            places: Places::new(root, bounds.connections, bounds.connections_each),
            requests: RefCell::new(Buckets::new(bounds.requests, bounds.request_every)),
            passwords: RefCell::new(Buckets::new(bounds.passwords, bounds.password_every)),
            queue: Queue::new(bounds.works),
            put_offs: Queue::new(bounds.works),
            archives: RefCell::new(Buckets::new(bounds.archives, bounds.archive_every)),
            archiving: Arc::new(Semaphore::new(1)),
            changed: Notify::new(),
        })
    }

    /// Looks what is so now, and tells listeners of what is news.
    pub fn refresh(&self) {
        let now = Present::of(&self.machine);
        self.present.send_if_modified(|present| {
            let is_news = *present != now;
            *present = now;
            is_news
        });
    }

    /// The users before whom a program listens.
    pub fn windows(&self) -> Vec<u32> {
        self.listeners.users()
    }

    /// Ends when a caller's work changed something.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Serves callers for ever. Must run inside a [`tokio::task::LocalSet`].
    pub async fn serve(self: &Rc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) => {
                    // Out of file descriptors, most likely: connections end and give some back.
                    tracing::error!(event = "accept-failed", %error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn welcome(self: &Rc<Self>, stream: UnixStream) {
        let Ok(peer) = stream.peer_cred() else { return };
        let uid = peer.uid();
        let own = rustix::process::geteuid().as_raw();
        let is_root = uid == 0 || (!self.machine.layout.is_machine() && uid == own);
        let caller = Caller { uid, is_root };
        match self.admit(caller) {
            Ok(place) => {
                tokio::task::spawn_local(connection(self.clone(), stream, caller, place));
            }
            Err(refusal) => {
                // In one piece or not at all: nobody waits for who was not let in.
                if let Ok(mut stream) = stream.into_std() {
                    let _ = stream.write(refusal.raw().as_bytes());
                }
            }
        }
    }

    fn admit(&self, caller: Caller) -> Result<Place, Refusal> {
        if !caller.is_root && !is_logged_in(&self.machine.layout, caller.uid) {
            return Err(Refusal::forbidden(
                "only users who are logged in at this computer may ask its agent",
            ));
        }
        let place = self.places.take(caller.uid);
        let place = place.ok_or_else(|| Refusal::busy("too many connections; close some"))?;
        let now = self.machine.clock.elapsed();
        match caller.is_root || self.requests.borrow_mut().take(caller.uid, now) {
            true => Ok(place),
            false => Err(Refusal::busy("too many requests; wait a moment")),
        }
    }
}

async fn connection(local: Rc<Local>, stream: UnixStream, caller: Caller, _place: Place) {
    let patience = local.bounds.patience;
    let stream = TokioIo::new(Patient::new(stream, patience));
    let service = service_fn(|request| {
        let local = local.clone();
        async move { Ok::<_, Infallible>(requests::answer(&local, caller, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_headers(32)
        .max_buf_size(LOCAL_LIMIT)
        // One request for each connection: so both are counted at once.
        .keep_alive(false)
        .serve_connection(stream, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(event = "local-connection-broke", uid = caller.uid, %error);
    }
}

/// Where logind says who is logged in, others are not: services that somebody broke into, also those of
/// users who only linger, and the further user ids that one user may have.
fn is_logged_in(layout: &Layout, uid: u32) -> bool {
    let users = layout.logged_in_users();
    if !users.is_dir() {
        return true;
    }
    let user = fs::read_to_string(users.join(uid.to_string())).unwrap_or_default();
    user.lines()
        .any(|line| matches!(line, "STATE=active" | "STATE=online"))
}

/// The socket's file. Removed when dropped.
pub struct Socket(PathBuf);

impl Socket {
    /// Listens below the machine's root, for everybody. Where there was a socket, it is replaced: the
    /// caller is the only daemon. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When the folder cannot be made, or the path is too long for a socket.
    pub fn listen(layout: &Layout) -> io::Result<(Self, UnixListener)> {
        let folder = layout.runtime();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let path = layout.socket();
        let part = folder.join(".agent.sock.part");
        let _ = fs::remove_file(&part);
        // Whoever finds it under its name can connect to it.
        let listener = UnixListener::bind(&part)?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o666))?;
        fs::rename(&part, &path)?;
        Ok((Self(path), listener))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
