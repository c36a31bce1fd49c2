//! The parts that run in this process, and the order in which they stop.

use std::fmt::Display;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Parts that run, in stages: what was started last is stopped first, because it uses what is below.
#[derive(Debug)]
pub struct Platform {
    stages: Vec<Stage>,
    ended: mpsc::Sender<String>,
    endings: mpsc::Receiver<String>,
}

/// Parts that stop together.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    stop: CancellationToken,
    tasks: TaskTracker,
    ended: mpsc::Sender<String>,
}

impl Platform {
    /// A platform of which nothing runs yet.
    pub fn new() -> Self {
        // One ending is enough to stop everything; the others are told in vain.
        let (ended, endings) = mpsc::channel(1);
        Self { stages: Vec::new(), ended, endings }
    }

    /// A new stage on top of those there are.
    pub fn stage(&mut self, name: &'static str) -> &Stage {
        let stage =
            Stage { name, stop: CancellationToken::new(), tasks: TaskTracker::new(), ended: self.ended.clone() };
        self.stages.push(stage);
        &self.stages[self.stages.len() - 1]
    }

    /// Waits until a part ends that nobody asked to, and says which and why.
    pub async fn ending(&mut self) -> String {
        match self.endings.recv().await {
            Some(ending) => ending,
            None => std::future::pending().await, // cannot be: `ended` is held here
        }
    }

    /// Stops everything, top stage first, within `patience` in all. Answers what did not stop in time.
    pub async fn stop(mut self, patience: Duration) -> Vec<&'static str> {
        let deadline = Instant::now() + patience;
        let mut late = Vec::new();
        while let Some(stage) = self.stages.pop() {
            stage.stop.cancel();
            stage.tasks.close();
            if tokio::time::timeout_at(deadline, stage.tasks.wait()).await.is_err() {
                late.push(stage.name);
            }
        }
        late
    }
}

impl Stage {
    /// What parts of this stage watch to learn that they should stop.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs `work` until it ends. It should end when [`Stage::token`] is cancelled, and not before.
    pub fn run<E>(&self, part: &'static str, work: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Display + Send + 'static,
    {
        let (stop, ended) = (self.stop.clone(), self.ended.clone());
        self.tasks.spawn(async move {
            // In a task of its own, so that a panic is an answer here and not the end of this task too.
            let ending = match tokio::spawn(work).await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => format!("the {part} ended by itself"),
                Ok(Err(error)) => format!("the {part} failed: {error:#}"),
                Err(crash) => format!("the {part} crashed: {crash}"),
            };
            // If the channel is full, another part's ending is already being told.
            let _ = ended.try_send(ending);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn what_was_started_last_stops_first() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut platform = Platform::new();
        for name in ["ground", "roof"] {
            let (order, stage) = (order.clone(), platform.stage(name));
            let stop = stage.token();
            stage.run(name, async move {
                stop.cancelled().await;
                order.lock().unwrap().push(name);
                Ok::<_, Infallible>(())
            });
        }
        assert!(platform.stop(Duration::from_secs(5)).await.is_empty());
        assert_eq!(*order.lock().unwrap(), ["roof", "ground"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_stop_in_time_is_named_and_holds_up_nobody() {
        let mut platform = Platform::new();
        platform.stage("deaf").run("part", std::future::pending::<Result<(), Infallible>>());
        assert_eq!(platform.stop(Duration::from_secs(5)).await, ["deaf"]);
    }

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_noticed_and_so_is_one_that_panics() {
        let mut platform = Platform::new();
        platform.stage("one").run("failing part", async { Err::<(), _>("no disk") });
        assert_eq!(platform.ending().await, "the failing part failed: no disk");
        platform.stage("two").run("broken part", async { panic!("a bug") as Result<(), Infallible> });
        assert!(platform.ending().await.starts_with("the broken part crashed"));
    }
}
