//! A user enrolls a device with a name and a password, and gets a certificate for it.
//!
//! Every certificate of a device comes out of [`Site::issue`]. Who is served comes from the log-in
//! or from the device's own certificate, never from the request: of that, the public key is taken
//! and nothing else.

use authority::ClientTemplate;
use directory::{Password, PasswordHash};
use domain::fault::step;
use domain::{AfterExpiry, DeviceId, SerialNumber, Timestamp, UserName};
use serde_json::{Value, json};
use store::{Account, Actor, Applied, Change, Kind, NewCertificate, NewDevice, Note};
use x509::CertificateRequest;
use zeroize::Zeroizing;

use crate::{Address, DevicePrincipal, Error, Result, Site};

/// What somebody typed to log in.
pub struct Credentials {
    pub user: String,
    pub password: Zeroizing<String>,
}

/// A certificate that is recorded. It may leave the server.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    pub der: Vec<u8>,
    pub serial: SerialNumber,
    pub device: DeviceId,
    /// When it was handed out.
    pub time: Timestamp,
    /// It was issued before: the same request came again.
    pub repeated: bool,
}

/// The record of a device that a user enrolls.
#[derive(Clone, Copy)]
pub enum Record<'a> {
    /// Nothing is known of it: it gets a new one.
    Unknown,
    /// It proved its key and keeps the one that it has.
    Kept(&'a DevicePrincipal),
    /// It proved its key and wants a new one, as its identifier was removed. The one that it had
    /// becomes obsolete once the new one is used.
    Replaced(&'a DevicePrincipal),
}

/// For whom a certificate is issued.
enum Subject<'a> {
    /// A user who logged in.
    User {
        account: &'a Account,
        user_name: &'a UserName,
        record: Record<'a>,
    },
    /// A device that proved its current certificate.
    Device(&'a DevicePrincipal),
}

impl Site {
    /// Enrolls the device that holds `request`'s key, for the user who logs in.
    ///
    /// # Errors
    /// When the log-in is wrong, a limit is reached, or the key was used before by somebody else.
    pub async fn enroll(
        &self,
        credentials: Credentials,
        request: &CertificateRequest,
        record: Record<'_>,
        address: Address,
    ) -> Result<IssuedCertificate> {
        let (account, user_name) = self.log_in(credentials, address).await?;
        if !self.is_repeated(&account, request, record).await? {
            self.check_limits(&account, address).await?;
        }
        let subject = Subject::User {
            account: &account,
            user_name: &user_name,
            record,
        };
        self.issue(subject, None, request, Actor::user(&user_name, address))
            .await
    }

    /// Renews the certificate of `device`, for the new key in `request`.
    ///
    /// # Errors
    /// When the request holds the current key, or the device was blocked or retired meanwhile.
    pub async fn renew(
        &self,
        device: &DevicePrincipal,
        request: &CertificateRequest,
    ) -> Result<IssuedCertificate> {
        self.renew_as(device, request, None).await
    }

    pub(crate) async fn renew_as(
        &self,
        device: &DevicePrincipal,
        request: &CertificateRequest,
        after_expiry: Option<AfterExpiry>,
    ) -> Result<IssuedCertificate> {
        if request.key() == device.standing.key {
            return Err(Error::Invalid(
                "the request holds the key of the current certificate; this profile renews with a new key"
                    .to_owned(),
            ));
        }
        let most = self.0.settings.profile.renewals_per_device_per_hour;
        let counted = self
            .0
            .limits
            .count_renewal(device.device(), most, self.now());
        // An answer that was lost costs nothing.
        if counted.is_err() && !self.was_issued(device, request).await? {
            counted?;
        }
        self.issue(
            Subject::Device(device),
            after_expiry,
            request,
            device.actor(),
        )
        .await
    }

    /// Signs, records row and audit entry in one commit, and only then hands the certificate out.
    /// The same device with the same key gets the same certificate again.
    async fn issue(
        &self,
        subject: Subject<'_>,
        after_expiry: Option<AfterExpiry>,
        request: &CertificateRequest,
        by: Actor,
    ) -> Result<IssuedCertificate> {
        self.require_clock()?;
        let now = self.now();
        let profile = &self.0.settings.profile;
        let (device, owner, common_name) = match &subject {
            Subject::User {
                account, record, ..
            } => (
                record.device(account, request),
                &account.id,
                &account.common_name,
            ),
            Subject::Device(proved) => (
                proved.device(),
                &proved.standing.owner,
                &proved.standing.common_name,
            ),
        };
        let template = ClientTemplate {
            serial: authority::new_serial(&*self.0.rng),
            common_name: common_name.clone(),
            device,
            not_before: now - profile.backdating.duration(),
            not_after: now + profile.validity.duration(),
        };
        let signed = self
            .0
            .authority
            .issue_client(request.spki_der(), &template)
            .map_err(|error| Error::Invalid(format!("this key cannot be certified: {error}")))?;
        if signed.not_after() <= now {
            return Err(Error::Conflict(
                "the site's issuing CA has expired: it cannot certify anybody".to_owned(),
            ));
        }
        let certificate = NewCertificate {
            serial: template.serial,
            device,
            owner: owner.clone(),
            key: request.key(),
            subject: signed.subject().to_owned(),
            common_name: common_name.clone(),
            not_before: signed.not_before(),
            not_after: signed.not_after(),
            der: signed.der().to_vec(),
            differences: differences(request, signed.subject()),
        };
        let kind = match &subject {
            Subject::User {
                account,
                user_name,
                record,
            } => Kind::Enroll {
                device: NewDevice {
                    id: device,
                    owner: account.id.clone(),
                    user_name: user_name.to_string(),
                    predecessor: record.predecessor(),
                },
                certificate,
            },
            Subject::Device(proved) => Kind::Renew {
                certificate,
                replaces: proved.standing.serial,
                after_expiry,
            },
        };
        let mut changes = Vec::with_capacity(2);
        if let Subject::Device(proved) = &subject
            && !proved.standing.used
        {
            // Renewing is a use too: clients that speak EST alone never check in.
            changes.push(Change {
                at: now,
                by: by.clone(),
                kind: proved.first_use(),
            });
        }
        changes.push(Change { at: now, by, kind });
        step("issue-signed");
        let mut outcomes = self.0.store.commit(changes).await?;
        step("issue-recorded");
        match outcomes.pop() {
            Some(Ok(Applied::Issued {
                certificate,
                repeated,
            })) => {
                metrics::counter!("site_certificates_issued_total").increment(u64::from(!repeated));
                Ok(IssuedCertificate {
                    der: certificate.der,
                    serial: certificate.serial,
                    device: certificate.device,
                    time: now,
                    repeated,
                })
            }
            Some(Err(conflict)) => Err(conflict.into()),
            Some(Ok(_)) | None => unreachable!("an issue has one outcome, a certificate"),
        }
    }

    async fn log_in(
        &self,
        credentials: Credentials,
        address: Address,
    ) -> Result<(Account, UserName)> {
        let Credentials { user, password } = credentials;
        let wrong = || Error::Unauthenticated("the user name or the password is wrong".to_owned());
        let Ok(user_name) = user.parse::<UserName>() else {
            return Err(wrong());
        };
        let password = Password::new(password)
            .map_err(|rejected| Error::Unauthenticated(rejected.to_string()))?;
        let now = self.now();
        let login = self.0.limits.begin_login(user_name.name(), address, now)?;
        match self.check_password(&user_name, password).await? {
            Some(account) => {
                login.matched();
                Ok((account, user_name))
            }
            None => {
                login.failed();
                let subject = user_name.to_string();
                let key = ("log-in-refused", subject.clone(), address);
                let reason = "the user name or the password is wrong";
                self.note(Actor::nobody(address), key, reason, |detail| {
                    Kind::Noted(Note {
                        action: "log-in-refused",
                        subject,
                        detail,
                    })
                })
                .await;
                Err(wrong())
            }
        }
    }

    async fn check_password(&self, user: &UserName, password: Password) -> Result<Option<Account>> {
        let account = self.0.store.account(user.name()).await?;
        let stored = account
            .as_ref()
            .map(|a| PasswordHash::from_stored(a.password_hash.clone()));
        let matches = self
            .0
            .passwords
            .check(password, stored)
            .await
            .map_err(|_| Error::TooMany {
                reason: "too many people log in just now".to_owned(),
                after: domain::Period::from_seconds(10),
            })?;
        Ok(account.filter(|_| matches))
    }

    /// True when the same device asks for the same key again: its answer was lost, which costs it
    /// nothing of its limits.
    async fn is_repeated(
        &self,
        account: &Account,
        request: &CertificateRequest,
        record: Record<'_>,
    ) -> Result<bool> {
        let device = record.device(account, request);
        Ok(self
            .0
            .store
            .certificate_of_key(device, request.key())
            .await?
            .is_some())
    }

    async fn check_limits(&self, account: &Account, address: Address) -> Result<()> {
        let profile = &self.0.settings.profile;
        let now = self.now();
        let hour = domain::Period::from_seconds(3600);
        let usage = self
            .0
            .store
            .usage(&account.id, now, now - hour.duration())
            .await?;
        if usage.issued >= i64::from(profile.enrollments_per_user_per_hour) {
            return Err(Error::TooMany {
                reason: format!(
                    "the user `{}` got {} certificates within an hour",
                    account.name, usage.issued
                ),
                after: hour,
            });
        }
        if usage.live >= i64::from(profile.live_certificates_per_user) {
            return Err(Error::Forbidden(format!(
                "the user `{}` holds {} valid certificates, the most that the profile allows; \
                 an administrator can revoke some or raise the limit",
                account.name, usage.live
            )));
        }
        self.0
            .limits
            .count_enrollment(address, profile.enrollments_per_address_per_hour, now)
    }
}

impl Record<'_> {
    fn device(&self, account: &Account, request: &CertificateRequest) -> DeviceId {
        match self {
            Self::Kept(proved) => proved.device(),
            Self::Unknown | Self::Replaced(_) => new_device_id(account, request),
        }
    }

    fn predecessor(&self) -> Option<DeviceId> {
        match self {
            Self::Replaced(proved) => Some(proved.device()),
            Self::Unknown | Self::Kept(_) => None,
        }
    }
}

/// The identifier of a new device: made out of its user and its first key, so that a request that
/// comes again, at whichever node, names the same device and cannot make two.
fn new_device_id(account: &Account, request: &CertificateRequest) -> DeviceId {
    let digest = x509::sha256(&[
        b"perennial device 1\0",
        account.id.as_bytes(),
        b"\0",
        request.key().as_bytes(),
    ]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    DeviceId::from_entropy(bytes)
}

/// What the request asked for and the profile did not give.
fn differences(request: &CertificateRequest, subject: &str) -> Option<Value> {
    let wishes = request.wishes();
    let mut differences = serde_json::Map::new();
    if wishes.ca {
        differences.insert("ca".to_owned(), json!(true));
    }
    if !wishes.alternative_names.is_empty() {
        differences.insert(
            "alternative_names".to_owned(),
            json!(wishes.alternative_names),
        );
    }
    if !wishes.subject.is_empty() && wishes.subject != subject {
        differences.insert("subject".to_owned(), json!(wishes.subject));
    }
    (!differences.is_empty()).then_some(Value::Object(differences))
}
