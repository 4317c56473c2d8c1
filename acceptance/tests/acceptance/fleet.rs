//! A simulated fleet goes through hundreds of days of sleep, wrong clocks and bad networks. The seed
//! of a run is printed; `PERENNIAL_FLEET_SEED` replays it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use acceptance::fleet::{DAY, HOUR, Mac, World};
use agent::failure::Failure;
use anyhow::{Result, ensure};
use domain::{Period, RenewalMode};
use site::{CertificateFilter, EnrollmentProfile};

/// What happens, and to which Mac.
#[derive(Debug, Clone, Copy)]
enum Happens {
    /// The agent asked to be woken; none of it counts when the Mac slept or stepped meanwhile.
    Step {
        mac: usize,
        turn: u64,
    },
    Sleep(usize),
    Wake(usize),
    ClockSet {
        mac: usize,
        offset: i64,
    },
    SiteAway(bool),
    DirectoryAway(bool),
}

/// A Mac's life beside its agent.
#[derive(Debug, Default)]
struct Life {
    asleep: bool,
    turn: u64,
    /// When it could reach the site: from, until.
    reachable: Vec<(i64, i64)>,
    reachable_since: Option<i64>,
    /// Reminders that came while site and directory were there.
    asked: Vec<i64>,
}

struct Simulation {
    world: Arc<World>,
    macs: Vec<Mac>,
    lives: Vec<Life>,
    queue: BTreeMap<(i64, u64), Happens>,
    count: u64,
    /// In mode `prompt`: of a hundred reminders, so many are followed.
    obedience: i64,
}

impl Simulation {
    async fn new(world: Arc<World>, macs: usize, obedience: i64) -> Result<Self> {
        let mut simulation = Self {
            macs: Vec::new(),
            lives: Vec::new(),
            queue: BTreeMap::new(),
            count: 0,
            obedience,
            world,
        };
        for number in 0..macs {
            let mac = Mac::enrolled(&simulation.world, number).await?;
            simulation.macs.push(mac);
            simulation.lives.push(Life {
                reachable_since: Some(0),
                ..Life::default()
            });
            simulation.plan(
                1,
                Happens::Step {
                    mac: number,
                    turn: 0,
                },
            );
        }
        Ok(simulation)
    }

    fn plan(&mut self, at: i64, what: Happens) {
        self.count += 1;
        self.queue.insert((at, self.count), what);
    }

    /// A life full of trouble, until the second `until`.
    fn plan_trouble(&mut self, until: i64) {
        let random = self.world.random.clone();
        for mac in 0..self.macs.len() {
            let mut at = random.between(0, 2 * DAY);
            while at < until {
                self.plan(at, Happens::Sleep(mac));
                at += match random.between(0, 100) {
                    0..70 => random.between(HOUR, 16 * HOUR),
                    70..96 => random.between(DAY, 14 * DAY),
                    // A long leave, a drawer.
                    _ => random.between(30 * DAY, 200 * DAY),
                };
                self.plan(at.min(until), Happens::Wake(mac));
                at += random.between(4 * HOUR, 12 * DAY);
            }
            if random.percent(15) {
                let offset = match random.between(0, 6) {
                    0 => -DAY,
                    1 => DAY,
                    2 => -30 * DAY,
                    3 => 40 * DAY,
                    4 => 2 * 365 * DAY,
                    _ => -3 * 365 * DAY,
                };
                let set = random.between(0, until);
                self.plan(set, Happens::ClockSet { mac, offset });
                let right_again = set + random.between(DAY, 60 * DAY);
                let right = Happens::ClockSet { mac, offset: 0 };
                self.plan(right_again.min(until), right);
            }
        }
        for _ in 0..2 {
            let away = random.between(0, until);
            let back = (away + random.between(7 * DAY, 28 * DAY)).min(until);
            self.plan(away, Happens::SiteAway(true));
            self.plan(back, Happens::SiteAway(false));
            let away = random.between(0, until);
            let back = (away + random.between(DAY, 14 * DAY)).min(until);
            self.plan(away, Happens::DirectoryAway(true));
            self.plan(back, Happens::DirectoryAway(false));
        }
        self.plan(until, Happens::SiteAway(false));
        self.plan(until, Happens::DirectoryAway(false));
    }

    async fn run(&mut self, until: i64) -> Result<()> {
        while let Some(entry) = self
            .queue
            .first_entry()
            .filter(|entry| entry.key().0 <= until)
        {
            let ((at, _), what) = entry.remove_entry();
            self.world.time.go_to(at.max(self.world.time.now()));
            match what {
                Happens::Step { mac, turn } if turn == self.lives[mac].turn => {
                    self.step(mac).await;
                }
                Happens::Step { .. } => {}
                Happens::Sleep(mac) => {
                    self.lives[mac].asleep = true;
                    self.lives[mac].turn += 1;
                    self.note_reachable(mac);
                }
                Happens::Wake(mac) if self.lives[mac].asleep => {
                    self.lives[mac].asleep = false;
                    self.note_reachable(mac);
                    agent::daemon::woke(&self.macs[mac].machine).await?;
                    self.step(mac).await;
                }
                Happens::Wake(_) => {}
                Happens::ClockSet { mac, offset } => {
                    self.macs[mac].clock.offset.store(offset, Ordering::Relaxed);
                    if !self.lives[mac].asleep {
                        self.step(mac).await;
                    }
                }
                Happens::SiteAway(away) => {
                    self.world.site_away.store(away, Ordering::Relaxed);
                    (0..self.macs.len()).for_each(|mac| self.note_reachable(mac));
                }
                Happens::DirectoryAway(away) => {
                    self.world.directory_away.store(away, Ordering::Relaxed);
                }
            }
        }
        self.world.time.go_to(until);
        Ok(())
    }

    fn note_reachable(&mut self, mac: usize) {
        let now = self.world.time.now();
        let away = self.world.site_away.load(Ordering::Relaxed);
        let life = &mut self.lives[mac];
        let reachable = !life.asleep && !away;
        match (life.reachable_since, reachable) {
            (None, true) => life.reachable_since = Some(now),
            (Some(since), false) => {
                life.reachable.push((since, now));
                life.reachable_since = None;
            }
            _ => {}
        }
    }

    async fn step(&mut self, mac: usize) {
        let world = self.world.clone();
        let reminders = self.macs[mac].reminders.len();
        let next = self.macs[mac].step(&world).await;
        if self.macs[mac].reminders.len() > reminders {
            let away = world.site_away.load(Ordering::Relaxed)
                || world.directory_away.load(Ordering::Relaxed);
            if !away {
                self.lives[mac].asked.push(world.time.now());
            }
            if world.random.percent(self.obedience) {
                // Wrong weather, a lost answer: the next reminder comes.
                let _ = self.macs[mac].renew_with_password().await;
            }
        }
        self.lives[mac].turn += 1;
        let turn = self.lives[mac].turn;
        if let Some(next) = next {
            self.plan(next, Happens::Step { mac, turn });
        }
    }

    /// The longest time, in seconds, that the Mac could reach the site between two moments.
    fn longest_chance(&self, mac: usize, from: i64, until: i64) -> i64 {
        let life = &self.lives[mac];
        let open = life
            .reachable_since
            .map(|since| (since, self.world.time.now()));
        let chances = life.reachable.iter().copied().chain(open);
        let lengths = chances.map(|(begin, end)| end.min(until) - begin.max(from));
        lengths.max().unwrap_or(0)
    }

    /// How many certificates the site recorded for this Mac's device, and that was used.
    async fn used_certificates(&self, mac: usize) -> Result<usize> {
        let filter = CertificateFilter {
            device: Some(self.macs[mac].device),
            limit: 1000,
            ..CertificateFilter::default()
        };
        let page = self
            .world
            .site
            .certificates(&self.world.administrator, &filter)
            .await?;
        Ok(page
            .items
            .iter()
            .filter(|found| found.first_used_at.is_some())
            .count())
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("PERENNIAL_FLEET_SEED") {
        Ok(seed) => vec![seed.parse().expect("PERENNIAL_FLEET_SEED is a number")],
        Err(_) => vec![1],
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

const VALIDITY: i64 = 90 * DAY;
const GRACE: i64 = 30 * DAY;

fn profile(renewal_mode: RenewalMode) -> EnrollmentProfile {
    EnrollmentProfile {
        validity: Period::from_days(90),
        grace: Period::from_days(30),
        renewal_mode,
        ..EnrollmentProfile::default()
    }
}

/// Nobody is stranded: who could reach the site for half a day between the window's beginning and
/// the end of the grace time has a certificate in use. The others come back by an administrator's
/// permission or by a log-in, as the same device with its history.
async fn live(seed: u64, mode: RenewalMode, macs: usize, days: i64) -> Result<[usize; 3]> {
    println!("PERENNIAL_FLEET_SEED={seed}, {mode}");
    let world = World::new(seed, Period::from_days(3), profile(mode)).await?;
    let obedience = if mode == RenewalMode::Prompt { 60 } else { 0 };
    let mut simulation = Simulation::new(world.clone(), macs, obedience).await?;
    world.losses.store(4, Ordering::Relaxed);
    let trouble = days * DAY;
    simulation.plan_trouble(trouble);
    simulation.run(trouble).await?;
    // The sun comes out; a few days for everybody to come back.
    world.losses.store(0, Ordering::Relaxed);
    simulation.obedience = if mode == RenewalMode::Prompt { 100 } else { 0 };
    simulation.run(trouble + 5 * DAY).await?;

    let (mut by_permission, mut by_log_in) = (0, 0);
    for mac in 0..macs {
        let (_, end) = simulation.macs[mac].certificate()?;
        if end <= world.time.now() {
            let begin = end - VALIDITY + VALIDITY * 5 / 6;
            let chance = simulation.longest_chance(mac, begin, end + GRACE);
            let asked = simulation.lives[mac].asked.iter();
            let asked = asked
                .filter(|at| **at >= end - 45 * DAY && **at < end)
                .count();
            match mode {
                RenewalMode::Prompt => ensure!(
                    asked < 12,
                    "Mac {mac} asked {asked} times before it expired, seed {seed}"
                ),
                _ => ensure!(
                    chance < 12 * HOUR,
                    "Mac {mac} had {chance} s to renew and did not, seed {seed}: {:#?}",
                    simulation.macs[mac].machine.state()
                ),
            }
            ensure!(
                end + GRACE <= world.time.now() || mode == RenewalMode::Prompt,
                "Mac {mac} is within the grace time and did not renew, seed {seed}"
            );
            if mac % 2 == 0 && mode == RenewalMode::Automatic {
                let site = &world.site;
                let (device, within) = (simulation.macs[mac].device, Period::from_days(7));
                site.allow_renewal(&world.administrator, device, within)
                    .await?;
                // It asks every hour. The first answer is lost, which costs nothing.
                world.lose_next_answer.store(true, Ordering::Relaxed);
                simulation.run(world.time.now() + 3 * HOUR).await?;
                by_permission += 1;
            } else {
                simulation.macs[mac].renew_with_password().await?;
                by_log_in += 1;
            }
        }
        let (serial, end) = simulation.macs[mac].certificate()?;
        ensure!(
            end > world.time.now(),
            "Mac {mac} did not come back, seed {seed}"
        );
        agent::renewal::check_in(&simulation.macs[mac].machine).await?;
        let used = simulation.used_certificates(mac).await?;
        ensure!(used >= 2, "Mac {mac} has a history, seed {seed}");
        let site = &world.site;
        let known = site.certificate(&world.administrator, serial).await?;
        ensure!(known.first_used_at.is_some() && known.device == simulation.macs[mac].device);
    }
    let events = world
        .site
        .audit_events(&world.administrator, None, 5000)
        .await?;
    let after_expiry = events
        .items
        .iter()
        .filter(|event| event.action == "renewed-after-expiry");
    let by_themselves = after_expiry.count() - by_permission;
    let turns: u64 = simulation.lives.iter().map(|life| life.turn).sum();
    println!(
        "{turns} turns; {by_themselves} came back by themselves, {by_permission} by permission, {by_log_in} by log-in"
    );
    Ok([by_themselves, by_permission, by_log_in])
}

#[test]
fn nobody_is_stranded_who_renews_silently() -> Result<()> {
    let mut ways = [0; 3];
    for seed in seeds() {
        let came_back = runtime().block_on(live(seed, RenewalMode::Automatic, 200, 120))?;
        (0..3).for_each(|way| ways[way] += came_back[way]);
    }
    ensure!(
        ways.iter().all(|count| *count > 0),
        "each way back was taken: {ways:?}"
    );
    Ok(())
}

#[test]
fn nobody_is_stranded_who_is_asked() -> Result<()> {
    for seed in seeds() {
        runtime().block_on(live(seed, RenewalMode::Prompt, 60, 120))?;
    }
    Ok(())
}

/// All reminders of a year, as seconds before the end of the certificate.
async fn reminders_of_a_year(keys: &[(&str, String)]) -> Result<Vec<i64>> {
    let profile = EnrollmentProfile {
        renewal_mode: RenewalMode::Prompt,
        ..EnrollmentProfile::default()
    };
    let world = World::new(1, Period::from_days(3), profile).await?;
    let mut simulation = Simulation::new(world.clone(), 1, 0).await?;
    simulation.macs[0].machine.preferences().set(keys)?;
    let (_, end) = simulation.macs[0].certificate()?;
    simulation.run(end - 1).await?;
    let reminders = &simulation.macs[0].reminders;
    Ok(reminders.iter().map(|at| end - at).collect())
}

#[test]
fn in_mode_prompt_the_reminders_of_a_year_are_the_sources() -> Result<()> {
    let every_8_hours: Vec<i64> = (0..9).map(|time| 3 * DAY - time * 8 * HOUR).collect();
    let every_day = |days: i64| (3..days).rev().map(|day| (day + 1) * DAY);
    let found = runtime().block_on(reminders_of_a_year(&[]))?;
    let expected: Vec<i64> = every_day(45).chain(every_8_hours.clone()).collect();
    assert_eq!(found, expected);

    let twenty_days = [("RenewalPeriod1", "1728000".to_owned())];
    let found = runtime().block_on(reminders_of_a_year(&twenty_days))?;
    let expected: Vec<i64> = every_day(20).chain(every_8_hours).collect();
    assert_eq!(found, expected);
    Ok(())
}

async fn clock_jumps() -> Result<()> {
    let world = World::new(1, Period::from_days(3), profile(RenewalMode::Automatic)).await?;
    let mac = Mac::enrolled(&world, 0).await?;
    for step in [400 * DAY, -3 * DAY] {
        let before = world.clock.offset.load(Ordering::Relaxed);
        world.clock.offset.store(before + step, Ordering::Relaxed);
        let refused = mac.renew_with_password().await;
        ensure!(
            matches!(refused, Err(Failure::Unreachable(_))),
            "nothing is issued"
        );
        // Nobody has expired: time goes on from where it was.
        agent::renewal::check_in(&mac.machine).await?;
        let (_, found) = world.site.clock_step(&world.administrator)?;
        ensure!(found.is_some_and(|found| found.machine != found.believed));
        if step < 0 {
            world.site.accept_clock(&world.administrator).await?;
            mac.renew_with_password().await?;
        } else {
            // It was a mistake, and is mended.
            world.clock.offset.store(before, Ordering::Relaxed);
            world.site.accept_clock(&world.administrator).await?;
            mac.renew_with_password().await?;
        }
    }
    Ok(())
}

#[test]
fn a_site_whose_clock_jumps_issues_nothing_and_expires_nobody() -> Result<()> {
    runtime().block_on(clock_jumps())
}
