//! [`ConfigError`]: why a configuration was refused, in one line.
//!
//! In: errors of `figment`, `toml` and of the nodes' own checks. Out: a text that names source, field, value and what
//! is allowed. Whatever comes from outside is shown escaped and cut, so that one error stays one line.
//! After any of these nothing has been started or changed; the process ends with [`crate::ExitCode::Usage`].

use figment::Figment;
use figment::error::Kind;

use super::source::{origin_of, value_at};

/// Longest part of a value that an error repeats.
const SHOWN_CHARS_MAX: usize = 120;

/// Why a configuration was refused. Nothing has been started or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("config file {path}: {reason}")]
    File {
        /// Path as given.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A source is not TOML, or an override has not the form `path.to.key=value`.
    #[error("{origin}: {reason}")]
    Syntax {
        /// Source: file with line and column, variable or argument.
        origin: String,
        /// What was expected.
        reason: String,
    },
    /// A key that nobody knows, often a typing mistake.
    #[error("{origin}: unknown key `{field}`; known here: {known}")]
    UnknownKey {
        /// Source of the key.
        origin: String,
        /// Full path of the key.
        field: String,
        /// Keys that exist at this place.
        known: String,
    },
    /// A value of another type than the key has.
    #[error("{origin}: `{field}` = {value}: expected {expected}")]
    WrongType {
        /// Source of the value.
        origin: String,
        /// Full path of the key.
        field: String,
        /// The value as it was understood.
        value: String,
        /// The type that the key has.
        expected: String,
    },
    /// A value outside its range.
    #[error("{origin}: `{field}` = {value} is out of range; allowed: {allowed}")]
    OutOfRange {
        /// Source of the value; "default" when no source sets it.
        origin: String,
        /// Full path of the key.
        field: String,
        /// The value.
        value: String,
        /// The range.
        allowed: String,
    },
    /// A key without default that no source sets.
    #[error("config: `{field}` is missing; set it in the config file or with --set {field}=VALUE")]
    Missing {
        /// Full path of the key.
        field: String,
    },
    /// A value that is well-formed and still cannot be used.
    #[error("{origin}: `{field}` = {value}: {reason}")]
    Invalid {
        /// Source of the value.
        origin: String,
        /// Full path of the key.
        field: String,
        /// The value.
        value: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A listener that would serve anyone on a public address, without having been told to.
    #[error(
        "{origin}: `{field}` = \"{address}\" is reachable from other machines and asks for no authentication; bind it \
         to 127.0.0.1, switch authentication on, or set `{words_field}` = \"{words}\""
    )]
    PublicListener {
        /// Source of the address.
        origin: String,
        /// Key of the listener.
        field: String,
        /// Address as resolved.
        address: String,
        /// Key that allows it in words.
        words_field: String,
        /// The words.
        words: String,
    },
}

/// Origin of an error before the loader has filled it in; also what is shown for a value no source sets.
const DEFAULT_ORIGIN: &str = "config";

impl ConfigError {
    /// A well-formed value that cannot be used, for checks of a node. [`super::load_checked`] adds the source.
    #[must_use]
    pub fn invalid(field: &str, value: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self::Invalid {
            origin: DEFAULT_ORIGIN.into(),
            field: field.into(),
            value: shown(field, &value.to_string()),
            reason: reason.into(),
        }
    }

    /// A value out of its range, for checks of a node. [`super::load_checked`] adds the source.
    #[must_use]
    pub fn out_of_range(field: &str, value: impl std::fmt::Display, allowed: impl Into<String>) -> Self {
        Self::OutOfRange {
            origin: DEFAULT_ORIGIN.into(),
            field: field.into(),
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }

    pub(super) fn public_listener(field: &str, address: String, words_field: &str, words: &str) -> Self {
        Self::PublicListener {
            origin: DEFAULT_ORIGIN.into(),
            field: field.into(),
            address,
            words_field: words_field.into(),
            words: words.into(),
        }
    }

    /// Fills in the origin of an error that a check made.
    pub(super) fn with_origin(mut self, lookup: impl FnOnce(&str) -> Option<String>) -> Self {
        if let Self::OutOfRange { origin, field, .. }
        | Self::Invalid { origin, field, .. }
        | Self::PublicListener { origin, field, .. } = &mut self
            && origin == DEFAULT_ORIGIN
            && let Some(found) = lookup(field)
        {
            *origin = found;
        }
        self
    }

    pub(super) fn from_figment(figment: &Figment, error: figment::Error) -> Self {
        let mut path = error.path.clone();
        if let Kind::UnknownField(name, _) = &error.kind
            && path.last() != Some(name)
        {
            path.push(name.clone());
        }
        let field = path.join(".");
        let origin = origin_of(figment, &field)
            .or_else(|| error.metadata.as_ref().map(|m| m.name.to_string()))
            .unwrap_or_else(|| DEFAULT_ORIGIN.into());
        let value = value_at(figment, &field)
            .and_then(|v| serde_json::to_string(&v).ok())
            .map_or_else(|| "?".to_owned(), |text| shown(&field, &text));
        match error.kind {
            Kind::UnknownField(_, known) => Self::UnknownKey {
                origin,
                field: printable(&field),
                known: list(known),
            },
            Kind::UnknownVariant(_, known) => Self::WrongType {
                origin,
                field,
                value,
                expected: format!("one of {}", list(known)),
            },
            Kind::MissingField(name) => Self::Missing {
                field: path
                    .into_iter()
                    .chain([name.into_owned()])
                    .collect::<Vec<_>>()
                    .join("."),
            },
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => Self::WrongType {
                origin,
                field,
                value,
                expected: readable(&expected),
            },
            Kind::InvalidLength(_, expected) => Self::WrongType {
                origin,
                field,
                value,
                expected,
            },
            Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => Self::WrongType {
                origin,
                field,
                value,
                expected: "a smaller number".into(),
            },
            Kind::Message(reason) => Self::Invalid {
                origin,
                field,
                value,
                reason,
            },
            other => Self::Invalid {
                origin,
                field,
                value,
                reason: other.to_string(),
            },
        }
    }
}

/// Words for the names that serde gives to types.
fn readable(expected: &str) -> String {
    let number = |max: u64| format!("a whole number from 0 to {max}");
    match expected {
        "u8" => number(u8::MAX.into()),
        "u16" => number(u16::MAX.into()),
        "u32" => number(u32::MAX.into()),
        "u64" | "usize" => "a whole number, not negative".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list, e.g. [\"a\", \"b\"]".into(),
        other if other.starts_with("struct ") => "a table of keys".into(),
        other => other.to_owned(),
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "nothing".into()
    } else {
        names.join(", ")
    }
}

/// `text` on one line and not longer than [`SHOWN_CHARS_MAX`]; hidden where the name of the field says so.
pub(super) fn shown(field: &str, text: &str) -> String {
    let last = field.rsplit('.').next().unwrap_or(field);
    if ["password", "secret", "token", "private"]
        .iter()
        .any(|word| last.contains(word))
    {
        return "(not shown)".into();
    }
    printable(text)
}

/// `text` without line breaks and other control characters, cut to [`SHOWN_CHARS_MAX`].
pub(super) fn printable(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}
