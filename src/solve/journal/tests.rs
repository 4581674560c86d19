//! Accounts as builds would write them, held against each other.

use super::align::{align, split};
use super::compare::{Cause, Change, Explanation, explain};
use super::files::{self, Changed, decode, difference, encode};
use super::*;
use crate::plan::op::CopyAction;
use crate::snapshot::FolderTree;
use crate::solve::file::{self, Selection, select};
use crate::solve::key::{Sort, named};
use crate::store::Store;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

struct World {
    _dir: tempfile::TempDir,
    store: Store,
}

/// A step: its name, what of its own is in its key, and the steps it reads.
fn step(name: &str, own: &str, inputs: &[usize]) -> Step {
    let parts = own.split(' ').filter(|o| !o.is_empty()).map(|text| {
        let (name, value) = text.split_once('=').unwrap_or(("", text));
        let sort = if name.is_empty() { Sort::Command } else { Sort::Variable };
        Part { sort, name: name.into(), digest: value.into(), value: None }
    });
    let kind = match name {
        _ if name.contains("FROM") => StepKind::Image,
        _ if name.contains("COPY") => StepKind::Files,
        _ if name.contains("context") => StepKind::Source,
        _ => StepKind::Process,
    };
    let inputs = inputs.iter().enumerate().map(|(n, step)| Input { step: *step, read: n.checked_sub(1) }).collect();
    Step {
        name: name.into(),
        kind,
        definition: named("t", &format!("{name}{own}")),
        inputs,
        parts: parts.collect(),
        lists: BTreeMap::new(),
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::open(&dir.path().join("s")).unwrap(), _dir: dir }
    }

    /// Keeps a build of these steps; `how` is its account, and `gave` one word for what each gave.
    fn built(&self, steps: &[Step], how: &str, gave: &str) -> &Self {
        self.built_with(steps, how, gave, |_| {})
    }

    fn built_with(&self, steps: &[Step], how: &str, gave: &str, change: impl FnOnce(&mut Build)) -> &Self {
        let sheet = Sheet { steps: steps.to_vec() };
        let bytes = serde_json::to_vec(&sheet).unwrap();
        let key = Key::of(&bytes);
        self.store.put_build_part(&key, &bytes).unwrap();
        let mut build = Build {
            about: About {
                dockerfile: "Dockerfile".into(),
                context: "/c".into(),
                target: None,
                path: "/c/Dockerfile".into(),
                text: named("t", &how.len().to_string()),
            },
            started: "2026-01-02T03:04:05Z".into(),
            took_ms: 1500,
            ok: !how.contains('f'),
            sheet: key,
            how: how.into(),
            identities: gave.split(' ').map(str::to_owned).collect(),
            took: BTreeMap::new(),
            forced: Vec::new(),
            lists: BTreeMap::new(),
        };
        change(&mut build);
        self.store.add_build(vec![key], &build).unwrap();
        self
    }

    fn explained(&self) -> Explanation {
        explain(&self.store, None).unwrap()
    }

    /// The steps that ran in the last build with their causes.
    fn why(&self) -> Vec<(String, u64, Vec<Cause>)> {
        let since = |s: &compare::Explained| s.since.as_ref().map_or(0, |s| s.build);
        self.explained().ran.into_iter().map(|s| (s.step.clone(), since(&s), s.causes)).collect()
    }
}

fn variable(name: &str, old: Option<&str>, new: Option<&str>) -> Cause {
    let (old, new) = (old.map(str::to_owned), new.map(str::to_owned));
    Cause::Part(Change { part: Sort::Variable, name: name.into(), old, new })
}

fn input(step: &str, ran: bool, roots: Vec<compare::Root>) -> Cause {
    Cause::Input { step: step.into(), base: true, ran, roots }
}

const FROM: &str = "[1/3] FROM b";
const ONE: &str = "[2/3] RUN one";
const TWO: &str = "[3/3] RUN two";

/// A base and two commands, each on the one before.
fn chain(one: &str, two: &str) -> Vec<Step> {
    vec![step(FROM, "", &[]), step(ONE, one, &[0]), step(TWO, two, &[1])]
}

#[test]
fn the_first_build_has_nothing_to_be_held_against() {
    let world = World::new();
    assert!(explain(&world.store, None).is_err());
    world.built(&chain("a", "b"), "hrr", "b 1 2");
    assert!(world.explained().first);
    assert_eq!(world.why(), [(ONE.into(), 0, vec![Cause::NewStep]), (TWO.into(), 0, vec![Cause::NewStep])]);
    assert!(explain(&world.store, Some(7)).is_err());
}

#[test]
fn the_cause_is_told_once_and_what_follows_names_it() {
    let world = World::new();
    world.built(&chain("a V=1", "b"), "hrr", "b 1 2").built(&chain("a V=1", "b"), "hhh", "b 1 2");
    assert_eq!((world.explained().ran.len(), world.explained().last_with_work), (0, Some(1)));
    world.built(&chain("a V=2", "b"), "hrr", "b 3 4");
    let changed = vec![variable("V", Some("1"), Some("2"))];
    assert_eq!(world.why(), [(ONE.into(), 2, changed), (TWO.into(), 2, vec![input(ONE, true, vec![])])]);
}

#[test]
fn a_hit_that_is_not_what_it_was_is_followed_to_its_root() {
    let world = World::new();
    world.built(&chain("a V=1", "b"), "hrr", "b 1 2").built(&chain("a V=2", "b"), "hhr", "b 3 4");
    let root = compare::Root { step: ONE.into(), causes: vec![variable("V", Some("1"), Some("2"))] };
    assert_eq!(world.why(), [(TWO.into(), 1, vec![input(ONE, false, vec![root])])]);
    // The same step, made anew elsewhere: nothing but the result differs.
    let world = World::new();
    world.built(&chain("a", "b"), "hrr", "b 1 2").built(&chain("a", "b"), "hcr", "b 3 4");
    let root = compare::Root { step: ONE.into(), causes: vec![] };
    assert_eq!(world.why(), [(TWO.into(), 1, vec![input(ONE, false, vec![root])])]);
}

#[test]
fn what_ran_for_no_change_says_which_other_cause_there_was() {
    let world = World::new();
    world.built(&chain("a", "b"), "hrr", "b 1 2").built(&chain("a", "b"), "hhr", "b 1 4");
    assert_eq!(world.why(), [(TWO.into(), 1, vec![Cause::NoResult])]);
    world.built(&chain("a", "c"), "hhf", "b 1 ").built(&chain("a", "c"), "hhr", "b 1 4");
    assert_eq!(world.why(), [(TWO.into(), 3, vec![Cause::FailedBefore])]);
    world.built_with(&chain("a", "c"), "hhr", "b 1 4", |b| b.forced = vec![2]);
    assert_eq!(world.why(), [(TWO.into(), 4, vec![Cause::NoCache])]);
}

#[test]
fn a_step_that_did_not_come_to_its_turn_is_looked_for_further_back() {
    let world = World::new();
    world.built(&chain("a", "b V=1"), "hrr", "b 1 2").built(&chain("x", "b V=2"), "hf-", "b  ");
    world.built(&chain("a", "b V=2"), "hhr", "b 1 5");
    assert_eq!(world.why(), [(TWO.into(), 1, vec![variable("V", Some("1"), Some("2"))])]);
}

#[test]
fn another_dockerfile_is_no_earlier_build() {
    let world = World::new();
    let steps = chain("a", "b");
    world.built_with(&steps, "hrr", "b 1 2", |b| (b.about.path, b.about.text) = ("/d".into(), named("t", "other")));
    world.built(&steps, "hrr", "b 1 2");
    assert!(world.explained().first);
    // The same text in another checkout is.
    world.built_with(&steps, "hhr", "b 1 3", |b| (b.about.path, b.about.context) = ("/e/D".into(), "/e".into()));
    assert!(!world.explained().first);
}

#[test]
fn steps_are_found_again_among_others() {
    let names = |names: &[&str]| -> Vec<Step> { names.iter().map(|n| step(n, n, &[])).collect() };
    type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [Option<usize>]);
    let cases: &[Case<'_>] = &[
        (&[], &["[1/1] RUN a"], &[None]),
        // One was put between.
        (
            &["[1/2] RUN a", "[2/2] RUN b"],
            &["[1/3] RUN a", "[2/3] RUN x y z", "[3/3] RUN b"],
            &[Some(0), None, Some(1)],
        ),
        // One was taken away, the last changed.
        (
            &["[1/3] RUN a", "[2/3] RUN b", "[3/3] RUN make it"],
            &["[1/2] RUN a", "[2/2] RUN make it so"],
            &[Some(0), Some(2)],
        ),
        // Of two candidates the likelier.
        (&["[1/2] RUN apt-get install a", "[2/2] RUN make"], &["[1/1] RUN apt-get install b"], &[Some(0)]),
        // A COPY is no RUN; another stage's step isn't this one's unless it is the same.
        (&["[1/1] COPY a b"], &["[1/1] RUN a b"], &[None]),
        (&["[x 1/1] RUN a"], &["[y 1/1] RUN b"], &[None]),
        (&["[1/1] RUN a"], &["[y 1/1] RUN a"], &[Some(0)]),
    ];
    for (old, new, want) in cases {
        assert_eq!(align(&names(old), &names(new)), *want, "{old:?} {new:?}");
    }
    for (name, want) in [
        ("[app 3/5] RUN x", ("app", "RUN x")),
        ("[ 3/15] RUN x", ("", "RUN x")),
        ("[linux/amd64 app  3/15] COPY a b", ("linux/amd64 app", "COPY a b")),
        ("[internal] load build context", ("internal", "load build context")),
        ("RUN x", ("", "RUN x")),
    ] {
        assert_eq!(split(name), want);
    }
}

fn selected(folder: &Path) -> Selection {
    let copy = CopyAction::plain(Some(0), &["/"], "/");
    select(&copy, &FolderTree::open(folder).unwrap(), &file::Read).unwrap()
}

#[test]
fn lists_come_back_and_differ_by_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("src/a", "1");
    write("src/b", "1");
    write("gone", "1");
    std::os::unix::fs::symlink("a", dir.path().join("src/l")).unwrap();
    let before = selected(dir.path());
    let old = decode(&encode(&before)).unwrap();
    let paths: Vec<String> = old.iter().map(|l| String::from_utf8_lossy(&l.path).into_owned()).collect();
    assert_eq!(paths, ["gone", "src", "src/a", "src/b", "src/l"]);
    assert!(difference(&old, &old).files.is_empty());

    write("src/a", "2");
    write("src/c", "1");
    std::fs::remove_file(dir.path().join("gone")).unwrap();
    std::fs::remove_file(dir.path().join("src/l")).unwrap();
    std::os::unix::fs::symlink("b", dir.path().join("src/l")).unwrap();
    std::fs::set_permissions(dir.path().join("src/b"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let after = selected(dir.path());
    assert_ne!(files::id(&before), files::id(&after));
    let found = difference(&old, &decode(&encode(&after)).unwrap());
    assert_eq!(found.total, 5);
    let told: Vec<(&str, bool, bool)> =
        found.files.iter().map(|c| (c.path.as_str(), c.old.is_some(), c.new.is_some())).collect();
    assert_eq!(
        told,
        [
            ("gone", true, false),
            ("src/a", true, true),
            ("src/b", true, true),
            ("src/c", false, true),
            ("src/l", true, true)
        ]
    );
    let mode = Changed { path: "src/b".into(), old: Some("mode 0644".into()), new: Some("mode 0600".into()) };
    assert_eq!(found.files[2], mode);
    for broken in [&b""[..], b"kilnlist1\n\x05\0\x01\0x", b"kilnlist1\n\0\0"] {
        assert!(decode(broken).is_none());
    }
}

#[test]
fn files_of_a_context_are_told() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let with_list = || {
        let selection = selected(dir.path());
        let list = files::id(&selection);
        world.store.put_build_part(&list, &encode(&selection)).unwrap();
        let mut steps = vec![step("[internal] load build context", "", &[]), step("[1/1] COPY . /", "", &[])];
        steps[1].inputs = vec![Input { step: 0, read: Some(0) }];
        steps[1].lists.insert(0, list);
        steps
    };
    std::fs::write(dir.path().join("a"), "1").unwrap();
    world.built(&with_list(), "rr", " 1");
    std::fs::write(dir.path().join("b"), "1").unwrap();
    world.built(&with_list(), "rr", " 2");
    let why = world.why();
    let [(_, 1, causes)] = &why[..] else { panic!("{why:?}") };
    let [Cause::Files { of, difference }] = &causes[..] else { panic!("{causes:?}") };
    assert_eq!(
        (of.as_str(), difference.total, difference.files[0].path.as_str()),
        ("[internal] load build context", 2, "b")
    );
}
