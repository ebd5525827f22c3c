//! Edge and cloud nodes as processes of their own.
//!
//! In: a [`NodeSpec`]. Out: a running [`Node`] with its real addresses, or why it did not start, with the end of its log.
//! The program runs itself: the hidden subcommands `edge-node` and `cloud-node` are the nodes' own command lines. With
//! `--edge-bin` and `--cloud-bin` the given binaries are run instead.
//! Only the contracts of the command line are relied on: `run`, `--data-dir`, `--set`, `--ready-file`, `token`, `join`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// A node must be ready within this time.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// `token create` and `join` must end within this time.
const COMMAND_WITHIN: Duration = Duration::from_secs(20);
/// A node must have drained within this time after SIGTERM.
const EXIT_WITHIN: Duration = Duration::from_secs(20);
/// How often the ready file is looked for.
const READY_POLL: Duration = Duration::from_millis(10);
/// Ports from which [`free_port`] chooses, and how often it tries.
const PORTS: std::ops::Range<u16> = 18_000..32_000;
const PORT_ATTEMPTS: u32 = 100;
/// Lines of a log shown when its node fails.
const LOG_LINES: usize = 15;

/// Which of the two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// fellbeck-edge.
    Edge,
    /// fellbeck-cloud.
    Cloud,
}

impl Tier {
    /// The hidden subcommand.
    const fn subcommand(self) -> &'static str {
        match self {
            Self::Edge => "edge-node",
            Self::Cloud => "cloud-node",
        }
    }

    /// The name of the program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Edge => "fellbeck-edge",
            Self::Cloud => "fellbeck-cloud",
        }
    }
}

/// If the arguments ask for a node, runs it and gives its exit code.
pub fn run_if_asked(arguments: &[OsString]) -> Option<ExitCode> {
    let asked = arguments.get(1)?;
    let tier = [Tier::Edge, Tier::Cloud]
        .into_iter()
        .find(|tier| asked == tier.subcommand())?;
    // The nodes of a demo that was killed would run on for ever.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        eprintln!("firmware-sim: this node will outlive its parent: {error}");
    }
    let rest = arguments.iter().skip(2).cloned();
    let arguments = std::iter::once(OsString::from(tier.program())).chain(rest);
    Some(match tier {
        Tier::Edge => fellbeck_edge::cli(arguments),
        Tier::Cloud => fellbeck_cloud::cli(arguments),
    })
}

/// A loopback port that nobody listens on, below the range from which the system gives ports to outgoing connections: a
/// node that is restarted on it meets no connection of somebody else there.
pub fn free_port() -> io::Result<u16> {
    for _ in 0..PORT_ATTEMPTS {
        let port = rand::random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("no free port found in {PORTS:?}"),
    ))
}

/// Where the two programs are.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// Instead of this program itself.
    pub edge: Option<PathBuf>,
    /// Instead of this program itself.
    pub cloud: Option<PathBuf>,
}

impl Programs {
    fn command(&self, tier: Tier) -> io::Result<Command> {
        let given = match tier {
            Tier::Edge => &self.edge,
            Tier::Cloud => &self.cloud,
        };
        if let Some(path) = given {
            return Ok(Command::new(path));
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(tier.subcommand());
        Ok(command)
    }
}

/// Why a node or one of its commands failed. Whatever was started is stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The process could not be started or watched.
    #[error("{program}: {source}")]
    Io {
        /// Which program.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("{program} ended before it was ready ({status}); its log ends with\n{log}")]
    Ended {
        /// Which program.
        program: &'static str,
        /// Exit code or signal.
        status: String,
        /// Last lines.
        log: String,
    },
    /// It took too long.
    #[error("{program} {what} took more than {} s; its log ends with\n{log}", within.as_secs())]
    Slow {
        /// Which program.
        program: &'static str,
        /// What it was to do.
        what: &'static str,
        /// The limit.
        within: Duration,
        /// Last lines.
        log: String,
    },
    /// The ready file lacks a listener, or holds no address.
    #[error("the ready file of {program} has no usable address for {listener:?}")]
    Address {
        /// Which program.
        program: &'static str,
        /// Which listener.
        listener: String,
    },
    /// A command ended with an error.
    #[error("{program} {command} failed: {output}")]
    Command {
        /// Which program.
        program: &'static str,
        /// Which subcommand.
        command: String,
        /// What it printed.
        output: String,
    },
}

/// How to start a node.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Which program.
    pub tier: Tier,
    /// Where the programs are.
    pub programs: Programs,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Values of `--set`.
    pub settings: Vec<String>,
}

impl NodeSpec {
    fn beside(&self, extension: &str) -> PathBuf {
        self.data_dir.with_extension(extension)
    }

    /// The log of the node, beside its data directory.
    pub fn log_file(&self) -> PathBuf {
        self.beside("log")
    }

    fn ready_file(&self) -> PathBuf {
        self.beside("ready")
    }

    fn error(&self, source: io::Error) -> NodeError {
        NodeError::Io {
            program: self.tier.program(),
            source,
        }
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Starts the node and waits until its listeners accept.
    pub async fn start(&self) -> Result<Node, NodeError> {
        let ready_file = self.ready_file();
        remove_if_there(&ready_file).map_err(|source| self.error(source))?;
        let mut command = self.programs.command(self.tier).map_err(|source| self.error(source))?;
        let log = self.open_log().map_err(|source| self.error(source))?;
        let also_log = log.try_clone().map_err(|source| self.error(source))?;
        command
            .arg("run")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .arg("--ready-file")
            .arg(&ready_file);
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(also_log)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|source| self.error(source))?;
        let mut node = Node {
            spec: self.clone(),
            child,
            listeners: HashMap::new(),
        };
        node.listeners = node.await_ready(&ready_file).await?;
        Ok(node)
    }

    fn open_log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.log_file())
    }

    /// What a user would type to start the node by hand.
    pub fn shown(&self) -> Result<String, NodeError> {
        let mut command = self.programs.command(self.tier).map_err(|source| self.error(source))?;
        command.arg("run").arg("--data-dir").arg(&self.data_dir);
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        let command = command.as_std();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        Ok(words
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" "))
    }

    /// Runs a subcommand such as `token` or `join` to its end, and gives what it printed.
    pub async fn command(&self, arguments: &[&str]) -> Result<String, NodeError> {
        let program = self.tier.program();
        let mut command = self.programs.command(self.tier).map_err(|source| self.error(source))?;
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let slow = |_| NodeError::Slow {
            program,
            what: "command",
            within: COMMAND_WITHIN,
            log: String::new(),
        };
        let output = timeout(COMMAND_WITHIN, command.output()).await.map_err(slow)?;
        let output = output.map_err(|source| self.error(source))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        // The first argument only: the others may be secret.
        let command = arguments.first().copied().unwrap_or_default().to_owned();
        let output = format!("{printed}{}", String::from_utf8_lossy(&output.stderr))
            .trim()
            .to_owned();
        Err(NodeError::Command {
            program,
            command,
            output,
        })
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub struct Node {
    spec: NodeSpec,
    child: Child,
    listeners: HashMap<String, String>,
}

impl Node {
    async fn await_ready(&mut self, ready_file: &Path) -> Result<HashMap<String, String>, NodeError> {
        let program = self.spec.tier.program();
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            // Written atomically, so that what can be parsed is whole.
            if let Ok(text) = fs::read(ready_file)
                && let Ok(listeners) = serde_json::from_slice::<HashMap<String, serde_json::Value>>(&text)
            {
                let addresses = listeners
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())));
                return Ok(addresses.collect());
            }
            if let Some(status) = self.child.try_wait().map_err(|source| self.spec.error(source))? {
                return Err(NodeError::Ended {
                    program,
                    status: status.to_string(),
                    log: self.spec.log_tail(),
                });
            }
            if Instant::now() > deadline {
                let log = self.spec.log_tail();
                return Err(NodeError::Slow {
                    program,
                    what: "start",
                    within: READY_WITHIN,
                    log,
                });
            }
            sleep(READY_POLL).await;
        }
    }

    /// The address on which a listener really listens.
    pub fn address(&self, listener: &str) -> Result<SocketAddr, NodeError> {
        let address = self.listeners.get(listener).and_then(|text| text.parse().ok());
        let program = self.spec.tier.program();
        address.ok_or_else(|| NodeError::Address {
            program,
            listener: listener.to_owned(),
        })
    }

    /// Process ID; 0 when it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// SIGKILL: as a power cut, but for the page cache.
    pub async fn kill(&mut self) -> Result<(), NodeError> {
        self.child.kill().await.map_err(|source| self.spec.error(source))
    }

    /// SIGTERM, and waits for a clean end. A node that somebody else has ended already is fine.
    pub async fn terminate(&mut self) -> Result<(), NodeError> {
        let program = self.spec.tier.program();
        if self
            .child
            .try_wait()
            .map_err(|source| self.spec.error(source))?
            .is_some()
        {
            return Ok(());
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(|error| self.spec.error(error.into()))?;
        }
        let slow = |_| NodeError::Slow {
            program,
            what: "stop",
            within: EXIT_WITHIN,
            log: self.spec.log_tail(),
        };
        let status = timeout(EXIT_WITHIN, self.child.wait()).await.map_err(slow)?;
        let status = status.map_err(|source| self.spec.error(source))?;
        if status.success() {
            return Ok(());
        }
        Err(NodeError::Ended {
            program,
            status: status.to_string(),
            log: self.spec.log_tail(),
        })
    }
}
