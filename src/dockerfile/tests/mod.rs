mod differential;
mod growth;
mod properties;

use super::ast::*;
use super::*;

/// The messages of a text's errors.
fn errors(text: &str) -> Vec<String> {
    parse(text).1.into_iter().filter(|e| e.severity == Severity::Error).map(|e| e.message).collect()
}

/// The instructions of a file's first stage, without errors.
fn instructions(text: &str) -> Vec<Kind> {
    let (file, errors) = parse(&format!("FROM a\n{text}"));
    assert!(errors.is_empty(), "{text}: {errors:?}");
    file.stages.into_iter().next().unwrap().instructions.into_iter().map(|i| i.kind).collect()
}

fn only(text: &str) -> Kind {
    let mut all = instructions(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

fn texts(words: &[Word]) -> Vec<&str> {
    words.iter().map(|w| w.text.as_str()).collect()
}

#[test]
fn stages_and_global_args() {
    let (file, errors) = parse("ARG a b=c\nFROM --platform=$p x AS Y\nRUN z\nfrom y\n");
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(file.global_args.len(), 1);
    assert_eq!(file.stages.len(), 2);
    let from = &file.stages[0].from;
    assert_eq!(from.image.text, "x");
    assert_eq!(from.platform.as_ref().unwrap().text, "$p");
    assert_eq!(from.name.as_ref().unwrap().text, "Y");
    assert_eq!(from.as_keyword.as_ref().unwrap().text, "AS");
    assert_eq!(file.stages[0].instructions.len(), 1);
    assert_eq!(file.stages[1].header.keyword.text, "from");
}

#[test]
fn headers_keep_what_the_history_shows() {
    let text = "FROM a\n# none\n\n# one\n# two\nrun  a \\\n  # no\n  b \\\n\n  <<E\nbody\nE\n#\nCMD x";
    let (file, errors) = parse(text);
    assert!(errors.is_empty(), "{errors:?}");
    let run = &file.stages[0].instructions[0].header;
    assert_eq!(run.original, "run  a   b   <<E");
    assert_eq!(run.keyword.text, "run");
    assert_eq!(run.comments, ["one", "two"]);
    assert!(run.empty_continuation.is_some());
    assert_eq!(&text[run.span.range()], "run  a \\\n  # no\n  b \\\n\n  <<E\nbody\n");
    let cmd = &file.stages[0].instructions[1].header;
    assert!(cmd.comments.is_empty());
    assert_eq!(&text[cmd.span.range()], "CMD x");
}

#[test]
fn commands() {
    let Kind::Run(run) = only("RUN --mount=type=cache,target=/c --network=none --security=sandbox a  \"b\"") else {
        panic!()
    };
    assert_eq!(run.command.form, Form::Shell("a  \"b\"".into()));
    assert_eq!(run.network.unwrap().text, "none");
    assert_eq!(run.security.unwrap().text, "sandbox");
    assert_eq!(run.mounts[0].kind, MountKind::Cache);
    for (text, want) in [
        ("CMD [\"a\", \"b\"]", Form::Exec(vec!["a".into(), "b".into()])),
        ("CMD []", Form::Exec(vec![])),
        ("CMD", Form::Shell(String::new())),
        ("CMD ['a']", Form::Shell("['a']".into())),
        ("CMD [\"a\"] b", Form::Shell("[\"a\"] b".into())),
    ] {
        let Kind::Cmd(command) = only(text) else { panic!() };
        assert_eq!(command.form, want, "{text}");
    }
    assert!(matches!(only("SHELL [\"a\", \"-c\"]"), Kind::Shell(words) if texts(&words) == ["a", "-c"]));
}

#[test]
fn heredocs_of_run() {
    let Kind::Run(run) = only("RUN <<-'E'\n\ta\n\t\tb\n\tE") else { panic!() };
    assert!(run.command.is_heredoc());
    let heredoc = &run.command.heredocs[0];
    assert_eq!((heredoc.content.as_str(), heredoc.raw.as_str()), ("a\nb\n", "\ta\n\t\tb\n"));
    assert!(heredoc.chomp && !heredoc.expand);
    let Kind::Run(run) = only("RUN cat <<A 3<<B\na\nA\nb\r\nB") else { panic!() };
    assert!(!run.command.is_heredoc());
    assert_eq!(run.command.heredocs[1].fd, 3);
    assert_eq!(run.command.heredocs[1].content, "b\r\n");
    let Kind::Cmd(cmd) = &instructions("CMD <<E\nRUN E")[0] else { panic!() };
    assert!(!cmd.is_heredoc());
    assert!(matches!(only("RUN [\"<<E\"]"), Kind::Run(run) if run.command.heredocs.is_empty()));
}

#[test]
fn copies() {
    let text = "COPY --from=b --chown=1:2 --chmod=u+x --link --parents --exclude=*.a --exclude=b x <<E y/ \nhi $v\nE";
    let Kind::Copy(copy) = only(text) else { panic!() };
    assert_eq!(copy.from.unwrap().text, "b");
    assert!(copy.parents && copy.files.link);
    assert_eq!(texts(&copy.files.exclude), ["*.a", "b"]);
    assert_eq!(copy.files.dest.text, "y/");
    assert!(matches!(&copy.files.sources[0], FileSource::Path(w) if w.text == "x"));
    assert!(matches!(&copy.files.sources[1], FileSource::Heredoc(h) if h.content == "hi $v\n" && h.expand));
    let Kind::Add(add) = only("ADD --checksum=sha256:a --keep-git-dir --unpack=false [\"a b\", \"c\"]") else {
        panic!()
    };
    assert_eq!(add.checksum.unwrap().text, "sha256:a");
    assert_eq!((add.keep_git_dir, add.unpack), (Some(true), Some(false)));
    assert!(matches!(&add.files.sources[0], FileSource::Path(w) if w.text == "a b"));
}

#[test]
fn of_heredocs_with_one_name_the_last_counts() {
    let Kind::Copy(copy) = only("COPY <<E <<E /\n1\nE\n2\nE") else { panic!() };
    for source in copy.files.sources {
        assert!(matches!(source, FileSource::Heredoc(h) if h.content == "2\n"));
    }
}

#[test]
fn pairs_and_args() {
    let Kind::Env(pairs) = only("ENV a=1 b=\"x y\" c=") else { panic!() };
    let got: Vec<_> = pairs.pairs.iter().map(|(k, v)| (k.text.as_str(), v.text.as_str())).collect();
    assert_eq!(got, [("a", "1"), ("b", "\"x y\""), ("c", "")]);
    assert!(!pairs.legacy);
    let Kind::Label(pairs) = only("LABEL a  b = c") else { panic!() };
    assert_eq!((pairs.pairs[0].0.text.as_str(), pairs.pairs[0].1.text.as_str(), pairs.legacy), ("a", "b = c", true));
    let Kind::Arg(args) = only("ARG a b=c d=") else { panic!() };
    let got: Vec<_> =
        args.iter().map(|a| (a.name.text.as_str(), a.default.as_ref().map(|d| d.text.as_str()))).collect();
    assert_eq!(got, [("a", None), ("b", Some("c")), ("d", Some(""))]);
}

#[test]
fn the_small_ones() {
    assert!(matches!(only("WORKDIR /a b"), Kind::Workdir(w) if w.text == "/a b"));
    assert!(matches!(only("USER a:b"), Kind::User(w) if w.text == "a:b"));
    assert!(matches!(only("STOPSIGNAL 9"), Kind::Stopsignal(w) if w.text == "9"));
    assert!(matches!(only("MAINTAINER a b"), Kind::Maintainer(w) if w.text == "a b"));
    assert!(matches!(only("EXPOSE 90 80/tcp"), Kind::Expose(w) if texts(&w) == ["80/tcp", "90"]));
    assert!(matches!(only("VOLUME /a /b"), Kind::Volume(w) if texts(&w) == ["/a", "/b"]));
    assert!(matches!(only("VOLUME [\" /a \"]"), Kind::Volume(w) if texts(&w) == ["/a"]));
}

#[test]
fn healthchecks() {
    let text = "HEALTHCHECK --interval=1m --timeout=2s --start-period=0 --start-interval=5ms --retries=3 CMD [\"a\"]";
    let Kind::Healthcheck(check) = only(text) else { panic!() };
    assert_eq!((check.interval, check.timeout, check.start_period), (60_000_000_000, 2_000_000_000, 0));
    assert_eq!((check.start_interval, check.retries), (5_000_000, 3));
    assert_eq!(check.command.unwrap().0.form, Form::Exec(vec!["a".into()]));
    assert!(matches!(only("HEALTHCHECK none"), Kind::Healthcheck(h) if h.command.is_none()));
}

#[test]
fn triggers() {
    let Kind::Onbuild { text, instruction } = only("ONBUILD  RUN --mount=type=ssh cat <<E \nx\nE") else { panic!() };
    assert_eq!(text, "RUN --mount=type=ssh cat <<E \nx\nE");
    let instruction = instruction.unwrap();
    assert!(matches!(&instruction.kind, Kind::Run(run) if run.command.heredocs.len() == 1));
    assert_eq!(instruction.header.original, "RUN --mount=type=ssh cat <<E");
}

#[test]
fn wrong_triggers_only_warn() {
    let (file, found) = parse("FROM a\nONBUILD COPY --chwon=1 a b\nONBUILD FOO");
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|d| d.severity == Severity::Warning));
    assert!(matches!(&file.stages[0].instructions[0].kind, Kind::Onbuild { instruction: None, .. }));
}

/// One instruction and its one error.
#[test]
fn every_error_has_buildkits_words() {
    for (text, want) in [
        ("FOO a", "unknown instruction: FOO"),
        ("RUN --foo a", "unknown flag: --foo"),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("COPY --chown=1 --chown=2 a b", "duplicate flag specified: --chown"),
        ("COPY --link=maybe a b", "expecting boolean value for flag --link, not: maybe"),
        ("ADD --parents a b", "unknown flag: --parents"),
        ("COPY --checksum=a a b", "unknown flag: --checksum"),
        ("ENV --a b=c", "unknown flag: --a"),
        ("ARG --a b=c", "unknown flag: --a"),
        ("ENV", "ENV requires at least one argument"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("LABEL a", "LABEL must have two arguments"),
        ("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
        ("ENV =b", "ENV names can not be blank"),
        ("ARG =b", "ARG names can not be blank"),
        ("ARG", "ARG requires at least one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL a b", "SHELL requires the arguments to be in JSON form"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a of b", "FROM requires either one or three arguments"),
        ("FROM a AS 1b", "invalid name for build stage: \"1b\", name can't start with a number or contain symbols"),
        ("FROM a AS $b", "invalid name for build stage: \"$b\", name can't start with a number or contain symbols"),
        ("FROM --platform a", "missing a value on flag: --platform"),
        ("CMD [\"a\", 1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("ADD", "ADD requires at least two arguments, but only one was provided. Destination could not be determined"),
        ("COPY a <<E\nE", "COPY cannot accept a heredoc as a destination"),
        ("RUN <<E\na", "unterminated heredoc"),
        ("RUN <<'E\nE", "unknown instruction: E"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN a", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD maintainer a", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE a", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK a b", "Unknown type \"A\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK --interval=1us CMD a", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK --timeout=x CMD a", "time: invalid duration \"x\""),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --retries=x CMD a", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("RUN --network=wifi a", "invalid network mode \"wifi\""),
        ("RUN --network= a", "invalid network mode \"\""),
        ("RUN --security=none a", "security \"none\" is not valid"),
        ("RUN --mount= a", "failed to parse csv mounts: EOF"),
        ("RUN --mount=type=bnd a", "unsupported mount type \"bnd\""),
        ("RUN --mount=tpye=bind a", "unexpected key 'tpye' in 'tpye=bind'"),
        ("RUN --mount=type=bind,foo a", "invalid field 'foo' must be a key=value pair"),
        ("RUN --mount=from=$x a", "'from' doesn't support variable expansion, define alias stage instead"),
        ("RUN --mount=type=bind,required a", "unexpected key 'required' for mount type 'bind'"),
        ("RUN --mount=required,type=secret,id=a a", "unexpected key 'required' for mount type 'bind'"),
        ("RUN --mount=type=cache,target=/a,sharing=all a", "unsupported sharing value \"all\""),
        ("RUN --mount=type=bind,target=/a,mode=0700 a", "mode not allowed for \"bind\" type mounts"),
        ("RUN --mount=type=tmpfs,target=/a,uid=1 a", "uid not allowed for \"tmpfs\" type mounts"),
        ("RUN --mount=type=cache,target=/a,mode=9 a", "invalid value 9 for mode"),
        ("RUN --mount=type=cache,target=/a,uid=-1 a", "invalid value -1 for uid"),
        ("RUN --mount=type=cache,target=/a,size=1 a", "unexpected key 'size' for mount type 'cache'"),
        ("RUN --mount=type=tmpfs,target=/a,size=big a", "invalid value for size: big"),
        ("RUN --mount=ro=maybe a", "invalid value for ro: maybe"),
        ("RUN --mount=type=secret a", "invalid secret mount. one of source, target required"),
        ("RUN --mount=type=secret,id=a,from=b a", "secret mount should not have a from"),
        ("RUN --mount=type=secret,id=a,source=b a", "both source and id can't be set"),
        ("RUN --mount=type=secret,id=a,sharing=locked a", "secret mount should not define sharing"),
        ("RUN --mount=type=ssh,sharing=locked a", "invalid cache sharing set for ssh mount"),
    ] {
        let text = format!("FROM a\n{text}");
        assert_eq!(errors(&text), [want], "{text}");
    }
}

#[test]
fn mounts_with_variables_are_checked_when_they_are_expanded() {
    let Kind::Run(run) = only("RUN --mount=type=$t,mode=$m,target=$d,ro=$r x") else { panic!() };
    let mount = &run.mounts[0];
    assert_eq!(mount.target.as_ref().unwrap().text, "$d");
    let value = |word: &Word| -> Result<String, Diagnostic> {
        Ok(match word.text.as_str() {
            "$t" => "Cache",
            "$m" => "0755",
            "$d" => "/d",
            "$r" => "1",
            other => other,
        }
        .to_owned())
    };
    let expanded = mount.expand(&mut |word| value(word)).unwrap();
    assert_eq!((expanded.kind, expanded.readonly), (MountKind::Cache, Some(true)));
    assert_eq!(expanded.target.unwrap().text, "/d");
    let bad = mount.expand(&mut |word| Ok(if word.text == "$t" { "tmpfs".into() } else { value(word)? }));
    assert_eq!(bad.unwrap_err().message, "mode not allowed for \"tmpfs\" type mounts");
    let failed = mount.expand(&mut |word| Err(Diagnostic::error(word.span, "no")));
    assert_eq!(failed.unwrap_err().message, "no");
}

#[test]
fn sizes() {
    use super::mount::ram_in_bytes;
    for (text, want) in [
        ("100", Some(100)),
        ("1k", Some(1024)),
        ("1KB", Some(1024)),
        ("1.5 GiB", Some(1_610_612_736)),
        ("2b", Some(2)),
        ("", None),
        ("k", None),
        ("1x", None),
        ("1ib", None),
        ("-1", None),
        ("1  k", None),
    ] {
        assert_eq!(ram_in_bytes(text), want, "{text}");
    }
}

#[test]
fn all_errors_come_at_once_and_in_order() {
    let text = "FROM a\nRUNN x\nCOPY --chwon=1 a\nENV a\nRUN --network=x --mount=a b\nUSER";
    let (_, found) = parse(text);
    let got: Vec<_> = found.iter().map(|d| (&text[d.span.range()], d.hint.as_deref())).collect();
    assert_eq!(
        got,
        [
            ("RUNN", Some("did you mean RUN?")),
            ("--chwon", Some("did you mean --chown?")),
            ("a", None),
            ("a", None),
            ("x", Some("it can be default, none, host")),
            ("a", None),
            ("USER", None),
        ]
    );
}

#[test]
fn files_that_mean_nothing() {
    for (text, want) in [
        ("", "file with no instructions"),
        ("# a\n\n", "file with no instructions"),
        ("ARG a", "dockerfile contains no stages to build"),
        ("RUN a\nRUN b\nFROM c", "no build stage in current context"),
        ("# escape=x\nFROM a", "invalid escape token 'x' does not match ` or \\"),
        ("# syntax=x\n# syntax=y\nFROM a", "only one syntax parser directive can be used"),
    ] {
        assert_eq!(errors(text), [want], "{text}");
    }
}

#[test]
fn instructions_and_words_have_limits() {
    use super::node::{MAX_INSTRUCTIONS, MAX_WORDS};
    let most = format!("FROM a\n{}", "RUN a\n".repeat(MAX_INSTRUCTIONS - 1));
    assert_eq!(errors(&most), [""; 0]);
    let found = parse(&format!("{most}RUN b\nRUN c\n")).1;
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (found.message.as_str(), found.span.start as usize),
        ("a Dockerfile has at most 50000 instructions", most.len())
    );
    // Neither do the errors of what is none fill the memory.
    assert_eq!(parse(&"FOO\n".repeat(MAX_INSTRUCTIONS * 2)).1.len(), MAX_INSTRUCTIONS + 1);
    for line in [
        format!("COPY {}b", "a ".repeat(MAX_WORDS)),
        format!("LABEL {}", "a= ".repeat(MAX_WORDS + 1)),
        format!("CMD [{}\"\"]", "\"\",".repeat(MAX_WORDS)),
        format!("VOLUME {}", "a ".repeat(MAX_WORDS + 1)),
        format!("COPY {} a b", "--x ".repeat(MAX_WORDS)),
        format!("RUN {}", "<<E".repeat(MAX_WORDS + 1)),
        format!("LABEL {}\nLABEL {}", "a= ".repeat(MAX_WORDS / 2 + 1), "a= ".repeat(MAX_WORDS / 2)),
    ] {
        let told = errors(&format!("FROM a\n{line}\n"));
        assert_eq!(told, ["the lists of a Dockerfile have at most 1000000 words in all"], "{line:.40}");
    }
    assert_eq!(errors(&format!("FROM a\nRUN {}", "word ".repeat(MAX_WORDS + 1))), [""; 0]);
}

#[test]
fn no_more_of_a_line_is_told_than_necessary() {
    let secret = r#"{"auths":{"r.io":{"auth":"aHVzaDpodXNo"}}}"#;
    let told = errors(secret);
    assert!(told[0].starts_with("unknown instruction: {\"auths\"") && !told[0].contains("aHVza"), "{told:?}");
}

#[test]
fn escape_directive_changes_continuations_and_words() {
    let (file, errors) = parse("# escape=`\nFROM `\n a\nENV p=c:\\x` y \\\n");
    assert_eq!(errors.len(), 1, "a backslash is no continuation any more: {errors:?}");
    assert_eq!(file.stages[0].from.image.text, "a");
}

#[test]
fn crlf_and_byte_order_mark() {
    let (file, errors) = parse("\u{feff}FROM a\r\nRUN b \\\r\n  c\r\n");
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(file.stages[0].instructions[0].header.original, "RUN b   c");
}

#[test]
fn nested_onbuild_does_not_recurse() {
    let text = format!("FROM a\n{}", "ONBUILD ".repeat(50_000));
    assert_eq!(errors(&text).len(), 1);
    assert!(ast_dump(&text).0.len() > text.len());
}

/// The shared cases, or nothing with a word on why.
fn shared_cases() -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["../shared/conformance/cases", "../../shared/conformance/cases"].map(|p| root.join(p));
    let Some(entries) = places.iter().find_map(|place| std::fs::read_dir(place).ok()) else {
        println!("SKIPPED: the shared conformance cases are not at {}", places[0].display());
        return Vec::new();
    };
    let cases: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    assert!(!cases.is_empty());
    cases
}

/// The syntax trees that BuildKit's parser printed.
#[test]
fn shared_parse_cases() {
    let is_parse = |case: &std::path::PathBuf| case.file_name().unwrap().to_string_lossy().starts_with("parse-");
    for case in shared_cases().into_iter().filter(is_parse) {
        let text = std::fs::read_to_string(case.join("Dockerfile")).unwrap();
        let (tree, errors) = ast_dump(&text);
        match std::fs::read_to_string(case.join("result")) {
            Ok(want) => {
                assert!(errors.is_empty(), "{case:?}: {errors:?}");
                assert_eq!(tree.trim(), want.trim(), "{case:?}");
            }
            Err(_) => assert!(!errors.is_empty(), "{case:?} should be refused"),
        }
    }
}

/// Whatever BuildKit built has no errors.
#[test]
fn shared_build_cases() {
    for case in shared_cases() {
        let read = |name: &str| std::fs::read_to_string(case.join(name)).ok();
        let about: serde_json::Value = serde_json::from_str(&read("case.json").unwrap()).unwrap();
        let expected = read("expected.json").map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
        let built = expected.is_some_and(|e| e["outcome"] == "ok");
        let Some(text) = about["dockerfile"].as_str().and_then(read).filter(|_| built) else { continue };
        let (_, found) = parse(&text);
        assert!(found.iter().all(|d| d.severity != Severity::Error), "{case:?}: {found:?}");
    }
}
