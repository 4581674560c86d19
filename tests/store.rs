//! The store between processes, after kills, and on disks that refuse.
//!
//! The other process is this test binary again, running the one ignored test [`other_process`] with its part of the
//! play in the environment.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use kiln::oci::Digest;
use kiln::report::{Kind, Problem};
use kiln::store::{Key, Policy, SnapshotInfo, Store};
use kiln::sys::Cancel;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

const PART: &str = "KILN_TEST_PART";
const ROOT: &str = "KILN_TEST_ROOT";

/// The other process; killed when it is dropped.
struct Other(Child);

impl Other {
    /// Starts it in `part`, and waits until it says that it is there.
    fn start(part: &str, root: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["other_process", "--exact", "--ignored", "--nocapture"]).env(PART, part).env(ROOT, root);
        let mut other = Self(command.stdout(Stdio::piped()).spawn().unwrap());
        let output = BufReader::new(other.0.stdout.as_mut().unwrap());
        assert!(output.lines().any(|line| line.unwrap().ends_with("there")), "{part} never got there");
        other
    }

    fn wait(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn there() -> ! {
    println!("\nthere");
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn info() -> SnapshotInfo {
    SnapshotInfo { driver: "overlay".into(), size: None, note: String::new() }
}

fn key() -> Key {
    Key::of(b"the key")
}

#[test]
#[ignore = "not a test: the other process of the tests here"]
fn other_process() {
    let Ok(part) = std::env::var(PART) else { return };
    let store = Store::open(Path::new(&std::env::var(ROOT).unwrap())).unwrap();
    match part.as_str() {
        "ingest" => {
            let mut ingest = store.ingest().unwrap();
            ingest.write_all(&[7; 100_000]).unwrap();
            let snapshot = store.new_snapshot().unwrap();
            std::fs::write(snapshot.fs().join("file"), "x").unwrap();
            let _lock = store.try_lock(&key()).unwrap().unwrap();
            there();
        }
        "use" => {
            assert!(store.snapshot(&key()).unwrap().is_some());
            there();
        }
        "make" => {
            make_twenty(&store);
            println!("\nthere");
        }
        other => panic!("no part {other}"),
    }
}

fn make_twenty(store: &Store) {
    let cancel = Cancel::new().unwrap();
    for round in 0..20u8 {
        let key = Key::of(&[round]);
        let _lock = store.lock(&key, &cancel, &mut || ()).unwrap();
        if store.snapshot(&key).unwrap().is_none() {
            let temp = store.new_snapshot().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            let made = store.commit_snapshot(temp, &key, info()).unwrap();
            let log = std::fs::OpenOptions::new().append(true).create(true).open(store.root().join("made"));
            writeln!(log.unwrap(), "{}", made.id).unwrap();
        }
    }
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_killed_build_leaves_nothing_after_a_sweep() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let child = Other::start("ingest", temp.path());
    store.sweep().unwrap();
    assert_eq!(count(&temp.path().join("tmp")), 1, "a running build's files stay");
    assert!(store.try_lock(&key()).unwrap().is_none(), "and its locks");
    drop(child);
    store.sweep().unwrap();
    assert_eq!(count(&temp.path().join("tmp")), 0);
    assert_eq!(count(&temp.path().join("locks")), 0);
    assert!(store.try_lock(&key()).unwrap().is_some());
    assert!(store.blob(&Digest::of(&[7; 100_000]), None).unwrap().is_none());
}

#[test]
fn the_lock_of_a_killed_build_is_free_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let child = Other::start("ingest", temp.path());
    assert!(store.try_lock(&key()).unwrap().is_none());
    drop(child);
    assert!(store.try_lock(&key()).unwrap().is_some());
}

#[test]
fn what_another_process_uses_is_not_pruned() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let made = store.commit_snapshot(store.new_snapshot().unwrap(), &key(), info()).unwrap();
    drop(store);
    let meta = std::fs::File::open(made.fs.with_file_name("meta.json")).unwrap();
    meta.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    let child = Other::start("use", temp.path());
    let store = Store::open(temp.path()).unwrap();
    let pruned = store.prune(&Policy::default()).unwrap();
    assert_eq!((pruned.removed.count, pruned.held.count), (0, 1));
    drop(child);
    // This one's session may have begun in the same tick of the clock as the other's.
    drop(store);
    std::thread::sleep(Duration::from_millis(20));
    let store = Store::open(temp.path()).unwrap();
    assert_eq!(store.prune(&Policy::default()).unwrap().removed.count, 1);
    assert!(!made.fs.exists());
}

#[test]
fn two_processes_make_each_thing_once() {
    let temp = tempfile::tempdir().unwrap();
    Store::open(temp.path()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert!(Other::start("make", temp.path()).wait().success()));
        }
    });
    let made = std::fs::read_to_string(temp.path().join("made")).unwrap();
    let mut ids: Vec<&str> = made.lines().collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), made.lines().count()), (20, 20));
}

/// Runs `work` in a file system of 1 MiB, in a mount namespace that ends with the thread: nothing is left.
/// Without the right to mount there is none, and that is said.
fn on_a_small_disk(work: impl FnOnce(&Path) + Send + 'static) {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    let thread = std::thread::spawn(|| {
        let temp = tempfile::tempdir().unwrap();
        #[allow(unsafe_code)]
        // SAFETY: a mount namespace of its own takes nothing away that other threads rely on.
        let own = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) };
        if own.is_err() {
            println!("skipped: needs root, to mount a tmpfs");
            return;
        }
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        mount("tmpfs", temp.path(), "tmpfs", MountFlags::empty(), Some(c"size=1m")).unwrap();
        work(temp.path());
        rustix::mount::unmount(temp.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    });
    thread.join().unwrap();
}

#[test]
fn as_root_a_full_disk_is_told_and_survived() {
    on_a_small_disk(|disk| {
        let store = Store::open(disk).unwrap();
        let mut ingest = store.ingest().unwrap();
        let error = (0..100).find_map(|_| ingest.write_all(&[1; 65536]).err()).unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        let told = Problem::from(store.write_blob(&[2; 65536]).unwrap_err());
        assert_eq!(told.kind, Kind::Environment);
        assert!(told.message.contains(disk.to_str().unwrap()), "{told:?}");
        assert!(told.hints.iter().any(|h| h.contains("prune")), "{told:?}");
        drop(ingest);
        store.write_blob(&[2; 65536]).unwrap();
        let session = std::fs::read_dir(disk.join("tmp")).unwrap().next().unwrap().unwrap().path();
        assert_eq!(count(&session), 0);
    });
}

#[test]
fn as_root_a_read_only_store_can_be_read() {
    use rustix::mount::{MountFlags, mount_remount};
    on_a_small_disk(|disk| {
        let digest = Store::open(disk).unwrap().write_blob(b"x").unwrap();
        mount_remount(disk, MountFlags::RDONLY, "").unwrap();
        let store = Store::open(disk).unwrap();
        assert_eq!(store.read_blob(&digest, 1).unwrap().unwrap(), b"x");
        let told = Problem::from(store.write_blob(b"y").unwrap_err());
        assert_eq!(told.kind, Kind::Environment);
        assert!(told.hints.iter().any(|h| h.contains("--root")), "{told:?}");
        let told = Problem::from(Store::open(&disk.join("new")).unwrap_err());
        assert_eq!(told.kind, Kind::Environment);
    });
}

#[test]
fn a_place_that_is_no_folder_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, "").unwrap();
    let told = Problem::from(Store::open(&file).unwrap_err());
    assert_eq!(told.kind, Kind::Environment);
    assert!(told.message.contains(file.to_str().unwrap()), "{told:?}");
}
