//! File names that layers cannot express, since `.wh.NAME` in a layer removes NAME: a step that makes one fails and is
//! named, wherever the file comes from. The builds here run no process; those that do are in
//! `cli_failures_root_registry.rs`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/archives.rs"]
mod archives;
#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use archives::{gzip, tar};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use world::World;

/// Builds an image: its layers are packed.
const IMAGE: [&str; 4] = ["build", "--progress=plain", "-tout", "context"];
/// Where a build's files go.
const FILES: [&str; 3] = ["build", "-otype=local,dest=out", "context"];

/// A context with files of such names.
fn world() -> World {
    let world = World::new();
    world.file("context/file", "x").file("context/.wh.file", "x").file("context/dir/sub/.wh.file", "x");
    world.file("context/members.tar.gz", gzip(&tar(&[("a", "x"), ("d/.wh.member", "x"), ("z", "x")])));
    fs::create_dir_all(world.path("context/dirs/.wh.dir")).unwrap();
    fs::create_dir(world.path("context/links")).unwrap();
    symlink("/file", world.path("context/links/.wh.link")).unwrap();
    fs::create_dir(world.path("context/hard")).unwrap();
    fs::write(world.path("context/hard/a"), "x").unwrap();
    fs::hard_link(world.path("context/hard/a"), world.path("context/hard/.wh.a")).unwrap();
    world
}

#[test]
fn a_step_that_makes_a_whiteout_by_name_fails_and_is_named() {
    let world = world();
    for (step, name) in [
        ("COPY .wh.file /", "/.wh.file"),
        ("COPY --link .wh.file /", "/.wh.file"),
        ("COPY file /.wh.renamed", "/.wh.renamed"),
        ("COPY file /.wh.to/file", "/.wh.to"),
        ("COPY file /.wh..wh..opq", "/.wh..wh..opq"),
        ("COPY dir /to", "/to/sub/.wh.file"),
        ("COPY dirs /to", "/to/.wh.dir"),
        ("COPY links /to", "/to/.wh.link"),
        ("COPY hard /to", "/to/.wh.a"),
        ("COPY <<.wh.text /\nx\n.wh.text", "/.wh.text"),
        ("ADD .wh.file /", "/.wh.file"),
        ("ADD members.tar.gz /to", "/to/d/.wh.member"),
        ("WORKDIR /a/.wh.workdir/b", "/a/.wh.workdir"),
    ] {
        world.dockerfile(&format!("FROM scratch\nCOPY file /lower\n{step}\n"));
        let said = format!("a layer cannot hold {name}:");
        world.kiln(IMAGE).fails(1).says(&said).says("Dockerfile:3").points_at(step.lines().next().unwrap());
        world.nothing_is_left();
    }
    assert_eq!(world.kiln(["images", "-q"]).ok().stdout, "");
}

#[test]
fn similar_names_are_names_like_others() {
    let world = World::new();
    for name in [".wh", ".wha", ".WH.a", "a.wh.b", "..wh.a", "wh.a"] {
        world.file(&format!("context/all/{name}"), name);
    }
    world.dockerfile("FROM scratch\nCOPY all /\n");
    world.kiln(IMAGE).ok();
}

#[test]
fn outputs_that_are_no_layers_hold_every_name() {
    let world = world();
    world.dockerfile("FROM scratch\nCOPY .wh.file /\nADD members.tar.gz /to/\n");
    world.kiln(FILES).ok();
    assert!(world.path("out/.wh.file").exists() && world.path("out/to/d/.wh.member").exists());
    world.kiln(["build", "-otype=tar,dest=out.tar", "context"]).ok();
    let bytes = fs::read(world.path("out.tar")).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
    let names: Vec<String> = names.collect();
    assert_eq!(names, [".wh.file", "to/", "to/a", "to/d/", "to/d/.wh.member", "to/z"]);
    // What the store has of these steps by now doesn't become a layer either.
    world.kiln(IMAGE).fails(1).says("a layer cannot hold /to/d/.wh.member:").points_at("ADD members.tar.gz");
}

#[test]
fn a_stage_that_is_in_no_image_may_have_such_names() {
    let world = world();
    world.dockerfile("FROM scratch AS one\nCOPY . /\nFROM scratch\nCOPY --from=one /file /\n");
    world.kiln(IMAGE).ok();
    world.dockerfile("FROM scratch AS one\nCOPY . /\nFROM scratch\nCOPY --from=one /hard /hard\n");
    world.kiln(IMAGE).fails(1).says("/hard/.wh.a").points_at("COPY --from=one");
}

/// An image whose layers are these tars, compressed, as a directory that `FROM` can name.
fn layout(world: &World, layers: &[Vec<u8>]) {
    let blob = |bytes: &[u8], media_type: &str| {
        let digest = kiln::oci::Digest::of(bytes);
        world.file(&format!("layout/blobs/sha256/{}", digest.hex()), bytes);
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let tars = layers.iter().map(|l| blob(&gzip(l), "application/vnd.oci.image.layer.v1.tar+gzip"));
    let tars: Vec<_> = tars.collect();
    let diff_ids: Vec<_> = layers.iter().map(|l| kiln::oci::Digest::of(l).to_string()).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                          "config": config, "layers": tars});
    let manifest = blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    world.file("layout/index.json", json!({"schemaVersion": 2, "manifests": [manifest]}).to_string());
    world.file("layout/oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#);
}

#[test]
fn whiteouts_of_a_base_image_remove_files_and_those_of_aufs_mean_nothing() {
    let world = World::new();
    let lower = tar(&[("gone", "1"), ("kept", "1"), ("dir/hidden", "1"), ("dir/too", "1"), ("a.aufs", "1")]);
    let upper = tar(&[
        (".wh.gone", ""),
        (".wh..wh.plnk", ""),
        (".wh..wh.plnk/12.34", "x"),
        (".wh..wh.aufs", ""),
        (".wh..wh.orph/1", ""),
        ("dir/.wh..wh..opq", ""),
        ("dir/new", "2"),
    ]);
    layout(&world, &[lower, upper]);
    world.dockerfile("FROM base\nCOPY Dockerfile /made\n");
    world.kiln(["build", "--build-context=base=oci-layout://layout", "-otype=local,dest=out", "context"]).ok();
    let names = |folder: &str| {
        let mut names: Vec<String> =
            fs::read_dir(world.path(folder)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("out"), ["a.aufs", "dir", "kept", "made"]);
    assert_eq!(names("out/dir"), ["new"]);
    world.kiln(["build", "--build-context=base=oci-layout://layout", "-tout", "context"]).ok();
}
