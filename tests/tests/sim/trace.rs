//! What happened in a world, for a person to read, and a hash of it, by which two runs of a seed are compared.
//!
//! An event is a text with up to three numbers in it, written only when somebody wants to see it. The newest are kept.

use std::fmt::Write as _;

/// Events that are kept.
const KEPT: usize = 160;

#[derive(Debug, Clone, Copy)]
struct Event {
    at_ms: u64,
    text: &'static str,
    numbers: [u64; 3],
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Trace {
    kept: usize,
    events: Vec<Event>,
    count: usize,
    hash: u64,
    pub(crate) now_ms: u64,
}

impl Trace {
    /// A trace that keeps the newest events, or all.
    pub(crate) fn new(keeps_all: bool) -> Self {
        Self {
            kept: if keeps_all { usize::MAX } else { KEPT },
            events: Vec::new(),
            count: 0,
            hash: 0,
            now_ms: 0,
        }
    }

    /// Notes an event. `{a}`, `{b}` and `{c}` in the text stand for the numbers.
    pub(crate) fn note(&mut self, text: &'static str, numbers: [u64; 3]) {
        let at_ms = self.now_ms;
        for number in [at_ms, text.len() as u64, u64::from(text.as_bytes()[0])]
            .iter()
            .chain(&numbers)
        {
            self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517C_C1B7_2722_0A95);
        }
        let event = Event { at_ms, text, numbers };
        if self.events.len() < self.kept {
            self.events.push(event);
        } else {
            self.events[self.count % self.kept] = event;
        }
        self.count += 1;
    }

    /// Hash of all events.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Events since the world began.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The newest events, one per line.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let start = if self.count > self.kept {
            self.count % self.kept
        } else {
            0
        };
        for at in 0..self.events.len() {
            let Event {
                at_ms,
                text: what,
                numbers,
            } = self.events[(start + at) % self.events.len()];
            let mut line = what.to_owned();
            for (name, number) in ["{a}", "{b}", "{c}"].iter().zip(numbers) {
                line = line.replace(name, &number.to_string());
            }
            writeln!(text, "{at_ms:>7} ms  {line}").expect("a string takes everything");
        }
        text
    }
}
