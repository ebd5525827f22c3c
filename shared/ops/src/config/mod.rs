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
use serde::de::DeserializeOwned;

/// Reads the configuration from all `sources`.
pub fn load<T: DeserializeOwned>(sources: &ConfigSources) -> Result<T, ConfigError> {
    load_checked(sources, Ok)
}

/// Reads the configuration and turns it into checked values with `check`, whose errors are told with their source.
///
/// `check` returns errors made by [`ranged`] or [`ConfigError::invalid`].
pub fn load_checked<T, C>(
    sources: &ConfigSources,
    check: impl FnOnce(T) -> Result<C, ConfigError>,
) -> Result<C, ConfigError>
where
    T: DeserializeOwned,
{
    let figment = source::merge(sources, std::env::vars_os())?;
    extract(&figment, check)
}

fn extract<T, C>(figment: &Figment, check: impl FnOnce(T) -> Result<C, ConfigError>) -> Result<C, ConfigError>
where
    T: DeserializeOwned,
{
    let raw: T = figment.extract().map_err(|e| ConfigError::from_figment(figment, e))?;
    check(raw).map_err(|e| e.with_origin(|field| source::origin_of(figment, field)))
}
