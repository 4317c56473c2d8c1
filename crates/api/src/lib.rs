//! The REST API for administrators, `/api/v1`, and its typed client. JSON; errors are
//! problem+json; lists come in pages (`?limit=…&after=…`, the next page's `after` in `next`).

mod client;
mod results;
mod server;
mod types;

pub use site::{MOST_ITEM_BYTES, MOST_MEMBERS_AT_ONCE};

pub use client::{ApiClient, ClientError};
pub use results::{
    AtQuery, DeployedDevice, DeployedDeviceQuery, DeploymentQuery, DeploymentStanding,
    DeviceDeployment, DeviceRule, FlappingQuery, FlappingRule, HistoryQuery, RuleExemption,
    RuleInterval, RuleStanding, StandingAt,
};
pub use server::{ROUTES, Route, routes};
pub use types::compliance::{
    BaselineDetail, BaselineSummary, CommandDetail, DeployedItem, DeploymentDetail,
    DifferenceQuery, ExemptionDetail, ExemptionQuery, ItemDetail, ItemDifference, ItemRevision,
    ItemSummary, NewBaseline, NewCommand, NewExemption, NewItem, Numbered, PolicyDetail,
    RaisedEpoch, ReviseItem, RevisedItem, SetBaseline, SetDeployment, TestScript, Uninstall,
};
pub use types::{
    AlertDetail, AlertQuery, AllowRenewal, AuditEntry, CertificateDetail, CertificateQuery,
    CertificateSummary, Changed, ClockDetail, CollectionDetail, ConflictingDevice, CrlDetail,
    DeviceConflict, DeviceDetail, DeviceQuery, Devices, FilterField, KeepBoth, List, Merge,
    NewCollection, NewPreview, NewRenewalWindow, NewUser, PageQuery, Password, Preview,
    RenewalAllowed, RenewalWindow, RenewalWindowDetail, ReportedPolicy, Revoke, Revoked, User,
};
