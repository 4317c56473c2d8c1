//! Groups of devices.

use acceptance::est;
use acceptance::programs::{PASSWORD, Site};
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
        "added 1 of 2 devices to Labs; 1 were members already\n"
    );
    let shown = site.admin("collection show Labs")?.succeeded().out;
    assert!(
        shown.contains("Members  2") && shown.contains(a) && shown.contains(b),
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
