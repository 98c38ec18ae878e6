//! Tests of a media node that is killed between any two of its steps. Each request to the object store is cut off
//! before or after the object store has done it, the call never goes on, and another node repeats it.

use std::time::Duration;

use tern_local::fault::Fault;
use tern_media::store::access::Through;
use tern_types::RequestId;

use crate::world::{File, World, person};
use crate::{DAY, MIB};

/// A number that is larger than the number of requests of any call.
const MOST_STEPS: usize = 12;

/// Runs `call`, and kills it at its request number `step`, before or `after` the object store has done it. Returns
/// `false` if the call ended before that step.
async fn killed_at(world: &World, step: usize, after: bool, call: impl Future) -> bool {
    world.proxy.rule(move |seen| match (seen.number == step, after) {
        (true, false) => Fault::HangBefore,
        (true, true) => Fault::HangAfter,
        _ => Fault::Pass,
    });
    let killed = tokio::select! {
        () = world.proxy.struck() => true,
        _ = call => false,
    };
    world.proxy.heal();
    killed
}

#[tokio::test]
async fn create_and_finalise_killed_anywhere_come_to_the_same_end() {
    let world = World::start().await;
    for length in [1000, 17 * MIB] {
        let mut kills = 0;
        for (step, after) in (0..MOST_STEPS).flat_map(|step| [(step, false), (step, true)]) {
            let (alice, file, request) = (person(), File::new(length, 60 + step as u64), RequestId::random());
            let create = world.media.create(alice, request, &file.declared, world.now());
            let killed_create = Box::pin(killed_at(&world, step, after, create)).await;
            let missing = world.begin(alice, request, &file).await;
            world.put_all(&file, &missing).await;
            let finalize = world.media.finalize(alice, missing.upload, world.now());
            let killed_finalize = killed_at(&world, step, after, finalize).await;
            let ticket = world
                .media
                .finalize(alice, missing.upload, world.now())
                .await
                .unwrap();
            assert_eq!(
                world.read(alice, ticket.media, Through::OwnUpload).await.unwrap(),
                file.bytes
            );
            kills += usize::from(killed_create) + usize::from(killed_finalize);
            if !killed_create && !killed_finalize {
                break;
            }
        }
        assert!(
            kills >= if length > MIB { 8 } else { 4 },
            "{kills} kills of {length} bytes"
        );
    }
    world.collect_all().await;
    assert_eq!(world.files(), 0, "nothing leaks");
    assert_eq!((world.count("media").await, world.count("uploads").await), (0, 0));
}

#[tokio::test]
async fn a_collector_killed_anywhere_is_followed_by_one_that_ends_it() {
    let world = World::start().await;
    let mut kills = 0;
    for (step, after) in (0..MOST_STEPS).flat_map(|step| [(step, false), (step, true)]) {
        let alice = person();
        // There is a media to mark and delete, an upload that is given up with its parts, one that failed, and one
        // whose content was there already.
        let file = File::new(100, 80 + step as u64);
        world.upload(alice, &file).await;
        let bobs = world
            .begin(person(), RequestId::random(), &File::new(17 * MIB, 90))
            .await;
        world.put_all(&File::new(17 * MIB, 90), &bobs).await;
        world.upload(person(), &file).await;
        let mut killed = false;
        for day in 2..5 {
            let later = world.now() + DAY * day;
            killed |= killed_at(&world, step, after, world.collector.round(later)).await;
        }
        kills += usize::from(killed);
        world.collect_all().await;
        assert_eq!(
            world.files(),
            0,
            "nothing is left after a kill at step {step}, after: {after}"
        );
        assert_eq!((world.count("media").await, world.count("uploads").await), (0, 0));
        if !killed {
            break;
        }
    }
    assert!(kills >= 6, "{kills} kills");
}

/// Between two statements of a call there may be no request to the object store at which it could be killed. So this
/// test drops the call itself, after one more poll each time.
#[tokio::test]
async fn a_finalise_dropped_after_any_number_of_polls_can_be_made_again() {
    let world = World::start().await;
    let mut dropped = 0;
    for polls in 0..200 {
        let (alice, file) = (person(), File::new(100, 5000 + polls));
        let missing = world.begin(alice, RequestId::random(), &file).await;
        world.put_all(&file, &missing).await;
        {
            let finalize = world.media.finalize(alice, missing.upload, world.now());
            let mut finalize = std::pin::pin!(finalize);
            let mut left = polls;
            let ended = std::future::poll_fn(|cx| {
                if let std::task::Poll::Ready(done) = finalize.as_mut().poll(cx) {
                    return std::task::Poll::Ready(Some(done));
                }
                if left == 0 {
                    return std::task::Poll::Ready(None);
                }
                left -= 1;
                std::task::Poll::Pending
            });
            let ended = tokio::time::timeout(Duration::from_secs(60), ended)
                .await
                .unwrap();
            if ended.is_some() {
                break;
            }
        }
        dropped += 1;
        // The connection of the dropped call has to be cleaned up first. Until then the store may count as away.
        let ticket = world
            .finalized_within(alice, missing.upload, Duration::from_secs(60))
            .await;
        assert_eq!(
            world.read(alice, ticket.media, Through::OwnUpload).await.unwrap(),
            file.bytes
        );
    }
    // The number of polls that a call takes depends on how fast Postgres and the object store answer.
    assert!(dropped >= 2, "{dropped} drops");
    world.collect_all().await;
    assert_eq!(world.files(), 0, "nothing leaks");
}
