//! Tests of uploads, downloads and the collector on a real Postgres and on real S3 servers: s3s in this process, and
//! SeaweedFS if it is installed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod collecting;
mod downloads;
mod faults;
mod kills;
mod pictures;
mod plans;
mod quotas;
mod seaweed;
mod uploads;
mod urls;
mod world;

use std::time::Duration;

const MIB: usize = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);
