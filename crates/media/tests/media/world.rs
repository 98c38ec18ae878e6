//! The test world: the parts of a media node on a database of its own, with an S3 server behind a proxy that fails on
//! demand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgPool};
use tempfile::TempDir;
use tern_identity::ticket::Tickets;
use tern_local::Shared;
use tern_local::fault::Proxy;
use tern_local::until;
use tern_media::collector::{Collected, Collector};
use tern_media::config::{S3Args, Secret};
use tern_media::domain::declared::{Declared, Hash};
use tern_media::media::{Created, Media, Missing, Ticket};
use tern_media::s3::{S3, Signed};
use tern_media::store::Store;
use tern_media::store::access::Through;
use tern_media::store::uploads::Quota;
use tern_proto::ApiError;
use tern_proto::v1::{ErrorReason, MediaPurpose};
use tern_store::postgres::{self, PostgresArgs};
use tern_store::{Pools, schema};
use tern_types::limits::MEDIA_PART_BYTES;
use tern_types::{Cells, ChatId, Clock, MediaId, RequestId, Timestamp, UploadId, UserId};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::DAY;

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const TTL: Duration = Duration::from_secs(900);

pub struct World {
    pub pool: PgPool,
    pub media: Arc<Media>,
    pub collector: Collector,
    pub proxy: Proxy,
    /// The object store, reached without the proxy.
    pub direct: S3,
    /// The flags by which a node reaches the object store.
    s3_args: S3Args,
    /// The directory in which s3s keeps the objects. It is `None` for another server.
    pub objects: Option<TempDir>,
    _servers: (Shared, Option<AbortOnDropHandle<()>>, Option<tern_local::Process>),
}

/// A file's bytes, and their declaration.
#[derive(Clone)]
pub struct File {
    pub bytes: Bytes,
    pub declared: Declared,
}

impl File {
    /// Makes a file with this many bytes, which differ for each seed.
    pub fn new(length: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        Self::of(bytes.into())
    }

    pub fn of(bytes: Bytes) -> Self {
        let parts: Vec<Hash> = bytes
            .chunks(MEDIA_PART_BYTES as usize)
            .map(|part| Sha256::digest(part).into())
            .collect();
        let length = bytes.len() as u64;
        let declared = Declared::parse(length, &parts, "image/png", MediaPurpose::Attachment).unwrap();
        Self { bytes, declared }
    }

    pub fn part(&self, offset: u64, length: u64) -> Bytes {
        self.bytes.slice(offset as usize..(offset + length) as usize)
    }
}

pub fn person() -> UserId {
    UserId::random()
}

/// Makes a statement name the tables of the chat's cell, for which it says `CELL`.
pub fn in_cell_of(chat: ChatId, sql: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql.replace("CELL", &Cells::DEFAULT.of_chat(chat).schema()))
}

impl World {
    /// Starts the world on s3s, in this process.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = tern_local::s3::server::service(dir.path(), "key", "secret").unwrap();
        let server = tokio::spawn(async move { tern_local::s3::server::serve(listener, service).await });
        let server = AbortOnDropHandle::new(server);
        let mut world = Self::on(&endpoint, None).await;
        world.objects = Some(dir);
        world._servers.1 = Some(server);
        world
    }

    /// Starts the world on another S3 server, whose keys are `key` and `secret`.
    pub async fn on(endpoint: &str, process: Option<tern_local::Process>) -> Self {
        let servers = Shared::get().await.unwrap();
        let url = servers.database().await.unwrap();
        let postgres_args = PostgresArgs::from_url(&url).unwrap();
        let wanted = schema::Wanted {
            cells: None,
            citus: servers.is_citus(),
        };
        schema::migrate(&postgres_args, wanted).await.unwrap();
        let pool = postgres::pool(&postgres_args).await.unwrap();
        let proxy = Proxy::start(endpoint).await.unwrap();
        let args = S3Args {
            media_s3_endpoint: Some(proxy.endpoint()),
            media_s3_public_endpoint: None,
            media_s3_region: "us-east-1".to_owned(),
            media_s3_bucket: tern_local::s3::BUCKET.to_owned(),
            media_s3_access_key_id: "key".to_owned(),
            media_s3_secret_access_key: Secret("secret".to_owned()),
            media_s3_path_style: true,
            media_s3_create_bucket: false,
        };
        let s3 = S3::new(&args, TTL);
        let direct = S3::new(
            &S3Args {
                media_s3_endpoint: Some(endpoint.to_owned()),
                ..args.clone()
            },
            TTL,
        );
        let pools = Pools::over(pool.clone(), &postgres_args).await.unwrap();
        let store = Store::new(pools);
        let media = Media {
            store: store.clone(),
            s3: s3.clone(),
            tickets: Tickets::from_hex(KEY).unwrap(),
            cdn: None,
            quota: Quota {
                bytes: 1 << 40,
                uploads: 1000,
            },
            url_ttl: TTL,
        };
        Self {
            pool,
            media: Arc::new(media),
            collector: Collector::new(store, s3),
            proxy,
            direct,
            s3_args: args,
            objects: None,
            _servers: (servers, None, process),
        }
    }

    pub fn now(&self) -> Timestamp {
        Clock::wall()
    }

    /// Returns the calls of another node, which has asked the object store nothing yet.
    pub fn another_node(&self) -> Media {
        Media {
            store: self.media.store.clone(),
            s3: S3::new(&self.s3_args, TTL),
            tickets: self.media.tickets.clone(),
            cdn: None,
            quota: self.media.quota,
            url_ttl: TTL,
        }
    }

    /// Begins an upload of this file, and returns what is missing.
    pub async fn begin(&self, user: UserId, request: RequestId, file: &File) -> Missing {
        match self
            .media
            .create(user, request, &file.declared, self.now())
            .await
            .unwrap()
        {
            Created::Missing(missing) => missing,
            Created::Stored(ticket) => panic!("stored already: {ticket:?}"),
        }
    }

    /// Uploads everything that is missing.
    pub async fn put_all(&self, file: &File, missing: &Missing) {
        for (part, signed) in &missing.parts {
            let answer = put(signed, file.part(part.offset, part.length)).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }

    /// Uploads the file from the beginning to the ticket.
    pub async fn upload(&self, user: UserId, file: &File) -> Ticket {
        let (ticket, _) = self.try_upload(user, RequestId::random(), file).await.unwrap();
        ticket
    }

    pub async fn try_upload(
        &self,
        user: UserId,
        request: RequestId,
        file: &File,
    ) -> Result<(Ticket, Option<UploadId>), ApiError> {
        match self
            .media
            .create(user, request, &file.declared, self.now())
            .await?
        {
            Created::Stored(ticket) => Ok((ticket, None)),
            Created::Missing(missing) => {
                self.put_all(file, &missing).await;
                let ticket = self.media.finalize(user, missing.upload, self.now()).await?;
                Ok((ticket, Some(missing.upload)))
            }
        }
    }

    /// Finalises the upload, again and again while it fails, for at most `bound`.
    pub async fn finalized_within(&self, user: UserId, upload: UploadId, bound: Duration) -> Ticket {
        until::some("a ticket", bound, || async {
            Ok(self.media.finalize(user, upload, self.now()).await?)
        })
        .await
        .unwrap()
    }

    /// Returns the bytes that this user reads by this right.
    pub async fn read(&self, user: UserId, media: MediaId, through: Through) -> Result<Bytes, ErrorReason> {
        let download = self.media.download(user, media, through, self.now()).await;
        let download = download.map_err(|error| error.reason)?;
        let answer = get(&download.url).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        Ok(answer.body)
    }

    /// Makes a chat with these members, each from the given seq on.
    pub async fn chat(&self, members: &[(UserId, i64)]) -> ChatId {
        let chat = ChatId(Uuid::new_v4());
        for (user, joined) in members {
            let insert = "INSERT INTO CELL.members (chat_id, user_id, joined_seq, role, devices) VALUES ($1, $2, $3, 1, '{}')";
            sqlx::query(in_cell_of(chat, insert))
                .bind(chat.0)
                .bind(user.0)
                .bind(joined)
                .execute(&self.pool)
                .await
                .unwrap();
        }
        chat
    }

    /// Writes a reference as the commit of entry `seq` does.
    pub async fn refer(&self, chat: ChatId, media: MediaId, seq: i64) {
        let insert = "INSERT INTO CELL.media_refs (chat_id, media_id, seq) VALUES ($1, $2, $3)";
        sqlx::query(in_cell_of(chat, insert))
            .bind(chat.0)
            .bind(media.0)
            .bind(seq)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub async fn leave(&self, chat: ChatId, user: UserId, seq: i64) {
        let update =
            "UPDATE CELL.members SET left_seq = $3 WHERE chat_id = $1 AND user_id = $2 AND left_seq IS NULL";
        sqlx::query(in_cell_of(chat, update))
            .bind(chat.0)
            .bind(user.0)
            .bind(seq)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub async fn object_key(&self, media: MediaId) -> Option<String> {
        sqlx::query_scalar("SELECT object_key FROM media WHERE media_id = $1")
            .bind(media.0)
            .fetch_optional(&self.pool)
            .await
            .unwrap()
    }

    pub async fn upload_keys(&self) -> Vec<(String, Option<String>)> {
        sqlx::query_as("SELECT object_key, multipart_id FROM uploads ORDER BY created_at")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    pub async fn count(&self, table: &'static str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Runs ten rounds of the collector, a day apart, and returns what they did together.
    pub async fn collect_all(&self) -> Collected {
        let mut sum = Collected::default();
        for day in 2..12 {
            let round = self.collector.round(self.now() + DAY * day).await.unwrap();
            sum.given_up += round.given_up;
            sum.cleaned += round.cleaned;
            sum.condemned += round.condemned;
            sum.pardoned += round.pardoned;
            sum.deleted += round.deleted;
        }
        sum
    }

    /// Returns how many files s3s has: objects, parts of multipart uploads that are not completed, and checksums.
    pub fn files(&self) -> usize {
        let dir = self.objects.as_ref().expect("s3s").path();
        count_files(&dir.join("objects")) + count_files(&dir.join("checksums"))
    }
}

fn count_files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries
        .map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                count_files(&entry.path())
            } else {
                usize::from(!entry.file_name().to_string_lossy().starts_with(".bucket"))
            }
        })
        .sum()
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a PUT exactly as it was signed.
pub async fn put(signed: &Signed, body: Bytes) -> anyhow::Result<Answer> {
    request("PUT", &signed.url, &signed.headers, body).await
}

pub async fn get(url: &str) -> anyhow::Result<Answer> {
    request("GET", url, &[], Bytes::new()).await
}

pub async fn request(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: Bytes,
) -> anyhow::Result<Answer> {
    let uri: http::Uri = url.parse()?;
    let authority = uri.authority().unwrap().to_string();
    let socket = TcpStream::connect(&authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let mut request = http::Request::builder()
        .method(method)
        .uri(uri.path_and_query().unwrap().as_str())
        .header("host", authority);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    let (parts, body) = answer.into_parts();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await?.to_bytes(),
    })
}

pub fn reason<T: std::fmt::Debug>(result: Result<T, ApiError>) -> ErrorReason {
    result.unwrap_err().reason
}
