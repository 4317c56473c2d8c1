//! `status`: how things stand, for people and for scripts.

use domain::{Pin, RenewalMode, RenewalSetting, Timestamp, Window};
use serde::Serialize;

use crate::cli::Output;
use crate::compliance::Standing;
use crate::failure::Failure;
use crate::identity::Machine;
use crate::reminder;
use crate::site::SiteRecord;
use crate::state::Trouble;

#[derive(Serialize)]
pub struct Status {
    pub enrolled: bool,
    pub server: String,
    pub user: String,
    pub pin: Pin,
    pub trust_verified: bool,
    pub smsid: Option<String>,
    pub subject: String,
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub days_left: i64,
    pub window: Option<Window>,
    pub renew_at: Option<Timestamp>,
    pub last_renewal: Option<Timestamp>,
    pub last_check_in: Option<Timestamp>,
    pub next_check_in: Option<Timestamp>,
    pub skew_seconds: Option<i64>,
    pub renewal_mode: RenewalMode,
    /// The four renewal keys: effective, raw, level, notice.
    pub renewal_settings: Vec<RenewalSetting>,
    pub next_reminder: Option<Timestamp>,
    pub last_reminder: Option<Timestamp>,
    pub trouble: Option<Trouble>,
    pub renewal_trouble: Option<Trouble>,
    pub policy_trouble: Option<Trouble>,
    pub delivery_trouble: Option<Trouble>,
    /// None where the site gave no policy.
    pub compliance: Option<Standing>,
    pub daemon_running: bool,
    pub agent_version: &'static str,
}

pub fn run(machine: &Machine, output: Output) -> Result<(), Failure> {
    // Files for root alone: say so instead of "not enrolled".
    if machine.layout.is_machine()
        && !rustix::process::geteuid().is_root()
        && machine.layout.state().exists()
    {
        return Err(Failure::NeedsRoot);
    }
    let status = match Status::of(machine) {
        Err(Failure::NotEnrolled) => {
            if output.json {
                super::print_json(&serde_json::json!({
                    "enrolled": false, "agent_version": env!("CARGO_PKG_VERSION"),
                }))?;
            }
            return Err(Failure::NotEnrolled);
        }
        status => status?,
    };
    if output.json {
        super::print_json(&status)?;
    } else {
        print!("{}", text(&status));
    }
    if status.not_after <= machine.now() {
        Err(Failure::expired(status.not_after))
    } else {
        Ok(())
    }
}

impl Status {
    pub fn of(machine: &Machine) -> Result<Self, Failure> {
        let identity = machine.enrolled()?;
        let state = machine.state();
        let next_reminder = reminder::next(machine, &state, &identity);
        let compliance = Standing::of(machine, &identity);
        let SiteRecord {
            server,
            pin,
            trust_verified,
            user,
            ..
        } = identity.site;
        let certificate = &identity.certificate;
        Ok(Self {
            enrolled: true,
            server: server.to_string(),
            user,
            pin,
            trust_verified,
            smsid: machine.preferences().string("SMSID"),
            subject: certificate.subject().to_owned(),
            serial: certificate
                .serial()
                .map(|serial| serial.to_string())
                .unwrap_or_default(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            days_left: certificate
                .not_after()
                .duration_since(machine.now())
                .as_hours()
                .div_euclid(24),
            window: state.window,
            renew_at: state.renew_at,
            last_renewal: state.last_renewal,
            last_check_in: state.last_check_in,
            next_check_in: state.next_check_in,
            skew_seconds: state.skew,
            renewal_mode: state.renewal_mode,
            renewal_settings: machine.schedule().settings(),
            next_reminder: next_reminder.map(|next| next.at),
            last_reminder: state.last_reminder,
            trouble: state.trouble,
            renewal_trouble: state.renewal_trouble,
            policy_trouble: state.policy_trouble,
            delivery_trouble: state.delivery_trouble,
            compliance,
            daemon_running: machine.daemon().is_some(),
            agent_version: env!("CARGO_PKG_VERSION"),
        })
    }
}

/// For people.
pub fn text(status: &Status) -> String {
    let mut whole = String::new();
    let mut line = |name: &str, text: String| whole += &format!("{name:<16}{text}\n");
    let moment = |at: Option<Timestamp>| at.map_or("never".to_owned(), to_the_second);
    line(
        "Enrolled",
        format!("at {} as {}", status.server, status.user),
    );
    line(
        "SMSID",
        status.smsid.clone().unwrap_or_else(|| {
            "removed; the next enrollment gives this computer a new one".to_owned()
        }),
    );
    line(
        "Certificate",
        format!("{}, serial {}", status.subject, status.serial),
    );
    line(
        "Valid",
        format!(
            "{} to {} ({})",
            to_the_second(status.not_before),
            to_the_second(status.not_after),
            match status.days_left {
                left @ 0.. => format!("{left} days left"),
                _ => "expired".to_owned(),
            }
        ),
    );
    line(
        "Trust",
        if status.trust_verified {
            format!("verified, {}", status.pin)
        } else {
            format!(
                "unverified: no script of this site runs here until: perennial-agent trust confirm {}",
                status.pin
            )
        },
    );
    line(
        "Silent renewal",
        match (status.renew_at, status.window) {
            _ if status.renewal_mode != RenewalMode::Automatic => {
                format!("none: the site's policy is {}", status.renewal_mode)
            }
            (Some(at), Some(window)) => format!(
                "{} (window {} to {})",
                to_the_second(at),
                to_the_second(window.start),
                to_the_second(window.end)
            ),
            _ => "not planned yet; the next check-in tells".to_owned(),
        },
    );
    line("Last renewal", moment(status.last_renewal));
    line(
        "Next reminder",
        match (status.next_reminder, status.renewal_mode) {
            (Some(at), _) => to_the_second(at),
            (None, RenewalMode::Automatic) => {
                "none, unless the silent renewal does not succeed".to_owned()
            }
            (None, mode) => format!("none: the site's policy is {mode}"),
        },
    );
    for setting in &status.renewal_settings {
        line("", format!("{:<24} {setting}", setting.key));
    }
    line("Last check-in", moment(status.last_check_in));
    line("Next check-in", moment(status.next_check_in));
    // Less is the network's doing.
    if let Some(skew) = status.skew_seconds.filter(|skew| skew.abs() > 300) {
        let side = if skew > 0 { "behind" } else { "ahead of" };
        line(
            "Clock",
            format!("this computer's is {} s {side} the site's", skew.abs()),
        );
    }
    for (what, trouble) in [
        ("Check-in", &status.trouble),
        ("Renewal", &status.renewal_trouble),
        ("Policy fetch", &status.policy_trouble),
        ("Delivery", &status.delivery_trouble),
    ] {
        let Some(trouble) = trouble else { continue };
        let how = if trouble.refused { "refused" } else { "failed" };
        let times = trouble.failures;
        line(
            what,
            match times {
                1 => format!("{how}: {}", trouble.what),
                _ => format!("{how}, {times} times in a row: {}", trouble.what),
            },
        );
        line("", format!("next attempt {}", to_the_second(trouble.next)));
    }
    if let Some(standing) = &status.compliance {
        for (name, text) in compliance_lines(standing) {
            line(name, text);
        }
    }
    let daemon = if status.daemon_running {
        "running"
    } else {
        "not running"
    };
    line("Agent", format!("{}, {daemon}", status.agent_version));
    whole
}

fn compliance_lines(standing: &Standing) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let (Some(version), Some(expires_at)) = (standing.version, standing.expires_at) {
        let until = to_the_second(expires_at);
        lines.push(("Policy", format!("version {version}, valid until {until}")));
    }
    if let Some(problem) = &standing.problem {
        lines.push(("Policy problem", problem.clone()));
    }
    for baseline in &standing.baselines {
        let text = baseline.text(to_the_second);
        lines.push(("Baseline", format!("{}: {text}", baseline.baseline)));
    }
    let at = |at: Option<Timestamp>| at.map_or("never".to_owned(), to_the_second);
    let next = match standing.next_evaluation {
        Some(next) if next == Timestamp::MIN => "now".to_owned(),
        Some(next) => to_the_second(next),
        None => "not planned".to_owned(),
    };
    lines.push((
        "Evaluated",
        format!("{}, next {next}", at(standing.evaluated_at)),
    ));
    if standing.waiting > 0 {
        let changes = match standing.waiting {
            1 => "1 change waits".to_owned(),
            many => format!("{many} changes wait"),
        };
        lines.push(("", format!("{changes} for the site")));
    }
    lines
}

/// Nobody reads fractions.
pub fn to_the_second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}
