//! What has to be resolved, and in which rounds.

use super::{BuildArgs, amd64, answer, fake_image};
use crate::dockerfile;
use crate::plan::{ImageKey, ResolvedBases, ResolvedImage, Wanted, bases, lower};

/// The names that are wanted, round by round.
fn rounds(text: &str, args: &BuildArgs, image: impl Fn(&ImageKey) -> ResolvedImage) -> Vec<Vec<String>> {
    let (file, found) = dockerfile::parse(text);
    assert!(found.is_empty(), "{found:?}");
    let (mut known, mut rounds) = (ResolvedBases::default(), Vec::new());
    loop {
        let wanted = bases(&file, args, &known).unwrap();
        if wanted.is_empty() {
            lower(&file, &known, args).unwrap();
            return rounds;
        }
        rounds.push(names(&wanted));
        assert!(rounds.len() < 10, "{rounds:?}");
        answer(wanted, &mut known, |key| Some(image(key))).unwrap();
    }
}

fn names(wanted: &Wanted) -> Vec<String> {
    let images = wanted.images.iter().map(|(key, _)| format!("{} {}", key.name, key.platform));
    let git = wanted.git.iter().map(|(key, _)| format!("{}#{}", key.remote, key.reference));
    images.chain(git).chain(wanted.http.iter().map(|(key, _)| key.url.clone())).collect()
}

#[test]
fn only_what_the_target_needs_is_wanted_and_only_once() {
    let text = "FROM a AS one\nFROM b AS two\nRUN x\nFROM two\nCOPY --from=c x /\nCOPY --from=c y /\n\
                RUN --mount=from=d,target=/d x\nRUN --mount=type=cache,target=/e x\nCOPY --from=two z /\n";
    let got = rounds(text, &BuildArgs::new(amd64()), fake_image);
    let want = ["b", "c", "d"].map(|n| format!("docker.io/library/{n}:latest linux/amd64"));
    assert_eq!(got, [want.to_vec()]);
    let all = BuildArgs { all_stages: true, ..BuildArgs::new(amd64()) };
    assert_eq!(rounds(text, &all, fake_image)[0].len(), 4);
}

#[test]
fn platforms_are_wanted_each() {
    let mut args = BuildArgs::new(amd64());
    args.platforms = vec![amd64(), "linux/arm64".parse().unwrap()];
    let text = "FROM --platform=$BUILDPLATFORM a AS tools\nFROM b\nCOPY --from=tools x /\n";
    let want = ["a:latest linux/amd64", "b:latest linux/amd64", "b:latest linux/arm64"]
        .map(|n| format!("docker.io/library/{n}"));
    assert_eq!(rounds(text, &args, fake_image), [want.to_vec()]);
}

#[test]
fn addresses_wait_for_the_environment_of_the_image() {
    let text = "FROM a\nADD ${BASE_URL}/f https://g.invalid/r.git#v1 /\n";
    let with_url = |key: &ImageKey| {
        let mut image = fake_image(key);
        image.config.config.env.push("BASE_URL=https://h.invalid".into());
        image
    };
    assert_eq!(
        rounds(text, &BuildArgs::new(amd64()), with_url),
        [
            vec!["docker.io/library/a:latest linux/amd64".to_owned()],
            vec!["https://g.invalid/r.git#v1".to_owned(), "https://h.invalid/f".to_owned()],
        ]
    );
}

#[test]
fn triggers_want_images_of_their_own() {
    let with_trigger = |key: &ImageKey| {
        let mut image = fake_image(key);
        match key.name.to_string().as_str() {
            "docker.io/library/a:latest" => image.config.config.on_build = vec!["COPY --from=b x /".into()],
            // Triggers of an image that is only copied from mean nothing.
            _ => image.config.config.on_build = vec!["COPY --from=never x /".into()],
        }
        image
    };
    assert_eq!(
        rounds("FROM a\nRUN x\n", &BuildArgs::new(amd64()), with_trigger),
        [["docker.io/library/a:latest linux/amd64"], ["docker.io/library/b:latest linux/amd64"]]
    );
}

#[test]
fn a_check_needs_no_image() {
    let text = "FROM unknown AS a\nWORKDIR $GOPATH\nEXPOSE $PORT\nCOPY --chmod=9 a /\nCOPY --chmod=$M a /\n\
                FROM scratch AS b\nENV A=$NOPE\nFROM a\nRUN x\nCOPY --from=b $B /\n";
    let (file, _) = dockerfile::parse(text);
    let args = BuildArgs { all_stages: true, ..BuildArgs::new(amd64()) };
    let found: Vec<String> =
        crate::plan::check(&file, &ResolvedBases::default(), &args).into_iter().map(|d| d.message).collect();
    assert_eq!(
        found,
        [
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
            "Usage of undefined variable '$NOPE'",
        ]
    );
}

#[test]
fn what_is_taken_from_the_context_is_listed_expanded() {
    let text = "FROM scratch AS x\nFROM scratch\nARG D=dir\nCOPY $D/a ./b* /\nCOPY --parents p/./q r /\nADD . /\n\
                COPY --from=x /y /\nADD https://h.invalid/f /\n";
    let (plan, _) = super::plan(text, &BuildArgs::new(amd64())).unwrap();
    let got: Vec<String> =
        crate::plan::context_sources(&plan).iter().map(|s| format!("{} {}", s.command, s.path)).collect();
    assert_eq!(got, ["Copy dir/a", "Copy b*", "Copy p/./q", "Copy r", "Add "]);
}

#[test]
fn a_checksum_that_differs_is_an_error_at_its_place() {
    let (file, _) = dockerfile::parse("FROM scratch\nADD https://g.invalid/r.git?checksum=abc /\n");
    let args = BuildArgs::new(amd64());
    let mut known = ResolvedBases::default();
    answer(bases(&file, &args, &known).unwrap(), &mut known, |_| None).unwrap();
    let errors = lower(&file, &known, &args).unwrap_err();
    assert!(errors[0].message.starts_with("expected checksum to match abc, got "), "{errors:?}");
}
