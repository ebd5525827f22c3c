//! Forward rules: which lane a message goes to.
//!
//! In: the rules of the configuration, in order. Out: the track of the first rule whose filter matches the topic.
//! The first match wins, so a message is in exactly one lane. A message that no rule matches stays on this node.
//! Topics that begin with `$` match no rule whose filter begins with a wildcard, as for any MQTT filter.

use fellbeck_broker::session::Route;
use fellbeck_core::{Filter, TrackId};

/// One rule, its lane resolved to a track of the store.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Topics that it takes.
    pub filter: Filter,
    /// Where they go: the lane's run 0.
    pub track: TrackId,
}

/// The ordered list of rules.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Rules in the order in which they are tried.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }
}

impl Route for Rules {
    fn route(&self, topic: &str, _device: &str) -> Option<TrackId> {
        self.0
            .iter()
            .find(|rule| rule.filter.matches(topic))
            .map(|rule| rule.track)
    }
}

/// Name of the store's track for run 0 of a lane.
pub fn track_name(lane: &str) -> String {
    format!("lane/{lane}/0")
}

/// Lane for QoS 1 and 2 messages that only a persistent session on this node wants. Never forwarded.
pub const LOCAL_LANE: &str = "local";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_takes_the_message_and_dollar_topics_stay() {
        let rule = |filter: &str, track| Rule {
            filter: Filter::parse(filter).unwrap(),
            track: TrackId(track),
        };
        let rules = Rules::new(vec![rule("+/alarm", 1), rule("#", 2)]);
        assert_eq!(rules.route("barn/alarm", "d"), Some(TrackId(1)));
        assert_eq!(rules.route("barn/temp", "d"), Some(TrackId(2)));
        assert_eq!(rules.route("$SYS/uptime", "d"), None);
        assert_eq!(Rules::default().route("barn/temp", "d"), None);
    }
}
