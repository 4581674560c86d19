//! `kiln save` and `kiln load`: images of the local store to an archive, and from one.

use super::local;
use crate::cli::Env;
use crate::cli::progress::Style;
use crate::cli::request::{ImageName, RegistryRequest};
use crate::cli::session::{Failure, Session, cannot};
use crate::export::spec::{Destination, Place};
use crate::export::{Layout, Named};
use crate::oci::Reference;
use crate::oci::assemble::Assembled;
use crate::report::{Kind, Problem};
use crate::source;
use crate::store::Store;
use crate::sys::input::open_given;
use std::io::{IsTerminal as _, Read};
use std::path::Path;

/// An image to save, and the names that it is to have.
struct Saved {
    image: Assembled,
    names: Vec<Reference>,
    created: String,
}

/// Writes images to one archive, which is an OCI layout; unless one of them is for several platforms, `docker load` takes
/// it too.
pub fn save(images: &[ImageName], output: Option<&Path>, store: &Path) -> Result<String, Failure> {
    if output.is_none() && std::io::stdout().is_terminal() {
        return Err(Problem::new(Kind::Usage, "an archive is nothing for a terminal")
            .hint("write it to a file with --output, or redirect standard output")
            .into());
    }
    let store = Store::open(store).map_err(Problem::from)?;
    let saved = images.iter().map(|image| saved(&store, image)).collect::<Result<Vec<_>, _>>()?;
    let named: Vec<Named<'_>> =
        saved.iter().map(|s| Named { image: &s.image, names: &s.names, created: &s.created }).collect();
    let docker = saved.iter().all(|s| s.image.index.is_none());
    let layout = Layout { images: &named, docker };
    let destination = output.map_or(Destination::Stdout, |path| Destination::File(path.to_owned()));
    layout
        .write(&Place::Archive(destination), &store, Box::new(std::io::stdout()))
        .map_err(|e| Failure::from(Problem::from(e)))?;
    Ok(String::new())
}

/// An image under the name that was typed; one that was named by its id has none, as with docker.
fn saved(store: &Store, typed: &ImageName) -> Result<Saved, Problem> {
    let found = local::find(store, typed)?;
    let name = typed.reference.as_ref().filter(|r| r.digest.is_none());
    let name = name.map(|r| Reference { tag: r.tag_or_latest().map(str::to_owned), ..r.clone() });
    let known = name.filter(|name| found.names.iter().any(|n| n.reference == name.to_string()));
    let created = local::best(store, &found)?.config.created.unwrap_or_default();
    Ok(Saved { image: local::assembled(store, &found)?, names: known.into_iter().collect(), created })
}

/// Puts the images of an archive into the store, and their names.
pub fn load(input: Option<&Path>, store: &Path, env: &Env) -> Result<String, Failure> {
    let from: Box<dyn Read + Send> = match input {
        Some(path) => Box::new(open_given(path).map_err(|e| cannot(&format!("read {}", path.display()), &e))?),
        None if std::io::stdin().is_terminal() => {
            return Err(Problem::new(Kind::Usage, "there is no archive to load")
                .hint("name one with --input, or redirect standard input")
                .into());
        }
        None => Box::new(std::io::stdin()),
    };
    let session = Session::start(store, &RegistryRequest::default(), Style::Plain, None, env)?;
    Ok(session.run(async |session| {
        let (store, cancel) = (session.store.clone(), session.cancel.clone());
        let work = tokio::task::spawn_blocking(move || load_into(&store, from, &cancel));
        session.stoppable(async { work.await.map_err(|e| cannot("load the archive", &e))? }).await
    })?)
}

fn load_into(store: &Store, from: Box<dyn Read + Send>, cancel: &crate::sys::Cancel) -> Result<String, Problem> {
    let mut text = String::new();
    for loaded in source::load(store, from, cancel)? {
        local::note_id(store, &loaded.top)?;
        for name in &loaded.names {
            local::publish(store, name, &loaded.top)?;
            text.push_str(&format!("Loaded image: {}\n", name.familiar()));
        }
        if loaded.names.is_empty() {
            store.settle()?;
            text.push_str(&format!("Loaded image ID: {}\n", local::id(store, &loaded.top)?));
        }
    }
    Ok(text)
}
