//! `tern-dev demo` plays to its end and leaves nothing running, however it ends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tern_tests::world;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// This only ends a test that hangs.
const BOUND: Duration = Duration::from_secs(500);

struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The process ids of the nodes, read from the output.
    pids: Vec<Pid>,
}

impl Demo {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(world::tern())
            .args(["demo", "--dir"])
            .arg(dir)
            .env("TERN_PROGRAM", world::tern())
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            pids: Vec::new(),
        }
    }

    async fn next_line(&mut self) -> Option<String> {
        let line = self.lines.next_line().await.unwrap()?;
        let pid = line
            .split_once(" pid ")
            .and_then(|(_, pid)| pid.trim().parse().ok());
        self.pids.extend(pid.map(Pid::from_raw));
        Some(line)
    }

    /// Waits for a line that contains this text.
    async fn shows(&mut self, text: &str) {
        while !self.next_line().await.expect("it goes on").contains(text) {}
    }

    /// Waits for the end. Returns all lines until then, and whether the demo succeeded.
    async fn ends(&mut self) -> (String, bool) {
        let mut all = String::new();
        while let Some(line) = self.next_line().await {
            all += &format!("{line}\n");
        }
        (all, self.child.wait().await.unwrap().success())
    }

    fn running(&self) -> Vec<Pid> {
        self.pids
            .iter()
            .copied()
            .filter(|pid| kill(*pid, None).is_ok())
            .collect()
    }
}

#[tokio::test]
async fn the_conversation_is_played_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    let (all, success) = tokio::time::timeout(BOUND, demo.ends()).await.expect("it ends");
    assert!(success, "{all}");
    assert!(all.contains("nothing lost, nothing twice, all in order"), "{all}");
    assert!(demo.pids.len() >= 7, "{all}");
    assert_eq!(demo.running(), []);
}

#[tokio::test]
async fn interrupted_it_fails_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    tokio::time::timeout(BOUND, demo.shows("Alice writes to Bob"))
        .await
        .expect("it starts");
    let pid = i32::try_from(demo.child.id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
    let (all, success) = tokio::time::timeout(BOUND, demo.ends()).await.expect("it ends");
    assert!(!success && all.contains("interrupted"), "{all}");
    assert!(demo.pids.len() >= 7);
    tern_local::until::holds("all nodes have ended", BOUND, || async {
        Ok(demo.running().is_empty())
    })
    .await
    .unwrap();
}
