//! Tests that a statement which takes too long in one chat fails that chat only.

use std::sync::Arc;

use sqlx::Connection;
use tern_chat::bell::Bell;
use tern_chat::metrics::JobTimes;
use tern_chat::shard_loop::writer;
use tern_chat_core::shard::{Committed, Event, Job, JobDone, Lane};
use tern_chat_core::{EntryKind, Refusal};
use tern_cluster::shedding::Shedding;
use tern_store::postgres::cell_connect_options;
use tern_types::{Cell, Cells};
use tokio::sync::mpsc;

use crate::harness::{Known, Store, new_entry};

#[tokio::test]
async fn a_chat_whose_commit_takes_too_long_is_refused_alone() {
    let store = Store::new().await;
    let (a, b, c) = (store.user().await, store.user().await, store.user().await);
    let (slow, free) = (store.direct(a, b).await, store.direct(a, c).await);
    // A commit to the chat waits for this transaction, which has inserted the same key. It holds no lock of a head, by
    // which the writer would leave the chat out.
    let mut other = store.shard().await;
    let mut tx = other.begin().await.unwrap();
    sqlx::query("INSERT INTO unsettled (chat_id, from_seq, slot) VALUES ($1, 1, 0)")
        .bind(slow.id.0)
        .execute(&mut *tx)
        .await
        .unwrap();

    // The timeout is shorter than the time for which the writer waits for a lock.
    let options = cell_connect_options(&store.args, Cell::FIRST).options([("statement_timeout", "450")]);
    let (results, mut done) = mpsc::channel(1);
    let (meter, times) = (Shedding::off().meter("commit"), JobTimes::new(0));
    let jobs = writer::spawn(
        Arc::new(move || options.clone()),
        Lane::Commit,
        meter,
        times,
        Bell::new(Cells::DEFAULT).rope(0),
        results,
    );
    let mut commit = async |chats: &[&Known]| {
        let message = || vec![new_entry(a, EntryKind::Message, b"x")];
        let batches = chats.iter().map(|chat| chat.batch(message())).collect();
        jobs.send(Job::Commit(batches).into()).await.unwrap();
        match done.recv().await.unwrap() {
            Event::JobDone(JobDone::Commit(results)) => results,
            event => panic!("{event:?}"),
        }
    };
    let committed = commit(&[&slow, &free]).await;
    assert_eq!(committed.len(), 2);
    for (chat, result) in committed {
        let expected = if chat == slow.id {
            Committed::Refused(Refusal::TOO_SLOW)
        } else {
            Committed::Stored
        };
        assert_eq!(result, expected);
    }
    assert_eq!(store.log(free.id).await, [1]);
    assert_eq!(store.log(slow.id).await, [] as [i64; 0]);

    tx.rollback().await.unwrap();
    assert_eq!(commit(&[&slow]).await, [(slow.id, Committed::Stored)]);
}
