//! The typed client of the API: what the administrator's command line talks through.

mod compliance;

use domain::{CollectionName, CollectionRules, DeviceId, Period, RevocationReason, SerialNumber};
use protocol::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use site::AuditProof;
use transport::{Client, Method, Request, TransportError};
use zeroize::Zeroizing;

use crate::results::{
    AtQuery, DeployedDevice, DeployedDeviceQuery, DeploymentQuery, DeploymentStanding,
    DeviceDeployment, DeviceRule, FlappingQuery, FlappingRule, HistoryQuery, RuleInterval,
    RuleStanding, StandingAt,
};
use crate::types::*;

/// A site's API, with an administrator's token.
pub struct ApiClient {
    client: Client,
    token: Zeroizing<String>,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the access token is not one: it is a single line of letters, digits, - and _")]
    Token,
    /// The site's own sentence.
    #[error("{detail}")]
    Refused { status: u16, detail: String },
    #[error("the site's answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
}

type Result<T> = std::result::Result<T, ClientError>;

impl ApiClient {
    /// # Errors
    /// When `token` is no access token: it would become a header.
    pub fn new(client: Client, token: &str) -> Result<Self> {
        let token = token.trim();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if token.is_empty() || !token.chars().all(allowed) {
            return Err(ClientError::Token);
        }
        Ok(Self {
            client,
            token: Zeroizing::new(token.to_owned()),
        })
    }

    pub async fn users(&self, query: &PageQuery) -> Result<List<User>> {
        self.get("/api/v1/users", query).await
    }

    pub async fn add_user(&self, new: &NewUser) -> Result<User> {
        self.ask(Method::POST, "/api/v1/users", Some(new)).await
    }

    pub async fn remove_user(&self, name: &str) -> Result<()> {
        self.tell(
            Method::DELETE,
            &format!("/api/v1/users/{}", segment(name)),
            None::<&()>,
        )
        .await
    }

    pub async fn set_password(&self, name: &str, password: &Password) -> Result<()> {
        let path = format!("/api/v1/users/{}/password", segment(name));
        self.tell(Method::PUT, &path, Some(password)).await
    }

    pub async fn devices(&self, query: &DeviceQuery) -> Result<List<DeviceDetail>> {
        self.get("/api/v1/devices", query).await
    }

    pub async fn device(&self, device: DeviceId) -> Result<DeviceDetail> {
        self.get(&format!("/api/v1/devices/{device}"), &()).await
    }

    pub async fn delete_device(&self, device: DeviceId) -> Result<Revoked> {
        self.ask(
            Method::DELETE,
            &format!("/api/v1/devices/{device}"),
            None::<&()>,
        )
        .await
    }

    pub async fn block_device(&self, device: DeviceId) -> Result<()> {
        self.tell(
            Method::POST,
            &format!("/api/v1/devices/{device}/block"),
            None::<&()>,
        )
        .await
    }

    pub async fn unblock_device(&self, device: DeviceId) -> Result<()> {
        self.tell(
            Method::POST,
            &format!("/api/v1/devices/{device}/unblock"),
            None::<&()>,
        )
        .await
    }

    pub async fn revoke_device(
        &self,
        device: DeviceId,
        reason: Option<RevocationReason>,
    ) -> Result<Revoked> {
        let path = format!("/api/v1/devices/{device}/revoke");
        self.ask(Method::POST, &path, Some(&Revoke { reason }))
            .await
    }

    pub async fn allow_renewal(&self, device: DeviceId, within: Period) -> Result<RenewalAllowed> {
        let path = format!("/api/v1/devices/{device}/allow-renewal");
        self.ask(Method::POST, &path, Some(&AllowRenewal { within }))
            .await
    }

    /// Newest first.
    pub async fn alerts(&self, query: &AlertQuery) -> Result<List<AlertDetail>> {
        self.get("/api/v1/alerts", query).await
    }

    pub async fn close_alert(&self, number: i64) -> Result<()> {
        let path = format!("/api/v1/alerts/{number}/close");
        self.tell(Method::POST, &path, None::<&()>).await
    }

    pub async fn clock(&self) -> Result<ClockDetail> {
        self.get("/api/v1/clock", &()).await
    }

    pub async fn accept_clock(&self) -> Result<ClockDetail> {
        self.ask(Method::POST, "/api/v1/clock/accept", None::<&()>)
            .await
    }

    pub async fn certificates(&self, query: &CertificateQuery) -> Result<List<CertificateSummary>> {
        self.get("/api/v1/certificates", query).await
    }

    pub async fn certificate(&self, serial: SerialNumber) -> Result<CertificateDetail> {
        self.get(&format!("/api/v1/certificates/{serial}"), &())
            .await
    }

    pub async fn revoke_certificate(
        &self,
        serial: SerialNumber,
        reason: Option<RevocationReason>,
    ) -> Result<Revoked> {
        let path = format!("/api/v1/certificates/{serial}/revoke");
        self.ask(Method::POST, &path, Some(&Revoke { reason }))
            .await
    }

    /// Newest first.
    pub async fn audit_events(&self, query: &PageQuery) -> Result<List<AuditEntry>> {
        self.get("/api/v1/audit/events", query).await
    }

    pub async fn verify_audit(&self) -> Result<AuditProof> {
        self.get("/api/v1/audit/verify", &()).await
    }

    pub async fn crl(&self) -> Result<CrlDetail> {
        self.get("/api/v1/crl", &()).await
    }

    pub async fn collections(&self, query: &PageQuery) -> Result<List<CollectionDetail>> {
        self.get("/api/v1/collections", query).await
    }

    pub async fn collection(&self, name: &CollectionName) -> Result<CollectionDetail> {
        self.get(&collection_path(name, ""), &()).await
    }

    pub async fn create_collection(&self, new: &NewCollection) -> Result<CollectionDetail> {
        self.ask(Method::POST, "/api/v1/collections", Some(new))
            .await
    }

    pub async fn set_collection_rules(
        &self,
        name: &CollectionName,
        rules: &CollectionRules,
    ) -> Result<CollectionDetail> {
        self.ask(Method::PUT, &collection_path(name, "/rules"), Some(rules))
            .await
    }

    pub async fn preview_collection(&self, preview: &NewPreview) -> Result<Preview> {
        self.ask(Method::POST, "/api/v1/collection-preview", Some(preview))
            .await
    }

    pub async fn collection_fields(&self) -> Result<Vec<FilterField>> {
        self.get("/api/v1/collection-fields", &()).await
    }

    pub async fn delete_collection(&self, name: &CollectionName) -> Result<()> {
        self.tell(Method::DELETE, &collection_path(name, ""), None::<&()>)
            .await
    }

    pub async fn members(
        &self,
        name: &CollectionName,
        query: &PageQuery,
    ) -> Result<List<DeviceDetail>> {
        self.get(&collection_path(name, "/members"), query).await
    }

    pub async fn add_members(&self, name: &CollectionName, devices: &Devices) -> Result<Changed> {
        let path = collection_path(name, "/members/add");
        self.ask(Method::POST, &path, Some(devices)).await
    }

    pub async fn remove_members(
        &self,
        name: &CollectionName,
        devices: &Devices,
    ) -> Result<Changed> {
        let path = collection_path(name, "/members/remove");
        self.ask(Method::POST, &path, Some(devices)).await
    }

    /// Newest first.
    pub async fn renewal_windows(&self, query: &PageQuery) -> Result<List<RenewalWindow>> {
        self.get("/api/v1/renewal-windows", query).await
    }

    pub async fn renewal_window(&self, number: i64) -> Result<RenewalWindowDetail> {
        self.get(&format!("/api/v1/renewal-windows/{number}"), &())
            .await
    }

    pub async fn set_renewal_window(&self, new: &NewRenewalWindow) -> Result<RenewalWindowDetail> {
        self.ask(Method::POST, "/api/v1/renewal-windows", Some(new))
            .await
    }

    pub async fn remove_renewal_window(&self, number: i64) -> Result<()> {
        let path = format!("/api/v1/renewal-windows/{number}");
        self.tell(Method::DELETE, &path, None::<&()>).await
    }

    pub async fn device_conflicts(&self, query: &PageQuery) -> Result<List<DeviceConflict>> {
        self.get("/api/v1/device-conflicts", query).await
    }

    pub async fn merge_devices(&self, from: DeviceId, merge: Merge) -> Result<Revoked> {
        let path = format!("/api/v1/devices/{from}/merge");
        self.ask(Method::POST, &path, Some(&merge)).await
    }

    pub async fn keep_both_devices(&self, device: DeviceId, keep: KeepBoth) -> Result<()> {
        let path = format!("/api/v1/devices/{device}/keep-both");
        self.tell(Method::POST, &path, Some(&keep)).await
    }

    pub async fn earlier_records(
        &self,
        device: DeviceId,
        query: &PageQuery,
    ) -> Result<List<DeviceDetail>> {
        self.get(&format!("/api/v1/devices/{device}/earlier"), query)
            .await
    }

    pub async fn export_certificates(
        &self,
        device: DeviceId,
        query: &PageQuery,
    ) -> Result<List<CertificateDetail>> {
        let path = format!("/api/v1/devices/{device}/export/certificates");
        self.get(&path, query).await
    }

    pub async fn export_events(
        &self,
        device: DeviceId,
        query: &PageQuery,
    ) -> Result<List<AuditEntry>> {
        let path = format!("/api/v1/devices/{device}/export/events");
        self.get(&path, query).await
    }

    pub async fn compliance_summary(
        &self,
        query: &DeploymentQuery,
    ) -> Result<List<DeploymentStanding>> {
        self.get("/api/v1/compliance/summary", query).await
    }

    pub async fn compliance_rules(&self, deployment: i64) -> Result<Vec<RuleStanding>> {
        let path = format!("/api/v1/compliance/deployments/{deployment}/rules");
        self.get(&path, &()).await
    }

    pub async fn deployed_devices(
        &self,
        deployment: i64,
        query: &DeployedDeviceQuery,
    ) -> Result<List<DeployedDevice>> {
        let path = format!("/api/v1/compliance/deployments/{deployment}/devices");
        self.get(&path, query).await
    }

    pub async fn compliance_at(&self, deployment: i64, query: &AtQuery) -> Result<StandingAt> {
        let path = format!("/api/v1/compliance/deployments/{deployment}/at");
        self.get(&path, query).await
    }

    pub async fn device_deployments(&self, device: DeviceId) -> Result<Vec<DeviceDeployment>> {
        let path = format!("/api/v1/compliance/devices/{device}/deployments");
        self.get(&path, &()).await
    }

    pub async fn device_rules(
        &self,
        device: DeviceId,
        query: &PageQuery,
    ) -> Result<List<DeviceRule>> {
        let path = format!("/api/v1/compliance/devices/{device}/rules");
        self.get(&path, query).await
    }

    pub async fn rule_history(
        &self,
        device: DeviceId,
        query: &HistoryQuery,
    ) -> Result<List<RuleInterval>> {
        let path = format!("/api/v1/compliance/devices/{device}/history");
        self.get(&path, query).await
    }

    pub async fn flapping_rules(&self, query: &FlappingQuery) -> Result<Vec<FlappingRule>> {
        self.get("/api/v1/compliance/flapping", query).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T> {
        let query = query_string(&serde_json::to_value(query)?);
        self.ask(Method::GET, &format!("{path}{query}"), None::<&()>)
            .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        Ok(serde_json::from_slice(
            &self.send(method, path, body).await?,
        )?)
    }

    async fn tell(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<()> {
        self.send(method, path, body).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Vec<u8>> {
        let bytes = body
            .map(serde_json::to_vec)
            .transpose()?
            .unwrap_or_default();
        let mut request = Request::new(method, path, bytes)
            .secret_header("authorization", &format!("Bearer {}", *self.token));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let response = self.client.send(request).await?;
        if response.is_success() {
            return Ok(response.body.to_vec());
        }
        let detail = match serde_json::from_slice::<Problem>(&response.body) {
            Ok(problem) => problem.detail.chars().filter(|c| !c.is_control()).collect(),
            Err(_) => format!("the site answered {}", response.status),
        };
        Err(ClientError::Refused {
            status: response.status,
            detail,
        })
    }
}

fn collection_path(name: &CollectionName, rest: &str) -> String {
    format!("/api/v1/collections/{}{rest}", segment(name.as_str()))
}

/// A flat record as a query string.
fn query_string(query: &serde_json::Value) -> String {
    let Some(fields) = query.as_object().filter(|fields| !fields.is_empty()) else {
        return String::new();
    };
    let pairs: Vec<_> = fields
        .iter()
        .map(|(name, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("{name}={}", segment(&value))
        })
        .collect();
    format!("?{}", pairs.join("&"))
}

/// Percent-encodes all but unreserved characters (RFC 3986 section 2.3).
fn segment(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
