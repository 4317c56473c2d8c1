//! PEM (RFC 7468) for certificates.

use data_encoding::BASE64;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// All certificates in `pem`, in order; other blocks are passed over.
///
/// # Errors
/// When a block is broken.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<Vec<u8>>, rustls_pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem)
        .map(|der| der.map(|der| der.to_vec()))
        .collect()
}

/// The certificates one after the other as PEM.
pub fn certificates_to_pem<'a>(ders: impl IntoIterator<Item = &'a [u8]>) -> String {
    ders.into_iter()
        .map(|der| armoured("CERTIFICATE", der))
        .collect()
}

pub(crate) fn armoured(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    text.push_str(&wrapped(der));
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Base64 in lines of 64 columns, each ended.
pub(crate) fn wrapped(der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut text = String::with_capacity(base64.len() + base64.len() / 64 + 2);
    for (column, c) in base64.chars().enumerate() {
        if column > 0 && column % 64 == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text.push('\n');
    text
}
