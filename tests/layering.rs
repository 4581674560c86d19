//! The walls of the house: what each module may use, who may print, how large a file may grow, and that
//! ARCHITECTURE.md says the same.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and the modules of this crate that it may use. ARCHITECTURE.md has the same table for people.
#[rustfmt::skip]
const TABLE: &[(&str, &[&str])] = &[
    ("oci", &[]),
    ("report", &[]),
    ("sys", &[]),
    ("dockerfile", &["report"]),
    ("plan", &["dockerfile", "oci", "report"]),
    ("store", &["oci", "report", "sys"]),
    ("layer", &["oci", "report", "sys"]),
    ("snapshot", &["layer", "report", "store", "sys"]),
    ("sandbox", &["report", "sys"]),
    ("in_place", &["layer", "report", "sandbox", "snapshot", "store", "sys"]),
    ("registry", &["oci", "report", "sys"]),
    ("source", &["dockerfile", "layer", "oci", "plan", "registry", "report", "snapshot", "store", "sys"]),
    ("solve", &["dockerfile", "layer", "oci", "plan", "registry", "report", "sandbox", "snapshot", "source", "store", "sys"]),
    ("export", &["layer", "oci", "registry", "report", "store", "sys"]),
    ("cli", &["dockerfile", "export", "in_place", "layer", "oci", "plan", "registry", "report", "sandbox", "snapshot", "solve", "source",
              "store", "sys"]),
];

/// The most lines of a file that can be read in one sitting, and of one that is a list of tests.
const LONGEST: usize = 500;
const LONGEST_TESTS: usize = 900;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `src`, its path from there, and its text.
fn sources() -> Vec<(String, String)> {
    let src = repository().join("src");
    let mut files = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    assert!(files.len() > 20, "the walk of src found only {} files", files.len());
    files
}

/// The module that a file belongs to: its folder under src, or its own name.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

/// A Rust text without comments and without what stands in string and character literals.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |i| i + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let open = 2 + hashes;
            let close = format!("\"{}", "#".repeat(hashes));
            rest[open..].find(&close).map_or(rest.len(), |i| open + i + close.len())
        } else if c == '"' {
            literal(rest, '"')
        } else if is_char(rest) {
            literal(rest, '\'')
        } else {
            0
        };
        if skipped == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.push(' ');
            rest = &rest[skipped..];
        }
    }
    out
}

/// The number of hashes of the raw string that begins here. `r#name` is none.
fn raw_string(rest: &str) -> Option<usize> {
    let behind = rest.strip_prefix('r')?;
    let hashes = behind.bytes().take_while(|b| *b == b'#').count();
    behind[hashes..].starts_with('"').then_some(hashes)
}

/// Whether a character literal begins here, rather than a lifetime.
fn is_char(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next() == Some('\'')
        && match chars.next() {
            Some('\\') => true,
            Some(_) => chars.next() == Some('\''),
            None => false,
        }
}

/// The length of the literal that begins here, quotes and all.
fn literal(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return i + 1;
        }
    }
    rest.len()
}

/// The modules that a text names behind `crate::`, in groups too: `use crate::{oci::Digest, sys}`.
fn used(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (i, _) in code.match_indices("crate::") {
        let own = code[..i].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        if own {
            names.extend(heads(code[i + "crate::".len()..].trim_start()));
        }
    }
    names
}

/// The first names of a path, or of each path of a group.
fn heads(path: &str) -> Vec<String> {
    let name = |s: &str| -> String { s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut start = true;
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                names.push(name(&group[i..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let text = r##"
        use crate::oci::Digest;
        pub use crate::{report::{Span, Problem}, sys, plan::op as steps};
        // use crate::comment::X; and /* crate::in_line */
        /* crate::block */
        fn f<'a>(x: &'a crate::store::Store) -> char { g(crate::layer::pack(), "crate::text", r#"crate::"raw"#); '"' }
        macro_rules! m { () => { $crate::snapshot::x } }
        mycrate::other::y(crate :: not_a_path_we_write);
    "##;
    let want = ["layer", "oci", "plan", "report", "snapshot", "store", "sys"];
    assert_eq!(used(&code(text)).into_iter().collect::<Vec<_>>(), want);
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = TABLE.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let own = module(&file);
        if matches!(own, "lib" | "main") {
            continue;
        }
        let Some(allowed) = table.get(own) else {
            wrong.push(format!("src/{file}: the module {own} isn't in the table"));
            continue;
        };
        // The crate's root holds modules and nothing else, so every first name is one.
        for name in used(&code(&text)) {
            if name != own && !allowed.contains(&name.as_str()) {
                wrong.push(format!("src/{file}: {own} may not use {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the table of modules forbids:\n{}", wrong.join("\n"));
}

/// How many `super::` lead from a file to the crate's root.
fn depth(file: &str) -> usize {
    file.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count()
}

#[test]
fn no_module_goes_around_the_table_by_super() {
    for (file, text) in sources() {
        let code = code(&text);
        let body = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&code);
        let way_out = "super::".repeat(depth(&file));
        let around = module(&file) != "lib" && module(&file) != "main" && body.contains(&way_out);
        assert!(!around, "src/{file} reaches the crate's root by {way_out}: write crate::");
    }
}

#[test]
fn the_table_has_no_way_back() {
    for (i, (module, allowed)) in TABLE.iter().enumerate() {
        for name in *allowed {
            let at = TABLE.iter().position(|(m, _)| m == name);
            assert!(at.is_some_and(|at| at < i), "{module} may use {name}, which doesn't stand above it");
        }
    }
}

#[test]
fn every_module_of_the_crate_is_in_the_table() {
    let lib = fs::read_to_string(repository().join("src/lib.rs")).unwrap();
    let declared: BTreeSet<&str> =
        lib.lines().filter_map(|l| l.strip_prefix("pub mod ").and_then(|l| l.strip_suffix(';'))).collect();
    assert_eq!(declared, TABLE.iter().map(|(m, _)| *m).collect());
}

#[test]
fn architecture_md_has_the_same_table() {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let rows: BTreeMap<&str, BTreeSet<&str>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split_once("` |"))
        .filter_map(|(name, rest)| {
            let uses = rest.trim_end().trim_end_matches('|').rsplit('|').next()?;
            Some((name, uses.split(',').map(str::trim).filter(|u| !u.is_empty() && *u != "nothing").collect()))
        })
        .collect();
    for (module, allowed) in TABLE {
        let row = rows.get(module).unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for {module}"));
        if *module == "cli" {
            assert_eq!(row.iter().copied().collect::<Vec<_>>(), ["all of them"]);
        } else {
            assert_eq!(row.iter().copied().collect::<Vec<_>>(), *allowed, "ARCHITECTURE.md's row for {module}");
        }
    }
    assert!(text.lines().count() <= 150, "ARCHITECTURE.md is to be read in one sitting: at most 150 lines");
}

/// Whether a whole file is tests.
fn is_test(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("/tests/")
}

#[test]
fn only_cli_prints() {
    let macros = ["print!", "println!", "eprint!", "eprintln!", "dbg!"];
    let streams = ["io::stdout()", "io::stderr()"];
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let code = code(&text);
        let body = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&code);
        if matches!(module(&file), "cli" | "main") || is_test(&file) {
            continue;
        }
        wrong.extend(macros.iter().chain(&streams).filter(|m| says(body, m)).map(|m| format!("src/{file}: {m}")));
    }
    assert!(wrong.is_empty(), "prints outside cli:\n{}", wrong.join("\n"));
}

/// Whether `code` has `name` where no longer name has it as its end.
fn says(code: &str, name: &str) -> bool {
    code.match_indices(name)
        .any(|(i, _)| code[..i].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_'))
}

#[test]
fn only_sys_is_unsafe() {
    for (file, text) in sources() {
        let code = code(&text);
        if module(&file) != "sys" && file != "lib.rs" {
            assert!(!says(&code, "unsafe ") && !code.contains("allow(unsafe_code)"), "src/{file} has unsafe code");
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(file, lines)| *lines > if is_test(file) { LONGEST_TESTS } else { LONGEST })
        .map(|(file, lines)| format!("src/{file}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "too long to be read in one sitting:\n{}", long.join("\n"));
}
