//! Who is a member of which collection, kept up to date: when something happened to devices or to
//! rules, and when time went on.

use std::time::{Duration, Instant};

use store::{Actor, Applied, Evaluated, Kind, MembershipWork};

use crate::{Result, Site};

/// How often a node looks for what another one wrote.
const LOOK: Duration = Duration::from_secs(2);
/// What comes together is worked out together.
const GATHER: Duration = Duration::from_millis(100);
/// A job that waited for others itself does not rest for as long.
const LONGEST_REST: Duration = Duration::from_millis(50);
/// Memberships that change by time alone lag behind it by no more, in seconds of the site's time.
const SWEEP_SECONDS: i64 = 60;

impl Site {
    /// Keeps memberships up to date, for ever. Nodes that do it at the same time find nothing left.
    pub(crate) async fn keep_memberships(&self) {
        let mut paces = Paces::default();
        loop {
            if let Err(error) = self.work_out_memberships(&mut paces).await {
                tracing::error!(event = "memberships-not-evaluated", %error, "will be tried again");
            }
            tokio::select! {
                () = self.0.store.memberships_concerned() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Works until nothing is left to do, in steps that are each a commit of their own.
    async fn work_out_memberships(&self, paces: &mut Paces) -> Result<()> {
        loop {
            let work = self.0.store.membership_work().await?;
            let mut more = false;
            if self.is_sweep_due(work) {
                let swept = self.membership_step(Kind::SweepMemberships).await?;
                more |= swept.more || swept.looked_at > 0;
            }
            // Devices first: an evaluation of everything may take a while.
            if work.devices {
                let most = paces.devices.rows();
                let begun = Instant::now();
                let step = self.membership_step(Kind::EvaluateDevices { most }).await?;
                more |= step.more;
                self.pace(&mut paces.devices, begun.elapsed(), step).await;
            }
            if work.collections {
                let most = paces.collections.rows();
                let begun = Instant::now();
                let step = self
                    .membership_step(Kind::EvaluateCollections { most })
                    .await?;
                more |= step.more;
                self.pace(&mut paces.collections, begun.elapsed(), step)
                    .await;
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn pace(&self, pace: &mut Pace, took: Duration, step: Evaluated) {
        pace.learn(took, step);
        if step.more {
            self.rest_after(took).await;
        }
    }

    /// After a step of a job: lets others write. Longer when somebody waits for it.
    pub(crate) async fn rest_after(&self, took: Duration) {
        let rest = match self.0.store.is_busy() {
            true => took * 3,
            false => took / 4,
        };
        tokio::time::sleep(rest.min(LONGEST_REST)).await;
    }

    fn is_sweep_due(&self, work: MembershipWork) -> bool {
        let lag = self.now().duration_since(work.swept_until).as_secs();
        // A clock that was set back is for the store to judge.
        lag >= SWEEP_SECONDS || lag <= -SWEEP_SECONDS
    }

    async fn membership_step(&self, kind: Kind) -> Result<Evaluated> {
        let begun = Instant::now();
        let Applied::Evaluated(step) = self.commit(Actor::site(), kind).await? else {
            return Ok(Evaluated::default());
        };
        metrics::histogram!("site_membership_step_seconds").record(begun.elapsed().as_secs_f64());
        metrics::counter!("site_membership_devices_total").increment(step.looked_at);
        metrics::counter!("site_members_joined_total").increment(step.joined);
        metrics::counter!("site_members_left_total").increment(step.left);
        Ok(step)
    }
}

#[derive(Default)]
struct Paces {
    devices: Pace,
    collections: Pace,
}

/// How many rows one step looks at, so that it keeps others from writing for about [`Pace::STEP`].
struct Pace(u32);

impl Pace {
    const STEP: Duration = Duration::from_millis(5);
    const LEAST: u32 = 100;
    /// Rows that one transaction writes at most.
    const MOST: u32 = 5_000;

    fn rows(&self) -> u32 {
        self.0
    }

    /// Learns from a step.
    fn learn(&mut self, took: Duration, step: Evaluated) {
        self.0 = match step.more {
            _ if took > Self::STEP * 2 => (self.0 / 2).max(Self::LEAST),
            // A step that found little to do says nothing about its size.
            true if took < Self::STEP => (self.0 + self.0 / 2).min(Self::MOST),
            _ => self.0,
        };
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self(500)
    }
}
