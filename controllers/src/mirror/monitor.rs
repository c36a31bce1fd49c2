//! What the mirror says about itself: how far behind it is, and whether it stands still.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use onex_db::mirror::{self, Columns};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::objects::Copied;

/// How the mirror is doing.
#[derive(Default)]
pub struct Monitor([Gauges; 3]);

/// The kinds, in the order of their gauges.
const KINDS: [&str; 3] =
    [<mirror::Chain as Columns>::KIND, <mirror::MinerSet as Columns>::KIND, <mirror::Miner as Columns>::KIND];

/// What the copy of one kind is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing: it has not begun, or it is somebody else's turn.
    #[default]
    Resting,
    /// It compares all rows with all objects, and does not know yet.
    Comparing,
    /// It writes every change.
    Following,
    /// The database does not do what it is asked.
    Away,
    /// The apiserver does not tell.
    Blind,
}

/// The numbers of one kind.
#[derive(Default)]
pub(super) struct Gauges {
    state: Mutex<State>,
    rows: AtomicU64,
    changes: AtomicU64,
    transactions: AtomicU64,
    errors: AtomicU64,
    refused: AtomicU64,
    mended: AtomicU64,
    compared_at: AtomicI64,
}

#[derive(Default)]
struct State {
    doing: Doing,
    why: String,
    /// Since when there is something that is not in the table.
    behind_since: Option<Instant>,
    /// How long the oldest change of the last transaction had waited.
    delay: Duration,
}

/// Ends what the copy is doing.
pub(super) struct AtRest<'a>(&'a Gauges);

impl Drop for AtRest<'_> {
    fn drop(&mut self) {
        *self.0.state.lock() = State::default();
    }
}

impl Monitor {
    pub(super) fn of<K: Copied>(&self) -> &Gauges {
        let at = KINDS.iter().position(|kind| *kind == K::KIND).expect("every kind that is copied is in the list");
        &self.0[at]
    }

    /// Why the mirror is not ready: a line for each kind that is not what the objects are, as far as it knows.
    ///
    /// It is ready where it has nothing to do.
    pub fn unready(&self) -> Vec<String> {
        let reason = |(kind, gauges): (&&str, &Gauges)| {
            let state = gauges.state.lock();
            match state.doing {
                Doing::Resting | Doing::Following => None,
                Doing::Comparing => Some(format!("the rows of {kind}s are being compared")),
                _ => Some(format!("the rows of {kind}s are not up to date: {}", state.why)),
            }
        };
        KINDS.iter().zip(&self.0).filter_map(reason).collect()
    }

    /// The numbers, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        type Read = fn(&Gauges) -> f64;
        let series: [(&str, &str, &str, Read); 10] = [
            ("rows", "gauge", "Rows there are.", |g| g.rows.load(Relaxed) as f64),
            ("lag_seconds", "gauge", "How long the oldest change that is not in the table has waited.", Gauges::lag),
            ("delay_seconds", "gauge", "How long the oldest change of the last transaction had waited.", |g| {
                g.state.lock().delay.as_secs_f64()
            }),
            ("up", "gauge", "Whether every change is written as it happens.", |g| {
                f64::from(u8::from(g.state.lock().doing == Doing::Following))
            }),
            ("changes_total", "counter", "Changes of objects that were written.", |g| g.changes.load(Relaxed) as f64),
            ("transactions_total", "counter", "Transactions that wrote them.", |g| g.transactions.load(Relaxed) as f64),
            ("errors_total", "counter", "Times that it stood still, and tried again.", |g| {
                g.errors.load(Relaxed) as f64
            }),
            ("refused_rows_total", "counter", "Rows that the database did not take.", |g| {
                g.refused.load(Relaxed) as f64
            }),
            ("mended_rows_total", "counter", "Rows that a comparison found missing, wrong or left over.", |g| {
                g.mended.load(Relaxed) as f64
            }),
            ("compared_timestamp_seconds", "gauge", "When all rows were last compared with all objects.", |g| {
                g.compared_at.load(Relaxed) as f64
            }),
        ];
        for (name, kind, help, read) in series {
            let _ = writeln!(text, "# HELP onex_mirror_{name} {help}\n# TYPE onex_mirror_{name} {kind}");
            for (of, gauges) in KINDS.iter().zip(&self.0) {
                let _ = writeln!(text, "onex_mirror_{name}{{kind=\"{of}\"}} {}", read(gauges));
            }
        }
        text
    }
}

impl Gauges {
    pub fn at_rest_when_dropped(&self) -> AtRest<'_> {
        AtRest(self)
    }

    fn lag(&self) -> f64 {
        self.state.lock().behind_since.map_or(0.0, |since| since.elapsed().as_secs_f64())
    }

    /// A comparison begins.
    pub fn compares(&self) {
        let mut state = self.state.lock();
        // The first one decides whether it is ready; later ones find what hardly ever happens, and after trouble it is not over.
        if state.doing == Doing::Resting {
            state.doing = Doing::Comparing;
        }
        state.behind_since.get_or_insert_with(Instant::now);
    }

    /// A comparison is over: everything is in.
    pub fn compared(&self, rows: u64, at: i64) {
        *self.state.lock() = State { doing: Doing::Following, ..State::default() };
        self.rows.store(rows, Relaxed);
        self.compared_at.store(at, Relaxed);
    }

    /// Something failed. Answers whether all was well before.
    pub fn failed(&self, doing: Doing, why: String) -> bool {
        self.errors.fetch_add(1, Relaxed);
        let mut state = self.state.lock();
        state.behind_since.get_or_insert_with(Instant::now);
        state.why = why;
        let before = std::mem::replace(&mut state.doing, doing);
        !matches!(before, Doing::Away | Doing::Blind)
    }

    /// A change is about to be written that was seen at `oldest`.
    pub fn behind_since(&self, oldest: Instant) {
        self.state.lock().behind_since.get_or_insert(oldest);
    }

    /// A transaction wrote so many changes, of which the oldest had waited so long.
    pub fn wrote(&self, changes: usize, delay: Duration) {
        self.changes.fetch_add(changes as u64, Relaxed);
        self.transactions.fetch_add(1, Relaxed);
        self.state.lock().delay = delay;
    }

    /// Nothing that was seen is waiting, unless `!all`: then what waits is younger than what was written.
    pub fn caught_up(&self, all: bool) {
        self.state.lock().behind_since = (!all).then(Instant::now);
    }

    pub fn counted(&self, rows: u64) {
        self.rows.store(rows, Relaxed);
    }

    pub fn refused(&self, rows: u64) {
        self.refused.fetch_add(rows, Relaxed);
    }

    pub fn mended(&self, rows: usize) {
        self.mended.fetch_add(rows as u64, Relaxed);
    }
}
