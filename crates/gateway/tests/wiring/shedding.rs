//! A gateway whose chat nodes say that they are overloaded.

use tern_cluster::shedding::Level;
use tern_proto::v1::CloseCode;
use tern_proto::v1::server_event::Event;
use tern_types::DeviceId;

use crate::support::items::{open, people};
use crate::support::{Phone, World, soon};

#[tokio::test]
async fn while_a_chat_node_is_at_the_highest_level_new_streams_are_refused_and_open_ones_go_on() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    let mut level = world.ctx.shedding.follow();

    world.shed(Level::Streams.to_wire()).await;
    soon(level.wait_for(|level| *level == Level::Streams))
        .await
        .unwrap();
    let mut refused = Phone::connect(world.channel().await).await;
    refused.say(open(world.token(user, DeviceId::random()))).await;
    let Event::Closing(closing) = refused.event().await else {
        panic!("not refused")
    };
    assert_eq!(
        (closing.code(), closing.may_reconnect),
        (CloseCode::Unavailable, true)
    );
    assert!((10_000..20_000).contains(&closing.retry_after_ms), "{closing:?}");
    assert_eq!(
        *world.ctx.shedding.own().borrow(),
        Level::Nothing,
        "heard, not measured"
    );

    world.break_link();
    soon(level.wait_for(|level| *level == Level::Nothing))
        .await
        .unwrap();
    world.open(user, DeviceId::random()).await;
}
