//! The power of the site's machine is cut, at any time, on a disk that loses what was not flushed:
//! what the site told anybody is recorded afterwards, and everybody goes on with what they hold.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use acceptance::disk::{Disk, Left, Loss};
use acceptance::est;
use acceptance::programs::{Client, PASSWORD, Server, Site, run};
use acceptance::trace::{self, Replay, SHARED_MEMORY, Trace, traced};
use anyhow::{Context, Result, bail, ensure};
use clock::SystemRng;
use domain::{CertificateState, DeviceId, DeviceState, SerialNumber, Timestamp};
use store::{CertificateFilter, Location, Store};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use x509::{Certificate, PrivateKey};

use crate::crashes::World;

const WORKERS: usize = 2;
/// Of so many disks one more is tried with a real site.
const RESTART_EVERY: usize = 60;

#[test]
fn what_a_site_acknowledged_survives_power_cuts() -> Result<()> {
    let mut machine = Machine::new()?;
    let told = Told::default();
    let clients = [Client::new()?, Client::new()?, Client::new()?];
    machine.init()?;
    machine.serve(|site, server| first_day(site, server, &clients, &told))?;
    machine.serve(|_, server| second_day(server, &clients, &told))?;
    machine.serve(|site, server| third_day(site, server, &clients, &told))?;

    let told = told.after_calls(&machine.trace);
    let begin = told.first().context("something was told")?.0;
    let runtime = Runtime::new()?;
    let restarts = AtomicUsize::new(0);
    let cuts = machine.cut_everywhere(begin, &told, |cut| {
        let known = Known::after(&told, cut.calls);
        let is_told = known.is_new_to_a_client && cut.loss != Loss::Nothing;
        if !is_told && !cut.number.is_multiple_of(RESTART_EVERY) {
            return runtime.block_on(known.is_recorded(cut.disk.path()));
        }
        restarts.fetch_add(1, Ordering::Relaxed);
        let site = site_on(cut.disk.path());
        let world = World {
            server: site.serve()?,
            site,
        };
        runtime.block_on(known.is_recorded(cut.disk.path()))?;
        known.goes_on(&world)
    })?;
    let restarts = restarts.into_inner();
    eprintln!("{cuts} disks, {restarts} of them with a site");
    assert!(cuts > 100 && restarts > 10, "{cuts} {restarts}");
    Ok(())
}

#[test]
fn making_a_site_survives_power_cuts_at_each_step() -> Result<()> {
    let mut machine = Machine::new()?;
    machine.init()?;
    let made = machine.trace.calls();
    let told = [(made, Fact::Made)];
    let cuts = machine.cut_everywhere(1, &told, |cut| {
        let site = site_on(cut.disk.path());
        if cut.calls < made {
            let ran = run(&mut site.init_command("sqlite"), "")?;
            ensure!(ran.code == 0, "{ran:#?}");
        }
        let _server = site.serve()?;
        site.add_user("ann")
    })?;
    eprintln!("{cuts} disks");
    assert!(cuts > 20, "{cuts}");
    Ok(())
}

/// Each client enrolls and renews, and two die on the way. Then several enroll and renew at once.
fn first_day(site: &Site, server: Server, clients: &[Client], told: &Told) -> Result<()> {
    site.add_user("ann")?;
    told.tell(Fact::Account("ann"));
    for (number, client) in clients.iter().enumerate() {
        told.ask(number);
        client.enroll(&server, "ann")?.succeeded();
        told.uses(client)?;
        told.holds(number, client)?;
    }
    // The new certificate is on its disk and not used; it is used and not yet the one in use.
    let dies_at = ["", "answered,answered,asking", "answered,answered,answered"];
    for (number, (client, point)) in clients.iter().zip(dies_at).enumerate() {
        told.ask(number);
        let mut renew = client.command("renew");
        run(renew.env("PERENNIAL_TEST_DIE_AT", point), "")?;
        told.holds(number, client)?;
    }
    let blocked = at_once(&server, told)?;
    site.admin(&format!("device block {blocked}"))?.succeeded();
    told.tell(Fact::Blocked(blocked));
    server.stop()?;
    Ok(())
}

fn second_day(server: Server, clients: &[Client], told: &Told) -> Result<()> {
    for (number, client) in clients.iter().enumerate() {
        client.goes_to(&server)?;
        for words in ["check-in", "renew"] {
            told.ask(number);
            client.agent(words)?.succeeded();
            told.uses(client)?;
            told.holds(number, client)?;
        }
    }
    server.kill()
}

/// What the server before wrote is still in the database's log, and leaves it at the end.
fn third_day(site: &Site, server: Server, clients: &[Client], told: &Told) -> Result<()> {
    told.ask(0);
    clients[0].goes_to(&server)?;
    clients[0].agent("renew")?.succeeded();
    told.uses(&clients[0])?;
    told.holds(0, &clients[0])?;
    at_once(&server, told)?;
    server.stop()?;
    let log = site.folder().join("site.db-wal");
    ensure!(!log.exists(), "a clean stop leaves one file");
    Ok(())
}

/// Devices enroll and renew at the same time. Returns one of them.
fn at_once(server: &Server, told: &Told) -> Result<DeviceId> {
    Runtime::new()?.block_on(async {
        let live = || live(server, told);
        let (device, ..) = tokio::try_join!(live(), live(), live())?;
        Ok(device)
    })
}

async fn live(server: &Server, told: &Told) -> Result<DeviceId> {
    let serial = |certificate: &Certificate| certificate.serial().context("a serial number");
    let mut key = PrivateKey::generate();
    let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
    let mut certificate = est::certificate(&answer);
    told.tell(Fact::Issued(serial(&certificate)?));
    let device = certificate.device().context("a device")?;
    for _ in 0..2 {
        let next = PrivateKey::generate();
        let client = est::client(&server.devices, server.pin, Some((&key, &certificate)));
        let request = est::request("simplereenroll", est::body(&next));
        let answer = client.send(request).await?;
        let issued = est::certificate(&answer);
        // Who renews with a certificate uses it.
        told.tell(Fact::Used(device, serial(&certificate)?));
        told.tell(Fact::Issued(serial(&issued)?));
        (key, certificate) = (next, issued);
    }
    Ok(device)
}

/// What the site told, and when it was known to have.
#[derive(Default)]
struct Told(Mutex<Vec<(Timestamp, Fact)>>);

enum Fact {
    /// The site is made.
    Made,
    Account(&'static str),
    Blocked(DeviceId),
    Issued(SerialNumber),
    /// The device's current certificate, until a later one is used.
    Used(DeviceId, SerialNumber),
    /// A client has this disk, and does nothing.
    Holds(usize, Client),
    /// A client does something.
    Asks(usize),
}

impl Told {
    fn tell(&self, fact: Fact) {
        let mut told = self.0.lock().expect("no holder panics");
        told.push((trace::now(), fact));
    }

    fn ask(&self, client: usize) {
        self.tell(Fact::Asks(client));
    }

    /// A client finished something.
    fn uses(&self, client: &Client) -> Result<()> {
        let status = client.status()?;
        let text = |key: &str| status[key].as_str().context("a text");
        self.tell(Fact::Used(
            text("smsid")?.parse()?,
            text("serial")?.parse()?,
        ));
        Ok(())
    }

    fn holds(&self, number: usize, client: &Client) -> Result<()> {
        for serial in client.held()? {
            self.tell(Fact::Issued(serial.parse()?));
        }
        self.tell(Fact::Holds(number, client.copy()?));
        Ok(())
    }

    /// After how many calls of the site each of it was known.
    fn after_calls(self, trace: &Trace) -> Vec<(usize, Fact)> {
        let told = self.0.into_inner().expect("no holder panics");
        told.into_iter()
            .map(|(at, fact)| match fact {
                // What came before it asked changes nothing for it.
                Fact::Asks(_) => (trace.until_answered(at) + 1, fact),
                _ => (trace.until_answered(at), fact),
            })
            .collect()
    }
}

/// What was known after some calls of the site.
#[derive(Default)]
struct Known<'a> {
    accounts: Vec<&'a str>,
    blocked: Vec<DeviceId>,
    issued: Vec<SerialNumber>,
    /// By device: the current certificate, if there is one yet, and those that are used later.
    used: BTreeMap<DeviceId, (bool, Vec<SerialNumber>)>,
    idle: BTreeMap<usize, &'a Client>,
    is_new_to_a_client: bool,
}

impl<'a> Known<'a> {
    fn after(told: &'a [(usize, Fact)], calls: usize) -> Self {
        let mut known = Self::default();
        for (known_after, fact) in told {
            let is_known = *known_after <= calls;
            match fact {
                Fact::Used(device, serial) => {
                    let (has_one, used) = known.used.entry(*device).or_default();
                    if is_known {
                        *has_one = true;
                        used.clear();
                    }
                    used.push(*serial);
                }
                _ if !is_known => {}
                Fact::Made => {}
                Fact::Account(name) => known.accounts.push(name),
                Fact::Blocked(device) => known.blocked.push(*device),
                Fact::Issued(serial) => known.issued.push(*serial),
                Fact::Holds(number, client) => {
                    known.idle.insert(*number, client);
                    known.is_new_to_a_client |= *known_after == calls;
                }
                Fact::Asks(number) => {
                    known.idle.remove(number);
                }
            }
        }
        known
    }

    /// The records on a disk have all of it, and the audit log holds.
    async fn is_recorded(&self, disk: &Path) -> Result<()> {
        let file = disk.join("site/site.db");
        let store = Store::open(&Location::Sqlite(file), "test", Arc::new(SystemRng)).await?;
        for name in &self.accounts {
            ensure!(store.account(name).await?.is_some(), "no account {name}");
        }
        for device in &self.blocked {
            let found = store.device(*device).await?.context("no such device")?;
            ensure!(
                found.state == DeviceState::Blocked,
                "{device} is not blocked"
            );
        }
        let all = CertificateFilter {
            limit: 1000,
            ..CertificateFilter::default()
        };
        let recorded = store.certificates(&all).await?.items;
        for serial in &self.issued {
            ensure!(
                recorded.iter().any(|row| row.serial == *serial),
                "{serial} was issued, and is not recorded"
            );
        }
        for (device, (has_one, used)) in &self.used {
            let current: Vec<SerialNumber> = recorded
                .iter()
                .filter(|row| row.device == *device && row.first_used_at.is_some())
                .filter(|row| row.state == CertificateState::Valid)
                .map(|row| row.serial)
                .collect();
            match &current[..] {
                [] => ensure!(!has_one, "{device} has no certificate"),
                [one] => ensure!(used.contains(one), "{device} does not use {one}"),
                two => bail!("{device} has more than one: {two:?}"),
            }
        }
        let proof = store.verify_audit(&|_, _| true).await?;
        ensure!(proof.faults.is_empty(), "{:?}", proof.faults);
        store.close().await;
        Ok(())
    }

    /// Clients that were doing nothing check in, agree with the site, and renew.
    fn goes_on(&self, world: &World) -> Result<()> {
        for client in self.idle.values() {
            let client = client.copy()?;
            client.goes_to(&world.server)?;
            for words in ["check-in", "renew"] {
                let ran = client.agent(words)?;
                ensure!(ran.code == 0, "{ran:#?}");
                world.agree(&client)?;
            }
        }
        world.site.admin("audit verify")?.succeeded();
        Ok(())
    }
}

/// The site's machine. Everything on its disk is made by programs that are traced.
struct Machine {
    disk: TempDir,
    before: Disk,
    trace: Trace,
    log: TempDir,
}

/// A disk that a power cut left.
struct Cut {
    number: usize,
    calls: usize,
    loss: Loss,
    disk: TempDir,
}

impl Machine {
    fn new() -> Result<Self> {
        trace::is_possible()?;
        let disk = tempfile::tempdir()?;
        Ok(Self {
            before: Disk::read(disk.path())?,
            trace: Trace::below(disk.path())?,
            disk,
            log: tempfile::tempdir()?,
        })
    }

    fn init(&mut self) -> Result<()> {
        let log = self.log.path().join("calls");
        let init = site_on(self.disk.path()).init_command("sqlite");
        run(&mut traced(&init, &log), "")?.succeeded();
        self.trace.add(&log)
    }

    /// Runs a server, which `life` ends.
    fn serve(&mut self, life: impl FnOnce(&Site, Server) -> Result<()>) -> Result<()> {
        let log = self.log.path().join("calls");
        let site = site_on(self.disk.path());
        life(&site, site.serve_traced(&log)?)?;
        self.trace.add(&log)
    }

    /// Cuts the power after each call from `begin` on that matters, with each loss, and looks whether
    /// it `holds` on what is left. Returns how many disks were left, without those that were the
    /// same when the same was known.
    fn cut_everywhere(
        self,
        begin: usize,
        told: &[(usize, Fact)],
        holds: impl Fn(&Cut) -> Result<()> + Sync,
    ) -> Result<usize> {
        let cuts = Mutex::new(Cuts {
            replay: self.trace.replay(self.before),
            next: begin,
            end: self.trace.calls(),
            losses: Vec::new(),
            told,
            seen: HashSet::new(),
        });
        let next = || cuts.lock().expect("no holder panics").next();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        while let Some(cut) = next()? {
                            holds(&cut).with_context(|| {
                                format!("cut after call {}, {:?}", cut.calls, cut.loss)
                            })?;
                        }
                        Ok(())
                    })
                })
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("does not panic"))
        })?;
        let cuts = cuts.into_inner().expect("no holder panics");
        same_files(&cuts.replay, self.disk.path())?;
        Ok(cuts.seen.len())
    }
}

/// Makes the disks one after the other.
struct Cuts<'a> {
    replay: Replay<'a>,
    next: usize,
    end: usize,
    /// Those that are left for this place.
    losses: Vec<Loss>,
    told: &'a [(usize, Fact)],
    seen: HashSet<(u64, usize)>,
}

impl Cuts<'_> {
    fn next(&mut self) -> Result<Option<Cut>> {
        loop {
            let Some(loss) = self.losses.pop() else {
                if self.next > self.end {
                    return Ok(None);
                }
                self.replay.advance_to(self.next)?;
                if self.replay.is_worth_a_cut() || self.next == self.end {
                    let seed = Loss::Some(self.next as u64);
                    self.losses = vec![Loss::Nothing, seed, Loss::Everything];
                }
                self.next += 1;
                continue;
            };
            let calls = self.next - 1;
            let left = self.replay.left(loss);
            let known = self.told.iter().filter(|(after, _)| *after <= calls);
            if self.seen.insert((digest(&left), known.count())) {
                let disk = tempfile::tempdir()?;
                left.put_into(disk.path())?;
                return Ok(Some(Cut {
                    number: self.seen.len(),
                    calls,
                    loss,
                    disk,
                }));
            }
        }
    }
}

fn site_on(disk: &Path) -> Site {
    Site::at(&disk.join("site"))
}

/// The model has what the disk has: the trace left nothing out.
fn same_files(replay: &Replay<'_>, disk: &Path) -> Result<()> {
    let model = tempfile::tempdir()?;
    replay.left(Loss::Nothing).put_into(model.path())?;
    let (model, disk) = (files(model.path())?, files(disk)?);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    ensure!(
        names(&model) == names(&disk),
        "{:?} {:?}",
        names(&model),
        names(&disk)
    );
    for (name, content) in model {
        ensure!(disk[&name] == content, "the model is not the disk: {name}");
    }
    Ok(())
}

fn digest(left: &Left) -> u64 {
    let mut hasher = DefaultHasher::new();
    left.hash(&mut hasher);
    hasher.finish()
}

/// All that is below a folder, by name. Folders have no content.
fn files(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.display().to_string();
            if path.is_dir() {
                folders.push(path);
                found.insert(name, Vec::new());
            } else if !name.ends_with(SHARED_MEMORY) {
                found.insert(name, fs::read(&path)?);
            }
        }
    }
    Ok(found)
}
