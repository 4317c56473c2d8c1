//! This computer's identity: a private key and its certificate, in generations.
//!
//! ```text
//! identity/current -> 0003        one symbolic link decides; replaced in one step
//! identity/0003/key.pem, certificate.pem, site.json
//! identity/pending/               a key on its way: the same, and its purpose
//! ```
//!
//! A new identity is staged, flushed, checked and used once before the link moves to it; the one
//! before it stays until then. Killing the program, or the machine, at any instruction leaves an
//! identity that works: what was staged is taken up again ([`IdentityStore::pending`]).

mod machine;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use transport::ClientIdentity;
use x509::{Certificate, PrivateKey};

pub use machine::Machine;

use crate::failure::Failure;
use crate::files::{self, named};
use crate::site::SiteRecord;

/// A key, its certificate, and the site that issued it.
pub struct Identity {
    pub key: PrivateKey,
    pub certificate: Certificate,
    pub site: SiteRecord,
    /// Where both lie.
    pub folder: PathBuf,
}

impl Identity {
    pub fn for_tls(&self) -> ClientIdentity {
        ClientIdentity {
            chain: vec![self.certificate.der().to_vec()],
            key: self.key.to_der(),
        }
    }
}

/// A key on its way to a certificate.
pub struct Pending {
    pub key: PrivateKey,
    pub site: SiteRecord,
    /// What it is for. A key that was staged for something else is not used.
    pub purpose: String,
    /// There once the site answered.
    pub certificate: Option<Certificate>,
    /// Made just now, as opposed to left behind by an earlier run.
    pub fresh: bool,
}

impl Pending {
    /// True when an earlier run left the key behind and the site says that it cannot be certified
    /// any more: its certificate was revoked, or its device retired, while the answer was lost. A
    /// certificate that arrived is kept when the site refuses who asks (403): it may be the one that
    /// the site knows. `alone`: there is no other identity that could be the right one.
    pub fn is_spent_by<T>(&self, answer: &Result<T, Failure>, alone: bool) -> bool {
        let spent = match answer {
            Err(Failure::Refused { status: 409, .. }) => true,
            Err(Failure::Refused { status: 403, .. }) => self.certificate.is_none() || alone,
            _ => false,
        };
        spent && !self.fresh
    }
}

/// The generations on disk.
pub struct IdentityStore {
    folder: PathBuf,
}

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const PURPOSE: &str = "purpose";

impl IdentityStore {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The identity in use.
    ///
    /// # Errors
    /// When there is one and it cannot be read, or its parts do not belong together.
    pub fn current(&self) -> io::Result<Option<Identity>> {
        self.finish_promotion()?;
        let link = self.folder.join("current");
        let generation = match fs::read_link(&link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&link, &error)),
            Ok(generation) => generation,
        };
        let folder = self.folder.join(generation);
        let key = read_key(&folder)?;
        let certificate = read_certificate(&folder)?;
        if key.digest() != certificate.key() {
            return Err(io::Error::other(format!(
                "the key and the certificate in {} do not belong together",
                folder.display()
            )));
        }
        let site = SiteRecord::read(&folder)?;
        Ok(Some(Identity {
            key,
            certificate,
            site,
            folder,
        }))
    }

    /// True when there is an identity in use, readable or not.
    pub fn has_current(&self) -> bool {
        fs::symlink_metadata(self.folder.join("current")).is_ok()
    }

    /// What was staged and not taken into use. What is half written counts as not there.
    pub fn pending(&self) -> Option<Pending> {
        let folder = self.pending_folder();
        let key = read_key(&folder).ok()?;
        let purpose = fs::read_to_string(folder.join(PURPOSE)).ok()?;
        let certificate = read_certificate(&folder)
            .ok()
            .filter(|certificate| certificate.key() == key.digest());
        let site = SiteRecord::read(&folder).ok()?;
        Some(Pending {
            key,
            site,
            purpose,
            certificate,
            fresh: false,
        })
    }

    /// A key for `purpose`: the one that is staged for it already, so that an answer which was lost
    /// is given again, or a new one.
    pub fn stage(&self, purpose: &str, site: &SiteRecord) -> io::Result<Pending> {
        let folder = self.pending_folder();
        if let Some(pending) = self.pending().filter(|pending| pending.purpose == purpose) {
            site.write(&folder)?;
            return Ok(Pending {
                site: site.clone(),
                ..pending
            });
        }
        self.discard_pending()?;
        let key = PrivateKey::generate();
        files::make_folder(&folder, 0o700)?;
        files::replace(&folder.join(KEY), key.to_pem().as_bytes(), 0o600)?;
        site.write(&folder)?;
        files::replace(&folder.join(PURPOSE), purpose.as_bytes(), 0o600)?;
        Ok(Pending {
            key,
            site: site.clone(),
            purpose: purpose.to_owned(),
            certificate: None,
            fresh: true,
        })
    }

    /// Puts the certificate beside the staged key.
    pub fn add_certificate(&self, certificate: &Certificate) -> io::Result<()> {
        files::replace(
            &self.pending_folder().join(CERTIFICATE),
            certificate.to_pem().as_bytes(),
            0o600,
        )
    }

    /// Takes what is staged into use: moves it to a generation of its own, then moves the one link
    /// that decides.
    pub fn promote(&self) -> io::Result<Identity> {
        let next = self.generations()?.last().map_or(1, |last| last + 1);
        let name = format!("{next:04}");
        let folder = self.folder.join(&name);
        files::rename(&self.pending_folder(), &folder)?;
        files::sync_folder(&self.folder)?;
        self.point_to(&name)?;
        self.current()?
            .ok_or_else(|| io::Error::other("the new identity vanished"))
    }

    /// Removes all generations but the one in use.
    pub fn prune(&self) -> io::Result<()> {
        let current = fs::read_link(self.folder.join("current"))?;
        for generation in self.generations()? {
            let name = format!("{generation:04}");
            if Path::new(&name) != current {
                files::remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Takes over what root confirmed of the site, where the same site is on its way too.
    pub fn confirm_pending(&self, confirmed: &SiteRecord) -> io::Result<()> {
        match self.pending() {
            Some(pending) if pending.site.pin == confirmed.pin => {
                confirmed.write(&self.pending_folder())
            }
            _ => Ok(()),
        }
    }

    pub fn discard_pending(&self) -> io::Result<()> {
        // The key goes last: half a removal must not look like a key that waits for its purpose.
        files::remove(&self.pending_folder().join(PURPOSE))?;
        files::remove(&self.pending_folder())
    }

    /// A generation that was moved in place by a run which was killed before it moved the link.
    /// It was checked and used already, so it is the one to use.
    fn finish_promotion(&self) -> io::Result<()> {
        let current = fs::read_link(self.folder.join("current")).ok();
        let current: Option<u32> = current.and_then(|name| name.to_str()?.parse().ok());
        match self.generations()?.last() {
            Some(last) if Some(*last) > current => self.point_to(&format!("{last:04}")),
            _ => Ok(()),
        }
    }

    fn point_to(&self, generation: &str) -> io::Result<()> {
        let part = self
            .folder
            .join(format!("current.{}.part", std::process::id()));
        files::remove(&part)?;
        files::link(Path::new(generation), &part)?;
        files::rename(&part, &self.folder.join("current"))?;
        files::sync_folder(&self.folder)
    }

    fn pending_folder(&self) -> PathBuf {
        self.folder.join("pending")
    }

    fn generations(&self) -> io::Result<Vec<u32>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found: Vec<u32> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}

fn read_key(folder: &Path) -> io::Result<PrivateKey> {
    let file = folder.join(KEY);
    let pem =
        zeroize::Zeroizing::new(fs::read_to_string(&file).map_err(|error| named(&file, &error))?);
    PrivateKey::from_pem(&pem).map_err(|error| named(&file, &io::Error::other(error)))
}

fn read_certificate(folder: &Path) -> io::Result<Certificate> {
    let file = folder.join(CERTIFICATE);
    let invalid = || named(&file, &io::Error::other("not a certificate"));
    let pem = fs::read(&file).map_err(|error| named(&file, &error))?;
    let ders = x509::certificates_from_pem(&pem).map_err(|_| invalid())?;
    Certificate::from_der(ders.first().ok_or_else(invalid)?).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate of the key's own, which is all that the generations look at.
    fn certificate(key: &PrivateKey) -> Certificate {
        let der = x509::testing::self_signed(key);
        Certificate::from_der(&der).expect("a certificate")
    }

    fn store() -> (tempfile::TempDir, IdentityStore) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = IdentityStore::new(folder.path().join("identity"));
        (folder, store)
    }

    fn site() -> SiteRecord {
        SiteRecord {
            server: "127.0.0.1".parse().expect("an address"),
            pin: domain::Pin::new(domain::KeyDigest::new([0; 32])),
            trust_verified: true,
            check_name: true,
            user: "ann".to_owned(),
        }
    }

    fn promoted(store: &IdentityStore, purpose: &str) -> Identity {
        let pending = store.stage(purpose, &site()).expect("stages");
        store
            .add_certificate(&certificate(&pending.key))
            .expect("writes");
        store.promote().expect("promotes")
    }

    #[test]
    fn a_key_is_staged_once_for_its_purpose() {
        let (_folder, store) = store();
        let first = store.stage("enroll ann", &site()).expect("stages");
        assert_eq!(
            store
                .stage("enroll ann", &site())
                .expect("stages")
                .key
                .digest(),
            first.key.digest()
        );
        assert_ne!(
            store
                .stage("enroll bob", &site())
                .expect("stages")
                .key
                .digest(),
            first.key.digest()
        );
    }

    #[test]
    fn the_link_moves_to_the_new_generation_and_the_old_one_goes_later() {
        let (_folder, store) = store();
        assert!(store.current().expect("reads").is_none());
        let first = promoted(&store, "a");
        let second = promoted(&store, "b");
        assert_ne!(first.folder, second.folder);
        assert!(first.folder.exists());
        store.prune().expect("prunes");
        assert!(!first.folder.exists());
        let current = store.current().expect("reads").expect("is there");
        assert_eq!(current.key.digest(), second.key.digest());
        assert!(store.pending().is_none());
    }

    #[test]
    fn a_promotion_that_was_cut_off_is_finished() {
        let (folder, store) = store();
        let first = promoted(&store, "a");
        let second = promoted(&store, "b");
        // As if killed between the move of the folder and the move of the link.
        store.point_to("0001").expect("points");
        assert!(first.folder.exists());
        let key = store
            .current()
            .expect("reads")
            .expect("is there")
            .key
            .digest();
        assert_eq!(key, second.key.digest());
        drop(folder);
    }

    #[test]
    fn keys_are_for_root_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, store) = store();
        let identity = promoted(&store, "a");
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!(mode(&identity.folder.join(KEY)), 0o600);
        assert_eq!(mode(&identity.folder), 0o700);
        assert_eq!(mode(&store.folder), 0o700);
    }
}
