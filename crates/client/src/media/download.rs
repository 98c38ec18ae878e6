//! Downloads one file of a message.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt as _;
use tern_proto::v1;
use tern_types::ChatId;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use tern_client_core::backoff::Backoff;

use super::cipher::{self, Opener};
use super::{MediaError, OnProgress, Progress};
use crate::client::Client;
use crate::http::HttpError;
use crate::upload_plan::Key;

/// The number of attempts without a single new byte after which a download fails. The delays between them add
/// up to about half a minute, in which the object store may be away. While the platform does not answer, each
/// attempt takes longer, because GetDownload has attempts of its own, so that the download bridges some minutes.
const TRIES: u32 = 8;
/// The time without a byte after which a connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(30);

/// Implements [`Client::download`].
pub async fn download(
    client: &Client,
    chat: ChatId,
    file: &v1::AttachedFile,
    to: &Path,
    progress: OnProgress<'_>,
) -> Result<(), MediaError> {
    let partial = Partial::beside(to)?;
    let mut out = File::create(&partial.0).await?;
    let key = Key::try_from(file.key.as_ref()).map_err(|_| MediaError::Corrupt("it has no key"))?;
    let total = cipher::sealed_length(file.length).ok_or(MediaError::TooLarge)?;
    let mut transfer = Transfer {
        client,
        chat,
        file,
        opener: Opener::new(&key, file.length),
        total,
        progress,
    };
    let mut backoff = Backoff::new(rand::random());
    let mut tries = Tries::default();
    while !transfer.opener.is_complete() {
        if let Err(error) = transfer.attempt(&mut out).await {
            tries.failed(error, transfer.opener.came())?;
            tokio::time::sleep(backoff.next(None)).await;
        }
    }
    if transfer.opener.finish()? != *file.sha256 {
        return Err(MediaError::Corrupt("its hash is another"));
    }
    out.flush().await?;
    out.sync_all().await?;
    drop(out);
    tokio::fs::rename(&partial.0, to).await?;
    Ok(())
}

/// The attempts of a download that have failed.
#[derive(Debug, Default)]
struct Tries {
    /// The number of attempts since the last one that brought a new byte.
    in_vain: u32,
    /// The number of bytes that have come.
    came: u64,
}

impl Tries {
    /// Counts an attempt that failed, after which `came` bytes are here. Returns the error if no other attempt is to be
    /// made.
    fn failed(&mut self, error: MediaError, came: u64) -> Result<(), MediaError> {
        self.in_vain = if came > self.came { 1 } else { self.in_vain + 1 };
        self.came = came;
        if error.is_transient() && self.in_vain < TRIES {
            tracing::debug!(%error, came, "a download goes on later");
            Ok(())
        } else {
            Err(error)
        }
    }
}

/// A download under way.
struct Transfer<'a> {
    client: &'a Client,
    chat: ChatId,
    file: &'a v1::AttachedFile,
    opener: Opener,
    total: u64,
    progress: OnProgress<'a>,
}

impl Transfer<'_> {
    /// Downloads from the first byte that has not come yet until the file is complete.
    async fn attempt(&mut self, out: &mut File) -> Result<(), MediaError> {
        let request = v1::GetDownloadRequest {
            chat_id: self.chat.to_string(),
            media_id: self.file.media_id.clone(),
            ..Default::default()
        };
        let found = self.client.api().get_download(request).await?;
        if found.length != self.total {
            return Err(MediaError::Corrupt("it has another length"));
        }
        let store = |error: HttpError| MediaError::Store(error.to_string());
        let broken = |why: &str| MediaError::Store(why.to_owned());
        let answer = self.client.http()?.get(&found.url, self.opener.came()).await;
        let mut body = answer.map_err(store)?.into_body();
        let mut plain = Vec::with_capacity(2 * cipher::SEALED);
        while !self.opener.is_complete() {
            let frame = tokio::time::timeout(SILENCE, body.frame()).await;
            let frame = frame.map_err(|_| broken("nothing comes"))?;
            let Some(frame) = frame else {
                return Err(broken("it ends too early"));
            };
            let frame = frame.map_err(|error| broken(&error.to_string()))?;
            let Ok(bytes) = frame.into_data() else { continue };
            self.opener.push(&bytes, &mut plain)?;
            out.write_all(&plain).await?;
            plain.clear();
            (self.progress)(Progress {
                done: self.opener.came(),
                total: self.total,
            });
        }
        Ok(())
    }
}

/// The temporary file. Dropping it removes the file, unless the download renamed it.
struct Partial(PathBuf);

impl Partial {
    fn beside(to: &Path) -> Result<Self, MediaError> {
        let name = to
            .file_name()
            .ok_or_else(|| std::io::Error::other("not the name of a file"))?;
        let name = format!(".{}.{:08x}.part", name.to_string_lossy(), rand::random::<u32>());
        Ok(Self(to.with_file_name(name)))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is no such file.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use tern_client_core::CallError;
    use tern_proto::v1::ErrorReason;

    use super::*;

    fn away() -> MediaError {
        CallError::unavailable("the node is away").into()
    }

    #[test]
    fn a_download_outlasts_what_passes_and_ends_at_what_stays() {
        let mut tries = Tries::default();
        for attempt in 1..TRIES {
            let error = if attempt % 2 == 0 {
                MediaError::Store("503".into())
            } else {
                away()
            };
            assert!(tries.failed(error, 10).is_ok(), "{attempt}");
        }
        assert!(tries.failed(away(), 11).is_ok(), "a byte came");
        assert!((2..TRIES).all(|_| tries.failed(away(), 11).is_ok()));
        let last = tries.failed(away(), 11);
        assert!(matches!(last, Err(MediaError::Call(_))), "{last:?}");

        let gone = CallError {
            code: tonic::Code::NotFound,
            reason: ErrorReason::MediaNotFound,
            ..CallError::unavailable("no such media")
        };
        for lasting in [gone.into(), MediaError::Corrupt("another length")] {
            assert!(Tries::default().failed(lasting, 0).is_err());
        }
    }
}
