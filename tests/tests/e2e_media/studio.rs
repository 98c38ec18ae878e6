//! A platform with media, and people who use the SDK.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tern_client::media::OnProgress;
use tern_client::{
    Attachment, Client, ClientConfig, Credentials, Entry, Event, EventStream, MediaError, Progress,
    SendState, StoreLocation, Tls,
};
use tern_local::fault::Proxy;
use tern_local::s3::Access;
use tern_local::{S3, until};
use tern_proto::v1::{self, entry_content::Content};
use tern_tests::world::{open_to_all, tern};
use tern_tests::{Device, User, World};
use tern_types::{ChatId, Clock, RequestId};
use tokio::sync::Mutex;

const BOUND: Duration = Duration::from_secs(60);

/// A platform whose object store is behind a proxy, for both nodes and clients.
pub struct Studio {
    pub world: World,
    pub proxy: Proxy,
    s3: Option<S3>,
    pub files: TempDir,
}

impl Studio {
    pub async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let s3 = S3::start(&tern(), files.path()).await.unwrap();
        let access = s3.access().clone();
        Self::on(access, Some(s3), files).await
    }

    /// Starts a platform on this object store.
    pub async fn on(access: Access, s3: Option<S3>, files: TempDir) -> Self {
        open_to_all(files.path());
        let proxy = Proxy::start(&access.endpoint).await.unwrap();
        let behind = Access {
            endpoint: proxy.endpoint(),
            ..access
        };
        let world = World::with(|builder| {
            builder
                .media(1)
                .s3(behind)
                .env("TERN_MEDIA_S3_CREATE_BUCKET", "true")
        })
        .await;
        Self {
            world,
            proxy,
            s3,
            files,
        }
    }

    /// Makes a file of `length` pseudo-random bytes. Files of the same length are equal.
    pub fn file(&self, name: &str, length: usize) -> PathBuf {
        let path = self.files.path().join(name);
        let mut state = length as u64 | 1;
        let bytes: Vec<u8> = (0..length.div_ceil(8))
            .flat_map(|_| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (state ^ (state >> 29)).to_le_bytes()
            })
            .take(length)
            .collect();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub async fn person(&self, user: &User) -> Person {
        let device = self.world.device(user).await;
        self.app(&device).await
    }

    /// Starts the app on this device. If it ran before, it goes on with its store.
    pub async fn app(&self, device: &Device) -> Person {
        let store = self.files.path().join(format!("{}.sqlite", device.id));
        let credentials = Credentials {
            user: device.user,
            device: device.id,
            access_token: device.access_token.clone(),
            access_expires_at: Clock::wall() + Duration::from_secs(3000),
            refresh_token: device.refresh_token.clone(),
        };
        let config = ClientConfig::new(self.world.platform.gateway_urls(), StoreLocation::File(store))
            .tls(Tls::Roots(self.world.platform.ca_pem().unwrap()))
            .credentials(credentials);
        // The app that ran before may still be about to end.
        let (client, events) = until_some(|| Client::start(config.clone())).await;
        Person {
            client,
            events: Mutex::new(events),
        }
    }

    /// Counts the rows of a table in the database.
    pub async fn count(&self, table: &'static str) -> i64 {
        let store = self.world.store().await;
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let count = sqlx::query_scalar(sql).fetch_one(&store).await.unwrap();
        store.close().await;
        count
    }

    /// Counts the objects in our own object store.
    pub fn objects(&self) -> usize {
        self.s3.as_ref().expect("our own").objects().unwrap()
    }
}

async fn until_some<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(make: impl Fn() -> F) -> T {
    let found = std::sync::Mutex::new(None);
    until::some("it is there", BOUND, || async {
        let made = make().await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        *found.lock().unwrap() = Some(made);
        Ok(())
    })
    .await
    .unwrap();
    found.into_inner().unwrap().unwrap()
}

/// A person's app.
pub struct Person {
    pub client: Client,
    events: Mutex<EventStream>,
}

pub const SILENT: OnProgress<'static> = &|_: Progress| {};

impl Person {
    pub async fn upload(&self, path: &Path) -> Result<Attachment, MediaError> {
        self.client.upload(path, "image/png", SILENT).await
    }

    /// Waits for the next message with files from somebody else.
    pub async fn receives(&self) -> (Entry, v1::AttachmentBody) {
        let mut events = self.events.lock().await;
        let next = async {
            loop {
                if let Event::Entry(entry) = events.next().await.expect("the client goes on")
                    && entry.sender != Some(self.client.user())
                    && let Some(body) = entry.attached()
                {
                    return (entry, body);
                }
            }
        };
        tokio::time::timeout(BOUND, next)
            .await
            .expect("a message with files")
    }

    /// Waits for the next entry of this chat that tells of a new picture.
    pub async fn changed(&self, chat: ChatId) -> Entry {
        let mut events = self.events.lock().await;
        let next = async {
            loop {
                if let Event::Entry(entry) = events.next().await.expect("the client goes on")
                    && entry.chat == chat
                    && matches!(entry.content.content, Some(Content::ChatPictureChanged(_)))
                {
                    return entry;
                }
            }
        };
        tokio::time::timeout(BOUND, next).await.expect("a new picture")
    }

    /// Waits until this send is refused, and checks the code.
    pub async fn refused(&self, request: RequestId, wanted: v1::SendErrorCode) {
        let mut events = self.events.lock().await;
        let next = async {
            loop {
                if let Event::Send {
                    request: of,
                    state: SendState::Failed { code, .. },
                    ..
                } = events.next().await.expect("the client goes on")
                    && of == request
                {
                    return code;
                }
            }
        };
        let code = tokio::time::timeout(BOUND, next).await.expect("a refusal");
        assert_eq!(code, wanted);
    }

    pub async fn download(
        &self,
        chat: ChatId,
        file: &v1::AttachedFile,
        to: &Path,
    ) -> Result<Vec<u8>, MediaError> {
        self.client.download(chat, file, to, SILENT).await?;
        Ok(std::fs::read(to)?)
    }
}
