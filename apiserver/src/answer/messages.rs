//! The items of a list in protobuf, one at a time: neither the list nor any item of it is kept.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use serde_json::Value;

use super::{Form, Shown};
use crate::{
    kinds::Kind,
    negotiate::View,
    protobuf::{Error, List},
    table::Include,
    window::Item,
};

/// A list in protobuf, whose length stands before it: all items are measured first, and written afterwards.
pub(crate) struct Messages {
    list: List,
    shown: Shown,
    /// The item that is being written.
    scratch: Vec<u8>,
}

impl Messages {
    /// Nothing if there is no such form of this kind.
    pub(super) fn new(kind: &Arc<Kind>, form: Form) -> Option<Self> {
        let list = match form.view {
            View::Whole => List::of(&kind.api_version(), &kind.kind),
            View::MetadataList(version) => List::of(version.api_version(), "PartialObjectMetadata"),
            View::Metadata(_) | View::Table(_) => None,
        }?;
        let shown = Shown { kind: kind.clone(), view: form.view, include: Include::Object, now: 0 };
        Some(Self { list, shown, scratch: Vec::new() })
    }

    /// How much longer the list becomes by this item. Whole objects are measured once in their life.
    pub(crate) fn measure(&mut self, item: &Item) -> Result<usize, Error> {
        let length = if self.is_plain() {
            item.protobuf_length(|| self.message(item).map(<[u8]>::len))?
        } else {
            self.message(item)?.len()
        };
        Ok(self.list.grows_by(length))
    }

    /// What comes before the items, which are so long together.
    pub(crate) fn begin(&self, metadata: &Value, items: usize) -> Result<Vec<u8>, Error> {
        self.list.begin(metadata, items)
    }

    /// Writes an item.
    pub(crate) fn write(&mut self, item: &Item, out: &mut BytesMut) -> Result<(), Error> {
        self.message(item)?;
        let mut head = Vec::with_capacity(8);
        self.list.item(self.scratch.len(), &mut head);
        out.put_slice(&head);
        out.put_slice(&self.scratch);
        Ok(())
    }

    /// What comes after the items.
    pub(crate) fn end(&self) -> &'static [u8] {
        List::END
    }

    fn is_plain(&self) -> bool {
        self.shown.view == View::Whole && self.shown.kind.conversion.is_none()
    }

    fn message(&mut self, item: &Item) -> Result<&[u8], Error> {
        let Self { list, shown, scratch } = self;
        scratch.clear();
        let (stored, revision) = (&item.stored, Some(item.revision));
        match (shown.view, &shown.kind.conversion) {
            (View::Whole, None) => list.item.write(stored.raw(), revision, scratch)?,
            (View::MetadataList(_), None) => list.item.write_partial(stored.metadata(), revision, scratch)?,
            _ => list.item.write(shown.of(item.value()).to_string().as_bytes(), None, scratch)?,
        }
        Ok(scratch)
    }
}
