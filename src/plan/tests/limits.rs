//! Short Dockerfiles that would fill any memory are errors that name the limit and point at a line.

use super::*;

/// The messages of a file's errors, with the numbers of the lines that they point at.
fn errors(text: &str, on_build: &[String]) -> Vec<(String, usize)> {
    let (file, found) = dockerfile::parse(text);
    assert_eq!(found, []);
    let args = BuildArgs::new(amd64());
    let mut known = ResolvedBases::default();
    let mut found = Vec::new();
    while let Ok(wanted) = bases(&file, &args, &known).map_err(|errors| found = errors) {
        if wanted.is_empty() {
            found = lower(&file, &known, &args).err().unwrap_or_default();
            break;
        }
        let image = |key: &ImageKey| {
            let mut image = fake_image(key);
            image.config.config.on_build = on_build.to_vec();
            Some(image)
        };
        answer(wanted, &mut known, image).unwrap();
    }
    let line = |d: &Diagnostic| text[..d.span.start as usize].matches('\n').count() + 1;
    found.iter().filter(|d| d.severity == Severity::Error).map(|d| (d.message.clone(), line(d))).collect()
}

const PLAN: &str = "grows to more than 128 MiB";

#[test]
fn what_would_fill_the_memory_is_an_error_at_its_line() {
    let doubled = |name: &str| format!("{name} A=xxxxxxxx\n{}", format!("{name} A=$A$A\n").repeat(40));
    let megabyte = |name: &str| format!("{name} A=xxxxxxxx\n{}", format!("{name} A=$A$A\n").repeat(16));
    for (text, message, line) in [
        // Eight bytes, doubled in each line from the third on, are half a megabyte in line 18: two of them are the most.
        (format!("FROM a\n{}", doubled("ENV")), "more than 1 MiB", 20),
        (format!("FROM a\n{}", doubled("ARG")), "more than 1 MiB", 20),
        (format!("{}FROM a\n", doubled("ARG")), "more than 1 MiB", 19),
        (format!("FROM a\n{}{}", megabyte("ENV"), "RUN make\n".repeat(10_000)), PLAN, 19),
        (format!("FROM a\n{}{}", megabyte("ARG"), "RUN make\n".repeat(10_000)), PLAN, 19),
        (format!("FROM a\n{}{}", megabyte("ENV"), "WORKDIR $A\n".repeat(10_000)), PLAN, 19),
        (format!("FROM a\n{}{}", megabyte("ENV"), "COPY <<E /a\n$A\nE\n".repeat(10_000)), PLAN, 19),
        (format!("FROM a\n{}{}", megabyte("ENV"), "FROM stage-0\n".repeat(10)), "", 0),
        (
            format!(
                "{}{}",
                megabyte("ARG"),
                (0..10_000).map(|i| format!("ARG B{i}=$A\n")).collect::<String>() + "FROM a\n"
            ),
            PLAN,
            18,
        ),
        (format!("{}FROM $A", megabyte("ARG")), "base name is longer than 4096 bytes", 18),
        (format!("FROM a\nEXPOSE {}", "1-65535 ".repeat(1_000)), PLAN, 2),
        (format!("FROM a\n{}", "EXPOSE 1-65535\n".repeat(1_000)), PLAN, 3),
    ] {
        let found = errors(&text, &[]);
        match (found.as_slice(), message) {
            ([], "") => {}
            // Where the value stays what it was, the lines that follow are wrong, too.
            ([(said, at), rest @ ..], message) if message != PLAN || rest.is_empty() => {
                assert!(said.contains(message) && said.len() < 500, "{said:.300}");
                assert!((line..=line + 1_000).contains(at), "{message}: line {at}, not from {line} on: {text:.60}");
            }
            (found, _) => panic!("{text:.60}: {} errors: {:.300}", found.len(), format!("{found:?}")),
        }
    }
}

#[test]
fn triggers_of_a_base_have_a_limit() {
    let triggers = vec![format!("ENV A={}", "x".repeat(20_000)); 100];
    let found = errors(&"FROM a\n".repeat(1_000), &triggers);
    // Each stage that is needed brings them again.
    assert_eq!(found, []);
    let stages: String = (0..1_000).map(|i| format!("FROM a AS s{i}\n")).collect();
    let copies: String = (0..1_000).map(|i| format!("COPY --from=s{i} /a /\n")).collect();
    let found = errors(&format!("{stages}FROM scratch\n{copies}"), &triggers);
    let [(said, line)] = found.as_slice() else { panic!("{:.300}", format!("{found:?}")) };
    assert!(said.contains(PLAN) && *line < 1_000, "{line}: {said}");
}
