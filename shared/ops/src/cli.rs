//! Command line arguments that both nodes share.
//!
//! In: the arguments of the process, through `clap`. Out: [`NodeArgs`], to be flattened by the parser of each binary,
//! which adds its own subcommands (`run`, `check`, `join`, `token`).
//! All arguments are global: they may stand before or after the subcommand.
//! Reads no file and no environment; [`crate::config::load`] does.

use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigError, ConfigSources, Override};
use crate::logging::{LogConfig, LogFormat};

/// Arguments of `fellbeck-edge` and `fellbeck-cloud` alike.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArgs {
    /// Configuration file (TOML). Without it, built-in defaults apply.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Directory that holds everything the node keeps. Wins over `data_dir` in the configuration.
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,

    /// Set one configuration key, e.g. --set mqtt.listen=127.0.0.1:0 (a TOML value or plain text). Repeatable.
    #[arg(long = "set", value_name = "PATH.TO.KEY=VALUE", global = true)]
    pub sets: Vec<String>,

    /// Write the real addresses of all listeners to this file (JSON) once all of them accept.
    #[arg(long, value_name = "FILE", global = true)]
    pub ready_file: Option<PathBuf>,

    /// Form of the log lines on standard error. Wins over `log.format`.
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<LogFormat>,

    /// Least severe events to log: error, warn, info, debug, trace, or a list such as
    /// info,fellbeck_link=debug. Wins over `log.level`.
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
}

impl NodeArgs {
    /// The sources of the configuration, weakest first: file, variables with `env_prefix`, `--set`, `--data-dir`.
    ///
    /// The configuration type must have a top-level key `data_dir`.
    pub fn sources(&self, env_prefix: &str) -> Result<ConfigSources, ConfigError> {
        let mut overrides = Vec::new();
        for set in &self.sets {
            overrides.push(Override::from_set(set)?);
        }
        if let Some(dir) = &self.data_dir {
            let text = dir.to_str().ok_or_else(|| ConfigError::Invalid {
                origin: "--data-dir".into(),
                field: "data_dir".into(),
                value: dir.to_string_lossy().into_owned(),
                reason: "the path is not valid UTF-8".into(),
            })?;
            overrides.push(Override::text("--data-dir", &["data_dir"], text));
        }
        Ok(ConfigSources {
            file: self.config.clone(),
            env_prefix: env_prefix.to_owned(),
            overrides,
        })
    }

    /// The log settings in force: the arguments, else those of the configuration.
    #[must_use]
    pub fn log(&self, config: &LogConfig) -> LogConfig {
        LogConfig {
            format: self.log_format.unwrap_or(config.format),
            level: self.log_level.clone().unwrap_or_else(|| config.level.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Parser, Subcommand};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        node: NodeArgs,
        #[command(subcommand)]
        command: Option<Command>,
    }

    #[derive(Subcommand)]
    enum Command {
        Run,
        Join { token: String },
    }

    #[test]
    fn arguments_may_stand_before_or_after_the_subcommand() {
        let before = Cli::try_parse_from(["x", "--data-dir", "/d", "--set", "a.b=1", "run"]).unwrap();
        let after = Cli::try_parse_from(["x", "run", "--data-dir", "/d", "--set", "a.b=1"]).unwrap();
        for cli in [before, after] {
            assert!(matches!(cli.command, Some(Command::Run)));
            assert_eq!(cli.node.data_dir, Some(PathBuf::from("/d")));
            assert_eq!(cli.node.sets, ["a.b=1"]);
        }
        let cli = Cli::try_parse_from(["x", "--log-format", "json"]).unwrap();
        assert!(cli.command.is_none(), "the subcommand is optional");
        assert_eq!(cli.node.log_format, Some(LogFormat::Json));
        let cli = Cli::try_parse_from(["x", "join", "fbj1.abc", "--data-dir", "/d"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Join { token }) if token == "fbj1.abc"));
    }

    #[test]
    fn a_log_argument_wins_over_the_configuration() {
        let args = NodeArgs {
            log_level: Some("debug".into()),
            ..NodeArgs::default()
        };
        let log = args.log(&LogConfig {
            format: LogFormat::Json,
            level: "warn".into(),
        });
        assert_eq!((log.format, log.level.as_str()), (LogFormat::Json, "debug"));
    }

    #[test]
    fn a_malformed_set_names_what_is_expected() {
        let args = NodeArgs {
            sets: vec!["mqtt.listen".into()],
            ..NodeArgs::default()
        };
        let text = args.sources("FELLBECK_EDGE__").unwrap_err().to_string();
        assert!(
            text.contains("--set mqtt.listen") && text.contains("path.to.key=value"),
            "{text}"
        );
    }
}
