//! The wall clocks of machines are wrong, and are set while the platform runs. Nothing waits for them, and nothing is
//! ordered by them.

use tern_proto::v1::{CloseCode, server_event::Event};
use tern_tests::wire::{self, Wire};
use tern_tests::{WallClock, World};
use tern_types::{ChatId, Clock, RequestId};

const CHATS: [&str; 2] = ["chat-0", "chat-1"];
const HOUR_S: i64 = 3600;

#[tokio::test]
async fn wall_clocks_of_chat_nodes_that_are_set_by_an_hour_hold_up_nothing() {
    let clock = WallClock::new();
    let world = World::with(|builder| clock.of(builder, &CHATS)).await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let device = world.device(&carol).await;
    let (chat, away) = (
        ChatId::direct(alice.id, bob.id),
        ChatId::direct(alice.id, carol.id),
    );
    let mut texts = Vec::new();
    let mut sent_at = 0;
    for ahead in [0, -HOUR_S, 0, HOUR_S, -HOUR_S] {
        clock.set(ahead);
        let text = format!("{ahead} s ahead");
        let sent = hers.say(bob.id, text.as_bytes()).await;
        assert!(sent.sent_at_ms >= sent_at, "no entry is older than the one below");
        sent_at = sent.sent_at_ms;
        if ahead == HOUR_S {
            let shown = Clock::wall().0 + (HOUR_S - 60) * 1000;
            assert!(sent_at > shown, "the clock is set: {sent_at}");
        }
        his.has_text(chat, &text).await;
        hers.receipt(chat, bob.id, sent.seq, 0).await;
        // Nobody is online in this chat, so only the settle writes what waits.
        hers.say(carol.id, text.as_bytes()).await;
        // The settle is scheduled, and is not to wait until the clock shows that time again.
        clock.set(ahead - HOUR_S);
        world.settled().await;
        texts.push(text);
    }
    let theirs = world.phone_of(&device).await;
    for text in &texts {
        theirs.has_text(away, text).await;
    }
    world.end().await;
}

#[tokio::test]
async fn the_newer_stream_of_a_device_stays_whatever_the_clocks_of_the_gateways_show() {
    let clock = WallClock::new();
    // The clock of the older stream's gateway is ahead by more than the time it takes to open both streams.
    clock.set(600);
    let world = World::with(|builder| clock.of(builder, &["gateway-0"])).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let device = world.device(&bob).await;
    for gateways in [[0, 1], [1, 0]] {
        let [older, newer] = gateways.map(|gateway| world.new_channel(gateway));
        let (mut older, first) = Wire::open(older, &device).await.unwrap();
        let (mut newer, second) = Wire::open(newer, &device).await.unwrap();
        let apart_ms = second.server_time_ms - first.server_time_ms;
        assert!(
            gateways == [1, 0] || apart_ms < 0,
            "the older one's clock is ahead: {apart_ms}"
        );
        let (last, _) = older.end().await;
        let Some(Event::Closing(closing)) = last else {
            panic!("not closed: {last:?}")
        };
        assert_eq!(closing.code(), CloseCode::SessionReplaced, "{gateways:?}");
        let text = format!("to {} {}", gateways[1], RequestId::random());
        let sent = hers.say(bob.id, text.as_bytes()).await;
        let entry = newer
            .until(|event| match event {
                Event::Entry(entry) if entry.seq == sent.seq => Some(entry),
                Event::Closing(closing) => panic!("{gateways:?}: {closing:?}"),
                _ => None,
            })
            .await;
        newer
            .say(wire::ack(entry.chat_id.parse().unwrap(), entry.seq))
            .await;
        hers.receipt(entry.chat_id.parse().unwrap(), bob.id, entry.seq, 0)
            .await;
    }
    world.end().await;
}
