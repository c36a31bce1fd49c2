//! In which portions long answers are made: large ones while few wait to be sent, small ones while many do.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};

use crate::window::{Stored, write_version};

/// What may wait to be sent in large portions, all answers together, in bytes.
const PLENTY: usize = 8 * 1024 * 1024;
/// A large portion has about so many bytes: a few records of TLS at once.
const LARGE: usize = 64 * 1024;
/// And a small one so many. A thousand clients that do not read hold a thousand of them.
const SMALL: usize = 8 * 1024;
/// What comes to more than a portion is seldom more than this.
const ROOM: usize = 4 * 1024;
/// Stored bytes of so many are not copied into portions: they go out by themselves.
const WHOLE: usize = 16 * 1024;
/// So many portions and stored bytes are made ready at once.
const READY: usize = 64;

/// Counts what was made for single clients and was not sent yet.
#[derive(Clone, Default)]
pub(crate) struct Portions {
    waiting: Arc<AtomicUsize>,
}

/// A portion that counts for as long as it is there.
struct Portion {
    bytes: BytesMut,
    size: usize,
    waiting: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Portion {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.size, Ordering::Relaxed);
    }
}

impl Portions {
    /// How many bytes a portion should have that is made now.
    pub(crate) fn size(&self) -> usize {
        match self.waiting.load(Ordering::Relaxed) < PLENTY {
            true => LARGE,
            false => SMALL,
        }
    }

    /// A portion that is complete. It takes no more memory than it needs, and counts until it was sent, or is not wanted any
    /// more.
    pub(crate) fn full(&self, bytes: BytesMut) -> Bytes {
        let bytes = if bytes.len() < bytes.capacity() / 2 { BytesMut::from(&bytes[..]) } else { bytes };
        let (size, waiting) = (bytes.capacity(), self.waiting.clone());
        waiting.fetch_add(size, Ordering::Relaxed);
        Bytes::from_owner(Portion { bytes, size, waiting })
    }
}

/// An answer in the making.
pub(crate) struct Batch {
    portions: Portions,
    /// How long a portion is to be,
    size: usize,
    /// the one that is being written,
    portion: BytesMut,
    /// and what goes out before it.
    ready: VecDeque<Bytes>,
}

impl Batch {
    /// Nothing yet.
    pub(crate) fn new(portions: &Portions) -> Self {
        Self { portions: portions.clone(), size: 0, portion: BytesMut::new(), ready: VecDeque::new() }
    }

    /// Begins a portion.
    pub(crate) fn begin(&mut self) {
        self.size = self.portions.size();
        self.portion = BytesMut::with_capacity(self.size + ROOM);
    }

    /// Where the portion is written.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.portion
    }

    /// Writes a stored object. Of a large one the stored bytes go out.
    pub(crate) fn object(&mut self, stored: &Stored, revision: u64) {
        if stored.size() < WHOLE {
            return stored.write(revision, &mut self.portion);
        }
        let (first, rest) = stored.around_revision();
        self.share(first);
        write_version(revision, &mut self.portion);
        self.share(rest);
    }

    fn share(&mut self, bytes: Bytes) {
        if bytes.len() < WHOLE {
            return self.portion.extend_from_slice(&bytes);
        }
        self.end();
        self.ready.push_back(bytes);
    }

    /// Whether it is time to [`end`](Self::end) the portion.
    pub(crate) fn is_full(&self) -> bool {
        self.portion.len() >= self.size || self.ready.len() >= READY
    }

    /// Ends the portion. Of one in which nothing was written no memory stays: there may be ten thousand watchers.
    pub(crate) fn end(&mut self) {
        let portion = std::mem::take(&mut self.portion);
        if !portion.is_empty() {
            self.ready.push_back(self.portions.full(portion));
        }
    }

    /// How much is ready to go out.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// What goes out next.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_beginning_holds_nothing() {
        let mut batch = Batch::new(&Portions::default());
        batch.begin();
        assert!(!batch.is_full());
        batch.end();
        assert_eq!((batch.ready(), batch.portion.capacity()), (0, 0));
        batch.begin();
        batch.out().extend_from_slice(b"one");
        batch.end();
        assert_eq!((batch.next().as_deref(), batch.portion.capacity()), (Some(&b"one"[..]), 0));
    }

    #[test]
    fn portions_are_small_while_many_wait_and_large_again_when_they_were_sent() {
        let portions = Portions::default();
        let mut waiting = Vec::new();
        for _ in 0..1000 {
            let mut portion = BytesMut::with_capacity(portions.size() + ROOM);
            portion.resize(portions.size(), b'x');
            waiting.push(portions.full(portion));
        }
        let bytes: usize = waiting.iter().map(Bytes::len).sum();
        assert!(bytes < PLENTY + LARGE + 1000 * SMALL, "{bytes}");
        assert_eq!(portions.size(), SMALL);
        waiting.clear();
        assert_eq!((portions.size(), portions.waiting.load(Ordering::Relaxed)), (LARGE, 0));
    }
}
