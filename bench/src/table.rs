//! What was measured, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

/// One line of the result.
pub(crate) struct Row {
    name: String,
    pub(crate) count: usize,
    rate: Option<f64>,
    p50: Option<Duration>,
    p99: Option<Duration>,
    pub(crate) note: String,
}

impl Row {
    /// A row of many timed calls.
    pub(crate) fn timed(name: &str, spent: Duration, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at =
            |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied();
        let rate = times.len() as f64 / spent.as_secs_f64();
        Self {
            name: name.to_owned(),
            count: times.len(),
            rate: Some(rate),
            p50: at(0.5),
            p99: at(0.99),
            note: String::new(),
        }
    }

    /// A row that is one number of bytes.
    pub(crate) fn bytes(name: &str, bytes: u64) -> Self {
        Self::note(name, format!("{:.1} MB", bytes as f64 / 1e6))
    }

    /// A row that is only said.
    pub(crate) fn note(name: &str, note: String) -> Self {
        Self { name: name.to_owned(), count: 0, rate: None, p50: None, p99: None, note }
    }

    fn json(&self) -> Value {
        let millis = |time: Option<Duration>| time.map(|t| t.as_secs_f64() * 1e3);
        json!({
            "name": self.name, "count": self.count, "rate_per_s": self.rate,
            "p50_ms": millis(self.p50), "p99_ms": millis(self.p99), "note": self.note,
        })
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
        let count = if row.count == 0 { String::new() } else { row.count.to_string() };
        let rate = row.rate.map_or_else(String::new, |r| format!("{r:.0}"));
        println!("| {} | {count} | {rate} | {} | {} | {} |", row.name, millis(row.p50), millis(row.p99), row.note);
    }
}
