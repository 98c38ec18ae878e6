//! Tests of the standing of connections, of which ones are overdue, and of which ones are ended to make room.

use super::*;

/// The bounds of the table in these tests, in seconds.
const FIRST: u64 = 10;
const IDLE: u64 = 600;
const CALL: u64 = 300;

fn table(connections: usize, strangers_of_address: Option<usize>) -> Table<u64> {
    Table::new(Bounds {
        connections,
        strangers_of_address,
        first_request: Duration::from_secs(FIRST),
        idle: Duration::from_secs(IDLE),
        call: Duration::from_secs(CALL),
    })
}

fn address(last: u8) -> ClientAddress {
    ClientAddress::new([192, 0, 2, last].into())
}

fn come(table: &mut Table<u64>, id: u64, now: Millis) -> Admission<u64> {
    table.came(id, id, address(1), now)
}

/// Returns the ids of the connections that are asked to leave, and of those that are cut, at second `now`.
fn look(table: &mut Table<u64>, now: u64) -> (Vec<u64>, Vec<u64>) {
    let Overdue { leave, cut } = table.look(now * 1000);
    let ids = |found: Vec<(u64, Why)>| found.into_iter().map(|(id, _)| id).collect();
    (ids(leave), ids(cut))
}

#[test]
fn who_says_nothing_is_asked_to_leave_then_cut() {
    let mut table = table(9, None);
    come(&mut table, 1, 0);
    come(&mut table, 2, 3000);
    assert_eq!(look(&mut table, FIRST - 1), (vec![], vec![]));
    assert_eq!(look(&mut table, FIRST), (vec![1], vec![]));
    assert_eq!(look(&mut table, FIRST + 3), (vec![2], vec![]));
    assert_eq!(look(&mut table, FIRST + 5), (vec![], vec![1]));
    table.gone(1);
    table.gone(2);
    assert_eq!((table.rows.len(), look(&mut table, 9999)), (0, (vec![], vec![])));
    assert!(table.order.is_empty());
}

#[test]
fn who_is_known_may_be_idle_for_long_and_a_stranger_may_not_after_a_call_either() {
    let mut table = table(9, None);
    for id in [1, 2] {
        come(&mut table, id, 0);
        let call = table.call_began(id, true, 1000);
        if id == 2 {
            table.known(id, 1000);
        }
        table.call_ended(id, call, 2000);
    }
    assert_eq!(look(&mut table, 2 + FIRST), (vec![1], vec![]));
    assert_eq!(look(&mut table, 1 + IDLE), (vec![], vec![1]));
    assert_eq!(look(&mut table, 2 + IDLE), (vec![2], vec![]));
    // A call that was on its way when the connection was asked to leave is answered, and the time to leave begins
    // anew.
    let call = table.call_began(2, true, (3 + IDLE) * 1000);
    assert_eq!(look(&mut table, 8 + IDLE), (vec![], vec![]));
    table.call_ended(2, call, (9 + IDLE) * 1000);
    assert_eq!(look(&mut table, 13 + IDLE), (vec![], vec![]));
    assert_eq!(look(&mut table, 14 + IDLE), (vec![], vec![2]));
}

#[test]
fn a_call_whose_answer_is_not_taken_ends_its_connection_later_where_others_share_it() {
    let mut table = table(9, None);
    for id in [1, 2, 3] {
        come(&mut table, id, 0);
        table.call_began(id, true, 0);
    }
    table.stream_began(2, 0);
    let stream = table.call_began(3, false, 0);
    assert_eq!(look(&mut table, CALL - 1), (vec![], vec![]));
    assert_eq!(look(&mut table, CALL), (vec![], vec![1]));
    table.call_ended(3, stream, 0);
    assert_eq!(look(&mut table, 10 * CALL - 1), (vec![], vec![]));
    assert_eq!(look(&mut table, 10 * CALL), (vec![], vec![2, 3]));
}

#[test]
fn a_stream_of_the_protos_has_no_bound_here() {
    let mut table = table(9, None);
    come(&mut table, 1, 0);
    table.call_began(1, false, 0);
    assert_eq!(look(&mut table, 100 * CALL), (vec![], vec![]));
}

#[test]
fn strangers_go_first_the_idle_before_the_busy_and_streams_never() {
    let mut table = table(6, None);
    let second = |now| now * 1000;
    for id in 1..=6 {
        assert_eq!(come(&mut table, id, second(id)), Admission::In(None));
    }
    table.stream_began(1, second(6));
    table.call_began(2, true, second(6));
    table.call_began(3, true, second(6));
    table.known(3, second(6));
    let call = table.call_began(4, true, second(6));
    table.known(4, second(6));
    table.call_ended(4, call, second(6));
    let mut went = Vec::new();
    for id in 7..=14 {
        match come(&mut table, id, second(id + 10)) {
            Admission::In(Some(instead)) => {
                table.gone(instead);
                went.push(instead);
            }
            Admission::In(None) => panic!("{id} fits"),
            Admission::Full => went.push(0),
        }
        // Each new client authenticates at once.
        table.stream_began(id, second(id + 10));
    }
    assert_eq!(went, [5, 6, 2, 4, 3, 0, 0, 0]);
    table.stream_ended(1, second(30));
    assert_eq!(come(&mut table, 20, second(31)), Admission::In(Some(1)));
}

#[test]
fn one_address_pushes_out_its_own_strangers_only() {
    let mut table = table(9, Some(2));
    let mut come = |id, last| table.came(id, id, address(last), id);
    assert_eq!(come(1, 1), Admission::In(None));
    assert_eq!(come(2, 2), Admission::In(None));
    assert_eq!(come(3, 2), Admission::In(None));
    assert_eq!(come(4, 2), Admission::In(Some(2)));
    table.stream_began(3, 5);
    assert_eq!(table.came(5, 5, address(2), 5), Admission::In(None));
    for id in 1..=5 {
        table.gone(id);
    }
    assert!(table.addresses.is_empty() && table.order.is_empty() && table.rows.is_empty());
    assert_eq!(table.dying, 0);
}

#[test]
fn those_that_were_cut_count_until_they_are_gone() {
    let mut table = table(1, None);
    come(&mut table, 0, 0);
    for id in 1..=DYING as u64 {
        assert!(!table.is_behind());
        assert_eq!(come(&mut table, id, id), Admission::In(Some(id - 1)));
    }
    assert!(table.is_behind());
    table.gone(0);
    assert!(!table.is_behind());
    assert_eq!(table.make_room(99), Some(DYING as u64));
    assert_eq!(table.make_room(99), None);
}

/// A client that fills a gateway with known, idle connections cannot make new clients push out each other.
#[test]
fn a_stranger_who_has_just_come_is_spared_before_the_idle() {
    let mut table = table(2, None);
    for id in [1, 2] {
        come(&mut table, id, 0);
        table.known(id, 0);
    }
    let went = [3, 4].map(|id| come(&mut table, id, 10_000 + id));
    assert_eq!(went, [Admission::In(Some(1)), Admission::In(Some(2))]);
    assert_eq!(come(&mut table, 5, 10_006), Admission::In(Some(3)), "nobody else");
}
