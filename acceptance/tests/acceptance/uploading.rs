//! Results are on their way, and one of the two programs is killed.

use std::process::{Command, Stdio};

use acceptance::programs::{Client, Ran, Server, Site, run, until};
use anyhow::{Result, ensure};

use crate::crashes::DIED;

struct Place {
    site: Site,
    client: Client,
    /// What a rule looks at.
    file: std::path::PathBuf,
    said: Vec<String>,
    said_at: std::time::Instant,
}

impl Place {
    /// Another state to report. The history has seconds: what lasts no second is not in it.
    fn says(&mut self, value: &str) -> Result<()> {
        let said_at = self.said_at;
        until("a second and a half passes", || {
            Ok(said_at.elapsed().as_millis() > 1500)
        })?;
        std::fs::write(&self.file, value)?;
        self.said.push(value.to_owned());
        self.said_at = std::time::Instant::now();
        Ok(())
    }

    fn evaluate(&self, die_at: Option<&str>) -> Result<Ran> {
        let mut command = self.client.command("evaluate");
        if let Some(point) = die_at {
            command.env("PERENNIAL_TEST_DIE_AT", point);
        }
        run(&mut command, "")
    }

    /// The values that the site has, the oldest first.
    fn recorded(&self) -> Result<Vec<String>> {
        let device = self.client.status()?["smsid"].clone();
        let device = device.as_str().unwrap_or_default().to_owned();
        let words = ["history", &device, "--json"];
        let history = run(self.site.command("compliance").args(words), "")?;
        let history = history.succeeded().json();
        let values = history.as_array().into_iter().flatten().rev();
        Ok(values
            .map(|one| one["value"].as_str().unwrap_or_default().to_owned())
            .collect())
    }
}

fn signal(name: &str, process: u32) -> Result<()> {
    let sent = Command::new("kill")
        .args([name, &process.to_string()])
        .status()?;
    ensure!(sent.success(), "{name} {process}: {sent}");
    Ok(())
}

fn place(server: &Server, site: Site) -> Result<Place> {
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(server, "ann")?.succeeded();
    let device = client.status()?["smsid"].clone();
    let device = device.as_str().unwrap_or_default();
    let file = client.root().join("state");
    let script = client.root().join("discovery.sh");
    std::fs::write(&script, format!("cat {}", file.display()))?;
    let script = script.display().to_string();
    site.admin("collection create Labs")?.succeeded();
    site.admin(&format!("collection add Labs {device}"))?
        .succeeded();
    for words in [
        format!(
            "ci create State --type Linux --setting State --data-type string --discovery {script} --rule Right --operator equals --value right"
        ),
        "baseline create State --ci State".to_owned(),
        "deployment create --baseline State --collection Labs".to_owned(),
    ] {
        site.admin(&words)?.succeeded();
    }
    // The site works out a moment later whom a deployment is for.
    until("the client has the deployment", || {
        client.agent("check-in")?.succeeded();
        let baselines = &client.status()?["compliance"]["baselines"];
        Ok(baselines.as_array().is_some_and(|all| !all.is_empty()))
    })?;
    Ok(Place {
        site,
        client,
        file,
        said: Vec::new(),
        said_at: std::time::Instant::now(),
    })
}

#[test]
fn results_arrive_once_whoever_is_killed_while_they_travel() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    let mut place = place(&server, site)?;

    // The client, at points of the upload: before it is sent, when the site has it, when the answer is
    // here and not yet remembered.
    for (point, value) in [
        ("asking", "wrong 1"),
        ("answered", "right"),
        ("results-told", "wrong 2"),
    ] {
        place.says(value)?;
        let ran = place.evaluate(Some(point))?;
        assert_eq!(ran.code, DIED, "{point}: {ran:#?}");
    }
    place.says("right")?;
    place.evaluate(None)?.succeeded();

    // The client, by a real kill -9, while its upload waits for the answer of a site that hangs.
    place.says("killed")?;
    signal("-STOP", server.pid())?;
    let mut child = place
        .client
        .command("evaluate")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let results = "var/lib/perennial-agent/compliance/results.jsonl";
    let results = place.client.root().join(results);
    until("the result is kept", || {
        Ok(std::fs::read_to_string(&results)?.contains("\"killed\""))
    })?;
    until("the upload is under way", || has_socket(child.id()))?;
    child.kill()?;
    child.wait()?;
    signal("-CONT", server.pid())?;

    // The site, before and after it recorded them.
    server.stop()?;
    for (point, value) in [
        ("results-received", "right"),
        ("results-recorded", "wrong 3"),
    ] {
        let mut server = place.site.serve_with(&[("PERENNIAL_TEST_DIE_AT", point)])?;
        place.client.goes_to(&server)?;
        place.says(value)?;
        place.evaluate(None)?;
        until("the site died", || server.has_ended())?;
    }

    // All of it is there: once each, in its order.
    let server = place.site.serve()?;
    place.client.goes_to(&server)?;
    place.says("right")?;
    place.evaluate(None)?.succeeded();
    place.client.agent("check-in")?.succeeded();
    assert_eq!(place.recorded()?, place.said);
    place.site.admin("audit verify")?.succeeded();
    Ok(())
}

fn has_socket(process: u32) -> Result<bool> {
    let mut files = std::fs::read_dir(format!("/proc/{process}/fd"))?.flatten();
    Ok(files.any(|file| {
        let link = std::fs::read_link(file.path()).unwrap_or_default();
        link.to_string_lossy().starts_with("socket:")
    }))
}
