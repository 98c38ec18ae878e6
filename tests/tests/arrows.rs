//! Crates depend on each other only as ARCHITECTURE.md says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The crates that every role names.
const SHARED: &[&str] = &["types", "proto", "telemetry", "transport", "identity", "cluster"];

/// Each crate, with the other crates of the workspace that its code depends on. Those that only its tests need are not
/// listed.
const ARROWS: &[(&str, &[&[&str]])] = &[
    ("types", &[]),
    ("counts", &[]),
    ("proto", &[&["types"]]),
    // The cores decide. They know ids, times and the messages of the wire.
    ("chat-core", &[&["types", "proto"]]),
    ("gateway-core", &[&["types", "proto"]]),
    ("presence-core", &[&["types"]]),
    ("push-core", &[&["types"]]),
    ("client-core", &[&["types", "proto"]]),
    // These crates are what roles share.
    ("telemetry", &[&["types"]]),
    ("identity", &[&["types", "proto"]]),
    ("store", &[&["proto", "telemetry", "types"]]),
    ("transport", &[&["types", "proto", "telemetry"]]),
    ("cluster", &[&["types", "proto", "telemetry", "transport"]]),
    // A role knows its core and what roles share, and no other role.
    ("gateway", &[SHARED, &["gateway-core"]]),
    ("chat", &[SHARED, &["store", "chat-core"]]),
    ("presence", &[SHARED, &["store", "presence-core"]]),
    ("accounts", &[SHARED, &["store"]]),
    ("media", &[SHARED, &["store"]]),
    ("push", &[SHARED, &["store", "push-core"]]),
    // Clients know the public protos only.
    ("client", &[&["types", "proto", "client-core"]]),
    // The program of production knows the roles, and a client for the canary and for operators.
    (
        "tern",
        &[
            SHARED,
            &[
                "store", "gateway", "chat", "presence", "accounts", "media", "push", "client",
            ],
        ],
    ),
    // Development starts processes. It knows no role's code.
    ("local", &[&["types"]]),
    ("tern-dev", &[&["types", "proto", "cluster", "client", "local"]]),
    (
        "tests",
        &[&[
            "types", "proto", "identity", "client", "local", "tern", "tern-dev",
        ]],
    ),
];

/// All foreign crates that a core may depend on. They provide values, and no runtime, wire, store, clock or source of
/// chance. Of jiff they use the time zones: `core.clippy.toml` bans its clock.
const CORES_MAY_NAME: &[&str] = &[
    "base64",
    "bytes",
    "jiff",
    "prost",
    "sha2",
    "thiserror",
    "tracing",
    "uuid",
];

/// The crates that a production image does not contain: those for terminals, load generation and development servers.
const NOT_IN_PRODUCTION: &[&str] = &[
    "ratatui",
    "hdrhistogram",
    "s3s",
    "s3s-fs",
    "rcgen",
    "tern-dev",
    "tern-local",
    "tempfile",
];

/// Runs cargo in this workspace without the network, and returns what it prints.
fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(args)
        .args(["--offline", "--locked", "--color=never"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the names that each crate of the workspace has in its `[dependencies]`.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo(&["metadata", "--format-version=1", "--no-deps"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let named = packages.iter().map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap();
        let linked = dependencies
            .iter()
            .filter(|dependency| dependency["kind"].is_null());
        (
            text(&package["name"]),
            linked.map(|dependency| text(&dependency["name"])).collect(),
        )
    });
    named.collect()
}

fn short(name: &str) -> &str {
    match name {
        "tern-dev" => name,
        _ => name.strip_prefix("tern-").unwrap_or(name),
    }
}

#[test]
fn crates_depend_on_each_other_as_the_architecture_says() {
    let named = dependencies();
    let allowed: BTreeMap<&str, &[&[&str]]> = ARROWS.iter().copied().collect();
    assert_eq!(
        named.keys().map(|name| short(name)).collect::<BTreeSet<_>>(),
        allowed.keys().copied().collect()
    );
    for (name, dependencies) in &named {
        let ours: BTreeSet<&str> = dependencies
            .iter()
            .filter(|other| named.contains_key(*other))
            .map(|other| short(other))
            .collect();
        let allowed: BTreeSet<&str> = allowed[short(name)].iter().copied().flatten().copied().collect();
        assert_eq!(ours, allowed, "{name}");
    }
}

#[test]
fn cores_name_no_runtime_no_wire_and_no_store() {
    let named = dependencies();
    let cores = named.iter().filter(|(name, _)| name.ends_with("-core"));
    let mut seen = 0;
    for (name, dependencies) in cores {
        let others = dependencies.iter().filter(|other| !named.contains_key(*other));
        let foreign: Vec<_> = others
            .filter(|other| !CORES_MAY_NAME.contains(&other.as_str()))
            .collect();
        assert!(foreign.is_empty(), "{name} names {foreign:?}");
        let lints = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../crates")
            .join(short(name))
            .join("clippy.toml");
        let lints =
            std::fs::read_to_string(&lints).unwrap_or_else(|error| panic!("{}: {error}", lints.display()));
        assert!(
            lints.contains("std::time::Instant::now"),
            "{name} has the cores' lints"
        );
        seen += 1;
    }
    assert!(seen >= 5, "{seen} cores");
}

#[test]
fn the_program_of_production_contains_no_tool_of_development() {
    // Each line has one package that the program is built from, however far from it: its name, then its version.
    let tree = cargo(&["tree", "--package=tern", "--edges=normal", "--prefix=none"]);
    let built: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let found: Vec<_> = NOT_IN_PRODUCTION
        .iter()
        .filter(|name| built.contains(**name))
        .collect();
    assert!(found.is_empty(), "{found:?}");
    // Some that are surely in it, near and far.
    for name in ["tern-chat-core", "tokio", "h2"] {
        assert!(built.contains(name), "{name} is missing in {built:?}");
    }
}
