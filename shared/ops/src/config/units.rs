//! Units of configuration values: sizes in bytes, times in milliseconds and seconds, and the range check.
//!
//! In: TOML numbers and texts such as `"64 MiB"`. Out: checked newtypes.
//! Field names carry the unit of a time last (`flush_interval_ms`, `keep_alive_secs`); a size carries its own.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// A number of bytes, written as `"64 MiB"`, `"2MB"` or a plain whole number.
///
/// `KiB`, `MiB`, `GiB`, `TiB` count by 1024; `kB`, `MB`, `GB`, `TB` by 1000. Case does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` times 1024 bytes.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n * 1024)
    }

    /// `n` times 1024 * 1024 bytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n * 1024 * 1024)
    }

    /// `n` times 1024 * 1024 * 1024 bytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n * 1024 * 1024 * 1024)
    }

    /// The number as `usize`; where that is too small for it, the largest `usize`.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Units with their factors; the first that divides a size is used to show it.
const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
];

impl Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
        {
            Some((unit, factor)) => write!(f, "{} {unit}", self.0 / factor),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a size such as \"64 MiB\", \"2 MB\" or a whole number of bytes";
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '_')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.replace('_', "").parse().map_err(|_| EXPECTED)?;
        let unit = unit.trim();
        let factor = if unit.is_empty() || unit.eq_ignore_ascii_case("b") || unit.eq_ignore_ascii_case("bytes") {
            1
        } else {
            UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .ok_or(EXPECTED)?
                .1
        };
        number
            .checked_mul(factor)
            .map(Self)
            .ok_or("the size does not fit into 64 bits")
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64 MiB\", \"2 MB\" or a whole number of bytes")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(n))
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<ByteSize, E> {
                u64::try_from(n)
                    .map(ByteSize)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Size)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

macro_rules! time {
    ($(#[$doc:meta])* $name:ident, $from:ident, $unit:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The same time as a [`Duration`].
            #[must_use]
            pub const fn duration(self) -> Duration {
                Duration::$from(self.0)
            }
        }

        impl From<$name> for Duration {
            fn from(time: $name) -> Self {
                time.duration()
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", self.0, $unit)
            }
        }
    };
}

time!(
    /// A whole number of milliseconds; its field ends in `_ms`.
    Millis,
    from_millis,
    "ms"
);
time!(
    /// A whole number of seconds; its field ends in `_secs`.
    Secs,
    from_secs,
    "s"
);

/// `value`, if it lies in `range`; else the error that names `field`, the value and the range.
pub fn ranged<T: PartialOrd + Display>(field: &str, value: T, range: RangeInclusive<T>) -> Result<T, ConfigError> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::out_of_range(
        field,
        value,
        format!("{} to {}", range.start(), range.end()),
    ))
}
