//! Texts as numbers, for as long as a line uses them.

use std::collections::HashMap;
use std::sync::Arc;

/// Each text once, with a number and a count of those who use it. A number is used again when nobody does.
#[derive(Debug, Default)]
pub struct Names {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<(Arc<str>, u32)>,
    free: Vec<u32>,
}

impl Names {
    /// The number of `name`, which has one more user from now on.
    pub fn take(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            self.names[number as usize].1 += 1;
            return number;
        }
        let name: Arc<str> = name.into();
        let number = match self.free.pop() {
            Some(number) => {
                self.names[number as usize] = (name.clone(), 1);
                number
            }
            None => {
                self.names.push((name.clone(), 1));
                u32::try_from(self.names.len() - 1).expect("memory ends before")
            }
        };
        self.numbers.insert(name, number);
        number
    }

    /// One user less. Answers whether it was the last.
    pub fn release(&mut self, number: u32) -> bool {
        let (name, users) = &mut self.names[number as usize];
        *users -= 1;
        if *users > 0 {
            return false;
        }
        self.numbers.remove(&std::mem::replace(name, "".into()));
        self.free.push(number);
        true
    }

    /// The number of `name`, if somebody uses it.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The text of a number in use.
    pub fn name(&self, number: u32) -> &str {
        &self.names[number as usize].0
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

/// Texts, and beginnings of texts, which are written with a `*` at the end.
#[derive(Debug, Default)]
pub struct Patterns {
    texts: Names,
    beginnings: Names,
    /// How long beginnings are, and how many have that length: a text is looked up once for each.
    lengths: Vec<(usize, u32)>,
}

impl Patterns {
    /// The number of `pattern`, which has one more user from now on: even for a text, odd for a beginning.
    pub fn take(&mut self, pattern: &str) -> u32 {
        let Some(beginning) = pattern.strip_suffix('*') else { return self.texts.take(pattern) * 2 };
        if self.beginnings.find(beginning).is_none() {
            match self.lengths.iter_mut().find(|(length, _)| *length == beginning.len()) {
                Some((_, count)) => *count += 1,
                None => self.lengths.push((beginning.len(), 1)),
            }
        }
        self.beginnings.take(beginning) * 2 + 1
    }

    /// One user less.
    pub fn release(&mut self, number: u32) {
        if number.is_multiple_of(2) {
            self.texts.release(number / 2);
            return;
        }
        let length = self.beginnings.name(number / 2).len();
        if self.beginnings.release(number / 2) {
            self.lengths.iter_mut().filter(|(other, _)| *other == length).for_each(|(_, count)| *count -= 1);
            self.lengths.retain(|(_, count)| *count > 0);
        }
    }

    /// The number of `pattern`, if somebody uses it.
    pub fn find(&self, pattern: &str) -> Option<u32> {
        match pattern.strip_suffix('*') {
            None => self.texts.find(pattern).map(|number| number * 2),
            Some(beginning) => self.beginnings.find(beginning).map(|number| number * 2 + 1),
        }
    }

    /// All patterns that stand for `text`.
    pub fn matching(&self, text: &str) -> Vec<u32> {
        let mut found = Vec::with_capacity(4);
        found.extend(self.texts.find(text).map(|number| number * 2));
        for &(length, _) in &self.lengths {
            let beginning = text.get(..length).and_then(|beginning| self.beginnings.find(beginning));
            found.extend(beginning.map(|number| number * 2 + 1));
        }
        found
    }

    /// The pattern of a number in use.
    pub fn text(&self, number: u32) -> String {
        if number.is_multiple_of(2) {
            self.texts.name(number / 2).to_owned()
        } else {
            format!("{}*", self.beginnings.name(number / 2))
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.beginnings.is_empty() && self.lengths.is_empty()
    }
}
