//! One client program as a process: started with the arguments of its scenario, followed line by line, ended or killed.
//!
//! In: `tests/clients/LIBRARY/SCENARIO` and a [`Task`]. Out: the JSON objects that it printed. It waits for "go" where the test has to look
//! first. A process that fails a check of its own ends with another code than 0, and the test shows its standard error.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use fellbeck_tests::wait;
use serde_json::Value;
use tempfile::NamedTempFile;

/// Which client library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    /// paho-mqtt for Python.
    Paho,
    /// MQTT.js for Node.js.
    MqttJs,
    /// rumqttc for Rust.
    Rumqttc,
}

impl Library {
    /// Part of topics and client IDs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Paho => "paho",
            Self::MqttJs => "mqttjs",
            Self::Rumqttc => "rumqttc",
        }
    }

    fn command(self, scenario: &str) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let installed = root.join("target/clients").join(self.name());
        let script = |ending: &str| -> PathBuf {
            let file = format!("tests/clients/{}/{scenario}.{ending}", self.name());
            root.join(file)
        };
        match self {
            Self::Paho => {
                let python = installed.join("bin/python");
                assert!(python.exists(), "paho-mqtt is not installed: run tests/setup.sh");
                let mut command = Command::new(python);
                // No byte code beside the sources.
                command.arg("-B").arg(script("py"));
                command
            }
            Self::MqttJs => {
                assert!(installed.exists(), "MQTT.js is not installed: run tests/setup.sh");
                let mut command = Command::new("node");
                command.arg(script("mjs")).env("MQTTJS_DIR", installed);
                command
            }
            Self::Rumqttc => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_rumqttc-client"));
                command.arg(scenario);
                command
            }
        }
    }
}

/// What a program is asked to do. The program adds `/VERSION/QOS` to the topic and `-VERSION-QOS` to the ID for each combination.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// The node.
    pub(crate) at: SocketAddr,
    /// First levels of all topics, unique in the test process.
    pub(crate) topic: String,
    /// Versions: 3 or 5.
    pub(crate) versions: &'static [u8],
    /// QoS levels.
    pub(crate) qos: &'static [u8],
    /// Further arguments.
    pub(crate) more: Vec<String>,
}

impl Task {
    /// Both versions, each QoS.
    pub(crate) fn new(at: SocketAddr, topic: &str) -> Self {
        Self {
            at,
            topic: topic.to_owned(),
            versions: &[3, 5],
            qos: &[0, 1, 2],
            more: Vec::new(),
        }
    }

    /// For what only 5.0 has.
    pub(crate) fn only_5(self) -> Self {
        Self { versions: &[5], ..self }
    }

    /// At these QoS levels only.
    pub(crate) fn at_qos(self, qos: &'static [u8]) -> Self {
        Self { qos, ..self }
    }

    /// Adds arguments.
    pub(crate) fn with(mut self, more: &[&str]) -> Self {
        self.more.extend(more.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Version, QoS and topic of each combination, in the program's order.
    pub(crate) fn rounds(&self) -> Vec<(u8, u8, String)> {
        let of_version = |version: &u8| {
            let version = *version;
            let round = move |qos: &u8| (version, *qos, format!("{}/{version}/{qos}", self.topic));
            self.qos.iter().map(round)
        };
        self.versions.iter().flat_map(of_version).collect()
    }

    fn args(&self) -> Vec<String> {
        let list = |numbers: &[u8]| numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        let mut args = vec![
            format!("--host={}", self.at.ip()),
            format!("--port={}", self.at.port()),
            format!("--versions={}", list(self.versions)),
            format!("--qos={}", list(self.qos)),
            format!("--topic={}", self.topic),
            format!("--id={}", self.topic.replace('/', "-")),
        ];
        args.extend(self.more.iter().cloned());
        args
    }
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    incoming: Receiver<Value>,
    said: Vec<Value>,
    /// First line of `said` that no wait has looked at.
    next: usize,
    errors: NamedTempFile,
}

impl Program {
    /// Starts a scenario.
    pub(crate) fn start(library: Library, scenario: &str, task: &Task) -> Self {
        let mut command = library.command(scenario);
        command.args(task.args());
        Self::spawn(&format!("{} {scenario} {}", library.name(), task.topic), command)
    }

    /// Starts any program that prints lines; those that are not JSON are kept as strings.
    pub(crate) fn spawn(name: &str, mut command: Command) -> Self {
        let errors = NamedTempFile::new().expect("a temporary file can be made");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(errors.path()).expect("a temporary file can be written"));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let (sender, incoming) = channel();
        // Ends with the process's standard output.
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            name: name.to_owned(),
            child,
            incoming,
            said: Vec::new(),
            next: 0,
            errors,
        }
    }

    /// Waits for the next line with this event.
    pub(crate) fn await_event(&mut self, event: &str) -> Value {
        self.await_line(event, |line| line["event"] == event)
    }

    /// Waits for the next line of text that contains `words`.
    pub(crate) fn await_text(&mut self, words: &str) -> String {
        let line = self.await_line(words, |line| line.as_str().is_some_and(|line| line.contains(words)));
        text(&line)
    }

    fn await_line(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            if self.next == self.said.len() {
                assert!(self.read(), "{}: ended without {what:?}: {}", self.name, self.trace());
            }
            let line = self.said[self.next].clone();
            self.next += 1;
            if wanted(&line) {
                return line;
            }
        }
    }

    /// What it has said until now.
    pub(crate) fn so_far(&mut self) -> &[Value] {
        self.said.extend(self.incoming.try_iter());
        &self.said
    }

    /// Says go.
    pub(crate) fn go(&mut self) {
        self.write(b"go\n");
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let pipe = self.child.stdin.as_mut().expect("standard input is a pipe");
        pipe.write_all(bytes)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Closes its standard input and waits for its end.
    pub(crate) fn finish_input(mut self) -> Vec<Value> {
        self.child.stdin = None;
        self.finish()
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child can be waited for");
    }

    /// Waits for the end, which must be a success, and returns all lines.
    pub(crate) fn finish(mut self) -> Vec<Value> {
        while self.read() {}
        let status = self.exit_status();
        assert!(status.success(), "{}: {status}: {}", self.name, self.trace());
        std::mem::take(&mut self.said)
    }

    fn exit_status(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait::until("a client program ends", wait::SOON, || {
            child.try_wait().expect("the state of a child can be asked")
        })
    }

    /// Takes one line; false when the program has closed its output.
    fn read(&mut self) -> bool {
        let deadline = Instant::now() + wait::EVENTUALLY;
        match self
            .incoming
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(line) => {
                self.said.push(line);
                true
            }
            Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => panic!("{}: says nothing more: {}", self.name, self.trace()),
        }
    }

    fn trace(&self) -> String {
        let shortened = |line: &Value| line.to_string().chars().take(300).collect::<String>();
        let said: Vec<String> = self.said.iter().rev().take(20).rev().map(shortened).collect();
        let errors = fs::read_to_string(self.errors.path()).unwrap_or_default();
        format!("\n{}\n{errors}", said.join("\n"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A "message" line that a program printed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    /// ID of the connection that took it.
    pub(crate) client: String,
    /// Topic name.
    pub(crate) topic: String,
    /// Payload.
    pub(crate) payload: Vec<u8>,
    /// QoS of the delivery.
    pub(crate) qos: u8,
    /// Retain flag.
    pub(crate) retain: bool,
    /// Properties, by the names of the programs.
    pub(crate) properties: Value,
}

/// Messages among `lines`, in order.
pub(crate) fn heard(lines: &[Value]) -> Vec<Heard> {
    lines
        .iter()
        .filter(|line| line["event"] == "message")
        .map(|line| Heard {
            client: text(&line["client"]),
            topic: text(&line["topic"]),
            payload: bytes(&text(&line["payload"])),
            qos: line["qos"]
                .as_u64()
                .and_then(|qos| u8::try_from(qos).ok())
                .expect("a QoS"),
            retain: line["retain"].as_bool().expect("a retain flag"),
            properties: line["properties"].clone(),
        })
        .collect()
}

/// Lower-case hexadecimal digits, as the programs write binary values.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let pair = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    bytes.iter().flat_map(pair).map(char::from).collect()
}

/// A value that is a string.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a string: {value}"))
        .to_owned()
}

/// The bytes of hexadecimal digits.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).expect("a hexadecimal digit") as u8;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| (digit(pair[0]) << 4) | digit(pair[1]))
        .collect()
}
