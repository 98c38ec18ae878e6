//! The plan of an upload, as the store keeps it so that the upload can go on after the app was killed.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use tern_types::{RequestId, Timestamp};

/// The AES-256 key of one file.
pub type Key = [u8; 32];
/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// The identity of a file's content, as far as it can be told without reading the file. If the file has
/// changed, it has another identity, and its upload begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileId {
    /// The absolute path, without symbolic links.
    pub path: PathBuf,
    /// The size in bytes.
    pub length: u64,
    /// The time of the last change, in nanoseconds since the Unix epoch.
    pub modified: i64,
}

/// The values from which an upload can go on, with the same ciphertext and the same request_id.
#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    /// The request_id of CreateUpload.
    pub request: RequestId,
    /// The key under which the file is encrypted.
    pub key: Key,
    /// The SHA-256 of each part of the ciphertext.
    pub parts: Vec<Hash>,
    /// The time at which the plan was made.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan({}, {} parts)", self.request, self.parts.len())
    }
}

impl FileId {
    /// Reads the present state of a file.
    ///
    /// # Errors
    ///
    /// The file is missing, cannot be read, or is not a regular file.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let path = path.canonicalize()?;
        let about = path.metadata()?;
        if !about.is_file() {
            return Err(std::io::Error::other("not a file"));
        }
        let modified = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            path,
            length: about.len(),
            modified: i64::try_from(modified.as_nanos()).unwrap_or(0),
        })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_file_whose_name_is_no_text_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(OsStr::from_bytes(b"holiday \xff.jpg"));
        // Some file systems take no such name.
        if std::fs::write(&path, "bytes").is_ok() {
            let file = FileId::of(&path).unwrap();
            assert_eq!(std::fs::read(&file.path).unwrap(), b"bytes");
        }
    }
}
