//! The metrics of a media node.

use metrics::counter;
use tern_telemetry::described::Kind::Counter;
use tern_telemetry::described::{self, Described};

const UPLOADS: &str = "tern_media_uploads_total";
const FINALIZED: &str = "tern_media_finalized_total";
const DOWNLOADS: &str = "tern_media_downloads_total";
const FORWARDS: &str = "tern_media_forwards_total";
const QUOTA: &str = "tern_media_quota_exceeded_total";
const S3_FAILURES: &str = "tern_media_s3_failures_total";
const COLLECTED: &str = "tern_media_collected_total";
const COLLECT_FAILURES: &str = "tern_media_collect_failures_total";

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (Counter, UPLOADS, "uploads asked for, by outcome"),
    (Counter, FINALIZED, "uploads to be finalised, by outcome"),
    (Counter, DOWNLOADS, "URLs to read that were given"),
    (Counter, FORWARDS, "tickets to forward that were given"),
    (Counter, QUOTA, "uploads beyond a user's quota, by what it is of"),
    (Counter, S3_FAILURES, "failed calls to the object store, by call"),
    (Counter, COLLECTED, "what the collector ended, by kind"),
    (
        Counter,
        COLLECT_FAILURES,
        "rounds of the collector that did not come to their end, and single objects that the store refused to delete",
    ),
];

/// Registers the kinds, names and descriptions of the metrics for `/metrics`.
pub fn describe() {
    described::describe(DESCRIBED);
    // Counters start at 0, so that a metric is visible before its first event.
    for name in [DOWNLOADS, FORWARDS, COLLECT_FAILURES] {
        counter!(name).absolute(0);
    }
    for outcome in ["new", "open", "stored"] {
        counter!(UPLOADS, "outcome" => outcome).absolute(0);
    }
    for outcome in ["new", "duplicate", "incomplete", "mismatch"] {
        counter!(FINALIZED, "outcome" => outcome).absolute(0);
    }
    for quota in ["bytes", "uploads"] {
        counter!(QUOTA, "quota" => quota).absolute(0);
    }
    for call in [
        "abort",
        "check",
        "complete",
        "create_bucket",
        "create_multipart",
        "delete",
        "head",
        "multiparts",
        "parts",
        "sign_get",
        "sign_put",
    ] {
        counter!(S3_FAILURES, "call" => call).absolute(0);
    }
}

pub(crate) fn upload(outcome: &'static str) {
    counter!(UPLOADS, "outcome" => outcome).increment(1);
}

pub(crate) fn finalized(outcome: &'static str) {
    counter!(FINALIZED, "outcome" => outcome).increment(1);
}

pub(crate) fn download() {
    counter!(DOWNLOADS).increment(1);
}

pub(crate) fn forward() {
    counter!(FORWARDS).increment(1);
}

pub(crate) fn quota_exceeded(quota: &'static str) {
    counter!(QUOTA, "quota" => quota).increment(1);
}

pub(crate) fn s3_failure(call: &'static str) {
    counter!(S3_FAILURES, "call" => call).increment(1);
}

pub(crate) fn collected(kind: &'static str, count: u64) {
    counter!(COLLECTED, "kind" => kind).increment(count);
}

pub(crate) fn collect_failure() {
    counter!(COLLECT_FAILURES).increment(1);
}
