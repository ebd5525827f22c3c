//! One power-on of an emulated gateway: the emulator as a process, its forwarded ports, its console.
//!
//! In: [`Kit`], [`Hardware`], a [`Flash`]. Out: a machine whose edge answers, or the console of one that does not come up.
//! Owns the process and ends it on drop; the end of the console is printed when the test fails. Each power-on takes free ports of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::flash::Flash;
use super::kit::Kit;
use crate::http;
use crate::metrics::Metrics;
use crate::wait;

/// The emulator.
const EMULATOR: &str = "qemu-system-aarch64";
/// Ports of the edge within the guest.
const MQTT: u16 = 1883;
const HTTP: u16 = 8081;
/// Where the guest finds what listens on the host's loopback.
const HOST: &str = "10.0.2.2";
/// Time for a boot on a slow machine.
const BOOT_MAX: Duration = Duration::from_secs(120);
/// Lines of the console that a failed test prints.
const CONSOLE_TAIL: usize = 120;
/// What the console says when the machine, and not the power, has failed.
const TROUBLE: [&str; 8] = [
    "Kernel panic",
    "Out of memory",
    "oom-kill",
    "EXT4-fs error",
    "I/O error",
    "GATEWAY: the edge ended",
    "GATEWAY: insmod",
    "not mount",
];

/// What time the machine believes it is when the power comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// That of the host, as with a battery.
    Host,
    /// A minute after the beginning of 1970, as without one.
    Dead,
}

/// What the machine has.
#[derive(Debug, Clone, Copy)]
pub struct Hardware {
    /// MiB of memory.
    pub memory: usize,
    /// Its clock.
    pub clock: Clock,
}

/// A machine with power.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    console: PathBuf,
    /// Bytes of the console before this power-on.
    seen: usize,
    since: Instant,
    /// Forwarded MQTT port.
    pub mqtt: SocketAddr,
    /// Forwarded HTTP port.
    pub http: SocketAddr,
}

impl Machine {
    /// Why no machine can be had here, if none can.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        let found = Command::new(EMULATOR)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match found {
            Ok(status) if status.success() => None,
            _ => Some(format!("{EMULATOR} is missing: run tests/setup.sh")),
        }
    }

    /// The edge's configuration: everything by default but addresses, what fits the drive, and quick reconnects. Its cloud listens at `uplink` on
    /// the host's loopback.
    #[must_use]
    pub fn config(uplink: SocketAddr, store: &str) -> String {
        let public = "unauthenticated_public = \"I understand\"";
        format!(
            "[mqtt]\nlisten = \"0.0.0.0:{MQTT}\"\n{public}\n[http]\nlisten = \"0.0.0.0:{HTTP}\"\n{public}\n\
             [uplink]\ncloud = [\"{HOST}:{}\"]\nkeep_alive_ms = 400\nidle_timeout_ms = 2000\nconnect_timeout_ms = 2000\n\
             backoff_min_ms = 50\nbackoff_max_ms = 500\n[store]\n{store}\n",
            uplink.port()
        )
    }

    /// The power comes. Does not wait. The console goes on in `console`.
    ///
    /// # Panics
    /// When the emulator cannot be started.
    #[must_use]
    pub fn power_on(kit: &Kit, hardware: Hardware, flash: &Flash, console: &Path) -> Self {
        let ports = [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")];
        let [mqtt, http] = ports.map(|port| {
            port.and_then(|port| port.local_addr())
                .expect("a loopback port can be had")
        });
        let forward = |at: SocketAddr, to: u16| format!("hostfwd=tcp:{at}-:{to}");
        let network = format!("user,id=net,{},{}", forward(mqtt, MQTT), forward(http, HTTP));
        let base = match hardware.clock {
            Clock::Host => "utc",
            Clock::Dead => "1970-01-01T00:01:00",
        };
        let errors = File::options()
            .create(true)
            .append(true)
            .open(console.with_extension("emulator"))
            .expect("a file can be made beside the console");
        let mut command = Command::new(EMULATOR);
        command
            .args(["-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m"])
            .arg(hardware.memory.to_string())
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-rtc", &format!("base={base}")])
            .arg("-kernel")
            .arg(&kit.kernel)
            .arg("-initrd")
            .arg(&kit.ram)
            .args(["-append", "console=ttyAMA0 panic=-1 loglevel=5 rdinit=/init"])
            .arg("-chardev")
            .arg(format!("file,id=console,append=on,path={}", console.display()))
            .args(["-serial", "chardev:console"])
            .arg("-blockdev")
            .arg(format!(
                "driver=file,node-name=system,read-only=on,filename={}",
                kit.system.display()
            ))
            .args(["-device", "virtio-blk-pci,drive=system,addr=4"])
            // Flushes of the guest become flushes of the drive: `no-flush` is off, as it is by default.
            .arg("-blockdev")
            .arg(format!(
                "driver=nbd,node-name=data,cache.no-flush=off,server.type=unix,server.path={}",
                flash.socket().display()
            ))
            .args([
                "-device",
                "virtio-blk-pci,drive=data,write-cache=on,logical_block_size=4096,physical_block_size=4096,addr=5",
            ])
            .args(["-netdev", &network])
            .args(["-device", "virtio-net-pci,netdev=net,romfile=,addr=6"])
            .args(["-device", "virtio-rng-pci,addr=7"])
            .stdin(Stdio::null())
            .stdout(errors.try_clone().expect("a file handle can be copied"))
            .stderr(errors);
        Self {
            seen: fs::metadata(console).map_or(0, |at| at.len() as usize),
            child: command.spawn().expect("the emulator can be started"),
            console: console.to_owned(),
            since: Instant::now(),
            mqtt,
            http,
        }
    }

    /// Waits until the edge is ready, and returns how long that took since the power came.
    ///
    /// # Panics
    /// When it does not become ready, or the machine fails.
    pub fn await_ready(&mut self) -> Duration {
        wait::until_true("the edge of the gateway is ready", BOOT_MAX, || {
            let ended = self.child.try_wait().expect("the state of a child can be asked");
            assert!(ended.is_none(), "the emulator ended with {ended:?}: {}", self.said());
            self.assert_healthy("boot");
            // The emulator takes connections before the guest does, and closes them.
            self.said().contains("GATEWAY: starts")
                && http::get(self.http, "/readyz").is_ok_and(|answer| answer.status == 200)
        });
        self.since.elapsed()
    }

    /// What the console said since the power came.
    #[must_use]
    pub fn said(&self) -> String {
        let all = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&all[self.seen.min(all.len())..]).into_owned()
    }

    /// Demands that neither kernel nor edge has failed since the power came.
    ///
    /// # Panics
    /// When one has.
    pub fn assert_healthy(&self, context: &str) {
        for line in self.said().lines() {
            let bad = TROUBLE.iter().find(|words| line.contains(*words));
            assert!(bad.is_none(), "{context}: {line}");
        }
    }

    /// One scrape of the edge's metrics.
    ///
    /// # Panics
    /// When it does not answer with 200.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let answer = http::get(self.http, "/metrics").unwrap_or_else(|error| panic!("GET /metrics: {error}"));
        assert_eq!(answer.status, 200, "GET /metrics");
        Metrics::parse(&answer.body)
    }

    /// The power goes: kill -9 of the emulator.
    ///
    /// # Panics
    /// When that is not possible.
    pub fn power_off(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child can be waited for");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let tail = &lines[lines.len().saturating_sub(CONSOLE_TAIL)..];
            eprintln!("---- console of the gateway ----\n{}\n----", tail.join("\n"));
        }
    }
}
