//! Tests of what the collector deletes, and of what it leaves.

use tern_identity::ticket::TICKET_TTL;
use tern_local::fault::Fault;
use tern_media::collector::Collected;
use tern_media::domain::lifetimes::{CONDEMNED_FOR, TICKET_GRACE};
use tern_media::domain::upload::State;
use tern_media::store::access::Through;
use tern_proto::v1::ErrorReason;
use tern_types::{Cells, RequestId};

use crate::world::{File, World, in_cell_of, person, reason};
use crate::{DAY, MIB};

#[tokio::test]
async fn what_nothing_ever_referred_to_goes_when_its_ticket_has_ended() {
    let world = World::start().await;
    let alice = person();
    let ticket = world.upload(alice, &File::new(1000, 40)).await;
    let key = world.object_key(ticket.media).await.unwrap();
    let ended = world.now() + TICKET_TTL + TICKET_GRACE;
    let just_before = world.collector.round(ended - DAY / 24).await.unwrap();
    assert_eq!(just_before.condemned, 0, "somebody may send it yet");
    let marked = world.collector.round(ended + DAY / 24).await.unwrap();
    assert_eq!((marked.condemned, marked.deleted), (1, 0), "it is only marked");
    assert!(world.direct.head(&key).await.unwrap().is_some());
    // Once the media is marked, no more tickets are given for it.
    let forward = world
        .media
        .forward(alice, ticket.media, Through::OwnUpload, world.now())
        .await;
    assert_eq!(reason(forward), ErrorReason::MediaNotFound);
    let deleted = world
        .collector
        .round(ended + DAY / 24 + CONDEMNED_FOR * 2)
        .await
        .unwrap();
    assert_eq!(deleted.deleted, 1);
    assert_eq!(world.direct.head(&key).await.unwrap(), None);
    world.collect_all().await;
    assert_eq!((world.count("media").await, world.count("uploads").await), (0, 0));
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn while_a_cell_does_not_answer_nothing_is_deleted() {
    let world = World::start().await;
    let (alice, bob) = (person(), person());
    let media = world.upload(alice, &File::new(1000, 47)).await.media;
    let later = world.now() + TICKET_TTL + TICKET_GRACE + DAY;
    assert_eq!(world.collector.round(later).await.unwrap().condemned, 1);
    // A message refers to it after all, and the cell of its chat hangs while the collector looks again.
    let chat = world.chat(&[(bob, 1)]).await;
    world.refer(chat, media, 1).await;
    let cell = Cells::DEFAULT.of_chat(chat).schema();
    let mut tx = tern_store::postgres::begin(&world.pool).await.unwrap();
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0")
        .execute(&mut *tx)
        .await
        .unwrap();
    let lock = format!("LOCK TABLE {cell}.media_refs IN ACCESS EXCLUSIVE MODE");
    sqlx::query(sqlx::AssertSqlSafe(lock))
        .execute(&mut *tx)
        .await
        .unwrap();
    assert!(world.collector.round(later + DAY).await.is_err());
    assert!(world.object_key(media).await.is_some());
    tx.rollback().await.unwrap();
    // The cell may be left out for another second. Until it has answered, nothing is known.
    let bound = std::time::Duration::from_secs(60);
    let round = tern_local::until::some("the cell is asked again", bound, || async {
        Ok(world.collector.round(later + DAY).await?)
    });
    let round = round.await.unwrap();
    assert_eq!((round.pardoned, round.deleted), (1, 0));
}

#[tokio::test]
async fn what_a_message_refers_to_stays_until_no_message_does() {
    let world = World::start().await;
    let (alice, bob) = (person(), person());
    let file = File::new(1000, 41);
    let media = world.upload(alice, &file).await.media;
    let (one, two) = (world.chat(&[(bob, 1)]).await, world.chat(&[(bob, 1)]).await);
    world.refer(one, media, 1).await;
    world.refer(one, media, 2).await;
    world.refer(two, media, 1).await;
    for (chat, seq) in [(one, 1), (one, 2), (two, 1)] {
        let round = world.collect_all().await;
        assert_eq!((round.condemned, round.deleted), (0, 0));
        assert_eq!(
            world.read(bob, media, Through::Chat(chat)).await.unwrap(),
            file.bytes
        );
        let delete = "DELETE FROM CELL.media_refs WHERE chat_id = $1 AND seq = $2";
        sqlx::query(in_cell_of(chat, delete))
            .bind(chat.0)
            .bind(seq)
            .execute(&world.pool)
            .await
            .unwrap();
    }
    assert_eq!(world.collect_all().await.deleted, 1);
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn a_ticket_given_anew_keeps_it() {
    let world = World::start().await;
    let alice = person();
    let media = world.upload(alice, &File::new(1000, 42)).await.media;
    let later = world.now() + DAY;
    world
        .media
        .forward(alice, media, Through::OwnUpload, later)
        .await
        .unwrap();
    assert_eq!(world.collector.round(later + DAY).await.unwrap().condemned, 0);
    assert_eq!(world.collector.round(later + DAY * 2).await.unwrap().condemned, 1);
}

#[tokio::test]
async fn a_reference_that_comes_after_the_mark_pardons_it() {
    let world = World::start().await;
    let (alice, bob, file) = (person(), person(), File::new(1000, 43));
    let media = world.upload(alice, &file).await.media;
    let chat = world.chat(&[(bob, 1)]).await;
    let later = world.now() + DAY * 2;
    assert_eq!(world.collector.round(later).await.unwrap().condemned, 1);
    world.refer(chat, media, 1).await;
    let round = world.collector.round(later + DAY).await.unwrap();
    assert_eq!((round.pardoned, round.deleted), (1, 0));
    assert_eq!(
        world.read(bob, media, Through::Chat(chat)).await.unwrap(),
        file.bytes
    );
    // The media is as before: uploads of the same content find it again.
    let (again, upload) = world.try_upload(alice, RequestId::random(), &file).await.unwrap();
    assert_eq!((again.media, upload), (media, None));
}

#[tokio::test]
async fn the_same_uploaded_while_the_old_is_marked_is_a_new_media() {
    let world = World::start().await;
    let (alice, bob, file) = (person(), person(), File::new(1000, 44));
    let old = world.upload(alice, &file).await.media;
    let later = world.now() + DAY * 2;
    assert_eq!(world.collector.round(later).await.unwrap().condemned, 1);
    let new = world.upload(bob, &file).await.media;
    assert_ne!(old, new);
    // When the old media is pardoned, it exists beside the new one.
    let chat = world.chat(&[(bob, 1)]).await;
    world.refer(chat, old, 1).await;
    world.refer(chat, new, 2).await;
    assert_eq!(world.collector.round(later + DAY / 24).await.unwrap().pardoned, 1);
    assert_eq!(world.collect_all().await, Collected::default());
    let (again, _) = world.try_upload(bob, RequestId::random(), &file).await.unwrap();
    assert_eq!(again.media, new);
    for media in [old, new] {
        assert_eq!(
            world.read(bob, media, Through::Chat(chat)).await.unwrap(),
            file.bytes
        );
    }
}

#[tokio::test]
async fn uploads_that_nobody_finalises_go_with_their_parts() {
    let world = World::start().await;
    let alice = person();
    let (small, large) = (File::new(1000, 45), File::new(17 * MIB, 46));
    let request = RequestId::random();
    let put = world.begin(alice, request, &small).await;
    world.put_all(&small, &put).await;
    let parts = world.begin(alice, RequestId::random(), &large).await;
    world.put_all(&large, &parts).await;
    assert!(world.files() > 0);
    assert_eq!(
        world.collector.round(world.now() + DAY / 2).await.unwrap(),
        Collected::default()
    );
    let round = world.collector.round(world.now() + DAY * 2).await.unwrap();
    assert_eq!((round.given_up, round.cleaned), (2, 2));
    assert_eq!(world.files(), 0, "not a part is left");
    assert_eq!(world.count("uploads").await, 0);
    // A client that comes back has to begin anew.
    assert_eq!(
        reason(world.media.finalize(alice, put.upload, world.now()).await),
        ErrorReason::UploadNotFound
    );
    world.begin(alice, request, &small).await;
}

#[tokio::test]
async fn a_finalise_that_comes_too_late_makes_no_media() {
    let world = World::start().await;
    let (alice, file) = (person(), File::new(1000, 47));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    world.put_all(&file, &missing).await;
    // The collector runs between the moment when finalise looks at the object and its transaction.
    let upload = world
        .media
        .store
        .upload(alice, missing.upload)
        .await
        .unwrap()
        .unwrap();
    let later = world.now() + DAY * 2;
    assert_eq!(world.collector.round(later).await.unwrap().cleaned, 1);
    assert_eq!(
        world.media.store.become_media(&upload, later).await.unwrap(),
        None
    );
    assert_eq!(world.count("media").await, 0);
}

#[tokio::test]
async fn a_finalise_racing_the_collector_ends_with_an_object_or_without_a_media() {
    let world = World::start().await;
    let alice = person();
    let later = world.now() + DAY * 2;
    for seed in 0..40 {
        let file = File::new(100, 1000 + seed);
        let missing = world.begin(alice, RequestId::random(), &file).await;
        world.put_all(&file, &missing).await;
        let finalize = async {
            // The finalise begins at a different point of the collector's round each time.
            for _ in 0..seed {
                tokio::task::yield_now().await;
            }
            world.media.finalize(alice, missing.upload, world.now()).await
        };
        let (finalized, round) = tokio::join!(finalize, world.collector.round(later));
        round.unwrap();
        match finalized {
            Ok(ticket) => {
                // This round has at most marked the media, so its object is still there.
                let key = world.object_key(ticket.media).await.unwrap();
                assert!(world.direct.head(&key).await.unwrap().is_some());
            }
            Err(error) => assert!(
                [ErrorReason::UploadNotFound, ErrorReason::UploadIncomplete].contains(&error.reason),
                "{error:?}"
            ),
        }
    }
    world.collect_all().await;
    assert_eq!(world.files(), 0, "nothing leaks");
}

#[tokio::test]
async fn two_collectors_do_everything_once() {
    let world = World::start().await;
    let alice = person();
    for seed in 0..10 {
        world.upload(alice, &File::new(100, 2000 + seed)).await;
    }
    for day in 2..5 {
        let later = world.now() + DAY * day;
        let other = world.collector.clone();
        let (one, two) = tokio::join!(world.collector.round(later), other.round(later));
        one.unwrap();
        two.unwrap();
    }
    assert_eq!((world.count("media").await, world.files()), (0, 0));
}

/// One object that the object store refuses to delete does not hold up the others.
#[tokio::test]
async fn what_cannot_be_deleted_is_left_and_tried_again() {
    let world = World::start().await;
    let alice = person();
    let (stuck, other) = (File::new(100, 48), File::new(100, 49));
    let stuck = world.upload(alice, &stuck).await.media;
    world.upload(alice, &other).await;
    let key = world.object_key(stuck).await.unwrap();
    assert_eq!(
        world
            .collector
            .round(world.now() + DAY * 2)
            .await
            .unwrap()
            .condemned,
        2
    );
    world.proxy.rule(move |seen| {
        if seen.method == hyper::Method::DELETE && seen.path.contains(&key) {
            Fault::Instead(403, "<Error><Code>AccessDenied</Code></Error>")
        } else {
            Fault::Pass
        }
    });
    assert_eq!(
        world
            .collector
            .round(world.now() + DAY * 3)
            .await
            .unwrap()
            .deleted,
        1
    );
    world.proxy.heal();
    assert_eq!(
        world
            .collector
            .round(world.now() + DAY * 4)
            .await
            .unwrap()
            .deleted,
        1
    );
    assert_eq!(world.files(), 0);
}

/// Stores `count` uploads in this state that were begun, and whose URLs ended, three days ago. The keys of their objects
/// begin with `key`. The times are whole milliseconds, as a node stores them.
async fn old_uploads(world: &World, count: i32, state: State, key: &str) {
    let insert = "INSERT INTO uploads (upload_id, user_id, request_id, length, content_type, part_sha256s, object_key,
                                       state, created_at, urls_end_at)
                  SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 'image/png',
                         decode(repeat('07', 32), 'hex'), $3 || '-' || n, $2, old.at, old.at
                  FROM generate_series(1, $1) n, (SELECT date_trunc('milliseconds', now()) - interval '3 days') old(at)";
    sqlx::query(insert)
        .bind(count)
        .bind(state as i16)
        .bind(key)
        .execute(&world.pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_round_does_all_that_is_to_be_done() {
    let world = World::start().await;
    for (state, key) in [
        (State::Open, "open"),
        (State::Failed, "failed"),
        (State::Duplicate, "duplicate"),
        (State::Done, "done"),
    ] {
        old_uploads(&world, 250, state, key).await;
    }
    let marked = "INSERT INTO media (media_id, content_id, length, content_type, object_key, canonical, created_at,
                                     ticketed_at, condemned_at)
                  SELECT gen_random_uuid(), 'x', 1, 'image/png', 'media-' || n, false, old.at, old.at, old.at
                  FROM generate_series(1, 250) n, (SELECT date_trunc('milliseconds', now()) - interval '3 days') old(at)";
    sqlx::query(marked).execute(&world.pool).await.unwrap();
    let round = world.collector.round(world.now()).await.unwrap();
    assert_eq!((round.given_up, round.cleaned, round.deleted), (250, 750, 250));
    assert_eq!((world.count("media").await, world.count("uploads").await), (0, 0));
}

/// Objects that the object store refuses to delete are more than the collector reads at a time, and the oldest.
#[tokio::test]
async fn many_that_cannot_be_deleted_do_not_hold_up_the_others() {
    let world = World::start().await;
    old_uploads(&world, 450, State::Failed, "stuck").await;
    let (alice, file) = (person(), File::new(100, 47));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    world.put_all(&file, &missing).await;
    world.proxy.rule(|seen| match seen.path.contains("stuck") {
        true => Fault::Instead(403, "<Error><Code>AccessDenied</Code></Error>"),
        false => Fault::Pass,
    });
    let round = world.collector.round(world.now() + DAY * 2).await.unwrap();
    assert_eq!((round.given_up, round.cleaned), (1, 1));
    assert_eq!(world.files(), 0);
    world.proxy.heal();
    let round = world.collector.round(world.now() + DAY * 2).await.unwrap();
    assert_eq!(round.cleaned, 450, "they are tried again");
}

/// To the collector, an object store that fails with one object looks as if it were away. The next round passes the
/// object.
#[tokio::test]
async fn an_object_with_which_the_store_fails_does_not_hold_up_the_others() {
    let world = World::start().await;
    old_uploads(&world, 1, State::Failed, "stuck").await;
    let (alice, file) = (person(), File::new(100, 48));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    world.put_all(&file, &missing).await;
    world.proxy.rule(|seen| match seen.path.contains("stuck") {
        true => Fault::Instead(500, ""),
        false => Fault::Pass,
    });
    let later = world.now() + DAY * 2;
    assert_eq!(
        reason(world.collector.round(later).await),
        ErrorReason::Unavailable
    );
    assert_eq!(world.collector.round(later).await.unwrap().cleaned, 1);
    assert_eq!(world.files(), 0);
}

/// A node was killed after it had begun a multipart upload and before it had stored its id. The next node began
/// another one, which became the media.
#[tokio::test]
async fn a_multipart_upload_that_nobody_wrote_down_is_aborted() {
    let world = World::start().await;
    let (alice, bob, file) = (person(), person(), File::new(17 * MIB, 49));
    let media = world.upload(alice, &file).await.media;
    let chat = world.chat(&[(bob, 1)]).await;
    world.refer(chat, media, 1).await;
    let key = world.object_key(media).await.unwrap();
    world.direct.create_multipart(&key, "image/png").await.unwrap();
    assert_eq!(world.direct.multiparts(&key).await.unwrap().len(), 1);
    world.collect_all().await;
    assert!(world.direct.multiparts(&key).await.unwrap().is_empty());
    assert_eq!(world.count("uploads").await, 0);
    assert_eq!(
        world.read(bob, media, Through::Chat(chat)).await.unwrap(),
        file.bytes
    );
}
