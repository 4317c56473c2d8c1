//! Devices report how they comply, and an administrator asks.

use std::sync::Arc;

use acceptance::est;
use acceptance::programs::{PASSWORD, Server, Site, run, until};
use anyhow::{Context, Result, ensure};
use clock::{SystemClock, SystemRng};
use domain::{Clock, DeviceFacts, Period, Timestamp};
use protocol::{
    CHECK_IN_PATH, CheckIn, CheckInAnswer, RESULTS_PATH, RecordedSet, ResultReceipt, ResultReport,
    ResultsState, SetDigest, StreamId,
};
use serde_json::{Value, json};
use store::{Location, SampleDeployment, Store};
use transport::{Method, Request};
use x509::{Certificate, PrivateKey};

struct Device {
    key: PrivateKey,
    certificate: Certificate,
    smsid: String,
}

impl Device {
    async fn enroll(server: &Server) -> Result<Self> {
        let key = PrivateKey::generate();
        let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
        let certificate = est::certificate(&answer);
        let id = certificate.device().context("a device")?;
        Ok(Self {
            key,
            certificate,
            smsid: id.smsid().to_string(),
        })
    }

    async fn post(&self, server: &Server, path: &str, body: &Value) -> Result<(u16, Value)> {
        let identity = Some((&self.key, &self.certificate));
        let client = est::client(&server.devices, server.pin, identity);
        let request = Request::new(Method::POST, path, serde_json::to_vec(body)?)
            .header("content-type", "application/json");
        let answer = client.send(request).await?;
        Ok((answer.status, serde_json::from_slice(&answer.body)?))
    }

    async fn report(&self, server: &Server, body: &Value) -> Result<ResultReceipt> {
        // What is sent here is what the protocol's types say.
        let report: ResultReport = serde_json::from_value(body.clone())?;
        let (status, answer) = self
            .post(server, RESULTS_PATH, &serde_json::to_value(report)?)
            .await?;
        ensure!(status == 200, "{answer}");
        Ok(serde_json::from_value(answer)?)
    }

    async fn check_in(&self, server: &Server, stream: u8, sequence: u64) -> Result<CheckInAnswer> {
        let now = SystemClock::new().now();
        let check_in = CheckIn {
            facts: DeviceFacts {
                host_name: format!("mac-{stream}"),
                ..DeviceFacts::default()
            },
            time: now,
            policy: None,
            results: Some(ResultsState {
                stream: StreamId::new([stream; 16]),
                sequence,
                digest: digest(sequence),
                evaluated_at: now,
            }),
        };
        let body = serde_json::to_value(check_in)?;
        let (status, answer) = self.post(server, CHECK_IN_PATH, &body).await?;
        ensure!(status == 200, "{answer}");
        Ok(serde_json::from_value(answer)?)
    }
}

fn digest(sequence: u64) -> SetDigest {
    SetDigest::new([sequence as u8; 16])
}

fn recorded(sequence: u64) -> Option<RecordedSet> {
    let digest = digest(sequence);
    Some(RecordedSet { sequence, digest })
}

/// A baseline of two rules, deployed to `Labs`.
async fn deploy(site: &Site, alert_at: Timestamp) -> Result<Vec<i64>> {
    let file = site.folder().join("site.db");
    let store = Store::open(&Location::Sqlite(file), "test", Arc::new(SystemRng)).await?;
    let sample = SampleDeployment {
        baseline: "CIS level 1".parse()?,
        collection: "Labs".parse()?,
        rules: 2,
        stale_after: Period::from_days(30),
        alert: Some((90, alert_at)),
        at: alert_at,
    };
    Ok(store.deploy_sample(&sample).await?.1)
}

#[tokio::test]
async fn devices_report_and_an_administrator_asks() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let (good, bad) = (
        Device::enroll(&server).await?,
        Device::enroll(&server).await?,
    );
    site.admin("collection create Labs")?.succeeded();
    site.admin(&format!("collection add Labs {} {}", good.smsid, bad.smsid))?
        .succeeded();
    let rules = deploy(&site, SystemClock::new().now()).await?;

    // Before the first report the site knows no stream.
    assert_eq!(good.check_in(&server, 1, 1).await?.results, None);
    let now = SystemClock::new().now();
    let result = |rule: usize, state: &str| json!({ "rule": rules[rule], "state": state, "value": "0", "since": now });
    let report = |stream: u8, sequence: u64, whole: bool, results: Value| {
        json!({
            "stream": StreamId::new([stream; 16]), "evaluated_at": now,
            "changes": [{
                "sequence": sequence, "at": now, "whole": whole, "results": results,
                "digest": digest(sequence),
                "follows": (!whole).then(|| digest(sequence - 1)),
            }],
        })
    };
    let first = report(
        1,
        1,
        true,
        json!([result(0, "compliant"), result(1, "compliant")]),
    );
    for _ in 0..2 {
        let receipt = good.report(&server, &first).await?;
        assert_eq!(
            (receipt.recorded, receipt.wants_whole),
            (recorded(1), false)
        );
    }
    assert_eq!(good.check_in(&server, 1, 1).await?.results, recorded(1));
    let first = report(
        2,
        1,
        true,
        json!([result(0, "compliant"), result(1, "non-compliant")]),
    );
    bad.report(&server, &first).await?;
    bad.check_in(&server, 2, 1).await?;
    let gap = report(2, 3, false, json!([]));
    let receipt = bad.report(&server, &gap).await?;
    assert_eq!((receipt.recorded, receipt.wants_whole), (recorded(1), true));
    // What only the site may say is refused.
    let (status, answer) = bad
        .post(
            &server,
            RESULTS_PATH,
            &report(2, 2, false, json!([result(0, "exempt")])),
        )
        .await?;
    assert_eq!(status, 400, "{answer}");

    let summary = site.admin("compliance summary --json")?.succeeded().json();
    assert_eq!(summary[0]["devices"], 2);
    assert_eq!(summary[0]["compliant_percent"], 50);
    let table = site.admin("compliance devices --deployment 1 --state non-compliant")?;
    let table = table.succeeded().out;
    assert!(
        table.contains("mac-2") && !table.contains("mac-1"),
        "{table}"
    );
    // Of a deployment that is not worked out yet, rules count as unknown.
    until("the deployment is worked out", || {
        let summary = site.admin("compliance summary --json")?.succeeded().json();
        Ok(summary[0]["worked_out_percent"].is_null())
    })?;
    let csv = site
        .admin("compliance rules --deployment 1 --csv")?
        .succeeded()
        .out;
    assert!(
        csv.contains("CIS level 1,Rule 2,warning,50,1,0,1,0,0,0,0,0"),
        "{csv}"
    );
    // The alert's moment has come: a site looks when it starts.
    drop(server);
    let server = site.serve()?;
    until("the alert was raised", || {
        let alerts = site.admin("alert list --json")?.succeeded().json();
        Ok(alerts[0]["kind"] == "compliance-below" && alerts[0]["about"] == "deployment 1")
    })?;

    // A remediation mends it. History counts in seconds.
    until("it was so for a second", || {
        Ok(SystemClock::new().now().as_second() > now.as_second())
    })?;
    let mut mended = report(2, 2, false, json!([result(1, "remediated")]));
    mended["changes"][0]["results"][0]["since"] = json!(SystemClock::new().now());
    bad.report(&server, &mended).await?;
    let shown = site.admin(&format!("compliance device {}", bad.smsid))?;
    let shown = shown.succeeded().out;
    assert!(
        shown.contains("compliant") && shown.contains("remediated"),
        "{shown}"
    );
    let words = ["history", "mac-2", "--rule", "Rule 2", "--json"];
    let history = run(site.command("compliance").args(words), "")?;
    let history = history.succeeded().json();
    assert_eq!(history[0]["state"], "remediated");
    assert_eq!(history[1]["state"], "non-compliant");
    assert_eq!(history[1]["until"], history[0]["since"]);
    let flapping = site.admin("compliance flapping --json")?.succeeded().json();
    assert_eq!(
        (&flapping[0]["changes"], &flapping[0]["returns"]),
        (&json!(1), &json!(0))
    );
    let then = site.admin(&format!("compliance at {now} --deployment 1 --json"))?;
    assert_eq!(then.succeeded().json()["devices"], 2);
    let refused = site.admin("compliance summary --deployment 7 --json")?;
    assert_eq!(refused.succeeded().json(), json!([]));
    let refused = site.admin("compliance rules --deployment 7")?;
    assert_eq!(refused.code, 4, "{refused:#?}");
    Ok(())
}
