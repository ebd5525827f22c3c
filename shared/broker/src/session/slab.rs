//! A table whose keys stay valid for the life of what they name, and are never mistaken for a later tenant of the slot.
//!
//! Keys are two `u32`, copied freely; a key of something that is gone finds nothing. Lookups are an index, no hash.

use std::marker::PhantomData;

/// Names one entry of a [`Slab`].
pub(super) struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}

impl<T> Eq for Key<T> {}

impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.index, self.generation).cmp(&(other.index, other.generation))
    }
}

impl<T> std::fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// Entries by [`Key`].
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<(u32, Option<Box<T>>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Adds what `make` builds for its own key.
    pub(super) fn insert_with(&mut self, make: impl FnOnce(Key<T>) -> T) -> Key<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 entries fit in memory")
        });
        let slot = &mut self.slots[index as usize];
        let key = Key {
            index,
            generation: slot.0,
            of: PhantomData,
        };
        slot.1 = Some(Box::new(make(key)));
        key
    }

    pub(super) fn remove(&mut self, key: Key<T>) -> Option<Box<T>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.0 != key.generation {
            return None;
        }
        let removed = slot.1.take()?;
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(key.index);
        Some(removed)
    }

    pub(super) fn get(&self, key: Key<T>) -> Option<&T> {
        let (generation, entry) = self.slots.get(key.index as usize)?;
        entry.as_deref().filter(|_| *generation == key.generation)
    }

    pub(super) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let (generation, entry) = self.slots.get_mut(key.index as usize)?;
        entry.as_deref_mut().filter(|_| *generation == key.generation)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, (generation, entry))| {
                let key = Key {
                    index: index as u32,
                    generation: *generation,
                    of: PhantomData,
                };
                entry.as_deref().map(|entry| (key, entry))
            })
    }

    pub(super) fn keys(&self) -> Vec<Key<T>> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_former_tenant_finds_nothing() {
        let mut slab = Slab::default();
        let old = slab.insert_with(|_| "old");
        assert_eq!(slab.remove(old).as_deref(), Some(&"old"));
        let new = slab.insert_with(|_| "new");
        assert_eq!((slab.get(old), slab.get(new), slab.len()), (None, Some(&"new"), 1));
        assert!(slab.remove(old).is_none() && slab.get_mut(old).is_none());
    }
}
