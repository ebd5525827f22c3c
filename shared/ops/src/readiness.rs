//! Whether the node can do its work: named conditions, each met or not with a reason.
//!
//! In: the parts of the node set their condition. Out: `/readyz`, ready when all conditions are met.
//! The names are fixed when it is made, so that a part that never reports keeps the node unready.
//! What the node can do without (the link of an edge) is not a condition; it belongs into the status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared state behind `/readyz`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    // Held for a few instructions and never across an await.
    conditions: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

impl Readiness {
    /// Conditions with these names, none of them met yet.
    #[must_use]
    pub fn new(names: &[&'static str]) -> Self {
        let conditions = names.iter().map(|name| (*name, Some("starting".to_owned()))).collect();
        Self {
            conditions: Arc::new(Mutex::new(conditions)),
        }
    }

    /// The condition `name` is met. An unknown name is added.
    pub fn met(&self, name: &'static str) {
        self.set(name, None);
    }

    /// The condition `name` is not met, because of `reason`. An unknown name is added.
    pub fn unmet(&self, name: &'static str, reason: impl Into<String>) {
        self.set(name, Some(reason.into()));
    }

    /// Whether all conditions are met.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(Option::is_none)
    }

    /// `{"ready": false, "conditions": {"store": {"met": false, "reason": "..."}}}`
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let conditions = self.lock();
        let list: serde_json::Map<String, serde_json::Value> = conditions
            .iter()
            .map(|(name, reason)| {
                let condition = match reason {
                    None => serde_json::json!({ "met": true }),
                    Some(reason) => serde_json::json!({ "met": false, "reason": reason }),
                };
                ((*name).to_owned(), condition)
            })
            .collect();
        serde_json::json!({ "ready": conditions.values().all(Option::is_none), "conditions": list })
    }

    fn set(&self, name: &'static str, reason: Option<String>) {
        self.lock().insert(name, reason);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        // A map of texts is whole after every single call, so a panic elsewhere does not spoil it.
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_while_every_condition_is_met() {
        let readiness = Readiness::new(&["store", "mqtt"]);
        assert!(!readiness.is_ready(), "nothing has reported yet");
        readiness.met("store");
        readiness.clone().met("mqtt");
        assert!(readiness.is_ready());
        readiness.unmet("store", "disk full");
        assert!(!readiness.is_ready());
        let json = readiness.to_json();
        assert_eq!(json["ready"], false);
        assert_eq!(json["conditions"]["store"]["reason"], "disk full");
        assert_eq!(json["conditions"]["mqtt"]["met"], true);
    }
}
