//! The daemon's socket: what callers get, and what hostile ones do not get. All of it over real sockets,
//! and as another user where the tests run as root.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent::identity::Machine;
use agent::local::{Bounds, Local, Socket};
use agent::state::Trouble;
use domain::{RenewalMode, Timestamp};
use jiff::SignedDuration;
use protocol::{LOCAL_LIMIT, LocalEvent, LocalStatus, PutOff, RenewalStep, TroubleOf};
use serde_json::json;
use tokio::sync::mpsc as channel;
use tokio::task::LocalSet;

use crate::place::Place;

const CANARY: &str = "canary-77b1";
const NOBODY: u32 = 65534;

/// The socket of a place's agent, served by a thread.
pub struct Served {
    pub place: Place,
    path: PathBuf,
    /// What the daemon does when something changed. Closing it ends the thread.
    refresh: Option<channel::UnboundedSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub fn new() -> Self {
        Self::with(Place::new(), Bounds::default())
    }

    fn with(place: Place, bounds: Bounds) -> Self {
        // Other users come as far as the socket.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(place.root(), open).expect("set");
        let path = place.machine.layout.socket();
        let mut served = Self {
            place,
            path,
            refresh: None,
            thread: None,
        };
        served.start(bounds);
        served
    }

    pub fn start(&mut self, bounds: Bounds) {
        let machine = self.place.machine.clone();
        let (refresh, refreshes) = channel::unbounded_channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || serve(&machine, bounds, refreshes, &ready));
        is_ready.recv().expect("it listens");
        self.refresh = Some(refresh);
        self.thread = Some(thread);
    }

    pub fn stop(&mut self) {
        self.refresh = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn refresh(&self) {
        let refresh = self.refresh.as_ref().expect("it runs");
        refresh.send(()).expect("it runs");
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).expect("it listens");
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).expect("set");
        stream.set_write_timeout(patience).expect("set");
        stream
    }

    /// The whole answer to a request.
    fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("sent");
        Answer::read(stream)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&get(path))
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(&post(path, body))
    }

    /// The same, as a user without privileges; none where the tests do not run as root.
    fn ask_as_nobody(&self, request: &str) -> Option<Answer> {
        let mut child = as_nobody(&self.path, "ask")?;
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(request.as_bytes()).expect("sent");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        // What the test program itself says stands before and after.
        let answer = out.split(MARK).nth(1).expect("an answer");
        Some(Answer(answer.to_owned()))
    }

    fn is_well(&self) {
        assert_eq!(self.get(STATUS).status(), 200);
    }

    fn change_state(&self, change: impl FnOnce(&mut agent::state::State)) {
        let machine = &self.place.machine;
        let mut state = machine.state();
        change(&mut state);
        machine.write_state(&state).expect("written");
        self.refresh();
    }

    fn manage(&self, keys: &[(&str, plist::Value)]) {
        let folder = self.place.root().join("etc/perennial/managed");
        std::fs::create_dir_all(&folder).expect("made");
        let keys: plist::Dictionary = keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        let file = folder.join("com.microsoft.ccmclient.plist");
        plist::Value::Dictionary(keys)
            .to_file_xml(file)
            .expect("written");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(
    machine: &Machine,
    bounds: Bounds,
    mut refreshes: channel::UnboundedReceiver<()>,
    ready: &mpsc::Sender<()>,
) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let local = Local::new(machine, bounds);
        let (_socket, listener) = Socket::listen(&machine.layout).expect("a socket");
        ready.send(()).expect("somebody waits");
        let work = async {
            loop {
                tokio::select! {
                    more = refreshes.recv() => if more.is_none() { return },
                    () = local.changed() => {}
                }
                local.refresh();
            }
        };
        tokio::select! {
            () = local.serve(listener) => {}
            () = work => {}
        }
    });
}

const STATUS: &str = "/local/v1/status";
const EVENTS: &str = "/local/v1/events";
const RENEWALS: &str = "/local/v1/renewals";
const ENROLLMENTS: &str = "/local/v1/enrollments";
const CHECK_INS: &str = "/local/v1/check-ins";
const LATER: &str = "/local/v1/later";
const DIAGNOSTICS: &str = "/local/v1/diagnostics";

/// HTTP/1.0, so that streams come as they are.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.0\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn credentials(user: &str, password: &str) -> String {
    json!({ "user": user, "password": password }).to_string()
}

#[derive(Debug)]
struct Answer(String);

impl Answer {
    fn read(mut stream: UnixStream) -> Self {
        let mut bytes = Vec::new();
        // One who is not let in may find the connection reset after the answer.
        let _ = stream.read_to_end(&mut bytes);
        Self(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// 0 when there is none.
    fn status(&self) -> u16 {
        let status = self.0.split(' ').nth(1);
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(self.body()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn steps(&self) -> Vec<RenewalStep> {
        let lines = self.body().lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a step"))
            .collect()
    }

    fn failure(&self) -> String {
        match self.steps().pop() {
            Some(RenewalStep::Refused { failure, .. }) => failure.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

const ROLE: &str = "PERENNIAL_TEST_NOBODY";
const MARK: &str = "=====";

/// This test program again, as `nobody`.
fn as_nobody(socket: &Path, role: &str) -> Option<Child> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let own = std::env::current_exe().expect("a program knows its own file");
    let child = Command::new(own)
        .args(["--exact", "local::nobody", "--ignored", "--nocapture"])
        .env(ROLE, format!("{role}:{}", socket.display()))
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Some(child.expect("it starts"))
}

#[test]
#[ignore = "what others start as another user"]
fn nobody() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let (role, socket) = role.split_once(':').expect("a role");
    let mut request = String::new();
    match role {
        "ask" => {
            io::stdin().read_to_string(&mut request).expect("a request");
            let mut stream = UnixStream::connect(socket).expect("it listens");
            stream.write_all(request.as_bytes()).unwrap_or_default();
            println!("{MARK}{}{MARK}", Answer::read(stream).0);
        }
        "flood" => {
            let held: Vec<_> = (0..1000).map(|_| UnixStream::connect(socket)).collect();
            let held: Vec<_> = held.into_iter().flatten().collect();
            let count = || {
                let waits = held.iter().filter(|stream| {
                    let mut stream = *stream;
                    stream.set_nonblocking(true).expect("set");
                    let read = stream.read(&mut [0; 512]);
                    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
                });
                waits.count()
            };
            // Until the agent has seen them all.
            let mut open = count();
            for _ in 0..50 {
                std::thread::sleep(Duration::from_millis(200));
                let now = count();
                if now == open && now < 100 {
                    break;
                }
                open = now;
            }
            println!("{MARK}{open}{MARK}");
            io::stdin().read_to_string(&mut request).expect("an end");
        }
        _ => unreachable!("no such role"),
    }
}

#[test]
fn the_socket_is_for_everybody_and_its_folder_for_the_agent() {
    let mut served = Served::new();
    let mode = |path: &Path| {
        let found = std::fs::metadata(path).expect("there");
        found.permissions().mode() & 0o7777
    };
    assert_eq!(mode(&served.path), 0o666);
    assert_eq!(mode(served.path.parent().expect("a folder")), 0o755);
    // A daemon that was killed leaves its socket behind; the next one takes its place.
    let path = served.path.clone();
    served.stop();
    assert!(!path.exists(), "it goes with the daemon");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("left behind"));
    served.start(Bounds::default());
    served.is_well();
}

#[test]
fn users_see_how_the_computer_stands() {
    let served = Served::new();
    served.manage(&[
        ("CompanyName", "Example\u{7} Ltd.".into()),
        ("HelpDesk", "help@example.com".into()),
        ("Language", "de".into()),
        ("Logo", plist::Value::Data(b"\x89PNG\r\n\x1a\nx".to_vec())),
        ("Server", "site.example.com".into()),
    ]);
    served.change_state(|state| {
        state.policy_problem = Some("the policy list is too old".to_owned());
    });
    let status: LocalStatus = served.get(STATUS).json();
    assert!(status.may_choose_server);
    assert_eq!(
        status.managed_server.as_deref(),
        Some("site.example.com:8444")
    );
    assert_eq!(status.look.company.as_deref(), Some("Example Ltd."));
    assert_eq!(status.look.language.as_deref(), Some("de"));
    assert!(status.look.logo.is_some());
    let identity = status.identity.expect("it is enrolled");
    assert_eq!(identity.user, "ann");
    assert_eq!(identity.stage, None);
    assert!(identity.may_put_off && identity.site_reachable);
    let [trouble] = identity.troubles.as_slice() else {
        panic!("{:?}", identity.troubles)
    };
    assert_eq!(trouble.of, TroubleOf::PolicyList);
    assert_eq!(trouble.detail, "the policy list is too old");
    if let Some(answer) = served.ask_as_nobody(&get(STATUS)) {
        let status: LocalStatus = answer.json();
        assert!(!status.may_choose_server, "another user is not root");
        assert_eq!(status.identity.expect("enrolled").user, "ann");
    }
}

#[test]
fn what_is_no_request_of_ours_is_refused() {
    let served = Served::new();
    for (path, status) in [
        ("/", 404),
        ("/local/v1/", 404),
        ("/local/v1/status/", 404),
        ("//local/v1/status", 404),
        ("/local/v1/../v1/status", 404),
        ("/local/v1/%73tatus", 404),
        ("/local/v1/status%00", 404),
        ("/etc/passwd", 404),
        (
            "/../../../var/lib/perennial-agent/identity/current/key.pem",
            404,
        ),
        ("/local/v1/later", 405),
        ("/local/v1/renewals", 405),
    ] {
        assert_eq!(served.get(path).status(), status, "{path}");
    }
    for (path, method) in [(STATUS, "DELETE"), (EVENTS, "POST"), (DIAGNOSTICS, "PUT")] {
        let answer = served.ask(&format!("{method} {path} HTTP/1.0\r\n\r\n"));
        assert_eq!(answer.status(), 405, "{method} {path}");
    }
    // Where a zip goes is not the caller's to say.
    let wanted = served.place.root().join("stolen.zip");
    served.get(&format!("{DIAGNOSTICS}?output={}", wanted.display()));
    assert!(!wanted.exists());
}

#[test]
fn garbage_is_refused_and_harms_nobody() {
    let served = Served::new();
    let many = "x: y\r\n".repeat(1000);
    let long = "a".repeat(100_000);
    for garbage in [
        "\r\n\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}hello\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET /local/v1/status HTTP/9.9\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("GET {STATUS} HTTP/1.1\r\n{many}\r\n"),
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
        format!("GET {STATUS} HTTP/1.1\r\nx: {long}\r\n\r\n"),
        format!("POST {RENEWALS} HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        format!("POST {RENEWALS} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    ] {
        let mut stream = served.connect();
        let _ = stream.write_all(garbage.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let status = Answer::read(stream).status();
        assert!(
            status == 0 || (400..=505).contains(&status),
            "{status}: {garbage:.80}"
        );
        served.is_well();
    }
}

#[test]
fn bodies_are_small_and_nothing_of_them_is_repeated() {
    let served = Served::new();
    let huge = "x".repeat(LOCAL_LIMIT + 1);
    let chunked = format!(
        "POST {RENEWALS} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        format!("{:x}\r\n{}\r\n", 8192, "x".repeat(8192)).repeat(3)
    );
    for (request, status) in [
        (post(RENEWALS, &huge), 413),
        (
            format!("POST {RENEWALS} HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"),
            413,
        ),
        (chunked, 413),
        (post(RENEWALS, ""), 400),
        (post(RENEWALS, CANARY), 400),
        (post(RENEWALS, &format!("\"{CANARY}\"")), 400),
        (
            post(
                RENEWALS,
                &format!(r#"{{"user":"ann","password":"x","{CANARY}":1}}"#),
            ),
            400,
        ),
        (
            post(
                RENEWALS,
                &format!(r#"{{"user":"ann","password":["{CANARY}"]}}"#),
            ),
            400,
        ),
        (post(RENEWALS, &"[".repeat(16_000)), 400),
    ] {
        let answer = served.ask(&request);
        assert_eq!(answer.status(), status, "{request:.100}");
        assert!(!answer.0.contains(CANARY), "{answer:?}");
    }
    served.is_well();
}

/// Impatient: tests need not wait long.
fn impatient() -> Bounds {
    Bounds {
        patience: Duration::from_millis(300),
        ..Bounds::default()
    }
}

#[test]
fn who_is_slow_is_let_go_and_holds_up_nobody() {
    let served = Served::with(Place::new(), impatient());
    let half = [
        String::new(),
        "GET /local/v1/sta".to_owned(),
        format!("GET {STATUS} HTTP/1.1\r\nx: "),
        format!("POST {RENEWALS} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{\"user\""),
    ];
    let mut slow: Vec<_> = half
        .iter()
        .map(|begun| {
            let mut stream = served.connect();
            stream.write_all(begun.as_bytes()).expect("sent");
            stream
        })
        .collect();
    served.is_well();
    // A letter now and then does not help.
    let begun = Instant::now();
    let mut drip = served.connect();
    let patience = Some(Duration::from_millis(50));
    drip.set_read_timeout(patience).expect("set");
    let mut byte = [0];
    while drip.write_all(b"x").is_ok() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "nobody let it go"
        );
        match drip.read(&mut byte) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    for (stream, begun) in slow.drain(..).zip(&half) {
        let answer = Answer::read(stream);
        assert!(matches!(answer.status(), 0 | 408), "{begun}: {answer:?}");
    }
}

#[test]
fn who_does_not_read_is_let_go_and_holds_no_lock() {
    let served = Served::with(Place::new(), impatient());
    // More than a socket's buffer holds.
    let log = served.place.machine.layout.logs().join("agent.log");
    std::fs::create_dir_all(log.parent().expect("a folder")).expect("made");
    let mut noise = vec![0; 4 << 20];
    domain::Rng::fill(&clock::SystemRng, &mut noise);
    std::fs::write(&log, noise).expect("written");
    let mut stalled = served.connect();
    stalled
        .write_all(get(DIAGNOSTICS).as_bytes())
        .expect("sent");
    let mut begun = [0; 12];
    stalled.read_exact(&mut begun).expect("an answer begins");
    assert!(served.place.machine.try_lock().expect("there").is_some());
    served.is_well();
    // Its buffer is full, and after a while the rest does not come any more.
    std::thread::sleep(Duration::from_millis(900));
    let rest = Answer::read(stalled).0.len();
    assert!(rest < 3 << 20, "{rest} bytes came");
    // Whoever reads gets all of it.
    let whole = served.get(DIAGNOSTICS);
    assert_eq!(whole.status(), 200);
    assert!(whole.0.len() > 4 << 20, "{}", whole.0.len());
}

#[test]
fn a_thousand_connections_leave_room_for_others() {
    let served = Served::new();
    let Some(mut flood) = as_nobody(&served.path, "flood") else {
        return;
    };
    let mut out = BufReader::new(flood.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains(MARK) {
        line.clear();
        assert_ne!(out.read_line(&mut line).expect("a line"), 0);
    }
    let open: usize = line
        .split(MARK)
        .nth(1)
        .expect("a number")
        .parse()
        .expect("one");
    assert!(open <= Bounds::default().connections_each, "{open}");
    served.is_well();
    let refused = served.ask_as_nobody(&get(STATUS)).expect("as root");
    assert_eq!(refused.status(), 429, "{refused:?}");
    drop(flood.stdin.take());
    flood.wait().expect("it ends");
    served.place.clock.pass(60);
    let again = served.ask_as_nobody(&get(STATUS)).expect("as root");
    assert_eq!(again.status(), 200, "{again:?}");
}

#[test]
fn requests_are_counted_for_each_user() {
    let bounds = Bounds {
        requests: 2,
        ..Bounds::default()
    };
    let served = Served::with(Place::new(), bounds);
    let Some(first) = served.ask_as_nobody(&get(STATUS)) else {
        return;
    };
    assert_eq!(first.status(), 200);
    served.ask_as_nobody(&get(STATUS));
    let third = served.ask_as_nobody(&get(STATUS)).expect("as root");
    assert_eq!(third.status(), 429);
    served.is_well();
    served.place.clock.pass(1);
    let later = served.ask_as_nobody(&get(STATUS)).expect("as root");
    assert_eq!(later.status(), 200);
}

#[test]
fn who_is_not_logged_in_is_not_let_in() {
    let served = Served::new();
    let users = served.place.machine.layout.logged_in_users();
    std::fs::create_dir_all(&users).expect("made");
    let Some(answer) = served.ask_as_nobody(&get(STATUS)) else {
        return;
    };
    assert_eq!(answer.status(), 403, "{answer:?}");
    assert!(answer.body().contains("logged in"), "{answer:?}");
    served.is_well();
    // Who only lingers is not before a screen, and who leaves is not any more.
    for (state, status) in [
        ("", 403),
        ("STATE=lingering\n", 403),
        ("STATE=closing\n", 403),
        ("NAME=nobody\nSTATE=online\n", 200),
        ("STATE=active\n", 200),
    ] {
        std::fs::write(users.join(NOBODY.to_string()), state).expect("written");
        let answer = served.ask_as_nobody(&get(STATUS)).expect("as root");
        assert_eq!(answer.status(), status, "{state}");
    }
}

#[test]
fn only_root_chooses_server_trust_and_user() {
    let served = Served::new();
    let pin = served.place.site.pin.to_string();
    let enrollment = |server: Option<&str>, pin: Option<&str>| {
        let credentials = json!({ "user": "eve", "password": "secret" });
        let mut request = json!({ "credentials": credentials });
        if let Some(server) = server {
            request["server"] = server.into();
        }
        if let Some(pin) = pin {
            request["pin"] = pin.into();
        }
        post(ENROLLMENTS, &request.to_string())
    };
    let Some(other_user) = served.ask_as_nobody(&post(RENEWALS, &credentials("eve", "secret")))
    else {
        return;
    };
    assert_eq!(other_user.status(), 403);
    assert!(other_user.body().contains("only root"), "{other_user:?}");
    let refused = |request: &str| {
        let answer = served.ask_as_nobody(request).expect("as root");
        assert_eq!(answer.status(), 403, "{request}: {answer:?}");
    };
    // Nothing is managed.
    refused(&enrollment(None, None));
    refused(&enrollment(Some("evil.example.com"), None));
    served.manage(&[("Server", "site.example.com".into())]);
    refused(&enrollment(Some("evil.example.com"), None));
    refused(&enrollment(Some("site.example.com:1"), None));
    refused(&enrollment(Some("site.example.com"), Some(&pin)));
    // It is enrolled, and stays ann's.
    refused(&enrollment(Some("site.example.com"), None));
    let identity = served.place.machine.enrolled().expect("enrolled");
    assert_eq!(identity.site.user, "ann");
    assert!(
        served.place.site.records().requests.is_empty(),
        "nobody asked the site"
    );
    // Root may try each of them.
    let asked = served.post(RENEWALS, &credentials("eve", "secret"));
    assert_eq!(asked.status(), 200);
}

#[test]
fn passwords_are_tried_a_few_times_a_minute() {
    let served = Served::new();
    let attempt = post(RENEWALS, &credentials("ann", "wrong"));
    for _ in 0..5 {
        assert_ne!(
            served.ask(&attempt).failure(),
            "too-many",
            "root is trusted"
        );
    }
    assert_eq!(
        served.post(RENEWALS, &credentials("ann", "")).failure(),
        "wrong-password"
    );
    if served.ask_as_nobody(&get(STATUS)).is_none() {
        return;
    }
    let asked = || served.place.site.records().requests.len();
    let before = asked();
    let failures: Vec<String> = (0..5)
        .map(|_| served.ask_as_nobody(&attempt).expect("as root").failure())
        .collect();
    assert!(
        failures[..3].iter().all(|failure| failure != "too-many"),
        "{failures:?}"
    );
    assert!(
        failures[3..].iter().all(|failure| failure == "too-many"),
        "{failures:?}"
    );
    assert_eq!(asked() - before, 3, "the site saw no more");
    served.place.clock.pass(31);
    assert_ne!(
        served.ask_as_nobody(&attempt).expect("as root").failure(),
        "too-many"
    );
    assert_eq!(
        served.ask_as_nobody(&attempt).expect("as root").failure(),
        "too-many"
    );
}

#[test]
fn a_check_in_goes_on_without_its_caller() {
    let served = Served::new();
    let check_ins = || served.place.site.records().check_ins.len();
    let steps = served.post(CHECK_INS, "").steps();
    assert_eq!(steps[0], RenewalStep::AskingTheSite);
    assert!(
        matches!(steps[1], RenewalStep::CheckedIn { .. }),
        "{steps:?}"
    );
    assert_eq!(check_ins(), 1);
    // Somebody else works; the caller goes away while it waits.
    let lock = served
        .place
        .machine
        .try_lock()
        .expect("there")
        .expect("free");
    let mut stream = served.connect();
    stream
        .write_all(post(CHECK_INS, "").as_bytes())
        .expect("sent");
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("waiting") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).expect("a line"), 0);
    }
    // A user has one work at a time.
    assert_eq!(served.post(CHECK_INS, "").status(), 429);
    drop(lines);
    served.is_well();
    assert_eq!(check_ins(), 1);
    drop(lock);
    let end = Instant::now() + Duration::from_secs(20);
    while check_ins() < 2 {
        assert!(Instant::now() < end, "it was not done");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads events, one at a time.
struct Events(BufReader<UnixStream>);

impl Events {
    fn of(served: &Served) -> Self {
        let mut stream = served.connect();
        stream.write_all(get(EVENTS).as_bytes()).expect("sent");
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            lines.read_line(&mut line).expect("a head");
        }
        Self(lines)
    }

    fn next(&mut self) -> LocalEvent {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an event");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

/// A reminder comes due.
pub fn reminded(served: &Served, at: Timestamp) {
    served.change_state(|state| {
        state.renewal_mode = RenewalMode::Prompt;
        state.last_reminder = Some(at);
        state.reminder_waits = Some(at);
    });
}

#[test]
fn listeners_hear_what_is_so_and_what_changes() {
    let served = Served::new();
    let mut events = Events::of(&served);
    assert_eq!(events.next(), LocalEvent::SiteReachable(true));
    reminded(&served, served.place.clock.real());
    assert!(matches!(events.next(), LocalEvent::ReminderDue { .. }));
    // Who comes later hears the same.
    let mut late = Events::of(&served);
    assert_eq!(late.next(), LocalEvent::SiteReachable(true));
    assert!(matches!(late.next(), LocalEvent::ReminderDue { .. }));
    let put_off: PutOff = served.post(LATER, "").json();
    assert!(put_off.until.is_some(), "{put_off:?}");
    assert_eq!(put_off.put_off, 0, "counted in the second period alone");
    for events in [&mut events, &mut late] {
        assert_eq!(events.next(), LocalEvent::ReminderDone);
    }
    // What does not wait is not put off, however often somebody asks.
    let before = served.place.machine.state();
    served.place.clock.pass(1000);
    assert_eq!(served.post(LATER, "").status(), 200);
    assert_eq!(served.place.machine.state(), before);
}

#[test]
fn a_site_that_a_user_did_not_reach_is_away_for_all() {
    let served = Served::new();
    let mut events = Events::of(&served);
    assert_eq!(events.next(), LocalEvent::SiteReachable(true));
    served.place.site.records().away = true;
    let trouble = || served.place.machine.state().trouble;
    let check_in = || served.post(CHECK_INS, "").steps();
    assert!(matches!(check_in()[1], RenewalStep::Refused { .. }));
    assert_eq!(events.next(), LocalEvent::SiteReachable(false));
    let first = trouble().expect("remembered");
    let state = served.place.machine.state();
    assert!(
        state.next_check_in.is_none_or(|at| at <= first.next),
        "{state:?}"
    );
    // Who asks again and again does not make the agent's own next attempt late.
    served.place.clock.pass(5);
    for _ in 0..3 {
        check_in();
    }
    assert_eq!(trouble(), Some(first));
    // Nor does a site that is there again stay away because a silent renewal did not reach it.
    let now = served.place.clock.real();
    served.change_state(|state| {
        state.renewal_trouble = Some(Trouble {
            at: now,
            what: "nobody is there".to_owned(),
            refused: false,
            failures: 5,
            next: now + SignedDuration::from_hours(1),
        });
    });
    served.place.clock.pass(5);
    served.place.site.records().away = false;
    assert!(matches!(check_in()[1], RenewalStep::CheckedIn { .. }));
    assert_eq!(events.next(), LocalEvent::SiteReachable(true));
    assert_eq!(trouble(), None);
    let renewal = served.place.machine.state().renewal_trouble;
    assert!(renewal.is_some_and(|trouble| trouble.next <= now + SignedDuration::from_mins(1)));
    // What a site refuses it says, and so it is there.
    served.place.site.records().away = true;
    check_in();
    assert_eq!(events.next(), LocalEvent::SiteReachable(false));
    served.change_state(|state| state.note_reachable());
    assert_eq!(events.next(), LocalEvent::SiteReachable(true));
}

#[test]
fn management_bounds_how_often_it_is_put_off() {
    let served = Served::new();
    served.manage(&[("MaximumPutOffs", "1".into())]);
    // One day is left: the second period.
    served.place.clock.pass((10_000 - 24) * 3600);
    let status = || -> LocalStatus { served.get(STATUS).json() };
    for (number, may) in [(0, true), (1, false)] {
        reminded(&served, served.place.clock.real());
        let identity = status().identity.expect("enrolled");
        assert_eq!((identity.put_off, identity.may_put_off), (number, may));
        let answer = served.post(LATER, "");
        assert_eq!(answer.status(), if may { 200 } else { 403 }, "{answer:?}");
        served.place.clock.pass(60);
    }
    assert!(served.place.machine.state().reminder_waits.is_some());
    assert_eq!(served.place.machine.state().put_off, 1);
}

#[tokio::test]
async fn who_has_windows_is_not_told_on_a_terminal_as_well() {
    let place = Place::new();
    let layout = &place.machine.layout;
    let terminal = layout.devices().join("pts/7");
    for file in [&terminal, &layout.log_ins()] {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    }
    let mut record = vec![0; 384];
    record[..2].copy_from_slice(&7_i16.to_ne_bytes());
    record[8..13].copy_from_slice(b"pts/7");
    std::fs::write(layout.log_ins(), record).expect("written");
    place
        .machine
        .preferences()
        .set(&[("RenewalPeriod1", "99999999".to_owned())])
        .expect("set");
    let own = rustix::process::geteuid().as_raw();
    for (windows, is_told) in [(vec![own], false), (vec![own + 1], true), (vec![], true)] {
        std::fs::write(&terminal, "").expect("written");
        let due = agent::state::State {
            renewal_mode: RenewalMode::Prompt,
            ..Default::default()
        };
        place.machine.write_state(&due).expect("written");
        let listen = || windows.clone();
        let shown = agent::reminder::show_when_due(&place.machine, &listen).await;
        shown.expect("shown");
        assert!(place.machine.state().reminder_waits.is_some());
        let told = std::fs::read_to_string(&terminal).expect("there");
        assert_eq!(!told.is_empty(), is_told, "{windows:?}");
    }
}
