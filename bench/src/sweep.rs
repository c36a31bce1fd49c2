//! Open-loop loads: requests are sent at a fixed rate, whatever the answers take.
//!
//! A time begins when its request was due. Who is late because the server is, counts that too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::Semaphore;

use crate::{http::Server, lean::Lean, load::Work, objects::Objects, table::Row};

/// As many requests may be on their way as there are connections; who finds none free waits, and that is counted.
const CONNECTIONS: usize = 256;

/// The shares of a closed loop's rate that a sweep sends at: from idle to the limit.
const SHARES: [f64; 6] = [0.1, 0.25, 0.5, 0.7, 0.85, 1.0];

/// What is measured at fixed rates: what programs call it, what people call it, and what is done.
pub(crate) const WORKS: [(&str, &str, Work); 3] =
    [("create_open", "create", Work::Create), ("get_open", "get", Work::Get), ("update_open", "update", Work::Update)];

/// The rates of a sweep up to a closed loop's rate.
pub(crate) fn rates(closed: Option<f64>) -> Vec<u32> {
    let closed = closed.unwrap_or_default();
    SHARES.iter().map(|share| (closed * share) as u32).filter(|rate| *rate > 0).collect()
}

/// A load at fixed rates.
pub(crate) struct Sweep {
    connections: Vec<Lean>,
    objects: Arc<Objects>,
    /// So many objects are there to be read and changed.
    present: usize,
    /// How many rates there were: what is created at one has other names than what is created at the next.
    round: usize,
}

impl Sweep {
    /// Opens the connections. Objects of the `present` ones that were made as `many0` are read and changed.
    pub(crate) async fn new(server: &Server, objects: &Arc<Objects>, present: usize) -> Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(server.connect_lean().await?);
        }
        Ok(Self { connections, objects: objects.clone(), present: present.max(1), round: 0 })
    }

    /// Sends so many requests a second for a while.
    pub(crate) async fn at(
        &mut self,
        (id, name, work): (&str, &str, Work),
        rate: u32,
        length: Duration,
    ) -> Result<Row> {
        let count = ((f64::from(rate) * length.as_secs_f64()) as usize).max(1);
        self.round += 1;
        let (round, present) = (self.round, self.present);
        let (due, next) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let began = Instant::now();
        let client = |mut connection: Lean| {
            let (objects, due, next) = (self.objects.clone(), due.clone(), next.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    due.acquire().await.context("the clock of the load stopped")?.forget();
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok((connection, times));
                    }
                    let name = match work {
                        Work::Create => format!("open{round}-{number}"),
                        Work::Get | Work::Update => format!("many0-{:06}", number % present),
                    };
                    let value = format!("open{round}-{number}");
                    work.once(&mut connection, &objects, &name, &value).await?;
                    times.push((began + place(number, rate)).elapsed());
                }
            })
        };
        let clients: Vec<_> = self.connections.drain(..).map(client).collect();
        let clock = tokio::task::spawn_blocking(move || keep_time(began, rate, count, &due));
        let mut times = Vec::new();
        for client in clients {
            let (connection, its) = client.await??;
            times.extend(its);
            self.connections.push(connection);
        }
        clock.await?;
        Ok(Row::timed((id, &format!("{name}, {rate} a second")), began.elapsed(), times).at_rate(f64::from(rate)))
    }
}

/// When a request is due, after the beginning.
fn place(number: usize, rate: u32) -> Duration {
    Duration::from_secs_f64(number as f64 / f64::from(rate.max(1)))
}

/// Lets each request go when it is due, and at the end everybody. In a thread of its own: the runtime's timers go off a
/// millisecond late, which is more than many answers take.
fn keep_time(began: Instant, rate: u32, count: usize, due: &Semaphore) {
    for number in 0..count {
        let wait = (began + place(number, rate)).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        due.add_permits(1);
    }
    due.add_permits(CONNECTIONS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_goes_from_idle_to_the_limit() {
        assert_eq!(rates(Some(1000.0)), [100, 250, 500, 700, 850, 1000]);
        assert_eq!(rates(Some(5.0)), [1, 2, 3, 4, 5], "nothing is sent at no rate");
        assert!(rates(None).is_empty());
    }

    #[test]
    fn requests_are_let_go_when_they_are_due_and_not_before() {
        let (due, began) = (Semaphore::new(0), Instant::now());
        keep_time(began, 100, 6, &due);
        assert!(began.elapsed() >= place(5, 100));
        assert_eq!(place(5, 100), Duration::from_millis(50));
        assert_eq!(due.available_permits(), 6 + CONNECTIONS);
    }
}
