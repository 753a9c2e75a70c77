//! The workspace as it must be: edges between crates, one version and one set of features of each
//! dependency, shipped samples that parse, no unsafe code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use jingwei_registry::config::Config;
use jingwei_registry::witness::home::WitnessConfig;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What cargo says to these arguments, without a network.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .args(["--offline", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo runs, since it runs this");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// The packages of the workspace and what each depends on, tests and build scripts aside.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap().iter();
            let normal = all.filter(|dependency| dependency["kind"].is_null());
            (
                text(&package["name"]),
                normal.map(|dependency| text(&dependency["name"])).collect(),
            )
        })
        .collect()
}

/// The features with which a build compiles each package; more than one set where it is compiled
/// for build scripts, too.
fn features(selection: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let tree = ["tree", "--prefix", "none", "--format", "{p}|{f}"];
    let tree = cargo(&[&tree, selection].concat());
    let mut features: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // A blank line stands between the trees of two packages.
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (package, set) = line.trim_end_matches(" (*)").split_once('|').unwrap();
        let sets = features.entry(package.to_owned()).or_default();
        sets.insert(set.to_owned());
    }
    features
}

/// Otherwise the tests would compile a query engine a second time.
#[test]
fn the_demo_and_the_tests_are_one_build() {
    let run = features(&["--package", "jingwei", "--edges", "normal,build"]);
    let test = features(&["--workspace", "--edges", "normal,build,dev"]);
    assert!(run.len() > 300, "{} packages", run.len());
    let mut twice = Vec::new();
    for (package, sets) in &run {
        if !test[package].is_superset(sets) {
            println!("{package}: {sets:?}, for the tests {:?}", test[package]);
            twice.push(package);
        }
    }
    assert!(twice.is_empty(), "built twice: {twice:?}");
}

#[test]
fn edges_run_one_way() {
    let dependencies = dependencies();
    let ours = |name: &str| -> Vec<&str> {
        dependencies[name]
            .iter()
            .map(String::as_str)
            .filter(|name| name.starts_with("jingwei"))
            .collect()
    };
    assert_eq!(ours("jingwei-proto"), [""; 0]);
    assert_eq!(ours("jingwei-schemas"), ["jingwei-proto"]);
    assert_eq!(
        ours("jingwei-registry"),
        ["jingwei-proto", "jingwei-schemas"]
    );
    assert_eq!(
        ours("jingwei"),
        ["jingwei-proto", "jingwei-registry", "jingwei-schemas"]
    );
    assert_eq!(
        dependencies.len(),
        5,
        "a room more needs a reason, and a line here"
    );
}

#[test]
fn lower_rooms_stay_light() {
    let dependencies = dependencies();
    let never = |name: &str, banned: &[&str]| {
        for other in banned {
            assert!(
                !dependencies[name].contains(*other),
                "{name} must not depend on {other}"
            );
        }
    };
    let network = [
        "tonic", "tokio", "hyper", "axum", "reqwest", "rustls", "sled",
    ];
    let engine = ["datafusion", "arrow", "arrow-flight", "parquet"];
    never("jingwei-proto", &network);
    never("jingwei-proto", &engine);
    never("jingwei-schemas", &network);
    never("jingwei-schemas", &engine);
    never("jingwei-registry", &engine);
}

#[test]
fn one_version_of_each_large_dependency() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(text) = line.strip_prefix("name = ") {
            name = text.trim_matches('"');
        } else if let Some(version) = line.strip_prefix("version = ") {
            versions
                .entry(name)
                .or_default()
                .push(version.trim_matches('"'));
        }
    }
    for name in [
        "arrow",
        "arrow-flight",
        "datafusion",
        "ed25519-dalek",
        "hyper",
        "jsonschema",
        "object_store",
        "parquet",
        "prost",
        "rustls",
        "sled",
        "sqlparser",
        "tokio",
        "tonic",
        "tower",
    ] {
        assert_eq!(
            versions.get(name).map(Vec::len),
            Some(1),
            "{name}: {:?}",
            versions.get(name)
        );
    }
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    for room in ["proto", "schemas", "registry", "node", "tests"] {
        let manifest = std::fs::read_to_string(root().join(room).join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{room} must take the workspace's lints"
        );
        assert!(
            manifest.contains("rust-version.workspace = true"),
            "{room} must declare its Rust"
        );
    }
}

#[test]
fn shipped_samples_parse() {
    let sample = root().join("deploy/registry.toml");
    let config = Config::read(&sample, std::iter::empty()).unwrap();
    assert_eq!(config.listen.port(), 7000);
    assert!(sample.exists());
    let sample = root().join("deploy/witness.toml");
    let config = WitnessConfig::read(&sample, std::iter::empty()).unwrap();
    assert_eq!((&*config.name, config.listen.port()), ("w1.example", 7200));
    for unit in [
        "jingwei.service",
        "jingwei-registry.service",
        "jingwei-witness.service",
    ] {
        let text = std::fs::read_to_string(root().join("deploy").join(unit)).unwrap();
        for section in ["[Unit]", "[Service]", "[Install]", "ExecStart="] {
            assert!(text.contains(section), "{unit} has no {section}");
        }
    }
}
