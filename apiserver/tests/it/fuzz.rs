//! Bytes from outside, changed by chance. `make fuzz` does the same for longer, guided by coverage.

use std::{fs, path::Path};

use rand::{RngExt, SeedableRng, rngs::StdRng};

#[path = "../../../fuzz/targets.rs"]
mod targets;

use targets::{TARGETS, Target, World};

/// So many changed inputs for each that is in the corpus.
const CHANGES: usize = 60;

/// Pieces that mean something to one parser or another.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "1e999",
    "9223372036854775808",
    "\\u0000",
    "\\ud800",
    "$patch",
    "$deleteFromPrimitiveList/",
    "$setElementOrder/",
    "metadata",
    "managedFields",
    "f:",
    "k:{",
    "/-",
    "~1",
    "op",
    "in (",
    "notin",
    "!=",
    "==",
    "&",
    "=",
    "%00",
    "%ff",
    "?watch=1",
    "&limit=-1",
    "continue=",
    "resourceVersion=",
    "k8s\0",
    "\n",
    "- ",
    "&a *a",
    "!!",
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Some bytes changed, moved, left out or put in.
fn change(input: &[u8], others: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut output = input.to_vec();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=output.len());
        match random.random_range(0..5) {
            0 if at < output.len() => output[at] ^= 1 << random.random_range(0..8),
            1 => output.truncate(at),
            2 => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                output.splice(at..at, piece.bytes());
            }
            3 => {
                let other = &others[random.random_range(0..others.len())];
                let from = random.random_range(0..=other.len());
                output.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let end = random.random_range(at..=output.len());
                let piece = output[at..end].to_vec();
                output.splice(at..at, piece);
            }
        }
    }
    output
}

fn run((name, target): &Target) {
    let seed = std::env::var("ONEX_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new();
    let corpus = corpus(name);
    for input in &corpus {
        target(&world, input);
        for _ in 0..CHANGES {
            target(&world, &change(input, &corpus, &mut random));
        }
    }
}

#[test]
fn no_bytes_from_outside_make_it_panic_or_stall() {
    TARGETS.iter().for_each(run);
}
