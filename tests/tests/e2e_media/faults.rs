//! Files arrive although the object store is away, slow or lies, and apps and nodes are killed.

use std::time::Duration;

use tern_client::MediaError;
use tern_local::fault::{Fault, Seen};
use tern_tests::world::BOUND;

use crate::MIB;
use crate::studio::Studio;

fn is(method: &str, seen: &Seen) -> bool {
    seen.method.as_str() == method
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_when_the_app_was_killed() {
    let studio = Studio::start().await;
    let alice = studio.world.user("alice").await;
    let device = studio.world.device(&alice).await;
    let file = studio.file("film.mp4", 40 * MIB);
    // The file has three parts, one of which never gets through.
    studio.proxy.rule(
        |seen| match is("PUT", seen) && seen.query.contains("partNumber=2") {
            true => Fault::HangBefore,
            false => Fault::Pass,
        },
    );
    let app = studio.app(&device).await;
    let upload = tokio::spawn({
        let (client, file) = (app.client.clone(), file.clone());
        async move { client.upload(&file, "video/mp4", crate::studio::SILENT).await }
    });
    let others_are_there = || async {
        let puts = studio.proxy.seen().iter().filter(|seen| is("PUT", seen)).count();
        Ok(puts == 3)
    };
    tern_local::until::holds("three parts are on their way", BOUND, others_are_there)
        .await
        .unwrap();
    // The other two parts arrive soon. The object store's files show when they are there.
    tern_local::until::holds("two parts are there", BOUND, || async {
        let dir = studio.files.path().join("s3/checksums");
        let parts = std::fs::read_dir(dir)?.flatten();
        Ok(parts
            .filter(|part| !part.file_name().to_string_lossy().ends_with(".key"))
            .count()
            == 2)
    })
    .await
    .unwrap();
    upload.abort();
    app.client.stop().await;
    drop(app);

    studio.proxy.heal();
    let app = studio.app(&device).await;
    let uploaded = app.upload(&file).await.unwrap();
    let puts: Vec<Seen> = studio
        .proxy
        .seen()
        .into_iter()
        .filter(|seen| is("PUT", seen))
        .collect();
    assert_eq!(puts.len(), 1, "{puts:?}");
    assert!(puts[0].query.contains("partNumber=2"));
    // The upload has become one media, the same that was begun before.
    app.client
        .send_files(alice_peer(&studio).await, "", vec![uploaded])
        .await
        .unwrap();
    assert_eq!(studio.count("media").await, 1);
    studio.world.end().await;
}

/// Returns a new user to send to.
async fn alice_peer(studio: &Studio) -> tern_types::UserId {
    studio.world.user("peer").await.id
}

#[tokio::test]
async fn lost_answers_errors_and_slow_lines_are_only_a_matter_of_time() {
    let studio = Studio::start().await;
    let [alice, bob] = studio.world.users(["alice", "bob"]).await;
    let (hers, his) = (studio.person(&alice).await, studio.person(&bob).await);
    let file = studio.file("film.mp4", 20 * MIB);
    let bytes = std::fs::read(&file).unwrap();
    studio.proxy.rule(|seen| match seen.number % 4 {
        0 => Fault::Instead(503, "<Error><Code>SlowDown</Code></Error>"),
        1 => Fault::CutAfter,
        2 => Fault::Slow(Duration::from_millis(50)),
        _ => Fault::Pass,
    });
    let uploaded = hers.upload(&file).await.unwrap();
    hers.client.send_files(bob.id, "", vec![uploaded]).await.unwrap();
    let (entry, body) = his.receives().await;
    let to = studio.files.path().join("saved.mp4");
    studio.proxy.rule(|seen| match seen.number {
        0 => Fault::Instead(500, ""),
        1 => Fault::CutBefore,
        _ => Fault::Pass,
    });
    assert_eq!(
        his.download(entry.chat, &body.files[0], &to).await.unwrap(),
        bytes
    );
    assert_eq!(studio.objects(), 1);
    studio.world.end().await;
}

#[tokio::test]
async fn what_is_not_what_was_sent_is_not_kept() {
    let studio = Studio::start().await;
    let [alice, bob] = studio.world.users(["alice", "bob"]).await;
    let (hers, his) = (studio.person(&alice).await, studio.person(&bob).await);
    let file = studio.file("a.png", 1000);
    let uploaded = hers.upload(&file).await.unwrap();
    hers.client.send_files(bob.id, "", vec![uploaded]).await.unwrap();
    let (entry, body) = his.receives().await;
    let to = studio.files.path().join("saved.png");
    let other: &'static str = Box::leak("not what was asked for ".repeat(60).into_boxed_str());
    studio.proxy.rule(move |seen| {
        if is("GET", seen) {
            Fault::Instead(200, other)
        } else {
            Fault::Pass
        }
    });
    let changed = his.download(entry.chat, &body.files[0], &to).await;
    assert!(matches!(changed, Err(MediaError::Corrupt(_))), "{changed:?}");
    studio.proxy.heal();
    // The sender's message itself is wrong about the key, the length or the hash.
    let good = &body.files[0];
    for (what, change) in [
        (
            "key",
            (|file| file.key = vec![1; 32].into()) as fn(&mut tern_proto::v1::AttachedFile),
        ),
        ("no key", |file| file.key = Default::default()),
        ("length", |file| file.length += 1),
        ("hash", |file| file.sha256 = vec![1; 32].into()),
    ] {
        let mut file = good.clone();
        change(&mut file);
        let changed = his.download(entry.chat, &file, &to).await;
        assert!(
            matches!(changed, Err(MediaError::Corrupt(_))),
            "{what}: {changed:?}"
        );
    }
    assert!(!to.exists());
    let left: Vec<_> = std::fs::read_dir(studio.files.path())
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    his.download(entry.chat, good, &to).await.unwrap();
    studio.world.end().await;
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_not_sent() {
    let studio = Studio::start().await;
    let alice = studio.world.user("alice").await;
    let hers = studio.person(&alice).await;
    let file = studio.file("diary.txt", 100_000);
    // The first PUT hangs, and while it does the file is changed.
    studio.proxy.rule(|seen| {
        if is("PUT", seen) {
            Fault::HangBefore
        } else {
            Fault::Pass
        }
    });
    let change = async {
        let struck = tokio::time::timeout(BOUND, studio.proxy.struck());
        struck.await.expect("a PUT");
        std::fs::write(&file, "short").unwrap();
    };
    // The upload that hangs has to end before the next one begins.
    tokio::select! {
        () = change => {}
        uploaded = hers.upload(&file) => panic!("it hangs: {uploaded:?}"),
    }
    studio.proxy.heal();
    let uploaded = hers.upload(&file).await.unwrap();
    assert_eq!(uploaded.file.length, 5, "what it is now");
    studio.world.end().await;
}

/// A media node is killed between any two of its requests to the object store. The app only notices that it takes
/// longer.
#[tokio::test]
async fn a_media_node_that_is_killed_anywhere_is_followed_by_another() {
    let mut studio = Studio::start().await;
    let alice = studio.world.user("alice").await;
    let hers = studio.person(&alice).await;
    // CreateUpload asks for a multipart upload and for its parts; FinalizeUpload asks for the parts, completes the
    // upload, and looks at the object.
    for (number, after) in [(0, true), (1, false), (2, true), (3, false), (3, true), (4, true)] {
        let file = studio.file(&format!("{number}-{after}.bin"), 17 * MIB + number);
        let count = std::sync::atomic::AtomicUsize::new(0);
        studio.proxy.rule(move |seen| {
            // The app's own requests are not counted.
            if is("PUT", seen) {
                return Fault::Pass;
            }
            let this = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            match (this == number, after) {
                (true, true) => Fault::HangAfter,
                (true, false) => Fault::HangBefore,
                _ => Fault::Pass,
            }
        });
        let upload = hers.upload(&file);
        let platform = &mut studio.world.platform;
        let proxy = &studio.proxy;
        let kill = async {
            tokio::select! {
                () = proxy.struck() => {}
                () = tokio::time::sleep(BOUND) => return false,
            }
            platform.kill("media-0").await.unwrap();
            proxy.heal();
            platform.restart("media-0").await.unwrap();
            true
        };
        let (uploaded, killed) = tokio::join!(upload, kill);
        assert!(killed, "request {number} was made");
        uploaded.unwrap();
    }
    assert_eq!(studio.count("media").await, 6);
    assert_eq!(studio.objects(), 6);
    studio.world.end().await;
}
