//! Which objects of a collection a request is about.

use std::sync::Arc;

use super::Context;
use crate::{
    index::By,
    kinds::Kind,
    selector::{Fields, Labels},
    status::Result,
    window::{Item, Snapshot, Window},
};

/// A label selector and a field selector, for one kind.
pub(super) struct Selection {
    labels: Labels,
    fields: Fields,
    /// The labels of selectable fields, in the order of [`Item::field`].
    known: Vec<String>,
    kind: Arc<Kind>,
}

impl Context {
    /// What the query, and the name in the path, select.
    pub(super) fn selection(&self) -> Result<Selection> {
        let labels = Labels::parse(&self.parameter("labelSelector").unwrap_or_default())?;
        let mut fields = self.parameter("fieldSelector").unwrap_or_default();
        if !self.target.name.is_empty() {
            // GET …/pods/x?watch=true watches one object.
            fields = format!("metadata.name={}{}{fields}", self.target.name, if fields.is_empty() { "" } else { "," });
        }
        let fields = Fields::parse(&fields, &self.kind)?;
        Ok(Selection::new(labels, fields, self.kind.clone()))
    }
}

impl Selection {
    fn new(labels: Labels, fields: Fields, kind: Arc<Kind>) -> Self {
        let known = kind.selectable.iter().map(|(label, _)| label.clone()).collect();
        Self { labels, fields, known, kind }
    }

    /// The kind of the objects.
    pub(super) fn kind(&self) -> &str {
        &self.kind.kind
    }

    /// The API version of the objects.
    pub(super) fn api_version(&self) -> String {
        self.kind.api_version()
    }

    /// Everything is selected.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name that is asked for, if there is one.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields.name()
    }

    /// The one namespace that is asked for, if there is one.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.fields.namespace()
    }

    /// A value by which all that is asked for can be found, and perhaps more.
    pub(super) fn found_by(&self) -> Option<(By, &str)> {
        if let Some((key, value)) = self.labels.exactly() {
            return Some((By::Label(key.to_owned()), value));
        }
        let (field, value) = self.fields.found_by()?;
        let mut places = self.known.iter().enumerate().filter(|(_, known)| *known == field).map(|(place, _)| place);
        match (places.next(), places.next()) {
            (Some(only), None) => Some((By::Field(only), value)),
            _ => None,
        }
    }

    /// The state of the window as it is now: all of it, and the part in which all is that is asked for.
    pub(super) fn snapshots(&self, window: &Window) -> (Snapshot, Snapshot) {
        let part = match self.name() {
            Some(_) => None,
            None => self.found_by().and_then(|(by, value)| window.snapshot_where(&by, value)),
        };
        part.unwrap_or_else(|| {
            let all = window.snapshot();
            (all.clone(), all)
        })
    }

    /// Whether the object is one of those asked for.
    pub(super) fn takes(&self, item: &Item) -> bool {
        (self.labels.is_everything() || self.labels.matches(&|key| item.label(key)))
            && (self.fields.is_everything() || self.fields.matches(&|field| self.field(item, field)))
    }

    fn field<'a>(&self, item: &'a Item, field: &str) -> Option<&'a str> {
        let path = &item.key[self.kind.prefix.len()..];
        let (namespace, name) =
            if self.kind.namespaced { path.split_once('/').unwrap_or(("", path)) } else { ("", path) };
        match field {
            "metadata.name" => Some(name),
            "metadata.namespace" => Some(namespace),
            // A field may be known by several paths; the first that leads to something counts.
            _ => {
                let known = self.known.iter().enumerate().filter(|(_, known)| *known == field);
                known.map(|(index, _)| item.field(index)).find(|value| !value.is_empty())
            }
        }
    }
}
