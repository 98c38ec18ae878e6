//! Measures how many uploads a media node handles in a second, and how much memory the SDK needs for a large file.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tern_client::media::Http;
use tern_client::{BackEnd, Client, ClientConfig, Progress, StoreLocation, Tls};
use tern_proto::v1::create_upload_response::Outcome;
use tern_proto::v1::{CreateUploadRequest, FinalizeUploadRequest};
use tern_types::{RequestId, UserId};
use tokio::task::JoinSet;

use super::Common;
use super::cost;
use super::meter::Meter;
use super::people::make;
use super::report::Report;
use super::target::Target;

/// The size of each small upload in bytes.
const SMALL: usize = 64;
/// The number of bytes in a MiB.
const MIB: u64 = 1 << 20;
/// The resident memory beyond which a large upload counts as a fault, in KiB.
const MOST_KIB: u64 = 100 * 1024;

/// Uploads: CreateUpload and FinalizeUpload a second, memory for a large file
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Uploads under way at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    uploads: u32,
    /// Size of the large file in MiB; 0 leaves it out
    #[arg(long, default_value_t = 1024)]
    large: u64,
}

/// Runs the load and returns its results. Small uploads that fail are a fault in the report. Fails if users cannot be
/// created or the large upload fails.
pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    let people = make(&target.back_end, args.uploads as usize, 1).await?;
    let mut report = Report::on(target, format!("media: {} uploads at a time", args.uploads)).await?;
    // The large file comes first, because afterwards this process has the memory of the load.
    if args.large > 0 {
        large(target, args.large * MIB, &mut report).await?;
    }
    let (meter, done) = (Arc::new(Meter::new()), Arc::new(AtomicU64::new(0)));
    let mut workers = JoinSet::new();
    for person in people {
        let (meter, done, back_end) = (meter.clone(), done.clone(), target.back_end.clone());
        let http = Http::new(&Tls::System)?;
        workers.spawn(async move {
            while !meter.is_stopped() {
                match upload(&back_end, &http, person.user).await {
                    Ok(()) => meter.count(&done),
                    Err(error) => meter.refused(format!("{error:#}")),
                }
            }
        });
    }
    let spent = target.measure(common, &meter).await?;
    while workers.join_next().await.is_some() {}
    let count = done.load(Ordering::Relaxed);
    report.a_second("uploads a second", count, &spent);
    let node = spent.cpu.get("media").copied().unwrap_or_default();
    let each = node / (count.max(1) as f64);
    report.noted(
        "uploads a second and core of media nodes",
        1.0 / each.max(1e-9),
        "",
        format!("{:.0} µs each: CreateUpload, FinalizeUpload", each * 1e6),
    );
    report.spent(&spent, count);
    if let Some(why) = meter.refusal() {
        report.fault(format!("uploads failed, the first one: {why}"));
    }
    Ok(report)
}

/// Creates, puts and finalizes one small upload in a user's name.
async fn upload(back_end: &BackEnd, http: &Http, user: UserId) -> anyhow::Result<()> {
    let bytes: [u8; SMALL] = rand::random();
    let create = CreateUploadRequest {
        request_id: RequestId::random().to_string(),
        length: SMALL as u64,
        part_sha256s: vec![Sha256::digest(bytes).to_vec().into()],
        acting_user_id: user.to_string(),
        ..Default::default()
    };
    let created = back_end.api().create_upload(create).await?.outcome;
    let Some(Outcome::Upload(upload)) = created else {
        anyhow::bail!("stored already");
    };
    let part = upload.missing_parts.first().context("nothing to put")?;
    let body = futures::stream::iter([Ok(Bytes::copy_from_slice(&bytes))]);
    let put = http.put(&part.url, &part.headers, body).await;
    put.map_err(|error| anyhow::anyhow!("PUT: {error}"))?;
    let finalize = FinalizeUploadRequest {
        upload_id: upload.upload_id,
        acting_user_id: user.to_string(),
    };
    back_end.api().finalize_upload(finalize).await?;
    Ok(())
}

/// Uploads one large file through the SDK in this process, and reports its peak memory and rate.
async fn large(target: &Target, length: u64, report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("tern-bench-file-").tempdir()?;
    let path = dir.path().join("large");
    write(&path, length)?;
    let person = make(&target.back_end, 1, 1).await?.remove(0);
    let config = ClientConfig::new(target.urls.clone(), StoreLocation::Memory)
        .tls(target.tls_roots.clone())
        .credentials(person.device()?.clone());
    let (client, _events) = Client::start(config).await?;
    cost::forget_peak();
    let before = cost::peak_kib().unwrap_or_default();
    let began = Instant::now();
    let silent = |_: Progress| {};
    client.upload(&path, "application/octet-stream", &silent).await?;
    let took = began.elapsed().as_secs_f64();
    let peak = cost::peak_kib().context("/proc says nothing of memory")?;
    client.stop().await;
    report.noted(
        "peak memory of a large upload",
        peak as f64 / 1024.0,
        "MiB",
        format!(
            "resident, this whole process; {} MiB before; file of {} MiB",
            before / 1024,
            length / MIB
        ),
    );
    report.row("large upload", length as f64 / MIB as f64 / took, "MiB/s");
    if peak > MOST_KIB {
        report.fault(format!("a large upload took {} MiB", peak / 1024));
    }
    Ok(())
}

/// Writes a file of random bytes, which no disk can compress.
fn write(path: &std::path::Path, length: u64) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut block = vec![0; MIB as usize];
    let mut left = length;
    while left > 0 {
        rand::fill(&mut block[..]);
        let now = left.min(MIB);
        file.write_all(&block[..now as usize])?;
        left -= now;
    }
    Ok(file.flush()?)
}
