//! What holds for every file.

use super::{BuildArgs, amd64, plan};
use crate::plan::BuildPlan;
use crate::plan::op::HistoryEntry;
use proptest::prelude::*;

/// An instruction; names of stages and variables come from small sets, so that they meet.
fn instruction() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["s0", "s1", "S2", "0", "1", "2", "busybox", "scratch", "$A"]);
    let word =
        prop::sample::select(vec!["a", "$A", "${B:-x}", "/x/", "../y", "*", "\"q r\"", "https://h.invalid/f", "."]);
    prop_oneof![
        (name.clone(), word.clone(), word.clone()).prop_map(|(n, a, b)| format!("COPY --from={n} {a} {b}")),
        (word.clone(), word.clone()).prop_map(|(a, b)| format!("COPY --link {a} {b}")),
        (word.clone(), word.clone()).prop_map(|(a, b)| format!("ADD {a} {b}")),
        word.clone().prop_map(|w| format!("RUN {w}")),
        (name, word.clone())
            .prop_map(|(n, w)| format!("RUN --mount=from={n},target=/m --mount=type=cache,target={w} x")),
        word.clone().prop_map(|w| format!("WORKDIR {w}")),
        word.clone().prop_map(|w| format!("ENV A={w}")),
        word.clone().prop_map(|w| format!("ARG B={w}")),
        word.clone().prop_map(|w| format!("ONBUILD RUN {w}")),
        word.prop_map(|w| format!("USER {w}")),
        Just("COPY <<E /e\n$A\nE".to_owned()),
    ]
}

fn file() -> impl Strategy<Value = String> {
    let from = prop::sample::select(vec!["busybox", "scratch", "s0", "s1", "${A:-busybox}"]);
    let stage = (from, prop::collection::vec(instruction(), 0..6));
    (prop::collection::vec(stage, 1..4), prop::bool::ANY).prop_map(|(stages, global)| {
        let mut text = if global { "ARG A=busybox\n".to_owned() } else { String::new() };
        for (number, (from, instructions)) in stages.into_iter().enumerate() {
            text += &format!("FROM {from} AS s{number}\n{}\n", instructions.join("\n"));
        }
        text
    })
}

fn check(plan: &BuildPlan) {
    let mut used = vec![false; plan.vertices.len()];
    for (id, vertex) in plan.vertices.iter().enumerate() {
        for input in vertex.op.inputs() {
            assert!(input < id, "{id} {} uses {input}", vertex.name);
            used[input] = true;
        }
    }
    for target in &plan.targets {
        for entry in &target.history {
            if let HistoryEntry::Instruction { layer: Some(layer), .. } = entry {
                assert!(*layer < plan.vertices.len());
            }
        }
        if let Some(root) = target.root {
            used[root] = true;
        }
    }
    assert!(used.iter().all(|u| *u), "a step that nothing needs");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inputs_come_before_their_users_and_everything_is_used(text in file(), platforms in 0usize..3) {
        let mut args = BuildArgs::new(amd64());
        args.platforms = [amd64(), "linux/arm64".parse().unwrap()].into_iter().take(platforms).collect();
        if let Ok((plan, _)) = plan(&text, &args) {
            check(&plan);
            prop_assert_eq!(plan.targets.len(), platforms.max(1));
            let again = super::plan(&text, &args).unwrap().0;
            prop_assert_eq!(format!("{plan:?}"), format!("{again:?}"));
        }
    }

    #[test]
    fn nothing_panics(text in "(FROM|RUN|COPY|ADD|ARG|ENV|EXPOSE|ONBUILD|WORKDIR| |\n|[a-z$/{}:=.-]|--[a-z]{4,6}=|é){0,60}") {
        let _ = plan(&format!("FROM busybox\n{text}\n"), &BuildArgs::new(amd64()));
    }
}

#[test]
fn generated_files_are_mostly_valid() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let valid = (0..100)
        .filter(|_| {
            let text = file().new_tree(&mut runner).unwrap().current();
            plan(&text, &BuildArgs::new(amd64())).is_ok()
        })
        .count();
    assert!(valid > 20, "{valid}");
}

#[test]
fn long_files_are_planned_in_time() {
    let mut text = String::from("FROM busybox AS s0\n");
    for n in 1..3000 {
        text += &format!("FROM s{} AS s{n}\nENV V{}=x\nRUN --mount=from=s0,target=/m step {n}\n", n - 1, n % 20);
    }
    let before = std::time::Instant::now();
    let (plan, _) = plan(&text, &BuildArgs::new(amd64())).unwrap();
    check(&plan);
    assert_eq!(plan.vertices.len(), 3000);
    assert!(before.elapsed().as_secs() < 20, "{:?}", before.elapsed());
}
