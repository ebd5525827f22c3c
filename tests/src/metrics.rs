//! One scrape of a node's `/metrics`, in Prometheus text form.
//!
//! In: the text. Out: sums over the samples of a name, optionally those whose labels contain a piece of text.
//! A counter restarts at 0 with the process; what must hold across a kill is read from gauges of the store.

/// Samples of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Metrics {
    /// Reads the text form; lines that are not samples are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// Sum over all samples of `name`; `None` when there is none.
    #[must_use]
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sum_where(name, "")
    }

    /// Sum over the samples of `name` whose label text contains `piece`; `None` when there is none.
    #[must_use]
    pub fn sum_where(&self, name: &str, piece: &str) -> Option<f64> {
        let mut found = self
            .0
            .iter()
            .filter(|s| s.name == name && s.labels.contains(piece))
            .peekable();
        found.peek()?;
        Some(found.map(|s| s.value).sum())
    }

    /// All names, sorted and without doubles, for failure messages.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|s| s.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (head, value) = line.trim().rsplit_once(' ')?;
    let (name, labels) = head.split_once('{').unwrap_or((head, ""));
    Some(Sample {
        name: name.to_owned(),
        labels: labels.to_owned(),
        value: value.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn samples_are_summed_over_their_labels() {
        let metrics = Metrics::parse("# TYPE a gauge\na{track=\"x/0\"} 2\na{track=\"y 1\"} 3.5\nb 1\n");
        assert_eq!(metrics.sum("a"), Some(5.5));
        assert_eq!(metrics.sum_where("a", "track=\"x/"), Some(2.0));
        assert_eq!(metrics.sum("c"), None);
        assert_eq!(metrics.names(), ["a", "b"]);
    }
}
