//! The certificates of the site's own listeners. They renew by themselves.

use domain::{Period, Timestamp};
use store::{Actor, Applied, Kind, Note};

use crate::{Error, Result, ServerKey, Site};

/// Life of a listener's certificate.
const LIFETIME: Period = Period::from_days(90);
const SHORTEST_USE: Period = Period::from_seconds(3600);

impl Site {
    /// Makes a key and a certificate for the listeners, and notes it in the audit log first.
    ///
    /// # Errors
    /// When a host name of the configuration cannot stand in a certificate, or the records cannot
    /// be reached.
    pub async fn server_certificate(&self) -> Result<ServerKey> {
        let now = self.now();
        let serial = authority::new_serial(&*self.0.rng);
        let names = &self.0.settings.host_names;
        let key = self
            .0
            .authority
            .issue_server(
                serial,
                names,
                now - self.0.settings.profile.backdating.duration(),
                now + LIFETIME.duration(),
            )
            .map_err(|error| Error::Invalid(format!("the listeners' certificate: {error}")))?;
        let note = Note {
            action: "server-certificate-issued",
            subject: serial.to_string(),
            detail: names.join(", "),
        };
        let Applied::Done = self.commit(Actor::site(), Kind::Noted(note)).await? else {
            unreachable!("a note has one outcome");
        };
        Ok(key)
    }

    /// When a listener's certificate that was made now should be replaced: after two thirds of its
    /// life, which the issuing CA's own end may have cut short, and never at once.
    pub fn server_certificate_due(&self, not_after: Timestamp) -> Timestamp {
        let now = self.now();
        let life = not_after.duration_since(now);
        now + (life / 3 * 2).max(SHORTEST_USE.duration())
    }
}
