//! Simulation of a chat: the shard's own state machine against a store in memory, with steps in random order. Two
//! nodes may both own the chat, devices come and go and are linked, members are added, removed and leave; there are
//! crashes, lost pushes, lost answers, late statements, and a store that is away.
//!
//! Members also edit, delete, react to and pin any entry, and take that back, whether they may or not.
//!
//! After each step, nobody may have got an entry of a time when they were no member (rule 7), and an entry that was
//! acknowledged to its sender must be in the log (rule 1), which has no gaps (rule 2). Nothing may be done to a message
//! that was deleted before, by somebody who may not, too late or too often. Who is refused for such a reason must not
//! have been allowed to.
//!
//! Once everything is quiet again, every request must have at most one effect (rule 5), every device must have
//! everything that it is entitled to, in order (rules 3 and 4), and nothing may be owed any more.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, reason = "the simulated world draws ids")]

mod memory;
mod world;

use proptest::prelude::*;

use tern_chat_core::EntryKind;
use tern_chat_core::shard::Lane;
use world::{Member, Step, World};

fn step() -> impl Strategy<Value = Step> {
    let node = 0..2usize;
    let device = any::<prop::sample::Index>();
    let lane = prop::sample::select(Lane::ALL.to_vec());
    let at = (node.clone(), lane.clone());
    let member = prop_oneof![Just(Member::Bob), Just(Member::Carol)];
    let kinds = vec![
        EntryKind::Edit,
        EntryKind::Delete,
        EntryKind::Reaction,
        EntryKind::Pin,
    ];
    let kind = prop::sample::select(kinds);
    prop_oneof![
        6 => (node.clone(), device.clone()).prop_map(|(node, device)| Step::Send { node, device }),
        4 => (node.clone(), device.clone(), kind, any::<prop::sample::Index>(), any::<bool>()).prop_map(
            |(node, device, kind, target, take_back)| Step::Do { node, device, kind, target, take_back }
        ),
        2 => (node.clone(), any::<prop::sample::Index>()).prop_map(|(node, which)| Step::AskAgain { node, which }),
        2 => (node.clone(), member.clone()).prop_map(|(node, member)| Step::Add { node, member }),
        1 => (node.clone(), member.clone()).prop_map(|(node, member)| Step::Remove { node, member }),
        1 => (node.clone(), member.clone()).prop_map(|(node, member)| Step::Leave { node, member }),
        1 => member.prop_map(|member| Step::Link { member }),
        12 => at.clone().prop_map(|(node, lane)| Step::TakeJob { node, lane }),
        12 => at.clone().prop_map(|(node, lane)| Step::RunJob { node, lane }),
        1 => (at.clone(), any::<bool>()).prop_map(|((node, lane), landed)| Step::JobAway { node, lane, landed }),
        1 => at.clone().prop_map(|(node, lane)| Step::JobLocked { node, lane }),
        12 => at.prop_map(|(node, lane)| Step::FinishJob { node, lane }),
        3 => node.clone().prop_map(|node| Step::ReadLoads { node }),
        6 => node.clone().prop_map(|node| Step::FinishLoad { node }),
        1 => node.clone().prop_map(|node| Step::LoadAway { node }),
        5 => (node.clone(), any::<bool>()).prop_map(|(node, lost)| Step::Push { node, lost }),
        5 => (node.clone(), any::<bool>()).prop_map(|(node, fails)| Step::Wake { node, fails }),
        6 => (node.clone(), device.clone()).prop_map(|(node, device)| Step::Ack { node, device }),
        3 => (0..800u64).prop_map(|ms| Step::Time { ms }),
        1 => node.clone().prop_map(|node| Step::Crash { node }),
        2 => node.prop_map(|node| Step::Recover { node }),
        2 => device.clone().prop_map(|device| Step::Disconnect { device }),
        2 => device.prop_map(|device| Step::Connect { device }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_acknowledged_message_is_lost_doubled_or_out_of_order(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new();
        for step in steps {
            world.step(&step);
            world.check_always();
        }
        world.become_quiet();
        world.check_quiet();
    }
}
