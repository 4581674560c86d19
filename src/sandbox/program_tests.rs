//! A spec's program, step by step.

use super::*;
use crate::sandbox::overlay::Calls;

const WAY: Way = Way { calls: Calls::Fsconfig, user_attributes: false };

fn steps(spec: &Spec) -> Vec<String> {
    let filter = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    let place = Place {
        way: WAY,
        door: Door::Pivot,
        resolv_conf: "",
        cgroups: Vec::new(),
        permitted: CapabilitySet::all(),
        rights: Rights { capabilities: CapabilitySet::empty(), filter: &filter, notifier: None, single: false },
        network: None,
        join: Vec::new(),
    };
    let streams = [Stream::Inherit(0), Stream::Inherit(1), Stream::Inherit(2)];
    let prepared = prepare(spec, place, streams).unwrap();
    prepared.program.steps().iter().map(|s| format!("{s:?}")).collect()
}

fn spec() -> Spec {
    Spec::new(RootMount::Dir("/root-folder".into()), vec!["/bin/x".into()])
}

/// The index of the first step whose text starts like this.
fn at(steps: &[String], start: &str) -> usize {
    steps.iter().position(|s| s.starts_with(start)).unwrap_or_else(|| panic!("{start} in {steps:#?}"))
}

#[test]
fn rights_are_taken_in_the_right_order() {
    let steps = steps(&spec());
    let order = [
        "DieWithMaker",
        "PrivateMounts",
        "CloneHost",
        "EnterRoot",
        "WorkIn",
        "Stdio",
        "Umask(18)",
        "Seccomp",
        "Identity",
        "Exec",
    ];
    let found: Vec<usize> = order.iter().map(|s| at(&steps, s)).collect();
    assert!(found.is_sorted(), "{found:?}");
    assert!(steps[at(&steps, "Identity") + 1].starts_with("DieWithMaker"));
    assert_eq!(at(&steps, "Exec"), steps.len() - 1);
}

#[test]
fn the_hosts_files_are_only_named_before_the_new_root() {
    let mut spec = spec();
    let root = RootMount::Dir("/elsewhere".into());
    spec.mounts
        .push(Mount { target: "/x/../y".into(), kind: MountKind::Tree { root, path: "/a".into(), readonly: true } });
    let steps = steps(&spec);
    let enter = at(&steps, "EnterRoot");
    let host = |s: &String| s.starts_with("CloneHost") || s.starts_with("MountOnHost") || s.starts_with("Overlay");
    assert!(steps.iter().skip(enter).all(|s| !host(s)));
    assert!(steps.iter().take(enter).all(|s| !s.starts_with("Target")));
    assert!(steps.iter().any(|s| s.contains("\"/y\"") && s.contains("Like")));
}

#[test]
fn insecure_leaves_everything_visible() {
    let mut spec = spec();
    spec.insecure = true;
    let steps = steps(&spec);
    for name in ["Mask", "Protect", "Seccomp"] {
        assert!(steps.iter().all(|s| !s.starts_with(name)), "{name}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |change: &dyn Fn(&mut Spec)| {
        let mut spec = spec();
        change(&mut spec);
        let streams = [Stream::Inherit(0), Stream::Inherit(1), Stream::Inherit(2)];
        let (way, permitted) = (WAY, CapabilitySet::empty());
        let door = Door::Pivot;
        let place = Place {
            way,
            door,
            resolv_conf: "",
            cgroups: vec![],
            permitted,
            rights: Rights { capabilities: permitted, filter: &[], notifier: None, single: false },
            network: None,
            join: vec![],
        };
        prepare(&spec, place, streams).is_err()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|s| s.args.clear()));
    assert!(refused(&|s| s.args = vec![String::new()]));
    assert!(refused(&|s| s.args.push("a\0b".into())));
    assert!(refused(&|s| s.cwd = "relative".into()));
    assert!(refused(&|s| s.hostname = "a\0".into()));
    let mount = |target: &str| Mount { target: target.into(), kind: MountKind::Tmpfs { size: None } };
    for target in ["", "a", "/", "/a/..", "/a\0"] {
        assert!(refused(&|s| s.mounts.push(mount(target))), "{target:?}");
    }
    assert!(refused(&|s| s.limits.ulimits.push(("nosuch".into(), 1, 1))));
}
