//! Runs the committed fuzz corpora through the bodies of the fuzz targets. This test needs no fuzzer.

use std::fs;
use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&corpus)
        .expect("the corpus directory exists")
        .map(|entry| entry.expect("the corpus directory can be listed").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "{} must have at least five inputs, not {}", corpus.display(), inputs.len());
    for input in inputs {
        println!("{}", input.display()); // shown when the body panics
        body(&fs::read(&input).expect("the input can be read"));
    }
}

#[test]
fn frames() {
    replay("frames", fdpush::fuzz::fuzz_frames);
}

#[test]
fn proxy() {
    replay("proxy", fdpush::fuzz::fuzz_proxy);
}

#[test]
fn head() {
    replay("head", fdpush::fuzz::fuzz_head);
}

#[test]
fn body() {
    replay("body", fdpush::fuzz::fuzz_body);
}

#[test]
fn upgrade() {
    replay("upgrade", fdpush::fuzz::fuzz_upgrade);
}

#[test]
fn extension() {
    replay("extension", fdpush::fuzz::fuzz_extension);
}

#[test]
fn inflate() {
    replay("inflate", fdpush::fuzz::fuzz_inflate);
}

#[test]
fn connection() {
    replay("connection", fdpush::fuzz::fuzz_connection);
}

#[test]
fn tls() {
    replay("tls", fdpush::fuzz::fuzz_tls);
}

#[test]
fn wheel() {
    replay("wheel", fdpush::fuzz::fuzz_wheel);
}

#[test]
fn registry() {
    replay("registry", fdpush::fuzz::fuzz_registry);
}
