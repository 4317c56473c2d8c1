//! Administrators, by the access token that they show, and what their roles let them do.

use data_encoding::BASE64URL_NOPAD;
use domain::{Action, Clock, Rng, Role, TokenDigest};
use store::{Actor, Change, Kind, NewToken, Store};
use zeroize::Zeroizing;

use crate::{Address, Error, Result, Site};

/// Somebody who showed a valid access token.
#[derive(Debug, Clone)]
pub struct Administrator {
    token: String,
    role: Role,
    address: Address,
}

impl Administrator {
    #[cfg(test)]
    pub(crate) fn in_role(role: Role) -> Self {
        Self {
            token: "test".to_owned(),
            role,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn actor(&self) -> Actor {
        Actor::administrator(&self.token, self.address)
    }

    pub(crate) fn require(&self, action: Action) -> Result<()> {
        if self.role.may(action) {
            Ok(())
        } else {
            Err(Error::Forbidden(format!(
                "the role {} may not {action}",
                self.role
            )))
        }
    }
}

impl Site {
    /// # Errors
    /// When the token is unknown or has expired.
    pub async fn authenticate_administrator(
        &self,
        secret: Option<&str>,
        address: Address,
    ) -> Result<Administrator> {
        let unknown = || Error::Unauthenticated("this needs a valid access token".to_owned());
        let secret = secret.ok_or_else(unknown)?;
        let digest = token_digest(secret);
        let token = self.0.store.token(&digest).await?.ok_or_else(unknown)?;
        if token.expires_at.is_some_and(|end| end <= self.now()) {
            return Err(Error::Unauthenticated(
                "this access token has expired".to_owned(),
            ));
        }
        Ok(Administrator {
            token: token.name,
            role: token.role,
            address,
        })
    }
}

fn token_digest(secret: &str) -> TokenDigest {
    TokenDigest::new(x509::sha256(&[secret.as_bytes()]))
}

/// Makes the secret of an access token.
pub fn new_token_secret(rng: &dyn Rng) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill(&mut *bytes);
    Zeroizing::new(format!("perennial-{}", BASE64URL_NOPAD.encode(&*bytes)))
}

/// Records the first administrator's token. Only a digest of `secret` is stored. Recording the same
/// one again changes nothing; another one ends the one before: whoever holds the site's folder holds
/// the site.
///
/// # Errors
/// When the database failed.
pub async fn add_first_token(store: &Store, clock: &dyn Clock, secret: &str) -> Result<()> {
    let digest = token_digest(secret);
    if store.token(&digest).await?.is_some() {
        return Ok(());
    }
    let kind = Kind::AddToken(NewToken {
        digest,
        name: "first-administrator".to_owned(),
        role: Role::FullAdministrator,
        expires_at: None,
        replaces: true,
    });
    store
        .commit_one(Change {
            at: clock.now(),
            by: Actor::site(),
            kind,
        })
        .await??;
    Ok(())
}
