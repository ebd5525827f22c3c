//! Configuration of a node: one TOML file, then environment variables, then `--set`, the later winning.
//!
//! In: [`ConfigSources`]. Out: a value of the node's own type, or a [`ConfigError`] of one line that names the source,
//! the field, the value and what is allowed.
//! The node's types use `#[serde(deny_unknown_fields, default)]`; their `validate` runs through [`load_checked`], so
//! that range errors name their source too. Values of keys that look secret are not shown.
//! Libraries read no environment: this module is the only one that does, and only under the given prefix.

mod error;
mod listen;
mod source;
#[cfg(test)]
mod tests;
mod units;

pub use error::ConfigError;
pub use listen::{HostPort, HostPorts, Listen, PUBLIC_WORDS, PublicCheck, check_public_listener};
pub use source::{ConfigSources, Override};
pub use units::{ByteSize, Millis, Secs, ranged};

use figment::Figment;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads the configuration from all `sources`.
pub fn load<T: DeserializeOwned>(sources: &ConfigSources) -> Result<T, ConfigError> {
    let figment = source::merge(Figment::new(), sources, std::env::vars_os())?;
    extract(&figment, Ok)
}

/// Reads the configuration and turns it into checked values with `check`, whose errors are told with their source.
///
/// What no source sets is taken from `T::default()`, key by key: the default of a table may differ from that of its type.
/// `check` returns errors made by [`ranged`] or [`ConfigError::invalid`].
pub fn load_checked<T, C>(
    sources: &ConfigSources,
    check: impl FnOnce(T) -> Result<C, ConfigError>,
) -> Result<C, ConfigError>
where
    T: DeserializeOwned + Default + Serialize,
{
    let figment = source::merge(source::defaults(&T::default())?, sources, std::env::vars_os())?;
    extract(&figment, check)
}

fn extract<T, C>(figment: &Figment, check: impl FnOnce(T) -> Result<C, ConfigError>) -> Result<C, ConfigError>
where
    T: DeserializeOwned,
{
    let raw: T = figment.extract().map_err(|e| ConfigError::from_figment(figment, e))?;
    check(raw).map_err(|e| e.with_origin(|field| source::origin_of(figment, field)))
}
