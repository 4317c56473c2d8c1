//! The REST API for administrators, `/api/v1`, and its typed client. JSON; errors are
//! problem+json; lists come in pages (`?limit=…&after=…`, the next page's `after` in `next`).

mod client;
mod results;
mod server;
mod types;

pub use site::MOST_MEMBERS_AT_ONCE;

pub use client::{ApiClient, ClientError};
pub use results::{
    AtQuery, DeployedDevice, DeployedDeviceQuery, DeploymentQuery, DeploymentStanding,
    DeviceDeployment, DeviceRule, FlappingQuery, FlappingRule, HistoryQuery, RuleExemption,
    RuleInterval, RuleStanding, StandingAt,
};
pub use server::{ROUTES, Route, routes};
pub use types::{
    AlertDetail, AlertQuery, AllowRenewal, AuditEntry, CertificateDetail, CertificateQuery,
    CertificateSummary, Changed, ClockDetail, CollectionDetail, ConflictingDevice, CrlDetail,
    DeviceConflict, DeviceDetail, DeviceQuery, Devices, KeepBoth, List, Merge, NewCollection,
    NewRenewalWindow, NewUser, PageQuery, Password, RenewalAllowed, RenewalWindow,
    RenewalWindowDetail, Revoke, Revoked, User,
};
