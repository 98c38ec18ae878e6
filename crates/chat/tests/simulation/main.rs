//! Two nodes that may both own the chat, devices that come and go, crashes, lost pushes, lost answers, late statements:
//! the shard's own state machine against a store in memory, in random orders.
//!
//! Whatever happened, once everything is quiet again: every acknowledged message is in the log, once, in one order
//! without gaps (rules 1, 2, 5); every device has everything (rules 3 and 4); nothing is left owed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod memory;
mod world;

use proptest::prelude::*;

use world::{Step, World};

fn step() -> impl Strategy<Value = Step> {
    let node = 0..2usize;
    let device = 0..world::DEVICES;
    prop_oneof![
        6 => (node.clone(), device.clone()).prop_map(|(node, device)| Step::Send { node, device }),
        2 => (node.clone(), any::<prop::sample::Index>()).prop_map(|(node, which)| Step::SendAgain { node, which }),
        8 => node.clone().prop_map(|node| Step::TakeJob { node }),
        8 => node.clone().prop_map(|node| Step::RunJob { node }),
        8 => node.clone().prop_map(|node| Step::FinishJob { node }),
        6 => node.clone().prop_map(|node| Step::FinishLoad { node }),
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
