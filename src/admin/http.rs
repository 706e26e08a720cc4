//! The operator's HTTP server: the page, metrics, and probes for load balancers and orchestrators. It answers GET and HEAD
//! only, one request per connection.
//!
//! Anybody who can reach the port may send requests. To keep websites from sending requests through the browser of such a
//! person (DNS rebinding), information is only returned under an IP address, `localhost`, or a name in `[admin] hosts`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection_slots::ConnectionSlots;
use super::numbers::DaemonNumbers;
use super::page::PAGE;
use crate::net::listener::{AfterFailure, accept_each};

/// The limit for concurrent connections. One more closes the oldest.
const CONNECTIONS: usize = 256;
/// The time limit for the header of a request.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// The time limit for a whole connection.
const PATIENCE: Duration = Duration::from_secs(15);
/// The size limit for the header of a request, in bytes.
const HEADER: usize = 16 * 1024;
/// The limit for the fields in the header of a request.
const HEADER_FIELDS: usize = 64;

/// A dashboard for Grafana that uses the metrics of `/metrics`.
pub(super) const GRAFANA: &str = include_str!("grafana.json");

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `stop` is cancelled.
pub(super) async fn serve(
    listener: TcpListener,
    numbers: Arc<DaemonNumbers>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let slots = ConnectionSlots::new(CONNECTIONS);
    let serve = |(stream, _)| {
        let (numbers, stop, slot) = (Arc::clone(&numbers), stop.clone(), slots.enter());
        tasks.spawn(async move {
            stop.run_until_cancelled(slot.run(timeout(PATIENCE, converse(stream, numbers)))).await;
        });
    };
    let accept = accept_each(&listener, serve, |error| {
        tracing::debug!(%error, "cannot accept HTTP connection");
        AfterFailure::Pause
    });
    stop.run_until_cancelled(accept).await;
}

async fn converse(stream: TcpStream, numbers: Arc<DaemonNumbers>) {
    // No memory for a request is allocated for a connection that sends nothing.
    if !matches!(timeout(HEADER_PATIENCE, stream.readable()).await, Ok(Ok(()))) {
        return;
    }
    let service = service_fn(|request: Request<Incoming>| {
        let numbers = Arc::clone(&numbers);
        async move { Ok::<_, Infallible>(respond(&numbers, &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(HEADER)
        .max_headers(HEADER_FIELDS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "HTTP request failed");
    }
}

async fn respond(numbers: &DaemonNumbers, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are supported\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => return page(StatusCode::OK, TEXT, "alive\n"),
        "/readyz" => {
            return match numbers.unready().await {
                None => page(StatusCode::OK, TEXT, "ready\n"),
                Some(reason) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
            };
        }
        _ if !is_for_us(request, &numbers.host_names()) => {
            let remedy = "use an IP address or localhost in the URL, or add this host name to [admin] hosts\n";
            return page(StatusCode::MISDIRECTED_REQUEST, TEXT, remedy);
        }
        _ => {}
    }
    match request.uri().path() {
        "/" => {
            let mut response = page(StatusCode::OK, HTML, PAGE.document.as_bytes());
            if let Ok(policy) = HeaderValue::from_str(&PAGE.policy) {
                response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            }
            response
        }
        "/status.json" => match serde_json::to_vec(&numbers.page_data().await) {
            Ok(json) => page(StatusCode::OK, JSON, json),
            Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/metrics" => match numbers.metrics().await {
            Ok(metrics) => page(StatusCode::OK, OPEN_METRICS, metrics),
            Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/grafana.json" => page(StatusCode::OK, JSON, GRAFANA),
        _ => page(
            StatusCode::NOT_FOUND,
            TEXT,
            "available: /, /status.json, /metrics, /grafana.json, /healthz and /readyz\n",
        ),
    }
}

/// Returns whether a request is for a host name that an attacker's website cannot use. A request without a host name does not
/// come from a browser.
fn is_for_us(request: &Request<Incoming>, names: &[String]) -> bool {
    let fields = request.headers().get_all(HOST).iter().map(|field| field.to_str().unwrap_or_default());
    request
        .uri()
        .authority()
        .map(Authority::as_str)
        .into_iter()
        .chain(fields)
        .all(|authority| is_ours(authority, names))
}

fn is_ours(authority: &str, names: &[String]) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    address.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost") || names.contains(&host)
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_that_no_foreign_website_can_use_are_served() {
        let names = ["pushward.internal".to_owned()];
        for ours in [
            "127.0.0.1",
            "127.0.0.1:9522",
            "[::1]:9522",
            "LOCALHOST:1",
            "a.localhost",
            "Pushward.internal:80",
            "10.0.0.1",
        ] {
            assert!(is_ours(ours, &names), "{ours}");
        }
        for other in ["", "example.org", "localhost.example.org", "127.0.0.1.example.org:9522", "a b", "notlocalhost"] {
            assert!(!is_ours(other, &names), "{other}");
        }
    }
}
