//! The plan of an upload, which the store keeps so that the upload can go on after the app was killed.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::UNIX_EPOCH;

use tern_types::{Clock, RequestId, Timestamp};

use super::MediaError;
use super::cipher::{self, Hash, Key};
use crate::client::Client;

/// The age up to which a plan is used. The platform gives an upload up after a day.
const KEPT: std::time::Duration = std::time::Duration::from_secs(23 * 3600);
/// The number of bytes of the file that are read at once while hashing.
const READ: usize = 256 * 1024;

/// The identity of a file's content, as far as it can be told without reading the file. If the file has
/// changed, it has another identity, and its upload begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileId {
    /// The absolute path, without symbolic links.
    pub path: String,
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
    /// [`MediaError::File`] if it is missing or not a regular file.
    pub fn of(path: &Path) -> Result<Self, MediaError> {
        let path = path.canonicalize()?;
        let about = path.metadata()?;
        if !about.is_file() {
            return Err(std::io::Error::other("not a file").into());
        }
        let modified = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            path: path.to_string_lossy().into_owned(),
            length: about.len(),
            modified: i64::try_from(modified.as_nanos()).unwrap_or(0),
        })
    }
}

/// Returns the stored plan of the file, or makes and stores a new one.
pub async fn plan(client: &Client, file: &FileId) -> Result<Plan, MediaError> {
    cipher::sealed_length(file.length).ok_or(MediaError::TooLarge)?;
    let (id, now) = (file.clone(), Clock::wall());
    let known = client.read(move |store| store.upload_plan(&id)).await?;
    if let Some(plan) = known.filter(|plan| now.since(plan.created_at) < KEPT) {
        return Ok(plan);
    }
    let id = file.clone();
    let made = tokio::task::spawn_blocking(move || make(&id, now)).await;
    let plan = made.map_err(std::io::Error::other)??;
    let (id, stored) = (file.clone(), plan.clone());
    client
        .read(move |store| store.put_upload_plan(&id, &stored))
        .await?;
    Ok(plan)
}

/// Makes a plan, for which it reads the whole file once.
fn make(file: &FileId, now: Timestamp) -> Result<Plan, MediaError> {
    let key: Key = rand::random();
    let mut open = BufReader::with_capacity(READ, File::open(&file.path)?);
    let parts = cipher::part_hashes(&mut open, &key, file.length).map_err(changed)?;
    Ok(Plan {
        request: RequestId::random(),
        key,
        parts,
        created_at: now,
    })
}

/// Translates an error of reading. If the file ends too early, it was cut off in the meantime, which is
/// [`MediaError::Changed`].
pub fn changed(error: std::io::Error) -> MediaError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        MediaError::Changed
    } else {
        MediaError::File(error)
    }
}

/// Deletes the plan, because the upload has succeeded or can never succeed.
pub async fn forget(client: &Client, file: &FileId) -> Result<(), MediaError> {
    let id = file.clone();
    Ok(client.read(move |store| store.forget_upload_plan(&id)).await?)
}
