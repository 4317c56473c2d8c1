//! Renewing silently, and taking a new identity into use without ever being without one.

mod hooks;
pub mod trust;

use domain::wizard::RenewalFailure;
use domain::{DeviceId, Period};
use jiff::SignedDuration;
use protocol::{CheckInAnswer, RenewalStep};
use x509::{Certificate, PrivateKey};
use zeroize::Zeroizing;

use crate::compliance;
use crate::failure::Failure;
use crate::identity::{Identity, Machine, Pending};
use crate::preferences::CCMCLIENT;
use crate::site::{Authorities, SiteClient, SiteRecord};
use crate::state::{State, Trouble};

/// After a refusal, silence for a day: asking more often would lock accounts and fill logs.
const AFTER_REFUSAL: SignedDuration = SignedDuration::from_hours(24);
/// The first wait for a site that is not there; it doubles.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(60);
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);
const SHORTEST_INTERVAL: Period = Period::from_seconds(60);

/// Renews the certificate now, for a new key. The caller holds the machine's lock. Whether it has
/// expired the site decides by its own clock; then the old key proves itself by a signature.
pub async fn renew(machine: &Machine) -> Result<Identity, Failure> {
    let identity = machine.enrolled()?;
    let purpose = format!("{RENEW} {}", identity.certificate.key());
    let client = SiteClient::new(&identity.site, Some(&identity), machine)?;
    let nobody = SiteClient::new(&identity.site, None, machine)?;
    let device = identity.certificate.device();
    obtain(
        machine,
        &purpose,
        &identity.site,
        device,
        async |key| match client.renew(key).await {
            // TLS lets it in no more.
            Err(failure) if failure.is_about_the_certificate() => {
                nobody.renew_expired(&identity, key).await
            }
            answer => answer,
        },
    )
    .await
}

/// Enrolls with a user's name and password, at `site`. The caller holds the machine's lock.
///
/// With the identifier and the key of its last certificate the computer's record is kept, also when
/// that certificate expired. Who removed the identifier wants a new record; the one before is then
/// replaced by it.
pub async fn enroll(
    machine: &Machine,
    site: &SiteRecord,
    password: &Zeroizing<String>,
) -> Result<Identity, Failure> {
    enroll_and_tell(machine, site, password, &|_| ()).await
}

/// The same, and tells how far it came.
pub async fn enroll_and_tell(
    machine: &Machine,
    site: &SiteRecord,
    password: &Zeroizing<String>,
    tell: &dyn Fn(RenewalStep),
) -> Result<Identity, Failure> {
    tell(RenewalStep::AskingTheSite);
    // An identity that was on its way is the one that the site knows best.
    finish_what_was_begun(machine, site).await?;
    let new_record = machine.preferences().value(CCMCLIENT, "SMSID").is_none();
    let old = machine.identities().current().ok().flatten();
    let old = old.filter(|identity| identity.site.pin == site.pin);
    let proved = match &old {
        None => "nothing".to_owned(),
        Some(old) if new_record => format!("new after {}", old.certificate.key()),
        Some(old) => old.certificate.key().to_string(),
    };
    let purpose = format!("{ENROLL} {} {} {proved}", site.user, site.pin);
    let client = SiteClient::new(site, None, machine)?;
    obtain(machine, &purpose, site, None, async |key| {
        let issued = client
            .enroll(key, &site.user, password, old.as_ref(), new_record)
            .await;
        if issued.is_ok() {
            tell(RenewalStep::TakingIntoUse);
        }
        issued
    })
    .await
}

/// What a renewal with a password came to.
pub enum Renewed {
    Now(Identity),
    /// Silently, or by another wizard, since whoever asked looked last.
    Meanwhile(Identity),
}

/// Renews with a user's name and password, in the place of `before`. The caller holds the machine's
/// lock.
pub async fn renew_with_password(
    machine: &Machine,
    before: &Identity,
    user: &str,
    password: &Zeroizing<String>,
    tell: &dyn Fn(RenewalStep),
) -> Result<Renewed, Failure> {
    let now = machine.enrolled()?;
    if now.certificate.key() != before.certificate.key() {
        return Ok(Renewed::Meanwhile(now));
    }
    let site = SiteRecord {
        user: user.to_owned(),
        ..before.site.clone()
    };
    let renewed = enroll_and_tell(machine, &site, password, tell).await?;
    Ok(Renewed::Now(renewed))
}

/// Takes into use what an earlier run left behind. When the site refuses that too, the log-in that
/// follows decides.
async fn finish_what_was_begun(machine: &Machine, site: &SiteRecord) -> Result<(), Failure> {
    let pending = machine.identities().pending();
    let same_site = pending.is_some_and(|pending| pending.site.pin == site.pin);
    match resume(machine).await {
        Err(failure) if same_site && !failure.is_refusal() => Err(failure),
        _ => Ok(()),
    }
}

/// Stages a key for `purpose`, has it certified by `ask`, checks the certificate (for `device`,
/// where that is known already) and takes it into use. A key that an earlier run left behind and that
/// the site no longer certifies is replaced by a new one, once.
async fn obtain(
    machine: &Machine,
    purpose: &str,
    site: &SiteRecord,
    device: Option<DeviceId>,
    ask: impl AsyncFn(&PrivateKey) -> Result<Certificate, Failure>,
) -> Result<Identity, Failure> {
    let nobody = SiteClient::new(site, None, machine)?;
    let authorities = nobody.authorities().await?;
    let store = machine.identities();
    let mut pending = store.stage(purpose, site)?;
    let mut issued = ask(&pending.key).await;
    let alone = !store.has_current();
    if pending.is_spent_by(&issued, alone) {
        store.discard_pending()?;
        pending = store.stage(purpose, site)?;
        issued = ask(&pending.key).await;
    }
    let certificate = issued?;
    check(&certificate, &pending.key.digest(), &authorities, device)?;
    store.add_certificate(&certificate)?;
    take_into_use(machine).await
}

/// Goes on where a run was cut off whose new certificate had arrived: the site may already have
/// seen it, and then refuses the one before.
pub async fn resume(machine: &Machine) -> Result<(), Failure> {
    if !is_staged(machine) {
        return match machine.enrolled() {
            Ok(_) => announce(machine).await,
            Err(_) => Ok(()),
        };
    }
    let pending = machine.identities().pending();
    let elsewhere = match (pending, machine.identities().current()?) {
        (Some(pending), Some(current)) => pending.site.pin != current.site.pin,
        _ => false,
    };
    match take_into_use(machine).await {
        Err(failure) if elsewhere => {
            // A move to another site that does not get on keeps nobody from the present one.
            tracing::warn!(event = "other-site-not-entered", %failure);
            Ok(())
        }
        Err(Failure::Expired(reason)) => {
            // It lay here for its whole life. The identity in use may still prove itself.
            tracing::warn!(event = "staged-certificate-expired", reason);
            machine.identities().discard_pending()?;
            Ok(())
        }
        Err(refused) if refused.is_refusal() => {
            match check_in(machine).await {
                // Only when the identity in use still works is the staged one not needed.
                Ok(_) => {}
                // TLS lets that one in no more, but its key may still prove itself: the renewal that
                // follows tells which of the two the site knows.
                Err(failure) if failure.is_about_the_certificate() => return Ok(()),
                Err(_) => return Err(refused),
            }
            tracing::warn!(
                event = "staged-certificate-refused",
                reason = %refused,
                "the identity in use stays"
            );
            machine.identities().discard_pending()?;
            Ok(())
        }
        done => done.map(drop),
    }
}

/// True when a certificate arrived and was not taken into use.
pub fn is_staged(machine: &Machine) -> bool {
    let staged = machine.identities().pending();
    staged.is_some_and(|pending| pending.certificate.is_some())
}

/// # Errors
/// [`Failure::NotEnrolled`] when there is no identity, nor one that [`resume`] takes into use.
pub fn require_identity(machine: &Machine) -> Result<(), Failure> {
    match machine.enrolled() {
        Err(Failure::NotEnrolled) if is_staged(machine) => Ok(()),
        enrolled => enrolled.map(drop),
    }
}

/// What a key is staged for: the first word of its purpose.
const RENEW: &str = "renew";
const ENROLL: &str = "enroll";

/// What an issued certificate must be before it is kept.
fn check(
    certificate: &Certificate,
    key: &domain::KeyDigest,
    authorities: &Authorities,
    device: Option<DeviceId>,
) -> Result<(), Failure> {
    let wrong = |what: &str| {
        Err(Failure::other(format!(
            "the server's certificate {what}; it was not used"
        )))
    };
    if certificate.key() != *key {
        return wrong("is for another key");
    }
    if !authorities.issued(certificate) {
        return wrong("does not come from the pinned site");
    }
    match certificate.device() {
        None => wrong("names no device"),
        Some(named) if device.is_some_and(|device| device != named) => {
            wrong("names another device")
        }
        Some(_) => Ok(()),
    }
}

/// Completes one check-in with what is staged, then switches to it.
async fn take_into_use(machine: &Machine) -> Result<Identity, Failure> {
    let store = machine.identities();
    let Some(Pending {
        key,
        site,
        purpose,
        certificate: Some(certificate),
        ..
    }) = store.pending()
    else {
        return Err(Failure::other(
            "there is no new certificate to take into use",
        ));
    };
    let staged = Identity {
        key,
        certificate,
        site,
        folder: machine.layout.identity(),
    };
    let client = SiteClient::new(&staged.site, Some(&staged), machine)?;
    let answer = client.check_in(&machine.report(&staged.site)).await?;
    let renewed = purpose.starts_with(RENEW);
    let before = store.current().ok().flatten();
    let same_record = before.is_some_and(|before| {
        before.certificate.device() == staged.certificate.device()
            && before.site.pin == staged.site.pin
    });
    if !renewed && let Some(device) = staged.certificate.device() {
        // Only an enrollment writes the identifier: who removed it wants a new one.
        machine
            .preferences()
            .set(&[("SMSID", device.smsid().to_string())])?;
    }
    // Noted before: being cut off from here on must not cost the keys and the hooks.
    let mut state = machine.state();
    state.announce = Some(same_record);
    machine.write_state(&state)?;
    let identity = store.promote()?;
    state.window = None;
    state.renewal_trouble = None;
    // Reminders stop the moment a new certificate is in use.
    state.last_reminder = None;
    state.reminder_waits = None;
    state.put_off = 0;
    if same_record {
        state.last_renewal = Some(machine.now());
    }
    note_check_in(machine, &mut state, &answer)?;
    announce(machine).await?;
    Ok(identity)
}

/// Tells scripts and services of a new identity: once it is in use, or later when the run that took
/// it into use was cut off.
pub async fn announce(machine: &Machine) -> Result<(), Failure> {
    let Some(renewed) = machine.state().announce else {
        return Ok(());
    };
    let identity = machine.enrolled()?;
    if let Err(failure) = write_keys(machine, &identity) {
        tracing::error!(event = "keys-not-written", %failure);
    }
    tracing::info!(
        event = if renewed { "renewed" } else { "enrolled" },
        server = %identity.site.server,
        not_after = %identity.certificate.not_after(),
    );
    if renewed {
        hooks::run(machine, &identity).await;
    }
    let mut state = machine.state();
    state.announce = None;
    Ok(machine.write_state(&state)?)
}

/// Checks in now, with what an earlier run left behind where there is such a thing.
pub async fn check_in_now(machine: &Machine) -> Result<CheckInAnswer, Failure> {
    let _lock = machine.lock().await?;
    resume(machine).await?;
    check_in(machine).await
}

/// Checks in with the current identity, and drops older generations: the site knows this one.
pub async fn check_in(machine: &Machine) -> Result<CheckInAnswer, Failure> {
    let identity = machine.enrolled()?;
    let client = SiteClient::new(&identity.site, Some(&identity), machine)?;
    let answer = client.check_in(&machine.report(&identity.site)).await?;
    let mut state = machine.state();
    note_check_in(machine, &mut state, &answer)?;
    machine.identities().prune()?;
    let moment = machine.now().to_string();
    machine
        .preferences()
        .set(&[("OMALastConnectTime", moment)])?;
    Ok(answer)
}

fn note_check_in(
    machine: &Machine,
    state: &mut State,
    answer: &CheckInAnswer,
) -> Result<(), Failure> {
    let now = machine.now();
    state.last_check_in = Some(now);
    // No site makes its clients spin.
    let wait = answer.next_check_in.max(SHORTEST_INTERVAL);
    state.next_check_in = Some(now + wait.duration());
    state.skew = Some(answer.time.duration_since(now).as_secs());
    state.trouble = None;
    state.try_again_soon();
    state.renewal_mode = answer.renewal_mode;
    state.known_time = Some(machine.know_time(answer.time));
    state.take_window(answer.renewal.suggested_window, &*machine.rng);
    compliance::note_answer(machine, state, answer)?;
    Ok(machine.write_state(state)?)
}

/// Remembers a failed attempt and when to try again.
pub fn note_trouble(machine: &Machine, failure: &Failure, of_renewal: bool) -> Result<(), Failure> {
    let now = machine.now();
    let mut state = machine.state();
    let trouble = match of_renewal {
        true => &mut state.renewal_trouble,
        false => &mut state.trouble,
    };
    let failures = trouble.as_ref().map_or(0, |trouble| trouble.failures) + 1;
    *trouble = Some(Trouble {
        at: now,
        what: failure.to_string(),
        refused: failure.is_refusal(),
        failures,
        next: now + wait_after(failure, failures),
    });
    if of_renewal && failure.for_the_wizard() == RenewalFailure::SiteUnreachable {
        state.note_unreachable(now, failure.to_string(), wait_after(failure, 1));
    }
    Ok(machine.write_state(&state)?)
}

/// Remembers what a person's request showed: whether the site is there.
pub async fn note_asked(machine: &Machine, failure: &Failure) -> Result<(), Failure> {
    let now = machine.now();
    machine
        .change_state(|state| match failure.for_the_wizard() {
            RenewalFailure::SiteUnreachable => {
                state.note_unreachable(now, failure.to_string(), wait_after(failure, 1));
            }
            RenewalFailure::WrongPassword
            | RenewalFailure::TooMany
            | RenewalFailure::NotAllowed => state.note_reachable(),
            RenewalFailure::Busy | RenewalFailure::NotTrusted | RenewalFailure::Other => {}
        })
        .await?;
    Ok(())
}

/// How long to wait after so many failures in a row.
pub fn wait_after(failure: &Failure, failures: u32) -> SignedDuration {
    match failure {
        // An administrator may have allowed it meanwhile.
        Failure::Expired(_) => LONGEST_WAIT,
        failure if failure.is_refusal() => AFTER_REFUSAL,
        _ => wait_for_site(failures),
    }
}

/// The same, for what nobody refused for good.
pub fn wait_for_site(failures: u32) -> SignedDuration {
    (FIRST_WAIT * 2_i32.pow(failures.min(7) - 1)).min(LONGEST_WAIT)
}

/// The keys that the client keeps in its domain, for people's scripts. The identifier is not among
/// them: [`take_into_use`] writes that one.
fn write_keys(machine: &Machine, identity: &Identity) -> Result<(), Failure> {
    let site = &identity.site;
    machine.preferences().set(&[
        ("EnrollmentStatus", "1".to_owned()),
        ("EnrollmentUserName", site.user.clone()),
        ("EnrollmentServerName", site.server.host().to_owned()),
        ("MP", site.server.to_string()),
        ("CertExpDate", identity.certificate.not_after().to_string()),
        ("OMALastConnectTime", machine.now().to_string()),
    ])?;
    Ok(())
}
