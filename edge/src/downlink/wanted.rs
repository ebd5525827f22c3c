//! What this edge asks the cloud for: what its clients are subscribed to, as far as the configuration allows it.
//!
//! In: filters of subscriptions, the lists of `[downlink]`. Out: filters to announce, and the difference to what was announced.
//! Pure. A filter that is allowed in part is announced as that part.

use std::collections::BTreeMap;

use fellbeck_core::Filter;
use fellbeck_link::downlink::{FILTER_BYTES_MAX, FILTERS_BYTES_MAX, FILTERS_MAX, Wanted};

/// The lists of `[downlink]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed {
    /// Of messages that were published to the cloud itself.
    pub(crate) here: Vec<Filter>,
    /// Of messages of other edges.
    pub(crate) edges: Vec<Filter>,
    /// Asked for although nobody here may be subscribed.
    pub(crate) always: Vec<Filter>,
}

/// Filters that are announced, each with whether messages of other edges are wanted too.
pub(crate) type Announced = BTreeMap<Filter, bool>;

/// A change of what is announced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// To be asked for.
    pub(crate) want: Vec<Wanted>,
    /// Wanted no longer.
    pub(crate) unwant: Vec<Filter>,
}

impl Allowed {
    /// What to announce for these subscriptions, and how many filters find no room.
    pub(crate) fn announce(&self, interest: &[String]) -> (Announced, usize) {
        let subscribed = interest.iter().filter_map(|text| Filter::parse(text).ok());
        let mut announced = Announced::new();
        let (mut bytes, mut left_out) = (0, 0);
        for filter in self.always.iter().cloned().chain(subscribed) {
            for (allowed, edges) in [(&self.edges, true), (&self.here, false)] {
                for common in allowed.iter().filter_map(|allowed| filter.intersection(allowed)) {
                    if announced.contains_key(&common) {
                        continue;
                    }
                    let size = common.as_str().len();
                    let fits = size <= FILTER_BYTES_MAX && bytes + size <= FILTERS_BYTES_MAX;
                    if fits && announced.len() < FILTERS_MAX {
                        bytes += size;
                        announced.insert(common, edges);
                    } else {
                        left_out += 1;
                    }
                }
            }
        }
        self.widen(&mut announced);
        (announced, left_out)
    }

    /// A filter may have come as allowed from the cloud alone before it came as allowed from everywhere.
    fn widen(&self, announced: &mut Announced) {
        for (filter, edges) in announced.iter_mut().filter(|(_, edges)| !**edges) {
            *edges = self
                .edges
                .iter()
                .any(|allowed| allowed.intersection(filter).as_ref() == Some(filter));
        }
    }
}

/// What has to be said so that `now` is announced where `before` was.
pub(crate) fn change(before: &Announced, now: &Announced) -> Change {
    let news = now.iter().filter(|(filter, edges)| before.get(*filter) != Some(*edges));
    let gone = before.keys().filter(|filter| !now.contains_key(*filter));
    Change {
        want: news
            .map(|(filter, edges)| Wanted {
                filter: filter.clone(),
                edges: *edges,
            })
            .collect(),
        unwant: gone.cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(list: &[&str]) -> Vec<Filter> {
        list.iter().map(|text| Filter::parse(text).unwrap()).collect()
    }

    fn allowed(here: &[&str], edges: &[&str], always: &[&str]) -> Allowed {
        Allowed {
            here: filters(here),
            edges: filters(edges),
            always: filters(always),
        }
    }

    fn announced(allowed: &Allowed, interest: &[&str]) -> Vec<(String, bool)> {
        let interest: Vec<String> = interest.iter().map(|text| (*text).to_owned()).collect();
        let (announced, left_out) = allowed.announce(&interest);
        assert_eq!(left_out, 0);
        announced
            .into_iter()
            .map(|(filter, edges)| (filter.as_str().to_owned(), edges))
            .collect()
    }

    fn each(list: &[(&str, bool)]) -> Vec<(String, bool)> {
        list.iter()
            .map(|(filter, edges)| ((*filter).to_owned(), *edges))
            .collect()
    }

    #[test]
    fn what_is_announced_is_asked_for_and_allowed() {
        let default = allowed(&["#"], &[], &[]);
        assert_eq!(
            announced(&default, &["cmd/a/+", "#", "cmd/a/+"]),
            each(&[("#", false), ("cmd/a/+", false)])
        );
        assert_eq!(announced(&default, &["$SYS/#", "$x"]), [], "not allowed by #");
        let narrow = allowed(&["cmd/#", "reply/+"], &["plant/#"], &[]);
        assert_eq!(
            announced(&narrow, &["#", "cmd/a", "other"]),
            each(&[
                ("cmd/#", false),
                ("cmd/a", false),
                ("plant/#", true),
                ("reply/+", false)
            ])
        );
        assert_eq!(announced(&allowed(&[], &[], &[]), &["#"]), []);
    }

    #[test]
    fn a_filter_that_is_allowed_from_everywhere_is_asked_for_so() {
        let both = allowed(&["#"], &["plant/#"], &[]);
        assert_eq!(announced(&both, &["plant/a"]), each(&[("plant/a", true)]));
        assert_eq!(
            announced(&both, &["#", "plant/#"]),
            each(&[("#", false), ("plant/#", true)])
        );
        assert_eq!(
            announced(&both, &["plant/#", "#"]),
            each(&[("#", false), ("plant/#", true)])
        );
    }

    #[test]
    fn some_filters_are_announced_whoever_is_subscribed() {
        let config = allowed(&["#"], &[], &["config/+"]);
        assert_eq!(announced(&config, &[]), each(&[("config/+", false)]));
    }

    #[test]
    fn beyond_the_bounds_filters_are_left_out_and_counted() {
        let all = allowed(&["#"], &[], &[]);
        let many: Vec<String> = (0..FILTERS_MAX + 3).map(|n| format!("t/{n}")).collect();
        let (announced, left_out) = all.announce(&many);
        assert_eq!((announced.len(), left_out), (FILTERS_MAX, 3));
        let (announced, left_out) = all.announce(&["x".repeat(FILTER_BYTES_MAX + 1)]);
        assert_eq!((announced.len(), left_out), (0, 1));
        let long: Vec<String> = (0..100).map(|n| format!("{n:04}{}", "x".repeat(4000))).collect();
        let (announced, left_out) = all.announce(&long);
        assert_eq!(announced.len() + left_out, 100);
        assert_eq!(announced.len(), FILTERS_BYTES_MAX / 4004);
    }

    #[test]
    fn only_the_difference_is_said() {
        let before = Announced::from([(filters(&["a"])[0].clone(), false), (filters(&["b"])[0].clone(), false)]);
        let now = Announced::from([(filters(&["b"])[0].clone(), true), (filters(&["c"])[0].clone(), false)]);
        let change = change(&before, &now);
        let want: Vec<_> = change
            .want
            .iter()
            .map(|wanted| (wanted.filter.as_str(), wanted.edges))
            .collect();
        assert_eq!(want, [("b", true), ("c", false)]);
        assert_eq!(change.unwant, filters(&["a"]));
        assert_eq!(super::change(&now, &now), Change::default());
    }
}
