//! Topic names: what a message is published to, without wildcards (MQTT 3.1.1 and 5.0, section 4.7).
//!
//! In: text, already valid UTF-8. Out: yes, or the rule that it breaks.
//! Topic *filters* are in [`filter`](crate::filter). Who may publish where is not decided here.

use crate::limits::TOPIC_BYTES_MAX;

/// A topic name that the standard forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// At least one character is required. [MQTT5-4.7.3-1]
    #[error("topic name is empty")]
    Empty,
    /// Longer than an MQTT string. [MQTT5-4.7.3-3]
    #[error("topic name of {size} bytes exceeds {TOPIC_BYTES_MAX}")]
    TooLong {
        /// Size in bytes.
        size: usize,
    },
    /// The null character is forbidden. [MQTT5-4.7.3-2]
    #[error("topic name contains a null character")]
    Nul,
    /// Wildcards belong to filters. [MQTT5-4.7.0-1]
    #[error("topic name contains a wildcard")]
    Wildcard,
}

/// Checks that `topic` is a topic name. Says nothing of its number of levels: see [`level_count`].
pub fn validate_topic_name(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { size: topic.len() });
    }
    for byte in topic.bytes() {
        match byte {
            0 => return Err(TopicError::Nul),
            b'+' | b'#' => return Err(TopicError::Wildcard),
            _ => {}
        }
    }
    Ok(())
}

/// Number of levels of a topic name or filter: one more than its slashes. Empty levels count (section 4.7.1.1).
#[must_use]
pub fn level_count(topic: &str) -> usize {
    topic.bytes().filter(|&byte| byte == b'/').count() + 1
}

/// True for topics that the node itself or the standard reserves: wildcards at the front do not reach them.
#[must_use]
pub fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT5-4.7.3-1] [MQTT5-4.7.3-2] [MQTT5-4.7.3-3] [MQTT5-4.7.0-1] [MQTT3-4.7.1-1], and what the text around them allows.
    #[test]
    fn topic_names_follow_the_standard() {
        for good in [
            "a",
            "/",
            "//",
            "/a",
            "a/",
            "a b/ü",
            "$SYS/x",
            "$",
            "ACCOUNTS",
            "a/\u{feff}/b",
        ] {
            assert_eq!(validate_topic_name(good), Ok(()), "{good}");
        }
        assert_eq!(validate_topic_name(""), Err(TopicError::Empty));
        assert_eq!(validate_topic_name("a\0b"), Err(TopicError::Nul));
        for wild in ["+", "#", "a/+/b", "a/#", "a+", "#a"] {
            assert_eq!(validate_topic_name(wild), Err(TopicError::Wildcard), "{wild}");
        }
        assert_eq!(validate_topic_name(&"a".repeat(TOPIC_BYTES_MAX)), Ok(()));
        assert_eq!(
            validate_topic_name(&"a".repeat(TOPIC_BYTES_MAX + 1)),
            Err(TopicError::TooLong {
                size: TOPIC_BYTES_MAX + 1
            })
        );
    }

    #[test]
    fn empty_levels_count() {
        assert_eq!([level_count("a"), level_count("/"), level_count("a//b/")], [1, 2, 4]);
    }
}
