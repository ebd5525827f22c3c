//! Debian's mosquitto: its clients as real users of our nodes, and its broker to check this harness against.
//!
//! In: topics and lines. Out: what mosquitto_sub printed. [`Subscription::start`] returns once SUBACK has come (seen in its debug output),
//! so nothing published afterwards may be missed. The broker takes a free port and keeps nothing.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::command;
use crate::mqtt::Version;
use crate::site::Site;
use crate::wait;

/// Marks the lines of mosquitto_sub that are messages.
const MARK: &str = "message: ";

fn version_name(version: Version) -> &'static str {
    match version {
        Version::V3 => "mqttv311",
        Version::V5 => "mqttv5",
    }
}

fn client(program: &str, at: SocketAddr, version: Version) -> Command {
    let mut command = Command::new(program);
    command.args([
        "-h",
        &at.ip().to_string(),
        "-p",
        &at.port().to_string(),
        "-V",
        version_name(version),
    ]);
    command
}

/// Publishes each line with mosquitto_pub over one connection and waits for its end: at QoS above 0 all are acknowledged then.
///
/// # Panics
/// When mosquitto_pub reports a failure.
pub fn publish_lines(at: SocketAddr, version: Version, qos: u8, topic: &str, lines: &[String]) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let input = dir.path().join("lines");
    fs::write(&input, lines.join("\n") + "\n").expect("a file can be written in a fresh directory");
    let mut command = client("mosquitto_pub", at, version);
    command.args(["-q", &qos.to_string(), "-t", topic, "-l"]);
    command.stdin(File::open(&input).expect("the file was just written"));
    command::finish(command, wait::EVENTUALLY).assert_ok();
}

/// A running mosquitto_sub.
#[derive(Debug)]
pub struct Subscription {
    child: Child,
    output: PathBuf,
}

impl Subscription {
    /// Subscribes and waits for SUBACK.
    ///
    /// # Panics
    /// When mosquitto_sub cannot be started or the subscription is not granted.
    #[must_use]
    pub fn start(site: &Site, at: SocketAddr, version: Version, qos: u8, filter: &str) -> Self {
        let name = format!("sub-{}-{}-{qos}", at.port(), version_name(version));
        let output = site.path(&name);
        let file = File::create(&output).expect("a file can be made in the site");
        // Line by line, since a block-buffered SUBACK line would never be seen.
        let mut command = Command::new("stdbuf");
        let inner = client("mosquitto_sub", at, version);
        command.arg("-oL").arg(inner.get_program()).args(inner.get_args());
        command.args([
            "-d",
            "-q",
            &qos.to_string(),
            "-t",
            filter,
            "-F",
            &format!("{MARK}%t %q %p"),
        ]);
        command
            .stdin(Stdio::null())
            .stderr(file.try_clone().expect("a file handle can be copied"))
            .stdout(file);
        let child = command
            .spawn()
            .expect("mosquitto_sub can be started: run tests/setup.sh");
        let subscription = Self { child, output };
        wait::until_true("mosquitto_sub is subscribed", wait::SOON, || {
            subscription.raw().contains("Subscribed (mid")
        });
        subscription
    }

    /// Message lines so far, as `topic qos payload`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.raw()
            .lines()
            .filter_map(|line| line.strip_prefix(MARK))
            .map(str::to_owned)
            .collect()
    }

    /// Waits until `count` messages have come and returns them.
    ///
    /// # Panics
    /// When that takes too long.
    #[must_use]
    pub fn await_lines(&self, count: usize) -> Vec<String> {
        wait::until(&format!("{count} messages at mosquitto_sub"), wait::EVENTUALLY, || {
            let lines = self.lines();
            (lines.len() >= count).then_some(lines)
        })
    }

    fn raw(&self) -> String {
        // Only whole lines: the last one may still be in the making.
        let text = String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned();
        text.rfind('\n').map_or(String::new(), |end| text[..=end].to_owned())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let raw = self.raw();
            let lines: Vec<&str> = raw.lines().collect();
            eprintln!(
                "---- mosquitto_sub ----\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
    }
}

/// Debian's broker on a free port.
#[derive(Debug)]
pub struct Mosquitto {
    child: Child,
    address: SocketAddr,
}

impl Mosquitto {
    /// Starts the broker and waits until it accepts.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(site: &Site) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a loopback port can be had");
        let address = free.local_addr().expect("a bound socket has an address");
        drop(free);
        let config = site.path("mosquitto.conf");
        let settings =
            "allow_anonymous true\nmax_inflight_messages 10000\nmax_queued_messages 100000\npersistence false\n";
        let text = format!("listener {} 127.0.0.1\n{settings}", address.port());
        fs::write(&config, text).expect("a file can be written in the site");
        let program = if PathBuf::from("/usr/sbin/mosquitto").exists() {
            "/usr/sbin/mosquitto"
        } else {
            "mosquitto"
        };
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("mosquitto can be started: run tests/setup.sh");
        let broker = Self { child, address };
        wait::until_true("mosquitto accepts", wait::SOON, || {
            std::net::TcpStream::connect(address).is_ok()
        });
        broker
    }

    /// kill -9. Without persistence it takes all sessions and queued messages with it.
    ///
    /// # Panics
    /// When that is not possible.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child can be waited for");
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
