//! [`EdgeName`]: the name of an edge node, checked once.
//!
//! In: text from arguments, tokens, certificates, frames. Out: a name that is safe as a file name and in a URI:
//! 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// Name of an edge node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EdgeName(String);

/// The text is no name of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an edge name has 1 to 64 characters of a-z, 0-9, dot, underscore and hyphen, and begins with a letter or digit"
)]
pub struct EdgeNameError;

impl EdgeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EdgeName {
    type Err = EdgeNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let valid = bytes.len() <= NAME_BYTES_MAX
            && bytes.first().is_some_and(|b| plain(*b))
            && bytes.iter().all(|b| plain(*b) || matches!(b, b'.' | b'_' | b'-'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(EdgeNameError)
        }
    }
}

impl TryFrom<String> for EdgeName {
    type Error = EdgeNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EdgeName> for String {
    fn from(name: EdgeName) -> Self {
        name.0
    }
}

impl fmt::Display for EdgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_file_names() {
        let longest = "x".repeat(64);
        for good in ["a", "7", "plant-3.line_2", longest.as_str()] {
            assert_eq!(good.parse::<EdgeName>().unwrap().as_str(), good);
        }
        let too_long = "x".repeat(65);
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "A",
            "a/b",
            "a b",
            "ä",
            "a\0",
            "a%2e",
            too_long.as_str(),
        ] {
            assert_eq!(bad.parse::<EdgeName>(), Err(EdgeNameError), "{bad:?}");
        }
    }
}
