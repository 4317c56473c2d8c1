//! PKCS#7 "certs-only" messages, the form in which EST carries certificates (RFC 7030 section 4.1.3).

use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerInfos};
use data_encoding::BASE64;
use der::asn1::{ObjectIdentifier, SetOfVec};
use der::{Any, Decode, Encode};

const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");

/// What was received is not a certs-only message.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBundle {
    #[error("the answer is not base64")]
    Base64,
    #[error("the answer is not a PKCS#7 certs-only message")]
    Structure(#[from] der::Error),
    #[error("the answer holds no certificate")]
    Empty,
}

/// Writes `certificates` (DER) as base64 in lines of 64 columns.
///
/// # Errors
/// When one of them is not a certificate.
pub fn certs_only_to_base64(certificates: &[&[u8]]) -> Result<String, InvalidBundle> {
    let mut set = SetOfVec::new();
    for der in certificates {
        set.insert(CertificateChoices::Certificate(
            x509_cert::Certificate::from_der(der)?,
        ))?;
    }
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::default(),
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: ID_DATA,
            econtent: None,
        },
        certificates: Some(CertificateSet(set)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::default()),
    };
    let content = Any::encode_from(&signed)?;
    let message = ContentInfo {
        content_type: ID_SIGNED_DATA,
        content,
    };
    Ok(crate::pem::wrapped(&message.to_der()?))
}

/// Reads the certificates (DER) of a base64 message, wrapped or not, in the order of the message.
///
/// # Errors
/// When it is not base64, not certs-only, or empty.
pub fn certs_only_from_base64(text: &[u8]) -> Result<Vec<Vec<u8>>, InvalidBundle> {
    let text: Vec<u8> = text
        .iter()
        .copied()
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    let der = BASE64.decode(&text).map_err(|_| InvalidBundle::Base64)?;
    let message = ContentInfo::from_der(&der)?;
    let signed: SignedData = message.content.decode_as()?;
    let certificates = signed
        .certificates
        .map(|set| set.0.into_vec())
        .unwrap_or_default();
    let ders = certificates
        .iter()
        .map(|choice| match choice {
            CertificateChoices::Certificate(certificate) => Ok(certificate.to_der()?),
            CertificateChoices::Other(_) => Err(InvalidBundle::Empty),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if ders.is_empty() {
        Err(InvalidBundle::Empty)
    } else {
        Ok(ders)
    }
}
