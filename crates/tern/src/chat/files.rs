//! Files: sent, saved, sent on. They run beside the conversation; how far they are is part of the view.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use tern_client::media::safe_name;
use tern_client::{Client, Progress};
use tern_proto::v1::AttachedFile;
use tern_types::{ChatId, Seq};
use tokio::sync::mpsc;

use super::desk::{Desk, Update};

/// Cells of a progress bar.
const BAR: usize = 20;

/// A file on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    pub chat: ChatId,
    /// "sending beach.png"
    pub what: String,
    pub progress: Progress,
}

impl Transfer {
    /// "sending beach.png ▕██████░░░░▏ 60 % of 3.0 MB"
    pub fn line(&self) -> String {
        let full = (self.percent() as usize * BAR / 100).min(BAR);
        let bar = "█".repeat(full) + &"░".repeat(BAR - full);
        let size = size(self.progress.total);
        format!("{} ▕{bar}▏ {} % of {size}", self.what, self.percent())
    }

    pub fn percent(&self) -> u64 {
        self.progress.done.saturating_mul(100) / self.progress.total.max(1)
    }
}

/// Tells the view of one transfer, until it is dropped.
struct Told {
    id: u64,
    updates: mpsc::Sender<Update>,
    transfer: Transfer,
    percent: AtomicU64,
    running: Arc<AtomicU64>,
}

impl Told {
    fn progress(&self, progress: Progress) {
        let transfer = Transfer {
            progress,
            ..self.transfer.clone()
        };
        // Each percent once: a transfer makes many more steps than a screen can show.
        if self.percent.swap(transfer.percent(), Ordering::Relaxed) != transfer.percent() {
            self.say(Some(transfer));
        }
    }

    fn say(&self, transfer: Option<Transfer>) {
        // With a full queue a later step, or the message that the file becomes, shows how far it is.
        let _ = self.updates.try_send(Update::Transfer(self.id, transfer));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        let (id, updates) = (self.id, self.updates.clone());
        // It must arrive, or the bar would stay.
        tokio::spawn(async move { updates.send(Update::Transfer(id, None)).await });
    }
}

impl Desk {
    /// Whether a file is on its way.
    pub fn transfers(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

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

    /// Makes an image the picture of the open group, or the person's own where no group is open.
    pub(super) fn picture(&mut self, path: String) {
        let group = self.open_group();
        let path = expand(&path);
        // Whoever types and leaves does so when it is there.
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

    /// Saves the files of message `seq` of the open chat.
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

    /// Sends the files of message `seq` of the open chat on to another chat.
    pub(super) fn forward_files(&mut self, seq: u64, name: &str) {
        let Some((chat, files)) = self.files(seq) else {
            return;
        };
        let to = self.view.chat_named(name).map(|chat| self.address(chat));
        let to = to.or_else(|| self.view.person(name).map(Into::into));
        let Some(to) = to else {
            return self.notice(format!("no chat is called {name}: /chats lists them"));
        };
        self.spawn(|client: Client, updates| async move {
            let mut forwarded = Vec::new();
            for file in files {
                forwarded.push(client.forward(chat, file).await?);
            }
            client.send_files(to, "", forwarded).await?;
            let _ = updates.send(Update::Notice("forwarded".to_owned())).await;
            Ok(())
        });
    }

    /// Those of a message of the open chat; what is wrong is told.
    fn files(&self, seq: u64) -> Option<(ChatId, Vec<AttachedFile>)> {
        let Some(chat) = self.view.open else {
            self.notice("no chat is open: /chat bob opens one".to_owned());
            return None;
        };
        let entry = self.view.rooms.get(&chat).and_then(|room| room.entry(Seq(seq)));
        let files = entry.and_then(|entry| entry.attached()).map(|body| body.files);
        let files = files.filter(|files| !files.is_empty());
        if files.is_none() {
            self.notice(format!("message {seq} of this chat has no files here"));
        }
        Some((chat, files?))
    }
}

/// The name to show of a file that is sent.
fn name_of(path: &Path) -> String {
    safe_name(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// `~` as shells know it.
fn expand(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.into(),
    }
}

/// Where this machine's person finds what was saved: as the desktop says, or as it is called mostly.
pub fn downloads() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let said = home.as_ref().and_then(|home| {
        let settings = std::fs::read_to_string(home.join(".config/user-dirs.dirs")).ok()?;
        named_downloads(&settings, home)
    });
    said.or_else(|| Some(home?.join("Downloads")))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// `XDG_DOWNLOAD_DIR="$HOME/Downloads"` of a desktop's settings.
fn named_downloads(settings: &str, home: &Path) -> Option<PathBuf> {
    let line = settings
        .lines()
        .find_map(|line| line.trim().strip_prefix("XDG_DOWNLOAD_DIR="))?;
    let path = line.trim_matches('"');
    match path.strip_prefix("$HOME") {
        Some(rest) => Some(home.join(rest.trim_start_matches('/'))),
        None => Some(PathBuf::from(path)).filter(|path| path.is_absolute()),
    }
}

/// Where to save: the file that was named, in the directory that was named, or among the downloads; never over what is
/// there, unless a file was named.
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

/// "3.0 MB"
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 3] = ["kB", "MB", "GB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// By the name's end; what is not known is bytes.
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
    fn sizes_and_bars_read_well() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (3_145_735, "3.1 MB"),
            (999_999_999, "1.0 GB"),
            (2 << 30, "2.1 GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        let transfer = Transfer {
            chat: ChatId(uuid::Uuid::nil()),
            what: "sending a.png".to_owned(),
            progress: Progress {
                done: 500,
                total: 1000,
            },
        };
        let half = format!("{}{}", "█".repeat(10), "░".repeat(10));
        assert_eq!(transfer.line(), format!("sending a.png ▕{half}▏ 50 % of 1.0 kB"));
    }

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

    #[test]
    fn downloads_are_where_the_desktop_says() {
        let home = Path::new("/home/alice");
        let cases = [
            ("XDG_DOWNLOAD_DIR=\"$HOME/Loaded\"\n", Some("/home/alice/Loaded")),
            ("# none\n  XDG_DOWNLOAD_DIR=\"/data/in\"", Some("/data/in")),
            ("XDG_DOWNLOAD_DIR=\"relative\"", None),
            ("XDG_MUSIC_DIR=\"$HOME/Music\"", None),
        ];
        for (settings, found) in cases {
            assert_eq!(
                named_downloads(settings, home),
                found.map(PathBuf::from),
                "{settings}"
            );
        }
    }
}
