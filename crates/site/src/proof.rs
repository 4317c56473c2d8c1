//! Proof of an old key, for devices whose certificate no longer opens a TLS connection: a signature
//! over the new request, a nonce of the site, and the site's pin.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use domain::{Period, SerialNumber, Timestamp};
use protocol::{Challenge, Proof, ProofPurpose, proved_message};
use x509::{Certificate, CertificateRequest};

use crate::device::{Judgement, Refusal};
use crate::{Address, DevicePrincipal, Error, Result, Site};

/// How long a nonce is good for. What it can be used for twice is a request that gets the same
/// certificate again.
const NONCE_LIFE: Period = Period::from_seconds(3600);

impl Site {
    /// A nonce for a proof. Any node of the site knows it again; nobody has to remember it.
    pub fn challenge(&self) -> Challenge {
        let time = self.now();
        let mut random = [0; 16];
        self.0.rng.fill(&mut random);
        let mut nonce = Vec::with_capacity(56);
        nonce.extend_from_slice(&time.as_millisecond().to_be_bytes());
        nonce.extend_from_slice(&random);
        let tag = x509::hmac_sha256(&self.0.nonce_key, &nonce);
        nonce.extend_from_slice(&tag);
        Challenge {
            nonce: BASE64URL_NOPAD.encode(&nonce),
            time,
        }
    }

    /// The device that a signature proves beside a user's log-in, as [`Site::proved_device`] does
    /// for a connection. An expired certificate is good enough.
    ///
    /// # Errors
    /// When the proof does not hold, or the device is blocked, whoever logs in on it.
    pub async fn device_proved_by(
        &self,
        proof: &Proof,
        request: &CertificateRequest,
        address: Address,
    ) -> Result<Option<DevicePrincipal>> {
        let proved = self
            .prove(ProofPurpose::Enroll, proof, request, address)
            .await?;
        match proved {
            Ok(device) => Ok(Some(device)),
            Err(refusal) => self.beside_a_log_in(refusal, proof.serial, address).await,
        }
    }

    /// The device whose old key signed `request`, as it asked for `purpose`, or why it may do
    /// nothing. Being expired is no reason here; only the newest certificate that was used will do.
    ///
    /// # Errors
    /// When the proof does not hold.
    pub(crate) async fn prove(
        &self,
        purpose: ProofPurpose,
        proof: &Proof,
        request: &CertificateRequest,
        address: Address,
    ) -> Result<std::result::Result<DevicePrincipal, Refusal>> {
        self.check_nonce(&proof.nonce)?;
        let Some(spki) = self.recorded_key(proof.serial).await? else {
            return Ok(Err(Refusal::Unknown));
        };
        let message = proved_message(purpose, self.pin(), &proof.nonce, request.der());
        let signature = BASE64
            .decode(proof.signature.as_bytes())
            .map_err(|_| Error::Invalid("the proof's signature is not base64".to_owned()))?;
        if !x509::signature_matches(&spki, &message, &signature) {
            return Err(Error::Unauthenticated(
                "the proof does not hold: it was not made by the certificate's key".to_owned(),
            ));
        }
        Ok(match self.judge(proof.serial, address).await? {
            // What was never used took part in nothing: the one before it, or a log-in, is the way.
            Judgement::Good(device) | Judgement::Expired(device) if !device.standing.used => {
                Err(Refusal::NeverUsed)
            }
            Judgement::Good(device) | Judgement::Expired(device) => Ok(device),
            Judgement::Refused(refusal) => Err(refusal),
        })
    }

    /// The public key of a certificate of ours.
    async fn recorded_key(&self, serial: SerialNumber) -> Result<Option<Vec<u8>>> {
        let found = self.0.store.certificate(serial).await?;
        let read = found.and_then(|found| Certificate::from_der(&found.der).ok());
        Ok(read.map(|certificate| certificate.spki_der().to_vec()))
    }

    fn check_nonce(&self, nonce: &str) -> Result<()> {
        let stale = || Error::StaleNonce;
        let bytes = BASE64URL_NOPAD
            .decode(nonce.as_bytes())
            .map_err(|_| stale())?;
        let (body, tag) = bytes.split_at_checked(24).ok_or_else(stale)?;
        if !x509::hmac_sha256_matches(&self.0.nonce_key, body, tag) {
            return Err(stale());
        }
        let made = body[..8]
            .try_into()
            .map(i64::from_be_bytes)
            .unwrap_or_default();
        let made = Timestamp::from_millisecond(made).map_err(|_| stale())?;
        let age = self.now().duration_since(made).abs();
        if age > NONCE_LIFE.duration() {
            return Err(stale());
        }
        Ok(())
    }
}

/// The key of nonces, made out of a secret that all nodes of a site share.
pub(crate) fn nonce_key(secret: &x509::PrivateKey) -> [u8; 32] {
    x509::hmac_sha256(&secret.to_der(), b"perennial nonce key 1")
}
