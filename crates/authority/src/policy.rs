//! The key that signs policy. It is not a CA's: who has it can tell devices what to run, and can make
//! no identity. Only nodes that sign policy hold it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use domain::{Clock, KeyDigest, Rng, Timestamp};
use rcgen::{ExtendedKeyUsagePurpose, Issuer, KeyPair};
use x509::{Certificate, PrivateKey};

use crate::files::{self, replace_secret};
use crate::{AuthorityError, content, issue, new_serial, read_certificate, read_secret};

/// The key and its certificate: one file, so that they are replaced together.
const FILE: &str = "policy.key";
/// Life of a policy certificate: 5 years. Devices that sleep through a rotation are not stranded, as
/// they trust any policy certificate under the root.
const POLICY_DAYS: i64 = 5 * 365;

/// Signs lists, bodies and commands for devices.
pub struct PolicySigner {
    key: PrivateKey,
    /// The policy certificate, and the root.
    chain: [Certificate; 2],
}

impl PolicySigner {
    /// Opens the policy key in `folder`; none where there is none: such a node does not sign.
    ///
    /// # Errors
    /// When the file is readable by others, or not what it should be.
    pub fn open(folder: &Path) -> Result<Option<Self>, AuthorityError> {
        let file = folder.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let pem = read_secret(&file)?;
        let key = std::str::from_utf8(&pem)
            .ok()
            .and_then(|pem| PrivateKey::from_pem(pem).ok())
            .ok_or_else(|| content(&file, "a private key in PEM"))?;
        let certificate = x509::certificates_from_pem(&pem)
            .ok()
            .and_then(|ders| Certificate::from_der(ders.first()?).ok())
            .ok_or_else(|| content(&file, "a certificate in PEM"))?;
        let root_file = folder.join("root.pem");
        let root = read_certificate(&root_file)?;
        if key.digest() != certificate.key() {
            return Err(AuthorityError::Mismatch {
                key: file.display().to_string(),
                certificate: file.display().to_string(),
            });
        }
        if !certificate.is_signed_by(&root) {
            return Err(content(&file, "a certificate that the site's root signed"));
        }
        Ok(Some(Self {
            key,
            chain: [certificate, root],
        }))
    }

    /// A signature over `message`: ECDSA with SHA-256, ASN.1.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message)
    }

    /// What devices check the signature with: the policy certificate, and the root.
    pub fn chain(&self) -> [&[u8]; 2] {
        [self.chain[0].der(), self.chain[1].der()]
    }

    /// Names the key.
    pub fn key(&self) -> KeyDigest {
        self.chain[0].key()
    }

    pub fn not_before(&self) -> Timestamp {
        self.chain[0].not_before()
    }

    /// When a new policy key is needed at the latest.
    pub fn not_after(&self) -> Timestamp {
        self.chain[0].not_after()
    }
}

/// The policy key of a running node. One that takes its place on disk is taken into use at the next
/// signature, without a restart; one that is taken away is used no more.
pub struct PolicyKey {
    folder: PathBuf,
    current: Mutex<Opened>,
}

struct Opened {
    file: Option<FileStamp>,
    signer: Option<Arc<PolicySigner>>,
}

/// Which file it was: another one has another number or another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl PolicyKey {
    /// # Errors
    /// When the file is readable by others, or not what it should be.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let file = stamp(folder);
        let signer = PolicySigner::open(folder)?.map(Arc::new);
        Ok(Self {
            folder: folder.to_owned(),
            current: Mutex::new(Opened { file, signer }),
        })
    }

    /// The key as it is now; none on a node that does not sign.
    ///
    /// # Errors
    /// When a file that is new is readable by others, or not what it should be.
    pub fn current(&self) -> Result<Option<Arc<PolicySigner>>, AuthorityError> {
        let mut current = self.current.lock().expect("no holder panics");
        let file = stamp(&self.folder);
        if file == current.file {
            return Ok(current.signer.clone());
        }
        // An error leaves what is remembered as it was, so that the next call looks again.
        let signer = PolicySigner::open(&self.folder)?.map(Arc::new);
        *current = Opened { file, signer };
        Ok(current.signer.clone())
    }
}

fn stamp(folder: &Path) -> Option<FileStamp> {
    let found = std::fs::metadata(folder.join(FILE)).ok()?;
    Some(FileStamp {
        device: found.dev(),
        inode: found.ino(),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

/// Makes a policy key and its certificate in `folder`, in the place of another one. Needs the root's
/// key, which may lie elsewhere at other times.
///
/// # Errors
/// When the root's key is not there, or the file cannot be written.
pub fn create_policy_key(
    folder: &Path,
    site_name: &str,
    clock: &dyn Clock,
    rng: &dyn Rng,
) -> Result<(), AuthorityError> {
    let root_file = folder.join("root.key");
    let pem = read_secret(&root_file)?;
    let root_key = std::str::from_utf8(&pem)
        .ok()
        .and_then(|pem| KeyPair::from_pem(pem).ok())
        .ok_or_else(|| content(&root_file, "a private key in PEM"))?;
    let root = x509::certificates_from_pem(&files::read(&folder.join("root.pem"))?)
        .ok()
        .and_then(|mut ders| ders.pop())
        .ok_or_else(|| content(&folder.join("root.pem"), "a certificate in PEM"))?;
    let issuer = Issuer::from_ca_cert_der(&root.into(), root_key)?;

    let now = clock.now().as_second();
    let at = |seconds| Timestamp::from_second(seconds).expect("a date of this calendar");
    let mut parameters = issue::leaf(
        new_serial(rng),
        at(now - 3600),
        at(now + POLICY_DAYS * 86_400),
    );
    parameters.distinguished_name = issue::common_name(&format!("{site_name} Policy"));
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let key = PrivateKey::generate();
    let certificate = parameters.signed_by(key.as_rcgen(), &issuer)?;
    let mut pem = key.to_pem();
    pem.push_str(&certificate.pem());
    replace_secret(&folder.join(FILE), pem.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use domain::Pin;
    use x509::{PolicySignatureError, verify_policy};

    use super::*;
    use crate::Authority;

    struct Fixed;
    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(1_800_000_000).expect("a moment")
        }
        fn elapsed(&self) -> jiff::SignedDuration {
            jiff::SignedDuration::ZERO
        }
    }
    impl Rng for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    fn site(folder: &Path) -> Pin {
        Authority::create(folder, "Test", &Fixed, &Fixed).expect("a site");
        Authority::open(folder, None).expect("opens").pin()
    }

    #[test]
    fn what_it_signs_is_the_sites_and_only_its() {
        let (ours, theirs) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let pin = site(ours.path());
        let other = site(theirs.path());
        let signer = PolicySigner::open(ours.path())
            .expect("opens")
            .expect("a key");
        let chain: Vec<Vec<u8>> = signer.chain().map(<[u8]>::to_vec).to_vec();
        let signature = signer.sign(b"message");
        let now = Fixed.now();
        let check = |pin, chain: &[Vec<u8>], message: &[u8], now| {
            verify_policy(pin, chain, message, &signature, now).map(|_| ())
        };
        assert_eq!(check(pin, &chain, b"message", now), Ok(()));
        assert_eq!(
            check(pin, &chain, b"Message", now),
            Err(PolicySignatureError::Signature)
        );
        assert_eq!(
            check(other, &chain, b"message", now),
            Err(PolicySignatureError::OtherSite)
        );
        let late = signer.not_after() + jiff::SignedDuration::from_secs(1);
        assert!(matches!(
            check(pin, &chain, b"message", late),
            Err(PolicySignatureError::Ended(_))
        ));
        // The issuing CA is under the root, too, and signs no policy.
        let issuing = x509::certificates_from_pem(
            &std::fs::read(ours.path().join("issuing.pem")).expect("reads"),
        )
        .expect("PEM")
        .remove(0);
        let with_issuing = [issuing, chain[1].clone()];
        assert_eq!(
            check(pin, &with_issuing, b"message", now),
            Err(PolicySignatureError::Purpose)
        );
        let swapped = [chain[0].clone(), {
            let theirs = PolicySigner::open(theirs.path())
                .expect("opens")
                .expect("a key");
            theirs.chain()[1].to_vec()
        }];
        assert_eq!(
            check(other, &swapped, b"message", now),
            Err(PolicySignatureError::NotUnderRoot)
        );
    }

    #[test]
    fn a_new_key_takes_the_place_of_the_old_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let pin = site(folder.path());
        let sign = || {
            let signer = PolicySigner::open(folder.path())
                .expect("opens")
                .expect("a key");
            (
                signer.chain().map(<[u8]>::to_vec).to_vec(),
                signer.sign(b"message"),
            )
        };
        let (old_chain, old) = sign();
        create_policy_key(folder.path(), "Test", &Fixed, &Fixed).expect("a new key");
        let (new_chain, new) = sign();
        assert_ne!(old_chain[0], new_chain[0]);
        // Who slept through it takes the new one, and what it holds of the old one stays good.
        for (chain, signature) in [(old_chain, old), (new_chain, new)] {
            assert!(verify_policy(pin, &chain, b"message", &signature, Fixed.now()).is_ok());
        }
        std::fs::remove_file(folder.path().join(FILE)).expect("removed");
        assert!(PolicySigner::open(folder.path()).expect("opens").is_none());
    }

    #[test]
    fn a_running_node_takes_the_new_key() {
        let folder = tempfile::tempdir().expect("a folder");
        site(folder.path());
        let key = PolicyKey::open(folder.path()).expect("opens");
        let certificate = || {
            let signer = key.current().expect("reads");
            signer.map(|signer| signer.chain()[0].to_vec())
        };
        let old = certificate();
        assert!(old.is_some() && old == certificate());
        create_policy_key(folder.path(), "Test", &Fixed, &Fixed).expect("a new key");
        let new = certificate();
        assert!(new.is_some() && new != old);
        std::fs::remove_file(folder.path().join(FILE)).expect("removed");
        assert_eq!(certificate(), None);
    }
}
