//! The administrator's commands. All of them go through the REST API of a running site.

mod baselines;
mod collections;
mod commands;
mod compliance;
mod configuration_items;
mod deployments;
mod exemptions;
mod identity;
mod policy;
mod renewal_windows;

use std::io::{IsTerminal, Read, Write};
use std::sync::Arc;

use anyhow::{Context, bail};
use api::{
    AlertQuery, ApiClient, CertificateQuery, DeviceDetail, DeviceQuery, List, NewUser, PageQuery,
    Password,
};
use clock::SystemClock;
use data_encoding::BASE64;
use domain::DeviceId;
use transport::{Client, Trust};
use x509::CertificateList;
use zeroize::Zeroizing;

use crate::cli::compliance::Policy;
use crate::cli::{
    Administer, Alert, Audit, Certificate, Clock, Connection, Crl, Device, Format, User,
};
use crate::folder::SiteFolder;
use crate::output::{Column, done, list, print, record, to_the_second};

pub async fn run(connection: &Connection, command: Administer) -> anyhow::Result<()> {
    // Keys are made where they lie, also while the site is not running.
    if let Administer::Policy {
        command: Policy::RotateKey { yes },
        format,
    } = command
    {
        return policy::rotate_key(connection, yes, format);
    }
    let api = connect(connection)?;
    match command {
        Administer::User { command, format } => user(&api, command, format).await,
        Administer::Device { command, format } => device(&api, command, format).await,
        Administer::Certificate { command, format } => certificate(&api, command, format).await,
        Administer::Audit { command, format } => audit(&api, command, format).await,
        Administer::Alert { command, format } => alert(&api, command, format).await,
        Administer::Clock { command, format } => clock(&api, command, format).await,
        Administer::Crl { command, format } => crl(&api, command, format).await,
        Administer::Collection { command, format } => collections::run(&api, command, format).await,
        Administer::Ci { command, format } => configuration_items::run(&api, command, format).await,
        Administer::Baseline { command, format } => baselines::run(&api, command, format).await,
        Administer::Deployment { command, format } => deployments::run(&api, command, format).await,
        Administer::Exemption { command, format } => exemptions::run(&api, command, format).await,
        Administer::Policy { command, format } => policy::run(&api, command, format).await,
        Administer::Compliance { command, format } => compliance::run(&api, command, format).await,
        Administer::RenewalWindow { command, format } => {
            renewal_windows::run(&api, command, format).await
        }
    }
}

fn connect(connection: &Connection) -> anyhow::Result<ApiClient> {
    let (address, pin, token) = match (&connection.site, &connection.server) {
        (_, Some(server)) => {
            let (Some(pin), Some(file)) = (connection.pin, &connection.token) else {
                bail!("--server needs --pin and --token");
            };
            let token = authority::read_secret(file)?;
            let token = std::str::from_utf8(&token).context("the token's file holds no text")?;
            (server.clone(), pin, Zeroizing::new(token.to_owned()))
        }
        (Some(site), None) => {
            let folder = SiteFolder::new(site);
            let running = folder.running()?;
            let token = match &connection.token {
                Some(file) => {
                    let token = authority::read_secret(file)?;
                    Zeroizing::new(std::str::from_utf8(&token)?.to_owned())
                }
                None => folder.token()?.context(
                    "the folder holds no administrator's token any more; say --token FILE, or stop the site and make a new one with perennial init",
                )?,
            };
            (running.console, running.pin, token)
        }
        (None, None) => {
            bail!("which site? say --site DIR, or --server HOST:PORT --pin … --token FILE")
        }
    };
    let trust = Trust::Pinned {
        pin,
        check_name: true,
        // A site on this machine shares its clock, right or wrong: `clock accept` must reach it.
        known_time: connection
            .site
            .is_some()
            .then_some(domain::Timestamp::UNIX_EPOCH),
    };
    let client = Client::new(address, trust, None, Arc::new(SystemClock::new()))?;
    Ok(ApiClient::new(client, &token)?)
}

async fn user(api: &ApiClient, command: User, format: Format) -> anyhow::Result<()> {
    match command {
        User::Add {
            name,
            common_name,
            password_stdin,
        } => {
            let password = new_password(&name, password_stdin)?;
            let new = NewUser {
                name,
                common_name,
                password: password.to_string(),
            };
            let user = api.add_user(&new).await?;
            done(format, &format!("added {}", user.name), &user)
        }
        User::List => {
            let users = all(async |after| {
                api.users(&PageQuery {
                    after,
                    limit: Some(1000),
                })
                .await
            })
            .await?;
            let columns = [
                Column("NAME", "/name"),
                Column("COMMON NAME", "/common_name"),
                Column("CREATED", "/created_at"),
            ];
            list(format, &users, &columns)
        }
        User::Remove { name } => {
            api.remove_user(&name).await?;
            done(
                format,
                &format!("removed {name}; devices and certificates of the user stay"),
                &Done {},
            )
        }
        User::Passwd {
            name,
            password_stdin,
        } => {
            let password = new_password(&name, password_stdin)?;
            api.set_password(
                &name,
                &Password {
                    password: password.to_string(),
                },
            )
            .await?;
            done(format, &format!("password of {name} set"), &Done {})
        }
    }
}

const DEVICE_LIST: [Column; 6] = [
    Column("NAME", "/facts/host_name"),
    Column("STATE", "/state"),
    Column("USER", "/user_name"),
    Column("OS", "/facts/os_name"),
    Column("LAST SEEN", "/last_seen"),
    Column("SMSID", "/smsid"),
];

const CERTIFICATE_LIST: [Column; 6] = [
    Column("NOT AFTER", "/not_after"),
    Column("STATE", "/state"),
    Column("DEVICE", "/host_name"),
    Column("SUBJECT", "/subject"),
    Column("ISSUED", "/issued_at"),
    Column("SERIAL", "/serial"),
];

async fn device(api: &ApiClient, command: Device, format: Format) -> anyhow::Result<()> {
    match command {
        Device::List { state, name } => {
            let query = DeviceQuery {
                state: state.map(Into::into),
                name,
                ..DeviceQuery::default()
            };
            list(format, &devices(api, &query).await?, &DEVICE_LIST)
        }
        Device::Show { device } => {
            let device = api.device(resolve(api, &device).await?).await?;
            let columns = [
                Column("Name", "/facts/host_name"),
                Column("SMSID", "/smsid"),
                Column("State", "/state"),
                Column("Replaced by", "/successor"),
                Column("User", "/user_name"),
                Column("Enrolled", "/enrolled_at"),
                Column("Last seen", "/last_seen"),
                Column("Operating system", "/facts/os_name"),
                Column("Version", "/facts/os_version"),
                Column("Model", "/facts/model"),
                Column("Hardware UUID", "/facts/hardware_uuid"),
                Column("Serial number", "/facts/hardware_serial"),
                Column("Agent", "/facts/agent_version"),
                Column("Trust verified", "/facts/trust_verified"),
                Column("Clock is behind by (s)", "/facts/clock_skew"),
                Column("Renewal allowed until", "/renewal_allowed_until"),
                Column("Policy", "/policy/version"),
                Column("Policy problem", "/policy/problem"),
            ];
            let query = CertificateQuery {
                device: Some(device.id),
                ..CertificateQuery::default()
            };
            let certificates = certificates(api, &query).await?;
            if format.json {
                let whole = serde_json::json!({
                    "device": device, "certificates": certificates,
                    "earlier_records": identity::earlier(api, device.id).await?,
                    "commands": commands::latest(api, device.id).await?,
                });
                return print(&serde_json::to_string_pretty(&whole)?);
            }
            record(format, &device, &columns)?;
            if !format.csv {
                if !device.facts.renewal_settings.is_empty() {
                    print("\nRenewal settings, as the device resolved them")?;
                }
                for setting in &device.facts.renewal_settings {
                    print(&format!("{:<24}  {setting}", setting.key))?;
                }
                let alerts = api
                    .alerts(&AlertQuery {
                        device: Some(device.id),
                        ..AlertQuery::default()
                    })
                    .await?;
                if !alerts.items.is_empty() {
                    print("\nOpen alerts")?;
                    list(format, &alerts.items, &ALERT_LIST)?;
                }
                commands::print_latest(api, device.id, format).await?;
                print("\nCertificates")?;
                list(format, &certificates, &CERTIFICATE_LIST)?;
                identity::print_earlier(api, device.id, format).await?;
            }
            Ok(())
        }
        Device::Delete { device } => {
            let id = resolve(api, &device).await?;
            let revoked = api.delete_device(id).await?;
            let sentence = format!(
                "deleted {device}; {} certificates revoked; until its history goes: perennial device export {}",
                revoked.revoked,
                id.smsid()
            );
            done(format, &sentence, &revoked)
        }
        Device::Block { device } => {
            api.block_device(resolve(api, &device).await?).await?;
            done(
                format,
                &format!("blocked {device}: it is refused from now on"),
                &Done {},
            )
        }
        Device::Unblock { device } => {
            api.unblock_device(resolve(api, &device).await?).await?;
            done(format, &format!("unblocked {device}"), &Done {})
        }
        Device::AllowRenewal { device, within } => {
            let id = resolve(api, &device).await?;
            let allowed = api.allow_renewal(id, within).await?;
            let sentence = format!(
                "{device} may renew once until {}, with the key that it has",
                to_the_second(allowed.until)
            );
            done(format, &sentence, &allowed)
        }
        Device::Command {
            device,
            command,
            expires,
            yes,
        } => commands::give(api, &device, command, expires, yes, format).await,
        Device::Commands { device } => commands::run(api, &device, format).await,
        Device::Revoke { device, reason } => {
            let revoked = api
                .revoke_device(resolve(api, &device).await?, reason)
                .await?;
            let sentence = format!("retired {device}; {} certificates revoked", revoked.revoked);
            done(format, &sentence, &revoked)
        }
        Device::Conflicts => identity::conflicts(api, format).await,
        Device::Merge { old, into, yes } => identity::merge(api, &old, &into, yes, format).await,
        Device::KeepBoth { a, b } => identity::keep_both(api, &a, &b, format).await,
        Device::Export { device, out } => identity::export(api, &device, out.as_deref()).await,
    }
}

const ALERT_LIST: [Column; 6] = [
    Column("NUMBER", "/number"),
    Column("LAST", "/last_at"),
    Column("TIMES", "/times"),
    Column("ABOUT", "/about"),
    Column("ALERT", "/kind"),
    Column("DETAIL", "/detail"),
];

async fn alert(api: &ApiClient, command: Alert, format: Format) -> anyhow::Result<()> {
    match command {
        Alert::List {
            all: closed,
            device,
        } => {
            let device = match device {
                Some(device) => Some(resolve(api, &device).await?),
                None => None,
            };
            let alerts = all(async |after| {
                api.alerts(&AlertQuery {
                    device,
                    closed: Some(closed),
                    after,
                    limit: Some(1000),
                })
                .await
            })
            .await?;
            list(format, &alerts, &ALERT_LIST)
        }
        Alert::Close { number } => {
            api.close_alert(number).await?;
            done(format, &format!("closed alert {number}"), &Done {})
        }
    }
}

async fn clock(api: &ApiClient, command: Clock, format: Format) -> anyhow::Result<()> {
    let clock = match command {
        Clock::Show => api.clock().await?,
        Clock::Accept => api.accept_clock().await?,
    };
    let columns = [
        Column("The site goes by", "/time"),
        Column("The machine stepped to", "/stepped_to"),
    ];
    record(format, &clock, &columns)?;
    if clock.stepped_to.is_some() && !format.json && !format.csv {
        print(
            "\nNothing is issued or purged until the new time is accepted: perennial clock accept",
        )?;
    }
    Ok(())
}

async fn certificate(api: &ApiClient, command: Certificate, format: Format) -> anyhow::Result<()> {
    match command {
        Certificate::List {
            expiring_within,
            state,
            device,
        } => {
            let device = match device {
                Some(device) => Some(resolve(api, &device).await?),
                None => None,
            };
            let query = CertificateQuery {
                state: state.map(Into::into),
                device,
                expiring_within,
                ..CertificateQuery::default()
            };
            list(format, &certificates(api, &query).await?, &CERTIFICATE_LIST)
        }
        Certificate::Show { serial, pem } => {
            let certificate = api.certificate(serial).await?;
            if pem {
                let der = BASE64.decode(certificate.der.as_bytes())?;
                return print(x509::certificates_to_pem([&der[..]]).trim_end());
            }
            let columns = [
                Column("Serial", "/serial"),
                Column("Subject", "/subject"),
                Column("State", "/state"),
                Column("Device", "/device"),
                Column("Device name", "/host_name"),
                Column("Issued", "/issued_at"),
                Column("Not before", "/not_before"),
                Column("Not after", "/not_after"),
                Column("First used", "/first_used_at"),
                Column("Revoked", "/revoked_at"),
                Column("Reason", "/revocation_reason"),
                Column("Key (SHA-256)", "/key"),
            ];
            record(format, &certificate, &columns)
        }
        Certificate::Revoke { serial, reason } => {
            let revoked = api.revoke_certificate(serial, reason).await?;
            let sentence = match revoked.revoked {
                0 => format!("{serial} was revoked already"),
                _ => format!("revoked {serial}"),
            };
            done(format, &sentence, &revoked)
        }
    }
}

async fn audit(api: &ApiClient, command: Audit, format: Format) -> anyhow::Result<()> {
    match command {
        Audit::List { limit } => {
            let mut events = Vec::new();
            let mut after = None;
            while (events.len() as u32) < limit {
                let left = limit - events.len() as u32;
                let page = api
                    .audit_events(&PageQuery {
                        after,
                        limit: Some(left.min(1000)),
                    })
                    .await?;
                events.extend(page.items);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let columns = [
                Column("AT", "/at"),
                Column("ACTION", "/action"),
                Column("SUBJECT", "/subject"),
                Column("BY", "/actor"),
                Column("FROM", "/address"),
            ];
            list(format, &events, &columns)
        }
        Audit::Verify => {
            let proof = api.verify_audit().await?;
            let sentence = format!(
                "{} events in {} chains and {} signed checkpoints",
                proof.events, proof.segments, proof.checkpoints
            );
            if proof.holds() {
                return done(format, &format!("the audit log holds: {sentence}"), &proof);
            }
            done(format, &format!("checked {sentence}"), &proof)?;
            for fault in &proof.faults {
                eprintln!("{}: {}", fault.place, fault.what);
            }
            bail!(
                "the audit log was tampered with: {} faults",
                proof.faults.len()
            )
        }
    }
}

async fn crl(api: &ApiClient, Crl::Show { out }: Crl, format: Format) -> anyhow::Result<()> {
    let detail = api.crl().await?;
    let der = BASE64.decode(detail.der.as_bytes())?;
    if let Some(file) = out {
        std::fs::write(&file, &der).with_context(|| format!("cannot write {}", file.display()))?;
        return done(format, &format!("wrote {}", file.display()), &detail);
    }
    let crl = CertificateList::from_der(&der)?;
    let entries: Vec<_> = crl
        .revoked
        .iter()
        .map(|entry| {
            serde_json::json!({
                "serial": entry.serial,
                "revoked_at": entry.at,
                "reason": entry.reason,
            })
        })
        .collect();
    let columns = [
        Column("SERIAL", "/serial"),
        Column("REVOKED", "/revoked_at"),
        Column("REASON", "/reason"),
    ];
    if !format.json && !format.csv {
        print(&format!("Issuer       {}", crl.issuer))?;
        print(&format!("Number       {}", detail.number))?;
        print(&format!("This update  {}", crl.this_update))?;
        if let Some(next) = crl.next_update {
            print(&format!("Next update  {next}"))?;
        }
        print(&format!("Entries      {}\n", entries.len()))?;
    }
    list(format, &entries, &columns)
}

async fn devices(api: &ApiClient, query: &DeviceQuery) -> anyhow::Result<Vec<DeviceDetail>> {
    all(async |after| {
        api.devices(&DeviceQuery {
            after,
            limit: Some(1000),
            ..query.clone()
        })
        .await
    })
    .await
}

async fn certificates(
    api: &ApiClient,
    query: &CertificateQuery,
) -> anyhow::Result<Vec<api::CertificateSummary>> {
    all(async |after| {
        api.certificates(&CertificateQuery {
            after,
            limit: Some(1000),
            ..query.clone()
        })
        .await
    })
    .await
}

/// All pages of a list.
async fn all<T>(
    page: impl AsyncFn(Option<String>) -> Result<List<T>, api::ClientError>,
) -> anyhow::Result<Vec<T>> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let found = page(after).await?;
        items.extend(found.items);
        after = found.next;
        if after.is_none() {
            return Ok(items);
        }
    }
}

/// A device by its identifier, or by its host name where only one has it.
async fn resolve(api: &ApiClient, given: &str) -> anyhow::Result<DeviceId> {
    if let Ok(id) = given.parse() {
        return Ok(id);
    }
    let query = DeviceQuery {
        name: Some(given.to_owned()),
        ..DeviceQuery::default()
    };
    let found: Vec<_> = devices(api, &query)
        .await?
        .into_iter()
        .filter(|device| device.facts.host_name == given)
        .collect();
    match &found[..] {
        [] => bail!("there is no device `{given}`; see: perennial device list"),
        [one] => Ok(one.id),
        several => {
            let ids: Vec<_> = several
                .iter()
                .map(|device| device.smsid.to_string())
                .collect();
            bail!(
                "{} devices are named `{given}`; say which: {}",
                several.len(),
                ids.join(", ")
            )
        }
    }
}

fn new_password(user: &str, from_stdin: bool) -> anyhow::Result<Zeroizing<String>> {
    if from_stdin || !std::io::stdin().is_terminal() {
        let mut text = Zeroizing::new(String::new());
        std::io::stdin().take(4096).read_to_string(&mut text)?;
        return Ok(Zeroizing::new(
            text.trim_end_matches(['\r', '\n']).to_owned(),
        ));
    }
    let first = Zeroizing::new(rpassword::prompt_password(format!(
        "Password for {user}: "
    ))?);
    let second = Zeroizing::new(rpassword::prompt_password("Once more: ")?);
    if *first != *second {
        bail!("the two passwords differ; nothing was changed");
    }
    Ok(first)
}

/// Asks before something that has no way back, or that many computers feel.
///
/// # Errors
/// When the answer is no, or nobody can answer here.
fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody can answer here; say --yes: {question}");
    }
    let mut ask = std::io::stderr();
    write!(ask, "{question} [y/N] ")?;
    ask.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(())
}

/// A whole page of a list.
fn whole_page(after: Option<String>) -> PageQuery {
    PageQuery {
        after,
        limit: Some(1000),
    }
}

/// What a command says in JSON when it did what it was asked and has nothing more to tell.
#[derive(serde::Serialize)]
#[serde(tag = "status", rename = "done")]
struct Done {}
