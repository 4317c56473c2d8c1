//! Making and running a site.

use acceptance::est;
use acceptance::programs::{Site, run};
use anyhow::Result;
use transport::{Client, Request, Trust};

#[test]
fn making_a_site_again_changes_nothing() -> Result<()> {
    let site = Site::new()?;
    let read = |name: &str| std::fs::read(site.folder().join(name));
    let before = (
        read("perennial.toml")?,
        read("keys/root.key")?,
        read("administrator.token")?,
    );
    let mut command = site.command("init");
    let ran = run(command.args(["--name", "Another"]), "")?.succeeded();
    assert!(ran.out.contains("kept"), "{ran:#?}");
    assert_eq!(
        before,
        (
            read("perennial.toml")?,
            read("keys/root.key")?,
            read("administrator.token")?
        )
    );
    let _server = site.serve()?;
    site.admin("user list")?.succeeded();
    Ok(())
}

#[test]
fn mistakes_are_refused_with_a_hint() -> Result<()> {
    let site = Site::new()?;
    site.configure(|text| text.replace("check_in_interval", "chekin_interval"))?;
    let error = format!("{:#}", site.serve().err().expect("refused"));
    assert!(
        error.contains("ended with exit status: 1")
            && error.contains("did you mean `check_in_interval`?"),
        "{error}"
    );

    // A key that others can read.
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new()?;
    let key = site.folder().join("keys/issuing.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;
    let error = format!("{:#}", site.serve().err().expect("refused"));
    assert!(
        error.contains("can be read by others") && error.contains("chmod 600"),
        "{error}"
    );

    // A folder that is no site.
    let folder = tempfile::tempdir()?;
    let mut command = std::process::Command::new(acceptance::programs::program("perennial"));
    let ran = run(command.args(["serve", "--site"]).arg(folder.path()), "")?;
    assert!(
        ran.code == 1 && ran.err.contains("make a site first: perennial init"),
        "{ran:#?}"
    );
    Ok(())
}

#[test]
fn a_second_server_on_the_same_sqlite_site_is_refused() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    let error = format!("{:#}", site.serve().err().expect("refused"));
    assert!(
        error.contains("another `perennial serve` runs this site already"),
        "{error}"
    );
    server.stop()?;
    site.serve()?.stop()?;
    Ok(())
}

#[tokio::test]
async fn health_and_metrics() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    let console = || {
        let trust = Trust::Pinned {
            pin: server.pin,
            check_name: true,
            known_time: None,
        };
        Client::new(
            server.console.clone(),
            trust,
            None,
            std::sync::Arc::new(clock::SystemClock::new()),
        )
    };
    for (path, status, says) in [
        ("/healthz", 200, "alive"),
        ("/readyz", 200, "ready"),
        ("/metrics", 200, "store_commits_total"),
        ("/", 200, "<h1>Example</h1>"),
        ("/api/v1/devices", 401, "valid access token"),
        ("/nothing", 404, ""),
    ] {
        let answer = console()?.send(Request::get(path)).await?;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.text().contains(says), "{path}: {}", answer.text());
    }
    // The devices' listener has no console, and the management point wants a certificate.
    let devices = est::client(&server.devices, server.pin, None);
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 404),
        ("/api/v1/devices", 404),
        ("/management/v1/renewal-info", 404),
        ("/renewal-info/x", 400),
        ("/crl/0.crl", 200),
    ] {
        assert_eq!(
            devices.send(Request::get(path)).await?.status,
            status,
            "{path}"
        );
    }
    let log = server.stop()?;
    assert!(log.contains("stopped"), "{log}");
    Ok(())
}
