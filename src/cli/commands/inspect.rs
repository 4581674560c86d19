//! `kiln inspect` and `kiln history`: what an image of the local store says about itself.

use super::local::{self, Found, Image};
use super::table::{age, short, size, table};
use crate::cli::request::ImageName;
use crate::cli::session::Failure;
use crate::oci::assemble::value;
use crate::oci::{Digest, History, Reference};
use crate::report::Problem;
use crate::store::Store;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Prints an array with an object for each image, as docker does.
pub fn inspect(images: &[ImageName], store: &Path) -> Result<String, Failure> {
    let store = Store::open(store).map_err(Problem::from)?;
    let mut objects = Vec::new();
    for image in images {
        let found = local::find(&store, image)?;
        let best = local::best(&store, &found)?;
        objects.push(object(&local::id(&store, &found.top)?, &found, &best));
    }
    let text = serde_json::to_string_pretty(&objects).unwrap_or_default();
    // Docker's indentation.
    let deeper = |line: &str| {
        let depth = line.len() - line.trim_start_matches(' ').len();
        format!("{}{line}\n", " ".repeat(depth))
    };
    Ok(text.lines().map(deeper).collect())
}

fn object(id: &Digest, found: &Found, image: &Image) -> Value {
    let names: Vec<Reference> = found.names.iter().filter_map(|n| n.reference.parse().ok()).collect();
    let config = &image.config;
    let layers = image.manifest.layers().iter().map(|l| l.size()).sum::<u64>();
    let mut object = json!({
        "Id": id.as_str(),
        "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "RepoDigests": digests(&names, &found.top.digest().to_string()),
        "Comment": config.history.last().map_or("", |h| h.comment.as_str()),
        "Created": config.created.as_deref().unwrap_or_default(),
        "Author": config.author,
        "Config": container(config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": layers.saturating_add(image.manifest.config().size()),
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids.iter().map(Digest::as_str).collect::<Vec<_>>() },
        "Metadata": { "LastTagTime": found.names.iter().map(|n| n.created.as_str()).max().unwrap_or_default() },
        "Descriptor": value(&found.top),
    });
    if !config.variant.is_empty() {
        object["Variant"] = config.variant.as_str().into();
    }
    object
}

/// `repository@digest`, once for each repository.
fn digests(names: &[Reference], digest: &str) -> Vec<String> {
    let mut all: Vec<String> = names
        .iter()
        .map(|n| Reference { tag: None, digest: None, ..n.clone() })
        .map(|n| format!("{}@{digest}", n.familiar().trim_end_matches(":latest")))
        .collect();
    all.dedup();
    all
}

/// The configuration with the fields that scripts find in docker's whether they are set or not.
fn container(config: &crate::oci::ImageConfig) -> Value {
    let mut map = Map::new();
    for (field, empty) in [
        ("User", json!("")),
        ("Env", json!([])),
        ("Cmd", Value::Null),
        ("Volumes", Value::Null),
        ("WorkingDir", json!("")),
        ("Entrypoint", Value::Null),
        ("OnBuild", Value::Null),
        ("Labels", Value::Null),
    ] {
        map.insert(field.into(), empty);
    }
    // A configuration was JSON, and is again.
    if let Ok(Value::Object(own)) = serde_json::to_value(&config.config) {
        map.extend(own);
    }
    Value::Object(map)
}

/// One line of a history, the newest first.
struct Line<'h> {
    id: String,
    entry: &'h History,
    size: u64,
}

/// Prints an image's history.
pub fn history(image: &ImageName, whole: bool, json: bool, store: &Path) -> Result<String, Failure> {
    let store = Store::open(store).map_err(Problem::from)?;
    let found = local::find(&store, image)?;
    let best = local::best(&store, &found)?;
    let id = local::id(&store, &found.top)?;
    let id = if whole { id.to_string() } else { short(&id) };
    let lines = lines(&best, &id);
    let now = Timestamp::now();
    Ok(if json {
        lines.iter().map(|l| format!("{}\n", json_line(l, whole))).collect()
    } else {
        let heading = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned).to_vec();
        let row = |l: &Line<'_>| {
            let age = age(l.entry.created.as_deref(), now);
            vec![l.id.clone(), age, cut(&l.entry.created_by, whole), size(l.size), l.entry.comment.clone()]
        };
        table(&std::iter::once(heading).chain(lines.iter().map(row)).collect::<Vec<_>>())
    })
}

/// The entries with the sizes of their blobs; the newest has the image's id.
fn lines<'i>(image: &'i Image, id: &str) -> Vec<Line<'i>> {
    let mut sizes = image.manifest.layers().iter().map(|l| l.size());
    let mut lines: Vec<Line<'i>> = image
        .config
        .history
        .iter()
        .map(|entry| {
            let size = if entry.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
            Line { id: "<missing>".into(), entry, size }
        })
        .collect();
    lines.reverse();
    if let Some(first) = lines.first_mut() {
        id.clone_into(&mut first.id);
    }
    lines
}

fn cut(text: &str, whole: bool) -> String {
    const LONGEST: usize = 45;
    let line = text.replace('\t', " ");
    if whole || line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST - 1).chain(['…']).collect()
}

fn json_line(line: &Line<'_>, whole: bool) -> Value {
    let created = line.entry.created.as_deref();
    json!({
        "ID": line.id,
        "CreatedAt": created.unwrap_or_default(),
        "CreatedSince": age(created, Timestamp::now()),
        "CreatedBy": cut(&line.entry.created_by, whole),
        "Size": size(line.size),
        "Comment": line.entry.comment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_as_docker_does() {
        let long = "RUN /bin/sh -c ".to_owned() + &"x".repeat(60);
        assert_eq!(cut(&long, false).chars().count(), 45);
        assert!(cut(&long, false).ends_with("x…"));
        assert_eq!(cut(&long, true), long);
        assert_eq!(cut("a\tb", false), "a b");
    }

    #[test]
    fn a_digest_for_each_repository() {
        let names = ["busybox:1", "busybox:2", "127.0.0.1:5000/a/b:latest"].map(|n| n.parse().unwrap());
        assert_eq!(digests(&names, "sha256:00"), ["busybox@sha256:00", "127.0.0.1:5000/a/b@sha256:00"]);
    }
}
