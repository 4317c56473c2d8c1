//! The address of a site, as people write it.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::ServerName;

/// A host (name or address) and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    host: String,
    port: u16,
}

/// What was given is not an address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a server; write a host name and, if it is not {default}, a port: site.example.com:8444", default = ServerAddress::DEFAULT_PORT)]
pub struct InvalidAddress(String);

impl ServerAddress {
    /// The port of a site's devices listener.
    pub const DEFAULT_PORT: u16 = 8444;

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.host.clone()).expect("checked when it was read")
    }
}

impl ServerAddress {
    /// Reads an address whose port, when it is not said, is `default_port`.
    ///
    /// # Errors
    /// When the host or the port is none.
    pub fn parse(given: &str, default_port: u16) -> Result<Self, InvalidAddress> {
        let invalid =
            || InvalidAddress(given.chars().take(80).filter(|c| !c.is_control()).collect());
        let text = given.trim();
        let text = text
            .strip_prefix("https://")
            .unwrap_or(text)
            .trim_end_matches('/');
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(invalid)?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err(invalid());
            }
            (host, port)
        } else if text.matches(':').count() == 1 {
            let (host, port) = text.split_once(':').ok_or_else(invalid)?;
            (host, Some(port))
        } else {
            (text, None)
        };
        let port = match port {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(invalid)?,
            None => default_port,
        };
        ServerName::try_from(host).map_err(|_| invalid())?;
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl FromStr for ServerAddress {
    type Err = InvalidAddress;

    /// The port is that of a devices listener when it is not said.
    fn from_str(given: &str) -> Result<Self, InvalidAddress> {
        Self::parse(given, Self::DEFAULT_PORT)
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

domain::serde_as_text!(ServerAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (given, written) in [
            ("site.example.com", "site.example.com:8444"),
            ("Site.example.com:443", "site.example.com:443"),
            ("https://127.0.0.1:9000/", "127.0.0.1:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("::1", "[::1]:8444"),
        ] {
            assert_eq!(
                given.parse::<ServerAddress>().expect(given).to_string(),
                written
            );
        }
        for given in [
            "",
            "a b",
            "host:",
            "host:0",
            "host:99999",
            "[::1",
            "[::1]x9000",
            "http//x/y",
        ] {
            assert!(given.parse::<ServerAddress>().is_err(), "{given}");
        }
    }
}
