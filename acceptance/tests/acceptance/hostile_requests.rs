//! Requests that no honest client sends: nothing is issued that the profile does not give, no
//! panic, and an error of the client's own with one sentence.

use acceptance::est;
use acceptance::programs::{PASSWORD, Server, Site};
use anyhow::{Context, Result};
use data_encoding::BASE64;
use domain::DeviceId;
use x509::{Certificate, PrivateKey};

/// Small and seeded: a failing run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn assert_profile(certificate: &Certificate, device: DeviceId) {
    assert!(!certificate.is_ca());
    assert_eq!(certificate.device(), Some(device));
    assert_eq!(certificate.subject(), "CN=ann");
    let days = certificate
        .not_after()
        .duration_since(certificate.not_before())
        .as_hours()
        / 24;
    assert_eq!(days, 365);
}

/// A request with extensions, by openssl.
fn openssl_request(configuration: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("request.cnf");
    std::fs::write(&file, configuration)?;
    let output = std::process::Command::new("openssl")
        .args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "/dev/null",
            "-outform",
            "DER",
            "-config",
        ])
        .arg(&file)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

struct Attacker {
    server: Server,
    site: Site,
    key: PrivateKey,
    certificate: Certificate,
}

impl Attacker {
    async fn new() -> Result<Self> {
        let site = Site::new()?;
        site.without_limits()?;
        let server = site.serve()?;
        site.add_user("ann")?;
        let key = PrivateKey::generate();
        let answer = est::enroll(&server.devices, server.pin, &key, "ann", PASSWORD).await?;
        let certificate = est::certificate(&answer);
        Ok(Self {
            server,
            site,
            key,
            certificate,
        })
    }

    fn device(&self) -> DeviceId {
        self.certificate.device().expect("a device")
    }

    async fn connect(&self) -> Result<transport::Connection> {
        let identity = Some((&self.key, &self.certificate));
        Ok(est::client(&self.server.devices, self.server.pin, identity)
            .connect()
            .await?)
    }
}

#[tokio::test]
async fn wishes_are_not_granted_and_are_audited() -> Result<()> {
    let attacker = Attacker::new().await?;
    let victim = "urn:uuid:00000000-0000-8000-8000-000000000001";
    let csr = openssl_request(&format!(
        "[req]\nprompt=no\ndistinguished_name=dn\nreq_extensions=e\n[dn]\nCN=root\nO=Evil\n[e]\n\
         basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n\
         extendedKeyUsage=serverAuth\nsubjectAltName=URI:{victim},DNS:site.example.com\n"
    ))?;
    let mut connection = attacker.connect().await?;
    let answer = connection
        .send(est::request("simplereenroll", BASE64.encode(&csr)))
        .await?;
    let certificate = est::certificate(&answer);
    assert_profile(&certificate, attacker.device());
    let pem = certificate.to_pem();
    let ran = acceptance::programs::run(
        std::process::Command::new("openssl").args(["x509", "-noout", "-text"]),
        &pem,
    )?;
    for unwanted in [
        "CA:TRUE",
        "Certificate Sign",
        "Server Authentication",
        "evil",
        "Evil",
        "00000000-0000",
    ] {
        assert!(!ran.out.contains(unwanted), "{unwanted}: {}", ran.out);
    }
    let events = attacker.site.admin("audit list --json")?.json();
    let event = events
        .as_array()
        .and_then(|events| events.iter().find(|event| event["action"] == "renewed"));
    let differences = &event.expect("an event")["payload"]["asked_for_but_not_given"];
    assert_eq!(differences["ca"], true, "{differences}");
    assert_eq!(
        differences["alternative_names"].as_array().map(Vec::len),
        Some(2)
    );
    Ok(())
}

#[tokio::test]
async fn bad_bodies_get_one_sentence() -> Result<()> {
    let attacker = Attacker::new().await?;
    let mut forged = x509::request_der(&PrivateKey::generate(), "a");
    *forged.last_mut().expect("bytes") ^= 1;
    let rsa_1024 = {
        let output = std::process::Command::new("openssl")
            .args([
                "req",
                "-new",
                "-newkey",
                "rsa:1024",
                "-nodes",
                "-keyout",
                "/dev/null",
                "-subj",
                "/CN=a",
                "-outform",
                "DER",
            ])
            .output()?;
        BASE64.encode(&output.stdout)
    };
    let rows: Vec<(Vec<u8>, u16, &str)> = vec![
        (Vec::new(), 400, "the request is empty\n"),
        (
            b"garbage, not base64".to_vec(),
            400,
            "the request is not base64\n",
        ),
        (vec![0xff; 1000], 400, "the request is not base64\n"),
        (
            BASE64.encode(&[0x30; 5000]).into_bytes(),
            400,
            "the request is not a PKCS#10 certificate request in DER\n",
        ),
        (
            BASE64.encode(&forged).into_bytes(),
            400,
            "the request's signature does not match its public key\n",
        ),
        (
            rsa_1024.into_bytes(),
            400,
            "the request's public key is of a kind that is not accepted (P-256, P-384, RSA 2048 to 4096)\n",
        ),
        (
            vec![b'A'; 1 << 20],
            413,
            "the request is larger than 64 KiB\n",
        ),
    ];
    for (body, status, sentence) in rows {
        let mut answer = None;
        // Who sends too much may find the connection closed before there was an answer to read.
        for _ in 0..20 {
            let mut connection = attacker.connect().await?;
            let request = est::request("simplereenroll", body.clone());
            answer = match connection.send(request).await {
                Err(_) if status == 413 => continue,
                sent => Some(sent?),
            };
            break;
        }
        let answer = answer.context("an answer")?;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(String::from_utf8_lossy(&answer.body), sentence);
    }
    // The same with a password instead of a certificate.
    let request = est::with_password(est::request("simpleenroll", "garbage!"), "ann", PASSWORD);
    let answer = est::client(&attacker.server.devices, attacker.server.pin, None)
        .send(request)
        .await?;
    assert_eq!(answer.status, 400);
    assert!(attacker.server.stop()?.contains("stopped"));
    Ok(())
}

#[tokio::test]
async fn ten_thousand_mutations() -> Result<()> {
    let attacker = Attacker::new().await?;
    let seed = std::env::var("PERENNIAL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        u64::from(std::process::id()) << 20 ^ attacker.certificate.not_after().as_second() as u64
    });
    println!("PERENNIAL_SEED={seed}");
    let mut random = Random(seed);
    let key = PrivateKey::generate();
    let good = x509::request_der(&key, "mac-1");
    let mut connection = attacker.connect().await?;
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..10_000 {
        let mut der = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(der.len());
            match random.below(5) {
                0 => der[at] ^= 1 << random.below(8),
                1 => der[at] = random.next() as u8,
                2 => der.truncate(at.max(1)),
                3 => der.insert(at, random.next() as u8),
                _ => {
                    let end = (at + random.below(40)).min(der.len());
                    let part = der[at..end].to_vec();
                    der.splice(at..at, part);
                }
            }
        }
        let answer = connection
            .send(est::request("simplereenroll", BASE64.encode(&der)))
            .await?;
        match answer.status {
            200 => {
                accepted += 1;
                let certificate = est::certificate(&answer);
                assert_profile(&certificate, attacker.device());
                assert_eq!(certificate.key(), key.digest(), "a key that was not proved");
            }
            400 => {
                refused += 1;
                assert_eq!(answer.text().lines().count(), 1);
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    println!("{refused} refused, {accepted} read as the original");
    assert!(refused > 9_000);
    let log = attacker.server.stop()?;
    assert!(!log.contains("panicked"), "{log}");
    Ok(())
}
