//! What both sides of TLS share: one cryptographic provider, and time as a parameter.

use std::sync::Arc;

use domain::Clock;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::UnixTime;

/// AWS-LC, with the library's own choice of suites and curves.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The program's clock as the TLS library wants it.
pub(crate) struct TlsTime(pub(crate) Arc<dyn Clock>);

impl std::fmt::Debug for TlsTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsTime")
    }
}

impl rustls::time_provider::TimeProvider for TlsTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            seconds,
        )))
    }
}
