//! Tests of the two clocks: waiting is measured by the monotonic clock, which never goes back, and stored times come
//! from the wall clock.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

impl Shard {
    /// Returns the next job, while the wall clock shows `wall` and not the monotonic clock's time.
    fn job_at(&mut self, wall: Timestamp) -> Option<Job> {
        let mut jobs = Lane::ALL.into_iter();
        jobs.find_map(|lane| self.state.next_job(lane, self.now, wall, &mut Vec::new()))
    }
}

#[test]
fn a_wall_clock_that_is_set_back_by_an_hour_holds_up_no_settle_and_turns_no_entry_back() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.now = shard.now + 2 * SETTLE_AFTER;
    let settle = shard.job_at(START - HOUR);
    let Some(Job::Settle(settle)) = settle else {
        panic!("no settle: {settle:?}")
    };
    let chats = settle.iter().map(|settle| (settle.chat, settle.upto)).collect();
    shard.tell(settle_done(chats, HashMap::new()));
    shard.send();
    let Some(Job::Commit(batches)) = shard.job_at(START - HOUR) else {
        panic!("nothing is committed")
    };
    assert_eq!(
        batches[0].entries[0].sent_at, START,
        "never before the entry below"
    );
}

#[test]
fn a_wall_clock_that_is_set_forward_by_an_hour_settles_nothing_early() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    let job = shard.job_at(START + HOUR);
    assert!(job.is_none(), "{job:?}");
}
