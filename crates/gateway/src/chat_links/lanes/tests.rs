//! Tests items that go over two links: to the slot's old owner, and to its new one.

use tern_proto::internal::{AckOp, ReadOp, SendOp};

use super::super::link::Queues;
use super::super::pending::Waiting;
use super::*;

fn slot() -> Slot {
    Slot::all().next().expect("a slot")
}

fn link(generation: u64) -> (Arc<Link>, Queues) {
    let (link, queues) = Link::new("node".into(), 1, generation);
    (Arc::new(link), queues)
}

fn send(reference: u64) -> UpItem {
    UpItem {
        r#ref: reference,
        op: Some(up_item::Op::Send(SendOp::default())),
        ..Default::default()
    }
}

fn route(lanes: &Lanes, reference: u64, link: &Arc<Link>) {
    let routed = lanes.route(slot(), send(reference), 1, || Some(link.clone()));
    routed.expect("taken");
}

/// Lets the node refuse the item, by a map of `version`.
fn back(lanes: &Lanes, link: &Link, reference: u64, version: i64) -> Result<(), Box<UpItem>> {
    let Some(Waiting::Item { place, item }) = link.answered(reference) else {
        panic!("{reference} is not there")
    };
    lanes.park(place, *item, version)
}

fn answer(lanes: &Lanes, link: &Link, reference: u64) {
    if let Some(Waiting::Item { place, item }) = link.answered(reference) {
        lanes.answered(place, &item);
    }
}

fn got(queues: &mut Queues) -> Vec<u64> {
    std::iter::from_fn(|| queues.control.try_recv().ok())
        .map(|item| item.r#ref)
        .collect()
}

async fn retry(lanes: &Lanes, version: i64, link: &Arc<Link>) -> Vec<u64> {
    tokio::time::advance(PAUSE).await;
    let failed = lanes.retry(version, |_| Some(link.clone()));
    failed.iter().map(|item| item.r#ref).collect()
}

fn is_empty(lanes: &Lanes) -> bool {
    (0..TABLES).all(|table| lanes.lock(table).is_empty())
        && lanes.parked.load(Ordering::Acquire) == 0
        && lanes.parked_bytes.load(Ordering::Acquire) == 0
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_waits_for_the_map_and_later_items_behind_it() {
    let lanes = Lanes::default();
    let ((old, mut to_old), (new, mut to_new)) = (link(1), link(2));
    route(&lanes, 1, &old);
    back(&lanes, &old, 1, 7).expect("parked");
    route(&lanes, 2, &old);
    assert_eq!(got(&mut to_old), [1]);
    assert_eq!(retry(&lanes, 6, &new).await, [] as [u64; 0]);
    assert_eq!(got(&mut to_new), [] as [u64; 0]);
    assert_eq!(retry(&lanes, 7, &new).await, [] as [u64; 0]);
    assert_eq!(got(&mut to_new), [1, 2]);
    for reference in [1, 2] {
        answer(&lanes, &new, reference);
    }
    assert!(is_empty(&lanes));
}

#[tokio::test(start_paused = true)]
async fn a_send_does_not_overtake_earlier_ones_at_the_slots_old_owner() {
    let lanes = Lanes::default();
    let ((old, mut to_old), (new, mut to_new)) = (link(1), link(2));
    for reference in [1, 2, 3] {
        route(&lanes, reference, &old);
    }
    // The map changes. The old owner has committed 1 and refuses 2 and 3, one after the other.
    route(&lanes, 4, &new);
    assert_eq!((got(&mut to_old), got(&mut to_new)), (vec![1, 2, 3], vec![]));
    answer(&lanes, &old, 1);
    back(&lanes, &old, 2, 1).expect("parked");
    assert_eq!(retry(&lanes, 1, &new).await, [] as [u64; 0]);
    assert_eq!(got(&mut to_new), [2], "3 is at the old owner still");
    route(&lanes, 5, &new);
    back(&lanes, &old, 3, 1).expect("parked");
    assert_eq!(retry(&lanes, 1, &new).await, [] as [u64; 0]);
    assert_eq!(got(&mut to_new), [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let lanes = Lanes::default();
    let ((old, _to_old), (new, mut to_new)) = (link(1), link(2));
    route(&lanes, 1, &old);
    route(&lanes, 2, &new);
    tokio::time::advance(PATIENCE).await;
    assert_eq!(retry(&lanes, 1, &new).await, [2]);
    assert_eq!(got(&mut to_new), [] as [u64; 0]);
    for _ in 0..MAX_TRIES {
        back(&lanes, &old, 1, 1).expect("parked");
        tokio::time::advance(PAUSE * MAX_TRIES).await;
        assert_eq!(retry(&lanes, 1, &old).await, [] as [u64; 0]);
    }
    assert!(back(&lanes, &old, 1, 1).is_err());
    assert!(is_empty(&lanes));
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_of_a_session_that_is_gone_are_parked_no_more() {
    let lanes = Lanes::default();
    let (old, _to_old) = link(1);
    route(&lanes, 1, &old);
    back(&lanes, &old, 1, 7).expect("parked");
    park_behind(&lanes, &old, up_item::Op::Ack(AckOp::default()));
    assert_eq!(lanes.parked.load(Ordering::Acquire), 2);
    lanes.forget_acks(SessionId(5));
    assert_eq!(lanes.parked.load(Ordering::Acquire), 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_mark_goes_on_after_its_session_has_ended() {
    let lanes = Lanes::default();
    let (old, _to_old) = link(1);
    route(&lanes, 1, &old);
    back(&lanes, &old, 1, 7).expect("parked");
    park_behind(&lanes, &old, up_item::Op::Read(ReadOp::default()));
    lanes.forget_acks(SessionId(5));
    assert_eq!(lanes.parked.load(Ordering::Acquire), 2);
}

/// Parks an item of session 5 behind what is parked already.
fn park_behind(lanes: &Lanes, link: &Arc<Link>, op: up_item::Op) {
    let item = UpItem {
        session: 5,
        op: Some(op),
        ..UpItem::default()
    };
    let routed = lanes.route(slot(), item, 1, || Some(link.clone()));
    assert_eq!(routed, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_is_bounded_by_its_bytes_too() {
    let lanes = Lanes::default();
    let ((old, _to_old), (new, _to_new)) = (link(1), link(2));
    route(&lanes, 0, &old);
    let large = |reference| {
        let body = vec![0; 256 << 10].into();
        let op = SendOp {
            body,
            ..Default::default()
        };
        UpItem {
            op: Some(up_item::Op::Send(op)),
            ..send(reference)
        }
    };
    let parked = (1..1000)
        .take_while(|number| {
            lanes
                .route(slot(), large(*number), 1, || Some(new.clone()))
                .is_ok()
        })
        .count();
    assert!((200..256).contains(&parked), "{parked}");
}
