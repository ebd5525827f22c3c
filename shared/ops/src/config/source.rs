//! Sources of a configuration and how they are laid over one another.
//!
//! In: file, environment, `--set` and `--data-dir`. Out: one `Figment` in which every value knows its source.
//! Tables are merged key by key, the later source winning; lists are replaced whole.
//! An environment value or a `--set` value is TOML where it parses as TOML, and plain text where it does not.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;

use super::error::{ConfigError, printable};

/// Largest configuration file that is read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where a configuration comes from, weakest first. [`crate::NodeArgs::sources`] makes one from the command line.
#[derive(Debug, Clone, Default)]
pub struct ConfigSources {
    /// TOML file; without it, defaults apply.
    pub file: Option<PathBuf>,
    /// Prefix of environment variables, e.g. `FELLBECK_EDGE__`. Empty: the environment is not read.
    pub env_prefix: String,
    /// Values that win over file and environment; among them the later wins.
    pub overrides: Vec<Override>,
}

/// One value from outside the file.
#[derive(Debug, Clone)]
pub struct Override {
    /// How errors call the source.
    origin: String,
    values: Dict,
}

impl Override {
    /// Parses `path.to.key=value`, the argument of `--set`.
    pub fn from_set(text: &str) -> Result<Self, ConfigError> {
        let syntax = |reason: &str| ConfigError::Syntax {
            origin: format!("--set {}", printable(text)),
            reason: reason.into(),
        };
        let (path, value) = text
            .split_once('=')
            .ok_or_else(|| syntax("expected path.to.key=value"))?;
        let path = path.trim();
        // The key goes through the TOML parser, so that quoted parts work: --set 'lanes."a.b".quota=1'.
        let probe: toml::Table =
            toml::from_str(&format!("{path} = 0")).map_err(|_| syntax("the part before = is not a path of keys"))?;
        let keys = only_path(probe).ok_or_else(|| syntax("the part before = is not a path of keys"))?;
        Ok(Self {
            origin: format!("--set {}", printable(path)),
            values: nest(&keys, parse_value(value)),
        })
    }

    /// A text value at `keys`, called `origin` in errors.
    #[must_use]
    pub fn text(origin: &str, keys: &[&str], value: &str) -> Self {
        let keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
        Self {
            origin: origin.into(),
            values: nest(&keys, Value::from(value)),
        }
    }

    /// The variable `name`, if it has the prefix.
    fn from_env(prefix: &str, name: &str, value: &str) -> Option<Result<Self, ConfigError>> {
        let rest = name.strip_prefix(prefix)?;
        let keys: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        if keys.iter().any(String::is_empty) {
            return Some(Err(ConfigError::Syntax {
                origin: format!("environment {}", printable(name)),
                reason: format!("expected {prefix}PATH__TO__KEY"),
            }));
        }
        Some(Ok(Self {
            origin: format!("environment {}", printable(name)),
            values: nest(&keys, parse_value(value)),
        }))
    }
}

impl Provider for Override {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// The values of `defaults`, to lay sources over. Errors call their source "default".
pub(super) fn defaults(defaults: &impl Serialize) -> Result<Figment, ConfigError> {
    let broken = |reason: String| ConfigError::Syntax {
        origin: DEFAULTS.into(),
        reason,
    };
    let value = Value::serialize(defaults).map_err(|error| broken(error.to_string()))?;
    let values = value.into_dict().ok_or_else(|| broken("expected a table".into()))?;
    let origin = DEFAULTS.into();
    Ok(Figment::from(Override { origin, values }))
}

const DEFAULTS: &str = "default";

/// Lays `sources` over one another and over `base`; `env` is the environment of the process.
pub(super) fn merge(
    base: Figment,
    sources: &ConfigSources,
    env: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Figment, ConfigError> {
    let mut figment = base;
    if let Some(path) = &sources.file {
        figment = figment.merge(read_file(path)?);
    }
    if !sources.env_prefix.is_empty() {
        let mut vars: Vec<(String, OsString)> = env
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        // A fixed order, so that the same environment always gives the same configuration.
        vars.sort();
        for (name, value) in vars.iter().filter(|(name, _)| name.starts_with(&sources.env_prefix)) {
            let value = value.to_str().ok_or_else(|| ConfigError::Syntax {
                origin: format!("environment {}", printable(name)),
                reason: "the value is not valid UTF-8".into(),
            })?;
            if let Some(variable) = Override::from_env(&sources.env_prefix, name, value) {
                figment = figment.merge(variable?);
            }
        }
    }
    for value in &sources.overrides {
        figment = figment.merge(value);
    }
    Ok(figment)
}

/// The source that sets `field`, or the nearest table above it.
pub(super) fn origin_of(figment: &Figment, field: &str) -> Option<String> {
    let mut path = field;
    loop {
        if let Some(metadata) = figment.find_metadata(path) {
            return Some(metadata.name.to_string());
        }
        path = path.rsplit_once('.')?.0;
    }
}

/// The value at `field`, also within lists (`lanes.0.name`).
pub(super) fn value_at(figment: &Figment, field: &str) -> Option<Value> {
    let mut keys = field.split('.');
    let mut value = figment.find_value(keys.next()?).ok()?;
    for key in keys {
        value = match value {
            Value::Dict(_, mut dict) => dict.remove(key)?,
            Value::Array(_, items) => items.into_iter().nth(key.parse().ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}

fn read_file(path: &Path) -> Result<Override, ConfigError> {
    let shown = printable(&path.display().to_string());
    let refuse = |reason: String| ConfigError::File {
        path: shown.clone(),
        reason,
    };
    let bytes = crate::files::read_bounded(path, FILE_BYTES_MAX).map_err(|e| refuse(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| refuse("not a text file (invalid UTF-8)".into()))?;
    let table: toml::Table = toml::from_str(&text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        let before = &text.as_bytes()[..at.min(text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        ConfigError::Syntax {
            origin: format!("config file {shown}, line {line}, column {column}"),
            reason: printable(&e.message().replace('\n', "; ")),
        }
    })?;
    Ok(Override {
        origin: format!("config file {shown}"),
        values: dict(table),
    })
}

/// The value as TOML, or as plain text when it is not TOML.
fn parse_value(text: &str) -> Value {
    let trimmed = text.trim();
    toml::from_str::<toml::Table>(&format!("v = {trimmed}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("v"))
        .map_or_else(|| Value::from(text), value)
}

fn dict(table: toml::Table) -> Dict {
    table.into_iter().map(|(key, v)| (key, value(v))).collect()
}

fn value(v: toml::Value) -> Value {
    match v {
        toml::Value::String(s) => Value::from(s),
        toml::Value::Integer(n) => Value::from(n),
        toml::Value::Float(n) => Value::from(n),
        toml::Value::Boolean(b) => Value::from(b),
        // No key of ours is a date; a text that looks like one stays a text.
        toml::Value::Datetime(d) => Value::from(d.to_string()),
        toml::Value::Array(items) => Value::from(items.into_iter().map(value).collect::<Vec<Value>>()),
        toml::Value::Table(table) => Value::from(dict(table)),
    }
}

/// The keys down to the only leaf of `table`.
fn only_path(table: toml::Table) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let mut rest = table;
    loop {
        if rest.len() != 1 {
            return None;
        }
        let (key, v) = rest.into_iter().next()?;
        keys.push(key);
        match v {
            toml::Value::Table(inner) => rest = inner,
            _ => return Some(keys),
        }
    }
}

fn nest(keys: &[String], leaf: Value) -> Dict {
    let mut keys = keys.iter().rev();
    let last = keys.next().cloned().unwrap_or_default();
    keys.fold(Dict::from([(last, leaf)]), |inner, key| {
        Dict::from([(key.clone(), Value::from(inner))])
    })
}
