//! The REST API for administrators, `/api/v1`, and its typed client. JSON; errors are
//! problem+json; lists come in pages (`?limit=…&after=…`, the next page's `after` in `next`).

mod client;
mod server;
mod types;

pub use client::{ApiClient, ClientError};
pub use server::{ROUTES, Route, routes};
pub use types::{
    AlertDetail, AlertQuery, AllowRenewal, AuditEntry, CertificateDetail, CertificateQuery,
    CertificateSummary, ClockDetail, CrlDetail, DeviceDetail, DeviceQuery, List, NewUser,
    PageQuery, Password, RenewalAllowed, Revoke, Revoked, User,
};
