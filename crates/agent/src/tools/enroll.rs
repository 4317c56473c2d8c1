//! `enroll` and `CMEnroll`: a user's name and password become this computer's certificate.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;

use domain::{Pin, Smsid, Timestamp};
use serde::Serialize;
use x509::Certificate;
use zeroize::Zeroizing;

use crate::cli::Enroll;
use crate::failure::Failure;
use crate::identity::Machine;
use crate::renewal;
use crate::renewal::trust::{self, GivenTrust, Wanted};
use crate::site::SiteRecord;

#[derive(Serialize)]
struct Enrolled {
    subject: String,
    serial: String,
    not_after: Timestamp,
    smsid: Smsid,
    server: String,
    trust_verified: bool,
}

pub async fn run(machine: &Machine, arguments: &Enroll) -> Result<(), Failure> {
    crate::log::start(&machine.layout, false);
    let site = trusted(machine, arguments).await?;
    let password = password(&arguments.user, arguments.password_stdin)?;
    if password.is_empty() {
        // Many directories let an empty password in: it never leaves this computer.
        return Err(Failure::EmptyPassword);
    }

    let _lock = machine.lock().await?;
    let identity = renewal::enroll(machine, &site, &password).await?;
    let device = identity.certificate.device();
    let device = device.expect("a certificate that names no device is not taken into use");
    machine.wake_daemon();
    print(
        arguments,
        &identity.site,
        &identity.certificate,
        device.smsid(),
    )
}

fn print(
    arguments: &Enroll,
    site: &SiteRecord,
    certificate: &Certificate,
    smsid: Smsid,
) -> Result<(), Failure> {
    let enrolled = Enrolled {
        subject: certificate.subject().to_owned(),
        serial: certificate
            .serial()
            .map(|serial| serial.to_string())
            .unwrap_or_default(),
        not_after: certificate.not_after(),
        smsid,
        server: site.server.to_string(),
        trust_verified: site.trust_verified,
    };
    if arguments.json {
        return super::print_json(&enrolled);
    }
    println!("Successfully enrolled");
    println!("Subject  {}", enrolled.subject);
    println!("Expires  {}", enrolled.not_after);
    println!("SMSID    {}", enrolled.smsid);
    println!("Server   {}", enrolled.server);
    if !enrolled.trust_verified {
        println!(
            "Trust    unverified: no script of this site runs here until root confirms its pin\n         \
             perennial-agent trust confirm {}",
            site.pin
        );
    }
    Ok(())
}

/// The site, once it is clear which one it is. Where nothing else tells, a person at a terminal is asked.
async fn trusted(machine: &Machine, arguments: &Enroll) -> Result<SiteRecord, Failure> {
    let wanted = Wanted {
        server: arguments.server.clone(),
        user: arguments.user.clone(),
        trust: match (arguments.pin, &arguments.ca) {
            (Some(pin), _) => GivenTrust::Pin(pin),
            _ if arguments.insecure_skip_verify => GivenTrust::Anything,
            (None, None) => GivenTrust::Nothing,
            (None, Some(file)) => GivenTrust::Roots(roots(file)?),
        },
    };
    match trust::find(machine, &wanted).await {
        Ok(site) => {
            if !site.trust_verified {
                eprintln!(
                    "warning: the server's certificate chain was not checked; its fingerprint is pinned now: {}",
                    site.pin
                );
            }
            Ok(site)
        }
        Err(Failure::NotTrusted {
            address,
            observed: Some(pin),
            reason,
            ..
        }) if arguments.ca.is_none() && std::io::stdin().is_terminal() => {
            ask(&address, pin, &reason)?;
            Ok(wanted.record(pin, true))
        }
        Err(failure) => Err(failure),
    }
}

fn roots(file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let pem = std::fs::read(file).map_err(|error| crate::files::named(file, &error))?;
    let roots = x509::certificates_from_pem(&pem).unwrap_or_default();
    if roots.is_empty() {
        return Err(Failure::other(format!(
            "{} holds no certificate in PEM",
            file.display()
        )));
    }
    Ok(roots)
}

fn ask(address: &str, pin: Pin, reason: &str) -> Result<(), Failure> {
    eprintln!(
        "The server at {address} is not trusted yet: {reason}.\nIts fingerprint is\n  {pin}\n\
         Compare it with the one that your administrator gives you."
    );
    eprint!("Trust this site from now on? (yes/no) ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().take(100).read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("yes") {
        Ok(())
    } else {
        Err(Failure::Other(
            "the site was not trusted; nothing was sent to it".to_owned(),
        ))
    }
}

pub fn password(user: &str, from_stdin: bool) -> Result<Zeroizing<String>, Failure> {
    if from_stdin {
        let mut text = Zeroizing::new(String::new());
        std::io::stdin().take(4096).read_to_string(&mut text)?;
        return Ok(Zeroizing::new(
            text.trim_end_matches(['\r', '\n']).to_owned(),
        ));
    }
    let prompt = format!("Password for {user}: ");
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|error| {
            Failure::other(format!(
                "cannot ask for the password ({error}); give it with --password-stdin"
            ))
        })
}
