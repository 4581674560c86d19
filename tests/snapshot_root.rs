//! Layers on a real overlayfs: what a process changes, as entries, and unpacked again. Needs root (owners, devices, trusted
//! attributes, mounts in a namespace of their own).

#![allow(clippy::unwrap_used, clippy::panic)]

use kiln::layer::{Entry, EntryKind, EntryPath, EntrySink, TarReader, TarWriter, Timestamp};
use kiln::sandbox::{Executor as _, RootExecutor, Spec};
use kiln::snapshot::{Kind, NewLayer, Overlay, RootCopyPool, Snapshotter as _, StackTree, Tree, diff, view};
use kiln::store::{Form, Store};
use kiln::sys::Cancel;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says why, where a test can't run.
macro_rules! needs_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root for owners, devices and overlayfs");
            return;
        }
    };
}

const MADE: Timestamp = Timestamp { secs: 77, nanos: 0 };

fn path(text: &str) -> EntryPath {
    EntryPath::parse(text.as_bytes()).unwrap()
}

/// A chain of layers in a folder of its own.
struct Chain {
    folder: tempfile::TempDir,
    /// Top first.
    layers: Vec<PathBuf>,
}

impl Chain {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), layers: Vec::new() }
    }

    fn prepare(&self) -> NewLayer {
        NewLayer::prepare(&self.folder.path().join(format!("new{}", self.layers.len())), &self.layers, Form::default())
            .unwrap()
    }

    fn commit(&mut self, layer: NewLayer) {
        self.layers.insert(0, self.moved(&layer, "layer"));
    }

    /// A finished layer at its place.
    fn moved(&self, layer: &NewLayer, name: &str) -> PathBuf {
        let to = self.folder.path().join(format!("{name}{}", self.layers.len()));
        let _ = fs::remove_dir_all(layer.work());
        fs::rename(layer.files().parent().unwrap(), &to).unwrap();
        to
    }

    /// A layer made by a shell script in the mounted root.
    fn run(mut self, script: &str) -> Self {
        let active = self.prepare();
        let kiln::sys::RootMount::Overlay { mut lowers, upper, work } = active.root_mount().unwrap() else { panic!() };
        let (root, empty) = (self.folder.path().join("root"), self.folder.path().join("empty"));
        for dir in [&root, &empty] {
            fs::create_dir_all(dir).unwrap();
        }
        lowers.push(empty);
        let lowers: Vec<_> = lowers.iter().map(|l| l.display().to_string()).collect();
        let script = format!(
            "set -e; umask 022; mount -t overlay overlay -o lowerdir={},upperdir={},workdir={},redirect_dir=off {root}; cd {root}\n{script}",
            lowers.join(":"),
            upper.display(),
            work.display(),
            root = root.display(),
        );
        let done = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
        assert!(done.status.success(), "{}\n{script}", String::from_utf8_lossy(&done.stderr));
        self.commit(active);
        self
    }

    /// The same in a folder with all files of the layers.
    fn run_standing(mut self, roots: &RootCopyPool, script: &str) -> Self {
        let active = self.prepare();
        let mut standing = roots.take(&self.layers).unwrap();
        standing.ready();
        let script = format!("set -e; umask 022\n{script}");
        let done = Command::new("sh").args(["-c", &script]).current_dir(standing.place()).output().unwrap();
        assert!(done.status.success(), "{}\n{script}", String::from_utf8_lossy(&done.stderr));
        standing.changes(&active).unwrap();
        roots.give(standing);
        self.commit(active);
        self
    }

    /// A layer from entries.
    fn apply(mut self, entries: &[Entry]) -> Self {
        let active = self.prepare();
        let mut writer = active.writer(MADE).unwrap();
        for entry in entries {
            let text = entry.path.to_string();
            let size = entry.size() as usize;
            writer.add(entry, &mut text.repeat(size).as_bytes().take(size as u64)).unwrap();
        }
        writer.finish().unwrap();
        self.commit(active);
        self
    }

    fn try_apply(&self, entries: &[Entry]) -> Result<(), kiln::layer::Error> {
        let mut writer = self.prepare().writer(MADE).unwrap();
        entries.iter().try_for_each(|e| writer.add(e, &mut io::repeat(b'x').take(e.size())))
    }

    fn view(&self) -> StackTree {
        view(&self.layers)
    }

    /// The top layer's changes.
    fn diff(&self) -> String {
        let mut listing = Listing::default();
        diff(&self.layers[0], &self.layers[1..], &mut listing).unwrap();
        listing.0
    }

    /// Packs the top layer, unpacks it on the same parents, and checks that both are one tree.
    #[track_caller]
    fn check_round_trip(&self) {
        let mut tar = TarWriter::new(Vec::new());
        diff(&self.layers[0], &self.layers[1..], &mut tar).unwrap();
        let bytes = tar.finish().unwrap();
        let folder = self.folder.path().join(format!("again{}", self.layers.len()));
        let layer = NewLayer::prepare(&folder, &self.layers[1..], Form::default()).unwrap();
        let mut writer = layer.writer(MADE).unwrap();
        let mut reader = TarReader::layer(bytes.as_slice());
        while let Some(entry) = reader.next_entry().unwrap() {
            writer.add(&entry, &mut reader).unwrap();
        }
        writer.finish().unwrap();
        // As many files are there as were counted.
        diff(layer.folder(), &self.layers[1..], &mut Listing::default()).unwrap();
        let mut layers = vec![self.moved(&layer, "unpacked")];
        layers.extend_from_slice(&self.layers[1..]);
        assert_eq!(show(&view(&layers)), show(&self.view()));
    }
}

#[derive(Default)]
struct Listing(String);

impl EntrySink for Listing {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), kiln::layer::Error> {
        let mut text = String::new();
        content.read_to_string(&mut text).unwrap();
        let kind = match &entry.kind {
            EntryKind::File { .. } => format!("f {} {:o} {text}", entry.path, entry.mode),
            EntryKind::Dir => format!("d {} {:o}", entry.path, entry.mode),
            EntryKind::Symlink(target) => format!("l {} {}", entry.path, String::from_utf8_lossy(target)),
            EntryKind::Hardlink(target) => format!("h {} {target}", entry.path),
            EntryKind::CharDevice(d) => format!("c {} {}:{}", entry.path, d.major, d.minor),
            EntryKind::BlockDevice(d) => format!("b {} {}:{}", entry.path, d.major, d.minor),
            EntryKind::Fifo => format!("p {}", entry.path),
            EntryKind::Whiteout => format!("w {}", entry.path),
            EntryKind::Opaque => format!("o {}", entry.path),
        };
        self.0 += kind.trim_end();
        for (name, value) in &entry.xattrs {
            self.0 += &format!(" {}={}", String::from_utf8_lossy(name), value.escape_ascii());
        }
        self.0.push('\n');
        Ok(())
    }
}

/// Everything in a tree, with metadata.
fn show(tree: &dyn Tree) -> String {
    let mut out = String::new();
    let mut todo = vec![EntryPath::root()];
    while let Some(dir) = todo.pop() {
        for (name, meta) in tree.read_dir(&dir).unwrap() {
            let path = dir.join(&name).unwrap();
            assert_eq!(tree.stat(&path).unwrap(), Some(meta), "{path}");
            let content = match meta.kind {
                Kind::File => io::read_to_string(tree.open(&path).unwrap()).unwrap(),
                Kind::Symlink => String::from_utf8(tree.read_link(&path).unwrap()).unwrap(),
                _ => String::new(),
            };
            let xattrs = match meta.kind {
                Kind::File | Kind::Dir => tree.xattrs(&path).unwrap(),
                _ => Default::default(),
            };
            let (kind, mode, mtime) = (meta.kind, meta.mode, meta.mtime);
            // A directory's time is set only where a layer speaks of it.
            let mtime = if meta.is_dir() { Timestamp::default() } else { mtime };
            let links = if meta.is_dir() { 0 } else { meta.links };
            out += &format!(
                "{path} {kind:?} {mode:o} {}:{} {mtime:?} {links} {content:?} {xattrs:?}\n",
                meta.uid, meta.gid
            );
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn lines(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| format!("{l}\n")).collect()
}

/// A base that has one of each.
fn base() -> Chain {
    Chain::new().run(
        "mkdir -p etc usr/lib/deep a/b; echo x > etc/passwd; echo y > a/f; echo z > a/b/g; ln -s usr/lib lib
         echo l > usr/lib/libc; chmod 1777 a/b; ln a/f a/hard; mkdir -m 700 secret; chown 5:6 secret; echo s > secret/s",
    )
}

#[test]
fn the_first_layer_is_all_that_is_in_it() {
    needs_root!();
    let chain = Chain::new().run(
        "mkdir d; echo text > d/f; ln d/f d/g; ln -s /x l; mknod c c 1 3; mknod b b 7 0; mkfifo p; chmod 4755 d/f
         : > empty; setfattr -n user.k -v v empty 2>/dev/null || true",
    );
    let xattr = if chain.diff().contains("user.k") { " user.k=v" } else { "" };
    let want =
        format!("b /b 7:0\nc /c 1:3\nd /d 755\nf /d/f 4755 text\n\nh /d/g /d/f\nf /empty 644{xattr}\nl /l /x\np /p\n");
    assert_eq!(chain.diff(), want.replace("\n\nh", "\nh"));
    chain.check_round_trip();
}

#[test]
fn removals_are_whiteouts_and_parents_come_along() {
    needs_root!();
    let chain = base().run("rm a/b/g; rm -r secret; : > new; rm new; mkdir new2; rmdir new2");
    assert_eq!(chain.diff(), lines("d /a 755\nd /a/b 1777\nw /a/b/g\nw /secret"));
    chain.check_round_trip();
}

#[test]
fn what_was_only_copied_up_is_no_change() {
    needs_root!();
    let chain = base().run("chmod 600 a/f; chmod 644 a/f; touch -r etc/passwd /tmp/kiln-ref.$$; touch etc/passwd; touch -r /tmp/kiln-ref.$$ etc/passwd; rm /tmp/kiln-ref.$$; chmod 777 a/b; chmod 1777 a/b");
    assert_eq!(chain.diff(), "");
}

#[test]
fn a_folder_made_again_hides_the_old_one() {
    needs_root!();
    let chain = base().run("rm -r a; mkdir -p a/b; echo new > a/n; echo z2 > a/b/g2");
    assert_eq!(
        chain.diff(),
        lines("d /a 755\nd /a/b 755\nw /a/b/g\nf /a/b/g2 644 z2\nw /a/f\nw /a/hard\nf /a/n 644 new")
    );
    assert_eq!(chain.view().stat(&path("a/f")).unwrap(), None);
    chain.check_round_trip();
}

#[test]
fn kinds_replace_each_other() {
    needs_root!();
    let chain = base().run("rm -r a; echo file > a; rm etc/passwd; mkdir etc/passwd; echo in > etc/passwd/x; rm lib; mkdir lib; rm -r usr/lib; ln -s /a usr/lib");
    let want =
        "f /a 644 file\nd /etc 755\nd /etc/passwd 755\nf /etc/passwd/x 644 in\nd /lib 755\nd /usr 755\nl /usr/lib /a";
    assert_eq!(chain.diff(), lines(want));
    chain.check_round_trip();
    let chain = chain.run("rm a; mkdir -p a/b; rm -r etc/passwd; echo f > etc/passwd");
    assert_eq!(chain.diff(), lines("d /a 755\nd /a/b 755\nd /etc 755\nf /etc/passwd 644 f"));
    assert_eq!(chain.view().read_dir(&path("a/b")).unwrap().len(), 0);
    chain.check_round_trip();
}

#[test]
fn the_root_itself_may_change() {
    needs_root!();
    let chain = base().run("chmod 711 .");
    assert_eq!(chain.diff(), "d / 711\n");
    let next = chain.prepare();
    let upper = next.root_mount().unwrap().written().clone();
    assert_eq!(fs::metadata(upper).unwrap().mode() & 0o7777, 0o711);
}

#[test]
fn sockets_and_times() {
    needs_root!();
    let script = "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local=>\"s\",Listen=>1) or die'; echo t > t; touch -d '1970-01-01 00:00:01.123456789 UTC' t";
    let chain = base().run(script);
    assert_eq!(chain.diff(), "f /t 644 t\n");
    assert!(fs::symlink_metadata(chain.layers[0].join("fs/s")).unwrap().file_type().is_socket());
    let meta = chain.view().stat(&path("t")).unwrap().unwrap();
    assert_eq!(meta.mtime, Timestamp { secs: 1, nanos: 123_456_789 });
}

#[test]
fn capabilities_are_kept() {
    needs_root!();
    // cap_net_raw+ep
    let script = "echo x > ping; chmod 755 ping; setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 ping";
    if Command::new("setfattr").arg("--version").output().is_err() {
        eprintln!("skipped: needs setfattr");
        return;
    }
    let chain = base().run(script);
    assert!(chain.diff().contains("security.capability="), "{}", chain.diff());
    chain.check_round_trip();
}

#[test]
fn deep_trees_and_many_names() {
    needs_root!();
    let chain = base().run("d=.; for i in $(seq 200); do d=$d/d; done; mkdir -p $d; echo x > $d/f; cd a; for i in $(seq 300); do echo $i > f$i; done; rm -rf ../d/d");
    assert_eq!(chain.diff().lines().count(), 1 + 300 + 1);
    chain.check_round_trip();
}

fn file(at: &str, size: u64) -> Entry {
    Entry::new(path(at), EntryKind::File { size })
}

fn dir(at: &str) -> Entry {
    Entry::new(path(at), EntryKind::Dir)
}

fn link(at: &str, target: &str) -> Entry {
    Entry::new(path(at), EntryKind::Symlink(target.into()))
}

#[test]
fn missing_parents_look_like_the_lower_ones() {
    needs_root!();
    let chain = base().apply(&[file("secret/new", 1), file("a/b/new", 1), file("x/y/z", 1)]);
    let tree = chain.view();
    let mode = |at: &str| tree.stat(&path(at)).unwrap().map(|m| (m.mode, m.uid, m.gid));
    assert_eq!(mode("secret"), Some((0o700, 5, 6)));
    assert_eq!(mode("a/b"), Some((0o1777, 0, 0)));
    assert_eq!(mode("x/y"), Some((0o755, 0, 0)));
    assert!(tree.stat(&path("secret/s")).unwrap().is_some());
    let time = tree.stat(&path("x/y")).unwrap().unwrap().mtime;
    assert_eq!(time, MADE);
}

#[test]
fn parents_may_be_links_of_lower_layers() {
    needs_root!();
    let chain = base().apply(&[file("lib/new", 1), dir("lib/deep/er")]);
    assert!(chain.view().stat(&path("usr/lib/new")).unwrap().is_some());
    assert!(chain.view().stat(&path("usr/lib/deep/er")).unwrap().is_some());
    assert_eq!(chain.view().stat(&path("lib")).unwrap().unwrap().kind, Kind::Symlink);
}

#[test]
fn links_never_lead_out() {
    needs_root!();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().display().to_string();
    for entries in [
        vec![link("l", &target), file("l/f", 1)],
        vec![link("l", "../../../../../../../../../../../../../../.."), file(&format!("l{target}/f"), 1)],
        vec![link("a/l", &target), link("a/m", "l"), dir("a/m/d"), file("a/m/d/f", 1)],
        vec![link("l", &target), Entry::new(path("l/w"), EntryKind::Whiteout)],
        vec![link("l", &target), Entry::new(path("l"), EntryKind::Opaque)],
    ] {
        let chain = base().apply(&entries);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{entries:?}");
        drop(chain);
    }
    let hardlink = Entry::new(path("h"), EntryKind::Hardlink(path("l/f")));
    fs::write(outside.path().join("f"), "secret").unwrap();
    assert!(base().try_apply(&[link("l", &target), hardlink]).is_err());
}

#[test]
fn loops_and_files_in_the_way_are_errors() {
    needs_root!();
    assert!(base().try_apply(&[link("l", "l"), file("l/f", 1)]).is_err());
    assert!(base().try_apply(&[link("l", "m"), link("m", "l"), file("l/f", 1)]).is_err());
    assert!(base().try_apply(&[file("a/f/x", 1)]).is_err());
    assert!(base().try_apply(&[Entry::new(path("h"), EntryKind::Hardlink(path("none")))]).is_err());
    assert!(base().try_apply(&[Entry::new(path("h"), EntryKind::Hardlink(path("a")))]).is_err());
}

#[test]
fn entries_replace_what_is_there() {
    needs_root!();
    let chain =
        base().apply(&[file("a", 1), dir("etc/passwd"), file("etc/passwd/x", 1), dir("lib"), file("lib/only", 1)]);
    let tree = chain.view();
    assert_eq!(tree.stat(&path("a")).unwrap().unwrap().kind, Kind::File);
    assert!(tree.stat(&path("etc/passwd/x")).unwrap().is_some());
    assert_eq!(tree.read_dir(&path("lib")).unwrap().len(), 1);
    assert!(tree.stat(&path("usr/lib/libc")).unwrap().is_some());
    let chain = chain.apply(&[dir("a"), file("a/new", 1)]);
    assert_eq!(chain.view().read_dir(&path("a")).unwrap().len(), 1);
}

#[test]
fn whiteouts_and_opaque_marks_in_any_order() {
    needs_root!();
    let whiteout = |at: &str| Entry::new(path(at), EntryKind::Whiteout);
    let opaque = |at: &str| Entry::new(path(at), EntryKind::Opaque);
    let names = |chain: &Chain, at: &str| -> Vec<String> {
        let list = chain.view().read_dir(&path(at)).unwrap();
        list.into_iter().map(|(n, _)| String::from_utf8(n).unwrap()).collect()
    };
    for entries in [
        vec![dir("a"), opaque("a"), file("a/n", 1)],
        vec![dir("a"), file("a/n", 1), opaque("a")],
        vec![file("a/n", 1), opaque("a"), dir("a")],
        vec![whiteout("a"), dir("a"), file("a/n", 1)],
        vec![dir("a"), file("a/n", 1), whiteout("a")],
        vec![whiteout("a"), file("a/n", 1)],
    ] {
        assert_eq!(names(&base().apply(&entries), "a"), ["n"], "{entries:?}");
    }
    let chain = base().apply(&[whiteout("a/f"), whiteout("a/none"), whiteout("none/none")]);
    assert_eq!(names(&chain, "a"), ["b", "hard"]);
    let chain = base().apply(&[file("a/f", 3), whiteout("a/f")]);
    assert_eq!(chain.view().stat(&path("a/f")).unwrap().unwrap().size, 3);
}

#[test]
fn hard_links_bring_lower_files_up() {
    needs_root!();
    let hard = |at: &str, target: &str| Entry::new(path(at), EntryKind::Hardlink(path(target)));
    let chain = base().apply(&[hard("h", "a/f"), file("f", 2), hard("g", "f"), hard("lib/i", "lib/libc")]);
    let tree = chain.view();
    let inode = |at: &str| tree.stat(&path(at)).unwrap().unwrap().inode;
    assert_eq!(inode("h"), inode("a/f"));
    assert_eq!(inode("g"), inode("f"));
    assert_eq!(inode("usr/lib/i"), inode("usr/lib/libc"));
    assert_eq!(io::read_to_string(tree.open(&path("h")).unwrap()).unwrap(), "y\n");
}

#[test]
fn attributes_of_this_machine_and_overlayfs_stay_out() {
    needs_root!();
    let mut entry = dir("a/b");
    for name in ["trusted.overlay.opaque", "user.overlay.opaque", "security.selinux", "trusted.x"] {
        entry.xattrs.insert(name.into(), b"y".to_vec());
    }
    let chain = base().apply(&[entry]);
    assert!(chain.view().stat(&path("a/b/g")).unwrap().is_some());
}

#[test]
fn content_must_be_as_long_as_promised() {
    needs_root!();
    let chain = Chain::new();
    for (size, given) in [(3, "ab"), (3, "abcd"), (0, "a")] {
        let mut writer = chain.prepare().writer(MADE).unwrap();
        let error = writer.add(&file("f", size), &mut given.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("changed while it was read"), "{error}");
    }
}

#[test]
fn folders_have_the_times_of_their_entries() {
    needs_root!();
    let mut old = dir("d");
    old.mtime = Timestamp { secs: -5, nanos: 7 };
    let chain = Chain::new().apply(&[old, file("d/f", 1), dir("d/e"), file("d/e/g", 1)]);
    let time = |at: &str| chain.view().stat(&path(at)).unwrap().unwrap().mtime;
    assert_eq!(time("d"), Timestamp { secs: -5, nanos: 7 });
    assert_eq!(time("d/e"), Timestamp::default());
}

/// Without the times of the test itself.
fn still(text: &str) -> String {
    let mut still = String::new();
    let mut rest = text;
    while let Some((before, time)) = rest.split_once("secs: ") {
        still += before;
        let secs: u64 = time.split(',').next().unwrap().parse().unwrap();
        let (_, after) = time.split_once('}').unwrap();
        still += if secs > 1_000_000_000 { "now" } else { time.split(',').next().unwrap() };
        rest = after;
    }
    still + rest
}

/// Scripts that change a root filesystem.
const CHANGES: [&str; 9] = [
    "mkdir -p etc usr/bin d/sub; echo a > etc/a; echo b > etc/b; echo x > usr/bin/x; chmod 4755 usr/bin/x; ln -s a etc/l; \
     for i in 1 2 3; do echo $i > d/$i; echo $i > d/sub/$i; done; touch -d @5 etc/a etc/b; mkfifo p; mknod n c 1 3",
    "echo c > etc/c; rm etc/b; chown 5:6 etc/a; chmod 700 d",
    "rm -rf d; mkdir d; echo 1 > d/1; echo new > d/new",
    "rm -rf d; echo file > d; rm etc/a; mkdir etc/a; echo in > etc/a/in",
    "setfattr -n user.x -v y etc; echo changed > usr/bin/x; touch -d @7 usr/bin/x",
    "ln usr/bin/x usr/bin/y; ln -s nowhere etc/l2; rm etc/l; ln -s c etc/l",
    "chmod 0711 .; touch -d @9 etc/c; touch etc; chmod 644 etc/c",
    "rm p n; mkdir p; echo f > n; rm -r etc/a",
    "mkdir -p tmp; chmod 1777 tmp; echo x > tmp/x; rm tmp/x; true",
];

#[test]
fn a_standing_root_changes_like_an_overlay() {
    needs_root!();
    let (mut overlay, mut standing) = (Chain::new(), Chain::new());
    let folder = tempfile::tempdir().unwrap();
    let roots = RootCopyPool::new(folder.path().into(), std::num::NonZeroUsize::MIN.saturating_add(1));
    for script in CHANGES {
        overlay = overlay.run(script);
        standing = standing.run_standing(&roots, script);
        assert_eq!(still(&standing.diff()), still(&overlay.diff()), "{script}");
        assert_eq!(still(&show(&standing.view())), still(&show(&overlay.view())), "{script}");
    }
    // One root went all the way.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_standing_root_takes_layers_that_others_made() {
    needs_root!();
    let folder = tempfile::tempdir().unwrap();
    let roots = RootCopyPool::new(folder.path().into(), std::num::NonZeroUsize::MIN);
    let mut chain = Chain::new();
    for (number, script) in CHANGES.into_iter().enumerate() {
        chain = chain.run(script);
        if number % 3 == 2 {
            let mut standing = roots.take(&chain.layers).unwrap();
            assert_eq!(show(&StackTree::open(&[standing.place()])), show(&chain.view()), "{script}");
            // Nothing has changed yet.
            let layer = chain.prepare();
            standing.changes(&layer).unwrap();
            chain.commit(layer);
            assert_eq!(chain.diff(), "", "{script}");
            roots.give(standing);
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// What a process has mounted leaves nothing in a layer, not even while it runs: it lies below all layers.
#[test]
fn a_process_that_changes_nothing_leaves_an_empty_layer() {
    needs_root!();
    if !Path::new("/bin/busybox").exists() {
        eprintln!("skipped: needs /bin/busybox");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(&temp.path().join("store")).unwrap();
    let base = temp.path().join("base");
    fs::create_dir_all(base.join("fs/bin")).unwrap();
    fs::copy("/bin/busybox", base.join("fs/bin/sh")).unwrap();
    let overlay = Overlay::new(store.clone(), &kiln::sandbox::MOUNT_POINTS);
    let executor = RootExecutor::new(String::new()).unwrap();
    for (script, left) in [(":", &[][..]), ("echo x > /etc/made", &["etc", "etc/made"]), ("rm /etc/hosts; :", &[])] {
        let layer = store.new_snapshot().unwrap();
        let active = overlay.prepare(layer.folder(), &[&base].as_slice().into()).unwrap();
        let spec = Spec::new(active.root_mount(), ["/bin/sh", "-c", script].map(String::from).to_vec());
        let mut said = Vec::new();
        let exit = executor.run(&spec, &mut |_, bytes| said.extend_from_slice(bytes), &Cancel::new().unwrap());
        assert!(exit.is_ok_and(|e| e.success()), "{script}: {}", String::from_utf8_lossy(&said));
        active.finish().unwrap();
        let mut found = names(layer.fs(), "");
        found.sort();
        assert_eq!(found, left, "{script}");
        assert!(names(&layer.work(), "").is_empty(), "{script}");
    }
}

/// The paths of everything below a folder.
fn names(folder: &Path, prefix: &str) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            all.extend(names(&entry.path(), &format!("{name}/")));
        }
        all.push(name);
    }
    all
}
