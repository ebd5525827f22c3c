//! [`Secret`]: a value that cannot be printed by accident.
//!
//! In: any value. Out: the same through [`Secret::expose`], so that each use is a grep.
//! Also random bytes from the system and the hash under which the cloud keeps a token's secret.

use std::fmt;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

/// A value whose `Debug` form says nothing. It has no `Display` and no serde form.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Never for logs or errors.
    #[must_use]
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// `N` random bytes from the system.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("Linux always has random bytes after boot");
    bytes
}

/// SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// Whether both are equal, in a time that does not depend on where they differ.
pub(super) fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "(secret) Some((secret))");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn comparison_sees_every_byte() {
        let a = random::<32>();
        assert!(equal(&a, &a.clone()));
        for i in 0..32 {
            let mut b = a;
            b[i] ^= 1;
            assert!(!equal(&a, &b), "a difference in byte {i} was missed");
        }
    }
}
