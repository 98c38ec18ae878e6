//! Measures how events are grouped by gateway and session: messages between two people, and one to a large group.

use std::hint::black_box;

use bytes::Bytes;
use tern_chat::fanout::{Outgoing, group};
use tern_chat::gateways::Kind;
use tern_chat::lookup::Found;
use tern_counts::Operation;
use tern_types::{ChatId, DeviceId, Seq, SessionId, UserId};
use uuid::Uuid;

const GATEWAYS: u64 = 4;
/// The number of events of one look-up under load.
const EVENTS: u64 = 256;
const MEMBERS: u64 = 200;

fn main() {
    tern_counts::run(vec![
        grouping("fan_out_1_to_a_person", 1, 2),
        grouping("fan_out_256_to_a_person", EVENTS, 2),
        grouping("fan_out_1_to_200", 1, MEMBERS),
    ]);
}

/// Groups events, each for `people` other users, each of whom has one session. One item is one event for one session.
fn grouping(name: &'static str, events: u64, people: u64) -> Operation {
    let sessions: Vec<Found> = (0..events * people).map(session).collect();
    let outgoing: Vec<Outgoing> = (0..events).map(|event| message(event, people)).collect();
    Operation::new(name, events * people, move || {
        group(
            black_box(&sessions),
            black_box(outgoing.clone()),
            |gateway, kind, push| {
                black_box((gateway, kind, push));
            },
        );
    })
}

fn session(number: u64) -> Found {
    Found {
        user: UserId(Uuid::from_u128(number.into())),
        device: DeviceId(Uuid::from_u128(number.into())),
        gateway: format!("gateway-{}", number % GATEWAYS).into(),
        session: SessionId(number),
    }
}

fn message(event: u64, people: u64) -> Outgoing {
    let users = event * people..(event + 1) * people;
    Outgoing {
        chat: ChatId(Uuid::from_u128(event.into())),
        kind: Kind::Entry(Seq(1)),
        users: users.map(|user| UserId(Uuid::from_u128(user.into()))).collect(),
        except: vec![SessionId(event * people)],
        event: Bytes::from_static(&[7; 300]),
        span: None,
    }
}
