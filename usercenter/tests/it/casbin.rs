//! Our index decides as Casbin does, which looks at every line.

use casbin::{CoreApi as _, DefaultModel, Enforcer, MemoryAdapter, MgmtApi as _};
use onex_usercenter::policy::{Line, MODEL, Policies};
use proptest::collection::vec;
use proptest::prelude::*;

/// Few names, so that lines and questions meet often.
fn subject() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["alice", "bob", "carol", "admin", "boss"]).prop_map(str::to_owned)
}

fn object() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["*", "a", "ab", "a*", "ab*", "abc", "b/", "b/*", "b/c", ""]).prop_map(str::to_owned)
}

fn line() -> impl Strategy<Value = Line> {
    prop_oneof![
        2 => (subject(), object(), object(), prop::bool::weighted(0.3))
            .prop_map(|(sub, obj, act, deny)| Line::Policy { sub, obj, act, deny }),
        1 => (subject(), subject()).prop_map(|(sub, role)| Line::Role { sub, role }),
    ]
}

fn words(line: &Line) -> (&'static str, Vec<String>) {
    match line {
        Line::Policy { sub, obj, act, deny } => {
            ("p", vec![sub.clone(), obj.clone(), act.clone(), if *deny { "deny" } else { "allow" }.to_owned()])
        }
        Line::Role { sub, role } => ("g", vec![sub.clone(), role.clone()]),
    }
}

async fn casbin(lines: &[Line]) -> Enforcer {
    let model = DefaultModel::from_str(MODEL).await.unwrap();
    let mut enforcer = Enforcer::new(model, MemoryAdapter::default()).await.unwrap();
    for line in lines {
        match words(line) {
            ("p", words) => enforcer.add_policy(words).await.unwrap(),
            (_, words) => enforcer.add_grouping_policy(words).await.unwrap(),
        };
    }
    enforcer
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_index_decides_as_casbin_does(
        lines in vec(line(), 0..24),
        gone in vec(any::<prop::sample::Index>(), 0..6),
        questions in vec((subject(), object(), object()), 24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut policies = Policies::default();
        let mut left: Vec<Line> = Vec::new();
        for (number, line) in (1..).zip(&lines) {
            policies.insert(number, line);
            if !left.contains(line) {
                left.push(line.clone());
            }
        }
        for index in gone {
            if !left.is_empty() {
                policies.remove(&left.swap_remove(index.index(left.len())));
            }
        }
        let enforcer = runtime.block_on(casbin(&left));
        for (sub, obj, act) in questions {
            let theirs = enforcer.enforce((sub.as_str(), obj.as_str(), act.as_str())).unwrap();
            prop_assert_eq!(policies.allow(&sub, &obj, &act), theirs, "{} {} {} of {:?}", sub, obj, act, left);
            prop_assert_eq!(policies.explain(&sub, &obj, &act).allowed, theirs);
        }
    }
}

#[test]
fn a_decision_among_110_000_lines_takes_microseconds() {
    let mut policies = Policies::default();
    let mut number = 0;
    let mut insert = |line: Line| {
        number += 1;
        policies.insert(number, &line);
    };
    for user in 0..100_000 {
        insert(Line::Role { sub: format!("user-{user:06}"), role: format!("role:{}", user % 1000) });
    }
    for rule in 0..10_000 {
        let (obj, act) = (format!("minersets/{}/*", rule / 1000), format!("/gateway.v1.Gateway/Call{}", rule % 7));
        insert(Line::Policy { sub: format!("role:{}", rule % 1000), obj, act, deny: rule % 97 == 0 });
    }
    let questions: Vec<_> =
        (0..1000).map(|n| (format!("user-{:06}", n * 97), format!("minersets/{}/x", n % 10))).collect();
    let started = std::time::Instant::now();
    let mut allowed = 0;
    for (sub, obj) in &questions {
        allowed += usize::from(policies.allow(sub, obj, "/gateway.v1.Gateway/Call3"));
    }
    let each = started.elapsed() / 1000;
    // Without optimisation, on a machine that does other things: far from the goal, and far from looking at every line.
    assert!(each < std::time::Duration::from_micros(200), "{each:?}, {allowed} allowed");
}
