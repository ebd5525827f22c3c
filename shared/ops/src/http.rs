//! The HTTP server of a node: health, readiness, metrics, status and a plain page, on a listener of its own.
//!
//! In: [`HttpParts`]. Out: `/healthz`, `/readyz`, `/metrics`, `/api/v1/status`, `/`, and whatever router the node adds.
//! Bounded: connections, header size and time, body size, and the time a reader may stall a response. At the bound
//! of connections new ones wait in the system's backlog; slots free themselves by these times.
//! Serves plain HTTP without authentication; [`crate::config::check_public_listener`] guards public addresses.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Sleep;

use crate::metrics::{Description, Kind, Metrics};
use crate::readiness::Readiness;
use crate::shutdown::Shutdown;

/// Connections served at the same time.
pub const CONNECTIONS_MAX: usize = 64;
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Largest body of a request, unless a route of the node says otherwise.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Time for the head of a request, counted from the moment the connection is idle.
const HEAD_WITHIN: Duration = if cfg!(test) {
    Duration::from_millis(300)
} else {
    Duration::from_secs(10)
};
/// Time a reader may take nothing at all of a response before it is cut off.
const STALL_MAX: Duration = if cfg!(test) {
    Duration::from_millis(300)
} else {
    Duration::from_secs(20)
};
/// Time that responses in progress get at shutdown.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// Pause after the system refused to hand out a connection (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Metrics of this module, for [`crate::metrics::describe`].
pub const METRICS: &[Description] = &[Description {
    kind: Kind::Counter,
    name: "fellbeck_http_accept_errors_total",
    help: "HTTP connections that the system could not hand out, e.g. for lack of descriptors.",
}];

/// A listener cannot bind its address. Nothing has been served.
#[derive(Debug, thiserror::Error)]
#[error("{field} = \"{address}\": {}; {}", source, advice(source))]
pub struct ListenError {
    /// Key of the configuration, e.g. `http.listen`.
    pub field: &'static str,
    /// Address that was asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it or choose another port",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => "choose another address",
    }
}

/// Gives the JSON of `/api/v1/status`. Called per request on a thread of the runtime: must not block.
pub type StatusSource = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Brings gauges up to date.
pub type Refresh = Arc<dyn Fn() + Send + Sync>;

/// What the server serves.
pub struct HttpParts {
    /// Name of the node on the page, e.g. `fellbeck-edge`.
    pub title: &'static str,
    /// Behind `/readyz`.
    pub readiness: Readiness,
    /// Behind `/metrics`.
    pub metrics: Metrics,
    /// Sets gauges that are only computed when somebody looks; called before `/metrics` is rendered. Must not block.
    pub refresh: Refresh,
    /// Behind `/api/v1/status`.
    pub status: StatusSource,
    /// Further routes of the node; `/` among them replaces the plain page. They must not repeat the other routes.
    pub extra: Router,
}

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpServer {
    /// Binds `address`; port 0 lets the system choose. `field` is named in the error, e.g. `http.listen`.
    pub async fn bind(field: &'static str, address: SocketAddr) -> Result<Self, ListenError> {
        let refuse = |source| ListenError { field, address, source };
        let listener = TcpListener::bind(address).await.map_err(refuse)?;
        let address = listener.local_addr().map_err(refuse)?;
        Ok(Self { listener, address })
    }

    /// The real address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; the task ends once responses in progress are done, within two seconds.
    #[must_use]
    pub fn start(self, parts: HttpParts, shutdown: Shutdown) -> JoinHandle<()> {
        tokio::spawn(accept(self.listener, router(parts), shutdown))
    }
}

fn router(parts: HttpParts) -> Router {
    let HttpParts {
        title,
        readiness,
        metrics,
        refresh,
        status,
        extra,
    } = parts;
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || ready_response(&readiness)))
        .route(
            "/metrics",
            get(async move || {
                refresh();
                metrics_response(&metrics)
            }),
        )
        .route("/api/v1/status", get(async move || Json(status())))
        .merge(extra)
        .fallback(async move |uri: Uri| page_or_not_found(title, &uri))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

fn ready_response(readiness: &Readiness) -> Response {
    let code = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(readiness.to_json())).into_response()
}

fn metrics_response(metrics: &Metrics) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        metrics.render(),
    )
        .into_response()
}

fn page_or_not_found(title: &str, uri: &Uri) -> Response {
    if uri.path() != "/" {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    }
    let links: String = ["/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/ledger"]
        .iter()
        .map(|path| format!("<li><a href=\"{path}\">{path}</a></li>"))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\
         <body><h1>{title} {version}</h1><ul>{links}</ul></body></html>\n"
    ))
    .into_response()
}

async fn accept(listener: TcpListener, router: Router, mut shutdown: Shutdown) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.requested() => break,
            Some(_) = connections.join_next() => continue,
            accepted = next(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let connection = serve(stream, router.clone(), shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(e) => {
                metrics::counter!("fellbeck_http_accept_errors_total").increment(1);
                tracing::debug!(error = %e, "an HTTP connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_WITHIN, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// The next connection, taken only when there is a slot for it.
async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn serve(stream: TcpStream, router: Router, mut shutdown: Shutdown) {
    let guarded = TokioIo::new(StallGuard { stream, stalled: None });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(guarded, TowerToHyperService::new(router))
    );
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = outcome {
        tracing::debug!(error = %e, "an HTTP connection ended early");
    }
}

/// A connection whose reader may not keep a response waiting for ever.
struct StallGuard {
    stream: TcpStream,
    /// Runs while the reader takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl StallGuard {
    fn judge(&mut self, outcome: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let sleep = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_MAX)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for StallGuard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for StallGuard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
