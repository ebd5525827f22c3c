//! A cheap hash for numbers that the node gives itself, so that nobody can choose them to collide.

use std::hash::{BuildHasherDefault, Hasher};

/// For maps keyed by connection or track numbers.
pub(super) type BuildIdHasher = BuildHasherDefault<IdHasher>;

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        // An odd factor spreads neighbouring numbers over the high bits, which the table looks at too.
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}
