//! `perennial device conflicts`, `merge`, `keep-both` and `export`: whether two records are one
//! computer, and what is known of one.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, bail};
use api::{ApiClient, CertificateQuery, DeviceDetail, KeepBoth, Merge, PageQuery};
use clock::SystemClock;
use data_encoding::BASE64;
use domain::{Clock, DeviceId};
use serde_json::{Value, json};

use super::{CERTIFICATE_LIST, Done, all, certificates, resolve, whole_page};
use crate::cli::Format;
use crate::output::{Column, done, list, print};

pub(super) async fn conflicts(api: &ApiClient, format: Format) -> anyhow::Result<()> {
    let conflicts = all(async |after| api.device_conflicts(&whole_page(after)).await).await?;
    let columns = [
        Column("OLDER", "/older/smsid"),
        Column("NAME", "/older/host_name"),
        Column("USER", "/older/user_name"),
        Column("ENROLLED", "/older/enrolled_at"),
        Column("LAST SEEN", "/older/last_seen"),
        Column("NEWER", "/newer/smsid"),
        Column("NAME", "/newer/host_name"),
        Column("USER", "/newer/user_name"),
        Column("ENROLLED", "/newer/enrolled_at"),
        Column("LAST SEEN", "/newer/last_seen"),
        Column("HARDWARE UUID", "/hardware_uuid"),
        Column("FOUND", "/found_at"),
    ];
    list(format, &conflicts, &columns)?;
    if !conflicts.is_empty() && !format.json && !format.csv {
        print(
            "\nanswer each: device merge OLD --into NEW, device keep-both OLD NEW, or device block DEVICE",
        )?;
    }
    Ok(())
}

pub(super) async fn merge(
    api: &ApiClient,
    old: &str,
    into: &str,
    yes: bool,
    format: Format,
) -> anyhow::Result<()> {
    let (from, into) = (resolve(api, old).await?, resolve(api, into).await?);
    if !yes {
        if !std::io::stdin().is_terminal() {
            bail!("merging has no way back, and nobody can answer here; say --yes");
        }
        let (ends, stays) = (api.device(from).await?, api.device(into).await?);
        let mut ask = std::io::stderr();
        writeln!(ask, "ends:   {}", described(&ends))?;
        writeln!(ask, "stays:  {}", described(&stays))?;
        write!(ask, "Merge them? There is no way back. [y/N] ")?;
        ask.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was changed");
        }
    }
    let revoked = api.merge_devices(from, Merge { into }).await?;
    let sentence = format!(
        "{} is obsolete, {} certificates revoked; its history: perennial device show {}",
        from.smsid(),
        revoked.revoked,
        into.smsid()
    );
    done(format, &sentence, &revoked)
}

fn described(device: &DeviceDetail) -> String {
    let seen = device
        .last_seen
        .map_or("never".to_owned(), |at| at.to_string());
    format!(
        "{} {} ({}), {}, enrolled {}, last seen {seen}",
        device.smsid, device.facts.host_name, device.user_name, device.state, device.enrolled_at
    )
}

pub(super) async fn keep_both(
    api: &ApiClient,
    a: &str,
    b: &str,
    format: Format,
) -> anyhow::Result<()> {
    let (a, other) = (resolve(api, a).await?, resolve(api, b).await?);
    api.keep_both_devices(a, KeepBoth { other }).await?;
    done(
        format,
        "they stay two devices, and are not proposed again",
        &Done {},
    )
}

/// The records that a device replaced, each with its certificates.
pub(super) async fn earlier(api: &ApiClient, device: DeviceId) -> anyhow::Result<Vec<Value>> {
    let mut records = Vec::new();
    for record in earlier_records(api, device).await? {
        let query = CertificateQuery {
            device: Some(record.id),
            ..CertificateQuery::default()
        };
        let certificates = certificates(api, &query).await?;
        records.push(json!({ "device": record, "certificates": certificates }));
    }
    Ok(records)
}

pub(super) async fn print_earlier(
    api: &ApiClient,
    device: DeviceId,
    format: Format,
) -> anyhow::Result<()> {
    let records = earlier_records(api, device).await?;
    if records.is_empty() {
        return Ok(());
    }
    print("\nEarlier records")?;
    let columns = [
        Column("SMSID", "/smsid"),
        Column("NAME", "/facts/host_name"),
        Column("USER", "/user_name"),
        Column("ENROLLED", "/enrolled_at"),
        Column("LAST SEEN", "/last_seen"),
    ];
    list(format, &records, &columns)?;
    for record in &records {
        let query = CertificateQuery {
            device: Some(record.id),
            ..CertificateQuery::default()
        };
        print(&format!("\nCertificates of {}", record.smsid))?;
        list(format, &certificates(api, &query).await?, &CERTIFICATE_LIST)?;
    }
    Ok(())
}

async fn earlier_records(api: &ApiClient, device: DeviceId) -> anyhow::Result<Vec<DeviceDetail>> {
    all(async |after| api.earlier_records(device, &whole_page(after)).await).await
}

pub(super) async fn export(
    api: &ApiClient,
    device: &str,
    out: Option<&Path>,
) -> anyhow::Result<()> {
    let id = resolve(api, device).await?;
    let mut document = known(api, &api.device(id).await?).await?;
    let mut earlier = Vec::new();
    for record in earlier_records(api, id).await? {
        earlier.push(known(api, &record).await?);
    }
    document["earlier_records"] = earlier.into();
    document["exported_at"] = json!(SystemClock::new().now());
    let text = serde_json::to_string_pretty(&document)?;
    match out {
        None => print(&text),
        Some(file) => {
            std::fs::write(file, text + "\n")
                .with_context(|| format!("cannot write {}", file.display()))?;
            print(&format!("wrote {}", file.display()))
        }
    }
}

/// A record, its certificates with PEM, and the log's entries about them.
async fn known(api: &ApiClient, device: &DeviceDetail) -> anyhow::Result<Value> {
    let page = |after| PageQuery {
        after,
        limit: Some(500),
    };
    let id = device.id;
    let mut certificates = Vec::new();
    for certificate in all(async |after| api.export_certificates(id, &page(after)).await).await? {
        let der = BASE64.decode(certificate.der.as_bytes())?;
        let mut value = serde_json::to_value(certificate)?;
        value["pem"] = json!(x509::certificates_to_pem([&der[..]]));
        certificates.push(value);
    }
    let events = all(async |after| api.export_events(id, &page(after)).await).await?;
    Ok(json!({ "device": device, "certificates": certificates, "events": events }))
}
