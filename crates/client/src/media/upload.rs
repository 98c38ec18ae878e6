//! Uploads one file, and returns its ticket.

use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tern_proto::v1::create_upload_response::Outcome;
use tern_proto::v1::{self, ErrorReason};
use tern_types::RequestId;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use tern_client_core::backoff::Backoff;

use super::cipher::{self, PartSealer};
use super::plan;
use super::{Attachment, MediaError, OnProgress, Progress};
use crate::client::Client;
use crate::driver::malformed;
use crate::http::HttpError;
use crate::upload_plan::{FileId, Key, Plan};

/// The number of parts that are sent at the same time, which is enough to use a fast connection with long round trips.
const PARALLEL: usize = 3;
/// The number of sealed pieces that may wait between the reader and the connection, for each part.
const PIECES_AHEAD: usize = 4;
/// The number of attempts to send a part with the same URL.
const TRIES: u32 = 4;
/// The number of rounds of CreateUpload, parts and FinalizeUpload. With the delays between them they bridge some
/// minutes without a network.
const ROUNDS: u32 = 8;
/// The number of bytes of the file that are read at once.
const READ: usize = 256 * 1024;
/// The content type that the object store is told, so that it learns nothing of the file's own type.
const CIPHERTEXT: &str = "application/octet-stream";

/// Counts the bytes of one upload that have been sent.
struct Meter<'a> {
    done: AtomicU64,
    total: u64,
    tell: OnProgress<'a>,
}

impl Meter<'_> {
    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.say(done);
    }

    /// Takes back bytes that were sent in vain and will be sent again.
    fn take_back(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn set(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
        self.say(bytes);
    }

    fn say(&self, done: u64) {
        (self.tell)(Progress {
            done: done.min(self.total),
            total: self.total,
        });
    }
}

/// Implements [`Client::upload`].
pub async fn upload(
    client: &Client,
    path: &Path,
    content_type: &str,
    progress: OnProgress<'_>,
) -> Result<Attachment, MediaError> {
    let file = FileId::of(path)?;
    let mut plan = plan::plan(client, &file).await?;
    let total = cipher::sealed_length(file.length).ok_or(MediaError::TooLarge)?;
    let mut backoff = Backoff::new(rand::random());
    let mut round = 0;
    let ticket = loop {
        round += 1;
        let meter = Meter {
            done: AtomicU64::new(0),
            total,
            tell: progress,
        };
        match one_round(client, &file, &plan, &meter).await {
            Ok(ticket) => break ticket,
            Err(Failure::Again(why)) if round == ROUNDS => return Err(why),
            Err(Failure::Again(why)) => tracing::debug!(%why, round, "an upload goes on later"),
            Err(Failure::Anew(why)) if round == ROUNDS => return Err(why),
            Err(Failure::Anew(_)) => {
                // The platform has given this upload up. The same ciphertext is uploaded under a new request_id.
                plan.request = RequestId::random();
                let (id, stored) = (file.clone(), plan.clone());
                client
                    .read(move |store| store.put_upload_plan(&id, &stored))
                    .await?;
            }
            Err(Failure::Never(why)) => {
                plan::forget(client, &file).await?;
                return Err(why);
            }
        }
        tokio::time::sleep(backoff.next(None)).await;
    };
    plan::forget(client, &file).await?;
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(Attachment {
        file: v1::AttachedFile {
            media_id: ticket.media_id.clone(),
            name,
            content_type: content_type.to_owned(),
            length: file.length,
            key: plan.key.to_vec().into(),
            sha256: cipher::content_id(&plan.parts).to_vec().into(),
            thumbnail: Bytes::new(),
        },
        ticket,
    })
}

/// The reason why a round ended without a ticket.
pub(super) enum Failure {
    /// The same round may succeed later.
    Again(MediaError),
    /// A round under a new request_id may succeed.
    Anew(MediaError),
    /// No round can succeed.
    Never(MediaError),
}

impl From<tern_client_core::CallError> for Failure {
    fn from(error: tern_client_core::CallError) -> Self {
        match error.reason {
            ErrorReason::UploadNotFound | ErrorReason::UploadMismatch => Self::Anew(error.into()),
            ErrorReason::UploadIncomplete => Self::Again(error.into()),
            // The call was repeated already. The upload goes on later from the stored plan.
            _ if error.is_transient() => Self::Again(error.into()),
            _ => Self::Never(error.into()),
        }
    }
}

/// Creates the upload or finds it again, sends the parts that are missing, and finalizes it. Returns the ticket.
async fn one_round(
    client: &Client,
    file: &FileId,
    plan: &Plan,
    meter: &Meter<'_>,
) -> Result<v1::MediaTicket, Failure> {
    let request = v1::CreateUploadRequest {
        request_id: plan.request.to_string(),
        length: meter.total,
        part_sha256s: plan.parts.iter().map(|hash| hash.to_vec().into()).collect(),
        content_type: CIPHERTEXT.to_owned(),
        purpose: v1::MediaPurpose::Attachment.into(),
        acting_user_id: String::new(),
    };
    let upload = match client.api().create_upload(request).await?.outcome {
        Some(Outcome::Stored(ticket)) => {
            meter.set(meter.total);
            return Ok(ticket);
        }
        Some(Outcome::Upload(upload)) => upload,
        None => return Err(malformed("no outcome").into()),
    };
    let missing: u64 = upload.missing_parts.iter().map(|part| part.length).sum();
    meter.set(meter.total.saturating_sub(missing));
    let puts = upload.missing_parts.into_iter();
    let puts = puts.map(|part| put(client, file, plan, part, meter));
    stream::iter(puts)
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    let request = v1::FinalizeUploadRequest {
        upload_id: upload.upload_id,
        acting_user_id: String::new(),
    };
    let finalized = client.api().finalize_upload(request).await?;
    finalized.ticket.ok_or_else(|| malformed("no ticket").into())
}

/// Sends one part, with up to [`TRIES`] attempts.
async fn put(
    client: &Client,
    file: &FileId,
    plan: &Plan,
    part: v1::UploadPart,
    meter: &Meter<'_>,
) -> Result<(), Failure> {
    let mut backoff = Backoff::new(rand::random());
    let mut tries = 0;
    loop {
        tries += 1;
        let (sent, error) = match put_once(client, file, plan, &part, meter).await {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        meter.take_back(sent);
        if FileId::of(&file.path).ok().as_ref() != Some(file) {
            return Err(Failure::Never(MediaError::Changed));
        }
        let store = MediaError::Store(error.to_string());
        match error {
            // The part is there: the answer to an earlier PUT was lost.
            HttpError::Status(412, _) => {
                meter.add(part.length);
                return Ok(());
            }
            // The URL has expired, or the upload has ended. CreateUpload tells which.
            HttpError::Status(400..=499, _) => return Err(Failure::Again(store)),
            _ if tries == TRIES => return Err(Failure::Again(store)),
            _ => tokio::time::sleep(backoff.next(None)).await,
        }
    }
}

/// Sends one part in one attempt. An error comes with the number of bytes that the meter has counted for it.
async fn put_once(
    client: &Client,
    file: &FileId,
    plan: &Plan,
    part: &v1::UploadPart,
    meter: &Meter<'_>,
) -> Result<(), (u64, HttpError)> {
    let (pieces, queue) = mpsc::channel(PIECES_AHEAD);
    let (taken, mut counted) = watch::channel(0_u64);
    let (path, key, length) = (file.path.clone(), plan.key, file.length);
    let number = u64::from(part.number.saturating_sub(1));
    tokio::task::spawn_blocking(move || {
        if let Err(error) = seal(&path, &key, length, number, &pieces) {
            // If nobody receives the error, the transfer has ended already.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let body = ReceiverStream::new(queue).inspect_ok(move |piece: &Bytes| {
        taken.send_modify(|taken| *taken += piece.len() as u64);
    });
    let broken = |error: crate::error::ClientError| (0, HttpError::Broken(error.to_string()));
    let http = client.http().map_err(broken)?;
    let mut put = std::pin::pin!(http.put(&part.url, &part.headers, body));
    let mut sent = 0;
    loop {
        tokio::select! {
            biased;
            Ok(()) = counted.changed() => {
                let taken = *counted.borrow_and_update();
                meter.add(taken - sent);
                sent = taken;
            }
            done = &mut put => {
                // The connection may have taken the last pieces since the last count.
                let taken = *counted.borrow();
                meter.add(taken - sent);
                return done.map_err(|error| (taken, error));
            }
        }
    }
}

/// Reads and seals one part, as fast as `pieces` takes the sealed pieces.
fn seal(
    path: &Path,
    key: &Key,
    length: u64,
    part: u64,
    pieces: &mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(cipher::offset(part)))?;
    let mut sealer = PartSealer::new(BufReader::with_capacity(READ, file), key, length, part);
    while let Some(piece) = sealer.piece()? {
        if pieces.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
