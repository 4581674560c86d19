//! What hits and what must run, on plans of a few words.

use super::chain::Origin;
use super::key::{Key, named};
use super::lookup::{Known, known, wanted};
use super::record::Record;
use crate::oci::{ImageConfig, Platform};
use crate::plan::BuildPlan;
use crate::plan::op::*;
use crate::report::Span;
use std::cell::RefCell;
use std::collections::HashMap;

fn platform() -> Platform {
    Platform::new("linux", "amd64", "")
}

fn vertex(op: Op) -> Vertex {
    Vertex { op, name: String::new(), span: Span::default(), stage: String::new(), no_cache: false }
}

pub(super) fn exec(base: Option<VertexId>, command: &str, mounts: Vec<Mount>) -> Vertex {
    vertex(Op::Exec(ExecOp {
        base,
        args: vec![command.into()],
        env: vec![],
        env_unkeyed: vec![],
        cwd: "/".into(),
        user: String::new(),
        mounts,
        network: Network::Default,
        insecure: false,
        platform: platform(),
        hostname: None,
        extra_hosts: vec![],
        limits: Limits::default(),
    }))
}

fn copy(base: Option<VertexId>, from: VertexId, link: bool) -> Vertex {
    let action = FileAction::Copy(CopyAction::plain(Some(from), &["/a"], "/"));
    vertex(Op::File(FileOp { base, actions: vec![action], link, workdir: false }))
}

fn context() -> Vertex {
    vertex(Op::Local(LocalOp { name: "context".into() }))
}

pub(super) fn plan(vertices: Vec<Vertex>, root: VertexId) -> BuildPlan {
    let target = Target { platform: platform(), root: Some(root), config: ImageConfig::default(), history: vec![] };
    BuildPlan { vertices, targets: vec![target], source_date_epoch: None }
}

/// A cache that a test fills by looking things up, as a build does by running what misses.
#[derive(Default)]
struct Cache {
    records: RefCell<HashMap<Key, Record>>,
    context: RefCell<String>,
}

impl Cache {
    fn look(&self, plan: &BuildPlan, learn: bool) -> Known {
        let content = |_: VertexId, read: &super::Read| match plan.vertices[read.from].op {
            Op::Local(_) => Some(named("context", &self.context.borrow())),
            _ => None,
        };
        known(plan, &content, &|_, key| {
            let mut records = self.records.borrow_mut();
            if learn && !records.contains_key(&key) {
                let n = records.len().to_string();
                let record = Record {
                    key,
                    identity: named("run", &n),
                    created: "2026-01-01T00:00:00Z".into(),
                    stored: None,
                    name: n,
                    made: None,
                    keys: vec![],
                };
                records.insert(key, record);
            }
            records.get(&key).cloned().map(|r| (r, Origin::Step))
        })
    }

    fn runs(&self, plan: &BuildPlan) -> Vec<VertexId> {
        wanted(plan, &self.look(plan, false)).into_keys().collect()
    }
}

/// A builder stage (context, copy, make) and a result that copies from it.
fn two_stages() -> BuildPlan {
    plan(
        vec![
            context(),
            copy(None, 0, false),
            exec(Some(1), "make", vec![]),
            copy(None, 2, false),
            exec(Some(3), "test", vec![]),
        ],
        4,
    )
}

#[test]
fn an_empty_cache_runs_everything() {
    assert_eq!(Cache::default().runs(&two_stages()), [0, 1, 2, 3, 4]);
}

#[test]
fn a_known_result_runs_nothing_not_even_the_stages_it_copied_from() {
    let cache = Cache::default();
    cache.look(&two_stages(), true);
    assert_eq!(cache.runs(&two_stages()), [0usize; 0]);
    // The builder's records are gone, the result's are not.
    let only: Vec<Key> = cache.look(&two_stages(), false).chains.values().filter_map(|c| c.identity()).collect();
    assert_eq!(only.len(), 4);
    cache.records.borrow_mut().retain(|_, r| r.name == "2" || r.name == "3");
    assert_eq!(cache.runs(&two_stages()), [0usize; 0]);
}

#[test]
fn a_changed_context_runs_what_hangs_on_it() {
    let cache = Cache::default();
    cache.look(&two_stages(), true);
    *cache.context.borrow_mut() = "edited".into();
    assert_eq!(cache.runs(&two_stages()), [0, 1, 2, 3, 4]);
}

#[test]
fn a_changed_command_runs_itself_and_what_stands_on_it() {
    let cache = Cache::default();
    cache.look(&two_stages(), true);
    let mut changed = two_stages();
    changed.vertices[4] = exec(Some(3), "test --all", vec![]);
    assert_eq!(cache.runs(&changed), [4]);
    changed.vertices[2] = exec(Some(1), "make -j2", vec![]);
    assert_eq!(cache.runs(&changed), [2, 3, 4]);
}

#[test]
fn no_cache_reaches_what_stands_on_it_and_what_reads_it() {
    let cache = Cache::default();
    cache.look(&two_stages(), true);
    let mut forced = two_stages();
    forced.vertices[2].no_cache = true;
    assert_eq!(cache.runs(&forced), [2, 3, 4]);
}

#[test]
fn a_hit_needs_the_very_root_filesystem_it_was_made_on() {
    let cache = Cache::default();
    let chain = plan(vec![exec(None, "a", vec![]), exec(Some(0), "b", vec![])], 1);
    cache.look(&chain, true);
    assert_eq!(cache.runs(&chain), [0usize; 0]);
    // `a` ran again elsewhere, and made something of its own.
    for record in cache.records.borrow_mut().values_mut().filter(|r| r.name == "0") {
        record.identity = named("run", "another");
    }
    assert_eq!(cache.runs(&chain), [1]);
}

#[test]
fn a_mounted_stage_is_an_input() {
    let mount = |from| {
        vec![Mount {
            target: "/m".into(),
            kind: MountSource::Bind { from: Some(from), source: "/".into(), readonly: true },
        }]
    };
    let cache = Cache::default();
    let with = |command: &str| plan(vec![exec(None, command, vec![]), exec(None, "use", mount(0))], 1);
    cache.look(&with("one"), true);
    assert_eq!(cache.runs(&with("one")), [0usize; 0]);
    assert_eq!(cache.runs(&with("two")), [0, 1]);
}

#[test]
fn a_linked_copy_hits_on_any_base() {
    let cache = Cache::default();
    let on = |command: &str| plan(vec![context(), exec(None, command, vec![]), copy(Some(1), 0, true)], 2);
    cache.look(&on("one"), true);
    let mut other = on("two");
    other.vertices[1].no_cache = false;
    // The base runs, the copy is found once the base is known.
    assert_eq!(cache.runs(&other), [0, 1, 2]);
    cache.look(&plan(vec![exec(None, "two", vec![])], 0), true);
    assert_eq!(cache.runs(&other), [0usize; 0]);
}
