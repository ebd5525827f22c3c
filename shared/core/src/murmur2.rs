//! Kafka's partitioner: murmur2 as its Java client computes it, so that foreign producers and we agree on the partition of a key.
//!
//! Pure function of key and number of partitions. Not a hash for tables: anyone can find keys that collide.

use crate::PartitionId;

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The 32-bit murmur2 of `key` with Kafka's seed. Kafka shows the same bits as a signed number.
#[must_use]
pub fn murmur2(key: &[u8]) -> u32 {
    let mut hash = SEED ^ (key.len() as u32);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition that Kafka's default partitioner gives a record with this key. Zero partitions count as one.
#[must_use]
pub fn partition_for(key: &[u8], partitions: u32) -> PartitionId {
    PartitionId((murmur2(key) & 0x7fff_ffff) % partitions.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_are_those_of_the_java_client() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn every_partition_is_in_range_and_zero_counts_as_one() {
        for n in 0..64u32 {
            let key = n.to_le_bytes();
            assert!(partition_for(&key, 8).0 < 8);
            assert_eq!(partition_for(&key, 0), PartitionId(0));
        }
        // -973932308 & 0x7fffffff = 1173551340; modulo 8 = 4.
        assert_eq!(partition_for(b"21", 8), PartitionId(4));
    }
}
