//! Bytes that no correct client sends, from a seed.
//!
//! In: a random generator, or a valid packet. Out: bytes. Only makes them; the test sends them.

use rand::Rng;

/// Longest purely random input.
const RANDOM_MAX: usize = 4096;

/// Random bytes of random length, at least one.
pub fn random_bytes(rng: &mut impl Rng) -> Vec<u8> {
    let len = rng.random_range(1..=RANDOM_MAX);
    let mut bytes = vec![0; len];
    rng.fill(bytes.as_mut_slice());
    bytes
}

/// A valid input with a few faults: flipped, inserted, removed, doubled or cut bytes.
pub fn mutate(rng: &mut impl Rng, valid: &[u8]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        if bytes.is_empty() {
            bytes.push(rng.random());
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..5) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => bytes.insert(at, rng.random()),
            3 => {
                bytes.remove(at);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}
