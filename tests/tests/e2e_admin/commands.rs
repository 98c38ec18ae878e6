//! Runs the commands of `tern` that operators use.

use serde_json::Value;
use tern_tests::World;
use tokio::process::Command;

/// Runs `tern admin …`, and returns the JSON that it prints.
pub async fn tern(world: &World, args: &[&str]) -> Value {
    let output = command(world, args).arg("--json").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `tern admin …`, and returns the text that it prints for people.
pub async fn prints(world: &World, args: &[&str]) -> String {
    let output = command(world, args).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn command(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(tern_tests::world::tern());
    command
        .arg("admin")
        .args(args)
        .env("TERN_ADMIN_SERVER", world.platform.gateway_url(0))
        .env("TERN_ADMIN_CA_FILE", &world.platform.secrets().ca)
        .env("TERN_API_KEY", world.platform.api_key());
    command
}

/// Runs `tern top` once. Returns whether nothing is wrong, and what it prints.
pub async fn top(world: &World) -> (bool, String) {
    let mut command = Command::new(tern_tests::world::tern());
    command
        .args(["top", "--once", "--interval", "0.5"])
        .env("TERN_ADMIN_SERVER", world.platform.gateway_url(0))
        .env("TERN_ADMIN_CA_FILE", &world.platform.secrets().ca)
        .env("TERN_API_KEY", world.platform.api_key());
    let output = command.output().await.unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}
