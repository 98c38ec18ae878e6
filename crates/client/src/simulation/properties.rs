//! Properties of the engine against the simulated server, over random sequences of events.

use std::time::Duration;

use proptest::prelude::*;

use tern_client_core::testing::credentials;

use super::World;
use super::acts::Deed;

/// A random event in the [`World`].
#[derive(Debug, Clone)]
enum Act {
    OtherWrites {
        chat: usize,
        lost: bool,
    },
    DeviceWrites(usize),
    Deliver {
        chat: usize,
        repeat: bool,
    },
    Serve {
        unavailable: bool,
        lose_result: bool,
    },
    Resend(usize),
    Answer {
        fails: bool,
    },
    Pass(u64),
    LoseStream,
    Crash,
    OtherActs {
        chat: usize,
        deed: Deed,
        target: usize,
        lost: bool,
    },
    DeviceActs {
        chat: usize,
        deed: Deed,
        target: usize,
    },
    ReadHistory(usize),
    StoreHistory,
    OtherWritesBriefly {
        chat: usize,
        after_s: u32,
        lost: bool,
    },
    Hide {
        chat: usize,
        target: usize,
        lost: bool,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0usize..3, any::<bool>()).prop_map(|(chat, lost)| Act::OtherWrites { chat, lost }),
        6 => (0usize..3).prop_map(Act::DeviceWrites),
        12 => (0usize..3, any::<bool>()).prop_map(|(chat, repeat)| Act::Deliver { chat, repeat }),
        12 => (prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(unavailable, lose_result)| Act::Serve { unavailable, lose_result }),
        2 => (0usize..3).prop_map(Act::Resend),
        4 => any::<bool>().prop_map(|fails| Act::Answer { fails }),
        3 => (0u64..40_000).prop_map(Act::Pass),
        1 => Just(Act::LoseStream),
        1 => Just(Act::Crash),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        2 => Just(Deed::Edit),
        2 => Just(Deed::Delete),
        3 => any::<bool>().prop_map(|take_back| Deed::React { take_back }),
        1 => any::<bool>().prop_map(|take_back| Deed::Pin { take_back }),
    ]
}

/// Returns an event as [`act`] does, or one in which something is done to an earlier message, or a message is to vanish.
fn act_or_deed() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => act(),
        2 => (0usize..3, deed(), any::<usize>(), any::<bool>())
            .prop_map(|(chat, deed, target, lost)| Act::OtherActs { chat, deed, target, lost }),
        2 => (0usize..3, deed(), any::<usize>())
            .prop_map(|(chat, deed, target)| Act::DeviceActs { chat, deed, target }),
        1 => (0usize..3).prop_map(Act::ReadHistory),
        1 => Just(Act::StoreHistory),
        2 => (0usize..3, 1u32..40, any::<bool>())
            .prop_map(|(chat, after_s, lost)| Act::OtherWritesBriefly { chat, after_s, lost }),
        1 => (0usize..3, any::<usize>(), any::<bool>())
            .prop_map(|(chat, target, lost)| Act::Hide { chat, target, lost }),
    ]
}

fn play(world: &mut World, acts: &[Act]) {
    for act in acts {
        match act.clone() {
            Act::OtherWrites { chat, lost } => world.other_writes(world.chat(chat), lost),
            Act::DeviceWrites(chat) => world.device_writes(world.chat(chat)),
            Act::Deliver { chat, repeat } => world.deliver(world.chat(chat), repeat),
            Act::Serve {
                unavailable,
                lose_result,
            } => world.serve(unavailable, lose_result),
            Act::Resend(chat) => world.resend(world.chat(chat)),
            Act::Answer { fails } => world.answer(fails),
            Act::Pass(millis) => world.pass(Duration::from_millis(millis)),
            Act::LoseStream => world.lose_stream(),
            Act::Crash => world.crash(),
            Act::OtherActs {
                chat,
                deed,
                target,
                lost,
            } => world.other_acts(world.chat(chat), deed, target, lost),
            Act::DeviceActs { chat, deed, target } => world.device_acts(world.chat(chat), deed, target),
            Act::ReadHistory(chat) => world.read_history(world.chat(chat)),
            Act::StoreHistory => world.store_history(),
            Act::OtherWritesBriefly { chat, after_s, lost } => {
                world.other_writes_briefly(world.chat(chat), after_s, lost);
            }
            Act::Hide { chat, target, lost } => world.hide(world.chat(chat), target, lost),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn everything_is_applied_once_in_order_and_nothing_is_lost(acts in prop::collection::vec(act(), 0..150)) {
        let mut world = World::new(&[0, 0, 7]);
        play(&mut world, &acts);
        world.settle();
        world.check();
        world.check_sends();
    }

    #[test]
    fn messages_are_what_the_log_makes_of_them_and_nothing_is_left_of_the_deleted(
        acts in prop::collection::vec(act_or_deed(), 0..150),
    ) {
        let mut world = World::new(&[0, 3, 7]);
        play(&mut world, &acts);
        world.settle();
        world.check_messages();
    }

    #[test]
    fn after_a_restored_backup_the_device_has_what_the_server_has_and_own_messages_are_back(
        before in prop::collection::vec(act(), 0..80), lost in 0usize..10, after in prop::collection::vec(act(), 0..40),
    ) {
        let mut world = World::new(&[0, 0, 0]);
        play(&mut world, &before);
        world.settle();
        world.restore_backup(lost);
        play(&mut world, &after);
        world.settle();
        let device = Some(credentials().device);
        for (chat, log) in &world.logs {
            let mut logged: Vec<_> = log.entries.iter().filter(|e| e.device == device).filter_map(|e| e.request).collect();
            let mut written: Vec<_> = world.written.iter().filter(|(to, _)| to == chat).map(|(_, id)| *id).collect();
            logged.sort();
            written.sort();
            prop_assert_eq!(logged, written);
        }
    }
}
