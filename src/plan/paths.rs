//! Paths in images: absolute, with `/`, never above the root.

/// `path` from `dir`, cleaned: no `.`, `..`, `//` or trailing slash.
pub(super) fn join(dir: &str, path: &str) -> String {
    let parts = if path.starts_with('/') {
        path.split('/').chain("".split('/'))
    } else {
        dir.split('/').chain(path.split('/'))
    };
    let mut clean: Vec<&str> = Vec::new();
    for part in parts {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    format!("/{}", clean.join("/"))
}

/// Like [`join`], but a path that says it is a folder (`x/`, `x/.`, `.` or nothing) still says so.
pub(super) fn join_keeping_slash(dir: &str, path: &str) -> String {
    let folder = path.ends_with('/') || path.ends_with("/.") || matches!(path, "" | ".");
    let joined = join(dir, path);
    if folder && joined != "/" { joined + "/" } else { joined }
}

/// The last part of a path: `/` of the root, `.` of nothing.
pub(super) fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    path.trim_end_matches('/').rsplit('/').next().filter(|b| !b.is_empty()).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins() {
        for (dir, path, want) in [
            ("/a", "b", "/a/b"),
            ("/a", "/b/", "/b"),
            ("/a", "../../..", "/"),
            ("/a", "", "/a"),
            ("/", "./x//y/.", "/x/y"),
            ("", "x", "/x"),
        ] {
            assert_eq!(join(dir, path), want, "{dir} {path}");
        }
    }

    #[test]
    fn keeps_what_says_folder() {
        for (path, want) in [
            (".", "/a/"),
            ("", "/a/"),
            ("./", "/a/"),
            ("x", "/a/x"),
            ("x/", "/a/x/"),
            ("x/.", "/a/x/"),
            ("/", "/"),
            ("/.", "/"),
            ("/x/..", "/"),
        ] {
            assert_eq!(join_keeping_slash("/a", path), want, "{path:?}");
        }
    }

    #[test]
    fn bases() {
        for (path, want) in [("", "."), ("/", "/"), ("a/b", "b"), ("a/b/", "b"), ("b", "b")] {
            assert_eq!(base(path), want);
        }
    }
}
