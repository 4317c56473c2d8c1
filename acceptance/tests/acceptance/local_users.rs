//! What this computer's users ask the agent for over its socket, against a real site.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use acceptance::programs::{Client, NOBODY, PASSWORD, Ran, Site, run, until};
use acceptance::secrets;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// `curl` as a user without privileges, where the tests run as root.
fn curl(client: &Client, path: &str) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--no-buffer", "--unix-socket"])
        .arg(client.root().join("run/perennial-agent/agent.sock"))
        .arg(format!("http://agent/local/v1/{path}"))
        .current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn get(client: &Client, path: &str) -> Result<Value> {
    Ok(run(&mut curl(client, path), "")?.succeeded().json())
}

fn post(client: &Client, path: &str, body: &Value) -> Result<Ran> {
    let mut command = curl(client, path);
    run(command.args(["--data-binary", "@-"]), &body.to_string())
}

fn steps(ran: Ran) -> Result<Vec<Value>> {
    let lines = ran.out.lines().map(serde_json::from_str);
    lines
        .collect::<Result<Vec<Value>, _>>()
        .with_context(|| format!("{ran:?}"))
}

fn with_socket() -> Result<Client> {
    let client = Client::installed()?;
    std::fs::set_permissions(client.root(), Permissions::from_mode(0o755))?;
    Ok(client)
}

#[test]
fn a_user_renews_over_the_socket() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = with_socket()?;
    client.enroll(&server, "ann")?.succeeded();
    let mut daemon = client.daemon()?;
    let socket = client.root().join("run/perennial-agent/agent.sock");
    until("the agent listens", || Ok(socket.exists()))?;

    let mut listener = curl(&client, "events").stdout(Stdio::piped()).spawn()?;
    let mut events = BufReader::new(listener.stdout.take().context("a pipe")?).lines();
    assert_eq!(events.next().context("one")??, r#"{"site-reachable":true}"#);

    let before = client.status()?;
    let seen = get(&client, "status")?;
    assert_eq!(seen["identity"]["user"], "ann");
    assert_eq!(seen["identity"]["smsid"], before["smsid"]);

    // A wrong password changes nothing.
    let wrong = json!({ "user": "ann", "password": "wrong horse" });
    let refused = steps(post(&client, "renewals", &wrong)?)?;
    assert_eq!(refused[0], "asking-the-site");
    assert_eq!(refused[1]["refused"]["failure"], "wrong-password");
    assert_eq!(client.status()?["serial"], before["serial"]);

    let right = json!({ "user": "ann", "password": PASSWORD });
    let done = steps(post(&client, "renewals", &right)?)?;
    assert_eq!(
        done[..2],
        ["asking-the-site", "taking-into-use"],
        "{done:?}"
    );
    assert!(done[2]["renewed"]["not_after"].is_string(), "{done:?}");
    let after = client.status()?;
    assert_ne!(after["serial"], before["serial"]);
    assert_eq!(after["smsid"], before["smsid"]);
    let heard = events.next().context("one")??;
    assert!(heard.contains("renewed"), "{heard}");

    let checked_in = steps(post(&client, "check-ins", &json!(""))?)?;
    assert!(
        checked_in[1]["checked-in"]["at"].is_string(),
        "{checked_in:?}"
    );

    // Diagnostics come to whoever asks, as a stream.
    let folder = tempfile::tempdir()?;
    let zip = folder.path().join("d.zip");
    let ran = curl(&client, "diagnostics")
        .stdout(std::fs::File::create(&zip)?)
        .status()?;
    assert!(ran.success());
    let archive = zip::ZipArchive::new(std::fs::File::open(&zip)?)?;
    let names = archive.file_names().map(|name| Ok(name?.into_owned()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    assert!(
        names.iter().any(|name| name == "logs/agent.log"),
        "{names:?}"
    );
    assert!(!names.iter().any(|name| name == "state.json"), "{names:?}");

    secrets::assert_none(&site, &[&client], &[daemon.log(), server.log()])?;
    let pid = Pid::from_raw(i32::try_from(daemon.pid())?).context("a process")?;
    kill_process(pid, Signal::TERM)?;
    until("the daemon stops", || daemon.has_ended())?;
    assert!(!socket.exists());
    listener.wait()?;
    Ok(())
}

#[test]
fn a_user_enrolls_at_the_managed_server_and_at_no_other() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = with_socket()?;
    let managed = client.root().join("etc/perennial/managed");
    std::fs::create_dir_all(&managed)?;
    let list = format!(
        "<plist><dict><key>Server</key><string>{}</string><key>ServerPin</key><string>{}</string></dict></plist>",
        server.devices, server.pin
    );
    std::fs::write(managed.join("com.microsoft.ccmclient.plist"), list)?;
    let daemon = client.daemon()?;
    let socket = client.root().join("run/perennial-agent/agent.sock");
    until("the agent listens", || Ok(socket.exists()))?;

    let seen = get(&client, "status")?;
    assert_eq!(seen["identity"], Value::Null);
    assert_eq!(seen["managed_server"], server.devices.to_string());
    let enroll = |server: Option<&str>| {
        let credentials = json!({ "user": "ann", "password": PASSWORD });
        let request = match server {
            Some(server) => json!({ "credentials": credentials, "server": server }),
            None => json!({ "credentials": credentials }),
        };
        post(&client, "enrollments", &request)
    };
    if rustix::process::geteuid().is_root() {
        let refused = enroll(Some("evil.example.com"))?.out;
        assert!(refused.contains("only root"), "{refused}");
    }
    let done = steps(enroll(None)?)?;
    let last = done.last().context("a step")?;
    assert!(last["renewed"]["not_after"].is_string(), "{done:?}");
    let status = client.status()?;
    assert_eq!(status["user"], "ann");
    assert_eq!(status["trust_verified"], true);
    secrets::assert_none(&site, &[&client], &[daemon.log(), server.log()])
}
