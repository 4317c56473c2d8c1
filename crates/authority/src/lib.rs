//! The certificate authority of a site: a root, and under it the issuing CA that signs clients,
//! servers and revocation lists, and the key that signs policy. The only crate that issues. It keeps no records: the use cases of
//! `site` make every issue durable before its certificate leaves the server.

mod files;
mod issue;
mod policy;

use std::path::Path;

use domain::{Clock, Pin, Rng, SerialNumber, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyUsagePurpose};
use x509::{Certificate, PrivateKey};

pub use files::{FileError, make_folder, put_in_place, read_secret, write_public, write_secret};
pub use issue::{ClientTemplate, CrlTemplate, Revoked, ServerKey};
pub use policy::{PolicyKey, PolicySigner, create_policy_key};

/// Life of a site's root: 20 years.
const ROOT_DAYS: i64 = 20 * 365;
/// Life of its issuing CA: 10 years.
const ISSUING_DAYS: i64 = 10 * 365;

/// The embedded certificate authority.
pub struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    issuing: Certificate,
    root: Certificate,
    crl_url: Option<String>,
}

/// Why the authority cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{file} does not hold {expected}")]
    Content {
        file: String,
        expected: &'static str,
    },
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    Mismatch { key: String, certificate: String },
    #[error("cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
}

impl Authority {
    /// Makes the root and the issuing CA of a new site and writes them to `folder`.
    ///
    /// # Errors
    /// When a file cannot be written, or one of them is there already: keys are never replaced.
    pub fn create(
        folder: &Path,
        site_name: &str,
        clock: &dyn Clock,
        rng: &dyn Rng,
    ) -> Result<(), AuthorityError> {
        let now = clock.now();
        let root_key = PrivateKey::generate();
        let root_parameters = ca_parameters(
            &format!("{site_name} Root CA"),
            BasicConstraints::Constrained(1),
            now,
            ROOT_DAYS,
            rng,
        );
        let root = root_parameters.self_signed(root_key.as_rcgen())?;

        let issuing_key = PrivateKey::generate();
        let mut issuing_parameters = ca_parameters(
            &format!("{site_name} Issuing CA"),
            BasicConstraints::Constrained(0),
            now,
            ISSUING_DAYS,
            rng,
        );
        issuing_parameters.use_authority_key_identifier_extension = true;
        let root_issuer = Issuer::from_params(&root_parameters, root_key.as_rcgen());
        let issuing = issuing_parameters.signed_by(issuing_key.as_rcgen(), &root_issuer)?;

        write_secret(&folder.join("root.key"), root_key.to_pem().as_bytes())?;
        write_secret(&folder.join("issuing.key"), issuing_key.to_pem().as_bytes())?;
        write_public(&folder.join("root.pem"), root.pem().as_bytes())?;
        write_public(&folder.join("issuing.pem"), issuing.pem().as_bytes())?;
        create_policy_key(folder, site_name, clock, rng)?;
        Ok(())
    }

    /// Opens the authority in `folder`. The root's key is not needed, and not read.
    ///
    /// # Errors
    /// When a file is missing, readable by others, or not what it should be.
    pub fn open(folder: &Path, crl_url: Option<String>) -> Result<Self, AuthorityError> {
        let root = read_certificate(&folder.join("root.pem"))?;
        let issuing = read_certificate(&folder.join("issuing.pem"))?;
        let key_file = folder.join("issuing.key");
        let pem = read_secret(&key_file)?;
        let key = std::str::from_utf8(&pem)
            .ok()
            .and_then(|pem| PrivateKey::from_pem(pem).ok())
            .ok_or_else(|| content(&key_file, "a private key in PEM"))?;
        if key.digest() != issuing.key() {
            return Err(AuthorityError::Mismatch {
                key: key_file.display().to_string(),
                certificate: folder.join("issuing.pem").display().to_string(),
            });
        }
        let signing_key = rcgen::KeyPair::from_pem(&key.to_pem())?;
        let issuer = Issuer::from_ca_cert_der(&issuing.der().into(), signing_key)?;
        Ok(Self {
            issuer,
            issuing,
            root,
            crl_url,
        })
    }

    /// The root, whose key clients pin.
    pub fn root(&self) -> &Certificate {
        &self.root
    }

    /// The CA that signs clients, servers and revocation lists.
    pub fn issuing(&self) -> &Certificate {
        &self.issuing
    }

    pub fn pin(&self) -> Pin {
        Pin::new(self.root.key())
    }
}

fn ca_parameters(
    common_name: &str,
    constraints: BasicConstraints,
    now: Timestamp,
    days: i64,
    rng: &dyn Rng,
) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = issue::common_name(common_name);
    parameters.is_ca = IsCa::Ca(constraints);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.serial_number = Some(issue::serial(new_serial(rng)));
    parameters.not_before = issue::date(now.as_second() - 3600);
    parameters.not_after = issue::date(now.as_second() + days * 86_400);
    parameters
}

/// A new serial number: 16 random bytes, one bit fixed for the sign and one for the length.
pub fn new_serial(rng: &dyn Rng) -> SerialNumber {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    SerialNumber::from_entropy(bytes)
}

fn read_certificate(file: &Path) -> Result<Certificate, AuthorityError> {
    let pem = files::read(file)?;
    x509::certificates_from_pem(&pem)
        .ok()
        .and_then(|ders| Certificate::from_der(ders.first()?).ok())
        .ok_or_else(|| content(file, "a certificate in PEM"))
}

fn content(file: &Path, expected: &'static str) -> AuthorityError {
    AuthorityError::Content {
        file: file.display().to_string(),
        expected,
    }
}
