//! Forward rules: which lane a message goes to.
//!
//! In: the rules of the configuration, in order. Out: the track of the first rule whose filter matches the topic.
//! The first match wins, so a message is in exactly one lane. A message that no rule matches stays on this node.
//! Topics that begin with `$` match no rule whose filter begins with a wildcard, as for any MQTT filter.

use fellbeck_broker::session::{Pressure, Route, Terms};
use fellbeck_core::{Filter, TrackId};
use fellbeck_store::{Admission, Store};

/// One rule, its lane resolved to a track of the store.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Topics that it takes.
    pub filter: Filter,
    /// Where they go: the lane's run 0.
    pub track: TrackId,
    /// What its lane asks for.
    pub terms: Terms,
}

/// The ordered list of rules. Pure.
#[derive(Debug, Clone)]
pub struct RuleList {
    rules: Vec<Rule>,
    /// What the lanes ask for, by track.
    terms: Vec<Terms>,
}

/// The rules of a node.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    list: RuleList,
    /// Knows which lanes take new messages.
    store: Store,
}

impl RuleList {
    /// Rules in the order in which they are tried.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let tracks = rules.iter().map(|rule| rule.track.0 as usize + 1).max();
        let mut terms = vec![Terms::default(); tracks.unwrap_or_default()];
        for rule in &rules {
            terms[rule.track.0 as usize] = rule.terms;
        }
        Self { rules, terms }
    }

    /// Track of the first rule that takes `topic`.
    #[must_use]
    pub fn route(&self, topic: &str) -> Option<TrackId> {
        self.rules
            .iter()
            .find(|rule| rule.filter.matches(topic))
            .map(|rule| rule.track)
    }

    /// What the lane of `track` asks for its messages.
    #[must_use]
    pub fn terms(&self, track: TrackId) -> Terms {
        self.terms.get(track.0 as usize).copied().unwrap_or_default()
    }
}

impl Rules {
    /// Rules in the order in which they are tried.
    pub(crate) fn new(rules: Vec<Rule>, store: Store) -> Self {
        let list = RuleList::new(rules);
        Self { list, store }
    }
}

impl Route for Rules {
    fn route(&self, topic: &str, _device: &str) -> Option<TrackId> {
        self.list.route(topic)
    }

    fn admission(&self, track: Option<TrackId>, pressure: Pressure) -> Admission {
        match track {
            Some(track) => self.store.admission(track),
            None if pressure > Pressure::Normal => Admission::HoldBack,
            None => Admission::Take,
        }
    }

    fn terms(&self, track: TrackId) -> Terms {
        self.list.terms(track)
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
    use fellbeck_store::StoreConfig;

    use super::*;

    #[test]
    fn the_first_rule_that_matches_takes_the_message_and_dollar_topics_stay() {
        let rule = |filter: &str, track| Rule {
            filter: Filter::parse(filter).unwrap(),
            track: TrackId(track),
            terms: Terms::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = fellbeck_store::open(dir.path(), StoreConfig::edge(vec!["lane/default/0".into()])).unwrap();
        let rules = Rules::new(vec![rule("+/alarm", 1), rule("#", 2)], store.clone());
        assert_eq!(rules.route("barn/alarm", "d"), Some(TrackId(1)));
        assert_eq!(rules.route("barn/temp", "d"), Some(TrackId(2)));
        assert_eq!(rules.route("$SYS/uptime", "d"), None);
        assert_eq!(Rules::new(Vec::new(), store).route("barn/temp", "d"), None);
    }
}
