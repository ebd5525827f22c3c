//! Latencies in buckets of about 3 % width, from 1 us to hours, in constant memory.
//!
//! In: single values. Out: any quantile. Buckets are linear below 32 and log-linear above (32 per power of two).

const SUB_BITS: u32 = 5;
const SUB: u64 = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB as usize;

/// Counts of values by bucket.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Empty.
    pub fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts a value that was seen `times` times.
    pub fn record_many(&mut self, value: u64, times: u64) {
        self.counts[bucket(value)] += times;
        self.total += times;
    }

    /// Adds the counts of another one.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Lower edge of the bucket that holds the quantile; 0 when empty.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return lower_edge(index);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let power = 63 - value.leading_zeros();
    let shift = power - SUB_BITS;
    let sub = (value >> shift) - SUB;
    (u64::from(shift + 1) * SUB + sub) as usize
}

fn lower_edge(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB {
        return index;
    }
    let shift = index / SUB - 1;
    (SUB + index % SUB) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_its_bucket() {
        for value in (0..2000).chain([1 << 20, (1 << 40) + 12345, u64::MAX]) {
            let index = bucket(value);
            assert!(lower_edge(index) <= value, "{value} below its bucket");
            assert!(
                index + 1 == BUCKETS || value < lower_edge(index + 1),
                "{value} above its bucket"
            );
        }
    }

    #[test]
    fn quantiles_are_within_four_per_cent() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), 0);
        (1..=10_000).for_each(|value| histogram.record(value));
        for (share, exact) in [(0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let found = histogram.quantile(share) as f64;
            assert!(
                (found - exact).abs() / exact < 0.04,
                "quantile {share}: {found} instead of {exact}"
            );
        }
    }
}
