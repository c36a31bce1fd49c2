//! Jobs of OneX: programs that run once, or on a schedule.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::world::{PATIENCE, World, eventually};

/// A platform on which the image `local` runs a container's own command, and which does not wait long before it tries again.
fn platform() -> World {
    let images = "node.images={local=[]}";
    let delay = "controllers.job.backoff_seconds=1";
    World::start_with(&["--ports", "auto", "--set", "node.cgroup_parent=", "--set", images, "--set", delay])
}

/// A template of a Pod that runs these words of the shell.
fn template(script: &str, policy: &str) -> String {
    format!(
        "{{spec: {{restartPolicy: {policy}, terminationGracePeriodSeconds: 1,
          containers: [{{name: c, image: local, command: [sh, -c, '{script}']}}]}}}}"
    )
}

fn create_job(world: &World, name: &str, spec: &str) {
    world.create(&format!(
        "{{apiVersion: batch.onex.io/v1beta1, kind: Job, metadata: {{name: {name}, namespace: jobs}}, spec: {{{spec}}}}}"
    ));
}

/// The Job as soon as it is in this phase.
fn in_phase(world: &World, name: &str, phase: &str) -> Value {
    eventually(PATIENCE, || {
        let job = world.get(&format!("jobs.batch.onex.io {name} -n jobs"));
        if job["status"]["phase"] == phase {
            Ok(job)
        } else {
            Err(format!("{name} should be {phase}: {}", job["status"]))
        }
    })
}

/// B29: in OneX, nobody did a Job.
#[test]
fn b29_a_schedule_runs_real_processes_and_kubectl_shows_it() {
    let world = platform();
    let told = world.file("told", "");
    let spec = template(&format!("echo $HOSTNAME >> {told}; echo hello"), "Never");
    world.create(&format!(
        "{{apiVersion: batch.onex.io/v1beta1, kind: CronJob, metadata: {{name: tick, namespace: jobs}},
          spec: {{schedule: '@every 2s', concurrencyPolicy: Forbid, jobTemplate: {{spec: {{template: {spec}}}}}}}}}"
    ));
    let lines = || -> Vec<String> { fs::read_to_string(&told).unwrap().lines().map(str::to_owned).collect() };
    let ran = eventually(PATIENCE, || match lines() {
        lines if lines.len() >= 5 => Ok(lines),
        lines => Err(format!("only these ran: {lines:?}")),
    });
    assert_eq!(ran.iter().collect::<BTreeSet<_>>().len(), ran.len(), "one ran twice: {ran:?}");

    let table = world.kubectl("get cronjobs.batch.onex.io -n jobs").ok();
    let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    assert_eq!(rows.next().unwrap(), ["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST", "SCHEDULE", "AGE"]);
    assert_eq!(rows.next().unwrap()[..5], ["tick", "@every", "2s", "<none>", "False"], "{table}");
    world.kubectl("patch ocj tick -n jobs --type=merge -p {\"spec\":{\"suspend\":true}}").ok();
    let cron = eventually(PATIENCE, || {
        let cron = world.get("ocj tick -n jobs");
        let quiet = cron["status"]["active"].is_null() && cron["status"]["lastSuccessfulTime"].is_string();
        if quiet { Ok(cron) } else { Err(format!("something still runs: {}", cron["status"])) }
    });
    assert!(cron["status"]["lastScheduleTime"].is_string(), "{cron}");
    // Three that succeeded are kept, and what they said can be read.
    let jobs = eventually(PATIENCE, || match world.names("jobs.batch.onex.io -n jobs") {
        jobs if jobs.len() <= 3 => Ok(jobs),
        jobs => Err(format!("these are still there: {jobs:?}")),
    });
    let job = in_phase(&world, jobs.last().unwrap(), "Succeeded");
    let pod = job["status"]["podRef"]["name"].as_str().unwrap();
    assert_eq!(world.kubectl(&format!("logs {pod} -n jobs")).ok(), "hello\n");
    assert!(lines().contains(&pod.to_owned()));

    // B30: in OneX, every pass over a CronJob printed a dozen lines.
    assert!(!world.said().contains("tick"), "{}", world.said());

    world.kubectl("delete ocj tick -n jobs").ok();
    eventually(PATIENCE, || match world.names("jobs.batch.onex.io,pods -n jobs") {
        left if left.is_empty() => Ok(()),
        left => Err(format!("these are left: {left:?}")),
    });
}

#[test]
fn a_program_that_fails_is_run_again_as_often_as_is_said_and_one_that_takes_too_long_is_ended() {
    let world = platform();
    create_job(&world, "bad", &format!("backoffLimit: 1, template: {}", template("echo no; exit 3", "Never")));
    let again = world.file("again", "");
    fs::remove_file(&again).unwrap();
    let second_time = template(&format!("test -e {again} && exit 0; touch {again}; exit 1"), "OnFailure");
    create_job(&world, "second-time", &format!("template: {second_time}"));
    let slow = template("sleep 612 & wait", "Never");
    create_job(&world, "slow", &format!("activeDeadlineSeconds: 2, template: {slow}"));

    let bad = in_phase(&world, "bad", "Failed");
    assert_eq!(bad["status"]["failed"], 2);
    assert_eq!(bad["status"]["errorMessage"], "Job has reached the specified backoff limit");
    for pod in ["bad-0", "bad-1"] {
        assert_eq!(world.kubectl(&format!("logs {pod} -n jobs")).ok(), "no\n");
        let ended = world.get(&format!("pod {pod} -n jobs"))["status"].clone();
        assert_eq!(ended["phase"], "Failed");
        assert_eq!(ended["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    }
    // The same Pod, and another run of its container.
    let second_time = in_phase(&world, "second-time", "Succeeded");
    assert_eq!(
        (&second_time["status"]["failed"], &second_time["status"]["podRef"]["name"]),
        (&1.into(), &"second-time-0".into())
    );
    let slow = in_phase(&world, "slow", "Failed");
    assert_eq!(slow["status"]["conditions"][0]["reason"], "DeadlineExceeded");
    let sleeps = world.processes().into_iter().filter(|(_, words)| words.contains(&"612".to_owned()));
    assert_eq!(sleeps.collect::<Vec<_>>(), []);
}

#[test]
fn a_job_is_done_although_the_platform_was_killed_while_it_ran() {
    let world = platform();
    let begun = world.file("begun", "");
    fs::remove_file(&begun).unwrap();
    let script = format!("test -e {begun} && exit 0; touch {begun}; sleep 613");
    create_job(&world, "long", &format!("template: {}", template(&script, "Never")));
    in_phase(&world, "long", "Running");
    eventually(PATIENCE, || if Path::new(&begun).exists() { Ok(()) } else { Err("it has not begun".to_owned()) });
    world.crash();
    world.up();
    let done = in_phase(&world, "long", "Succeeded");
    assert_eq!((&done["status"]["failed"], &done["status"]["podRef"]["name"]), (&1.into(), &"long-1".into()));
    assert_eq!(world.names("pods -n jobs"), ["long-0", "long-1"]);
}

#[test]
fn the_samples_of_jobs_apply_as_they_are() {
    let world = World::shared();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("manifests/sample/onex");
    let apply = format!(
        "apply -n samples -f {} -f {}",
        samples.join("job.yaml").display(),
        samples.join("cronjob.yaml").display()
    );
    world.kubectl("create namespace samples").ok();
    assert_eq!(
        world.kubectl(&apply).ok(),
        "job.batch.onex.io/my-aws-job created\ncronjob.batch.onex.io/db-backup created\n"
    );
    assert_eq!(
        world.kubectl(&apply).ok(),
        "job.batch.onex.io/my-aws-job unchanged\ncronjob.batch.onex.io/db-backup unchanged\n"
    );
    let table = world.kubectl("get oj -n samples").ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(
        (&rows[0][..], &rows[1][..3]),
        (&["NAME", "TYPE", "PHASE", "AGE"][..], &["my-aws-job", "AWS", "Pending"][..])
    );
    assert_eq!(
        world.kubectl("get oj -n samples --field-selector=spec.type=AWS -o name").ok(),
        "job.batch.onex.io/my-aws-job\n"
    );
    world.kubectl("explain cronjob.spec.jobTemplate.spec.providerSpec --api-version=batch.onex.io/v1beta1").ok();
    world.kubectl("explain job.spec.template.spec.containers --api-version=batch.onex.io/v1beta1").ok();
    let refused = world.kubectl("patch ocj db-backup -n samples --type=merge -p {\"spec\":{\"timeZone\":\"Mars/X\"}}");
    assert!(refused.refused().contains("spec.timeZone: Invalid value: \"Mars/X\": unknown time zone Mars/X"));
    world.kubectl("delete namespace samples --wait=false").ok();
}
