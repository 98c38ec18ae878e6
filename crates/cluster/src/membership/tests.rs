use super::*;

fn node(name: &str) -> Node {
    Node {
        name: name.to_owned(),
        address: format!("{name}:1"),
        admin: String::new(),
        incarnation: 1,
        ..Node::default()
    }
}

fn members(count: usize, now: Instant) -> Membership {
    let mut membership = Membership::default();
    let names: Vec<String> = (0..count).map(|index| format!("chat-{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    membership.list(listed(1, 1, &names), now);
    membership
}

fn listed(revision: i64, changed: i64, names: &[&str]) -> Listed {
    let nodes = names.iter().map(|name| (Role::Chat, node(name)));
    Listed {
        revision,
        changed,
        nodes: nodes.collect(),
        ..Listed::default()
    }
}

fn delete(name: &str) -> Change {
    Change::Delete((Role::Chat, name.to_owned()))
}

fn names(membership: &Membership) -> Vec<String> {
    membership
        .map()
        .nodes(Role::Chat)
        .iter()
        .map(|node| node.name.clone())
        .collect()
}

#[test]
fn one_of_two_that_crashes_goes_at_once() {
    let now = Instant::now();
    let mut membership = members(2, now);
    membership.change(2, [delete("chat-0")], now);
    assert_eq!(names(&membership), ["chat-1"]);
    assert_eq!(membership.map().version(), 2);
}

#[test]
fn of_ten_that_vanish_seven_stay_for_one_lease() {
    let now = Instant::now();
    let mut membership = members(10, now);
    for index in 0..10 {
        membership.change(2 + index, [delete(&format!("chat-{index}"))], now);
    }
    assert_eq!((names(&membership).len(), membership.held()), (7, 7));
    assert_eq!(membership.next_expiry(), Some(now + LEASE));
    membership.expire(now + LEASE - Duration::from_millis(1));
    assert_eq!(names(&membership).len(), 7);
    membership.expire(now + LEASE);
    assert_eq!((names(&membership).len(), membership.held()), (0, 0));
}

#[test]
fn what_vanishes_one_by_one_over_leases_is_not_held() {
    let mut now = Instant::now();
    let mut membership = members(4, now);
    for index in 0..4 {
        membership.change(2 + index, [delete(&format!("chat-{index}"))], now);
        now += LEASE;
    }
    assert!(names(&membership).is_empty());
}

#[test]
fn a_drained_node_goes_at_once_however_many_go() {
    let now = Instant::now();
    let mut membership = members(3, now);
    let drain = |name| {
        Change::Put(
            Role::Chat,
            Node {
                draining: true,
                ..node(name)
            },
        )
    };
    let all = ["chat-0", "chat-1", "chat-2"];
    membership.change(2, all.map(drain), now);
    membership.change(3, all.map(delete), now);
    assert!(names(&membership).is_empty());
}

/// Two of three chat nodes are killed. If nobody had found them dead, one of the two would be held, and its chats
/// would stand still for one more lease.
#[test]
fn nodes_that_were_found_dead_go_at_once_however_many_they_are() {
    let now = Instant::now();
    let mut membership = members(3, now);
    let gone = |name| {
        Change::Put(
            Role::Chat,
            Node {
                gone: true,
                ..node(name)
            },
        )
    };
    membership.change(2, ["chat-0", "chat-1"].map(gone), now);
    assert_eq!(
        (names(&membership), membership.held()),
        (vec!["chat-2".to_owned()], 0)
    );
    assert_eq!(membership.map().version(), 2);
    // Their leases end later, which does not count towards the nodes that may vanish.
    membership.change(3, ["chat-0", "chat-1"].map(delete), now + LEASE);
    membership.change(4, [delete("chat-2")], now + LEASE);
    assert!(names(&membership).is_empty());
    // One of the two is alive after all, and writes its record again.
    membership.change(5, [Change::Put(Role::Chat, node("chat-0"))], now + LEASE);
    assert_eq!(names(&membership), ["chat-0"]);
}

#[test]
fn who_does_not_see_etcd_believes_newer_news_of_others_and_older_news_never() {
    let now = Instant::now();
    let mut membership = members(2, now);
    membership.list(listed(5, 5, &["chat-0", "chat-1"]), now);
    assert!(!membership.told(5, vec![], false, now) && !membership.told(4, vec![], false, now));
    let later = now + LEASE;
    assert!(membership.told(9, vec![(Role::Chat, node("chat-1"))], false, later));
    assert_eq!(
        (names(&membership), membership.held()),
        (vec!["chat-1".to_owned()], 0)
    );
    let records = membership.records();
    assert_eq!(
        (records.version, records.nodes),
        (9, vec![(Role::Chat, node("chat-1"))])
    );
    assert_eq!(membership.map().version(), 9);
}

#[test]
fn what_is_held_back_here_is_not_told_to_others() {
    let now = Instant::now();
    let mut membership = members(2, now);
    membership.change(2, [delete("chat-0"), delete("chat-1")], now);
    assert_eq!(membership.held(), 1);
    let records = membership.records();
    assert_eq!((records.version, records.nodes), (2, vec![]));
}

/// etcd was away for all, and ended all leases. One node read it again, and tells another what it found before that
/// one has registered again.
#[test]
fn who_hears_from_a_cautious_node_holds_what_that_node_holds() {
    let now = Instant::now();
    let mut reads = members(2, now);
    reads.list(listed(5, 4, &["chat-0"]), now);
    assert_eq!(names(&reads), ["chat-0", "chat-1"]);
    let told = reads.records();
    assert_eq!(told.cautious_until, Some(now + LEASE));
    let mut hears = members(2, now);
    assert!(hears.told(told.version, told.nodes.clone(), true, now));
    assert_eq!(names(&hears), ["chat-0", "chat-1"]);
    // Whoever asks this node hears that too.
    assert_eq!(hears.records(), told);
    hears.expire(now + LEASE);
    assert_eq!(names(&hears), ["chat-0"]);
}

#[test]
fn a_held_node_that_registers_again_stays() {
    let now = Instant::now();
    let mut membership = members(2, now);
    membership.change(2, [delete("chat-0"), delete("chat-1")], now);
    assert_eq!(names(&membership), ["chat-1"]);
    membership.change(
        3,
        [Change::Put(
            Role::Chat,
            Node {
                incarnation: 2,
                ..node("chat-1")
            },
        )],
        now,
    );
    membership.expire(now + 2 * LEASE);
    assert_eq!(names(&membership), ["chat-1"]);
    assert_eq!(membership.map().nodes(Role::Chat)[0].incarnation, 2);
}

#[test]
fn after_a_further_list_whoever_vanishes_is_held_for_one_lease() {
    let now = Instant::now();
    let mut membership = members(4, now);
    membership.list(listed(9, 1, &["chat-0", "chat-1"]), now);
    membership.change(10, [delete("chat-1")], now);
    assert_eq!((names(&membership).len(), membership.held()), (4, 3));
    // Another list does not prolong their stay.
    membership.list(listed(10, 1, &["chat-0"]), now + LEASE / 2);
    membership.expire(now + LEASE);
    assert_eq!(names(&membership), ["chat-0"]);
    // The caution ends after one lease.
    membership.change(11, [delete("chat-0")], now + 2 * LEASE);
    assert!(names(&membership).is_empty());
}

/// Others may write to the same etcd, which raises its revision but not the map's version.
#[test]
fn a_further_list_raises_the_version_only_by_changes_of_the_records() {
    let now = Instant::now();
    let mut membership = Membership::default();
    membership.list(listed(5, 3, &["chat-0"]), now);
    membership.change(7, [Change::Put(Role::Chat, node("chat-1"))], now);
    let cases = [
        // (revision, changed, names, version, guessed)
        (7, 7, vec!["chat-0", "chat-1"], 7, false),
        // A key may have come and gone, or others wrote.
        (90, 7, vec!["chat-0", "chat-1"], 7, true),
        (100, 100, vec!["chat-0", "chat-1"], 100, false),
        // When chat-1 was deleted is not known.
        (110, 100, vec!["chat-0"], 110, true),
        (110, 100, vec!["chat-0"], 110, true),
        (125, 125, vec!["chat-0"], 125, false),
    ];
    for (revision, changed, names, version, guessed) in cases {
        membership.list(listed(revision, changed, &names), now);
        let map = membership.map();
        assert_eq!(
            (map.version(), map.has_guessed_version()),
            (version, guessed),
            "at {revision}"
        );
    }
    membership.change(140, [Change::Put(Role::Chat, node("chat-0"))], now);
    let map = membership.map();
    assert_eq!((map.version(), map.has_guessed_version()), (140, false));
}

/// etcd was replaced by an empty one at version 500, and somebody has raised the base.
#[test]
fn versions_go_on_rising_when_etcd_counts_from_1_again() {
    let now = Instant::now();
    let mut membership = members(2, now);
    membership.change(500, [Change::Put(Role::Chat, node("chat-1"))], now);
    let empty = listed(1, 0, &[]);
    assert!(empty.version() < membership.version(), "the base is to be raised");
    let raised = |revision, changed, names: &[&str]| Listed {
        base: 500,
        ..listed(revision, changed, names)
    };
    membership.list(raised(2, 2, &[]), now);
    let map = membership.map();
    assert_eq!((map.version(), map.has_guessed_version()), (502, true));
    assert_eq!(
        names(&membership),
        ["chat-0", "chat-1"],
        "they may register again"
    );
    for (revision, name) in [(3, "chat-0"), (4, "chat-1")] {
        assert!(membership.rebase(None, revision));
        membership.change(revision, [Change::Put(Role::Chat, node(name))], now);
    }
    let map = membership.map();
    assert_eq!((map.version(), map.has_guessed_version()), (504, false));
    membership.expire(now + LEASE);
    assert_eq!(names(&membership), ["chat-0", "chat-1"]);

    // A node that started on the empty etcd has no version of before.
    let mut new = Membership::default();
    new.list(listed(1, 0, &[]), now);
    assert!(new.rebase(Some(500), 2));
    new.change(2, [], now);
    assert_eq!(new.map().version(), 502);
    new.list(raised(4, 4, &["chat-0", "chat-1"]), now);
    assert_eq!(new.map(), membership.map());
}

/// Somebody deleted all keys below the prefix, the base among them.
#[test]
fn a_version_never_falls_because_the_base_is_gone() {
    let now = Instant::now();
    let mut membership = members(1, now);
    assert!(membership.rebase(Some(500), 2));
    membership.change(2, [], now);
    assert!(!membership.rebase(Some(0), 3));
    assert_eq!(membership.map().version(), 502);
    assert!(membership.rebase(None, 4));
    membership.change(4, [], now);
    assert_eq!(membership.map().version(), 504);
}
