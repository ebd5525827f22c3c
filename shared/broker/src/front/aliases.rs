//! Topic aliases of what a connection is sent (section 3.3.2.3.4).
//!
//! In: topics of deliveries, in the order in which they are written. Out: whether the topic goes by an alias. First come, first
//! served: an alias stays with its topic until the connection ends. Bounded by what the client allows, and by our own bounds in
//! number and bytes. An alias is taken only when the PUBLISH that introduces it is really written.

use std::rc::Rc;

use ntex::util::HashMap;

/// How a topic is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// By its name.
    Named,
    /// By its name, with an alias that stands for it from now on.
    Introduced(u16),
    /// By the alias alone.
    Alias(u16),
}

/// Aliases of one connection, at most.
const ALIASES_MAX: u16 = 64;
/// Bytes of topics that one connection keeps, at most.
const BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct TopicAliases {
    max: u16,
    known: HashMap<Rc<str>, u16>,
    bytes: usize,
}

impl TopicAliases {
    /// `max` is the Topic Alias Maximum of the client. [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11]
    pub(super) fn new(max: u16) -> Self {
        Self {
            max: max.min(ALIASES_MAX),
            known: HashMap::default(),
            bytes: 0,
        }
    }

    /// How to write `topic`. Changes nothing.
    pub(super) fn form(&self, topic: &str) -> Form {
        if self.max == 0 {
            return Form::Named;
        }
        match self.known.get(topic) {
            Some(&alias) => Form::Alias(alias),
            None if self.known.len() < usize::from(self.max) && self.bytes + topic.len() <= BYTES_MAX => {
                Form::Introduced(self.known.len() as u16 + 1)
            }
            None => Form::Named,
        }
    }

    /// `topic` was written in this form.
    pub(super) fn wrote(&mut self, topic: &str, form: Form) {
        if let Form::Introduced(alias) = form {
            self.bytes += topic.len();
            self.known.insert(topic.into(), alias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_given_in_order_up_to_the_clients_maximum() {
        let mut aliases = TopicAliases::new(2);
        for (topic, form) in [
            ("a", Form::Introduced(1)),
            ("a", Form::Alias(1)),
            ("b", Form::Introduced(2)),
            ("c", Form::Named),
            ("b", Form::Alias(2)),
        ] {
            assert_eq!(aliases.form(topic), form, "{topic}");
            aliases.wrote(topic, form);
        }
    }

    #[test]
    fn an_alias_that_was_not_written_is_not_taken() {
        let mut aliases = TopicAliases::new(5);
        assert_eq!(aliases.form("a"), Form::Introduced(1));
        aliases.wrote("a", Form::Named);
        assert_eq!(aliases.form("b"), Form::Introduced(1));
        assert_eq!(TopicAliases::new(0).form("a"), Form::Named);
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let mut aliases = TopicAliases::new(u16::MAX);
        let long = "x".repeat(BYTES_MAX - 10);
        aliases.wrote(&long, aliases.form(&long));
        assert_eq!(aliases.form("too long now"), Form::Named);
        assert_eq!(aliases.form("short"), Form::Introduced(2));
        let mut aliases = TopicAliases::new(u16::MAX);
        for n in 0..100 {
            let topic = n.to_string();
            aliases.wrote(&topic, aliases.form(&topic));
        }
        assert_eq!(aliases.form("99"), Form::Named);
        assert_eq!(aliases.form("63"), Form::Alias(64));
    }
}
