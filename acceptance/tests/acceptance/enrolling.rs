//! A user enrolls a computer: what is said, and with which exit code.

use acceptance::programs::{Client, PASSWORD, Site, run};
use acceptance::secrets;
use anyhow::Result;

#[test]
fn each_outcome_has_its_message_and_exit_code() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    // (user, password, exit code, what is said)
    let rows = [
        (
            "ann",
            "wrong horse",
            4,
            "error: the server refused: the user name or the password is wrong",
        ),
        ("ann", "", 4, "error: the password is empty"),
        (
            "nobody",
            PASSWORD,
            4,
            "error: the server refused: the user name or the password is wrong",
        ),
        (
            "EXAMPLE\\",
            PASSWORD,
            4,
            "error: the server refused: the user name or the password is wrong",
        ),
        ("ann", PASSWORD, 0, ""),
        ("EXAMPLE\\ann", PASSWORD, 0, ""),
        ("ann@example.com", PASSWORD, 0, ""),
    ];
    for (user, password, code, says) in rows {
        let ran = client.enroll_with(&server, user, password)?;
        assert_eq!(ran.code, code, "{user}: {ran:#?}");
        assert_eq!(ran.err.lines().next().unwrap_or(""), says, "{user}");
        if code == 0 {
            for expected in [
                "Successfully enrolled",
                "Subject  CN=ann",
                "Expires  ",
                "SMSID    GUID:",
                "Server   127.0.0.1:",
            ] {
                assert!(ran.out.contains(expected), "{expected}: {}", ran.out);
            }
        }
    }
    // Enrolling again with the identifier and the old certificate kept one record.
    let devices = site.admin("device list --json")?.json();
    assert_eq!(devices.as_array().map(Vec::len), Some(1), "{devices}");
    secrets::assert_none(&site, &[&client], &[server.log()])
}

#[test]
fn a_server_that_is_away_is_said_to_be_away() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    let client = Client::new()?;
    let (devices, pin) = (server.devices.to_string(), server.pin.to_string());
    server.stop()?;
    let mut command = client.command("enroll");
    command.args([
        "-s",
        &devices,
        "-u",
        "ann",
        "--password-stdin",
        "--pin",
        &pin,
    ]);
    let ran = run(&mut command, PASSWORD)?;
    assert_eq!(ran.code, 5, "{ran:#?}");
    assert!(
        ran.err
            .contains(&format!("cannot reach {devices}: Connection refused")),
        "{ran:#?}"
    );
    assert!(ran.err.contains("identity is as it was"), "{ran:#?}");
    assert_eq!(client.agent("status")?.code, 3);
    // The administrator's command line says the same.
    let ran = site.admin("device list")?;
    assert_eq!(ran.code, 5, "{ran:#?}");
    assert!(
        ran.err
            .contains("is not running; start it: perennial serve"),
        "{ran:#?}"
    );
    Ok(())
}

#[test]
fn an_untrusted_server_is_refused_asked_about_pinned_or_accepted_unverified() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let address = server.devices.to_string();
    let pin = server.pin.to_string();
    let enroll = |client: &Client, words: &[&str]| {
        let mut command = client.command("enroll");
        command
            .args(["-s", &address, "-u", "ann", "--password-stdin"])
            .args(words);
        run(&mut command, PASSWORD)
    };

    // Refused, with the fingerprint and what to do.
    let client = Client::new()?;
    let ran = enroll(&client, &[])?;
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(
        ran.err.contains("is not trusted") && ran.err.contains(&format!("--pin {pin}")),
        "{ran:#?}"
    );

    // Another site's pin is not ours.
    let other = format!("sha256:{}", "0".repeat(64));
    let ran = enroll(&client, &["--pin", &other])?;
    assert_eq!(ran.code, 4, "{ran:#?}");

    // Trusted by the root's certificate, and by the operating system's roots.
    let root = site.folder().join("keys/root.pem");
    let root = root.to_string_lossy();
    enroll(&client, &["--ca", &root])?.succeeded();
    let client = Client::new()?;
    let mut command = client.command("enroll");
    command
        .args(["-s", &address, "-u", "ann", "--password-stdin"])
        .env("SSL_CERT_FILE", &*root);
    run(&mut command, PASSWORD)?.succeeded();
    assert_eq!(client.status()?["trust_verified"], true);

    // The incumbent's option: accepted, pinned, and marked until root confirms.
    let client = Client::installed()?;
    let words = [
        "-s",
        &address,
        "-ignorecertchainvalidation",
        "-u",
        "ann",
        "--password-stdin",
    ];
    let ran = client
        .installed_tool("CMEnroll", &words, PASSWORD)?
        .succeeded();
    assert!(
        ran.err
            .starts_with("warning: the server's certificate chain was not checked"),
        "{ran:#?}"
    );
    assert!(ran.out.contains("Trust    unverified"), "{ran:#?}");
    assert_eq!(client.status()?["trust_verified"], false);
    client.agent("renew")?.succeeded();
    assert_eq!(
        client.status()?["trust_verified"],
        false,
        "renewing does not verify"
    );
    assert_eq!(client.agent(&format!("trust confirm {other}"))?.code, 1);
    client.agent(&format!("trust confirm {pin}"))?.succeeded();
    assert_eq!(client.status()?["trust_verified"], true);
    Ok(())
}

#[test]
fn on_a_terminal_the_tool_shows_the_fingerprint_and_asks() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    for (answer, code) in [("no", 1), ("yes", 0)] {
        let client = Client::new()?;
        // util-linux's `script` gives the program a terminal.
        let line = format!(
            "{} enroll --root {} -s {} -u ann",
            acceptance::programs::program("perennial-agent").display(),
            client.root().display(),
            server.devices
        );
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]);
        let ran = run(&mut command, &format!("{answer}\n{PASSWORD}\n"))?;
        assert_eq!(ran.code, code, "{ran:#?}");
        assert!(ran.out.contains(&server.pin.to_string()), "{ran:#?}");
        assert!(
            !ran.out.contains("Successfully enrolled") || code == 0,
            "{ran:#?}"
        );
    }
    Ok(())
}

#[test]
fn management_can_prescribe_the_site_and_forbid_unverified_ones() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let managed = |client: &Client, key: &str, value: &str| {
        let folder = client.root().join("etc/perennial/managed");
        std::fs::create_dir_all(&folder)?;
        let list = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><plist version=\"1.0\"><dict><key>{key}</key>{value}</dict></plist>"
        );
        std::fs::write(folder.join("com.microsoft.ccmclient.plist"), list)
    };
    let enroll = |client: &Client, words: &[&str]| {
        let mut command = client.command("enroll");
        command
            .args([
                "-s",
                &server.devices.to_string(),
                "-u",
                "ann",
                "--password-stdin",
            ])
            .args(words);
        run(&mut command, PASSWORD)
    };
    let client = Client::new()?;
    managed(&client, "AllowUnverifiedServer", "<false/>")?;
    let ran = enroll(&client, &["--insecure-skip-verify"])?;
    assert!(
        ran.code == 1 && ran.err.contains("AllowUnverifiedServer"),
        "{ran:#?}"
    );

    managed(
        &client,
        "ServerPin",
        &format!("<string>{}</string>", server.pin),
    )?;
    let ran = enroll(&client, &["--insecure-skip-verify"])?;
    assert!(ran.code == 1 && ran.err.contains("ServerPin"), "{ran:#?}");
    enroll(&client, &[])?.succeeded();

    let client = Client::new()?;
    managed(
        &client,
        "ServerPin",
        &format!("<string>sha256:{}</string>", "0".repeat(64)),
    )?;
    assert_eq!(enroll(&client, &[])?.code, 4);
    Ok(())
}

#[test]
fn the_key_stays_with_root_and_the_keys_of_the_domain_are_there() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::installed()?;
    client.enroll(&server, "ann")?.succeeded();
    let mut keys = 0;
    for path in client.tree()? {
        if path.ends_with("key.pem") {
            keys += 1;
            assert_eq!(
                std::fs::metadata(&path)?.permissions().mode() & 0o777,
                0o600
            );
        } else if path.is_file() && !path.starts_with(client.root().join("usr")) {
            let content = std::fs::read(&path)?;
            let text = String::from_utf8_lossy(&content);
            assert!(
                !text.contains("PRIVATE KEY") && !text.contains(PASSWORD),
                "{}",
                path.display()
            );
        }
    }
    assert_eq!(keys, 1);

    let read = |key: &str| {
        let ran =
            client.installed_tool("defaults", &["read", "com.microsoft.ccmclient", key], "")?;
        Ok::<_, anyhow::Error>(ran.succeeded().out.trim().to_owned())
    };
    let status = client.status()?;
    assert_eq!(read("SMSID")?, status["smsid"].as_str().unwrap_or_default());
    assert_eq!(read("EnrollmentStatus")?, "1");
    assert_eq!(read("EnrollmentUserName")?, "ann");
    assert_eq!(read("EnrollmentServerName")?, "127.0.0.1");
    assert_eq!(read("MP")?, server.devices.to_string());
    assert_eq!(
        read("CertExpDate")?,
        status["not_after"].as_str().unwrap_or_default()
    );
    assert!(read("OMALastConnectTime")?.starts_with("20"));

    // Removing the identifier gives a new one at the next enrollment, and a new record.
    let pair = ["delete", "com.microsoft.ccmclient", "SMSID"];
    client.installed_tool("defaults", &pair, "")?.succeeded();
    let ran = client.installed_tool("defaults", &pair, "")?;
    assert_eq!(ran.code, 1);
    let says = "The domain/default pair of (com.microsoft.ccmclient, SMSID) does not exist";
    assert_eq!(ran.err.lines().last(), Some(says));
    client.agent("check-in")?.succeeded();
    assert_eq!(
        client.status()?["smsid"],
        serde_json::Value::Null,
        "a deleted one is not restored"
    );
    client.enroll(&server, "ann")?.succeeded();
    assert_ne!(client.status()?["smsid"], status["smsid"]);
    secrets::assert_none(&site, &[&client], &[server.log()])
}
