//! The syntax tree as text, in the form that BuildKit's parser prints it: `(copy ["--link"] "a" "b")`.

use super::ast::Word;
use super::node::{self, Args, Level, Node};
use super::quote::quoted;
use crate::report::Diagnostic;

/// The tree of a file, one instruction a line, and the errors that stand against it: those that can be seen without
/// knowing what the instructions mean.
pub fn ast_dump(text: &str) -> (String, Vec<Diagnostic>) {
    let (tree, errors) = node::read(text);
    (tree.nodes.iter().map(|node| dump(node) + "\n").collect(), errors)
}

fn dump(node: &Node) -> String {
    let mut out = String::new();
    for level in &node.levels {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push('(');
        head(level, &mut out);
    }
    args(&node.args, &mut out);
    // BuildKit trims each expression.
    let trimmed = out.trim_end().len();
    out.truncate(trimmed);
    out.push_str(&")".repeat(node.levels.len()));
    out
}

fn head(level: &Level, out: &mut String) {
    out.push_str(&level.name.text.to_lowercase());
    if !level.flags.is_empty() {
        let flags: Vec<_> = level.flags.iter().map(|f| quoted(&f.text)).collect();
        out.push_str(&format!(" [{}]", flags.join(" ")));
    }
}

fn args(args: &Args, out: &mut String) {
    match args {
        Args::Plain(words) | Args::Json(words) => words.iter().for_each(|w| word(w, out)),
        Args::Pairs { pairs, legacy } => {
            for (name, value) in pairs {
                word(name, out);
                word(value, out);
                out.push_str(if *legacy { " \"\"" } else { " \"=\"" });
            }
        }
        Args::Health { kind, command } => {
            word(kind, out);
            if let Args::Plain(words) | Args::Json(words) = command.as_ref() {
                words.iter().for_each(|w| word(w, out));
            }
        }
        Args::Unknown => out.push_str(" \"\""),
    }
}

fn word(word: &Word, out: &mut String) {
    out.push(' ');
    out.push_str(&quoted(&word.text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_buildkit_does() {
        for (text, want) in [
            ("FROM a as b", r#"(from "a" "as" "b")"#),
            ("COPY --from=x --link a\tb c", r#"(copy ["--from=x" "--link"] "a" "b" "c")"#),
            ("ENV a=b c=\"d e\"", r#"(env "a" "b" "=" "c" "\"d e\"" "=")"#),
            ("env a b  c", r#"(env "a" "b  c" "")"#),
            ("ONBUILD RUN --mount=type=ssh x", r#"(onbuild (run ["--mount=type=ssh"] "x"))"#),
            ("ONBUILD onbuild CMD []", "(onbuild (onbuild (cmd)))"),
            ("ONBUILD", "(onbuild)"),
            ("HEALTHCHECK --retries=1 CMD [\"a\", \"b\"]", r#"(healthcheck ["--retries=1"] "CMD" "a" "b")"#),
            ("HEALTHCHECK NONE", r#"(healthcheck "NONE")"#),
            ("Foo bar", r#"(foo "")"#),
            ("RUN", "(run)"),
            ("RUN <<EOF\nx\nEOF", r#"(run "<<EOF")"#),
        ] {
            let (got, errors) = ast_dump(text);
            assert_eq!((got.as_str(), errors.len()), (format!("{want}\n").as_str(), 0), "{text}");
        }
    }
}
