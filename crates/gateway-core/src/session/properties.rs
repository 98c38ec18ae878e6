//! This property test puts one session between a device and chat nodes that misbehave in every allowed way: live
//! pushes, windows and wakes arrive in any order, pushes are lost, acknowledgements are late, members come and go.
//! Whatever happens, a client that takes the protocol's rules literally ends up with exactly the entries that are its
//! own, in order, and no inbox row is left.
//!
//! - [`log`]: a chat as its owners and the store have it
//! - [`device`]: the client
//! - [`world`]: the steps that may happen between them

mod device;
mod log;
mod world;

use proptest::prelude::*;
use tern_types::Timestamp;

use device::Manner;
use log::{History, chat_id};
use world::World;

use super::*;

const WINDOW: u32 = 8;
const START: Timestamp = Timestamp(1_700_000_000_000);

/// A thing that may happen. The numbers choose a chat, or one of the pushes or windows under way.
#[derive(Debug, Clone)]
enum Step {
    Commit(usize),
    /// The user is removed from the chat.
    Remove(usize),
    /// The user is added to the chat.
    Add(usize),
    /// The device sends a message to the chat.
    Write(usize),
    /// The owner answers the oldest send.
    Serve,
    /// A live push reaches the session.
    Live(usize),
    LoseLive(usize),
    Settle(usize),
    /// The session takes mail of the control stream: the oldest with 0, or else one that overtook it, since a chat has
    /// two owners while it moves.
    Control(usize),
    Window(usize),
    WindowFails(usize),
    Inbox,
    /// The inbox is read, but the part of the store that has this chat does not answer.
    InboxWithout(usize),
    InboxFails,
    /// This many events reach the device.
    Down(usize),
    /// The device acknowledges its cursor of the chat.
    Ack(usize),
    /// The oldest acknowledgement of the device reaches the session.
    Up,
    /// The oldest acknowledgement of the session reaches the owner.
    AckArrives,
    /// The device acknowledges entries that do not exist.
    NonsenseAck(usize),
    /// This many milliseconds pass.
    Pass(u64),
    Flush,
    Moved,
    AcksLost,
    Redrain,
    Announced,
    Sweep,
}

fn step(chats: usize) -> impl Strategy<Value = Step> {
    let chat = 0..chats;
    let of_a_chat = |make: fn(usize) -> Step| chat.clone().prop_map(make);
    let delivery = prop_oneof![
        8 => (0usize..3).prop_map(Step::Live),
        2 => (0usize..8).prop_map(Step::LoseLive),
        3 => of_a_chat(Step::Settle),
        6 => Just(Step::Control(0)),
        1 => (0usize..4).prop_map(Step::Control),
        6 => (0usize..4).prop_map(Step::Window),
        1 => (0usize..4).prop_map(Step::WindowFails),
        8 => (1usize..4).prop_map(Step::Down),
        6 => of_a_chat(Step::Ack),
        6 => Just(Step::Up),
        6 => Just(Step::AckArrives),
    ];
    let log = prop_oneof![
        8 => of_a_chat(Step::Commit),
        3 => of_a_chat(Step::Remove),
        4 => of_a_chat(Step::Add),
        3 => of_a_chat(Step::Write),
        4 => Just(Step::Serve),
    ];
    let faults = prop_oneof![
        2 => Just(Step::Inbox),
        1 => Just(Step::InboxFails),
        1 => of_a_chat(Step::InboxWithout),
        1 => of_a_chat(Step::NonsenseAck),
        2 => (1u64..8000).prop_map(Step::Pass),
        4 => Just(Step::Flush),
        1 => Just(Step::Moved),
        1 => Just(Step::AcksLost),
        1 => Just(Step::Redrain),
        1 => Just(Step::Announced),
        1 => Just(Step::Sweep),
    ];
    prop_oneof![6 => delivery, 2 => log, 1 => faults]
}

fn history() -> impl Strategy<Value = History> {
    let parts = (0u64..5, 0u64..20, any::<bool>());
    parts.prop_map(|(stored, missed, away)| History { stored, missed, away })
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        Just(Manner::Holds),
        Just(Manner::Drops),
        Just(Manner::DropsAndAcknowledges)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_literal_client_ends_up_with_exactly_what_is_its_own(
        histories in proptest::collection::vec(history(), 3),
        manner in manner(),
        steps in proptest::collection::vec(step(3), 0..300),
    ) {
        let mut world = World::new(&histories, manner);
        for step in steps {
            if world.session.is_opening_late(world.now) {
                world.take(Step::Inbox);
            }
            world.take(step);
        }
        world.calm_down();
        for (n, log) in world.logs.iter().enumerate() {
            let stored = &world.device[n];
            prop_assert_eq!(stored.cursor, log.last(), "chat {} is incomplete", n);
            for seq in histories[n].stored + 1..=log.head {
                prop_assert_eq!(stored.entries.contains(&seq), log.is_theirs(seq), "{} of chat {}", seq, n);
            }
            prop_assert_eq!(log.row, None, "chat {} has a row left", n);
            let chat = world.session.chat(chat_id(n));
            prop_assert!(chat.is_none_or(|chat| chat.row.is_none() && chat.catch_up.is_none()), "{:?}", chat);
        }
        prop_assert!(world.greeted > 0 && !world.greeting_owed);
        prop_assert_eq!(world.session.reader.outstanding(), 0);
    }
}

impl Session {
    /// Returns whether the session has been opening for so long that the next pause may end it.
    fn is_opening_late(&self, now: Timestamp) -> bool {
        self.life.is_opening() && now >= START + Duration::from_secs(1)
    }
}

#[test]
fn memory_is_bounded_and_nothing_is_lost_by_it() {
    let missed = History {
        missed: 2,
        ..History::default()
    };
    let mut world = World::new(&[missed; 1500], Manner::Holds);
    world.take(Step::Inbox);
    world.take(Step::Control(0));
    assert_eq!(world.session.chats.len(), settings::MAX_CHATS);
    for _ in 0..60 {
        world.calm_once();
        assert!(world.session.chats.len() <= settings::MAX_CHATS);
    }
    assert!(world.logs.iter().all(|log| log.row.is_none()), "rows are left");
    assert!(
        world.device.iter().all(|stored| stored.cursor == 2),
        "entries are missing"
    );
    assert_eq!(world.greeted, 1);
    assert_eq!(world.swept_found, 0);
}
