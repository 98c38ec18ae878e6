//! Adds to s3s-fs the features that a store needs for media: it keeps the SHA-256 of parts and of objects made of
//! parts, refuses a part with another SHA-256, and lists multipart uploads. Beside the objects it keeps one file per
//! part (`<upload>.<number>`), one per upload (`<upload>.key`) and one per object of several parts (`object.<key in
//! hex>`).
//!
//! s3s-fs ends an upload in many steps. They go on to the last one even if the caller's connection breaks meanwhile, as
//! on a real store; otherwise the upload would be gone and its object not there yet.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use sha2::{Digest as _, Sha256};

/// An S3 store that compares checksums. Clones share their state.
#[derive(Debug, Clone)]
pub struct Checked {
    objects: Arc<FileSystem>,
    checksums: PathBuf,
    /// Held while an upload ends, so that nobody lists the parts that are left of it.
    ending: Arc<tokio::sync::Mutex<()>>,
}

type Answer<T> = S3Result<S3Response<T>>;

impl Checked {
    /// Makes a store with the directories `objects`, for the objects, and `checksums`, for the files about them. Fails
    /// if it cannot use them.
    pub fn new(objects: &Path, checksums: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(checksums)?;
        let objects = FileSystem::new(objects).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(Self {
            objects: Arc::new(objects),
            checksums: checksums.to_owned(),
            ending: Arc::default(),
        })
    }

    fn part_file(&self, upload: &str, number: i32) -> S3Result<PathBuf> {
        self.file(&format!("{upload}.{number}"))
    }

    fn object_file(&self, key: &str) -> S3Result<PathBuf> {
        self.file(&format!("object.{}", hex(key.as_bytes())))
    }

    /// Returns the path of a file about an object. A name with other characters than letters, digits, `-` and `.` is an
    /// error, so that no request reaches other directories.
    fn file(&self, name: &str) -> S3Result<PathBuf> {
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        if plain && name.len() < 256 {
            Ok(self.checksums.join(name))
        } else {
            Err(s3_error!(InvalidRequest, "not a name of this server"))
        }
    }

    /// Removes the files of an upload and its parts.
    fn forget(&self, upload: &str) {
        let Ok(files) = fs::read_dir(&self.checksums) else {
            return;
        };
        let prefix = format!("{upload}.");
        for file in files.flatten() {
            if file.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

#[async_trait::async_trait]
impl S3 for Checked {
    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        self.objects.create_bucket(request).await
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.objects.head_bucket(request).await
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        self.objects.list_objects_v2(request).await
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        self.objects.get_object(request).await
    }

    /// Stores an object. s3s-fs compares the checksum only after it has stored the object, so the body is checked on
    /// the way.
    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let differs = Arc::new(AtomicBool::new(false));
        let input = &mut request.input;
        input.body = match (input.body.take(), input.checksum_sha256.clone()) {
            (Some(body), Some(wanted)) => Some(compared(body, wanted, differs.clone())),
            (body, _) => body,
        };
        match self.objects.put_object(request).await {
            Err(_) if differs.load(Ordering::Relaxed) => Err(s3_error!(BadDigest)),
            answer => answer,
        }
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let file = self.object_file(&request.input.key)?;
        let mut answer = self.objects.head_object(request).await?;
        if let Ok(sum) = fs::read_to_string(file) {
            answer.output.checksum_sha256 = Some(sum);
        }
        Ok(answer)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        let file = self.object_file(&request.input.key)?;
        let answer = self.objects.delete_object(request).await?;
        let _ = fs::remove_file(file);
        Ok(answer)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let key = request.input.key.clone();
        let answer = self.objects.create_multipart_upload(request).await?;
        if let Some(upload) = &answer.output.upload_id {
            fs::write(self.file(&format!("{upload}.key"))?, key).map_err(internal)?;
        }
        Ok(answer)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        let prefix = request.input.prefix.unwrap_or_default();
        let files = fs::read_dir(&self.checksums).map_err(internal)?.flatten();
        let uploads = files.filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let upload = name.strip_suffix(".key")?.to_owned();
            let key = fs::read_to_string(file.path()).ok()?;
            key.starts_with(&prefix).then_some(MultipartUpload {
                upload_id: Some(upload),
                key: Some(key),
                ..Default::default()
            })
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            uploads: Some(uploads.collect()),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, mut request: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let input = &mut request.input;
        let wanted = input.checksum_sha256.clone();
        let (upload, number) = (input.upload_id.clone(), input.part_number);
        let file = self.part_file(&upload, number)?;
        let differs = Arc::new(AtomicBool::new(false));
        input.body = match (input.body.take(), wanted.clone()) {
            (Some(body), Some(wanted)) => Some(compared(body, wanted, differs.clone())),
            (body, _) => body,
        };
        let answer = self.objects.upload_part(request).await;
        if answer.is_err() && differs.load(Ordering::Relaxed) {
            return Err(s3_error!(BadDigest));
        }
        // If the upload has ended meanwhile, the part would belong to nothing.
        self.there(&upload)?;
        let mut answer = answer?;
        match &wanted {
            Some(sum) => fs::write(file, sum).map_err(internal)?,
            None => drop(fs::remove_file(file)),
        }
        answer.output.checksum_sha256 = wanted;
        Ok(answer)
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        let upload = request.input.upload_id.clone();
        let _ending = self.ending.lock().await;
        self.there(&upload)?;
        let mut answer = self.objects.list_parts(request).await?;
        for part in answer.output.parts.iter_mut().flatten() {
            let file = self.part_file(&upload, part.part_number.unwrap_or_default())?;
            part.checksum_sha256 = fs::read_to_string(file).ok();
            part.e_tag = Some(ETag::Strong("kept-by-its-checksum".to_owned()));
        }
        Ok(answer)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let store = self.clone();
        to_its_end(async move { store.complete(request).await }).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let store = self.clone();
        to_its_end(async move { store.abort(request).await }).await
    }
}

impl Checked {
    /// Checks that an upload is under way. `Err` if there is none with this id, or it has ended.
    fn there(&self, upload: &str) -> S3Result<()> {
        if self.file(&format!("{upload}.key"))?.exists() {
            Ok(())
        } else {
            Err(s3_error!(NoSuchUpload))
        }
    }

    async fn complete(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let (upload, key) = (request.input.upload_id.clone(), request.input.key.clone());
        let _ending = self.ending.lock().await;
        self.there(&upload)?;
        let named = request
            .input
            .multipart_upload
            .clone()
            .and_then(|named| named.parts);
        let mut whole = Sha256::new();
        let mut count = 0;
        for part in named.unwrap_or_default() {
            let file = self.part_file(&upload, part.part_number.unwrap_or_default())?;
            let kept = fs::read_to_string(file).map_err(|_| s3_error!(InvalidPart))?;
            if part.checksum_sha256.as_ref() != Some(&kept) {
                return Err(s3_error!(InvalidPart, "its checksum is another"));
            }
            whole.update(BASE64.decode(kept).map_err(|_| s3_error!(InvalidPart))?);
            count += 1;
        }
        let answer = self.objects.complete_multipart_upload(request).await?;
        let sum = format!("{}-{count}", BASE64.encode(whole.finalize()));
        fs::write(self.object_file(&key)?, sum).map_err(internal)?;
        self.forget(&upload);
        Ok(answer)
    }

    async fn abort(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let upload = request.input.upload_id.clone();
        let _ending = self.ending.lock().await;
        self.there(&upload)?;
        let answer = self.objects.abort_multipart_upload(request).await?;
        self.forget(&upload);
        Ok(answer)
    }
}

/// Does the work in a task of its own, which is not dropped with the connection that asked for it.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = S3Result<T>> + Send + 'static,
) -> S3Result<T> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|_| Err(s3_error!(InternalError)))
}

/// Returns a body with the same bytes, which fails at its end if their SHA-256 is not `wanted` (in base64).
/// `differs` then becomes true.
fn compared(body: StreamingBlob, wanted: String, differs: Arc<AtomicBool>) -> StreamingBlob {
    let seen = Arc::new(Mutex::new(Sha256::new()));
    let hash = seen.clone();
    let body = body
        .map_err(io::Error::other)
        .inspect_ok(move |bytes| hash.lock().unwrap_or_else(PoisonError::into_inner).update(bytes));
    let end = stream::once(async move {
        let sum = seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .finalize();
        if BASE64.encode(sum) == wanted {
            Ok(bytes::Bytes::new())
        } else {
            differs.store(true, Ordering::Relaxed);
            Err(io::Error::other("the SHA-256 is another"))
        }
    });
    StreamingBlob::wrap(body.chain(end))
}

fn internal(error: io::Error) -> s3s::S3Error {
    s3s::S3Error::with_source(s3s::S3ErrorCode::InternalError, Box::new(error))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
