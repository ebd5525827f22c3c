//! One node as a process: started, awaited by its ready file, killed, ended, restarted on the same data.
//!
//! In: settings as `--set`. Out: addresses, log text, metrics, memory. Owns the child process and kills it on drop; the end of its log is
//! printed when the test fails. Ports are 0, so each start may get others: devices follow through [`Address`].
//! Relies only on the command line, files and HTTP paths of DESIGN section 9.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::address::Address;
use crate::command::{self, Finished};
use crate::http::{self, Response};
use crate::metrics::Metrics;
use crate::wait;

/// Lines of the log that a failed test prints.
const LOG_TAIL: usize = 80;

/// Which binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `fellbeck-edge`.
    Edge,
    /// `fellbeck-cloud`.
    Cloud,
}

impl Kind {
    /// Name of the binary.
    #[must_use]
    pub fn binary(self) -> &'static str {
        match self {
            Self::Edge => "fellbeck-edge",
            Self::Cloud => "fellbeck-cloud",
        }
    }

    fn listeners(self) -> &'static [&'static str] {
        match self {
            Self::Edge => &["mqtt.listen", "http.listen"],
            Self::Cloud => &["link.listen", "mqtt.listen", "http.listen"],
        }
    }
}

/// What the ready file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// MQTT listener.
    pub mqtt: SocketAddr,
    /// MQTT over TLS; `None` when there is no certificate.
    pub mqtt_tls: Option<SocketAddr>,
    /// MQTT over WebSocket; `None` when it is turned off.
    pub mqtt_ws: Option<SocketAddr>,
    /// MQTT over WebSocket over TLS; `None` unless it is turned on.
    pub mqtt_wss: Option<SocketAddr>,
    /// HTTP listener; `None` when it is turned off.
    pub http: Option<SocketAddr>,
    /// Link listener (cloud only).
    pub link: Option<SocketAddr>,
}

/// A node: its home on disk, its settings and, while it runs, its process.
#[derive(Debug)]
pub struct Node {
    kind: Kind,
    home: PathBuf,
    settings: Vec<(String, String)>,
    env: Vec<(String, String)>,
    subcommand: Option<&'static str>,
    child: Option<Child>,
    ready: Option<Ready>,
    mqtt: Address,
}

impl Node {
    /// A node that is not started yet, at home in `home` (made if missing). All listeners take a free loopback port.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn new(kind: Kind, home: &Path) -> Self {
        fs::create_dir_all(home).expect("the home of a node can be made");
        let free_port = |key: &&str| ((*key).to_owned(), "\"127.0.0.1:0\"".to_owned());
        Self {
            kind,
            home: home.to_owned(),
            settings: kind.listeners().iter().map(free_port).collect(),
            env: Vec::new(),
            subcommand: Some("run"),
            child: None,
            ready: None,
            mqtt: Address::default(),
        }
    }

    /// Sets a config key to a TOML value, from the next start on.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.settings.retain(|(old, _)| old != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Takes a key from the environment variable `name` instead of `--set`.
    pub fn set_by_env(&mut self, key: &str, name: &str, value: &str) -> &mut Self {
        self.settings.retain(|(old, _)| old != key);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts without a subcommand: `run` is the default.
    pub fn omit_run(&mut self) -> &mut Self {
        self.subcommand = None;
        self
    }

    /// Which binary it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Arguments of `run` as this node is started.
    #[must_use]
    pub fn run_args(&self) -> Vec<String> {
        let mut args: Vec<String> = self.subcommand.iter().map(|name| (*name).to_owned()).collect();
        args.extend(["--data-dir".to_owned(), text(&self.data_dir())]);
        args.extend(["--ready-file".to_owned(), text(&self.ready_file())]);
        for (key, value) in &self.settings {
            args.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        args
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Panics
    /// When it ends first or takes too long.
    pub fn start(&mut self) -> Ready {
        self.spawn();
        self.await_ready()
    }

    /// Starts the process and does not wait.
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "a node is started once at a time");
        fs::remove_file(self.ready_file()).ok();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the log file can be opened");
        let mut command = command::command(self.kind.binary());
        command
            .args(self.run_args())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.stdin(Stdio::null()).spawn().expect("the node can be started"));
    }

    /// Waits until the spawned process is ready.
    ///
    /// # Panics
    /// When it ends first or takes too long.
    pub fn await_ready(&mut self) -> Ready {
        let file = self.ready_file();
        let child = self.child.as_mut().expect("a node is awaited after its start");
        let ready = wait::until("the node is ready", wait::EVENTUALLY, || {
            let ended = child.try_wait().expect("the state of a child can be asked");
            assert!(ended.is_none(), "the node ended with {ended:?} before it was ready");
            read_ready(&file)
        });
        self.ready = Some(ready);
        self.mqtt.put(Some(ready.mqtt));
        ready
    }

    /// One look of a supervisor: a process that has ended is started again, one that has become ready is noted. True while it is ready.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn supervise(&mut self) -> bool {
        if !self.is_running() {
            if let Some(mut child) = self.child.take() {
                child.wait().expect("a child that has ended can be waited for");
            }
            self.forget_addresses();
            self.spawn();
            return false;
        }
        if self.ready.is_none()
            && let Some(ready) = read_ready(&self.ready_file())
        {
            self.ready = Some(ready);
            self.mqtt.put(Some(ready.mqtt));
        }
        self.ready.is_some()
    }

    /// Addresses of the running node.
    ///
    /// # Panics
    /// While it is down.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.ready.expect("the node is running")
    }

    /// MQTT address, followed across restarts.
    #[must_use]
    pub fn mqtt(&self) -> Address {
        self.mqtt.clone()
    }

    /// Process ID.
    ///
    /// # Panics
    /// While it is down.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node is running").id()
    }

    /// kill -9.
    ///
    /// # Panics
    /// While it is down.
    pub fn kill(&mut self) {
        self.forget_addresses();
        let mut child = self.child.take().expect("the node is running");
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child can be waited for");
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Panics
    /// When it does not end within `within`.
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal_term();
        self.await_exit(within)
    }

    /// SIGTERM without waiting.
    ///
    /// # Panics
    /// While it is down.
    pub fn signal_term(&mut self) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process ID is positive");
        kill_process(pid, Signal::TERM).expect("a child can be signalled");
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// When it does not end within `within`.
    pub fn await_exit(&mut self, within: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("the node is running");
        let status = wait::until("the node ends", within, || {
            child.try_wait().expect("the state of a child can be asked")
        });
        self.forget_addresses();
        self.child = None;
        status
    }

    /// True while the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// All that the node has printed, over all starts.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Waits until a line of the log contains each of `words`, in whatever case, and returns it.
    ///
    /// # Panics
    /// When none comes.
    pub fn await_log(&self, words: &[&str]) -> String {
        wait::until(&format!("a log line with {words:?}"), wait::EVENTUALLY, || {
            let log = self.log();
            log.lines()
                .find(|line| words.iter().all(|word| line.contains(word)))
                .map(str::to_owned)
        })
    }

    /// HTTP GET.
    ///
    /// # Panics
    /// When the node does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> Response {
        let at = self.ready().http.expect("the HTTP listener is on");
        http::get(at, path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// One scrape of the metrics.
    ///
    /// # Panics
    /// When the node does not answer with 200.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "GET /metrics");
        Metrics::parse(&answer.body)
    }

    /// Sum of a metric over the label values that contain `piece`.
    ///
    /// # Panics
    /// When the node has no such metric.
    #[must_use]
    pub fn metric(&self, name: &str, piece: &str) -> f64 {
        let metrics = self.metrics();
        metrics
            .sum_where(name, piece)
            .unwrap_or_else(|| panic!("no {name}{{{piece}}} among {:?}", metrics.names()))
    }

    /// Bytes that the process has caused to be written to block devices.
    ///
    /// # Panics
    /// While it is down.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.pid())).expect("the process is there");
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let bytes = line.and_then(|line| line.trim().parse().ok());
        bytes.expect("the system counts what a process writes")
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// While it is down.
    #[must_use]
    pub fn rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process is there");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a process has a VmRSS");
        let kib: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .trim()
            .parse()
            .expect("VmRSS is a number of kB");
        kib * 1024
    }

    /// Runs a subcommand of this node's binary with its data directory.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Finished {
        let data_dir = text(&self.data_dir());
        let mut all = args.to_vec();
        all.extend(["--data-dir", data_dir.as_str()]);
        command::run_to_end(self.kind.binary(), &all, &[], wait::EVENTUALLY)
    }

    /// Runs `run` to its end, for a start that must be refused.
    #[must_use]
    pub fn run_refused(&self) -> Finished {
        let args = self.run_args();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        command::run_to_end(self.kind.binary(), &args, &[], wait::EVENTUALLY)
    }

    fn forget_addresses(&mut self) {
        self.mqtt.put(None);
        self.ready = None;
    }

    fn ready_file(&self) -> PathBuf {
        self.home.join("ready.json")
    }

    fn log_file(&self) -> PathBuf {
        self.home.join("node.log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
            eprintln!(
                "---- end of {} ----\n{}\n----",
                self.log_file().display(),
                tail.join("\n")
            );
        }
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("test paths are UTF-8").to_owned()
}

fn read_ready(file: &Path) -> Option<Ready> {
    // Written atomically: what is there is whole, so anything unreadable is a fault of the node.
    let body = fs::read_to_string(file).ok()?;
    let json: serde_json::Value =
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("the ready file is not JSON ({error}): {body}"));
    let address = |key: &str| -> Option<SocketAddr> { json.get(key)?.as_str()?.parse().ok() };
    let need = |key: &str| address(key).unwrap_or_else(|| panic!("the ready file has no address {key:?}: {body}"));
    Some(Ready {
        mqtt: need("mqtt"),
        mqtt_tls: address("mqtt_tls"),
        mqtt_ws: address("mqtt_ws"),
        mqtt_wss: address("mqtt_wss"),
        http: address("http"),
        link: address("link"),
    })
}
