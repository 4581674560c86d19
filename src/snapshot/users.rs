//! Who a process is and whom files belong to, by an image's own `/etc/passwd` and `/etc/group`.

use super::at::Kind;
use super::{Error, Tree};
use crate::layer::EntryPath;
use std::io::Read;

/// The most of a passwd or group file that is read.
const LONGEST: u64 = 16 << 20;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// All groups, that one first.
    pub groups: Vec<u32>,
    /// The home folder by the passwd file; `/` for a user who isn't there.
    pub home: String,
}

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Who `USER spec` runs as: `user`, `user:group`, by name or number; empty is root.
///
/// As runc and BuildKit have it: a number needn't be in the files, and is never taken for a name; a group that is named
/// leaves no further ones; without it, a user of the passwd file has the group that stands there and those of the group
/// file that list the name, and any other has group 0.
pub fn exec_user(tree: &dyn Tree, spec: &str) -> Result<User, Error> {
    let spec = if spec.is_empty() { "0" } else { spec };
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, group),
        None => (spec, ""),
    };
    let accounts = accounts(tree)?;
    if let (Ok(uid), Ok(gid)) = (quick_id(user), quick_id(group)) {
        return Ok(User { uid, gid, groups: vec![gid], home: home(&accounts, uid) });
    }
    let account = match user.parse::<i64>() {
        Ok(number) => accounts.iter().find(|a| i64::from(a.uid) == number),
        Err(_) if user.is_empty() => accounts.iter().find(|a| a.uid == 0),
        Err(_) => Some(accounts.iter().find(|a| a.name == user).ok_or_else(|| Error::NoUser(user.into()))?),
    };
    let (uid, mut gid) = match account {
        Some(account) => (account.uid, account.gid),
        None if user.is_empty() => (0, 0),
        None => (id(user)?, 0),
    };
    let mut groups = Vec::new();
    if !group.is_empty() {
        gid = group_id(tree, group)?;
    } else if let Some(account) = account {
        let all = self::groups(tree)?;
        groups.extend(all.iter().filter(|g| g.members.contains(&account.name)).map(|g| g.gid));
    }
    groups.retain(|g| *g != gid);
    groups.insert(0, gid);
    Ok(User { uid, gid, groups, home: home(&accounts, uid) })
}

/// Whom files belong to that `--chown=user[:group]` names.
///
/// As BuildKit has it: a user by number has the group of that number; by name, the group of the passwd file; a group by
/// name is looked up in the group file. A name that isn't there is an error (BuildKit takes root's number, which hands
/// files to somebody else than was said).
pub fn owner(tree: &dyn Tree, user: &str, group: Option<&str>) -> Result<(u32, u32), Error> {
    let (uid, mut gid) = match quick_id(user) {
        Ok(uid) => (uid, uid),
        Err(_) => {
            let accounts = accounts(tree)?;
            let account = accounts.iter().find(|a| a.name == user).ok_or_else(|| Error::NoUser(user.into()))?;
            (account.uid, account.gid)
        }
    };
    if let Some(group) = group.filter(|g| !g.is_empty()) {
        gid = match quick_id(group) {
            Ok(gid) => gid,
            Err(_) => {
                let groups = groups(tree)?;
                let found = groups.iter().find(|g| g.name == group);
                found.ok_or_else(|| Error::NoGroup(group.into()))?.gid
            }
        };
    }
    Ok((uid, gid))
}

/// A number, or `root`, which BuildKit knows without looking.
fn quick_id(text: &str) -> Result<u32, Error> {
    if text == "root" { Ok(0) } else { id(text) }
}

fn id(text: &str) -> Result<u32, Error> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // The largest number means "nobody in particular" to the kernel.
    let number = text.parse::<u32>().ok().filter(|n| is_number && *n != u32::MAX);
    number.ok_or_else(|| Error::IdRange(text.into()))
}

fn group_id(tree: &dyn Tree, group: &str) -> Result<u32, Error> {
    let groups = groups(tree)?;
    match group.parse::<i64>() {
        Ok(number) => match groups.iter().find(|g| i64::from(g.gid) == number) {
            Some(found) => Ok(found.gid),
            None => id(group),
        },
        Err(_) => Ok(groups.iter().find(|g| g.name == group).ok_or_else(|| Error::NoGroup(group.into()))?.gid),
    }
}

fn home(accounts: &[Account], uid: u32) -> String {
    let home = accounts.iter().find(|a| a.uid == uid).map(|a| a.home.as_str()).filter(|h| !h.is_empty());
    home.unwrap_or("/").into()
}

fn accounts(tree: &dyn Tree) -> Result<Vec<Account>, Error> {
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let (_password, uid, gid) = (fields.next(), number(fields.next()), number(fields.next()));
        let (_comment, home) = (fields.next(), fields.next().unwrap_or_default().to_owned());
        Some(Account { name, uid: uid?, gid: gid?, home })
    };
    Ok(lines(&text(tree, "etc/passwd")?).filter_map(parse).collect())
}

fn groups(tree: &dyn Tree) -> Result<Vec<Group>, Error> {
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let (_password, gid) = (fields.next(), number(fields.next())?);
        let members = fields.next().unwrap_or_default();
        Some(Group { name, gid, members: members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect() })
    };
    Ok(lines(&text(tree, "etc/group")?).filter_map(parse).collect())
}

/// A field that is missing or no number counts as 0, as runc reads it; one that no kernel takes spoils the line.
fn number(field: Option<&str>) -> Option<u32> {
    match field.unwrap_or_default().parse::<i64>() {
        Ok(number) => u32::try_from(number).ok().filter(|n| *n != u32::MAX),
        Err(_) => Some(0),
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|l| !l.is_empty())
}

/// A file's text; empty where there is no such file.
fn text(tree: &dyn Tree, path: &str) -> Result<String, Error> {
    let Some(found) = tree.lookup(&EntryPath::parse(path.as_bytes())?, true)?.filter(|f| f.meta.kind == Kind::File)
    else {
        return Ok(String::new());
    };
    // With room for the end, so that it is found by one more read.
    let room = usize::try_from(found.meta.size.min(LONGEST)).unwrap_or(0) + 32;
    let mut bytes = Vec::with_capacity(room);
    let mut file = tree.open(&found.path)?.take(LONGEST);
    file.read_to_end(&mut bytes).map_err(|e| Error::inside("read", &found.path, e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::EmptyTree;
    use crate::snapshot::testing::TextTree;

    fn tree() -> TextTree {
        let mut tree = TextTree::new("f 644 0:0 etc/passwd\nf 644 0:0 etc/group");
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\n  daemon:x:1:1:d:/usr/sbin:/x\nfoo:x:1000:1001::/home/foo:\n\
                      bad\nbroken:x:no:no\nbig:x:99999999999:1::/\nfoo:x:7:7::/second:\n1234:x:5:5::/five:\n";
        let group = "root:x:0:\nwheel:x:10:root,foo\nfoo:x:1001:foo\nops:x:20:bar,foo,\nbad\nnum:x:4294967295:foo\n";
        tree.set_content("etc/passwd", passwd.into());
        tree.set_content("etc/group", group.into());
        tree
    }

    #[test]
    fn users_of_processes() {
        for (spec, uid, gid, groups, home) in [
            ("", 0, 0, &[0, 10][..], "/root"),
            ("root", 0, 0, &[0, 10], "/root"),
            ("0", 0, 0, &[0, 10], "/root"),
            ("foo", 1000, 1001, &[1001, 10, 20], "/home/foo"),
            ("1000", 1000, 1001, &[1001, 10, 20], "/home/foo"),
            ("foo:wheel", 1000, 10, &[10], "/home/foo"),
            ("foo:77", 1000, 77, &[77], "/home/foo"),
            ("1000:1000", 1000, 1000, &[1000], "/home/foo"),
            ("root:root", 0, 0, &[0], "/root"),
            ("4711", 4711, 0, &[0], "/"),
            ("4711:4712", 4711, 4712, &[4712], "/"),
            ("4711:wheel", 4711, 10, &[10], "/"),
            ("daemon", 1, 1, &[1], "/usr/sbin"),
            ("1234", 1234, 0, &[0], "/"),
            (":wheel", 0, 10, &[10], "/root"),
            ("bad", 0, 0, &[0], "/root"),
        ] {
            let want = User { uid, gid, groups: groups.to_vec(), home: home.into() };
            assert_eq!(exec_user(&tree(), spec).unwrap(), want, "{spec:?}");
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        assert_eq!(
            exec_user(&tree(), "nobody").unwrap_err().to_string(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        for bad in ["big", "-1", "4294967295", "99999999999", "foo:nogroup", "foo:-1"] {
            assert!(exec_user(&tree(), bad).is_err(), "{bad}");
        }
        assert!(exec_user(&EmptyTree, "foo").is_err());
    }

    #[test]
    fn without_files_numbers_and_root_do() {
        let user = |uid, gid| User { uid, gid, groups: vec![gid], home: "/".into() };
        assert_eq!(exec_user(&EmptyTree, "").unwrap(), user(0, 0));
        assert_eq!(exec_user(&EmptyTree, "1000").unwrap(), user(1000, 0));
        assert_eq!(exec_user(&EmptyTree, "1000:5").unwrap(), user(1000, 5));
        assert!(exec_user(&EmptyTree, "root").is_err());
    }

    #[test]
    fn owners_of_files() {
        let tree = tree();
        for (user, group, want) in [
            ("5", None, (5, 5)),
            ("5", Some("6"), (5, 6)),
            ("5", Some(""), (5, 5)),
            ("root", None, (0, 0)),
            ("foo", None, (1000, 1001)),
            ("foo", Some("wheel"), (1000, 10)),
            ("0", Some("foo"), (0, 1001)),
        ] {
            assert_eq!(owner(&tree, user, group).unwrap(), want, "{user} {group:?}");
        }
        assert!(owner(&tree, "nobody", None).is_err());
        assert!(owner(&tree, "foo", Some("nobody")).is_err());
        assert!(owner(&EmptyTree, "foo", None).is_err());
        assert_eq!(owner(&EmptyTree, "root", Some("root")).unwrap(), (0, 0));
    }

    #[test]
    fn files_may_be_links() {
        let mut tree = TextTree::new("l 777 0:0 etc/passwd -> /lib/passwd\nf 644 0:0 lib/passwd");
        tree.set_content("lib/passwd", b"me:x:5:6::/h:".to_vec());
        assert_eq!(exec_user(&tree, "me").unwrap().uid, 5);
    }
}
