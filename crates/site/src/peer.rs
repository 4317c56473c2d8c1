//! Who is at the other end of a connection, as the listener saw it.

use domain::SerialNumber;

use crate::Address;

/// The other end of a connection: what the listener hands to every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The serial number of the client certificate that TLS verified.
    pub certificate: Option<SerialNumber>,
    pub address: Address,
}
