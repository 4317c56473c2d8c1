//! What the authority signs. Every field is set here: nothing is left to a library's default, and
//! nothing is taken from a request but its public key.

use domain::{DeviceId, RevocationReason, SerialNumber, Timestamp};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyUsagePurpose, RevokedCertParams,
    SanType, SubjectPublicKeyInfo,
};
use time::OffsetDateTime;
use x509::{Certificate, PrivateKey};
use zeroize::Zeroizing;

use crate::{Authority, AuthorityError};

/// A client certificate, as the enrollment profile wants it.
#[derive(Debug, Clone)]
pub struct ClientTemplate {
    pub serial: SerialNumber,
    /// The subject's common name; cut to the 64 characters that X.520 allows.
    pub common_name: String,
    pub device: DeviceId,
    pub not_before: Timestamp,
    /// Cut to the issuing CA's own end: a leaf never outlives its issuer.
    pub not_after: Timestamp,
}

/// A revocation list.
#[derive(Debug, Clone)]
pub struct CrlTemplate {
    pub number: u64,
    pub this_update: Timestamp,
    pub next_update: Timestamp,
    pub revoked: Vec<Revoked>,
}

/// An entry of a revocation list.
#[derive(Debug, Clone)]
pub struct Revoked {
    pub serial: SerialNumber,
    pub at: Timestamp,
    pub reason: RevocationReason,
}

/// A server's certificate chain (DER, its own first, the root last) and its key (PKCS#8 DER).
pub struct ServerKey {
    pub chain: Vec<Vec<u8>>,
    pub key: Zeroizing<Vec<u8>>,
    pub not_after: Timestamp,
}

impl Authority {
    /// Signs a client certificate for the public key `spki_der`.
    ///
    /// # Errors
    /// When the key is of a kind that cannot be certified.
    pub fn issue_client(
        &self,
        spki_der: &[u8],
        template: &ClientTemplate,
    ) -> Result<Certificate, AuthorityError> {
        let mut parameters = leaf(
            template.serial,
            template.not_before,
            template.not_after.min(self.issuing().not_after()),
        );
        parameters.distinguished_name = common_name(&template.common_name);
        let urn = template.device.urn().try_into()?;
        parameters.subject_alt_names = vec![SanType::URI(urn)];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Some(url) = &self.crl_url {
            parameters.crl_distribution_points = vec![CrlDistributionPoint {
                uris: vec![url.clone()],
            }];
        }
        let key = SubjectPublicKeyInfo::from_der(spki_der)?;
        let signed = parameters.signed_by(&key, &self.issuer)?;
        Ok(Certificate::from_der(signed.der()).expect("what was just signed is a certificate"))
    }

    /// Makes a key and a certificate for the site's own listeners, valid for `names`: host names
    /// and IP addresses.
    ///
    /// # Errors
    /// When a name is neither.
    pub fn issue_server(
        &self,
        serial: SerialNumber,
        names: &[String],
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<ServerKey, AuthorityError> {
        let key = PrivateKey::generate();
        let not_after = not_after.min(self.issuing().not_after());
        let mut parameters = leaf(serial, not_before, not_after);
        parameters.distinguished_name = common_name(names.first().map_or("site", String::as_str));
        parameters.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => Ok(SanType::DnsName(name.clone().try_into()?)),
            })
            .collect::<Result<_, rcgen::Error>>()?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = parameters.signed_by(key.as_rcgen(), &self.issuer)?;
        let chain = vec![
            signed.der().to_vec(),
            self.issuing().der().to_vec(),
            self.root().der().to_vec(),
        ];
        Ok(ServerKey {
            chain,
            key: key.to_der(),
            not_after,
        })
    }

    /// Signs a revocation list (DER).
    ///
    /// # Errors
    /// When `next_update` is not after `this_update`.
    pub fn sign_crl(&self, template: &CrlTemplate) -> Result<Vec<u8>, AuthorityError> {
        let parameters = CertificateRevocationListParams {
            this_update: date(template.this_update.as_second()),
            next_update: date(template.next_update.as_second()),
            crl_number: rcgen::SerialNumber::from(template.number),
            issuing_distribution_point: None,
            key_identifier_method: KeyIdMethod::Sha256,
            revoked_certs: template.revoked.iter().map(entry).collect(),
        };
        Ok(parameters.signed_by(&self.issuer)?.der().to_vec())
    }
}

pub(crate) fn leaf(
    serial_number: SerialNumber,
    not_before: Timestamp,
    not_after: Timestamp,
) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(serial(serial_number));
    parameters.not_before = date(not_before.as_second());
    parameters.not_after = date(not_after.as_second());
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

fn entry(revoked: &Revoked) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: serial(revoked.serial),
        revocation_time: date(revoked.at.as_second()),
        // RFC 5280 section 5.3.1: "unspecified" should be left out.
        reason_code: match revoked.reason {
            RevocationReason::Unspecified => None,
            RevocationReason::KeyCompromise => Some(rcgen::RevocationReason::KeyCompromise),
            RevocationReason::AffiliationChanged => {
                Some(rcgen::RevocationReason::AffiliationChanged)
            }
            RevocationReason::Superseded => Some(rcgen::RevocationReason::Superseded),
            RevocationReason::CessationOfOperation => {
                Some(rcgen::RevocationReason::CessationOfOperation)
            }
            RevocationReason::PrivilegeWithdrawn => {
                Some(rcgen::RevocationReason::PrivilegeWithdrawn)
            }
        },
        invalidity_date: None,
    }
}

/// A subject of one common name, cut to X.520's 64 characters.
pub(crate) fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(
        DnType::CommonName,
        name.chars().take(64).collect::<String>(),
    );
    subject
}

pub(crate) fn serial(serial: SerialNumber) -> rcgen::SerialNumber {
    rcgen::SerialNumber::from_slice(serial.as_bytes())
}

pub(crate) fn date(unix_seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix_seconds).expect("a date of this calendar")
}
