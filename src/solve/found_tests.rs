//! What caches give, on plans of a few words and with a cache that a test scripts.

use super::cache::Found;
use super::chain::Origin;
use super::found::known;
use super::key::{Key, named};
use super::lookup::wanted;
use super::lookup_tests::{exec, plan};
use super::record::Record;
use crate::plan::BuildPlan;
use crate::plan::op::VertexId;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;

/// One machine's results: an identity for each run.
#[derive(Default)]
struct Machine(RefCell<HashMap<Key, Record>>);

impl Machine {
    fn look(&self, key: Key, name: Option<&str>) -> Option<Record> {
        let mut records = self.0.borrow_mut();
        if let Some(name) = name {
            let identity = named(name, &records.len().to_string());
            let record = Record {
                key,
                identity,
                created: String::new(),
                stored: None,
                name: name.into(),
                made: None,
                keys: vec![],
            };
            records.entry(key).or_insert(record);
        }
        records.get(&key).cloned()
    }

    /// Runs a whole plan.
    fn build(&self, plan: &BuildPlan, name: &str) {
        super::lookup::known(plan, &|_, _| None, &|_, key| Some((self.look(key, Some(name))?, Origin::Step)));
    }
}

/// What must run on `here` where the caches hold `there`, and in how many rounds they were asked.
fn runs(plan: &BuildPlan, here: &Machine, there: &Machine, lies: bool) -> (Vec<VertexId>, usize) {
    let mut rounds = 0;
    let store = |_: VertexId, key: Key| Some((here.look(key, None)?, Origin::Step));
    let known = known(plan, &|_, _| None, &store, &mut |_, found: &mut Found| {
        rounds += 1;
        for (key, record) in there.0.borrow().iter() {
            let mut record = record.clone();
            if lies {
                record.key = named("another", "key");
            }
            found.entry(*key).or_insert((record, Origin::Step));
        }
    });
    (wanted(plan, &known).into_keys().collect(), rounds)
}

fn chain(commands: &[&str]) -> BuildPlan {
    let steps = commands.iter().enumerate().map(|(i, c)| exec(i.checked_sub(1), c, vec![])).collect();
    plan(steps, commands.len() - 1)
}

#[test]
fn a_build_that_the_cache_knows_asks_once_and_runs_nothing() {
    let (here, there) = (Machine::default(), Machine::default());
    let plan = chain(&["a", "b", "c"]);
    there.build(&plan, "there");
    assert_eq!(runs(&plan, &here, &there, false), (vec![], 1));
}

#[test]
fn what_the_store_knows_is_not_asked_for() {
    let (here, there) = (Machine::default(), Machine::default());
    let plan = chain(&["a", "b"]);
    here.build(&plan, "here");
    assert_eq!(runs(&plan, &here, &there, false), (vec![], 0));
}

#[test]
fn the_caches_results_are_taken_where_they_lead_further() {
    let (here, there) = (Machine::default(), Machine::default());
    here.build(&chain(&["a"]), "here");
    there.build(&chain(&["a", "b", "c"]), "there");
    // The store's `a` has another result, on which nobody ever ran `b`.
    assert_eq!(runs(&chain(&["a", "b", "c"]), &here, &there, false).0, [0usize; 0]);
    assert_eq!(runs(&chain(&["a", "b", "changed"]), &here, &there, false).0, [2]);
    assert_eq!(runs(&chain(&["a", "changed"]), &here, &there, false).0, [1]);
}

#[test]
fn a_step_that_must_run_is_not_asked_for() {
    let (here, there) = (Machine::default(), Machine::default());
    let mut plan = chain(&["a", "b"]);
    there.build(&plan, "there");
    plan.vertices[0].no_cache = true;
    assert_eq!(runs(&plan, &here, &there, false), (vec![0, 1], 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Whoever built which part: only what neither had runs, and a record under a key that isn't its own is nothing.
    #[test]
    fn nothing_runs_twice_and_no_lie_is_believed(length in 1usize..7, at in 0usize..7, other in 0usize..7) {
        let commands: Vec<String> = (0..length).map(|i| format!("step {i}")).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let (here, there, nobody) = (Machine::default(), Machine::default(), Machine::default());
        let (own, theirs) = (at.min(length), other.min(length));
        if own > 0 { here.build(&chain(&commands[..own]), "here"); }
        if theirs > 0 { there.build(&chain(&commands[..theirs]), "there"); }
        let want: Vec<usize> = (own.max(theirs)..length).collect();
        let plan = chain(&commands);
        // Below a hit nothing runs; what stands on the last hit does.
        prop_assert_eq!(runs(&plan, &here, &there, false).0, want);
        prop_assert_eq!(runs(&plan, &here, &there, true).0, runs(&plan, &here, &nobody, false).0);
    }
}
