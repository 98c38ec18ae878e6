//! Tests of what a signed URL accepts, and what not.

use bytes::Bytes;
use tern_media::s3::Signed;
use tern_proto::v1::ErrorReason;
use tern_types::{RequestId, Timestamp};

use crate::world::{File, World, person, put, reason, request};
use crate::{DAY, MIB};

/// Returns the request with one header's value replaced.
fn with(signed: &Signed, name: &str, value: &str) -> Signed {
    let mut changed = signed.clone();
    let header = changed.headers.iter_mut().find(|(known, _)| known == name);
    header.unwrap_or_else(|| panic!("{name} is signed: {signed:?}")).1 = value.to_owned();
    changed
}

fn without(signed: &Signed, name: &str) -> Signed {
    let mut changed = signed.clone();
    changed.headers.retain(|(known, _)| known != name);
    assert_ne!(changed, *signed, "{name} is signed");
    changed
}

#[tokio::test]
async fn a_url_takes_nothing_but_what_was_declared() {
    let world = World::start().await;
    lets_nothing_else_in(&world, 1000).await;
    lets_nothing_else_in(&world, 16 * MIB + 1000).await;
}

/// Checks that a signed URL accepts only the declared bytes, in a single PUT or as a part, depending on `length`.
pub async fn lets_nothing_else_in(world: &World, length: usize) {
    let (alice, file) = (person(), File::new(length, 10));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    let (part, signed) = missing.parts.last().unwrap();
    let good = file.part(part.offset, part.length);
    let mut other = good.to_vec();
    other[7] ^= 1;
    let other = Bytes::from(other);
    let shorter = good.slice(1..);
    let digest = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let length_less = shorter.len().to_string();
    let mut attempts = vec![
        ("other bytes", signed.clone(), other.clone()),
        (
            "another length",
            with(signed, "content-length", &length_less),
            shorter,
        ),
        (
            "another checksum",
            with(signed, "x-amz-checksum-sha256", digest),
            other.clone(),
        ),
        ("no checksum", without(signed, "x-amz-checksum-sha256"), other),
        (
            "another part of the URL",
            Signed {
                url: signed.url.replace("X-Amz-Expires=900", "X-Amz-Expires=9000"),
                ..signed.clone()
            },
            good.clone(),
        ),
    ];
    if signed.headers.iter().any(|(name, _)| name == "content-type") {
        attempts.push((
            "another type",
            with(signed, "content-type", "text/html"),
            good.clone(),
        ));
    }
    for (what, signed, body) in attempts {
        let answer = put(&signed, body).await.unwrap();
        assert!(
            (400..500).contains(&answer.status),
            "{what}: {} {}",
            answer.status,
            answer.text()
        );
    }
    for method in ["GET", "DELETE", "POST"] {
        let answer = request(method, &signed.url, &signed.headers, good.clone())
            .await
            .unwrap();
        assert!((400..500).contains(&answer.status), "{method}: {}", answer.status);
    }
    assert_eq!(
        reason(world.media.finalize(alice, missing.upload, world.now()).await),
        ErrorReason::UploadIncomplete,
        "nothing of that came in"
    );
    world.put_all(&file, &missing).await;
    world
        .media
        .finalize(alice, missing.upload, world.now())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_url_ends() {
    let world = World::start().await;
    ends(&world).await;
}

pub async fn ends(world: &World) {
    let (alice, file, request) = (person(), File::new(1000, 11), RequestId::random());
    let hour_ago = Timestamp(world.now().0 - 3_600_000);
    let created = world
        .media
        .create(alice, request, &file.declared, hour_ago)
        .await
        .unwrap();
    let tern_media::media::Created::Missing(missing) = created else {
        panic!()
    };
    let answer = put(&missing.parts[0].1, file.bytes.clone()).await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
    // A new URL works.
    let missing = world.begin(alice, request, &file).await;
    world.put_all(&file, &missing).await;
}

#[tokio::test]
async fn a_url_used_twice_changes_nothing() {
    let world = World::start().await;
    used_twice(&world).await;
}

pub async fn used_twice(world: &World) {
    let (alice, file) = (person(), File::new(1000, 12));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    world.put_all(&file, &missing).await;
    let signed = &missing.parts[0].1;
    // Object stores that honour If-None-Match answer 412. One that does not overwrites the object with the same
    // bytes.
    let answer = put(signed, file.bytes.clone()).await.unwrap();
    assert!([200, 412].contains(&answer.status), "{}", answer.text());
    let ticket = world
        .media
        .finalize(alice, missing.upload, world.now())
        .await
        .unwrap();
    let _ = put(signed, file.bytes.clone()).await.unwrap();
    let through = tern_media::store::access::Through::OwnUpload;
    assert_eq!(
        world.read(alice, ticket.media, through).await.unwrap(),
        file.bytes
    );
}

#[tokio::test]
async fn what_is_put_again_after_a_failure_is_collected() {
    let world = World::start().await;
    let (alice, file) = (person(), File::new(1000, 13));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    sqlx::query("UPDATE uploads SET state = 2")
        .execute(&world.pool)
        .await
        .unwrap();
    world.put_all(&file, &missing).await;
    let soon = world.now();
    assert_eq!(
        world.collector.round(soon).await.unwrap().cleaned,
        0,
        "its URL is still good"
    );
    assert!(world.files() > 0);
    assert_eq!(world.collector.round(soon + DAY).await.unwrap().cleaned, 1);
    assert_eq!(world.files(), 0);
}
