//! How fast layers are packed. By hand, since times are no tests:
//! `KILN_BENCH_FILE=some.tar KILN_BENCH_TREE=/usr cargo test --release --test layer_speed -- --ignored --nocapture`

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)] // the helpers are tests too

use kiln::layer::{Compression, Encoder, Entry, EntryKind, EntryPath, EntrySink, Packer};
use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

/// Compresses `$KILN_BENCH_FILE` in each way, on one thread and on two.
#[test]
#[ignore = "a benchmark"]
fn speed_and_size_of_each_compression() {
    let path = std::env::var("KILN_BENCH_FILE").expect("KILN_BENCH_FILE names the file to compress");
    let ways = std::env::var("KILN_BENCH_WAYS").unwrap_or_else(|_| "gzip:1 gzip:4 gzip:6 gzip:9 zstd:3".to_owned());
    let bytes = std::fs::read(path).expect("a file");
    println!("{:>12} {:>7} {:>8} {:>7}", "way", "threads", "MB/s", "ratio");
    for way in ways.split_whitespace() {
        for threads in [1, 2] {
            let start = Instant::now();
            let size = compress(&bytes, way.parse().unwrap(), threads);
            let speed = bytes.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
            println!("{way:>12} {threads:>7} {speed:>8.0} {:>7.4}", size as f64 / bytes.len() as f64);
        }
    }
}

fn compress(bytes: &[u8], way: Compression, threads: usize) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0 += buf.len();
            Ok(buf.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut encoder = Encoder::new(Count(0), way, NonZeroUsize::new(threads).expect("one or more"));
    for chunk in bytes.chunks(1 << 16) {
        encoder.write_all(chunk).expect("no error");
    }
    encoder.finish().expect("no error").0
}

const TWO: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");

/// Packs the files of `$KILN_BENCH_TREE` and says what memory that took.
#[test]
#[ignore = "a benchmark"]
fn speed_and_memory_of_a_tree() {
    let tree = std::env::var("KILN_BENCH_TREE").expect("KILN_BENCH_TREE names the folder to pack");
    let way = std::env::var("KILN_BENCH_WAY").map_or(Compression::GZIP, |way| way.parse().expect("a way"));
    let start = Instant::now();
    let mut packer = Packer::layer(io::sink(), way, TWO);
    add_tree(&mut packer, Path::new(&tree));
    let (packed, _) = packer.finish().expect("no error");
    let seconds = start.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").expect("a proc");
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    let speed = packed.unpacked_size as f64 / 1e6 / seconds;
    println!("{way}: {} to {} bytes in {seconds:.2} s, {speed:.0} MB/s, {peak}", packed.unpacked_size, packed.size);
}

fn add_tree(sink: &mut impl EntrySink, folder: &Path) {
    let mut names: Vec<_> = fs::read_dir(folder).expect("a folder").filter_map(Result::ok).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for name in names {
        let path = EntryPath::parse(name.path().as_os_str().as_bytes()).expect("a path");
        let kind = name.file_type().expect("a type");
        if kind.is_dir() {
            sink.add(&Entry::new(path, EntryKind::Dir), &mut io::empty()).expect("no error");
            add_tree(sink, &name.path());
        } else if kind.is_file() {
            let mut file = File::open(name.path()).expect("a file");
            let size = file.metadata().expect("metadata").len();
            sink.add(&Entry::new(path, EntryKind::File { size }), &mut file).expect("no error");
        }
    }
}

/// What a layer of one small file costs.
#[test]
#[ignore = "a benchmark"]
fn speed_of_small_layers() {
    for way in [Compression::None, Compression::GZIP, Compression::ZSTD] {
        let start = Instant::now();
        for n in 0..1000 {
            let mut packer = Packer::layer(Vec::new(), way, TWO);
            let entry = Entry::new(EntryPath::parse(b"f").expect("a path"), EntryKind::File { size: 8 });
            packer.add(&entry, &mut format!("{n:08}").as_bytes()).expect("no error");
            packer.finish().expect("no error");
        }
        println!("{way}: {:.1} microseconds for a layer of one file", start.elapsed().as_secs_f64() * 1e3);
    }
}
