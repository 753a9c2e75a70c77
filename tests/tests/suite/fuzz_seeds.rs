//! The properties of the fuzz targets over their seeds and over mutations of them: what hours of
//! fuzzing found once is looked at in each run of the tests, without a fuzzer.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use jingwei_tests::seeded::Seeded;

#[path = "../../fuzz/src/lib.rs"]
mod properties;

use properties::{TARGETS, Target};

/// Bytes that mean something in one format or another.
const TELLING: &[u8] = b"\0\n \"'{}[],:-+./0129azAZ=@\xc3\xff";

/// Mutations of each seed.
const MUTATIONS: usize = 200;

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

/// One small thing done to the bytes: a bit, a byte, a cut, a piece twice or elsewhere.
fn mutated(seed: &[u8], random: &mut Seeded) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1));
        let Some(byte) = bytes.get_mut(at) else { break };
        match random.below(6) {
            0 => *byte ^= 1 << random.below(8),
            1 => *byte = TELLING[random.below(TELLING.len())],
            2 => bytes.truncate(at),
            3 => drop(bytes.remove(at)),
            4 => {
                let end = bytes.len().min(at + 1 + random.below(16));
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => bytes.swap(at, random.below(seed.len().min(at + 1))),
        }
    }
    bytes
}

fn check((name, property): &Target, from: &Path, input: &[u8]) {
    assert!(
        catch_unwind(|| property(input)).is_ok(),
        "{name} does not hold for a mutation of {}:\n{}",
        from.display(),
        input.escape_ascii()
    );
}

#[test]
fn the_properties_hold_for_the_seeds_and_for_mutations_of_them() {
    let mut random = Seeded::new(20_261_123);
    for target in TARGETS {
        let seeds = seeds(target.0);
        assert!(!seeds.is_empty(), "{} has no seeds", target.0);
        for (path, seed) in &seeds {
            check(target, path, seed);
            for _ in 0..MUTATIONS {
                check(target, path, &mutated(seed, &mut random));
            }
        }
    }
}

#[test]
fn every_target_is_built_and_every_seed_has_its_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    for name in &names {
        let source = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("jingwei_fuzz::{name}(input)")));
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")));
    }
    for folder in ["seeds", "fuzz_targets"] {
        for entry in fs::read_dir(fuzz.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            assert!(names.contains(&stem), "{} has no property", path.display());
        }
    }
}
