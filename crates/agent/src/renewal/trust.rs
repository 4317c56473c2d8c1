//! Which site it is to whom a password goes: what device management prescribes, a pin, a CA, or the
//! system's roots say so. Nobody is asked here.

use domain::Pin;
use protocol::EST_PREFIX;
use transport::{Client, Request, ServerAddress, TransportError, Trust};

use crate::failure::Failure;
use crate::identity::Machine;
use crate::site::SiteRecord;

/// What whoever enrolls says of the site.
pub struct Wanted {
    pub server: ServerAddress,
    pub user: String,
    pub trust: GivenTrust,
}

pub enum GivenTrust {
    /// The system's roots decide.
    Nothing,
    Pin(Pin),
    /// Certificates, in DER.
    Roots(Vec<Vec<u8>>),
    /// Whoever answers.
    Anything,
}

impl Wanted {
    pub fn record(&self, pin: Pin, trust_verified: bool) -> SiteRecord {
        SiteRecord {
            server: self.server.clone(),
            pin,
            trust_verified,
            check_name: trust_verified,
            user: self.user.clone(),
        }
    }
}

/// The site, once it is clear which one it is.
///
/// # Errors
/// [`Failure::NotTrusted`] with the root that the server showed.
pub async fn find(machine: &Machine, wanted: &Wanted) -> Result<SiteRecord, Failure> {
    let managed_pin = match machine.preferences().managed("ServerPin")? {
        None => None,
        Some(value) => Some(
            value
                .as_string()
                .and_then(|text| text.parse::<Pin>().ok())
                .ok_or_else(|| Failure::other("the managed preference ServerPin is not a pin"))?,
        ),
    };
    if let Some(pin) = managed_pin {
        let contradicts = match wanted.trust {
            GivenTrust::Anything => true,
            GivenTrust::Pin(given) => given != pin,
            GivenTrust::Nothing | GivenTrust::Roots(_) => false,
        };
        if contradicts {
            return Err(Failure::other(
                "this computer's management prescribes the site's pin (managed preference ServerPin); \
                 enroll without an option for trust",
            ));
        }
        return Ok(wanted.record(pin, true));
    }
    let trust = match &wanted.trust {
        GivenTrust::Pin(pin) => return Ok(wanted.record(*pin, true)),
        GivenTrust::Anything => {
            if machine
                .preferences()
                .managed("AllowUnverifiedServer")?
                .is_some_and(|value| !is_on(&value))
            {
                return Err(Failure::other(
                    "this computer's management does not allow servers that were not verified (managed \
                     preference AllowUnverifiedServer)",
                ));
            }
            let pin = observe(machine, wanted, Trust::Unverified).await?;
            return Ok(wanted.record(pin, false));
        }
        GivenTrust::Nothing => Trust::System,
        GivenTrust::Roots(roots) => Trust::Roots(roots.clone()),
    };
    let pin = observe(machine, wanted, trust).await.map_err(with_advice)?;
    Ok(wanted.record(pin, true))
}

/// Connects once, and returns the root that the server showed.
async fn observe(machine: &Machine, wanted: &Wanted, trust: Trust) -> Result<Pin, Failure> {
    let client = Client::new(wanted.server.clone(), trust, None, machine.clock.clone())
        .map_err(|error| Failure::other(error.to_string()))?;
    client
        .send(Request::get(format!("{EST_PREFIX}/cacerts")))
        .await?;
    client.observed().ok_or_else(|| {
        TransportError::Broken {
            address: wanted.server.clone(),
            reason: "the server showed no certificate that can be read".to_owned(),
        }
        .into()
    })
}

/// Nobody gave a pin: the one that was seen is worth showing.
fn with_advice(failure: Failure) -> Failure {
    match failure {
        Failure::NotTrusted {
            address,
            observed: Some(pin),
            reason,
            ..
        } => Failure::NotTrusted {
            address,
            observed: Some(pin),
            advise: true,
            reason,
        },
        other => other,
    }
}

fn is_on(value: &plist::Value) -> bool {
    value.as_boolean().unwrap_or_else(|| {
        value.as_string().is_some_and(|text| {
            matches!(
                text.to_ascii_lowercase().as_str(),
                "1" | "yes" | "true" | "on"
            )
        })
    })
}
