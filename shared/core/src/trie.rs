//! Subscription trie: which values are subscribed to a topic, by walking its levels.
//!
//! In: filters with a value each. Out: the values whose filter matches a topic name, without allocating.
//! The caller owns it; one value may stand under many filters and is then visited once per filter that matches.
//! Invariant: a node other than the root holds a value or has a child, so memory follows what is subscribed now.
//! The rule itself is [`Filter::matches`]; a property test holds the two together.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Filter;
use crate::topic::is_reserved;

/// Index into `nodes`. The root is nobody's child, so its index also says "none".
type NodeIndex = u32;
const ROOT: NodeIndex = 0;
const NONE: NodeIndex = 0;

/// Filters with values; equal values under one filter replace one another.
///
/// What makes values equal is the owner's choice: a subscriber's entry may compare by its key alone.
#[derive(Debug, Clone)]
pub struct Trie<V> {
    nodes: Vec<Node<V>>,
    /// Slots of `nodes` that may be used again.
    free: Vec<NodeIndex>,
    /// Every node whose level is literal, found by parent and level.
    literals: HashTable<NodeIndex>,
    /// Random, so that nobody can choose levels that collide.
    seed: u64,
    len: usize,
    /// Rises whenever a filter gets its first value or loses its last one.
    changes: u64,
}

#[derive(Debug, Clone)]
struct Node<V> {
    parent: NodeIndex,
    level: Box<str>,
    /// Child for the level `+`.
    plus: NodeIndex,
    /// Number of children in `literals`.
    literal_children: u32,
    /// Values of the filter that ends here.
    here: Vec<V>,
    /// Values of the filter that ends here with a further `#`.
    below: Vec<V>,
}

impl<V> Node<V> {
    fn new(parent: NodeIndex, level: &str) -> Self {
        Self {
            parent,
            level: level.into(),
            plus: NONE,
            literal_children: 0,
            here: Vec::new(),
            below: Vec::new(),
        }
    }

    fn is_unused(&self) -> bool {
        self.here.is_empty() && self.below.is_empty() && self.plus == NONE && self.literal_children == 0
    }
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Trie<V> {
    /// An empty trie.
    #[must_use]
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::new(ROOT, "")],
            free: Vec::new(),
            literals: HashTable::new(),
            seed: RandomState::new().hash_one(0u8),
            len: 0,
            changes: 0,
        }
    }

    /// A number that is another one whenever the set of filters is another one.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The filters that have a value, each once, in no order that is promised. Costs a look at every node.
    pub fn filters(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.nodes.len()).flat_map(move |index| {
            let node = &self.nodes[index];
            let here = (!node.here.is_empty()).then(|| self.text_of(index as NodeIndex, None));
            let below = (!node.below.is_empty()).then(|| self.text_of(index as NodeIndex, Some("#")));
            here.into_iter().chain(below)
        })
    }

    fn text_of(&self, mut node: NodeIndex, last: Option<&str>) -> String {
        let mut levels: Vec<&str> = last.into_iter().collect();
        while node != ROOT {
            levels.push(&self.nodes[node as usize].level);
            node = self.nodes[node as usize].parent;
        }
        levels.reverse();
        levels.join("/")
    }

    /// Number of values over all filters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is subscribed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when there is a filter whose first level is `level`, as text: a wildcard there does not count.
    #[must_use]
    pub fn has_first_level(&self, level: &str) -> bool {
        self.find_literal(ROOT, level) != NONE
    }

    /// Calls `visit` for each value whose filter matches the topic name `topic`. The order is not promised.
    pub fn matches<'a>(&'a self, topic: &str, mut visit: impl FnMut(&'a V)) {
        if !is_reserved(topic) {
            return self.walk(ROOT, Some(topic), &mut visit);
        }
        // A wildcard at the front of a filter does not reach such a topic. [MQTT5-4.7.2-1]
        let (level, rest) = split_level(topic);
        match self.find_literal(ROOT, level) {
            NONE => {}
            child => self.walk(child, rest, &mut visit),
        }
    }

    /// Visits what matches `rest` below `node`. Recurses only where `+` and a literal both go on; the depth is that of the
    /// deepest filter, which [`TOPIC_LEVELS_MAX`](crate::limits::TOPIC_LEVELS_MAX) bounds.
    fn walk<'a>(&'a self, mut node: NodeIndex, mut rest: Option<&str>, visit: &mut impl FnMut(&'a V)) {
        loop {
            let current = &self.nodes[node as usize];
            current.below.iter().for_each(&mut *visit);
            let Some(topic) = rest else {
                current.here.iter().for_each(&mut *visit);
                return;
            };
            let (level, tail) = split_level(topic);
            let literal = if current.literal_children == 0 {
                NONE
            } else {
                self.find_literal(node, level)
            };
            node = match (literal, current.plus) {
                (NONE, NONE) => return,
                (only, NONE) | (NONE, only) => only,
                (literal, plus) => {
                    self.walk(literal, tail, visit);
                    plus
                }
            };
            rest = tail;
        }
    }

    fn find_literal(&self, parent: NodeIndex, level: &str) -> NodeIndex {
        let same = |&index: &NodeIndex| {
            let node = &self.nodes[index as usize];
            node.parent == parent && *node.level == *level
        };
        let hash = hash_level(self.seed, parent, level);
        self.literals.find(hash, same).copied().unwrap_or(NONE)
    }

    fn find_child(&self, parent: NodeIndex, level: &str) -> NodeIndex {
        match level {
            "+" => self.nodes[parent as usize].plus,
            _ => self.find_literal(parent, level),
        }
    }

    fn add_child(&mut self, parent: NodeIndex, level: &str) -> NodeIndex {
        let node = Node::new(parent, level);
        let index = match self.free.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                NodeIndex::try_from(self.nodes.len() - 1).expect("fewer than 2^32 nodes fit in memory")
            }
        };
        if level == "+" {
            self.nodes[parent as usize].plus = index;
            return index;
        }
        self.nodes[parent as usize].literal_children += 1;
        let (nodes, seed) = (&self.nodes, self.seed);
        let rehash = |&index: &NodeIndex| {
            let node = &nodes[index as usize];
            hash_level(seed, node.parent, &node.level)
        };
        self.literals
            .insert_unique(hash_level(seed, parent, level), index, rehash);
        index
    }

    /// Removes nodes that hold nothing any more, from `node` upwards.
    fn prune(&mut self, mut node: NodeIndex) {
        while node != ROOT && self.nodes[node as usize].is_unused() {
            let parent = self.nodes[node as usize].parent;
            if self.nodes[parent as usize].plus == node {
                self.nodes[parent as usize].plus = NONE;
            } else {
                let hash = hash_level(self.seed, parent, &self.nodes[node as usize].level);
                let found = self.literals.find_entry(hash, |&index| index == node);
                found.expect("a literal child stands in the table").remove();
                self.nodes[parent as usize].literal_children -= 1;
            }
            self.nodes[node as usize] = Node::new(ROOT, "");
            self.free.push(node);
            node = parent;
        }
        if self.len == 0 {
            // Everything was unsubscribed: give the memory of the peak back.
            *self = Self {
                changes: self.changes,
                ..Self::new()
            };
        }
    }
}

impl<V: PartialEq> Trie<V> {
    /// Adds `value` under `filter`. Returns the equal value that it replaces.
    pub fn insert(&mut self, filter: &Filter, value: V) -> Option<V> {
        let mut node = ROOT;
        let mut multi = false;
        for level in filter.levels() {
            if level == "#" {
                multi = true;
                break;
            }
            node = match self.find_child(node, level) {
                NONE => self.add_child(node, level),
                child => child,
            };
        }
        let values = self.values_mut(node, multi);
        if let Some(present) = values.iter_mut().find(|present| **present == value) {
            return Some(std::mem::replace(present, value));
        }
        let is_first = values.is_empty();
        values.push(value);
        self.len += 1;
        self.changes += u64::from(is_first);
        None
    }

    /// Removes the value equal to `value` under `filter` and returns it.
    pub fn remove(&mut self, filter: &Filter, value: &V) -> Option<V> {
        self.remove_where(filter, |present| present == value)
    }

    /// Removes the first value under `filter` that `is_it` accepts and returns it.
    pub fn remove_where(&mut self, filter: &Filter, is_it: impl FnMut(&V) -> bool) -> Option<V> {
        let (node, multi) = self.find(filter)?;
        let values = self.values_mut(node, multi);
        let index = values.iter().position(is_it)?;
        let removed = values.swap_remove(index);
        let was_last = values.is_empty();
        if was_last {
            *values = Vec::new();
        }
        self.changes += u64::from(was_last);
        self.len -= 1;
        self.prune(node);
        Some(removed)
    }

    /// The values under exactly this filter.
    #[must_use]
    pub fn get(&self, filter: &Filter) -> &[V] {
        match self.find(filter) {
            Some((node, true)) => &self.nodes[node as usize].below,
            Some((node, false)) => &self.nodes[node as usize].here,
            None => &[],
        }
    }

    /// The node at which `filter` ends, and whether with `#`.
    fn find(&self, filter: &Filter) -> Option<(NodeIndex, bool)> {
        let mut node = ROOT;
        for level in filter.levels() {
            if level == "#" {
                return Some((node, true));
            }
            node = match self.find_child(node, level) {
                NONE => return None,
                child => child,
            };
        }
        Some((node, false))
    }

    fn values_mut(&mut self, node: NodeIndex, multi: bool) -> &mut Vec<V> {
        let node = &mut self.nodes[node as usize];
        if multi { &mut node.below } else { &mut node.here }
    }
}

fn split_level(topic: &str) -> (&str, Option<&str>) {
    match topic.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    }
}

fn hash_level(seed: u64, parent: NodeIndex, level: &str) -> u64 {
    // An odd factor spreads neighbouring parents over all bits of the seed.
    let seed = seed ^ u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    xxh3_64_with_seed(level.as_bytes(), seed)
}

#[cfg(test)]
mod tests;
