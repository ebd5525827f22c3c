//! Logs of a node: one line per event on standard error, for people or as JSON.
//!
//! In: `tracing` events of all crates. Out: lines. [`init`] is called once by `main`, before anything can fail noisily.
//! A panic is logged like any other event, with thread and place, whatever thread it happens on.
//! No message and no secret is ever logged; events that could come once per message are counted instead.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::EnvFilter;

use crate::config::ConfigError;

/// Libraries whose informative events are of no use to an operator.
const QUIET: &str = "fjall=warn,lsm_tree=warn,quinn=warn,quinn_proto=warn,rustls=warn,ntex_service=warn";

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Time, level, module, text, fields.
    #[default]
    Human,
    /// One JSON object per line, for collectors.
    Json,
}

/// The table `log` of the configuration. `--log-format` and `--log-level` win over it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `human` (default) or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info` (default), `debug`, `trace`, or a list such as `info,fellbeck_link=debug`. `debug` and
    /// `trace` cost CPU on busy nodes.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            level: "info".into(),
        }
    }
}

impl LogConfig {
    fn filter(&self) -> Result<EnvFilter, ConfigError> {
        let refuse = || {
            ConfigError::invalid(
                "log.level",
                &self.level,
                "expected error, warn, info, debug, trace, or a list such as info,fellbeck_link=debug",
            )
        };
        // The parser takes an unknown word for a module name or a field and would then log nothing at all.
        for part in self.level.split(',') {
            let level = part.rsplit('=').next().unwrap_or_default().trim();
            if level.is_empty() || level.parse::<tracing::metadata::LevelFilter>().is_err() {
                return Err(refuse());
            }
        }
        // What an operator names wins over these, since later directives of the same target replace earlier ones.
        let level = format!("{QUIET},{}", self.level);
        EnvFilter::builder().parse(level).map_err(|_| refuse())
    }

    /// Checks the level without starting anything.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.filter().map(drop)
    }
}

/// Starts logging and installs the panic hook. A second call only checks the level.
pub fn init(config: &LogConfig) -> Result<(), ConfigError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(config.filter()?)
        .with_writer(std::io::stderr)
        // A closed standard error must not bring the node down.
        .log_internal_errors(false);
    let started = match config.format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("(no text)");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        // One event stays one line, however deep the stack is.
        let frames: Vec<String> = backtrace
            .to_string()
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();
        let backtrace = frames.join(" | ");
        tracing::error!(panic = text, place, thread, backtrace, "a thread panicked");
    } else {
        tracing::error!(panic = text, place, thread, "a thread panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(text: &str) -> Result<(), ConfigError> {
        LogConfig {
            level: text.into(),
            ..LogConfig::default()
        }
        .validate()
    }

    #[test]
    fn levels_and_lists_are_accepted_and_anything_else_is_named() {
        for good in [
            "info",
            "warn",
            "off",
            "info,fellbeck_link=debug",
            "error,fellbeck_store=trace",
        ] {
            level(good).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        for bad in ["loud", "", "info,fellbeck_link=loud", "info;debug"] {
            let text = level(bad).unwrap_err().to_string();
            assert!(
                text.contains("log.level") && text.contains("expected error, warn"),
                "{bad}: {text}"
            );
        }
    }
}
