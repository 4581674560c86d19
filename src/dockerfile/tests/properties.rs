//! What holds for every text.

use super::*;
use proptest::prelude::*;

/// All words and spans of a file, gathered.
#[derive(Default)]
struct Gathered {
    headers: Vec<Header>,
    words: Vec<Word>,
    spans: Vec<Span>,
}

impl Gathered {
    fn file(file: &Dockerfile) -> Self {
        let mut all = Self::default();
        let directives = &file.directives;
        all.words.extend(directives.syntax.iter().chain(&directives.check).cloned());
        file.global_args.iter().for_each(|i| all.instruction(i));
        for stage in &file.stages {
            all.headers.push(stage.header.clone());
            let From { platform, image, name, as_keyword } = &stage.from;
            all.words.push(image.clone());
            all.words.extend([platform, name, as_keyword].into_iter().flatten().cloned());
            stage.instructions.iter().for_each(|i| all.instruction(i));
        }
        all
    }

    fn instruction(&mut self, instruction: &Instruction) {
        self.headers.push(instruction.header.clone());
        match &instruction.kind {
            Kind::Arg(pairs) => {
                self.words.extend(pairs.iter().flat_map(|p| [Some(p.name.clone()), p.default.clone()]).flatten());
            }
            Kind::Run(run) => {
                self.command(&run.command);
                for mount in &run.mounts {
                    self.spans.push(mount.span);
                    self.words.extend(mount.fields.iter().chain(&mount.target).chain(&mount.id).cloned());
                }
                self.words.extend(run.network.iter().chain(&run.security).chain(&run.devices).cloned());
            }
            Kind::Copy(copy) => self.files(&copy.files),
            Kind::Add(add) => self.files(&add.files),
            Kind::Env(pairs) | Kind::Label(pairs) => {
                self.words.extend(pairs.pairs.iter().flat_map(|(k, v)| [k.clone(), v.clone()]));
            }
            Kind::Workdir(word) | Kind::User(word) | Kind::Stopsignal(word) | Kind::Maintainer(word) => {
                self.words.push(word.clone());
            }
            Kind::Volume(words) | Kind::Expose(words) | Kind::Shell(words) => self.words.extend(words.iter().cloned()),
            Kind::Cmd(command) | Kind::Entrypoint(command) => self.command(command),
            Kind::Healthcheck(check) => check.command.iter().for_each(|c| self.command(&c.0)),
            Kind::Onbuild { .. } => {}
        }
    }

    fn command(&mut self, command: &CommandLine) {
        self.spans.push(command.span);
        self.spans.extend(command.heredocs.iter().map(|h| h.span));
    }

    fn files(&mut self, files: &Files) {
        self.words.push(files.dest.clone());
        self.words.extend(files.chown.iter().chain(&files.chmod).chain(&files.exclude).cloned());
        for source in &files.sources {
            match source {
                FileSource::Path(word) => self.words.push(word.clone()),
                FileSource::Heredoc(heredoc) => self.spans.push(heredoc.span),
            }
        }
    }
}

fn holds(text: &str) -> Result<(), TestCaseError> {
    let (file, errors) = parse(text);
    let mut all = Gathered::file(&file);
    let headers = all.headers.iter().flat_map(|h| [h.span, h.keyword.span]);
    let spans = all.words.iter().map(|w| w.span).chain(all.spans.iter().copied()).chain(headers);
    for span in spans.chain(errors.iter().map(|e| e.span)) {
        prop_assert!(text.get(span.range()).is_some(), "{:?} isn't inside the text, or cuts a character", span);
    }
    for pair in all.headers.windows(2) {
        prop_assert!(pair[0].span.end <= pair[1].span.start, "instructions overlap: {:?}", pair);
    }
    for header in &all.headers {
        all.words.push(header.keyword.clone());
        prop_assert_eq!(header.span.start, header.keyword.span.start);
    }
    for pair in errors.windows(2) {
        prop_assert!(pair[0].span.start <= pair[1].span.start);
    }
    // A word without continuations, quotes or escapes in it stands in the text as it is.
    for word in all.words {
        if text.get(word.span.range()).is_some_and(|t| !t.contains(['\\', '`', '"', '\'', '\n'])) {
            prop_assert_eq!(text[word.span.range()].trim(), word.text.trim());
        }
    }
    Ok(())
}

/// Pieces that mean something to a parser of Dockerfiles.
fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "FROM a",
        "from b AS c",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ARG ",
        "LABEL ",
        "HEALTHCHECK ",
        "ONBUILD ",
        "CMD ",
        "EXPOSE ",
        "VOLUME ",
        "SHELL ",
        "USER ",
        "WORKDIR ",
        "# escape=`",
        "# syntax=a",
        "#",
        "\n",
        "\n",
        "\n",
        "\r\n",
        "\\\n",
        "`\n",
        " ",
        "\t",
        "\u{a0}",
        "<<E",
        "<<-'E'",
        "3<<F",
        "\nE\n",
        "\nF\n",
        "[\"a\", \"b\"]",
        "[\"",
        "\"",
        "'",
        "\\",
        "=",
        "a=b",
        "$v",
        "${v:-",
        "}",
        "--from=a",
        "--mount=type=cache,target=/x",
        "--link",
        "--",
        "NONE",
        "é",
        "\u{feff}",
        "{",
        "]",
        ",",
    ]);
    prop_oneof![8 => fixed.prop_map(str::to_owned), 1 => "\\PC{0,4}", 1 => any::<char>().prop_map(String::from)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(800) })]

    #[test]
    fn every_text_is_read(pieces in prop::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        holds(&text)?;
        holds(&format!("FROM a\n{text}"))?;
        let _ = ast_dump(&text);
    }

    #[test]
    fn durations_and_sizes_never_panic(text in "[-+0-9.a-zA-Zµ ]{0,24}") {
        let _ = (duration::parse(&text), mount::ram_in_bytes(&text));
    }
}

/// Found by fuzzing with pieces of Dockerfiles; each was wrong once.
#[test]
fn texts_that_were_trouble() {
    for text in [
        "",
        "\u{feff}",
        "\\",
        "FROM\u{a0}a",
        "FROM a\nENV \u{a0}=",
        "FROM a\nRUN <<\u{a0}E",
        "--",
        "ONBUILD --",
        "ARG a\\\nb\\\nc=d",
    ] {
        holds(text).unwrap();
    }
}
