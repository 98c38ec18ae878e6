//! Runs some of the other tests on SeaweedFS, another implementation of S3.

use tern_local::weed::{self, Weed};
use tern_media::store::access::Through;
use tern_types::RequestId;

use crate::world::{File, World, person};
use crate::{MIB, urls};

#[tokio::test]
#[allow(
    clippy::print_stderr,
    reason = "who reads the test's output is told what it left out"
)]
async fn what_works_with_our_own_server_works_with_seaweedfs() {
    let Some(program) = weed::program() else {
        eprintln!("left out: SeaweedFS is not installed (`make tools`)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let weed = Weed::start(&program, dir.path()).await.unwrap();
    let world = World::on(&weed.access.endpoint, Some(weed.process)).await;
    tern_local::until::some("a bucket", std::time::Duration::from_secs(30), || async {
        Ok(world.direct.create_bucket().await?)
    })
    .await
    .unwrap();
    let alice = person();
    for length in [1000, 33 * MIB] {
        let file = File::new(length, 70);
        let request = RequestId::random();
        let missing = world.begin(alice, request, &file).await;
        world.put_all(&file, &missing).await;
        assert!(
            world.begin(alice, request, &file).await.parts.is_empty(),
            "all of it is there"
        );
        let ticket = world
            .media
            .finalize(alice, missing.upload, world.now())
            .await
            .unwrap();
        assert_eq!(
            world.read(alice, ticket.media, Through::OwnUpload).await.unwrap(),
            file.bytes
        );
    }
    urls::lets_nothing_else_in(&world, 1000).await;
    urls::lets_nothing_else_in(&world, 16 * MIB + 1000).await;
    urls::ends(&world).await;
    urls::used_twice(&world).await;
    // There is a multipart upload whose id was never stored, and there are parts of one that was given up.
    let file = File::new(17 * MIB, 71);
    let missing = world.begin(alice, RequestId::random(), &file).await;
    world.put_all(&file, &missing).await;
    let keys = world.upload_keys().await;
    let (key, _) = keys.last().unwrap();
    world.direct.create_multipart(key, "image/png").await.unwrap();
    assert_eq!(world.direct.multiparts(key).await.unwrap().len(), 2);
    // There is also a multipart upload beside one that became a media. A node that is killed before it has stored the
    // id leaves one behind.
    let (done, _) = &keys[1];
    world.direct.create_multipart(done, "image/png").await.unwrap();
    assert_eq!(world.direct.multiparts(done).await.unwrap().len(), 1);
    world.collect_all().await;
    for (place, (key, _)) in keys.into_iter().enumerate() {
        assert_eq!(world.direct.head(&key).await.unwrap(), None);
        let left = world.direct.multiparts(&key).await.unwrap();
        assert!(left.is_empty(), "upload {place}, {key}: {left:?}");
    }
    assert_eq!((world.count("media").await, world.count("uploads").await), (0, 0));
}
