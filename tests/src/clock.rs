//! The wall clock of a node, which a test can set.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use tern_local::Builder;

/// The source of a library that a node's process loads before all others. It is compiled when it is needed.
const SOURCE: &str = include_str!("clock.c");

/// The wall clock of some nodes. Their monotonic clock is not changed.
#[derive(Debug)]
pub struct WallClock {
    dir: TempDir,
}

impl WallClock {
    /// Makes a clock that shows the true time.
    ///
    /// # Panics
    ///
    /// Panics if there is no C compiler, which the build of Tern needs too.
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

    /// Returns the builder, changed so that these nodes use the clock.
    pub fn of(&self, builder: Builder, nodes: &[&str]) -> Builder {
        let (library, ahead) = (self.library(), self.ahead());
        nodes.iter().fold(builder, |builder, node| {
            builder
                .node_env(node, "LD_PRELOAD", &library.to_string_lossy())
                .node_env(node, "STEPPED_CLOCK", &ahead.to_string_lossy())
        })
    }

    /// Sets the clock ahead of the true time by `ahead_s` seconds, which may be negative.
    pub fn set(&self, ahead_s: i64) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, ahead_s.to_string()).expect("the clock");
        // A rename is atomic: nobody reads half of the new value.
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
