//! Filling twice is filling once, and never takes anything away.

use onex_crds::{
    Chain, ChainSpec, CronJob, CronJobSpec, JobSpec, JobTemplate, Kind, Miner, MinerSet, MinerSetSpec, MinerSpec,
    MinerTemplate, TemplateMeta, minerset,
};
use proptest::prelude::*;

fn word() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-zA-Z0-9.]{1,12}"]
}

fn miner_spec() -> impl Strategy<Value = MinerSpec> {
    (word(), word(), word(), word(), prop::option::of(word()), prop::collection::btree_map(word(), word(), 0..3))
        .prop_map(|(display_name, miner_type, chain_name, restart_policy, pod_deletion_timeout, labels)| MinerSpec {
            metadata: TemplateMeta { labels, ..TemplateMeta::default() },
            display_name,
            miner_type,
            chain_name,
            restart_policy,
            pod_deletion_timeout,
        })
}

fn chain_spec() -> impl Strategy<Value = ChainSpec> {
    (word(), word(), word(), any::<i32>(), prop::option::of(word())).prop_map(
        |(display_name, miner_type, image, min_mine_interval_seconds, bootstrap_account)| ChainSpec {
            display_name,
            miner_type,
            image,
            min_mine_interval_seconds,
            bootstrap_account,
        },
    )
}

fn minerset_spec() -> impl Strategy<Value = MinerSetSpec> {
    (prop::option::of(any::<i32>()), miner_spec(), word(), word(), any::<i32>(), prop::option::of(any::<i32>()))
        .prop_map(|(replicas, spec, display_name, delete_policy, min_ready_seconds, progress_deadline_seconds)| {
            MinerSetSpec {
                replicas,
                template: MinerTemplate { spec, ..MinerTemplate::default() },
                display_name,
                delete_policy,
                min_ready_seconds,
                progress_deadline_seconds,
                ..MinerSetSpec::default()
            }
        })
}

fn settles<K: Kind + Clone + PartialEq + std::fmt::Debug>(mut object: K, fill: impl Fn(&mut K)) {
    fill(&mut object);
    let once = object.clone();
    fill(&mut object);
    assert_eq!(object, once);
    // What was filled in survives the trip over the wire, so the next update sees it too.
    let wire: K = serde_json::from_value(serde_json::to_value(&once).unwrap()).unwrap();
    assert_eq!(wire, once);
}

fn job_spec() -> impl Strategy<Value = JobSpec> {
    (word(), prop::option::of(word()), prop::option::of(any::<bool>())).prop_map(|(type_, policy, suspend)| JobSpec {
        type_,
        suspend,
        template: policy.map(|policy| serde_json::json!({"spec": {"restartPolicy": policy}})),
        ..JobSpec::default()
    })
}

fn cronjob_spec() -> impl Strategy<Value = CronJobSpec> {
    (word(), word(), prop::option::of(any::<bool>()), job_spec(), prop::option::of(any::<i32>())).prop_map(
        |(schedule, concurrency_policy, suspend, spec, limit)| CronJobSpec {
            schedule,
            concurrency_policy,
            suspend,
            job_template: JobTemplate { spec, ..JobTemplate::default() },
            failed_jobs_history_limit: limit,
            ..CronJobSpec::default()
        },
    )
}

proptest! {
    #[test]
    fn filling_a_cronjob_twice_is_filling_it_once(spec in cronjob_spec()) {
        settles(CronJob::new("a", spec), Kind::fill);
    }

    #[test]
    fn filling_a_chain_twice_is_filling_it_once(spec in chain_spec()) {
        settles(Chain::new("a", spec), Kind::fill);
    }

    #[test]
    fn filling_a_miner_twice_is_filling_it_once(spec in miner_spec()) {
        settles(Miner::new("a", spec), Kind::fill);
    }

    #[test]
    fn filling_and_admitting_a_minerset_twice_is_doing_it_once(spec in minerset_spec()) {
        settles(MinerSet::new("a", spec), |set| { set.fill(); minerset::admit(set) });
    }

    #[test]
    fn what_was_written_is_never_overwritten(spec in miner_spec()) {
        let mut miner = Miner::new("a", spec.clone());
        miner.fill();
        prop_assert!(spec.miner_type.is_empty() || miner.spec.miner_type == spec.miner_type);
        prop_assert!(spec.restart_policy.is_empty() || miner.spec.restart_policy == spec.restart_policy);
        prop_assert!(spec.pod_deletion_timeout.is_none() || miner.spec.pod_deletion_timeout == spec.pod_deletion_timeout);
        prop_assert_eq!(miner.spec.metadata, spec.metadata);
    }
}
