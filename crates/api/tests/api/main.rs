//! Every route as every principal: what may be asked by whom is one table, `routes.txt`, that a
//! reviewer reads. A new route, or a role that may more or less, shows there.

use std::fmt::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use clock::{SystemClock, SystemRng};
use domain::{Clock, Role, Timestamp, TokenDigest};
use site::{EnrollmentProfile, Peer, Settings, Site};
use store::{Actor, Change, Kind, Location, NewToken, Store};
use tower::ServiceExt;

struct Api {
    site: Site,
    _folder: tempfile::TempDir,
}

impl Api {
    async fn new() -> Self {
        Self::made(SystemClock::new().now()).await
    }

    /// Whose keys were made at `moment`.
    async fn made(moment: Timestamp) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = folder.path().join("keys");
        std::fs::create_dir(&keys).expect("a folder");
        let clock = Arc::new(SystemClock::new());
        site::create_keys(&keys, "Test", &At(moment), &SystemRng).expect("keys");
        let location = Location::Sqlite(folder.path().join("site.db"));
        let store = Store::open(&location, "test", Arc::new(SystemRng))
            .await
            .expect("a store");
        for role in Role::ALL {
            let kind = Kind::AddToken(NewToken {
                digest: TokenDigest::new(x509::sha256(&[role.word().as_bytes()])),
                name: role.to_string(),
                role: *role,
                expires_at: None,
                replaces: false,
            });
            let change = Change {
                at: clock.now(),
                by: Actor::site(),
                kind,
            };
            store
                .commit_one(change)
                .await
                .expect("commits")
                .expect("adds");
        }
        let settings = Settings {
            name: "Test".to_owned(),
            host_names: vec!["localhost".to_owned()],
            profile: EnrollmentProfile::default(),
            check_in_interval: "1h".parse().expect("a period"),
            crl_lifetime: "7d".parse().expect("a period"),
            crl_url: None,
            excluded_hardware_uuids: Vec::new(),
            policy_lifetime: "30d".parse().expect("a period"),
            deleted_device_retention: "30d".parse().expect("a period"),
            compliance_history: "730d".parse().expect("a period"),
        };
        let site = Site::open(&keys, store, settings, clock, Arc::new(SystemRng))
            .await
            .expect("opens");
        site.refresh_crl().await.expect("publishes");
        Self {
            site,
            _folder: folder,
        }
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> (u16, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .extension(Peer {
                certificate: None,
                address: [127, 0, 0, 1].into(),
            });
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .body(Body::from(body.to_owned()))
            .expect("a request");
        let response = api::routes(self.site.clone())
            .oneshot(request)
            .await
            .expect("answers");
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .expect("a body");
        (
            status,
            String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        )
    }
}

/// A clock that stands.
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn elapsed(&self) -> jiff::SignedDuration {
        jiff::SignedDuration::ZERO
    }
}

#[tokio::test]
async fn a_policy_certificate_is_told_before_it_ends_and_signs_nothing_after() {
    let days = |days: i64| SystemClock::new().now() - jiff::SignedDuration::from_hours(24 * days);
    let full = Some(Role::FullAdministrator.word());
    let command = "/api/v1/devices/00000000-0000-8000-8000-000000000001/commands";
    const LIFE: i64 = 5 * 365;
    for (age, alerts, status) in [
        (LIFE - 181, 0, 404),
        (LIFE - 179, 1, 404),
        (LIFE + 1, 1, 503),
    ] {
        let api = Api::made(days(age)).await;
        for _ in 0..2 {
            api.site.warn_of_policy_key().await.expect("looks");
        }
        let (_, text) = api.ask("GET", "/api/v1/alerts", full, "").await;
        assert_eq!(
            text.matches("policy-key-ends").count(),
            alerts,
            "{age}: {text}"
        );
        let (answered, text) = api
            .ask("POST", command, full, r#"{"command":"renew"}"#)
            .await;
        assert_eq!(answered, status, "{age}: {text}");
        if status == 503 {
            assert!(text.contains("rotate-key"), "{text}");
        }
        // Where the key is stays to be seen.
        let (answered, _) = api.ask("GET", "/api/v1/policy", full, "").await;
        assert_eq!(answered, 200);
    }
}

/// What a principal may, as the status of a request for something that is not there.
fn word(status: u16) -> &'static str {
    match status {
        401 => "-",
        403 => "no",
        200..=299 | 400 | 404 | 409 | 422 => "yes",
        _ => "?",
    }
}

#[tokio::test]
async fn only_who_deploys_chooses_the_members_of_what_is_deployed_to() {
    const ITEM: &str = concat!(
        r#"{"name":"i","content":{"platforms":[{"os":"Linux"}],"settings":[{"name":"s","#,
        r#""data_type":"string","source":{"script":{"discovery":"echo x"}}}],"#,
        r#""rules":[{"name":"r","setting":"s","condition":{"existential":"must-exist"}}]}}"#
    );
    let api = Api::new().await;
    let full = Some(Role::FullAdministrator.word());
    let collections = "/api/v1/collections";
    for (path, body) in [
        (collections, r#"{"name":"Inner"}"#),
        (collections, r#"{"name":"Out"}"#),
        (collections, r#"{"name":"Limit"}"#),
        (
            collections,
            r#"{"name":"Target","rules":{"limited_to":"Limit","include":["Inner"],"exclude":["Out"]}}"#,
        ),
        (collections, r#"{"name":"Spared"}"#),
        (collections, r#"{"name":"Other"}"#),
        ("/api/v1/configuration-items", ITEM),
        (
            "/api/v1/baselines",
            r#"{"name":"b","content":{"parts":[{"item":{"name":"i"}}]}}"#,
        ),
        (
            "/api/v1/deployments",
            r#"{"baseline":"b","collection":"Target"}"#,
        ),
        (
            "/api/v1/exemptions",
            r#"{"item":"i","rule":"r","scope":{"collection":"Spared"},"reason":"x"}"#,
        ),
    ] {
        let (status, text) = api.ask("POST", path, full, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {text}");
    }
    let members = r#"{"devices":["00000000-0000-8000-8000-000000000001"]}"#;
    let rules = r#"{"query":"os.name == \"Linux\""}"#;
    for role in Role::ALL {
        for name in ["Inner", "Out", "Limit", "Target", "Spared", "Other"] {
            let may = match name {
                "Other" => role.may(domain::Action::ManageCollections),
                _ => role.may(domain::Action::Deploy),
            };
            for (method, what, body) in [
                ("POST", "members/add", members),
                ("POST", "members/remove", members),
                ("PUT", "rules", rules),
            ] {
                let path = format!("{collections}/{name}/{what}");
                let (status, text) = api.ask(method, &path, Some(role.word()), body).await;
                // The device is not there, and the refusal of that is none of the role.
                assert_eq!(status != 403, may, "{role} {path}: {status} {text}");
            }
            // Those that are deployed to need their rules again.
            if name == "Target" && role.may(domain::Action::Deploy) {
                let body = r#"{"limited_to":"Limit","include":["Inner"],"exclude":["Out"]}"#;
                let path = format!("{collections}/{name}/rules");
                let (status, text) = api.ask("PUT", &path, full, body).await;
                assert_eq!(status, 200, "{text}");
            }
        }
    }
}

#[tokio::test]
async fn every_route_as_every_principal() {
    let api = Api::new().await;
    let mut table = String::new();
    let heading: Vec<_> = Role::ALL.iter().map(|role| role.word()).collect();
    let _ = writeln!(
        table,
        "{:<52} nobody  wrong-token  {}",
        "",
        heading.join("  ")
    );
    for route in api::ROUTES.iter().copied().flatten() {
        let path = route
            .path
            .replace("{device}", "00000000-0000-8000-8000-000000000001")
            .replace("{serial}", "40000000000000000000000000000001")
            .replace("{name}", "nobody")
            .replace("{number}", "1")
            .replace("{command}", "00000000000000000000000000000001");
        // What a reader has to say.
        let path = match path.rsplit('/').next() {
            Some("difference") => format!("{path}?from=1&to=2"),
            Some("at") => format!("{path}?moment=2026-01-01T00:00:00Z"),
            _ => path,
        };
        // Complete bodies: authorization must not hide behind a body that cannot be read.
        let body = match route.path {
            "/api/v1/users" => r#"{"name":"","password":"long enough"}"#,
            "/api/v1/collections" => r#"{"name":"Labs"}"#,
            path if path.ends_with("/merge") => {
                r#"{"into":"00000000-0000-8000-8000-000000000002"}"#
            }
            path if path.ends_with("/keep-both") => {
                r#"{"other":"00000000-0000-8000-8000-000000000002"}"#
            }
            "/api/v1/renewal-windows" => {
                r#"{"scope":{"device":"00000000-0000-8000-8000-000000000001"}}"#
            }
            "/api/v1/collection-preview" => r#"{"query":"os.name == \"macOS\""}"#,
            path if path.contains("/members/") => {
                r#"{"devices":["00000000-0000-8000-8000-000000000001"]}"#
            }
            "/api/v1/configuration-items" => concat!(
                r#"{"name":"#,
                r#""a","content":{"platforms":[{"os":"macOS"}],"settings":[{"name":"s","#,
                r#""data_type":"string","source":{"script":{"discovery":"echo x"}}}],"#,
                r#""rules":[{"name":"r","setting":"s","condition":{"existential":"must-exist"}}]}}"#
            ),
            "/api/v1/configuration-items/{name}" => concat!(
                r#"{"content":{"platforms":[{"os":"macOS"}],"settings":[{"name":"s","#,
                r#""data_type":"string","source":{"script":{"discovery":"echo x"}}}],"#,
                r#""rules":[{"name":"r","setting":"s","condition":{"existential":"must-exist"}}]}}"#
            ),
            "/api/v1/baselines" => r#"{"name":"b","content":{"parts":[{"item":{"name":"no"}}]}}"#,
            "/api/v1/baselines/{name}" => r#"{"content":{"parts":[{"item":{"name":"no"}}]}}"#,
            "/api/v1/deployments" => r#"{"baseline":"no","collection":"no"}"#,
            "/api/v1/deployments/{number}" => {
                r#"{"deployment":{"baseline":"no","collection":"no"}}"#
            }
            "/api/v1/exemptions" => {
                r#"{"item":"no","rule":"no","scope":{"collection":"no"},"reason":"because"}"#
            }
            path if path.ends_with("/commands") => r#"{"command":"renew"}"#,
            path if path.ends_with("/test-script") => r#"{"item":"no","setting":"no"}"#,
            path if path.ends_with("password") => r#"{"password":"long enough"}"#,
            _ => "{}",
        };
        let (nobody, _) = api.ask(route.method, &path, None, body).await;
        let (wrong, _) = api
            .ask(route.method, &path, Some("perennial-wrong"), body)
            .await;
        assert_eq!((nobody, wrong), (401, 401), "{route:?}");
        let _ = write!(
            table,
            "{:<52} {:<6}  {:<11}",
            format!("{} {}", route.method, route.path),
            word(nobody),
            word(wrong)
        );
        for role in Role::ALL {
            let (status, text) = api.ask(route.method, &path, Some(role.word()), body).await;
            let may = route.action.is_none_or(|action| role.may(action));
            assert_eq!(status != 403, may, "{route:?} as {role}: {status} {text}");
            assert!(
                status < 500 && status != 405,
                "{route:?} as {role}: {status} {text}"
            );
            let _ = write!(
                table,
                "  {:<width$}",
                word(status),
                width = role.word().len()
            );
        }
        while table.ends_with(' ') {
            table.pop();
        }
        table.push('\n');
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/routes.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &table).expect("writes");
    }
    let expected = std::fs::read_to_string(golden).unwrap_or_default();
    assert_eq!(
        table, expected,
        "review the table, then: UPDATE_GOLDEN=1 cargo test -p api"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_the_askers_mistake() {
    let api = Api::new().await;
    let token = Some(Role::FullAdministrator.word());
    for (method, path, body, status, says) in [
        ("POST", "/api/v1/users", "{", 400, "JSON"),
        (
            "POST",
            "/api/v1/users",
            r#"{"name":"a","password":"long enough","admin":true}"#,
            422,
            "unknown field `admin`",
        ),
        (
            "POST",
            "/api/v1/users",
            r#"{"name":"a:b","password":"long enough"}"#,
            400,
            "colon",
        ),
        (
            "POST",
            "/api/v1/users",
            r#"{"name":"a","password":"short"}"#,
            400,
            "at least 8 characters",
        ),
        ("GET", "/api/v1/devices?limit=x", "", 400, "invalid digit"),
        (
            "GET",
            "/api/v1/devices?colour=red",
            "",
            400,
            "unknown field `colour`",
        ),
        (
            "GET",
            "/api/v1/devices?after=%00",
            "",
            400,
            "where a page begins",
        ),
        (
            "GET",
            "/api/v1/devices/1",
            "",
            400,
            "is not a device identifier",
        ),
        (
            "GET",
            "/api/v1/certificates?after=garbage",
            "",
            400,
            "where a page begins",
        ),
        (
            "GET",
            "/api/v1/audit/events?after=1/2/x",
            "",
            400,
            "where a page begins",
        ),
        (
            "GET",
            "/api/v1/certificates?expiring_within=soon",
            "",
            400,
            "is not a length of time",
        ),
        (
            "POST",
            "/api/v1/collections",
            r#"{"name":"a\nb"}"#,
            422,
            "none of them a control character",
        ),
        (
            "POST",
            "/api/v1/collections",
            r#"{"name":"a","rules":{"query":"os.nme == \"macOS\""}}"#,
            422,
            "at character 1: there is no field `os.nme`; did you mean `os.name`?",
        ),
        (
            "POST",
            "/api/v1/collection-preview",
            r#"{"query":"os.name == \"macOS\"","limited_to":"Zoo"}"#,
            404,
            "there is no collection `Zoo`",
        ),
        (
            "PUT",
            "/api/v1/collections/Obsolete/rules",
            "{}",
            409,
            "is built in",
        ),
        (
            "GET",
            "/api/v1/collections/%00/members",
            "",
            400,
            "none of them a control character",
        ),
        (
            "GET",
            "/api/v1/collections?after=%00",
            "",
            400,
            "where a page begins",
        ),
        (
            "POST",
            "/api/v1/collections/Labs/members/add",
            r#"{"devices":[]}"#,
            400,
            "say 1 to 1000 devices",
        ),
        (
            "POST",
            "/api/v1/renewal-windows",
            r#"{"scope":"all","spread":"1s"}"#,
            400,
            "spreads over 1m to 90d",
        ),
        (
            "POST",
            "/api/v1/renewal-windows",
            r#"{"scope":"all","start":"9999-12-30T00:00:00Z","spread":"90d"}"#,
            400,
            "begins within ten years",
        ),
        (
            "POST",
            "/api/v1/renewal-windows",
            r#"{"scope":"all","explanation_url":"javascript:alert(1)"}"#,
            422,
            "begins with https://",
        ),
        (
            "GET",
            "/api/v1/renewal-windows/one",
            "",
            400,
            "has a number",
        ),
        (
            "POST",
            "/api/v1/configuration-items",
            concat!(
                r#"{"name":"a","content":{"platforms":[{"os":"macOS"}],"settings":[{"name":"s","#,
                r#""data_type":"string","source":{"script":{"discovery":"echo x"}}}],"#,
                r#""rules":[{"name":"r","setting":"s","condition":{"value":{"type":"integer","#,
                r#""operator":"equals","operands":["1"]}}}]}}"#
            ),
            422,
            "the rule `r` compares integer, but its setting is string",
        ),
        (
            "GET",
            "/api/v1/configuration-items/a/revisions/first",
            "",
            400,
            "has a number",
        ),
        (
            "GET",
            "/api/v1/configuration-items/a/difference?from=1",
            "",
            400,
            "missing field `to`",
        ),
        (
            "GET",
            "/api/v1/configuration-items?after=%00",
            "",
            400,
            "where a page begins",
        ),
        (
            "POST",
            "/api/v1/baselines",
            r#"{"name":"b","content":{"parts":[]}}"#,
            400,
            "1 to 1000 parts",
        ),
        (
            "POST",
            "/api/v1/baselines",
            r#"{"name":"b","content":{"parts":[{"item":{"name":"i"}},{"item":{"name":"i","revision":2}}]}}"#,
            400,
            "`i` is there twice",
        ),
        (
            "POST",
            "/api/v1/deployments",
            r#"{"baseline":"b","collection":"c","schedule":"1s"}"#,
            422,
            "every 5 minutes at most",
        ),
        (
            "POST",
            "/api/v1/deployments",
            r#"{"baseline":"b","collection":"c","alert":{"below":101,"at":"2027-01-01T00:00:00Z"}}"#,
            400,
            "1 to 100 percent",
        ),
        (
            "POST",
            "/api/v1/exemptions",
            r#"{"item":"i","rule":"r","scope":{"collection":"c"},"reason":" "}"#,
            422,
            "an exemption needs a reason",
        ),
        (
            "POST",
            "/api/v1/exemptions",
            r#"{"item":"i","rule":"r","scope":{"collection":"c"},"reason":"x","until":"2020-01-01T00:00:00Z"}"#,
            400,
            "say a moment to come",
        ),
        (
            "POST",
            "/api/v1/devices/00000000-0000-8000-8000-000000000001/commands",
            r#"{"command":"uninstall"}"#,
            400,
            "is not one of: renew, evaluate, check-in",
        ),
        (
            "GET",
            "/api/v1/device-conflicts?after=x/1/y",
            "",
            400,
            "where a page begins",
        ),
        (
            "POST",
            "/api/v1/devices/00000000-0000-8000-8000-000000000001/merge",
            r#"{"into":"00000000-0000-8000-8000-000000000001"}"#,
            400,
            "into itself",
        ),
        (
            "POST",
            "/api/v1/certificates/zz/revoke",
            "{}",
            400,
            "a serial number",
        ),
    ] {
        let (got, text) = api.ask(method, path, token, body).await;
        assert_eq!(got, status, "{method} {path}: {text}");
        assert!(text.contains(says), "{method} {path}: {text}");
        assert!(text.contains(&format!("\"status\":{status}")), "{text}");
    }
}

#[tokio::test]
async fn an_item_is_larger_than_other_requests_and_has_an_end() {
    let api = Api::new().await;
    let token = Some(Role::FullAdministrator.word());
    let item = |scripts: usize| {
        let script = format!("echo x\n#{}", "-".repeat(200 * 1024));
        let settings: Vec<_> = (0..scripts)
            .map(|n| {
                serde_json::json!({"name": format!("s{n}"), "data_type": "string",
                    "source": {"script": {"discovery": script}}})
            })
            .collect();
        let rules: Vec<_> = (0..scripts)
            .map(|n| {
                serde_json::json!({"name": format!("r{n}"), "setting": format!("s{n}"),
                    "condition": {"existential": "must-exist"}})
            })
            .collect();
        let content = serde_json::json!({"platforms": [{"os": "macOS"}], "settings": settings,
            "rules": rules});
        serde_json::json!({"name": format!("with {scripts}"), "content": content}).to_string()
    };
    for (scripts, status) in [(9, 201), (12, 413), (30, 413)] {
        let path = "/api/v1/configuration-items";
        let (got, text) = api.ask("POST", path, token, &item(scripts)).await;
        assert_eq!(got, status, "{scripts}: {}", &text[..text.len().min(200)]);
    }
    // Others have the limit of all.
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(2 << 20));
    let (got, _) = api.ask("POST", "/api/v1/collections", token, &long).await;
    assert_eq!(got, 413);
}
