//! Values that a state holds by number: equal values have one number, so that states are small and quick to compare.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// A value with its number.
#[derive(Debug)]
pub(super) struct Interned<T> {
    number: usize,
    value: Arc<T>,
}

/// The values of one type, by their text.
pub(super) struct Interner<T> {
    known: Mutex<HashMap<String, Interned<T>>>,
}

impl<T: Debug> Interner<T> {
    pub(super) fn new() -> Interner<T> {
        Interner { known: Mutex::default() }
    }

    pub(super) fn intern(&self, value: T) -> Interned<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let number = known.len();
        let new = known.entry(format!("{value:?}"));
        new.or_insert_with(|| Interned { number, value: Arc::new(value) }).clone()
    }
}

impl<T> Clone for Interned<T> {
    fn clone(&self) -> Interned<T> {
        Interned { number: self.number, value: self.value.clone() }
    }
}

impl<T> Deref for Interned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Interned<T> {
    fn eq(&self, other: &Interned<T>) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Interned<T> {}

impl<T> Hash for Interned<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.number.hash(hasher);
    }
}
