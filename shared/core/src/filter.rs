//! Topic filters: what a subscription matches with (MQTT 3.1.1 and 5.0, section 4.7; shared ones: 5.0, section 4.8.2).
//!
//! In: the text of a SUBSCRIBE. Out: a checked [`Filter`], with the share name apart, or the rule that it breaks.
//! A filter in hand is valid. [`Trie`](crate::Trie) matches many at once; [`Filter::matches`] is the plain rule.

use std::fmt;
use std::sync::Arc;

use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};
use crate::topic::{is_reserved, level_count};

/// What a shared subscription begins with. `$share` without the slash is an ordinary first level.
const SHARE_PREFIX: &str = "$share/";

/// A topic filter that the standard or a bound of ours forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// At least one character is required. [MQTT5-4.7.3-1]
    #[error("topic filter is empty")]
    Empty,
    /// Longer than an MQTT string. [MQTT5-4.7.3-3]
    #[error("topic filter of {size} bytes exceeds {TOPIC_BYTES_MAX}")]
    TooLong {
        /// Size in bytes.
        size: usize,
    },
    /// More levels than we keep.
    #[error("topic filter of {levels} levels exceeds {TOPIC_LEVELS_MAX}")]
    TooManyLevels {
        /// Levels found.
        levels: usize,
    },
    /// The null character is forbidden. [MQTT5-4.7.3-2]
    #[error("topic filter contains a null character")]
    Nul,
    /// `#` must fill its level and be the last, `+` must fill its level. [MQTT5-4.7.1-1] [MQTT5-4.7.1-2]
    #[error("wildcard does not stand alone in its level, or `#` is not last")]
    Wildcard,
    /// The share name is empty or holds a wildcard, or no filter follows it. [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
    #[error("malformed shared subscription")]
    Share,
}

/// A valid topic filter. Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter {
    text: Arc<str>,
    /// Length of [`Filter::literal_prefix`]; the whole text exactly when there is no wildcard.
    literal: usize,
}

impl Filter {
    /// Checks `text` as a plain filter: `$share/` at its front is an ordinary level.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if text.len() > TOPIC_BYTES_MAX {
            return Err(FilterError::TooLong { size: text.len() });
        }
        let levels = level_count(text);
        if levels > TOPIC_LEVELS_MAX {
            return Err(FilterError::TooManyLevels { levels });
        }
        let literal = check_levels(text, levels)?;
        Ok(Self {
            text: text.into(),
            literal,
        })
    }

    /// Checks `text` as it stands in a SUBSCRIBE, and takes a share name off its front.
    ///
    /// For MQTT 3.1.1 too: shared subscriptions are offered there as an extension, as most brokers do.
    pub fn parse_subscription(text: &str) -> Result<Subscription, FilterError> {
        let Some(shared) = text.strip_prefix(SHARE_PREFIX) else {
            return Ok(Subscription {
                share: None,
                filter: Self::parse(text)?,
            });
        };
        if text.len() > TOPIC_BYTES_MAX {
            return Err(FilterError::TooLong { size: text.len() });
        }
        let (name, filter) = shared.split_once('/').ok_or(FilterError::Share)?;
        if name.is_empty() || filter.is_empty() || name.contains(['+', '#']) {
            return Err(FilterError::Share);
        }
        if name.contains('\0') {
            return Err(FilterError::Nul);
        }
        Ok(Subscription {
            share: Some(ShareName(name.into())),
            filter: Self::parse(filter)?,
        })
    }

    /// The filter as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The levels in order, wildcards among them.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.text.split('/')
    }

    /// True when there is a `+` or a `#`.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.literal < self.text.len()
    }

    /// True when the first level is a wildcard: such a filter does not reach topics that begin with `$`. [MQTT5-4.7.2-1]
    #[must_use]
    pub fn begins_with_wildcard(&self) -> bool {
        matches!(self.text.as_bytes().first(), Some(b'+' | b'#'))
    }

    /// Text with which every matching topic begins, for range scans: `a/` for `a/+`, but `a` for `a/#`, which matches `a` too.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        &self.text[..self.literal]
    }

    /// Whether the topic name `topic` matches.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if !self.has_wildcard() {
            return *self.text == *topic;
        }
        // [MQTT5-4.7.2-1]
        if is_reserved(topic) && self.begins_with_wildcard() {
            return false;
        }
        let mut names = topic.split('/');
        for level in self.levels() {
            match level {
                // `#` stands for its parent too, hence no name is needed (section 4.7.1.2).
                "#" => return true,
                "+" if names.next().is_none() => return false,
                "+" => {}
                literal if names.next() != Some(literal) => return false,
                _ => {}
            }
        }
        names.next().is_none()
    }

    /// The filter that matches exactly what both match; `None`: no topic does, or its text would be too long.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let reserved = |one: &Self| is_reserved(&one.text);
        // [MQTT5-4.7.2-1]
        if (reserved(self) && other.begins_with_wildcard()) || (reserved(other) && self.begins_with_wildcard()) {
            return None;
        }
        let (mut ours, mut theirs) = (self.levels(), other.levels());
        let mut common = Vec::new();
        loop {
            match (ours.next(), theirs.next()) {
                // `#` stands for its parent too.
                (None | Some("#"), None) | (None, Some("#")) => break,
                (None, Some(_)) | (Some(_), None) => return None,
                (Some("#"), Some(level)) => {
                    common.push(level);
                    common.extend(theirs);
                    break;
                }
                (Some(level), Some("#")) => {
                    common.push(level);
                    common.extend(ours);
                    break;
                }
                (Some("+"), Some(level)) | (Some(level), Some("+")) => common.push(level),
                (Some(level), Some(other)) if level == other => common.push(level),
                _ => return None,
            }
        }
        Self::parse(&common.join("/")).ok()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A filter as subscribed to, its share name apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subscription {
    /// Set for a shared subscription.
    pub share: Option<ShareName>,
    /// What it matches with.
    pub filter: Filter,
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.share {
            Some(share) => write!(f, "{SHARE_PREFIX}{share}/{}", self.filter),
            None => self.filter.fmt(f),
        }
    }
}

/// Name of a group of shared subscribers: not empty, without `/`, `+`, `#`. Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareName(Arc<str>);

impl ShareName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks each level and returns the length of the literal prefix.
fn check_levels(text: &str, levels: usize) -> Result<usize, FilterError> {
    let mut literal = None;
    let mut start = 0;
    for (index, level) in text.split('/').enumerate() {
        match level {
            // `a/#` matches `a` too, so the slash is not part of the prefix; the empty parent of `/#` is no topic name.
            "#" if index + 1 == levels => literal = literal.or(Some(if start < 2 { start } else { start - 1 })),
            "+" => literal = literal.or(Some(start)),
            _ if level.contains(['+', '#']) => return Err(FilterError::Wildcard),
            _ if level.contains('\0') => return Err(FilterError::Nul),
            _ => {}
        }
        start += level.len() + 1;
    }
    Ok(literal.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests;
