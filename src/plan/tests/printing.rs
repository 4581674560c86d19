//! The forms in which plans and what builds can be given are printed.

use super::{BuildArgs, amd64, plan};
use crate::dockerfile;
use crate::plan::{ResolvedBases, outline, print, targets};
use crate::report::SourceText;

fn small() -> crate::plan::BuildPlan {
    let text = "FROM busybox AS tools\nRUN echo \"a|b\" <c>\nFROM scratch\nCOPY x /\nCOPY --from=tools /t /\n";
    plan(text, &BuildArgs::new(amd64())).unwrap().0
}

#[test]
fn graphs_have_a_box_for_each_stage() {
    let digest = "sha256:99f3fe7a";
    let dot = print::dot(&small()).replace(&small_digest(), digest);
    let want = r#"digraph plan {
  rankdir=LR;
  node [shape=box, fontname=monospace];
  v2 [label="[internal] load build context", shape=folder];
  subgraph cluster_1 {
    label="tools";
    v0 [label="[tools 1/2] FROM docker.io/library/busybox:latest@sha256:99f3fe7a", shape=cylinder];
    v1 [label="[tools 2/2] RUN echo \"a|b\" <c>"];
  }
  subgraph cluster_2 {
    label="1";
    v3 [label="[stage-1 1/2] COPY x /"];
    v4 [label="[stage-1 2/2] COPY --from=tools /t /"];
  }
  v0 -> v1;
  v2 -> v3;
  v1 -> v4;
  v3 -> v4;
  t0 [label="image linux/amd64", shape=ellipse];
  v4 -> t0;
}
"#;
    assert_eq!(dot, want);
    let mermaid = print::mermaid(&small()).replace(&small_digest(), digest);
    let want = r##"flowchart LR
  v2[/"#91;internal#93; load build context"/]
  subgraph s1 ["tools"]
    v0[("#91;tools 1/2#93; FROM docker.io/library/busybox:latest@sha256:99f3fe7a")]
    v1["#91;tools 2/2#93; RUN echo #34;a#124;b#34; #60;c#62;"]
  end
  subgraph s2 ["1"]
    v3["#91;stage-1 1/2#93; COPY x /"]
    v4["#91;stage-1 2/2#93; COPY --from=tools /t /"]
  end
  v0 --> v1
  v2 --> v3
  v1 --> v4
  v3 --> v4
  t0(["image linux/amd64"])
  v4 --> t0
"##;
    assert_eq!(mermaid, want);
}

/// The digest of the base as labels show it: cut.
fn small_digest() -> String {
    let name = &small().vertices[0].name;
    let shown: String = name.chars().take(80).collect();
    format!("{}…", shown.split_once('@').unwrap().1)
}

#[test]
fn json_says_what_each_step_does() {
    let all: serde_json::Value = serde_json::from_str(&print::json(&small())).unwrap();
    assert_eq!(all["vertices"].as_array().unwrap().len(), 5);
    assert_eq!(all["vertices"][1]["op"]["exec"][2], "echo \"a|b\" <c>");
    assert_eq!(all["vertices"][4]["inputs"], serde_json::json!([3, 1]));
    assert_eq!(all["images"][0]["root"], 4);
    assert_eq!(all["images"][0]["history"][0], "COPY x / # buildkit (3)");
}

const GIVEN: &str = "\
# BASE is what it stands on
ARG BASE=busy${SUFFIX}box
ARG SUFFIX
ARG IDLE=1
# tools makes the tools
FROM ${BASE} AS Tools
# LEVEL how hard to try
ARG LEVEL=3
RUN --mount=type=secret,id=token,required --mount=type=ssh make
FROM scratch
ARG IDLE
COPY --from=tools /t /
RUN --mount=type=secret,id=other x
";

#[test]
fn an_outline_lists_what_can_be_given() {
    let (file, _) = dockerfile::parse(GIVEN);
    let mut args = BuildArgs::new(amd64());
    let mut known = ResolvedBases::default();
    let wanted = crate::plan::bases(&file, &args, &known).unwrap();
    super::answer(wanted, &mut known, |key| Some(super::fake_image(key))).unwrap();
    let whole = outline(&file, &known, &args).unwrap();
    let want = "\
BUILD ARG   VALUE     DESCRIPTION
BASE        busybox   is what it stands on
SUFFIX                
IDLE        1         
LEVEL       3         how hard to try

SECRET   REQUIRED
token    true
other    

SSH       REQUIRED
default   

";
    // A global ARG that has no value when it is used isn't one that is used.
    assert_eq!(print::outline_text(&whole), want.replace("SUFFIX                \n", ""));
    args.target = Some("tools".into());
    let tools = outline(&file, &known, &args).unwrap();
    assert!(print::outline_text(&tools).starts_with("TARGET:      tools\nDESCRIPTION: makes the tools\n\nBUILD ARG"));
    let json: serde_json::Value =
        serde_json::from_str(&print::outline_json(&tools, &SourceText::new("Dockerfile", GIVEN))).unwrap();
    assert_eq!(json["name"], "tools");
    assert_eq!(
        json["args"][1],
        serde_json::json!({ "name": "LEVEL", "description": "how hard to try", "value": "3",
            "location": { "ranges": [{ "start": { "line": 8 }, "end": { "line": 8 } }] } })
    );
    assert_eq!(json["secrets"][0]["required"], true);
    assert_eq!(json["sources"].as_array().unwrap().len(), 1);
}

#[test]
fn targets_are_listed_as_buildx_does() {
    let (file, _) = dockerfile::parse(GIVEN);
    let list = targets(&file);
    assert_eq!(print::targets_text(&list), "TARGET    DESCRIPTION\ntools     makes the tools\n(default) \n");
    let json: serde_json::Value =
        serde_json::from_str(&print::targets_json(&list, &SourceText::new("Dockerfile", GIVEN))).unwrap();
    assert_eq!(json["targets"][0]["base"], "${BASE}");
    assert_eq!(json["targets"][1]["default"], true);
    assert_eq!(json["targets"][1].get("name"), None);
}
