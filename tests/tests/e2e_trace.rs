//! A message that its sender traces is one trace across the nodes. Other messages leave no span.

#![allow(clippy::unwrap_used, reason = "tests")]

use tern_local::http;
use tern_proto::v1::{Envelope, SendMessage, client_item::Item, send_message};
use tern_tests::collector::{Collector, Span};
use tern_tests::wire::{self, Wire};
use tern_tests::world::BOUND;
use tern_tests::{Phone, World};
use tern_types::{ChatId, RequestId, TraceContext, UserId};

async fn world(collector: &Collector, share: &str) -> World {
    World::with(|builder| {
        builder
            .env("TERN_OTLP_ENDPOINT", collector.url())
            .env("TERN_OTLP_SAMPLE", share)
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
    })
    .await
}

/// Returns the trace context of the client's own span.
fn client(number: u8, sampled: bool) -> TraceContext {
    TraceContext {
        trace_id: [number; 16],
        span_id: [number; 8],
        sampled,
    }
}

fn traced(peer: UserId, traceparent: &str) -> Item {
    Item::Send(SendMessage {
        request_id: RequestId::random().to_string(),
        to: Some(send_message::To::PeerUserId(peer.to_string())),
        envelope: Envelope {
            traceparent: traceparent.to_owned(),
            ..wire::plain()
        }
        .encoded(),
        body: "hello".into(),
    })
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut named = spans.iter().filter(|span| span.name == name);
    let first = named.next().unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
    assert!(named.next().is_none(), "two of {name}: {spans:#?}");
    first
}

/// Checks that a bucket of the histogram names the trace as its exemplar.
async fn a_bucket_names(world: &World, owner: &str, trace: [u8; 16]) {
    let node = world.platform.node(owner).unwrap();
    let accept = "application/openmetrics-text; version=1.0.0";
    let (_, page) = http::get_as(node.admin, "/metrics", accept).await.unwrap();
    let exemplar = format!("# {{trace_id=\"{:032x}\"}}", u128::from_be_bytes(trace));
    let named: Vec<&str> = page.lines().filter(|line| line.contains(&exemplar)).collect();
    assert_eq!(named.len(), 1, "{page}");
    assert!(
        named[0].starts_with("tern_chat_send_seconds_bucket{"),
        "{}",
        named[0]
    );
    assert!(page.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_sampled_message_is_one_trace_from_gateway_to_gateway_and_no_other_leaves_a_span() {
    let collector = Collector::start().await;
    let world = world(&collector, "0").await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let his = Phone::new(&world, &world.device(&bob).await);
    his.connect_at(1).await;
    let device = world.device(&alice).await;
    let (mut hers, _) = Wire::open(world.new_channel(0), &device).await.unwrap();

    let (kept, dropped) = (client(0xa1, true), client(0xa2, false));
    let chat = ChatId::direct(alice.id, bob.id);
    for traceparent in ["", "garbage", &dropped.to_string(), &kept.to_string()] {
        let sent = hers.send(traced(bob.id, traceparent)).await;
        assert_eq!(sent.chat_id, chat.to_string());
    }
    his.has(chat, 4).await;

    let spans = collector
        .until(kept.trace_id, &["send", "commit", "fanout", "deliver", "settle"])
        .await;
    // A settle is made again if a look-up or a wake was not answered in time, and each has a span.
    let (settles, spans): (Vec<Span>, Vec<Span>) = spans.into_iter().partition(|span| span.name == "settle");
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let owner = world.owner_of(chat).await;
    let send = one(&spans, "send");
    assert_eq!(
        (send.node.as_str(), &send.parent_id[..]),
        ("gateway-0", &kept.span_id[..])
    );
    assert_eq!((send.fields["seq"], send.fields["bytes"]), (4, 5));
    let commit = one(&spans, "commit");
    assert_eq!((&commit.node, &commit.parent_id), (&owner, &send.span_id));
    assert_eq!((commit.fields["seq"], commit.fields["batch.entries"]), (4, 1));
    let fanout = one(&spans, "fanout");
    assert_eq!((&fanout.node, &fanout.parent_id), (&owner, &commit.span_id));
    assert_eq!((fanout.fields["gateways"], fanout.fields["sessions"]), (1, 1));
    let deliver = one(&spans, "deliver");
    assert_eq!(
        (deliver.node.as_str(), &deliver.parent_id),
        ("gateway-1", &fanout.span_id)
    );
    for settle in &settles {
        assert_eq!((&settle.node, &settle.parent_id), (&owner, &send.span_id));
    }
    let settle = settles
        .iter()
        .find(|settle| settle.fields.contains_key("missing"));
    let settle = settle.unwrap_or_else(|| panic!("{settles:#?}"));
    // Her device acknowledges nothing in this test, so it gets an inbox row. His may get one too, if his
    // acknowledgement takes more than half a second.
    assert!((1..=2).contains(&settle.fields["missing"]), "{settle:?}");

    a_bucket_names(&world, &owner, kept.trace_id).await;

    // The other messages were sent earlier, and each node exports in order, so their spans would have come by now.
    let others = collector.spans(|span| span.trace_id != kept.trace_id);
    assert!(others.is_empty(), "{others:#?}");
    world.end().await;
}

#[tokio::test]
async fn a_gateway_draws_messages_of_clients_that_do_not_trace_and_back_ends_trace_by_metadata() {
    let collector = Collector::start().await;
    let world = world(&collector, "1").await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let drawn = hers.say(bob.id, "hello").await;
    let chat: ChatId = drawn.chat_id.parse().unwrap();
    his.has(chat, drawn.seq).await;
    let root = tern_local::until::some("the message's root", BOUND, || async {
        let root = collector.spans(|span| span.name == "send").pop();
        root.ok_or_else(|| anyhow::anyhow!("none"))
    });
    let root = root.await.unwrap();
    assert!(root.parent_id.is_empty(), "{root:?}");
    let spans = collector
        .until(root.trace_id.clone().try_into().unwrap(), &["send", "commit"])
        .await;
    assert_eq!(one(&spans, "commit").parent_id, root.span_id);

    let mut request = tonic::Request::new(tern_proto::v1::SendMessageRequest {
        peer_user_id: bob.id.to_string(),
        request_id: RequestId::random().to_string(),
        acting_user_id: alice.id.to_string(),
        body: "from the back end".into(),
        ..Default::default()
    });
    let caller = client(0xb1, true);
    let traceparent = caller.to_string().parse().unwrap();
    request.metadata_mut().insert("traceparent", traceparent);
    world
        .back_end()
        .await
        .chats()
        .send_message(request)
        .await
        .unwrap();
    let spans = collector
        .until(caller.trace_id, &["call", "commit", "fanout"])
        .await;
    let commit = one(&spans, "commit");
    let call = spans.iter().find(|span| span.span_id == commit.parent_id);
    assert_eq!(
        call.map(|call| (call.name.as_str(), &call.node)),
        Some(("call", &commit.node))
    );
    assert_eq!(one(&spans, "fanout").parent_id, commit.span_id);
    world.end().await;
}
