//! Empties the operating system's cache of files, without which a cold run has to begin.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Context as _;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Makes the operating system drop a directory's files from its page cache. Call it after Postgres has ended.
pub fn evict(dir: &Path) -> anyhow::Result<()> {
    nix::unistd::sync();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                posix_fadvise(
                    File::open(entry.path())?,
                    0,
                    0,
                    PosixFadviseAdvice::POSIX_FADV_DONTNEED,
                )?;
            }
        }
    }
    Ok(())
}
