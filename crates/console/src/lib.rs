//! The console: web pages for administrators. So far its front door, which tells nothing that a
//! client may not know, and how to work with the site from the command line.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use site::Site;

pub fn routes(site: Site) -> Router {
    Router::new().route("/", get(front_door)).with_state(site)
}

async fn front_door(State(site): State<Site>) -> Response {
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{name} – Perennial</title></head>\
         <body><main><h1>{name}</h1>\
         <p>This is a Perennial site: it keeps the identities of client computers alive.</p>\
         <h2>Enroll a computer</h2>\
         <pre>CMEnroll -s &lt;this server&gt; -u &lt;user name&gt;</pre>\
         <p>The client shows a fingerprint and asks whether to trust it. It must be:</p>\
         <pre>{pin}</pre>\
         <h2>Administer</h2>\
         <pre>perennial --help</pre></main></body></html>",
        name = escape(site.name()),
        pin = site.pin(),
    );
    let headers = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(page)).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
