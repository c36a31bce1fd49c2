//! The kinds that every cluster has, as kubectl's users make and look at them.

use crate::world::World;

fn created(world: &World, line: &str) {
    let said = world.kubectl(&format!("-n kinds {line}")).ok();
    assert!(said.contains(" created") || said.contains(" autoscaled"), "{line}: {said}");
}

#[test]
fn kubectl_makes_shows_and_changes_the_usual_kinds() {
    let world = World::shared();
    world.kubectl("create namespace kinds").ok();
    for line in [
        "create deployment web --image=nginx:1 --replicas=2",
        "autoscale deployment web --min=1 --max=3 --cpu-percent=50",
        "create job once --image=busybox -- true",
        "create job again --image=busybox",
        "create cronjob often --image=busybox --schedule=*/5****",
        "create ingress door --rule=a.example/*=web:80",
        "create poddisruptionbudget few --selector=app=web --min-available=1",
    ] {
        let line = line.replace("*/5****", "@hourly");
        created(&world, &line);
    }
    world.kubectl("create priorityclass urgent --value=1000").ok();
    let all = world.kubectl("get all -o wide -n kinds").ok();
    for row in
        ["deployment.apps/web", "job.batch/once", "cronjob.batch/often", "horizontalpodautoscaler.autoscaling/web"]
    {
        assert!(all.contains(row), "{row} is missing:\n{all}");
    }
    for heading in ["UP-TO-DATE", "SELECTOR", "COMPLETIONS", "LAST SCHEDULE", "MINPODS"] {
        assert!(all.contains(heading), "{heading} is missing:\n{all}");
    }
    for what in ["deployment web", "job once", "cronjob often", "ingress door", "pdb few", "hpa web", "pc urgent"] {
        let told = world.kubectl(&format!("describe {what} -n kinds")).ok();
        assert!(told.starts_with("Name:"), "{what}: {told}");
    }
    world.kubectl("scale deployment web --replicas=5 -n kinds").ok();
    assert_eq!(world.kubectl("get deployment web -n kinds -o jsonpath={.spec.replicas}").ok(), "5");
    world.kubectl("set image deployment/web nginx=nginx:2 -n kinds").ok();
    world.kubectl("rollout restart deployment/web -n kinds").ok();
    world.kubectl("rollout pause deployment/web -n kinds").ok();
    assert!(world.kubectl("rollout history deployment/web -n kinds").ok().contains("web"));
    let refused = world.kubectl("create cronjob never --image=busybox --schedule=never -n kinds").refused();
    assert!(refused.contains("expected exactly 5 fields, found 1: [never]"), "{refused}");
    for kind in ["deployment.spec.strategy", "job.spec", "ingress.spec.rules", "pdb.spec", "hpa.spec.metrics"] {
        world.kubectl(&format!("explain {kind}")).ok();
    }
    world.kubectl("delete deployment,hpa,job,cronjob,ingress,pdb --all --cascade=background -n kinds").ok();
    world.kubectl("delete priorityclass urgent").ok();
    world.kubectl("delete namespace kinds --wait=false").ok();
}
