//! Passwords of local accounts: argon2id (RFC 9106), in blocking threads, a bounded number at once.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash as PhcString;
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use domain::Rng;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// A password as somebody typed it. Wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// Why a text cannot be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("the password is empty")]
    Empty,
    #[error("the password is longer than {} bytes", Password::MAX_BYTES)]
    TooLong,
}

impl Password {
    /// Longer texts are refused: hashing cost must not depend on a stranger.
    pub const MAX_BYTES: usize = 1024;

    /// # Errors
    /// When it is empty (many directory servers let an empty password in) or too long.
    pub fn new(text: Zeroizing<String>) -> Result<Self, Rejected> {
        match text.len() {
            0 => Err(Rejected::Empty),
            1..=Self::MAX_BYTES => Ok(Self(text)),
            _ => Err(Rejected::TooLong),
        }
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What is stored of a password: a PHC string with its own salt and costs.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// As it was stored.
    pub fn from_stored(phc: String) -> Self {
        Self(phc)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Checks that may wait for each core: some ten seconds' worth.
const WAITING_PER_CORE: usize = 256;

/// Too many passwords wait to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many log-ins at once")]
pub struct TooManyWait;

/// Hashes and checks passwords. Each costs 19 MiB and some tens of milliseconds (OWASP's first
/// choice for argon2id: m = 19 MiB, t = 2, p = 1), so at most as many run at once as there are cores.
#[derive(Clone)]
pub struct PasswordHasher {
    places: Arc<Semaphore>,
    /// Those who hash and those who wait for it.
    queue: Arc<Semaphore>,
    rng: Arc<dyn Rng>,
}

impl PasswordHasher {
    pub fn new(rng: Arc<dyn Rng>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            places: Arc::new(Semaphore::new(cores)),
            queue: Arc::new(Semaphore::new(cores * WAITING_PER_CORE)),
            rng,
        }
    }

    pub async fn hash(&self, password: Password) -> PasswordHash {
        let mut salt = [0; 16];
        self.rng.fill(&mut salt);
        self.run(move || {
            let hash = Argon2::default()
                .hash_password_with_salt(password.0.as_bytes(), &salt)
                .expect("a password and a salt of allowed lengths");
            PasswordHash(hash.to_string())
        })
        .await
    }

    /// True when `password` is the one behind `stored`. Without a stored hash (no such account) it
    /// costs the same time and is false: an answer's time tells nobody which names exist.
    ///
    /// # Errors
    /// When so many wait already that waiting would outlast a client's patience.
    pub async fn check(
        &self,
        password: Password,
        stored: Option<PasswordHash>,
    ) -> Result<bool, TooManyWait> {
        let _waiting = self
            .queue
            .clone()
            .try_acquire_owned()
            .map_err(|_| TooManyWait)?;
        let matches = self
            .run(move || match &stored {
                Some(hash) => PhcString::new(&hash.0).is_ok_and(|hash| {
                    Argon2::default()
                        .verify_password(password.0.as_bytes(), &hash)
                        .is_ok()
                }),
                None => {
                    let spent =
                        Argon2::default().hash_password_with_salt(password.0.as_bytes(), &[0; 16]);
                    drop(spent);
                    false
                }
            })
            .await;
        Ok(matches)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let place = self
            .places
            .clone()
            .acquire_owned()
            .await
            .expect("never closed");
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        done.await.expect("hashing does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct CountingRng;
    impl Rng for CountingRng {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.iter_mut().zip(0..).for_each(|(byte, n)| *byte = n);
        }
    }

    fn password(text: &str) -> Password {
        Password::new(text.to_owned().into()).expect(text)
    }

    #[tokio::test]
    async fn only_the_right_password_passes() {
        let hasher = PasswordHasher::new(Arc::new(CountingRng));
        let stored = hasher.hash(password("correct horse")).await;
        assert!(
            stored
                .as_str()
                .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
        assert!(
            hasher
                .check(password("correct horse"), Some(stored.clone()))
                .await
                .expect("no queue")
        );
        assert_eq!(
            hasher.check(password("wrong horse"), Some(stored)).await,
            Ok(false)
        );
        assert_eq!(
            hasher.check(password("correct horse"), None).await,
            Ok(false)
        );
        let broken = PasswordHash::from_stored("garbage".to_owned());
        assert_eq!(
            hasher.check(password("correct horse"), Some(broken)).await,
            Ok(false)
        );
    }

    #[test]
    fn empty_and_endless_passwords_are_refused() {
        assert_eq!(
            Password::new(String::new().into()).unwrap_err(),
            Rejected::Empty
        );
        assert_eq!(
            Password::new("x".repeat(2000).into()).unwrap_err(),
            Rejected::TooLong
        );
    }
}
