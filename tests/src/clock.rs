//! The wall clock of a node, which a test may set.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use tern_local::Builder;

/// Compiled when it is needed: a library that a node's process loads before all others.
const SOURCE: &str = include_str!("clock.c");

/// Wall clocks of some nodes; monotonic time goes on as it does.
#[derive(Debug)]
pub struct WallClock {
    dir: TempDir,
}

impl WallClock {
    /// Shows the true time so far.
    ///
    /// # Panics
    ///
    /// When there is no C compiler, which the build of Tern needs too.
    pub fn new() -> Self {
        let clock = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        let source = clock.dir.path().join("clock.c");
        std::fs::write(&source, SOURCE).expect("the source");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&clock.library(), &source])
            .status()
            .expect("a C compiler");
        assert!(compiled.success(), "cc: {compiled}");
        clock.set(0);
        clock
    }

    /// These nodes go by it.
    pub fn of(&self, builder: Builder, nodes: &[&str]) -> Builder {
        let (library, ahead) = (self.library(), self.ahead());
        nodes.iter().fold(builder, |builder, node| {
            builder
                .node_env(node, "LD_PRELOAD", &library.to_string_lossy())
                .node_env(node, "STEPPED_CLOCK", &ahead.to_string_lossy())
        })
    }

    /// From now on it is ahead of the true time by so many seconds.
    pub fn set(&self, ahead_s: i64) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, ahead_s.to_string()).expect("the clock");
        // At once: nobody reads half of it.
        std::fs::rename(new, self.ahead()).expect("the clock");
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("clock.so")
    }

    fn ahead(&self) -> PathBuf {
        self.dir.path().join("ahead")
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}
