//! The one thread that looks for what containers left behind.
//!
//! A child that made a session of its own is in nobody's process group, but still carries the mark of its container. To find it
//! means to look at every process of the machine, so all that ended meanwhile are looked for at once.

use crate::records::Records;
use crate::{Error, Result};
use tokio::sync::{mpsc, oneshot};

/// How many ends of containers wait for the thread at most.
const QUEUE: usize = 64;

/// One container that ended.
struct Request {
    mark: String,
    answer: oneshot::Sender<()>,
}

/// Kills what containers left behind.
#[derive(Debug, Clone)]
pub(crate) struct Reaper(mpsc::Sender<Request>);

impl Reaper {
    /// Starts the thread.
    pub(crate) fn start(records: Records) -> Result<Self> {
        let (requests, receiver) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("onex-reaper".to_owned())
            .spawn(move || serve(receiver, &records))
            .map_err(Error::Reaper)?;
        Ok(Self(requests))
    }

    /// Kills every process that carries `mark`, and returns when they are gone.
    pub(crate) async fn reap(&self, mark: String) {
        let (answer, answered) = oneshot::channel();
        if self.0.send(Request { mark, answer }).await.is_ok() {
            let _ = answered.await;
        }
    }
}

fn serve(mut requests: mpsc::Receiver<Request>, records: &Records) {
    while let Some(first) = requests.blocking_recv() {
        let mut ended = vec![first];
        while let Ok(next) = requests.try_recv() {
            ended.push(next);
        }
        let (marks, answers): (Vec<_>, Vec<_>) = ended.into_iter().map(|ended| (ended.mark, ended.answer)).unzip();
        let killed = records.kill_marked(&marks);
        if killed > 0 {
            tracing::debug!(killed, "killed processes that outlived their containers");
        }
        for answer in answers {
            let _ = answer.send(());
        }
    }
}
