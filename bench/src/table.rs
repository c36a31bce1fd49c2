//! What was measured, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

/// One line of the result.
pub(crate) struct Row {
    /// What it is called by programs.
    id: String,
    /// And by people.
    name: String,
    spent: Duration,
    /// Each call, sorted.
    times: Vec<Duration>,
    /// How many calls a second.
    pub(crate) rate: Option<f64>,
    /// At how many calls a second it was measured, if that was fixed.
    pub(crate) offered: Option<f64>,
    /// How many times as fast as the rival.
    pub(crate) ratio: Option<f64>,
    bytes: Option<u64>,
    /// How many of them are the server's own memory, and not its program's.
    own_bytes: Option<u64>,
    pub(crate) note: String,
}

impl Row {
    /// A row of many timed calls.
    pub(crate) fn timed((id, name): (&str, &str), spent: Duration, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let rate = Some(times.len() as f64 / spent.as_secs_f64());
        Self { spent, times, rate, ..Self::note(id, name, String::new()) }
    }

    /// A row that is one number of bytes, if that is known.
    pub(crate) fn bytes(id: &str, name: &str, bytes: Option<u64>) -> Self {
        let note = bytes.map_or_else(|| "not told".to_owned(), |bytes| format!("{:.1} MB", bytes as f64 / 1e6));
        Self { bytes, ..Self::note(id, name, note) }
    }

    /// The same, with how much of it is the server's own, if that is known.
    pub(crate) fn of_which(mut self, own: Option<u64>) -> Self {
        if let Some(own) = own {
            self.note =
                format!("{}, of which {:.1} MB are its own and the rest is its program", self.note, own as f64 / 1e6);
        }
        self.own_bytes = own;
        self
    }

    /// A row that is only said.
    pub(crate) fn note(id: &str, name: &str, note: String) -> Self {
        let (id, name) = (id.to_owned(), name.to_owned());
        Self {
            id,
            name,
            spent: Duration::ZERO,
            times: Vec::new(),
            rate: None,
            offered: None,
            ratio: None,
            bytes: None,
            own_bytes: None,
            note,
        }
    }

    /// One row of several turns at the same thing.
    pub(crate) fn together(turns: Vec<Self>) -> Self {
        turns.into_iter().reduce(Self::and).unwrap_or_else(|| Self::note("", "", String::new()))
    }

    /// This turn and another one.
    pub(crate) fn and(self, other: Self) -> Self {
        let times = [self.times, other.times].concat();
        Self::timed((&self.id, &self.name), self.spent + other.spent, times)
    }

    /// The same, of somebody else.
    pub(crate) fn of_rival(self) -> Self {
        Self { id: format!("rival_{}", self.id), name: format!("rival: {}", self.name), ..self }
    }

    /// The same, measured at a fixed rate.
    pub(crate) fn at_rate(self, rate: f64) -> Self {
        Self { offered: Some(rate), ..self }
    }

    /// What it is called by programs.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// How many calls were timed.
    pub(crate) fn count(&self) -> usize {
        self.times.len()
    }

    /// The time that this share of the calls took at most.
    pub(crate) fn at(&self, share: f64) -> Option<Duration> {
        let place = (self.times.len() as f64 * share) as usize;
        self.times.get(place.min(self.times.len().saturating_sub(1))).copied()
    }

    fn json(&self) -> Value {
        let millis = |time: Option<Duration>| time.map(|t| t.as_secs_f64() * 1e3);
        let mut row = json!({
            "row": self.id, "name": self.name, "count": self.count(), "rate_per_s": self.rate,
            "p50_ms": millis(self.at(0.5)), "p99_ms": millis(self.at(0.99)), "note": self.note,
        });
        if let Some(ratio) = self.ratio {
            row["ratio_to_etcd_put"] = ratio.into();
        }
        if let Some(rate) = self.offered {
            row["offered_per_s"] = rate.into();
        }
        if let Some(bytes) = self.bytes {
            row["bytes"] = bytes.into();
        }
        if let Some(bytes) = self.own_bytes {
            row["own_bytes"] = bytes.into();
        }
        row
    }
}

/// How busy the machine is.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Prints the rows: this is what the tool is for.
#[expect(clippy::print_stdout, reason = "the result of the tool")]
pub(crate) fn print(rows: &[Row], as_json: bool) {
    if as_json {
        for row in rows {
            println!("{}", row.json());
        }
        return;
    }
    println!("| what | n | per second | p50 ms | p99 ms | |\n|---|---:|---:|---:|---:|---|");
    for row in rows {
        let millis =
            |time: Option<Duration>| time.map_or_else(String::new, |t| format!("{:.2}", t.as_secs_f64() * 1e3));
        let count = if row.count() == 0 { String::new() } else { row.count().to_string() };
        let rate = row.rate.map_or_else(String::new, |r| format!("{r:.0}"));
        let (p50, p99) = (millis(row.at(0.5)), millis(row.at(0.99)));
        let ratio = row.ratio.map(|ratio| format!("{ratio:.2} of etcd's raw puts"));
        let note = [ratio, Some(row.note.clone())].into_iter().flatten().filter(|note| !note.is_empty());
        let note = note.collect::<Vec<_>>().join("; ");
        println!("| {} | {count} | {rate} | {p50} | {p99} | {note} |", row.name);
    }
}
