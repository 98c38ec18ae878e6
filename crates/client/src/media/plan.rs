//! Makes the plan of an upload, or finds the one that the store has.

use std::fs::File;
use std::io::BufReader;

use tern_types::{Clock, RequestId, Timestamp};

use super::MediaError;
use super::cipher;
use crate::client::Client;
use crate::upload_plan::{FileId, Key, Plan};

/// The age up to which a plan is used. The platform gives an upload up after a day.
const KEPT: std::time::Duration = std::time::Duration::from_secs(23 * 3600);
/// The number of bytes of the file that are read at once while hashing.
const READ: usize = 256 * 1024;

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
