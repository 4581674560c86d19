//! `kiln images`, `tag`, `rmi`: the names of the local store.

use super::local::{self, Found};
use super::table::{age, short, size, table, time};
use crate::cli::request::{ImageName, Listing};
use crate::cli::session::Failure;
use crate::oci::{Digest, Reference};
use crate::report::{Kind, Problem};
use crate::store::{Name, Store};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::Path;

/// A line of the list.
struct Line {
    repository: String,
    tag: String,
    digest: Digest,
    id: Digest,
    created: Option<String>,
    size: u64,
}

/// Lists the images, the newest first.
pub fn list(listing: Listing, store: &Path) -> Result<String, Failure> {
    let store = Store::open(store).map_err(Problem::from)?;
    let mut lines = Vec::new();
    for name in store.names().map_err(Problem::from)? {
        lines.push(line(&store, &name)?);
    }
    lines.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.repository.cmp(&b.repository)));
    let now = Timestamp::now();
    Ok(match listing {
        Listing::Table => columns(&lines, now),
        Listing::Json => lines.iter().map(|l| format!("{}\n", json_line(l, now))).collect(),
        Listing::Ids => ids(&lines),
    })
}

fn line(store: &Store, name: &Name) -> Result<Line, Problem> {
    let images = local::images(store, &name.descriptor)?;
    let (repository, tag) = split(&name.reference);
    let all = images.iter().flat_map(|i| i.manifest.layers().iter().chain([i.manifest.config()]));
    let created = images.iter().filter_map(|i| i.config.created.clone()).max();
    Ok(Line {
        repository,
        tag,
        digest: local::digest(&name.descriptor)?,
        id: local::id(store, &name.descriptor)?,
        created: created.or_else(|| Some(name.created.clone())),
        size: all.map(|d| d.size()).sum(),
    })
}

/// A name as people type it, and its tag.
fn split(reference: &str) -> (String, String) {
    let familiar = reference.parse().map_or_else(|_| reference.to_owned(), |r: Reference| r.familiar());
    match familiar.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (familiar, "<none>".to_owned()),
    }
}

fn columns(lines: &[Line], now: Timestamp) -> String {
    let heading = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned).to_vec();
    let row = |l: &Line| {
        let age = age(l.created.as_deref(), now);
        vec![l.repository.clone(), l.tag.clone(), short(&l.id), age, size(l.size)]
    };
    table(&std::iter::once(heading).chain(lines.iter().map(row)).collect::<Vec<_>>())
}

fn json_line(line: &Line, now: Timestamp) -> Value {
    json!({
        "Repository": line.repository,
        "Tag": line.tag,
        "Digest": line.digest.as_str(),
        "ID": short(&line.id),
        "CreatedAt": time(line.created.as_deref()),
        "CreatedSince": age(line.created.as_deref(), now),
        "Size": size(line.size),
    })
}

/// Each id once.
fn ids(lines: &[Line]) -> String {
    let mut ids: Vec<String> = Vec::new();
    for line in lines {
        let id = short(&line.id);
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids.iter().map(|id| format!("{id}\n")).collect()
}

/// Gives an image a further name.
pub fn tag(image: &ImageName, name: &Reference, store: &Path) -> Result<String, Failure> {
    let store = Store::open(store).map_err(Problem::from)?;
    let found = local::find(&store, image)?;
    local::publish(&store, name, &found.top)?;
    Ok(String::new())
}

/// Takes names away. What no image needs any more goes with the next `kiln prune`.
pub fn remove(images: &[ImageName], force: bool, store: &Path) -> Result<String, Failure> {
    let store = Store::open(store).map_err(Problem::from)?;
    let mut text = String::new();
    for image in images {
        let found = local::find(&store, image)?;
        for name in doomed(image, &found, force)? {
            if store.remove_name(&name).map_err(Problem::from)? {
                text.push_str(&format!("Untagged: {}\n", name.familiar()));
            }
        }
    }
    Ok(text)
}

/// The names that go: the one that was typed, or all of an image that was named by its id.
fn doomed(image: &ImageName, found: &Found, force: bool) -> Result<Vec<Reference>, Problem> {
    let names: Vec<Reference> = found.names.iter().filter_map(|n| n.reference.parse().ok()).collect();
    let typed = image.reference.as_ref().filter(|r| r.digest.is_none());
    if let Some(typed) = typed
        && let Some(one) = names.iter().find(|n| n.to_string() == with_tag(typed))
    {
        return Ok(vec![one.clone()]);
    }
    let repositories: std::collections::BTreeSet<_> = names.iter().map(|n| (&n.registry, &n.repository)).collect();
    if repositories.len() > 1 && !force {
        let known: Vec<String> = names.iter().map(Reference::familiar).collect();
        return Err(Problem::new(Kind::Usage, format!("{} has names in several repositories", image.typed))
            .cause(known.join(", "))
            .hint("name one of them, or take all away with --force"));
    }
    Ok(names)
}

fn with_tag(reference: &Reference) -> String {
    Reference { tag: reference.tag_or_latest().map(str::to_owned), ..reference.clone() }.to_string()
}
