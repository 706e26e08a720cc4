//! The page: metrics, and probes for whoever starts and stops the daemon. GET only; a request a connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::desk::Desk;

/// Connections at once.
const CONNECTIONS: usize = 32;
/// How long the header of a request may take.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may take in all.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of a request's header.
const HEADER: usize = 16 * 1024;
/// Fields of a request's header.
const HEADER_FIELDS: usize = 64;
/// How long to wait after a failed accept: it may be for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until it is told to stop.
pub(super) async fn serve(listener: TcpListener, desk: Arc<Desk>, tasks: TaskTracker, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let accept = async {
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (desk, stop) = (Arc::clone(&desk), stop.clone());
                    tasks.spawn(async move {
                        stop.run_until_cancelled(timeout(PATIENCE, converse(stream, desk))).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a request for metrics");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await;
}

async fn converse(stream: TcpStream, desk: Arc<Desk>) {
    let service = service_fn(|request: Request<Incoming>| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(respond(&desk, request.method(), request.uri().path()).await) }
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
        tracing::debug!(%error, "a request for metrics came to nothing");
    }
}

async fn respond(desk: &Desk, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match path {
        "/metrics" => match desk.metrics().await {
            Ok(metrics) => page(StatusCode::OK, OPEN_METRICS, metrics),
            Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/healthz" => page(StatusCode::OK, TEXT, "alive\n"),
        "/readyz" if desk.is_draining() => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n"),
        "/readyz" => page(StatusCode::OK, TEXT, "ready\n"),
        _ => page(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
