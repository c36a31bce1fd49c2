//! Looking after one container: start it, watch it, start it again, stop it.

use crate::PodName;
use crate::backoff::Backoff;
use crate::cgroup::Limits;
use crate::home::Home;
use crate::launch::{self, Hindrance, Launch, Place};
use crate::log::ContainerLogs;
use crate::pod::{self, RestartPolicy};
use crate::probe::{self, Kind, Plan, Tally};
use crate::process::{Exit, Process};
use crate::runner::{Runner, Wish, with_causes};
use crate::seen::{ContainerSeen, PodSeen, State, Terminated};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long until a hindrance is looked at again: what a new Pod waits for is mostly there in a moment.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The longest time between two looks at a hindrance.
const LOOK_AGAIN_MOST: Duration = Duration::from_secs(1);

/// Kubernetes keeps this much of a message about an end.
const LAST_WORDS_BYTES: usize = 2048;

/// Whether a container is one of those that run first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Init(usize),
    Main(usize),
}

impl Part {
    /// Its spec in `pod`.
    fn of(self, pod: &Pod) -> Option<&Container> {
        match self {
            Self::Init(index) => pod::init_containers(pod).get(index),
            Self::Main(index) => pod::containers(pod).get(index),
        }
    }

    fn seen(self, seen: &mut PodSeen) -> Option<&mut ContainerSeen> {
        match self {
            Self::Init(index) => seen.init.get_mut(index),
            Self::Main(index) => seen.containers.get_mut(index),
        }
    }
}

/// Looks after one container of one Pod.
pub(crate) struct Keeper {
    pub(crate) runner: Arc<Runner>,
    pub(crate) part: Part,
    pub(crate) home: Home,
    pub(crate) logs: Arc<ContainerLogs>,
    pub(crate) wishes: watch::Receiver<Wish>,
    pub(crate) board: Arc<watch::Sender<PodSeen>>,
}

impl Keeper {
    /// Returns when the container ended for good: because its restart policy says so, or because the Pod is to stop.
    pub(crate) async fn run(mut self) {
        let settings = &self.runner.settings;
        let mut backoff = Backoff::new(
            Duration::from_secs(settings.restart_delay_seconds),
            Duration::from_secs(settings.restart_delay_max_seconds),
        );
        if !self.resume() {
            return;
        }
        while let Some((container, launch)) = self.prepare().await {
            let began = Instant::now();
            let (exit_code, changed) = self.run_once(&container, &launch).await;
            if self.is_stopping() {
                return;
            }
            if changed {
                self.wait("ContainerCreating", "the image of the container changed".to_owned());
                continue;
            }
            if !self.policy().restarts(exit_code) {
                return;
            }
            let delay = backoff.after(began.elapsed());
            self.back_off(&container, delay);
            if !self.sleep(delay).await {
                return;
            }
        }
    }

    /// One run from start to end: its exit code, and whether it ended because the container has to be another one.
    async fn run_once(&mut self, container: &Container, launch: &Launch) -> (i32, bool) {
        let (end, changed) = match self.start(container, launch).await {
            Ok(process) => self.attend(process, container, launch).await,
            Err(message) => {
                self.warn("Failed", "Starting", format!("Error: {message}"));
                (never_started(message), false)
            }
        };
        let exit_code = end.exit_code;
        self.change(|seen| {
            seen.state = State::Terminated(end);
            (seen.ready, seen.started) = (false, false);
        });
        (exit_code, changed)
    }

    /// Goes on where an earlier run of the node was; false when there is nothing to do any more.
    fn resume(&self) -> bool {
        let ended = self.look(|seen| seen.terminated().cloned());
        let Some(end) = ended else {
            return true;
        };
        if !self.policy().restarts(end.exit_code) {
            return false;
        }
        self.wait("ContainerCreating", String::new());
        true
    }

    /// Waits until the container can be started; `None` when the Pod is to stop first.
    async fn prepare(&mut self) -> Option<(Container, Launch)> {
        let mut told = None;
        let mut delays = Backoff::new(LOOK_AGAIN, LOOK_AGAIN_MOST);
        loop {
            if self.is_stopping() {
                return None;
            }
            let pod = self.pod();
            let container = self.part.of(&pod)?.clone();
            let place = Place {
                pod: &pod,
                home: &self.home,
                settings: &self.runner.settings,
                surroundings: &*self.runner.surroundings,
            };
            let hindrance = match launch::plan(&container, &place).await {
                Ok(launch) => return Some((container, launch)),
                Err(hindrance) => hindrance,
            };
            if told.as_ref() != Some(&hindrance) {
                self.tell(&hindrance);
                told = Some(hindrance);
            }
            self.sleep(delays.after(Duration::ZERO)).await;
        }
    }

    fn tell(&self, hindrance: &Hindrance) {
        self.wait(hindrance.reason(), hindrance.message().to_owned());
        match hindrance {
            Hindrance::NotYet(_) => {}
            Hindrance::Image(text) => self.warn("ErrImageNeverPull", "Pulling", text.clone()),
            Hindrance::Configuration(text) | Hindrance::Program(text) => {
                self.warn("Failed", "Starting", format!("Error: {text}"));
            }
        }
    }

    async fn start(&self, container: &Container, launch: &Launch) -> Result<Process, String> {
        let pod = self.pod();
        let uid = pod::uid(&pod);
        let log = self.logs.begin().map_err(|error| format!("opening the log: {error}"))?;
        let confinement =
            self.runner.cgroups.confine(uid, &container.name, Limits::of(container)).unwrap_or_else(|error| {
                tracing::warn!(%error, pod = %PodName::of(&pod), "running a container without its limits");
                Default::default()
            });
        let process = Process::start(launch, &self.runner.shim, confinement, log, &self.runner.spawner)
            .await
            .map_err(|error| with_causes(&error))?;
        let (started_at, id) = (process.started_at, process.id());
        let probed = probe::plans(container, &launch.arguments, self.home.address);
        let started = !asks(&probed, Kind::Startup);
        let ready = started && !asks(&probed, Kind::Readiness);
        self.change(|seen| {
            seen.state = State::Running { started_at };
            (seen.ready, seen.started) = (ready, started);
            seen.id.clone_from(&id);
        });
        let note = format!("Started container {} as process {}", container.name, id.trim_start_matches("process://"));
        self.runner.notices.normal(&pod, "Started", "Starting", note);
        Ok(process)
    }

    /// Stays with a running process until it ended, and says how, and whether it ended because it has to be another one.
    async fn attend(&mut self, mut process: Process, container: &Container, launch: &Launch) -> (Terminated, bool) {
        let plans = probe::plans(container, &launch.arguments, self.home.address);
        let asks_readiness = asks(&plans, Kind::Readiness);
        let mut probes = Probes::start(plans);
        let (mut kill_at, mut killed, mut changed) = (None, false, false);
        let status = loop {
            let stop_by = self.wishes.borrow_and_update().stop_by;
            if kill_at.is_none() {
                if stop_by.is_some() {
                    self.begin_to_stop(&process, "Stopping container");
                } else if self.has_changed(container) {
                    self.begin_to_stop(&process, "Container definition changed:");
                    (kill_at, changed) = (Some(self.grace_ends()), true);
                }
            }
            kill_at = kill_at.into_iter().chain(stop_by).min();
            tokio::select! {
                status = process.ended() => break status,
                () = until(kill_at), if !killed => {
                    process.kill();
                    killed = true;
                }
                Some(answer) = probes.next(), if kill_at.is_none() => {
                    if self.is_unwell(answer, asks_readiness) {
                        self.begin_to_stop(&process, "Container failed its probe:");
                        kill_at = Some(self.grace_ends());
                    }
                }
                alive = self.wishes.changed() => if alive.is_err() {
                    // Nobody is left to wish for anything: the node is going away.
                    process.kill();
                    break process.ended().await;
                },
            }
        };
        let exit = process.clean_up(status).await;
        (self.describe(&exit, &process, container), changed)
    }

    fn begin_to_stop(&self, process: &Process, why: &str) {
        let pod = self.pod();
        let name = self.part.of(&pod).map_or("", |container| container.name.as_str());
        self.runner.notices.normal(&pod, "Killing", "Killing", format!("{why} {name}"));
        self.change(|seen| seen.ready = false);
        process.terminate();
    }

    fn grace_ends(&self) -> Instant {
        Instant::now() + Duration::from_secs(pod::grace_seconds(&self.pod()))
    }

    fn has_changed(&self, container: &Container) -> bool {
        let pod = self.pod();
        self.part.of(&pod).is_some_and(|now| now.image != container.image)
    }

    /// Notes a probe's answer; true when the container has to be stopped for it.
    fn is_unwell(&self, answer: Answer, asks_readiness: bool) -> bool {
        if let (Err(why), true) = (&answer.result, answer.turned) {
            let note = format!("{} probe failed: {why}", answer.kind.name());
            self.warn("Unhealthy", "Probing", note);
        }
        match (answer.kind, answer.verdict) {
            (_, None) => false,
            (Kind::Readiness, Some(good)) => {
                self.change(|seen| seen.ready = good);
                false
            }
            (Kind::Startup, Some(true)) => {
                self.change(|seen| (seen.started, seen.ready) = (true, seen.ready || !asks_readiness));
                false
            }
            (Kind::Liveness, Some(true)) => false,
            (Kind::Startup | Kind::Liveness, Some(false)) => true,
        }
    }

    fn describe(&self, exit: &Exit, process: &Process, container: &Container) -> Terminated {
        let reason = match exit {
            Exit { out_of_memory: true, .. } => "OOMKilled",
            Exit { code: 0, .. } => "Completed",
            _ => "Error",
        };
        let tells = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let message = (tells && exit.code != 0).then(|| self.logs.last_words(LAST_WORDS_BYTES)).flatten();
        Terminated {
            exit_code: exit.code,
            signal: exit.signal,
            reason: reason.to_owned(),
            message: message.unwrap_or_default(),
            started_at: Some(process.started_at),
            finished_at: exit.at,
            id: process.id(),
        }
    }

    fn back_off(&self, container: &Container, delay: Duration) {
        let pod = self.pod();
        let message = format!(
            "back-off {} s restarting failed container={} pod={}",
            delay.as_secs(),
            container.name,
            PodName::of(&pod)
        );
        // A program that ended well is started again, but is not crashing.
        let failed = self.look(|seen| seen.terminated().is_none_or(|end| end.exit_code != 0));
        if failed {
            self.warn("BackOff", "Restarting", message.clone());
        }
        self.wait("CrashLoopBackOff", message);
    }

    /// The container is not running and will be tried again. A run that ended becomes the one before.
    fn wait(&self, reason: &str, message: String) {
        self.change(|seen| {
            let waiting = State::Waiting { reason: reason.to_owned(), message };
            if let State::Terminated(end) = std::mem::replace(&mut seen.state, waiting) {
                seen.last = Some(end);
                seen.restarts = seen.restarts.saturating_add(1);
            }
            (seen.ready, seen.started) = (false, false);
        });
    }

    /// False when the Pod is to stop before the time is over. Ends early when the container's image changes.
    async fn sleep(&mut self, delay: Duration) -> bool {
        let end = Instant::now() + delay;
        let pod = self.pod();
        let image = |pod: &Pod, part: Part| part.of(pod).and_then(|container| container.image.clone());
        let before = image(&pod, self.part);
        loop {
            if self.is_stopping() {
                return false;
            }
            if image(&self.pod(), self.part) != before {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep_until(end) => return true,
                alive = self.wishes.changed() => if alive.is_err() { return false },
            }
        }
    }

    fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.wishes.borrow().pod)
    }

    fn is_stopping(&self) -> bool {
        self.wishes.borrow().stop_by.is_some() || self.wishes.has_changed().is_err()
    }

    fn policy(&self) -> RestartPolicy {
        let policy = pod::restart_policy(&self.pod());
        match self.part {
            Part::Init(_) => policy.for_init(),
            Part::Main(_) => policy,
        }
    }

    fn warn(&self, reason: &'static str, action: &'static str, note: String) {
        self.runner.notices.warning(&self.pod(), reason, action, note);
    }

    fn change(&self, change: impl FnOnce(&mut ContainerSeen)) {
        self.board.send_if_modified(|seen| {
            let Some(container) = self.part.seen(seen) else {
                return false;
            };
            let before = container.clone();
            change(container);
            *container != before
        });
    }

    fn look<T>(&self, look: impl FnOnce(&ContainerSeen) -> T) -> T
    where
        T: Default,
    {
        let mut seen = self.board.borrow().clone();
        self.part.seen(&mut seen).map(|container| look(container)).unwrap_or_default()
    }
}

fn never_started(message: String) -> Terminated {
    Terminated {
        exit_code: 128,
        signal: None,
        reason: "StartError".to_owned(),
        message,
        started_at: None,
        finished_at: Timestamp::now(),
        id: String::new(),
    }
}

fn asks(plans: &[Plan], kind: Kind) -> bool {
    plans.iter().any(|plan| plan.kind == kind)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// One answer to a probe.
struct Answer {
    kind: Kind,
    result: Result<(), String>,
    verdict: Option<bool>,
    /// The verdict is not the one before.
    turned: bool,
}

/// The probes of one running process. Dropping them stops the questions.
struct Probes {
    answers: mpsc::Receiver<Answer>,
    _tasks: JoinSet<()>,
}

impl Probes {
    fn start(plans: Vec<Plan>) -> Self {
        let (sender, answers) = mpsc::channel(4);
        let (startup, others): (Vec<_>, Vec<_>) = plans.into_iter().partition(|plan| plan.kind == Kind::Startup);
        // Kubernetes asks nothing else before the startup probe has succeeded.
        let (open, gate) = watch::channel(startup.is_empty());
        let open = Arc::new(open);
        let mut tasks = JoinSet::new();
        for plan in startup {
            tasks.spawn(ask_until_good(plan, sender.clone(), Arc::clone(&open)));
        }
        for plan in others {
            let (sender, mut gate) = (sender.clone(), gate.clone());
            tasks.spawn(async move {
                if gate.wait_for(|open| *open).await.is_ok() {
                    ask_forever(plan, sender, || false).await;
                }
            });
        }
        Self { answers, _tasks: tasks }
    }

    /// `None` for ever when there are no probes.
    async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

async fn ask_until_good(plan: Plan, sender: mpsc::Sender<Answer>, open: Arc<watch::Sender<bool>>) {
    let opened = Arc::clone(&open);
    ask_forever(plan, sender, move || {
        opened.send_replace(true);
        true
    })
    .await;
    drop(open);
}

/// Puts the question again and again; `enough` is asked after each good verdict whether to stop.
async fn ask_forever(plan: Plan, sender: mpsc::Sender<Answer>, enough: impl Fn() -> bool) {
    let mut tally = Tally::new(&plan);
    let mut before = None;
    tokio::time::sleep(plan.delay).await;
    loop {
        let asked = Instant::now();
        let result = probe::ask(&plan.check, plan.timeout).await;
        let good = result.is_ok();
        let verdict = tally.count(good);
        let turned = verdict.is_some() && verdict != before;
        before = verdict.or(before);
        let answer = Answer { kind: plan.kind, result, verdict, turned };
        if sender.send(answer).await.is_err() || verdict == Some(true) && enough() {
            return;
        }
        // However long the answer took: one that hangs is not asked less often.
        tokio::time::sleep_until(asked + tally.period()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Check;
    use std::net::Ipv4Addr;

    #[tokio::test(start_paused = true)]
    async fn a_container_that_does_not_answer_is_unwell_after_as_many_periods_as_agreed() {
        // The system takes the connection, and nobody ever reads from it.
        let deaf = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let host = Ipv4Addr::LOCALHOST.to_string();
        let plan = Plan {
            kind: Kind::Liveness,
            check: Check::Http {
                host,
                port: deaf.local_addr().unwrap().port(),
                path: "/".to_owned(),
                headers: Vec::new(),
            },
            delay: Duration::ZERO,
            period_until_good: Duration::from_secs(5),
            period: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            successes: 1,
            failures_until_good: 3,
            failures: 3,
        };
        let (sender, mut answers) = mpsc::channel(4);
        let asking = tokio::spawn(ask_forever(plan, sender, || false));
        let start = Instant::now();
        while answers.recv().await.unwrap().verdict.is_none() {}
        assert_eq!(start.elapsed().as_secs(), 2 * 5 + 2);
        asking.abort();
    }
}
