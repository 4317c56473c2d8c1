//! Groups of devices.

use acceptance::est;
use acceptance::programs::{Client, PASSWORD, Ran, Site, run, scaled_clock, until};
use anyhow::Result;

#[tokio::test]
async fn devices_are_put_into_collections() -> Result<()> {
    let site = Site::new()?;
    site.without_limits()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let mut devices = Vec::new();
    for _ in 0..3 {
        let key = x509::PrivateKey::generate();
        let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
        let device = est::certificate(&answer).device().expect("a device");
        devices.push(device.smsid().to_string());
    }
    let [a, b, c] = &devices[..] else {
        unreachable!("three devices")
    };
    let said = site.admin("collection create Labs")?.succeeded().out;
    assert_eq!(said, "created the collection Labs\n");
    let said = site.admin(&format!("collection add Labs {a}"))?.succeeded();
    assert_eq!(said.out, "added 1 of 1 devices to Labs\n");
    let file = format!("# the laboratory\n{a}\n\n  {b}\r\n{b}\n");
    let said = site
        .admin_with("collection add Labs --file -", &file)?
        .succeeded();
    assert_eq!(
        said.out,
        "added 1 of 2 devices to Labs; 1 were added before\n"
    );
    let shown = site.admin("collection show Labs")?.succeeded().out;
    assert!(
        shown.contains("Members        2") && shown.contains(a) && shown.contains(b),
        "{shown}"
    );
    let said = site
        .admin(&format!("collection remove Labs {a} {c}"))?
        .succeeded();
    assert_eq!(said.out, "removed 1 devices from Labs\n");
    let listed = site.admin("collection list --csv")?.succeeded().out;
    assert!(listed.contains("\nLabs,1,"), "{listed}");

    // What is wrong is said, and nothing was done.
    let stranger = "GUID:00000000-0000-8000-8000-000000000001";
    for (words, code, says) in [
        ("collection create Labs".to_owned(), 4, "exists already"),
        (
            format!("collection add Labs {c} {stranger}"),
            4,
            "there is no device 00000000",
        ),
        ("collection add Labs".to_owned(), 2, "required"),
        (
            format!("collection add Zoo {c}"),
            4,
            "there is no collection `Zoo`",
        ),
        (
            "collection show Zoo".to_owned(),
            4,
            "there is no collection `Zoo`",
        ),
    ] {
        let ran = site.admin(&words)?;
        assert_eq!(ran.code, code, "{words}: {ran:#?}");
        assert!(ran.err.contains(says), "{words}: {ran:#?}");
    }
    let members = site.admin("collection show Labs --json")?.json();
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1));

    let said = site.admin("collection delete Labs")?.succeeded().out;
    assert_eq!(said, "deleted the collection Labs; its devices stay\n");
    let all = site.admin("device list --json")?.json();
    assert_eq!(all.as_array().map(Vec::len), Some(3));
    site.admin("audit verify")?.succeeded();
    Ok(())
}

/// The identifiers of a collection's members, in the order in which they are listed.
fn members(site: &Site, name: &str) -> Result<Vec<String>> {
    let words = ["members", name, "--json"];
    let ran = run(site.command("collection").args(words), "")?.succeeded();
    let members = ran.json();
    let members = members.as_array().into_iter().flatten();
    Ok(members
        .map(|device| device["smsid"].as_str().unwrap_or_default().to_owned())
        .collect())
}

fn collection(site: &Site, words: &[&str]) -> Result<Ran> {
    run(site.command("collection").args(words), "")
}

#[test]
fn a_certificate_nears_its_end_and_leaves_the_collection_with_its_renewal() -> Result<()> {
    let now: i64 = scaled_clock(1.0)
        .split(':')
        .next()
        .expect("a second")
        .parse()?;
    let days = |days: i64| format!("{now}:{}:1", now + days * 86_400);
    let mut site = Site::with("sqlite", Some(days(0)))?;
    site.configure(|text| text.replace("validity = \"365d\"", "validity = \"60d\""))?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let mut client = Client::with(Some(&days(0)))?;
    client.enroll(&server, "ann")?.succeeded();
    let device = client.status()?["smsid"]
        .as_str()
        .expect("an identifier")
        .to_owned();
    let soon = "Certificate expires within 45 days";
    until("the device is known for what it is", || {
        Ok(members(&site, "All Devices")? == [device.clone()]
            && members(&site, "All Linux")? == [device.clone()])
    })?;
    assert!(members(&site, soon)?.is_empty());
    assert!(members(&site, "All Macs")?.is_empty());
    until("the check-in was noted", || {
        Ok(members(&site, "Never checked in")?.is_empty())
    })?;
    server.stop()?;

    // Twenty days later there are forty left.
    site.set_clock(&days(20));
    client.set_clock(&days(20));
    let server = site.serve()?;
    until("time alone made it a member", || {
        Ok(members(&site, soon)? == [device.clone()])
    })?;
    // The site listens elsewhere since.
    client.goes_to(&server)?;
    client.agent("renew")?.succeeded();
    until("it left with its renewal", || {
        Ok(members(&site, soon)?.is_empty())
    })?;
    site.admin("audit verify")?.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_query_finds_members_and_says_what_is_wrong_with_it() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    let device = client.status()?["smsid"]
        .as_str()
        .expect("an identifier")
        .to_owned();
    until("it is in All Linux", || {
        Ok(members(&site, "All Linux")? == [device.clone()])
    })?;

    let fields = collection(&site, &["fields"])?.succeeded().out;
    assert!(fields.contains("certificate.days_left"), "{fields}");
    let query = "os.name == \"Linux\" && certificate.days_left > 300 && user.name in [\"ann\"]";
    let shown = collection(&site, &["preview", "--query", query])?
        .succeeded()
        .out;
    assert!(
        shown.starts_with("1 devices\n") && shown.contains(&device),
        "{shown}"
    );
    let nobody = collection(
        &site,
        &["preview", "--query", query, "--limit-to", "All Macs"],
    )?;
    assert_eq!(nobody.succeeded().out, "0 devices\n");

    let said = collection(&site, &["create", "Fresh", "--query", query])?
        .succeeded()
        .out;
    assert_eq!(
        said,
        "created the collection Fresh; its members are being found: perennial collection show 'Fresh'\n"
    );
    until("its members are found", || {
        Ok(members(&site, "Fresh")? == [device.clone()])
    })?;
    collection(&site, &["create", "Labs", "--limit-to", "Fresh"])?.succeeded();
    let said = collection(&site, &["add", "Labs", &device])?
        .succeeded()
        .out;
    assert_eq!(said, "added 1 of 1 devices to Labs\n");
    collection(&site, &["set", "Fresh", "--exclude", "All Linux"])?.succeeded();
    until("exclude wins, also over who is limited to it", || {
        Ok(members(&site, "Fresh")?.is_empty() && members(&site, "Labs")?.is_empty())
    })?;
    let shown = collection(&site, &["show", "Fresh"])?.succeeded().out;
    for line in [
        "Kind           query+exclude",
        "Members        0",
        "Limited to     All Devices",
        "Query          os.name == \"Linux\" && certificate.days_left > 300 && user.name in [\"ann\"]",
        "Excludes       All Linux",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    collection(
        &site,
        &[
            "set",
            "Fresh",
            "--no-exclude",
            "--no-query",
            "--include",
            "All Linux",
        ],
    )?
    .succeeded();
    until("what is included is found", || {
        Ok(members(&site, "Labs")? == [device.clone()])
    })?;

    for (words, code, says) in [
        (
            &["create", "A", "--query", "os.nme == \"Linux\""][..],
            2,
            "at character 1: there is no field `os.nme`; did you mean `os.name`?",
        ),
        (
            &["preview", "--query", "os.version > 12"],
            2,
            "at character 14: `os.version` is a version, and the number 12 is none; write v\"12\"",
        ),
        (
            &["create", "A", "--limit-to", "Zoo"],
            4,
            "there is no collection `Zoo`",
        ),
        (
            &["create", "A", "--query", "compliance[\"CIS\"] == \"error\""],
            4,
            "there is no baseline `CIS`",
        ),
        (
            &["set", "Fresh", "--include", "Labs"],
            4,
            "the collection's members would depend on themselves: `Fresh` → `Labs` → `Fresh`",
        ),
        (&["set", "Obsolete", "--no-query"], 1, "is built in"),
        (&["delete", "All Macs"], 4, "is built in"),
        (&["delete", "Fresh"], 4, "is used by the collection `Labs`"),
        (&["set", "Fresh"], 2, "required"),
    ] {
        let ran = collection(&site, words)?;
        assert_eq!(ran.code, code, "{words:?}: {ran:#?}");
        assert!(ran.err.contains(says), "{words:?}: {ran:#?}");
    }
    let listed = collection(&site, &["list"])?.succeeded().out;
    assert!(
        listed.contains("built-in") && listed.contains("LIMITED TO"),
        "{listed}"
    );
    site.admin("audit verify")?.succeeded();
    Ok(())
}
