//! What can be set about the controllers. Every field has a default, so that an empty section is a working platform.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::runtime::controller::Action;
use serde::{Deserialize, Serialize};

use crate::{Name, garbage, job, leader, mirror, namespace};

/// Settings of the controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which controllers run. Default: all of them.
    pub controllers: Vec<Name>,
    /// The image of miners whose Chain names none. Default `ccr.ccs.tencentyun.com/onexstack/onex-toyblc-amd64:v0.1.0`.
    pub image: String,
    /// The types a Miner can have: what it gets of the machine, and how hard its blocks are. Default: S1.SMALL1 (50m,
    /// 128Mi, difficulty 7), S1.SMALL2 (100m, 256Mi, 5), M1.MEDIUM1 (150m, 512Mi, 3), M1.MEDIUM2 (250m, 1Gi, 1).
    pub types: BTreeMap<String, MinerType>,
    /// How many Miners of one set are created or deleted in one pass. Default 500.
    pub batch: usize,
    /// How many objects of one kind are worked on at the same time. Default 64.
    pub workers: u16,
    /// Seconds after which an object is looked at again although nothing changed; 0 never does that. Default 36000 (10
    /// hours).
    pub resync_seconds: u64,
    /// The domain under which miners find Services: `<service>.<namespace>.<this>`. Default `svc.onexstack.com`.
    pub service_domain: String,
    /// The node that Pods are bound to; empty leaves that to the scheduler of the cluster the Pods live in. Default empty.
    pub node: String,
    /// Seconds a miner has between SIGTERM and SIGKILL. Default 5.
    pub grace_seconds: u32,
    /// Only objects whose label `apps.onex.io/watch-filter` has this value are worked on; empty works on all. Default empty.
    pub watch_filter: String,
    /// Settings of the job controller.
    pub job: job::Settings,
    /// Settings of the namespace controller.
    pub namespace: namespace::Settings,
    /// Settings of the garbage controller.
    pub garbage: garbage::Settings,
    /// Settings of the mirror controller.
    pub mirror: mirror::Settings,
    /// Who works, of several processes with the same controllers.
    pub leader: leader::Settings,
}

/// What a Miner of one type gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinerType {
    /// Its share of the processor, as a quantity: `50m` is a twentieth of one.
    pub cpu: String,
    /// Its memory, as a quantity: `128Mi`.
    pub memory: String,
    /// How hard its blocks are to find.
    #[serde(alias = "miningDifficulty")]
    pub mining_difficulty: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let types = [
            ("S1.SMALL1", "50m", "128Mi", 7),
            ("S1.SMALL2", "100m", "256Mi", 5),
            ("M1.MEDIUM1", "150m", "512Mi", 3),
            ("M1.MEDIUM2", "250m", "1Gi", 1),
        ];
        Self {
            controllers: crate::controllers().to_vec(),
            image: "ccr.ccs.tencentyun.com/onexstack/onex-toyblc-amd64:v0.1.0".to_owned(),
            types: types
                .map(|(name, cpu, memory, difficulty)| (name.to_owned(), MinerType::new(cpu, memory, difficulty)))
                .into(),
            batch: 500,
            workers: 64,
            resync_seconds: 36_000,
            service_domain: "svc.onexstack.com".to_owned(),
            node: String::new(),
            grace_seconds: 5,
            watch_filter: String::new(),
            job: job::Settings::default(),
            namespace: namespace::Settings::default(),
            garbage: garbage::Settings::default(),
            mirror: mirror::Settings::default(),
            leader: leader::Settings::default(),
        }
    }
}

impl Settings {
    /// When an object is looked at again although nothing changed: after `wait`, if there is something to wait for.
    pub(crate) fn next_look(&self, wait: Option<Duration>) -> Action {
        let resync = Some(Duration::from_secs(self.resync_seconds)).filter(|resync| !resync.is_zero());
        wait.or(resync).map_or_else(Action::await_change, Action::requeue)
    }
}

impl MinerType {
    /// A type that gets this much.
    pub fn new(cpu: &str, memory: &str, mining_difficulty: u32) -> Self {
        Self { cpu: cpu.to_owned(), memory: memory.to_owned(), mining_difficulty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default() {
        assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
    }

    #[test]
    fn what_waits_for_nothing_is_looked_at_again_after_the_resync_if_there_is_one() {
        let with = |resync_seconds| Settings { resync_seconds, ..Settings::default() };
        let seconds = |seconds| Action::requeue(Duration::from_secs(seconds));
        assert_eq!(with(60).next_look(None), seconds(60));
        assert_eq!(with(60).next_look(Some(Duration::from_secs(1))), seconds(1));
        assert_eq!(with(0).next_look(None), Action::await_change());
        assert_eq!(with(0).next_look(Some(Duration::from_secs(1))), seconds(1));
    }

    /// In OneX none ran unless `--controllers='*'` was given, so that nothing was ever emptied or collected.
    #[test]
    fn b14_all_controllers_run_unless_some_are_named() {
        assert_eq!(Settings::default().controllers, crate::controllers());
    }

    /// In OneX two programs with different controllers stood for the same lease, and one of them never worked.
    #[test]
    fn b36_the_lease_has_a_name_that_no_program_of_onex_stands_for() {
        let name = Settings::default().leader.name;
        assert!(!["controller-manager", "onex-controller-manager"].contains(&name.as_str()), "{name}");
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(serde_json::from_str::<Settings>(r#"{"batches": 3}"#).is_err());
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let printed = serde_json::to_string(&Settings::default()).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&printed).unwrap(), Settings::default());
    }
}
