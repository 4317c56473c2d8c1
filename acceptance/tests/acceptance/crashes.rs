//! The agent, its machine or the site dies, at any step of anything: nobody is ever without an
//! identity that works.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use acceptance::disk::{Disk, Loss};
use acceptance::postgres::Postgres;
use acceptance::programs::{Client, PASSWORD, Ran, Server, Site, run, scaled_clock, until};
use acceptance::secrets;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A program that aborted has no exit code.
pub const DIED: i32 = -1;
const WORKERS: u64 = 3;
const EVERY_LOSS: [u64; 3] = [0, 1, 2];

pub struct World {
    pub site: Site,
    pub server: Server,
}

impl World {
    fn new() -> Result<Self> {
        let site = Site::new()?;
        site.without_limits()?;
        let server = site.serve()?;
        site.add_user("ann")?;
        Ok(Self { site, server })
    }

    fn enrolled(&self) -> Result<Client> {
        let client = Client::new()?;
        client.enroll(&self.server, "ann")?.succeeded();
        client.agent("check-in")?.succeeded();
        Ok(client)
    }

    /// The certificates of a client's device, as the site knows them.
    fn recorded(&self, device: &str) -> Result<Vec<Value>> {
        let words = format!("certificate list --device {device} --json");
        let list = self.site.admin(&words)?.succeeded().json();
        Ok(list.as_array().context("a list")?.clone())
    }

    /// Agent and site agree which certificate is the one in use, and the site knows all others that
    /// the agent holds.
    pub fn agree(&self, client: &Client) -> Result<String> {
        let status = client.status()?;
        let serial = status["serial"].as_str().context("a serial number")?;
        let device = status["smsid"].as_str().context("an SMSID")?;
        let recorded = self.recorded(device)?;
        let current: Vec<&Value> = recorded
            .iter()
            .filter(|row| row["state"] == "valid" && !row["first_used_at"].is_null())
            .map(|row| &row["serial"])
            .collect();
        ensure!(current == [serial], "{current:?} {status}");
        for held in client.held()? {
            ensure!(
                recorded.iter().any(|row| row["serial"] == *held),
                "{held} is not recorded"
            );
        }
        Ok(device.to_owned())
    }

    /// The client goes on after whatever happened: it checks in, the site agrees with it, and it
    /// renews. `without`: what makes it go on when it has no identity that works, where that may be.
    /// Returns its device.
    fn goes_on(&self, client: &Client, without: Option<(i32, Command)>) -> Result<String> {
        let ran = client.agent("check-in")?;
        match without {
            Some((code, mut command)) if ran.code == code => {
                let ran = run(&mut command, PASSWORD)?;
                ensure!(ran.code == 0, "{ran:#?}");
            }
            _ => ensure!(ran.code == 0, "{ran:#?}"),
        }
        let device = self.agree(client)?;
        let ran = client.agent("renew --json")?;
        ensure!(ran.code == 0, "{ran:#?}");
        ensure!(ran.json()["smsid"] == *device, "another device");
        Ok(device)
    }

    fn has_no_secrets<'a>(&self, clients: impl IntoIterator<Item = &'a Client>) -> Result<()> {
        let clients: Vec<&Client> = clients.into_iter().collect();
        secrets::assert_none(&self.site, &clients, &[self.server.log()])
    }

    /// No device was made beside those of the clients, and the log holds.
    fn has_devices(&self, devices: &BTreeSet<String>) -> Result<()> {
        let list = self.site.admin("device list --json")?.succeeded().json();
        let found: BTreeSet<String> = list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|row| Some(row["smsid"].as_str().or(row["id"].as_str())?.to_owned()))
            .collect();
        ensure!(found.len() == devices.len(), "{found:?} {devices:?}");
        self.site.admin("audit verify")?.succeeded();
        Ok(())
    }
}

/// Runs `command` until it dies at its step `number`, and takes its machine's power with that loss.
/// Returns what the program did, and whether the certificate that it asked for was safe.
fn cut(client: &Client, mut command: Command, number: u64, loss: Loss) -> Result<(Ran, bool)> {
    let journal = tempfile::NamedTempFile::new()?;
    let mut disk = Disk::read(client.root())?;
    command
        .env("PERENNIAL_TEST_KILL_AT", number.to_string())
        .env("PERENNIAL_TEST_JOURNAL", journal.path());
    let ran = run(&mut command, PASSWORD)?;
    ensure!(ran.code == 0 || ran.code == DIED, "{ran:#?}");
    let journal = std::fs::read_to_string(journal.path())?;
    disk.replay(&journal)?;
    if loss == Loss::Nothing {
        let before = identity_files(client.root())?;
        disk.put_in_place(loss)?;
        let after = identity_files(client.root())?;
        ensure!(before == after, "the model is not the disk");
    } else {
        disk.put_in_place(loss)?;
    }
    Ok((ran, is_answer_safe(&journal)))
}

fn is_answer_safe(journal: &str) -> bool {
    let mut arrived = false;
    for line in journal.lines() {
        arrived |= line.starts_with("rename") && line.contains("/.certificate.pem.");
        if arrived && line.starts_with("sync-folder") {
            return true;
        }
    }
    false
}

/// Names and contents of what is in the folder of identities.
fn identity_files(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("var/lib/perennial-agent/identity")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry?.path();
            if path.is_symlink() {
                let target = std::fs::read_link(&path)?;
                found.push((
                    path.display().to_string(),
                    target.into_os_string().into_encoded_bytes(),
                ));
            } else if path.is_dir() {
                folders.push(path);
            } else {
                // One that was opened and not yet written is not in the journal.
                let content = std::fs::read(&path)?;
                if !content.is_empty() {
                    found.push((path.display().to_string(), content));
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

fn loss(number: u64) -> impl Fn(u64) -> Loss {
    move |kind| match kind {
        0 => Loss::Nothing,
        1 => Loss::Everything,
        seed => Loss::Some(number * 100 + seed),
    }
}

/// Calls `at` for the steps 1, 2, 3, … until it says that the program ended by itself. Returns the
/// number of steps, and what `make` made for each of the workers.
fn at_each_step<S: Send>(
    make: impl Fn() -> Result<S> + Sync,
    at: impl Fn(&mut S, u64) -> Result<bool> + Sync,
) -> Result<(u64, Vec<S>)> {
    let (next, end) = (AtomicU64::new(1), AtomicU64::new(u64::MAX));
    let states: Result<Vec<S>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| -> Result<S> {
                    let mut state = make()?;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number > end.load(Ordering::Relaxed) {
                            return Ok(state);
                        }
                        let ended =
                            at(&mut state, number).with_context(|| format!("step {number}"))?;
                        if ended {
                            end.fetch_min(number, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("does not panic"))
            .collect()
    });
    Ok((end.into_inner(), states?))
}

#[test]
fn a_renewal_survives_kills_and_power_cuts_at_each_step() -> Result<()> {
    let world = World::new()?;
    let devices = Mutex::new(BTreeSet::new());
    let (steps, clients) = at_each_step(
        || {
            let client = world.enrolled()?;
            let smsid = client.status()?["smsid"].clone();
            Ok((client, smsid))
        },
        |(client, smsid), number| {
            let mut ended = false;
            for loss in EVERY_LOSS.map(loss(number)) {
                let (ran, _) = cut(client, client.command("renew"), number, loss)?;
                let device = world
                    .goes_on(client, None)
                    .with_context(|| format!("{loss:?}"))?;
                ensure!(*smsid == *device, "the device is another one");
                devices.lock().expect("no panic").insert(device);
                ended = ran.code == 0;
            }
            Ok(ended)
        },
    )?;
    eprintln!("a renewal has {steps} steps");
    assert!(steps > 40, "{steps}");
    world.has_devices(&devices.into_inner().expect("no panic"))?;
    world.has_no_secrets(clients.iter().map(|(client, _)| client))
}

#[test]
fn a_first_enrollment_survives_kills_and_power_cuts_at_each_step() -> Result<()> {
    let world = World::new()?;
    let devices = Mutex::new(BTreeSet::new());
    let (steps, clients) = at_each_step(
        || Ok(Vec::new()),
        |clients, number| {
            let mut ended = false;
            for loss in EVERY_LOSS.map(loss(number)) {
                let client = Client::new()?;
                let enroll = || client.enroll_command(&world.server, "ann");
                let (ran, answered) = cut(&client, enroll(), number, loss)?;
                // Before the answer is safe, it may not be enrolled; the same device is made then.
                let again = (!answered).then(|| (3, enroll()));
                let device = world
                    .goes_on(&client, again)
                    .with_context(|| format!("{loss:?}"))?;
                devices.lock().expect("no panic").insert(device);
                if number % 10 == 0 {
                    clients.push(client);
                }
                ended = ran.code == 0;
            }
            Ok(ended)
        },
    )?;
    eprintln!("a first enrollment has {steps} steps");
    assert!(steps > 40, "{steps}");
    world.has_devices(&devices.into_inner().expect("no panic"))?;
    world.has_no_secrets(clients.iter().flatten())
}

/// A folder that a killed run made is there for the next one, and its name is not on the disk yet.
#[test]
fn an_enrollment_after_a_killed_one_survives_a_power_cut() -> Result<()> {
    let world = World::new()?;
    let made = "folder-made,";
    let mut died = 0;
    loop {
        let client = Client::new()?;
        let journal = tempfile::NamedTempFile::new()?;
        let mut disk = Disk::read(client.root())?;
        let enroll = |die_at: &str| {
            let mut command = client.enroll_command(&world.server, "ann");
            command
                .env("PERENNIAL_TEST_DIE_AT", die_at)
                .env("PERENNIAL_TEST_JOURNAL", journal.path());
            run(&mut command, PASSWORD)
        };
        if enroll(&made.repeat(died + 1))?.code != DIED {
            break;
        }
        died += 1;
        enroll("")?.succeeded();
        disk.replay(&std::fs::read_to_string(journal.path())?)?;
        disk.put_in_place(Loss::Everything)?;
        world
            .goes_on(&client, None)
            .with_context(|| format!("killed after folder {died}"))?;
    }
    ensure!(died > 3, "{died} folders are made");
    Ok(())
}

#[test]
fn an_enrollment_of_an_enrolled_computer_survives_power_cuts_at_each_step() -> Result<()> {
    let world = World::new()?;
    let devices = Mutex::new(BTreeSet::new());
    let (steps, clients) = at_each_step(
        || world.enrolled(),
        |client, number| {
            let mut ended = false;
            for loss in [1, 2].map(loss(number)) {
                let enroll = client.enroll_command(&world.server, "ann");
                let (ran, _) = cut(client, enroll, number, loss)?;
                let device = world
                    .goes_on(client, None)
                    .with_context(|| format!("{loss:?}"))?;
                devices.lock().expect("no panic").insert(device);
                ended = ran.code == 0;
            }
            Ok(ended)
        },
    )?;
    assert!(steps > 40, "{steps}");
    world.has_devices(&devices.into_inner().expect("no panic"))?;
    world.has_no_secrets(&clients)
}

#[test]
fn a_check_in_survives_kills_and_power_cuts_at_each_step() -> Result<()> {
    let world = World::new()?;
    let (steps, clients) = at_each_step(
        || world.enrolled(),
        |client, number| {
            let mut ended = false;
            for loss in EVERY_LOSS.map(loss(number)) {
                // The one before lies there until the site knows the new one.
                client.agent("renew")?.succeeded();
                let (ran, _) = cut(client, client.command("check-in"), number, loss)?;
                client.agent("check-in")?.succeeded();
                world.agree(client).with_context(|| format!("{loss:?}"))?;
                ended = ran.code == 0;
            }
            Ok(ended)
        },
    )?;
    assert!(steps > 10, "{steps}");
    world.has_no_secrets(&clients)
}

#[test]
fn a_renewal_after_expiry_survives_a_kill_at_each_step() -> Result<()> {
    // More than it has steps.
    const CLIENTS: u64 = 100;
    let now = scaled_clock(1.0)
        .split(':')
        .next()
        .context("a second")?
        .parse::<i64>()?;
    let clock = |hours: i64| format!("{now}:{}:1", now + hours * 3600);
    let mut site = Site::with("sqlite", Some(clock(0)))?;
    site.without_limits()?;
    site.configure(|text| text.replace("validity = \"365d\"", "validity = \"12h\""))?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let clients = Mutex::new(Vec::new());
    let enrolled = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while enrolled.fetch_add(1, Ordering::Relaxed) < CLIENTS {
                        let client = Client::with(Some(&clock(0)))?;
                        client.enroll(&server, "ann")?.succeeded();
                        clients.lock().expect("no panic").push(client);
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("does not panic"))
    })?;
    server.stop()?;
    site.set_clock(&clock(20));
    let address = site.serve()?;
    let world = World {
        site,
        server: address,
    };
    let (steps, _) = at_each_step(
        || Ok(()),
        |(), number| {
            let mut client = clients
                .lock()
                .expect("no panic")
                .pop()
                .context("a client")?;
            client.set_clock(&clock(20));
            // The site listens elsewhere since.
            client.goes_to(&world.server)?;
            let (ran, answered) = cut(&client, client.command("renew"), number, Loss::Nothing)?;
            let again = (!answered).then(|| (6, client.command("renew")));
            world.goes_on(&client, again)?;
            Ok(ran.code == 0)
        },
    )?;
    eprintln!("a renewal after expiry has {steps} steps");
    assert!(steps > 40, "{steps}");
    let all = world.site.admin("device list --json")?.json();
    assert_eq!(all.as_array().map(Vec::len), Some(CLIENTS as usize));
    world.site.admin("audit verify")?.succeeded();
    Ok(())
}

#[test]
fn a_preference_is_the_old_one_or_the_new_one_after_a_power_cut() -> Result<()> {
    let world = World::new()?;
    let key = "com.microsoft.ccmclient RenewalPeriod1";
    let (steps, clients) = at_each_step(
        || world.enrolled(),
        |client, number| {
            let mut ended = false;
            for loss in EVERY_LOSS.map(loss(number)) {
                client
                    .agent(&format!("defaults write {key} 1728000"))?
                    .succeeded();
                let mut write = client.command("defaults");
                write.args([
                    "write",
                    "com.microsoft.ccmclient",
                    "RenewalPeriod1",
                    "864000",
                ]);
                let (ran, _) = cut(client, write, number, loss)?;
                let read = client.agent(&format!("defaults read {key}"))?.succeeded();
                let read = read.out.trim();
                ensure!(
                    read == "864000" || (read == "1728000" && ran.code == DIED),
                    "{read}"
                );
                // What else is in the same list is still there.
                client.agent("check-in")?.succeeded();
                world.agree(client)?;
                ended = ran.code == 0;
            }
            Ok(ended)
        },
    )?;
    assert!(steps >= 6, "{steps}");
    world.has_no_secrets(&clients)
}

/// Where a site dies while it issues a certificate: signed and not recorded, in the transaction after
/// all its statements, recorded and nobody knows, recorded and known before the answer.
const SITE_DIES_AT: [&str; 4] = [
    "issue-signed",
    "issue-signed,applied",
    "issue-signed,committed",
    "issue-signed,issue-recorded",
];

/// A client asks, the site dies at `point`, is started again, and the client asks again.
fn the_site_dies(mut site: Site, points: &[&str]) -> Result<()> {
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    let smsid = client.status()?["smsid"].clone();
    let mut every = client.held()?;
    server.stop()?;
    for (done, point) in points.iter().enumerate() {
        let dying = [("PERENNIAL_TEST_DIE_AT", *point)];

        let mut server = site.serve_with(&dying)?;
        client.goes_to(&server)?;
        let ran = client.agent("renew")?;
        ensure!(ran.code == 5, "{point}: {ran:#?}");
        until("the site died", || server.has_ended())?;
        let server = site.serve()?;
        client.goes_to(&server)?;
        let ran = client.agent("renew")?;
        ensure!(ran.code == 0, "{point}: {ran:#?}");
        every.extend(client.held()?);

        // A first enrollment, too: it makes one device.
        server.stop()?;
        let other = Client::new()?;
        let mut server = site.serve_with(&dying)?;
        let ran = other.enroll(&server, "ann")?;
        ensure!(ran.code == 5, "{point}: {ran:#?}");
        until("the site died", || server.has_ended())?;
        let world = World {
            server: site.serve()?,
            site,
        };
        other.enroll(&world.server, "ann")?.succeeded();
        let device = world.goes_on(&other, None)?;
        ensure!(world.recorded(&device)?.len() == 2, "{point}");
        let devices = world.site.admin("device list --json")?.json();
        ensure!(
            devices.as_array().map(Vec::len) == Some(done + 2),
            "{point}: {devices}"
        );

        ensure!(
            *world.agree(&client)? == smsid,
            "{point}: the device is another one"
        );
        client.goes_to(&world.server)?;
        client.agent("check-in")?.succeeded();
        // One row for each key: the lost answer was given again.
        let recorded = world.recorded(smsid.as_str().context("an SMSID")?)?;
        ensure!(recorded.len() == done + 2, "{point}: {recorded:?}");
        for serial in &every {
            ensure!(
                recorded.iter().any(|row| row["serial"] == **serial),
                "{point}: {serial}"
            );
        }
        world.site.admin("audit verify")?.succeeded();
        world.has_no_secrets([&client, &other])?;
        world.server.stop()?;
        site = world.site;
    }
    Ok(())
}

#[test]
fn a_site_on_sqlite_dies_at_each_step_of_an_issue() -> Result<()> {
    let site = Site::new()?;
    site.without_limits()?;
    the_site_dies(site, &SITE_DIES_AT)
}

#[test]
fn a_site_on_postgresql_dies_before_and_after_the_commit_of_an_issue() -> Result<()> {
    let postgres = Postgres::start()?;
    let site = Site::with(&postgres.database()?, None)?;
    site.without_limits()?;
    the_site_dies(site, &SITE_DIES_AT[1..3])
}
