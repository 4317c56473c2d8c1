//! What the site issues, judged by others: openssl and pkilint; and plain EST with curl.

use std::path::{Path, PathBuf};
use std::process::Command;

use acceptance::programs::{Client, PASSWORD, Site, run, until};
use anyhow::{Context, Result};
use data_encoding::BASE64;

fn tool(program: &str, words: &[&str]) -> Result<String> {
    let ran = run(Command::new(program).args(words), "")?;
    assert_eq!(ran.code, 0, "{program} {words:?}: {ran:#?}");
    Ok(ran.out)
}

/// pkilint, where `make` put it.
fn pkilint(linter: &str, file: &Path) -> Result<()> {
    let folder = std::env::var_os("PERENNIAL_VENV")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv"));
    let program = folder.join("bin").join(linter);
    assert!(program.exists(), "pkilint is missing; run: make tools");
    let mut command = Command::new(&program);
    command.args(["lint", "-s", "WARNING"]);
    if linter == "lint_crl" {
        command.args(["-t", "CRL", "-p", "PKIX"]);
    }
    let ran = run(command.arg(file), "")?;
    assert!(ran.err.is_empty(), "{linter} {}: {ran:#?}", file.display());
    let severities = ["(WARNING)", "(ERROR)", "(FATAL)"];
    let findings: Vec<_> = ran
        .out
        .lines()
        .filter(|line| severities.iter().any(|severity| line.contains(severity)))
        .filter(|line| !line.contains(NO_WEB_ADDRESS))
        .collect();
    assert!(findings.is_empty(), "{linter} {}: {ran:#?}", file.display());
    Ok(())
}

/// pkilint asks of every URI that it be a web address. A device's name is a URN, which is a URI too
/// (RFC 3986 section 1.1.3, RFC 9562 section 4); this one finding, and only with that name, is its
/// mistake.
const NO_WEB_ADDRESS: &str = "pkix.invalid_uri_syntax (ERROR): Invalid URI syntax: \"urn:uuid:";

#[test]
fn openssl_and_pkilint_find_nothing_wrong() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let client = Client::new()?;
    client.enroll(&server, "ann")?.succeeded();
    client.agent("renew")?.succeeded();

    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    let keys = site.folder().join("keys");
    let (root, issuing) = (keys.join("root.pem"), keys.join("issuing.pem"));
    let (root_text, issuing_text) = (root.to_string_lossy(), issuing.to_string_lossy());

    let serial = client.status()?["serial"]
        .as_str()
        .context("a serial number")?
        .to_owned();
    let leaf = file("leaf.pem");
    std::fs::write(
        &leaf,
        site.admin(&format!("certificate show {serial} --pem"))?
            .succeeded()
            .out,
    )?;
    let leaf_text = leaf.to_string_lossy();

    // The listener's own certificate, as a client sees it.
    let tls = tool(
        "openssl",
        &[
            "s_client",
            "-connect",
            &server.devices.to_string(),
            "-showcerts",
        ],
    )?;
    let first = tls.find("-----BEGIN").context("a certificate")?;
    let end = tls[first..]
        .find("-----END CERTIFICATE-----")
        .context("its end")?;
    let own = file("server.pem");
    std::fs::write(&own, &tls[first..first + end + 26])?;
    let own_text = own.to_string_lossy();

    for (certificate, purpose) in [(&leaf_text, "sslclient"), (&own_text, "sslserver")] {
        let words = [
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            &root_text,
            "-untrusted",
            &issuing_text,
            certificate,
        ];
        assert!(tool("openssl", &words)?.ends_with(": OK\n"));
    }
    tool(
        "openssl",
        &[
            "verify",
            "-x509_strict",
            "-CAfile",
            &root_text,
            &issuing_text,
        ],
    )?;

    // A list without entries, and one with entries of several reasons.
    let crl = file("list.crl");
    let lists = |entries: usize| -> Result<()> {
        until("the list has its entries", || {
            Ok(site
                .admin("crl show --json")?
                .json()
                .as_array()
                .map(Vec::len)
                == Some(entries))
        })?;
        site.admin(&format!("crl show --out {}", crl.display()))?
            .succeeded();
        let words = [
            "crl",
            "-inform",
            "DER",
            "-in",
            &crl.to_string_lossy(),
            "-noout",
            "-CAfile",
            &issuing_text,
        ];
        let ran = run(Command::new("openssl").args(words), "")?;
        assert!(ran.err.contains("verify OK"), "{ran:#?}");
        pkilint("lint_crl", &crl)
    };
    lists(0)?;
    for reason in ["unspecified", "keyCompromise", "cessationOfOperation"] {
        client.agent("renew")?.succeeded();
        let serial = client.status()?["serial"]
            .as_str()
            .context("a serial number")?
            .to_owned();
        site.admin(&format!("certificate revoke {serial} --reason {reason}"))?
            .succeeded();
        // The next enrollment gives the client a good certificate again.
        client.enroll(&server, "ann")?.succeeded();
    }
    lists(3)?;
    for certificate in [&leaf, &own, &issuing, &root] {
        pkilint("lint_pkix_cert", certificate)?;
    }
    Ok(())
}

#[test]
fn curl_and_openssl_enroll_and_renew() -> Result<()> {
    let site = Site::new()?;
    let server = site.serve()?;
    site.add_user("ann")?;
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let root = site
        .folder()
        .join("keys/root.pem")
        .to_string_lossy()
        .into_owned();
    let url = format!("https://{}/.well-known/est", server.devices);

    let request = |name: &str| -> Result<String> {
        let words = [
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=somebody",
            "-keyout",
            &file(&format!("{name}.key")),
            "-out",
            &file(&format!("{name}.csr")),
        ];
        tool("openssl", &words)?;
        Ok(file(&format!("{name}.csr")))
    };
    let save = |name: &str, answer: &str| -> Result<String> {
        let text: String = answer.split_whitespace().collect();
        std::fs::write(file("answer.p7"), BASE64.decode(text.as_bytes())?)?;
        let words = [
            "pkcs7",
            "-inform",
            "DER",
            "-in",
            &file("answer.p7"),
            "-print_certs",
            "-out",
            &file(name),
        ];
        tool("openssl", &words)?;
        Ok(file(name))
    };

    let chain = save(
        "ca.pem",
        &tool(
            "curl",
            &["-sf", "--cacert", &root, &format!("{url}/cacerts")],
        )?,
    )?;
    assert_eq!(
        std::fs::read_to_string(&chain)?
            .matches("BEGIN CERTIFICATE")
            .count(),
        2
    );
    tool(
        "curl",
        &["-sf", "--cacert", &root, &format!("{url}/csrattrs")],
    )?;

    // Without credentials: challenged. PEM as openssl writes it is accepted.
    let csr = request("first")?;
    let enroll = format!("{url}/simpleenroll");
    let data = format!("@{csr}");
    let base = [
        "-s",
        "--cacert",
        &root,
        "-H",
        "Content-Type: application/pkcs10",
        "--data-binary",
        &data,
    ];
    let challenged = tool("curl", &[&base[..], &["-i", &enroll]].concat())?;
    assert!(challenged.starts_with("HTTP/1.1 401"), "{challenged}");
    assert!(
        challenged.contains("www-authenticate: Basic realm="),
        "{challenged}"
    );
    let credentials = format!("ann:{PASSWORD}");
    let answer = tool(
        "curl",
        &[&base[..], &["-f", "-u", &credentials, &enroll]].concat(),
    )?;
    assert!(answer.lines().all(|line| line.len() <= 64), "{answer}");
    let first = save("first.pem", &answer)?;
    tool("openssl", &["verify", "-CAfile", &chain, &first])?;

    // The answer was lost: the same request gives the same certificate.
    let again = tool(
        "curl",
        &[&base[..], &["-f", "-u", &credentials, &enroll]].concat(),
    )?;
    assert_eq!(answer, again);

    let csr = request("second")?;
    let data = format!("@{csr}");
    let key = file("first.key");
    let renew = format!("{url}/simplereenroll");
    let words = [
        "-sf",
        "--cacert",
        &root,
        "--cert",
        &first,
        "--key",
        &key,
        "--data-binary",
        &data,
        &renew,
    ];
    let second = save("second.pem", &tool("curl", &words)?)?;
    tool("openssl", &["verify", "-CAfile", &chain, &second])?;
    let name = |certificate: &str| {
        tool(
            "openssl",
            &[
                "x509",
                "-in",
                certificate,
                "-noout",
                "-ext",
                "subjectAltName",
            ],
        )
    };
    assert_eq!(name(&first)?, name(&second)?, "the device stays the same");
    assert!(name(&first)?.contains("URI:urn:uuid:"));

    // Renewing needs a certificate; keys are not made for clients.
    for (operation, status) in [
        ("simplereenroll", "401"),
        ("serverkeygen", "501"),
        ("nothing", "404"),
    ] {
        let url = format!("{url}/{operation}");
        let got = tool(
            "curl",
            &[
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--cacert",
                &root,
                "--data-binary",
                &data,
                &url,
            ],
        )?;
        assert_eq!(got, status, "{operation}");
    }
    Ok(())
}
