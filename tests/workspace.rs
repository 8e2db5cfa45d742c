//! The rules of the workspace itself: layers point downwards, files stay readable, licences are permissive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each crate may use of ours. Tests of a crate (dev-dependencies) may reach across.
const LAYERS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("schema", &["api"]),
    ("store", &["api"]),
    ("apiserver", &["api", "schema", "store"]),
    ("client", &["api"]),
    ("controllers", &["api", "client", "schema"]),
    ("scheduler", &["api", "client", "schema"]),
    ("network", &["api", "client"]),
    ("sim", &["api", "client"]),
    ("runtime", &[]),
    ("kubelet", &["api", "client", "runtime"]),
    ("operators", &["api", "client", "schema"]),
    ("kubectl", &["api", "client", "schema"]),
    ("dashboard", &["api", "client"]),
    ("testkit", &["api", "client"]),
];

/// Crates that may use all others.
const TOP: &[&str] = &["cluster", "pintle", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package stands below the root").to_owned()
}

fn metadata() -> serde_json::Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("cargo prints JSON")
}

#[test]
fn layers_point_downwards() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let meta = metadata();
    let mut wrong = Vec::new();
    for package in meta["packages"].as_array().unwrap() {
        let Some(name) = ours(package["name"].as_str().unwrap()) else { continue };
        if TOP.contains(&name) {
            continue;
        }
        let Some(allowed) = layers.get(name) else {
            wrong.push(format!("{name} has no layer: add it to LAYERS in tests/workspace.rs"));
            continue;
        };
        for dep in package["dependencies"].as_array().unwrap() {
            if dep["kind"] != "dev"
                && let Some(used) = ours(dep["name"].as_str().unwrap())
                && !allowed.contains(&used)
            {
                wrong.push(format!("{name} must not use {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn ours(package: &str) -> Option<&str> {
    package.strip_prefix("pintle-").or((package == "pintle").then_some(package))
}

#[test]
fn files_stay_readable() {
    let out = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output().expect("git runs");
    let list = String::from_utf8(out.stdout).unwrap();
    let long: Vec<_> = list
        .lines()
        .filter_map(|f| {
            let lines = std::fs::read_to_string(root().join(f)).ok()?.lines().count();
            (lines > 800).then(|| format!("{f}: {lines} lines"))
        })
        .collect();
    assert!(!list.is_empty());
    assert!(long.is_empty(), "files over 800 lines hold more than one idea: {long:#?}");
}

#[test]
fn unsafe_code_has_its_two_homes() {
    let out = Command::new("git").args(["ls-files", "*/Cargo.toml"]).current_dir(root()).output().expect("git runs");
    for file in String::from_utf8(out.stdout).unwrap().lines() {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let inherits = text.contains("[lints]\nworkspace = true");
        let home = ["crates/runtime/Cargo.toml", "crates/network/Cargo.toml"].contains(&file);
        assert!(inherits != home, "{file}: only runtime and network have lints of their own");
    }
}
