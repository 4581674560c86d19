//! What copies take and where they go, as short texts.

use super::*;
use crate::layer::Entry;
use crate::plan::op::{CopyAction, Mode, Owner, Unpack};
use crate::report::{Problem, Span};
use crate::snapshot::testing::{Listing, TextTree, lines, path};
use std::io::Write;

fn copy(sources: &[&str], dest: &str) -> CopyAction {
    let source_spans = (0..sources.len()).map(|i| Span::new(i, i + 1)).collect();
    CopyAction { source_spans, ..CopyAction::plain(Some(0), sources, dest) }
}

fn op(actions: Vec<FileAction>) -> FileOp {
    FileOp { base: None, actions, link: false, workdir: false }
}

const MADE: Timestamp = Timestamp { secs: 77, nanos: 0 };

fn entries(copy: CopyAction, tree: &TextTree, base: &TextTree) -> Result<Vec<Entry>, Error> {
    Ok(run(copy, tree, base)?.0)
}

fn run(copy: CopyAction, tree: &TextTree, base: &TextTree) -> Result<Listing, Error> {
    let selection = select(&copy, tree, &Read)?;
    let mut listing = Listing::default();
    let op = op(vec![FileAction::Copy(copy)]);
    let count = write(&op, base, &[Input { tree, selection: &selection }], MADE, &mut listing)?;
    assert_eq!(count, listing.0.len());
    Ok(listing)
}

/// The layer that a copy makes.
#[track_caller]
fn check(copy: CopyAction, tree: &str, base: &str, want: &str) {
    let got = run(copy, &TextTree::new(tree), &TextTree::new(base)).unwrap();
    assert_eq!(got.1, lines(want));
}

#[track_caller]
fn check_error(copy: CopyAction, tree: &str, base: &str, want: &str) {
    let error = run(copy, &TextTree::new(tree), &TextTree::new(base)).unwrap_err();
    assert_eq!(error.to_string(), want);
}

const TREE: &str = "
    f 640 0:0 a.txt one
    f 4755 0:0 b.sh two
    d 700 0:0 dir
    f 600 0:0 dir/c three
    d 711 0:0 dir/sub
    l 777 0:0 dir/sub/up -> ../c
    l 777 0:0 link -> dir
    l 777 0:0 flink -> a.txt";

#[test]
fn a_file_to_a_name() {
    check(copy(&["a.txt"], "/x"), TREE, "", "f 640 0:0 x one");
    check(copy(&["/a.txt"], "/x/y/z"), TREE, "", "d 755 0:0 x\nd 755 0:0 x/y\nf 640 0:0 x/y/z one");
    check(copy(&["../../a.txt"], "/x"), TREE, "", "f 640 0:0 x one");
}

#[test]
fn a_file_into_a_folder() {
    check(copy(&["a.txt"], "/x/"), TREE, "", "d 755 0:0 x\nf 640 0:0 x/a.txt one");
    check(copy(&["b.sh"], "/"), TREE, "", "f 4755 0:0 b.sh two");
    check(copy(&["a.txt"], "/x"), TREE, "d 751 3:4 x", "d 751 3:4 x\nf 640 0:0 x/a.txt one");
    check(copy(&["a.txt", "b.sh"], "/x/"), TREE, "", "d 755 0:0 x\nf 640 0:0 x/a.txt one\nf 4755 0:0 x/b.sh two");
}

#[test]
fn a_folder_gives_its_contents() {
    let inside = "d 755 0:0 x\nf 600 0:0 x/c three\nd 711 0:0 x/sub\nl 777 0:0 x/sub/up -> ../c";
    check(copy(&["dir"], "/x"), TREE, "", inside);
    check(copy(&["dir/"], "/x/"), TREE, "", inside);
    check(copy(&["link"], "/x"), TREE, "", inside);
    check(copy(&["dir/."], "/x"), TREE, "", inside);
    check(copy(&["dir"], "/"), TREE, "", "f 600 0:0 c three\nd 711 0:0 sub\nl 777 0:0 sub/up -> ../c");
}

#[test]
fn a_named_link_is_followed() {
    check(copy(&["flink"], "/x/"), TREE, "", "d 755 0:0 x\nf 640 0:0 x/flink one");
    check(copy(&["link/c"], "/x"), TREE, "", "f 600 0:0 x three");
    check(copy(&["link/sub/up"], "/x"), TREE, "", "f 600 0:0 x three");
}

#[test]
fn an_existing_folder_keeps_its_metadata_but_those_in_it_do_not() {
    check(
        copy(&["dir"], "/x"),
        TREE,
        "d 751 3:4 x\nd 777 5:6 x/sub\nf 644 7:8 x/sub/old old",
        "d 751 3:4 x\nf 600 0:0 x/c three\nd 711 0:0 x/sub\nl 777 0:0 x/sub/up -> ../c",
    );
}

#[test]
fn what_the_base_has_already_is_no_change() {
    check(
        copy(&["dir"], "/x"),
        TREE,
        "d 751 3:4 x\nf 600 0:0 x/c three\nd 711 0:0 x/sub\nl 777 0:0 x/sub/up -> ../c",
        "",
    );
    check(
        copy(&["dir"], "/x"),
        TREE,
        "d 751 3:4 x\nf 600 0:0 x/c THREE\nd 711 0:0 x/sub\nl 777 0:0 x/sub/up -> ../c",
        "d 751 3:4 x\nf 600 0:0 x/c three",
    );
}

#[test]
fn destinations_may_be_links() {
    let base = "l 777 0:0 to -> /real/place\nd 750 1:1 real/place";
    check(copy(&["a.txt"], "/to/"), TREE, base, "d 755 0:0 real\nd 750 1:1 real/place\nf 640 0:0 real/place/a.txt one");
    check(copy(&["a.txt"], "/to"), TREE, base, "d 755 0:0 real\nd 750 1:1 real/place\nf 640 0:0 real/place/a.txt one");
    check(
        copy(&["dir"], "/to/x"),
        "f 600 0:0 dir/c 3",
        base,
        "d 755 0:0 real\nd 750 1:1 real/place\nd 755 0:0 real/place/x\nf 600 0:0 real/place/x/c 3",
    );
}

#[test]
fn a_dangling_destination_is_made() {
    let base = "l 777 0:0 to -> ../tmp/x";
    check(copy(&["a.txt"], "/to/"), TREE, base, "d 755 0:0 tmp\nd 755 0:0 tmp/x\nf 640 0:0 tmp/x/a.txt one");
    check(copy(&["a.txt"], "/to"), TREE, base, "d 755 0:0 tmp\nf 640 0:0 tmp/x one");
}

#[test]
fn a_link_in_the_place_of_a_file_is_replaced_unless_it_is_the_destination() {
    check(copy(&["a.txt"], "/d/"), TREE, "l 777 0:0 d/a.txt -> /etc", "d 755 0:0 d\nf 640 0:0 d/a.txt one");
    check(copy(&["a.txt"], "/d/l"), TREE, "l 777 0:0 d/l -> f", "d 755 0:0 d\nf 640 0:0 d/f one");
}

#[test]
fn files_and_folders_do_not_replace_each_other() {
    check_error(copy(&["dir"], "/x"), TREE, "f 644 0:0 x", "cannot copy to non-directory: /x");
    check_error(copy(&["dir"], "/x"), TREE, "f 644 0:0 x/sub", "cannot copy to non-directory: /x/sub");
    check_error(copy(&["dir"], "/x"), TREE, "l 777 0:0 x/sub -> /", "cannot copy to non-directory: /x/sub");
    check_error(copy(&["a.txt"], "/x/"), TREE, "d 755 0:0 x/a.txt", "cannot replace to directory /x/a.txt with file");
    check_error(copy(&["a.txt"], "/x/"), TREE, "f 644 0:0 x", "mkdir /x: not a directory");
    check_error(copy(&["a.txt"], "/x/y/z"), TREE, "f 644 0:0 x", "mkdir /x: not a directory");
}

#[test]
fn later_sources_win() {
    let tree = "f 644 0:0 a/f 1\nf 600 0:0 b/f 2";
    check(copy(&["a/f", "b/f"], "/x/"), tree, "", "d 755 0:0 x\nf 600 0:0 x/f 2");
}

#[test]
fn wildcards_match_each_component() {
    let tree =
        "f 644 0:0 a1/x 1\nf 644 0:0 a2/x 2\nf 644 0:0 a2/y 3\nf 644 0:0 b/x 4\nf 644 0:0 .a 5\nl 777 0:0 a3 -> b";
    check(copy(&["a*/x"], "/d/"), tree, "", "d 755 0:0 d\nf 644 0:0 d/x 2");
    check(copy(&["a?"], "/d"), tree, "", "d 755 0:0 d\nf 644 0:0 d/x 4\nf 644 0:0 d/y 3");
    check(copy(&["[^ab]*"], "/d/"), tree, "", "d 755 0:0 d\nf 644 0:0 d/.a 5");
    check(copy(&["a3/*"], "/d/"), tree, "", "d 755 0:0 d\nf 644 0:0 d/x 4");
    check(copy(&["nothing*"], "/d/"), tree, "", "");
    check(copy(&["b/x", "nothing*"], "/d/"), tree, "", "d 755 0:0 d\nf 644 0:0 d/x 4");
}

#[test]
fn missing_sources_name_the_place() {
    let mut tree = TextTree::new(TREE);
    tree.ignored = vec![path("secret")];
    let copy = copy(&["a.txt", "secret"], "/x/");
    let problem = Problem::from(select(&copy, &tree, &Read).unwrap_err());
    assert_eq!(problem.message, "\"/secret\": not found");
    assert_eq!(problem.span, Some(Span::new(1, 2)));
    assert_eq!(problem.hints.len(), 1);
    check_error(super::tests::copy(&["none/*"], "/x/"), TREE, "", "\"/none\": not found");
    check_error(super::tests::copy(&["link/none"], "/x/"), TREE, "", "\"/link/none\": not found");
}

#[test]
fn chown_is_for_all_that_is_made() {
    let mut copy = copy(&["dir"], "/x/y");
    copy.owner = Some(Owner { user: "7".into(), group: Some("8".into()) });
    check(
        copy.clone(),
        TREE,
        "d 755 1:1 x",
        "d 755 1:1 x\nd 755 7:8 x/y\nf 600 7:8 x/y/c three\nd 711 7:8 x/y/sub\nl 777 7:8 x/y/sub/up -> ../c",
    );
    copy.owner = Some(Owner { user: "www".into(), group: None });
    check_error(copy.clone(), TREE, "", "unable to find user www: no matching entries in passwd file");
    let base = "f 644 0:0 etc/passwd www:x:33:34::/:";
    copy.sources = vec!["a.txt".into()];
    check(copy, TREE, base, "d 755 33:34 x\nf 640 33:34 x/y one");
}

#[test]
fn chmod_is_for_all_that_is_made_but_links() {
    let mut copy = copy(&["dir"], "/x/y");
    copy.mode = Some(Mode::Octal(0o4400));
    check(
        copy.clone(),
        TREE,
        "",
        "d 400 0:0 x\nd 400 0:0 x/y\nf 4400 0:0 x/y/c three\nd 4400 0:0 x/y/sub\nl 777 0:0 x/y/sub/up -> ../c",
    );
    copy.mode = Some(Mode::Symbolic("u=rwX,go=rX".into()));
    check(
        copy,
        TREE,
        "",
        "d 755 0:0 x\nd 755 0:0 x/y\nf 644 0:0 x/y/c three\nd 755 0:0 x/y/sub\nl 777 0:0 x/y/sub/up -> ../c",
    );
}

#[test]
fn excludes_count_from_the_folder_that_is_copied() {
    let tree = "f 644 0:0 d/a.mp3\nf 644 0:0 d/b.txt\nf 644 0:0 d/e/c.mp3\nd 755 0:0 d/f";
    let with = |patterns: &[&str]| {
        let mut copy = copy(&["d"], "/x");
        copy.exclude = patterns.iter().map(|p| p.to_string()).collect();
        copy
    };
    check(
        with(&["*.mp3"]),
        tree,
        "",
        "d 755 0:0 x\nf 644 0:0 x/b.txt\nd 755 0:0 x/e\nf 644 0:0 x/e/c.mp3\nd 755 0:0 x/f",
    );
    check(with(&["**/*.mp3", "f"]), tree, "", "d 755 0:0 x\nf 644 0:0 x/b.txt\nd 755 0:0 x/e");
    check(with(&["*"]), tree, "", "d 755 0:0 x");
}

#[test]
fn a_named_file_is_never_excluded() {
    let mut copy = copy(&["a.txt"], "/x");
    copy.exclude = vec!["a.txt".into()];
    check(copy, TREE, "", "f 640 0:0 x one");
}

#[test]
fn parents_keep_the_way() {
    let tree =
        "d 700 1:1 p\nd 710 0:0 p/q\nf 600 0:0 p/q/bar 1\nf 600 0:0 p/q/baz 2\nf 600 0:0 p/q/no 3\nf 644 0:0 z 4";
    let with = |source: &str| {
        let mut copy = copy(&[source], "/x");
        copy.parents = true;
        copy
    };
    let all = "d 755 0:0 x\nd 700 1:1 x/p\nd 710 0:0 x/p/q\nf 600 0:0 x/p/q/bar 1\nf 600 0:0 x/p/q/baz 2";
    check(with("p/q/ba*"), tree, "", all);
    check(with("./p/*/ba*"), tree, "", all);
    check(with("p/q/bar"), tree, "", "d 755 0:0 x\nd 700 1:1 x/p\nd 710 0:0 x/p/q\nf 600 0:0 x/p/q/bar 1");
    check(with("p/./q/bar"), tree, "", "d 755 0:0 x\nd 710 0:0 x/q\nf 600 0:0 x/q/bar 1");
    check(with("p/./q/no*"), tree, "", "d 755 0:0 x\nd 710 0:0 x/q\nf 600 0:0 x/q/no 3");
    check(with("**/no"), tree, "", "d 755 0:0 x\nd 700 1:1 x/p\nd 710 0:0 x/p/q\nf 600 0:0 x/p/q/no 3");
    check(with("z"), tree, "", "d 755 0:0 x\nf 644 0:0 x/z 4");
    check_error(with("p/none"), tree, "", "\"/p/none\": not found");
    check_error(with("p/./none"), tree, "", "\"/p/none\": not found");
    check(with("p/none*"), tree, "", "d 755 0:0 x");
}

#[test]
fn parents_that_are_there_get_the_mode_alone() {
    let mut copy = copy(&["p/q/f"], "/");
    copy.parents = true;
    let tree = "d 700 1:1 p\nd 710 0:0 p/q\nf 600 0:0 p/q/f 1";
    check(copy, tree, "d 755 5:5 p", "d 700 5:5 p\nd 710 0:0 p/q\nf 600 0:0 p/q/f 1");
}

#[test]
fn hard_links_inside_one_source_stay() {
    let tree = "f 644 0:0 d/a 1\nh 644 0:0 d/e/b = d/a";
    check(copy(&["d"], "/x"), tree, "", "d 755 0:0 x\nf 644 0:0 x/a 1\nd 755 0:0 x/e\nh 644 0:0 x/e/b = x/a");
    check(copy(&["d/a", "d/e/b"], "/x/"), tree, "", "d 755 0:0 x\nf 644 0:0 x/a 1\nf 644 0:0 x/b 1");
}

#[test]
fn special_files() {
    let tree = "c 600 0:0 d/null 1:3\np 644 0:0 d/pipe\ns 755 0:0 d/sock\nb 660 0:6 d/sda 8:0";
    check(
        copy(&["d"], "/x"),
        tree,
        "",
        "d 755 0:0 x\nc 600 0:0 x/null 1:3\np 644 0:0 x/pipe\nb 660 0:6 x/sda 8:0\nf 755 0:0 x/sock",
    );
}

#[test]
fn attributes_of_folders_come_along() {
    let mut tree = TextTree::new("d 755 0:0 d/e");
    tree.set_xattr("d/e", "user.x", b"1");
    let mut base = TextTree::new("d 755 0:0 x/e");
    base.set_xattr("x/e", "user.y", b"2");
    let made = entries(copy(&["d"], "/x"), &tree, &base).unwrap();
    assert_eq!(made[1].path, path("x/e"));
    assert_eq!(made[1].xattrs.len(), 2);
}

#[test]
fn times_are_kept_and_made() {
    let mut tree = TextTree::new("f 644 0:0 d/a 1\nd 755 0:0 d/e");
    for (at, secs) in [("d", 1), ("d/a", 2), ("d/e", 3)] {
        tree.set_mtime(at, secs);
    }
    let mut base = TextTree::new("d 755 0:0 y");
    base.set_mtime("y", 9);
    let times = |dest: &str, base: &TextTree| -> Vec<_> {
        let made = entries(copy(&["d"], dest), &tree, base).unwrap();
        made.iter().map(|e| (e.path.to_string(), e.mtime.secs)).collect()
    };
    let named = |list: &[(&str, i64)]| list.iter().map(|(p, t)| (p.to_string(), *t)).collect::<Vec<_>>();
    assert_eq!(times("/y/x", &base), named(&[("/y", 9), ("/y/x", 1), ("/y/x/a", 2), ("/y/x/e", 3)]));
    assert_eq!(times("/y", &base), named(&[("/y", 1), ("/y/a", 2), ("/y/e", 3)]));
    assert_eq!(times("/z/x/", &base)[0], ("/z".into(), 77));
}

#[test]
fn linked_layers_do_not_look_below() {
    let copy = copy(&["a.txt"], "/x/");
    let (tree, base) = (TextTree::new(TREE), TextTree::new("l 777 0:0 x -> /y"));
    let selection = select(&copy, &tree, &Read).unwrap();
    let op = FileOp { link: true, ..op(vec![FileAction::Copy(copy)]) };
    let mut listing = Listing::default();
    write(&op, &base, &[Input { tree: &tree, selection: &selection }], MADE, &mut listing).unwrap();
    assert_eq!(listing.1, "d 755 0:0 x\nf 640 0:0 x/a.txt one\n");
}

#[test]
fn workdirs() {
    let make = |path: &str, owner: Option<&str>, base: &str| {
        let owner = owner.map(|user| Owner { user: user.into(), group: None });
        let op = op(vec![FileAction::Mkdir { path: path.into(), mode: 0o755, owner }]);
        let mut listing = Listing::default();
        write(&op, &TextTree::new(base), &[], MADE, &mut listing).map(|_| listing.1)
    };
    assert_eq!(make("/a/b", None, "").unwrap(), "d 755 0:0 a\nd 755 0:0 a/b\n");
    assert_eq!(make("/a/b", Some("5"), "d 700 1:1 a").unwrap(), "d 700 1:1 a\nd 755 5:5 a/b\n");
    assert_eq!(make("/a/b", Some("nobody"), "d 700 1:1 a").unwrap(), "d 700 1:1 a\nd 755 0:0 a/b\n");
    assert_eq!(make("/a/b", None, "d 700 1:1 a/b").unwrap(), "");
    assert_eq!(make("/l/b", None, "l 777 0:0 l -> x\nd 700 1:1 x").unwrap(), "d 700 1:1 x\nd 755 0:0 x/b\n");
    assert_eq!(make("/", None, "").unwrap(), "");
    assert_eq!(make("/a/b", None, "f 644 0:0 a").unwrap_err().to_string(), "mkdir /a: not a directory");
}

#[test]
fn heredocs() {
    let make = |path: &str, mode: Option<Mode>, base: &str| {
        let content = b"text".to_vec();
        let action = FileAction::Mkfile { path: path.into(), name: "EOF".into(), content, mode, owner: None };
        let mut listing = Listing::default();
        write(&op(vec![action]), &TextTree::new(base), &[], MADE, &mut listing).map(|_| listing.1)
    };
    assert_eq!(make("/f", None, "").unwrap(), "f 644 0:0 f text\n");
    assert_eq!(make("/d/", None, "").unwrap(), "d 755 0:0 d\nf 644 0:0 d/EOF text\n");
    assert_eq!(make("/d", None, "d 700 0:0 d").unwrap(), "d 700 0:0 d\nf 644 0:0 d/EOF text\n");
    assert_eq!(make("/f", Some(Mode::Octal(0o777)), "f 644 0:0 f x").unwrap(), "f 777 0:0 f text\n");
}

#[test]
fn content_is_names_modes_owners_and_bytes_never_times() {
    let key = |text: &str, change: &dyn Fn(&mut TextTree)| {
        let mut tree = TextTree::new(text);
        change(&mut tree);
        select(&copy(&["d"], "/x"), &tree, &Read).unwrap().content
    };
    let same = &|_: &mut TextTree| {};
    let first = key("f 644 0:0 d/a 1\nd 755 0:0 d/e\nl 777 0:0 d/l -> a", same);
    assert_eq!(first, key("f 644 0:0 d/a 1\nd 755 0:0 d/e\nl 777 0:0 d/l -> a", &|t| t.set_mtime("d/a", 5)));
    assert_eq!(first, key("d 700 9:9 d\nf 644 0:0 d/a 1\nd 755 0:0 d/e\nl 777 0:0 d/l -> a\nf 644 0:0 other 1", same));
    for other in [
        "f 644 0:0 d/a 2\nd 755 0:0 d/e\nl 777 0:0 d/l -> a",
        "f 600 0:0 d/a 1\nd 755 0:0 d/e\nl 777 0:0 d/l -> a",
        "f 644 1:0 d/a 1\nd 755 0:0 d/e\nl 777 0:0 d/l -> a",
        "f 644 0:1 d/a 1\nd 755 0:0 d/e\nl 777 0:0 d/l -> a",
        "f 644 0:0 d/b 1\nd 755 0:0 d/e\nl 777 0:0 d/l -> a",
        "f 644 0:0 d/a 1\nd 700 0:0 d/e\nl 777 0:0 d/l -> a",
        "f 644 0:0 d/a 1\nd 755 0:0 d/e\nl 777 0:0 d/l -> b",
        "f 644 0:0 d/a 1\nd 755 0:0 d/e",
        "f 644 0:0 d/a 1\nf 755 0:0 d/e\nl 777 0:0 d/l -> a",
    ] {
        assert_ne!(first, key(other, same), "{other}");
    }
    let xattr = &|t: &mut TextTree| t.set_xattr("d/e", "user.x", b"1");
    assert_ne!(first, key("f 644 0:0 d/a 1\nd 755 0:0 d/e\nl 777 0:0 d/l -> a", xattr));
}

/// An archive of lines, as other tools write it.
fn tar(lines: &str) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        let rest = words.get(4).copied().unwrap_or_default();
        let mut header = tar::Header::new_gnu();
        header.set_mode(u32::from_str_radix(words[1], 8).unwrap());
        let (uid, gid) = words[2].split_once(':').unwrap();
        header.set_uid(uid.parse().unwrap());
        header.set_gid(gid.parse().unwrap());
        header.set_mtime(5);
        header.set_size(if words[0] == "f" { rest.len() as u64 } else { 0 });
        header.set_entry_type(match words[0] {
            "f" => tar::EntryType::Regular,
            "d" => tar::EntryType::Directory,
            "l" => tar::EntryType::Symlink,
            "h" => tar::EntryType::Link,
            "p" => tar::EntryType::Fifo,
            _ => panic!("{line}"),
        });
        // The crate's own setters refuse what an attacker writes.
        header.as_old_mut().name[..words[3].len()].copy_from_slice(words[3].as_bytes());
        if matches!(words[0], "l" | "h") {
            let target = rest.trim_start_matches("-> ").trim_start_matches("= ");
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        }
        header.set_cksum();
        out.append(&header, if words[0] == "f" { rest.as_bytes() } else { &[] }).unwrap();
    }
    out.into_inner().unwrap()
}

fn add(content: Vec<u8>, dest: &str, base: &str, owner: Option<Owner>) -> Result<Listing, Error> {
    let mut tree = TextTree::new("f 600 0:0 a.tar");
    tree.set_content("a.tar", content);
    let copy = CopyAction { unpack: Unpack::Archives, owner, ..copy(&["a.tar"], dest) };
    run(copy, &tree, &TextTree::new(base))
}

#[test]
fn archives_are_unpacked() {
    let content = tar("d 750 3:4 d\nf 4711 3:4 d/f one\nl 777 3:4 l -> d/f\nh 4711 3:4 h = d/f\nf 644 0:0 x/y/z two");
    let made = add(content.clone(), "/in", "", None).unwrap();
    let want = "d 755 0:0 in
        d 750 3:4 in/d
        l 777 3:4 in/l -> d/f
        d 755 0:0 in/x
        d 755 0:0 in/x/y
        f 4711 3:4 in/d/f one
        h 4711 3:4 in/h = in/d/f
        f 644 0:0 in/x/y/z two";
    assert_eq!(made.1, lines(want));
    let owner = Owner { user: "9".into(), group: None };
    let made = add(content, "/in", "", Some(owner)).unwrap();
    assert!(made.1.contains("d 755 9:9 in\n") && made.1.contains("f 4711 9:9 in/d/f one\n"), "{}", made.1);
    assert!(made.1.contains("d 755 0:0 in/x\n"), "parents inside an archive are root's: {}", made.1);
}

fn xz(plain: &[u8]) -> Vec<u8> {
    let mut out = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

#[test]
fn archives_in_all_compressions() {
    let plain = tar("f 644 0:0 f text");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for packed in [plain.clone(), gzip.finish().unwrap(), bzip2.finish().unwrap(), zstd, xz(&plain)] {
        assert_eq!(add(packed, "/d", "", None).unwrap().1, "d 755 0:0 d\nf 644 0:0 d/f text\n");
    }
}

#[test]
fn what_is_no_archive_is_copied() {
    for content in
        [&b""[..], b"text", &[0x1f, 0x8b, 8, 1, 2, 3], b"BZhello", &[0; 1024], &xz(&tar("f 644 0:0 f text"))[..40]]
    {
        let tree = {
            let mut tree = TextTree::new("f 600 0:0 a.tar");
            tree.set_content("a.tar", content.to_vec());
            tree
        };
        let copy = CopyAction { unpack: Unpack::Archives, ..copy(&["a.tar"], "/x") };
        let selection = select(&copy, &tree, &Read).unwrap();
        assert!(!selection.picks[0].archive, "{content:?}");
    }
}

#[test]
fn archives_replace_what_is_there() {
    let base = "d 700 0:0 in/d/old\nf 644 0:0 in/f x\nl 777 0:0 in/l -> /etc";
    let made =
        add(tar("f 644 0:0 d now a file\nd 711 0:0 f\nd 755 0:0 l\nf 644 0:0 l/g g"), "/in", base, None).unwrap();
    let want = "d 755 0:0 in\nd 711 0:0 in/f\nd 755 0:0 in/l\nf 644 0:0 in/d now a file\nf 644 0:0 in/l/g g";
    assert_eq!(made.1, lines(want));
}

#[test]
fn a_folder_that_came_back_hides_the_base() {
    let made = add(tar("f 644 0:0 d f\nd 755 0:0 d\nf 644 0:0 d/new n"), "/", "f 644 0:0 d/old o", None).unwrap();
    assert_eq!(made.1, "d 755 0:0 d\no 0 0:0 d\nf 644 0:0 d/new n\n");
}

#[test]
fn archives_take_over_folders_that_are_there() {
    let made = add(tar("d 711 1:1 d\nf 644 0:0 d/f f"), "/", "d 755 0:0 d\nf 644 0:0 d/old o", None).unwrap();
    assert_eq!(made.1, "d 711 1:1 d\nf 644 0:0 d/f f\n");
}

#[test]
fn repeated_names_in_an_archive_the_last_wins() {
    let made = add(tar("f 644 0:0 a 1\nh 644 0:0 b = a\nf 600 0:0 a 22"), "/", "", None).unwrap();
    assert_eq!(made.1, "f 644 0:0 b 1\nf 600 0:0 a 22\n");
}

#[test]
fn hostile_archives_stay_in_the_destination() {
    let made = add(tar("l 777 0:0 l -> /\nf 644 0:0 l/f f"), "/in", "", None).unwrap();
    assert_eq!(made.1, "d 755 0:0 in\nl 777 0:0 in/l -> /\nf 644 0:0 in/f f\n");
    for bad in [
        "l 777 0:0 l -> ../..\nf 644 0:0 l/f f",
        "l 777 0:0 l -> ..\nf 644 0:0 l/etc/f f",
        "l 777 0:0 l -> l\nf 644 0:0 l/f f",
        "f 644 0:0 ../f f",
        "h 644 0:0 h = ../../etc/shadow",
        "h 644 0:0 h = nothing",
        "d 755 0:0 d\nh 644 0:0 h = d",
        "f 644 0:0 f f\nf 644 0:0 f/g g",
    ] {
        assert!(add(tar(bad), "/in/deep", "f 600 0:0 etc/shadow s", None).is_err(), "{bad}");
    }
}

#[test]
fn pipes_of_archives_are_left_out() {
    assert_eq!(add(tar("p 644 0:0 p\nf 644 0:0 f f"), "/", "", None).unwrap().1, "f 644 0:0 f f\n");
}

#[test]
fn hard_links_to_the_base_are_copies() {
    let made = add(tar("h 640 2:3 h = old"), "/", "f 600 0:0 old text", None).unwrap();
    assert_eq!(made.1, "f 640 2:3 h text\n");
}
