//! The objects of a window by what people select them by, so that a selective list looks at those alone.
//!
//! An index is made when somebody first selects by its label or field among many objects, and kept from then on. It is
//! made of persistent maps, as the window is: a snapshot of it costs nothing and never changes.

use std::sync::Arc;

use imbl::OrdMap;

use crate::window::Item;

/// What objects are found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The label of this key.
    Label(String),
    /// The selectable field of this number, as [`Item::field`] counts them.
    Field(usize),
}

/// Objects by their keys.
pub type Items = OrdMap<Arc<str>, Arc<Item>>;

/// The objects that have a value, by that value.
#[derive(Clone)]
pub struct Index {
    by: By,
    values: OrdMap<Box<str>, Items>,
}

impl By {
    /// The value by which an object is found; none, if it has no such label.
    fn of<'a>(&self, item: &'a Item) -> Option<&'a str> {
        match self {
            Self::Label(key) => item.label(key),
            Self::Field(number) => Some(item.field(*number)),
        }
    }
}

impl Index {
    /// The index of all these.
    pub fn new(by: By, items: &Items) -> Self {
        let mut index = Self { by, values: OrdMap::new() };
        for item in items.values() {
            index.change(None, Some(item));
        }
        index
    }

    /// Whether this is the index by that.
    pub fn is_by(&self, by: &By) -> bool {
        self.by == *by
    }

    /// The objects that have this value.
    pub fn of(&self, value: &str) -> Items {
        self.values.get(value).cloned().unwrap_or_default()
    }

    /// Takes in a change of one object.
    pub fn change(&mut self, previous: Option<&Arc<Item>>, now: Option<&Arc<Item>>) {
        let before = previous.and_then(|item| self.by.of(item));
        let after = now.and_then(|item| self.by.of(item));
        if let (Some(value), Some(item)) = (before, previous)
            && before != after
        {
            let is_empty = self.values.get_mut(value).is_some_and(|items| {
                items.remove(&item.key);
                items.is_empty()
            });
            if is_empty {
                self.values.remove(value);
            }
        }
        if let (Some(value), Some(item)) = (after, now) {
            match self.values.get_mut(value) {
                Some(items) => drop(items.insert(item.key.clone(), item.clone())),
                None => drop(self.values.insert(value.into(), Items::unit(item.key.clone(), item.clone()))),
            }
        }
    }
}
