//! The HTTP server over real sockets, on ports of the system's choice.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::shutdown::Trigger;

struct Running {
    address: SocketAddr,
    readiness: Readiness,
    trigger: Trigger,
    /// One permit for each request that has reached `/gate`.
    entered: Arc<Semaphore>,
    /// One permit for each request that may leave `/gate`.
    gate: Arc<Semaphore>,
    task: JoinHandle<()>,
}

async fn running() -> Running {
    let server = HttpServer::bind("http.listen", "127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = server.address();
    let readiness = Readiness::new(&["store"]);
    let (trigger, shutdown) = Shutdown::manual();
    let (entered, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let inside = (entered.clone(), gate.clone());
    let gated = async move || {
        inside.0.add_permits(1);
        inside.1.acquire().await.unwrap().forget();
        "open"
    };
    let parts = HttpParts {
        title: "fellbeck-test",
        readiness: readiness.clone(),
        metrics: Metrics::install(),
        refresh: Arc::new(|| {}),
        status: Arc::new(|| serde_json::json!({ "queued": 7 })),
        extra: Router::new()
            .route("/api/v1/extra", get(async || "more"))
            .route("/gate", get(gated)),
    };
    Running {
        address,
        readiness,
        trigger,
        entered,
        gate,
        task: server.start(parts, shutdown),
    }
}

async fn get_text(address: SocketAddr, path: &str) -> String {
    send(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
    )
    .await
}

async fn send(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn every_endpoint_answers_on_the_real_port() {
    let node = running().await;
    assert_ne!(node.address.port(), 0);
    assert!(get_text(node.address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let unready = get_text(node.address, "/readyz").await;
    assert!(
        unready.starts_with("HTTP/1.1 503") && unready.contains("\"reason\":\"starting\""),
        "{unready}"
    );
    node.readiness.met("store");
    let ready = get_text(node.address, "/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.contains("\"ready\":true"),
        "{ready}"
    );
    let metrics = get_text(node.address, "/metrics").await;
    assert!(
        metrics.contains("text/plain; version=0.0.4") && metrics.contains("process_open_fds"),
        "{metrics}"
    );
    assert!(
        get_text(node.address, "/api/v1/status")
            .await
            .ends_with("{\"queued\":7}")
    );
    assert!(get_text(node.address, "/api/v1/extra").await.ends_with("more"));
    assert!(get_text(node.address, "/").await.contains("<h1>fellbeck-test"));
    assert!(get_text(node.address, "/nothing").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_used_port_names_the_field_and_what_to_do() {
    let node = running().await;
    let text = HttpServer::bind("http.listen", node.address)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("http.listen") && text.contains(&node.address.to_string()),
        "{text}"
    );
    assert!(text.contains("another process listens there"), "{text}");
}

#[tokio::test]
async fn an_oversized_head_is_refused() {
    let node = running().await;
    let mut request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    request.resize(HEAD_BYTES_MAX + 1, b'a');
    let answer = send(node.address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

/// A connection that says nothing must not hold its slot for ever, neither fresh nor after an answer.
#[tokio::test]
async fn a_silent_connection_is_closed_in_time() {
    let node = running().await;
    let mut fresh = TcpStream::connect(node.address).await.unwrap();
    let mut idle = TcpStream::connect(node.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let mut nothing = Vec::new();
    let closed = async { tokio::try_join!(fresh.read_to_end(&mut nothing), idle.read_to_end(&mut answer)) };
    let closed = tokio::time::timeout(HEAD_WITHIN * 30, closed).await;
    assert!(closed.is_ok(), "still open after thirty times the allowed time");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

/// A reader that takes nothing of a large answer is cut off, so that its slot comes free.
#[tokio::test]
async fn a_stalled_reader_is_cut_off() {
    let (_trigger, shutdown) = Shutdown::manual();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    reader.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let router = Router::new().route("/", get(async || vec![0_u8; 64 * 1024 * 1024]));
    let served = tokio::time::timeout(STALL_MAX * 30, serve(stream, router, shutdown)).await;
    assert!(served.is_ok(), "still held after thirty times the allowed time");
}

/// Method: every request in progress holds its slot until the test opens the gate.
#[tokio::test]
async fn connections_beyond_the_limit_wait_and_are_served_when_a_slot_is_free() {
    let node = running().await;
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS_MAX {
        held.spawn(get_text(node.address, "/gate"));
    }
    for _ in 0..CONNECTIONS_MAX {
        node.entered.acquire().await.unwrap().forget();
    }
    let mut waiting = pin!(get_text(node.address, "/healthz"));
    let early = tokio::time::timeout(Duration::from_millis(50), waiting.as_mut()).await;
    assert!(early.is_err(), "one more than allowed was served");
    node.gate.add_permits(1);
    assert!(waiting.await.starts_with("HTTP/1.1 200"));
    node.gate.add_permits(CONNECTIONS_MAX);
    for answer in held.join_all().await {
        assert!(answer.ends_with("open"), "{answer}");
    }
}

#[tokio::test]
async fn shutdown_closes_the_listener_and_ends_the_task() {
    let node = running().await;
    let idle = TcpStream::connect(node.address).await.unwrap();
    node.trigger.stop();
    tokio::time::timeout(Duration::from_secs(10), node.task)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(node.address).await.is_err());
    drop(idle);
}
