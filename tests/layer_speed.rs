//! How fast layers are packed. By hand, since times are no tests:
//! `KILN_BENCH_FILE=some.tar cargo test --release --test layer_speed -- --ignored --nocapture`

use kiln::layer::{Compression, Encoder};
use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Instant;

/// Compresses `$KILN_BENCH_FILE` in each way, on one thread and on two.
#[test]
#[ignore = "a benchmark"]
fn speed_and_size_of_each_compression() {
    let path = std::env::var("KILN_BENCH_FILE").expect("KILN_BENCH_FILE names the file to compress");
    let ways = std::env::var("KILN_BENCH_WAYS").unwrap_or_else(|_| "gzip:1 gzip:4 gzip:6 gzip:9 zstd:3".to_owned());
    let bytes = std::fs::read(path).unwrap();
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
    let mut encoder = Encoder::new(Count(0), way, NonZeroUsize::new(threads).unwrap());
    for chunk in bytes.chunks(1 << 16) {
        encoder.write_all(chunk).unwrap();
    }
    encoder.finish().unwrap().0
}
