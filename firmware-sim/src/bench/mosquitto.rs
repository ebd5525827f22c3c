//! Debian's mosquitto as the peer: in memory, without any limit that would throttle it.
//!
//! In: a port, and for a bridge the port of the far end. Out: a running broker. Dropping it kills it.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::node::free_port;

/// Where Debian has it; also looked for in PATH.
const PROGRAMS: [&str; 2] = ["/usr/sbin/mosquitto", "mosquitto"];
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running mosquitto.
#[derive(Debug)]
pub struct Mosquitto {
    child: Child,
    /// Where it listens on loopback.
    pub port: u16,
}

impl Mosquitto {
    /// A broker alone.
    pub async fn start(folder: &Path) -> io::Result<Self> {
        Self::start_with(folder, "").await
    }

    /// A broker that forwards everything to the one at `far_port`.
    pub async fn start_bridge(folder: &Path, far_port: u16) -> io::Result<Self> {
        let bridge = format!(
            "connection far\naddress 127.0.0.1:{far_port}\ntopic # out 1\nbridge_protocol_version mqttv311\n\
             cleansession false\nrestart_timeout 1\nnotifications false\ntry_private false\n"
        );
        Self::start_with(folder, &bridge).await
    }

    async fn start_with(folder: &Path, more: &str) -> io::Result<Self> {
        let port = free_port()?;
        let config = folder.join(format!("mosquitto-{port}.conf"));
        // `user root` keeps it from giving up the rights to read its own config in a private folder.
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence false\nlog_dest none\n\
             max_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 0\nset_tcp_nodelay true\n{more}"
        );
        fs::write(&config, text)?;
        let mut child = spawn(&config)?;
        let deadline = Instant::now() + READY_WITHIN;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("mosquitto ended at once: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("mosquitto does not listen"));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { child, port })
    }

    /// Process ID; 0 when it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Ends it.
    pub async fn stop(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}

fn spawn(config: &Path) -> io::Result<Child> {
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "mosquitto is not installed"));
    for program in PROGRAMS {
        result = Command::new(program)
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        if result.is_ok() {
            break;
        }
    }
    result.map_err(|error| io::Error::new(error.kind(), format!("mosquitto: {error}")))
}

/// Version as the program tells it.
pub async fn version() -> String {
    for program in PROGRAMS {
        if let Ok(output) = Command::new(program).arg("-h").stdin(Stdio::null()).output().await {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            return text
                .lines()
                .next()
                .unwrap_or("mosquitto")
                .trim_start_matches("mosquitto version ")
                .to_owned();
        }
    }
    "not installed".to_owned()
}
