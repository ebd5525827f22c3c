//! The fuzz bodies over the committed corpora, and over random changes of them, with the stable compiler.
//!
//! What libFuzzer found once stays found: a finding becomes a file of its corpus (`docs/fuzzing.md`).

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fellbeck_tests::fuzz::{TARGETS, run};
use fellbeck_tests::mutate;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Bytes of all corpora at most: they are cloned by everyone.
const CORPORA_BYTES_MAX: u64 = 200_000;
/// Changes of each input that are tried.
const CHANGES: u64 = 1000;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = fuzz_dir().join("corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("no corpus for {target}: {error}"));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("the corpus can be listed").path();
            (stem(&path), fs::read(&path).expect("the corpus can be read"))
        })
        .collect();
    inputs.sort();
    inputs
}

/// The name of a file without its ending.
fn stem(path: &Path) -> String {
    let name = path.file_stem().and_then(|name| name.to_str());
    name.expect("our names are UTF-8").to_owned()
}

/// The names in a folder, without their endings.
fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir)
        .expect("the folder is there")
        .map(|entry| stem(&entry.expect("the folder can be listed").path()))
        .collect()
}

/// Runs one input and says by what name or seed to find it again when it panics.
fn run_named(target: &str, input: &[u8], name: &dyn Fn() -> String) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(target, input))).unwrap_or_else(|_| {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("target {target} fails on {}: {hex}", name())
    })
}

/// Also guards the corpora themselves: once a format changes, inputs that no decoder takes any more would test nothing.
#[test]
fn every_body_holds_on_its_corpus_and_accepts_some_of_it() {
    for (target, _) in TARGETS {
        let inputs = corpus(target);
        let accepted = inputs
            .iter()
            .filter(|(name, input)| run_named(target, input, &|| name.clone()))
            .count();
        assert!(
            accepted >= 3,
            "{target}: only {accepted} of {} inputs reach the end of the body",
            inputs.len()
        );
        let seeds = inputs.iter().filter(|(name, _)| name.starts_with("seed-"));
        let refused: Vec<_> = seeds.filter(|(_, input)| !run(target, input)).collect();
        assert!(refused.is_empty(), "{target}: a valid input is refused: {refused:?}");
    }
}

#[test]
fn every_body_holds_on_changes_of_its_corpus() {
    for (target, _) in TARGETS {
        let mut accepted = 0u64;
        let inputs = corpus(target);
        for (name, input) in &inputs {
            for seed in 0..CHANGES {
                let changed = mutate(&mut StdRng::seed_from_u64(seed), input);
                accepted += u64::from(run_named(target, &changed, &|| {
                    format!("{name} changed by seed {seed}")
                }));
            }
        }
        let tried = inputs.len() as u64 * CHANGES;
        assert!(
            accepted >= tried / 200,
            "{target}: of {tried} changed inputs only {accepted} are accepted"
        );
    }
}

#[test]
fn targets_bodies_and_corpora_are_the_same_set() {
    let bodies: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(names(&fuzz_dir().join("fuzz_targets")), bodies);
    assert_eq!(names(&fuzz_dir().join("corpus")), bodies);
    let manifest: toml::Table = toml::from_str(&fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap()).unwrap();
    let bins = manifest["bin"].as_array().unwrap().iter();
    let bins: BTreeSet<String> = bins.map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(bins, bodies);
    for target in &bodies {
        let source = fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(
            source.contains(&format!("run(\"{target}\", data)")),
            "{target} runs another body"
        );
    }
}

#[test]
fn the_corpora_stay_small() {
    let bytes: usize = TARGETS
        .iter()
        .flat_map(|(target, _)| corpus(target))
        .map(|(_, input)| input.len())
        .sum();
    assert!(
        bytes as u64 <= CORPORA_BYTES_MAX,
        "{bytes} bytes: minimise them (docs/fuzzing.md)"
    );
}
