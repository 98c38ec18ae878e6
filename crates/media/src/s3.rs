//! Calls the object store. No other module uses aws-sdk-s3.
//!
//! There are two clients: one makes the calls that a media node makes itself, and one only signs, with the address
//! that clients use. The bytes of media go through neither. A call fails with an [`S3Error`], which says whether a
//! retry may succeed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tern_types::{Clock, Timestamp};

use crate::config::S3Args;
use crate::domain::declared::{Hash, Part};
use crate::domain::upload::{StoredObject, StoredPart};
use crate::metrics;

/// The timeout of one attempt of a call. No call carries bytes of media; the slowest one completes a large upload.
const ATTEMPT: Duration = Duration::from_secs(8);
/// The timeout of all attempts of a call together. It is shorter than the 30 s that a client waits.
const CALL: Duration = Duration::from_secs(20);
/// The timeout of connecting.
const CONNECT: Duration = Duration::from_secs(2);
/// The most attempts of a call.
const ATTEMPTS: u32 = 3;
/// The time for which a bucket that was there counts as being there still.
const BUCKET_TRUSTED: Duration = Duration::from_secs(30);

/// The error of a call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// A temporary failure: a retry may succeed. A missing bucket counts as one, because an operator can make it.
    #[error("the object store is away: {0}")]
    Away(String),
    /// The object store refused the call, and would refuse it again.
    #[error("the object store refused: {0}")]
    Refused(String),
}

pub(crate) type Result<T> = std::result::Result<T, S3Error>;

/// A signed request that a client may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The URL with its signature.
    pub url: String,
    /// Headers that the client has to send exactly as they are.
    pub headers: Vec<(String, String)>,
}

/// The target of a PUT: a whole object, or a part of a multipart upload.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// The whole object.
    Object {
        /// The content type that the client has to send.
        content_type: &'a str,
    },
    /// A part of a multipart upload.
    Part {
        /// The object store's id of the upload.
        multipart: &'a str,
    },
}

/// The object store's bucket in which the media are. Clones share their connections.
#[derive(Clone)]
pub struct S3 {
    calls: Client,
    signs: Client,
    bucket: String,
    /// The time by the monotonic clock, in milliseconds, at which the bucket was last found to be there; 0: never yet.
    bucket_seen: Arc<AtomicI64>,
    url_ttl: Duration,
}

impl S3 {
    /// Makes the clients, which connect when they are first used. Signed URLs are valid for `url_ttl`.
    pub fn new(args: &S3Args, url_ttl: Duration) -> Self {
        let public = args.media_s3_public_endpoint.as_ref();
        Self {
            calls: client(args, args.media_s3_endpoint.as_ref()),
            signs: client(args, public.or(args.media_s3_endpoint.as_ref())),
            bucket: args.media_s3_bucket.clone(),
            bucket_seen: Arc::default(),
            url_ttl,
        }
    }

    /// Signs a URL by which a client may put one part, or the whole of an object of one part. The URL is bound to the
    /// length and the checksum, and for a whole object to the content type. A whole object is never put over one that
    /// is there, if the object store honours `If-None-Match`.
    pub async fn sign_put(
        &self,
        key: &str,
        target: Target<'_>,
        part: &Part,
        now: Timestamp,
    ) -> Result<Signed> {
        let checksum = BASE64.encode(part.sha256);
        let length = i64::try_from(part.length).unwrap_or(i64::MAX);
        let signed = match target {
            Target::Object { content_type } => {
                let put = self.signs.put_object().bucket(&self.bucket).key(key);
                put.content_length(length)
                    .content_type(content_type)
                    .checksum_sha256(checksum)
                    .if_none_match("*")
                    .presigned(self.presigning(now)?)
                    .await
                    .map_err(|error| failed("sign_put", &error))?
            }
            Target::Part { multipart } => {
                let put = self.signs.upload_part().bucket(&self.bucket).key(key);
                put.upload_id(multipart)
                    .part_number(number(part.number))
                    .content_length(length)
                    .checksum_sha256(checksum)
                    .presigned(self.presigning(now)?)
                    .await
                    .map_err(|error| failed("sign_put", &error))?
            }
        };
        Ok(signed_request(&signed))
    }

    /// Signs a URL by which a client may read an object.
    pub(crate) async fn sign_get(&self, key: &str, now: Timestamp) -> Result<Signed> {
        let get = self.signs.get_object().bucket(&self.bucket).key(key);
        let signed = get
            // The browser must never show the object as a page of the object store's own origin.
            .response_content_disposition("attachment")
            .presigned(self.presigning(now)?)
            .await
            .map_err(|error| failed("sign_get", &error))?;
        Ok(signed_request(&signed))
    }

    fn presigning(&self, now: Timestamp) -> Result<PresigningConfig> {
        let millis = u64::try_from(now.0).unwrap_or(0);
        PresigningConfig::builder()
            .start_time(UNIX_EPOCH + Duration::from_millis(millis))
            .expires_in(self.url_ttl)
            .build()
            .map_err(|error| S3Error::Refused(error.to_string()))
    }

    /// Returns what is stored under a key, or `None` if there is nothing. Returns `Err` if there is no bucket: to this
    /// question the object store answers that with the same status as a missing object.
    pub async fn head(&self, key: &str) -> Result<Option<StoredObject>> {
        let head = self.calls.head_object().bucket(&self.bucket).key(key);
        let stored = match head.checksum_mode(ChecksumMode::Enabled).send().await {
            Ok(found) => Some(StoredObject {
                length: u64::try_from(found.content_length().unwrap_or(0)).unwrap_or(0),
                content_type: found.content_type().unwrap_or_default().to_owned(),
                sha256: found.checksum_sha256().and_then(checksum),
            }),
            Err(error) if is_missing(&error) => None,
            Err(error) => return Err(failed("head", &error)),
        };
        if stored.is_none() {
            self.require_bucket().await?;
        }
        Ok(stored)
    }

    /// Deletes the object under a key. It succeeds also if there is none.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let delete = self.calls.delete_object().bucket(&self.bucket).key(key);
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(failed("delete", &error)),
        }
    }

    /// Begins a multipart upload, and returns its id.
    pub async fn create_multipart(&self, key: &str, content_type: &str) -> Result<String> {
        let create = self.calls.create_multipart_upload().bucket(&self.bucket).key(key);
        let created = create
            .content_type(content_type)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .send()
            .await
            .map_err(|error| failed("create_multipart", &error))?;
        let id = created.upload_id().map(ToOwned::to_owned);
        id.ok_or_else(|| S3Error::Refused("it names no upload".to_owned()))
    }

    /// Returns the parts of the multipart upload that are there, or `None` if there is no such multipart upload,
    /// because it was completed or aborted.
    pub async fn parts(&self, key: &str, multipart: &str) -> Result<Option<Vec<StoredPart>>> {
        let mut parts = Vec::new();
        let mut after = None;
        loop {
            let list = self.calls.list_parts().bucket(&self.bucket).key(key);
            let page = match list
                .upload_id(multipart)
                .set_part_number_marker(after.take())
                .send()
                .await
            {
                Ok(page) => page,
                Err(error) if is_missing(&error) => return Ok(None),
                Err(error) => return Err(failed("parts", &error)),
            };
            parts.extend(page.parts().iter().map(stored_part));
            after = page.next_part_number_marker().map(ToOwned::to_owned);
            if page.is_truncated() != Some(true) || after.is_none() {
                return Ok(Some(parts));
            }
        }
    }

    /// Completes a multipart upload, which makes one object of the parts. Only [`S3::head`] says reliably whether there
    /// is an object now: the object store may answer 200 and then report a failure, or answer that there is no such
    /// upload because it has completed it before.
    pub async fn complete(&self, key: &str, multipart: &str, parts: &[StoredPart]) -> Result<()> {
        let parts = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(number(part.number))
                .e_tag(&part.etag)
                .set_checksum_sha256(part.sha256.map(|hash| BASE64.encode(hash)))
                .build()
        });
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts.collect()))
            .build();
        let complete = self.calls.complete_multipart_upload().bucket(&self.bucket);
        let complete = complete.key(key).upload_id(multipart).multipart_upload(parts);
        match complete.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(failed("complete", &error)),
        }
    }

    /// Aborts a multipart upload and deletes its parts. It succeeds also if there is none.
    pub async fn abort(&self, key: &str, multipart: &str) -> Result<()> {
        let abort = self.calls.abort_multipart_upload().bucket(&self.bucket);
        match abort.key(key).upload_id(multipart).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(failed("abort", &error)),
        }
    }

    /// Returns the ids of the multipart uploads under this key, including those whose ids were never stored in
    /// Postgres.
    pub async fn multiparts(&self, key: &str) -> Result<Vec<String>> {
        let list = self.calls.list_multipart_uploads().bucket(&self.bucket);
        let page = list
            .prefix(key)
            .send()
            .await
            .map_err(|error| failed("multiparts", &error))?;
        let ids = page.uploads().iter().filter(|upload| upload.key() == Some(key));
        Ok(ids
            .filter_map(|upload| upload.upload_id().map(ToOwned::to_owned))
            .collect())
    }

    /// Checks that the bucket exists and answers.
    pub async fn check(&self) -> Result<()> {
        match self.calls.head_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => {
                metrics::s3_failure("check");
                Err(S3Error::Away(format!("there is no bucket {}", self.bucket)))
            }
            Err(error) => Err(failed("check", &error)),
        }
    }

    /// Returns `Err` if there is no bucket. The object store is asked at most once in [`BUCKET_TRUSTED`] while there is
    /// one. If it refuses to answer, the bucket counts as being there.
    async fn require_bucket(&self) -> Result<()> {
        let seen = Timestamp(self.bucket_seen.load(Ordering::Relaxed));
        let now = Clock::monotonic();
        if now.since(seen) < BUCKET_TRUSTED {
            return Ok(());
        }
        match self.check().await {
            Ok(()) | Err(S3Error::Refused(_)) => {
                self.bucket_seen.store(now.0, Ordering::Relaxed);
                Ok(())
            }
            Err(away) => Err(away),
        }
    }

    /// Makes the bucket, for development.
    pub async fn create_bucket(&self) -> Result<()> {
        let create = self.calls.create_bucket().bucket(&self.bucket).send().await;
        create.map(drop).map_err(|error| failed("create_bucket", &error))
    }
}

fn client(args: &S3Args, endpoint: Option<&String>) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(CALL)
        .build();
    let secret = args.media_s3_secret_access_key.0.as_str();
    let credentials = Credentials::new(&args.media_s3_access_key_id, secret, None, None, "tern");
    let mut config = aws_sdk_s3::Config::builder();
    config.set_endpoint_url(endpoint.cloned());
    let config = config
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(args.media_s3_region.clone()))
        .credentials_provider(credentials)
        .force_path_style(args.media_s3_path_style)
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        // The SDK adds no checksums of its own, because they would be signed headers, which the client would have to
        // send too.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn signed_request(signed: &PresignedRequest) -> Signed {
    let own = |name: &str| !name.eq_ignore_ascii_case("host");
    Signed {
        url: signed.uri().to_owned(),
        headers: signed
            .headers()
            .filter(|(name, _)| own(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}

fn stored_part(part: &aws_sdk_s3::types::Part) -> StoredPart {
    StoredPart {
        number: part
            .part_number()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        length: part.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        sha256: part.checksum_sha256().and_then(checksum),
        etag: part.e_tag().unwrap_or_default().to_owned(),
    }
}

/// Reads a SHA-256 in Base64. The checksum of an object of several parts has their number after a hyphen, which is
/// ignored.
fn checksum(text: &str) -> Option<Hash> {
    let text = text.split_once('-').map_or(text, |(hash, _)| hash);
    BASE64.decode(text).ok()?.try_into().ok()
}

/// Returns whether the error says that the object or upload does not exist. The answer to HEAD has no body with a code,
/// so there it may also be the bucket that does not exist.
fn is_missing<E: ProvideErrorMetadata, R: HasStatus>(error: &SdkError<E, R>) -> bool {
    match code(error) {
        Some("NoSuchKey" | "NotFound" | "NoSuchUpload") => true,
        None => error
            .raw_response()
            .is_some_and(|response| response.status_code() == 404),
        Some(_) => false,
    }
}

fn failed<E, R>(call: &'static str, error: &SdkError<E, R>) -> S3Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug + HasStatus,
{
    metrics::s3_failure(call);
    let words = format!("{call}: {}", DisplayErrorContext(error));
    let status = error.raw_response().map_or(0, HasStatus::status_code);
    let passes = status == 429 || code(error) == Some("NoSuchBucket");
    if matches!(error, SdkError::ServiceError(_)) && (400..500).contains(&status) && !passes {
        S3Error::Refused(words)
    } else {
        S3Error::Away(words)
    }
}

/// Returns the object store's name of the error, if its answer has one.
fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// The HTTP status code of a response.
trait HasStatus {
    fn status_code(&self) -> u16;
}

impl HasStatus for aws_sdk_s3::config::http::HttpResponse {
    fn status_code(&self) -> u16 {
        self.status().as_u16()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_read_with_and_without_a_number_of_parts() {
        let hash = [7; 32];
        let text = BASE64.encode(hash);
        assert_eq!(checksum(&text), Some(hash));
        assert_eq!(checksum(&format!("{text}-3")), Some(hash));
        for bad in ["", "x", "AAAA", &text[1..]] {
            assert_eq!(checksum(bad), None, "{bad}");
        }
    }
}
