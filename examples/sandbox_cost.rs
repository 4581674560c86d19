//! What a sandbox costs over `fork` and `exec`: runs `/bin/true` of busybox many times both ways. As root, by hand:
//! `cargo run --release --example sandbox_cost [COUNT [FOLDER]]`.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use kiln::sandbox::{Executor as _, Network, RootExecutor, Spec};
use kiln::sys::{Cancel, RootMount};
use std::time::{Duration, Instant};

/// Shortest and median time of a number of runs.
fn measure(name: &str, count: usize, mut run: impl FnMut()) {
    run();
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("{name:32} min {:?} median {:?}", times[0], times[count / 2]);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count = args.next().map_or(Ok(300), |n| n.parse())?;
    // As much memory as a build may use, which a plain fork would have to copy the tables of.
    let ballast: Vec<u8> = (0..40_000_000u32).map(|n| n as u8).collect();
    let dir = tempfile::tempdir_in(args.next().unwrap_or_else(|| "/tmp".into()))?;
    let base = dir.path().join("base");
    for folder in ["bin", "proc", "sys", "dev", "etc"] {
        std::fs::create_dir_all(base.join(folder))?;
    }
    std::fs::write(base.join("etc/resolv.conf"), "")?;
    std::fs::write(base.join("etc/hosts"), "")?;
    std::fs::copy("/bin/busybox", base.join("bin/true"))?;
    let start = Instant::now();
    let executor = RootExecutor::new(String::new())?;
    println!("executor made in {:?}", start.elapsed());
    let cancel = Cancel::new()?;
    let mut spec = Spec::new(RootMount::Dir(base.clone()), vec!["/bin/true".into()]);
    measure("std::process::Command", count, || {
        assert!(std::process::Command::new("/bin/busybox").arg("true").status().is_ok_and(|s| s.success()));
    });
    let mut number = 0;
    let mut sandbox = |name: &str, spec: &Spec| {
        measure(name, count, || {
            // An overlay's folders serve once.
            number += 1;
            let (upper, work) = (dir.path().join(format!("u{number}")), dir.path().join(format!("w{number}")));
            let mut spec = spec.clone();
            std::fs::create_dir(&upper).and_then(|()| std::fs::create_dir(&work)).expect("a folder can be made");
            spec.root = RootMount::Overlay { lowers: vec![base.clone()], upper, work };
            let ran = executor.run(&spec, &mut |_, _| {}, &cancel);
            assert!(ran.as_ref().is_ok_and(|exit| exit.success()), "{ran:?}");
        });
    };
    sandbox("sandbox", &spec);
    // It gets real devices, which nobody makes in a user namespace.
    spec.insecure = kiln::sys::userns::is_initial()?;
    if spec.insecure {
        sandbox("sandbox, insecure", &spec);
    }
    spec.insecure = false;
    spec.network = Network::None;
    sandbox("sandbox, no network", &spec);
    spec.network = Network::Host;
    spec.limits.memory = Some(1 << 30);
    sandbox("sandbox, memory limit", &spec);
    assert_eq!(ballast.len(), 40_000_000);
    Ok(())
}
