//! Time grows with the text and nothing else: each shape is read at two sizes, and the ratio of the processor times is
//! looked at, not the times.

use super::*;
use crate::dockerfile::ignore::Matcher;
use rustix::time::{ClockId, clock_gettime};

/// The seconds this thread has computed.
fn spent() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn cost(work: impl FnOnce()) -> f64 {
    let start = spent();
    work();
    spent() - start
}

/// Eight times the size may cost eight times as much, and as much again for noise; what grows with the square costs 64
/// times as much.
fn is_linear(name: &str, shape: impl Fn(usize) -> String, work: impl Fn(&str)) {
    const SMALL: usize = 2_000;
    let (small, large) = (shape(SMALL), shape(SMALL * 8));
    work(&small);
    // A text that costs nothing measurable isn't worth dividing by.
    let (little, much) = (cost(|| work(&small)).max(0.000_2), cost(|| work(&large)));
    assert!(much / little < 24.0, "{name}: {little:.4} s became {much:.4} s for eight times the size");
}

#[test]
fn reading_is_linear() {
    type Shape = fn(usize) -> String;
    let shapes: &[(&str, Shape)] = &[
        ("lines", |n| format!("FROM a\n{}", "RUN make all\n".repeat(n))),
        ("one line", |n| format!("FROM a\nRUN {}", "word ".repeat(n))),
        ("one word", |n| format!("FROM a\nRUN {}", "w".repeat(n))),
        ("continuations", |n| format!("FROM a\nRUN x{}", " \\\n  y".repeat(n))),
        ("comments within", |n| format!("FROM a\nRUN x \\\n{} y", "# c\n".repeat(n))),
        ("comments", |n| format!("{}FROM a", "# c\n".repeat(n))),
        ("blanks", |n| format!("FROM a\nCOPY {}b", "a   ".repeat(n))),
        ("pairs", |n| format!("FROM a\nENV {}", "a=b ".repeat(n))),
        ("quotes", |n| format!("FROM a\nLABEL a={}", "'a'\"b\"".repeat(n))),
        ("flags", |n| format!("FROM a\nCOPY {} a b", "--exclude=x ".repeat(n))),
        ("wrong flags", |n| format!("FROM a\nCOPY {} a b", "--exclud=x ".repeat(n))),
        ("mounts", |n| format!("FROM a\nRUN --mount=type=cache,{}id=x", "target=/a,".repeat(n))),
        ("json", |n| format!("FROM a\nCMD [{}\"\"]", "\"a\\n\",".repeat(n))),
        ("json nests", |n| format!("FROM a\nCMD {}", "[".repeat(n))),
        ("heredocs", |n| format!("FROM a\n{}", "RUN <<E\nx\nE\n".repeat(n))),
        ("one heredoc", |n| format!("FROM a\nRUN <<E\n{}E", "x\n".repeat(n))),
        ("markers", |n| format!("FROM a\nRUN {}\n{}", "<<E ".repeat(n), "E\n".repeat(n))),
        ("triggers", |n| format!("FROM a\n{}", "ONBUILD ".repeat(n))),
        ("errors", |n| "FOO\n".repeat(n)),
        ("escapes", |n| format!("FROM a\nENV a={}", "\\a".repeat(n))),
        ("globals", |n| "ARG a=b\n".repeat(n)),
    ];
    for (name, shape) in shapes {
        is_linear(name, shape, |text| drop(parse(text)));
    }
}

#[test]
fn linting_is_linear() {
    type Shape = fn(usize) -> String;
    let shapes: &[(&str, Shape)] = &[
        ("stages", |n| (0..n).map(|i| format!("FROM s{i} AS s{}\n", i + 1)).collect()),
        ("installs", |n| format!("FROM a\nRUN {}", "apt-get install b && ".repeat(n))),
        ("commands", |n| format!("FROM a\n{}", "CMD x\n".repeat(n))),
        ("empty lines", |n| format!("FROM a\nRUN x \\\n{}y", "\n".repeat(n))),
        ("one word", |n| format!("FROM a\nRUN {}", "w".repeat(n))),
    ];
    for (name, shape) in shapes {
        is_linear(name, shape, |text| drop(lint::lint(text, &parse(text).0)));
    }
}

#[test]
fn expanding_is_linear() {
    let lex = expand::Lex::new('\\');
    for piece in ["$a ", "'a' ", "\"$a\" ", "${a:-b}", "\\a", "a<<b"] {
        is_linear(piece, |n| piece.repeat(n), |text| drop(lex.expand(text, &expand::Unset)));
    }
}

#[test]
fn ignoring_is_linear_in_paths() {
    let matcher = Matcher::new(["*.log", "**/node_modules", "!keep/**", "a/**/b?", ".git"]).unwrap();
    is_linear(
        "paths",
        |n| "dir/some/file.txt\n".repeat(n),
        |text| {
            assert_eq!(text.lines().filter(|path| matcher.matches(path)).count(), 0);
        },
    );
}

#[test]
fn a_ten_megabyte_line_is_read() {
    let text = format!("FROM a\nRUN {}", "word ".repeat(2 << 20));
    let (file, errors) = parse(&text);
    assert!(errors.is_empty());
    assert_eq!(file.stages[0].instructions.len(), 1);
}
