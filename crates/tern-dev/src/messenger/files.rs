//! Sends and saves files, and forwards messages with theirs. Transfers run beside the conversation, and the view shows
//! their progress.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use tern_client::Progress;
use tern_client::media::safe_name;
use tern_proto::v1::AttachedFile;
use tern_types::{ChatId, Seq};
use tokio::sync::mpsc;

use super::desk::{Desk, Update};
use super::transfer::Transfer;

/// Reports the progress of one transfer to the view. When it is dropped, the transfer leaves the view.
struct Told {
    id: u64,
    updates: mpsc::Sender<Update>,
    transfer: Transfer,
    percent: AtomicU64,
    running: Arc<AtomicU64>,
}

impl Told {
    /// Shows the progress if it has reached another percent.
    fn progress(&self, progress: Progress) {
        let transfer = Transfer {
            progress,
            ..self.transfer.clone()
        };
        // Report each percent once: a transfer makes many more steps than a screen can show.
        if self.percent.swap(transfer.percent(), Ordering::Relaxed) != transfer.percent() {
            self.say(Some(transfer));
        }
    }

    fn say(&self, transfer: Option<Transfer>) {
        // If the queue is full, this update is dropped: a later one, or the message with the file, shows the progress.
        let _ = self.updates.try_send(Update::Transfer(self.id, transfer));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        let (id, updates) = (self.id, self.updates.clone());
        // This update must not be dropped, or the progress bar would stay on the screen.
        tokio::spawn(async move { updates.send(Update::Transfer(id, None)).await });
    }
}

impl Desk {
    /// Returns whether a file is being sent or saved.
    pub fn transfers(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    /// Begins to report a new transfer, which is shown in `chat`.
    fn tell(&self, chat: ChatId, what: String) -> Told {
        self.running.fetch_add(1, Ordering::Relaxed);
        let (done, total) = (0, 0);
        Told {
            id: self.next_transfer(),
            updates: self.updates(),
            transfer: Transfer {
                chat,
                what,
                progress: Progress { done, total },
            },
            percent: AtomicU64::new(u64::MAX),
            running: self.running.clone(),
        }
    }

    /// Uploads a file and sends it to the open chat.
    pub(super) fn send_file(&mut self, path: String) {
        let Some(chat) = self.writable() else { return };
        let to = self.address(chat);
        let path = expand(&path);
        let told = self.tell(chat, format!("sending {}", name_of(&path)));
        self.spawn(|client, _| async move {
            let tell = |progress| told.progress(progress);
            let uploaded = client.upload(&path, content_type(&path), &tell).await;
            let uploaded = uploaded.with_context(|| path.display().to_string())?;
            client.send_files(to, "", vec![uploaded]).await?;
            Ok(())
        });
    }

    /// Makes an image the picture of the open group, or the user's own picture if no group is open.
    pub(super) fn picture(&mut self, path: String) {
        let group = self.open_group();
        let path = expand(&path);
        // If a chat is open, this counts as a transfer, so that a program whose input has ended waits until the picture
        // is stored, however long that takes.
        let told = self.view.open.map(|chat| self.tell(chat, "a picture".to_owned()));
        self.spawn(move |client, updates| async move {
            let _told = told;
            let uploaded = client.upload_picture(&path, content_type(&path)).await;
            let picture = uploaded.with_context(|| path.display().to_string())?;
            match group {
                Some(group) => client.set_chat_picture(group, Some(&picture)).await.map(drop)?,
                None => {
                    client.set_picture(Some(&picture)).await?;
                    let told = "this is your picture now, for the people of your chats".to_owned();
                    let _ = updates.send(Update::Notice(told)).await;
                }
            }
            Ok(())
        });
    }

    /// Saves the files of message `seq` of the open chat, at the path `to` or in the directory for downloads.
    pub(super) fn save_files(&mut self, seq: u64, to: Option<String>) {
        let Some((chat, files)) = self.files(seq) else {
            return;
        };
        for file in files {
            let name = safe_name(&file.name);
            let to = destination(to.as_deref(), &self.downloads, &name);
            let told = self.tell(chat, format!("saving {name}"));
            let updates = self.updates();
            self.spawn(|client, _| async move {
                let to = to?;
                let tell = |progress| told.progress(progress);
                client.download(chat, &file, &to, &tell).await?;
                let saved = format!("saved {}", to.display());
                let _ = updates.send(Update::Notice(saved)).await;
                Ok(())
            });
        }
    }

    /// Sends message `seq` of the open chat, with its files, on to another chat.
    pub(super) fn forward(&mut self, seq: u64, name: &str) {
        let Some(chat) = self.view.open else {
            return self.notice("no chat is open: /chat bob opens one".to_owned());
        };
        let to = self.view.chat_named(name).map(|chat| self.address(chat));
        let to = to.or_else(|| self.view.person(name).map(Into::into));
        let Some(to) = to else {
            return self.notice(format!("no chat is called {name}: /chats lists them"));
        };
        self.spawn(move |client, updates| async move {
            client.forward_message(chat, Seq(seq), to).await?;
            let _ = updates.send(Update::Notice("forwarded".to_owned())).await;
            Ok(())
        });
    }

    /// Returns the files of a message of the open chat. If there are none, the user is told and the result is `None`.
    fn files(&self, seq: u64) -> Option<(ChatId, Vec<AttachedFile>)> {
        let Some(chat) = self.view.open else {
            self.notice("no chat is open: /chat bob opens one".to_owned());
            return None;
        };
        let message = self.view.message(chat, Seq(seq));
        let files = message.and_then(|message| message.entry.attached());
        let files = files.map(|body| body.files);
        let files = files.filter(|files| !files.is_empty());
        if files.is_none() {
            self.notice(format!("message {seq} of this chat has no files here"));
        }
        Some((chat, files?))
    }
}

/// Returns the file name to show for a file that is sent.
fn name_of(path: &Path) -> String {
    safe_name(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// Replaces a leading `~/` by the home directory, as shells do.
fn expand(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.into(),
    }
}

/// Returns the path to save a file to. If `named` is no directory, it is that path, even if a file exists there. If
/// `named` is a directory, or `None`, which means `downloads`, it is a free name in the directory: `a.png`, then
/// `a (1).png`. Fails if 1,000 such names are taken.
fn destination(named: Option<&str>, downloads: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let named = named.map(expand);
    let directory = match named {
        Some(path) if path.is_dir() => path,
        Some(path) => return Ok(path),
        None => {
            std::fs::create_dir_all(downloads).with_context(|| downloads.display().to_string())?;
            std::path::absolute(downloads)?
        }
    };
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    let free = (0..1000)
        .map(|number| match number {
            0 => directory.join(name),
            number => directory.join(format!("{stem} ({number}){extension}")),
        })
        .find(|path| !path.exists());
    free.with_context(|| format!("{name} is in {} too often already", directory.display()))
}

/// Returns the content type for a file name's extension; `application/octet-stream` if it is not known.
fn content_type(path: &Path) -> &'static str {
    const TYPES: [(&str, &str); 14] = [
        ("jpg", "image/jpeg"),
        ("jpeg", "image/jpeg"),
        ("png", "image/png"),
        ("gif", "image/gif"),
        ("webp", "image/webp"),
        ("heic", "image/heic"),
        ("mp4", "video/mp4"),
        ("mov", "video/quicktime"),
        ("webm", "video/webm"),
        ("mp3", "audio/mpeg"),
        ("ogg", "audio/ogg"),
        ("m4a", "audio/mp4"),
        ("pdf", "application/pdf"),
        ("txt", "text/plain"),
    ];
    let end = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let known = TYPES.iter().find(|(known, _)| *known == end);
    known.map_or("application/octet-stream", |(_, content_type)| content_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_saved_beside_one_of_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_str();
        let downloads = dir.path().join("made/when needed");
        let save = |name: &str| destination(here, &downloads, name).unwrap();
        assert_eq!(save("a.png"), dir.path().join("a.png"));
        std::fs::write(dir.path().join("a.png"), "x").unwrap();
        assert_eq!(save("a.png"), dir.path().join("a (1).png"));
        let named = dir.path().join("a.png");
        let said = destination(named.to_str(), &downloads, "b.png").unwrap();
        assert_eq!(said, named, "said so");
        assert!(!downloads.exists());
        let saved = destination(None, &downloads, "b.png").unwrap();
        assert_eq!(saved, downloads.join("b.png"));
        assert!(downloads.is_dir(), "it can be written now");
    }
}
