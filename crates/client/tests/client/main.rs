//! Tests the client on real connections, against a small gateway in this process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::time::Duration;

use common::{CHAT, World, config};
use tern_client::{
    ChatSettingsChange, Client, ClientError, Entry, Event, EventStream, SendState, StopReason,
};
use tern_proto::v1::{self, ErrorReason};
use tern_types::Seq;

const BOUND: Duration = Duration::from_secs(60);

async fn until<T>(events: &mut EventStream, mut find: impl FnMut(Event) -> Option<T>) -> T {
    let search = async {
        loop {
            let event = events.next().await.expect("the client goes on");
            if let Some(found) = find(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(BOUND, search)
        .await
        .expect("it happens in time")
}

fn sent(event: Event) -> Option<u64> {
    match event {
        Event::Send {
            state: SendState::Sent { seq, .. },
            ..
        } => Some(seq.0),
        _ => None,
    }
}

fn stopped(event: Event) -> Option<StopReason> {
    match event {
        Event::Stopped(reason) => Some(reason),
        _ => None,
    }
}

#[tokio::test]
async fn a_message_is_sent_told_once_and_acknowledged_before_the_client_ends() {
    let world = World::new();
    let gateway = world.gateway();
    let (client, mut events) = Client::start(config(&[&gateway])).await.unwrap();
    client.send(CHAT, "hello").await.unwrap();
    assert_eq!(until(&mut events, sent).await, 1);
    let text = until(&mut events, |event| match event {
        Event::Entry(entry) => entry.text().map(std::borrow::Cow::into_owned),
        _ => None,
    });
    assert_eq!(text.await, "hello");
    client.stop().await;
    tokio::time::timeout(BOUND, world.until(|state| state.acked == 1))
        .await
        .unwrap();
    assert_eq!(until(&mut events, stopped).await, StopReason::ByApp);
    assert_eq!(events.next().await, None);
    assert!(client.send(CHAT, "late").await.is_err());
}

#[tokio::test]
async fn what_no_server_would_take_is_refused_at_once_and_the_next_message_goes() {
    let world = World::new();
    let gateway = world.gateway();
    let (client, mut events) = Client::start(config(&[&gateway])).await.unwrap();
    let refused = client.send(CHAT, vec![0; 256 * 1024 + 1]).await;
    assert!(matches!(refused, Err(ClientError::TooLarge(_))), "{refused:?}");
    client.send(CHAT, "hello").await.unwrap();
    // The message leaves the outbox when its entry is in the history.
    let entry = |event| matches!(event, Event::Entry(entry) if entry.seq.0 == 1).then_some(());
    until(&mut events, entry).await;
    assert_eq!(client.outbox().await.unwrap(), []);
}

#[tokio::test]
async fn when_a_gateway_dies_the_next_one_gets_the_outbox() {
    let world = World::new();
    let mut first = world.gateway();
    let second = world.gateway();
    let (client, mut events) = Client::start(config(&[&first, &second])).await.unwrap();
    let at = |event| {
        if let Event::Connected { gateway, .. } = event {
            Some(gateway)
        } else {
            None
        }
    };
    assert!(until(&mut events, at).await.starts_with(&first.url));
    first.kill();
    until(&mut events, |event| {
        matches!(event, Event::Disconnected { .. }).then_some(())
    })
    .await;
    for number in 0..20 {
        client.send(CHAT, format!("{number}")).await.unwrap();
    }
    let seq = |event| match event {
        Event::Entry(entry) => Some(entry.seq.0),
        _ => None,
    };
    while until(&mut events, seq).await < 20 {}
    let bodies: Vec<String> = world.state().log.iter().map(|(_, body)| body.clone()).collect();
    assert_eq!(
        bodies,
        (0..20).map(|number| number.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(client.outbox().await.unwrap(), []);
}

#[tokio::test]
async fn an_expired_token_is_renewed_once_for_all_calls_that_meet_it() {
    let world = World::new();
    world.state().token = 1;
    let gateway = world.gateway();
    let mut config = config(&[&gateway]);
    config.credentials.as_mut().unwrap().refresh_token = "refresh-1".into();
    let (client, _events) = Client::start(config).await.unwrap();
    let calls = (0..10).map(|_| {
        let client = client.clone();
        async move { client.api().list_chats(v1::ListChatsRequest::default()).await }
    });
    for answer in futures::future::join_all(calls).await {
        answer.unwrap();
    }
    assert_eq!(world.state().token, 2);
}

#[tokio::test]
async fn a_stream_refused_for_its_token_comes_back_with_a_new_one() {
    let world = World::new();
    world.state().refuse.push(ErrorReason::TokenExpired);
    let gateway = world.gateway();
    let (_client, mut events) = Client::start(config(&[&gateway])).await.unwrap();
    until(&mut events, |event| {
        matches!(event, Event::CaughtUp).then_some(())
    })
    .await;
    let state = world.state();
    assert_eq!((state.token, state.streams), (1, 1));
}

#[tokio::test]
async fn a_replaced_client_stays_away() {
    let world = World::new();
    world.state().refuse.push(ErrorReason::SessionReplaced);
    let gateway = world.gateway();
    let (_client, mut events) = Client::start(config(&[&gateway])).await.unwrap();
    assert_eq!(until(&mut events, stopped).await, StopReason::Replaced);
    assert_eq!(world.state().streams, 0);
}

#[tokio::test]
async fn a_unary_call_is_made_again_when_the_server_is_busy_and_not_when_it_says_no() {
    let world = World::new();
    let gateway = world.gateway();
    let (client, mut events) = Client::start(config(&[&gateway])).await.unwrap();
    until(&mut events, |event| {
        matches!(event, Event::CaughtUp).then_some(())
    })
    .await;
    world.state().refuse = vec![ErrorReason::Unavailable, ErrorReason::Unavailable];
    client
        .api()
        .list_chats(v1::ListChatsRequest::default())
        .await
        .unwrap();
    world.state().refuse = vec![ErrorReason::RoleTooLow];
    let error = client
        .api()
        .list_chats(v1::ListChatsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.reason, ErrorReason::RoleTooLow);
    let error = client.fetch_chat(CHAT).await.unwrap_err();
    assert!(error.to_string().contains("not here"), "{error}");
}

#[tokio::test]
async fn an_app_that_takes_no_events_blocks_nothing() {
    let world = World::new();
    for number in 0..3000 {
        world
            .state()
            .log
            .push((uuid::Uuid::new_v4().to_string(), number.to_string()));
    }
    let gateway = world.gateway();
    let (client, mut events) = Client::start(config(&[&gateway])).await.unwrap();
    tokio::time::timeout(BOUND, world.until(|state| state.acked == 3000))
        .await
        .unwrap();
    client.send(CHAT, "mine").await.unwrap();
    tokio::time::timeout(BOUND, world.until(|state| state.log.len() == 3001))
        .await
        .unwrap();
    let mut told = Vec::new();
    while told.len() < 3001 {
        told.push(
            until(&mut events, |event| {
                if let Event::Entry(entry) = event {
                    Some(entry.seq.0)
                } else {
                    None
                }
            })
            .await,
        );
    }
    assert_eq!(told, (1..=3001).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_jump_back_in_the_log_leaves_no_hole_in_what_is_stored() {
    let world = World::new();
    for number in 1..=300 {
        let message = (uuid::Uuid::new_v4().to_string(), number.to_string());
        world.state().log.push(message);
    }
    // The device was linked after the first 200 messages.
    world.state().acked = 200;
    let gateway = world.gateway();
    let (client, _events) = Client::start(config(&[&gateway])).await.unwrap();
    tokio::time::timeout(BOUND, world.until(|state| state.acked == 300))
        .await
        .unwrap();
    let seqs = |entries: Vec<Entry>| entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>();
    let jump = client.load_history(CHAT, Some(Seq(50)), 10).await.unwrap();
    assert_eq!(seqs(jump), (40..50).collect::<Vec<_>>());
    let stored = client.history(CHAT, None, 1000).await.unwrap();
    assert_eq!(seqs(stored), (201..=300).collect::<Vec<_>>());
    let more = client.load_history(CHAT, None, 150).await.unwrap();
    assert_eq!(seqs(more), (151..=300).collect::<Vec<_>>());
    let stored = client.history(CHAT, None, 1000).await.unwrap();
    assert_eq!(seqs(stored), (151..=300).collect::<Vec<_>>());
}

#[tokio::test]
async fn settings_and_hidden_messages_are_on_this_device_when_the_call_returns() {
    let world = World::new();
    let gateway = world.gateway();
    let (client, mut events) = Client::start(config(&[&gateway])).await.unwrap();
    client.send(CHAT, "hello").await.unwrap();
    let entry = |event| matches!(event, Event::Entry(entry) if entry.seq.0 == 1).then_some(());
    until(&mut events, entry).await;

    let change = ChatSettingsChange {
        archived: Some(true),
        ..Default::default()
    };
    let settings = client.set_chat_settings(CHAT, change).await.unwrap();
    let chats = client.chats().await.unwrap();
    assert!(settings.archived && chats[0].settings.archived);
    let told = |event| matches!(event, Event::Chat(chat) if chat.settings.archived).then_some(());
    until(&mut events, told).await;

    client.hide_messages(CHAT, vec![Seq(1)]).await.unwrap();
    assert_eq!(client.messages(CHAT, None, 10).await.unwrap(), []);
    let gone =
        |event| matches!(event, Event::Gone { chat, seqs } if chat == CHAT && seqs == [Seq(1)]).then_some(());
    until(&mut events, gone).await;
}
