//! Keeps the state of all connections of a listener, and decides which of them is ended next (pure).
//!
//! The standing of a connection ([`Standing`]) follows from the calls and streams that began and ended on it, from "no
//! request yet" to "a known client's call is under way". A connection may have nothing under way only for a
//! bounded time. A call has a bound of its own, until its answer is taken, unless the protos declare it as a
//! stream: streams have their own rules. When no more connections fit, one is ended to make room. The
//! standing decides which one, and among connections of the same standing the one that has had it longest is
//! ended.
//!
//! A connection that carries an authenticated stream has no standing. It costs one row in the table, and is never ended
//! to make room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tern_types::IdMap;

use super::{Bounds, ClientAddress};

/// Milliseconds since the listener started.
pub type Millis = u64;

/// The time that a connection that was asked to leave and has nothing under way may take to do so, if
/// [`Bounds::first_request`] is not shorter.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// The factor by which the bound of a call is longer if other calls or streams share its connection, because ending the
/// call ends them all.
const PATIENCE: u32 = 10;
/// The number of connections that are cut and not yet gone at which no more are accepted. A cut connection is gone when
/// its task has run, and takes a file descriptor until then.
pub(crate) const DYING: usize = 16;

/// The time for which a new stranger is spared while there are others to end. Most honest clients have shaken hands and
/// sent their credentials by then. Without this, new clients would push out each other, and never the idle connections.
pub(crate) const YOUNG: Duration = Duration::from_secs(2);
/// The order in which connections are ended to make room, by their standing. Of each standing, only connections that
/// have had it for at least the given time qualify, the longest first. For example, a stranger is ended before an idle
/// connection only if it has been a stranger for [`YOUNG`]. Connections with authenticated streams have no standing,
/// and are never ended to make room.
const GO: [(Standing, Duration); 7] = [
    (Standing::Leaving, Duration::ZERO),
    (Standing::Stranger, YOUNG),
    (Standing::StrangerCalling, YOUNG),
    (Standing::Idle, Duration::ZERO),
    (Standing::Stranger, Duration::ZERO),
    (Standing::StrangerCalling, Duration::ZERO),
    (Standing::Calling, Duration::ZERO),
];

/// The standing of a connection that carries no authenticated stream: whether its client is known, and whether a call
/// is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It was asked to leave, and nothing is under way.
    Leaving,
    /// Nothing is under way, and no client has shown good credentials on it: there was no request yet, or none with
    /// credentials.
    Stranger,
    /// No client has shown good credentials on it, and a call is under way. A device stream that is not authenticated
    /// yet is such a call.
    StrangerCalling,
    /// Nothing is under way, and a client has shown good credentials on it.
    Idle,
    /// A call is under way, and a client has shown good credentials on it.
    Calling,
}

/// The reason why a listener ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// There was no request within the bound, or none with good credentials.
    Silent,
    /// There was no request for a long time.
    Idle,
    /// A call took too long, or its answer was not taken in time.
    Call,
    /// A new connection needed its room, or file descriptors ran out.
    Room,
}

impl Why {
    /// Returns the name of the reason in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Idle => "idle",
            Self::Call => "call",
            Self::Room => "room",
        }
    }
}

/// The connections whose time is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Overdue<C> {
    /// Connections to ask to leave.
    pub leave: Vec<(C, Why)>,
    /// Connections to cut off.
    pub cut: Vec<(C, Why)>,
}

/// The decision about a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission<C> {
    /// It is admitted. The other connection, if there is one, has to be cut off to make room.
    In(Option<C>),
    /// It is refused, since no other connection may be ended for it.
    Full,
}

/// A place in the order: the standing of a connection, the time since which it has had it, and its id.
type Key = (Standing, Millis, u64);

#[derive(Debug)]
struct Row<C> {
    connection: C,
    address: ClientAddress,
    /// The connection's place in the order, or `None` while it has no standing.
    key: Option<Key>,
    /// The number of calls under way.
    calls: u32,
    /// The number of authenticated streams.
    streams: u32,
    /// True if a client has shown good credentials on it.
    known: bool,
    /// True if it was asked to leave.
    leaving: bool,
    /// True if it was cut off.
    cut: bool,
}

/// The rows of all connections, and the orders in which they are ended.
#[derive(Debug)]
pub struct Table<C> {
    bounds: Bounds,
    rows: IdMap<u64, Row<C>>,
    order: BTreeSet<Key>,
    /// The strangers of each address. They are kept only if their number is limited.
    addresses: HashMap<ClientAddress, BTreeSet<Key>>,
    /// The bounded calls by number, and so in the order in which they began, each with the time of its beginning and
    /// the id of its connection.
    calls: BTreeMap<u64, (Millis, u64)>,
    /// The calls that have exceeded their bound and are given more time because others share their connection.
    patient: BTreeMap<u64, (Millis, u64)>,
    last_call: u64,
    /// The number of connections that were cut and are not gone yet.
    dying: usize,
}

impl<C: Clone> Table<C> {
    /// Makes an empty table.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            rows: IdMap::default(),
            order: BTreeSet::new(),
            addresses: HashMap::new(),
            calls: BTreeMap::new(),
            patient: BTreeMap::new(),
            last_call: 0,
            dying: 0,
        }
    }

    /// Returns whether so many cut connections are not gone yet that no more should be accepted.
    pub fn is_behind(&self) -> bool {
        self.dying >= DYING
    }

    /// Adds a new connection if it fits, or if another one can be ended for it.
    pub fn came(&mut self, id: u64, connection: C, address: ClientAddress, now: Millis) -> Admission<C> {
        let instead = match self.must_go(address, now) {
            Ok(instead) => instead.and_then(|id| self.cut(id)),
            Err(()) => return Admission::Full,
        };
        self.rows.insert(
            id,
            Row {
                connection,
                address,
                key: None,
                calls: 0,
                streams: 0,
                known: false,
                leaving: false,
                cut: false,
            },
        );
        self.stand(id, now);
        Admission::In(instead)
    }

    /// Marks a connection as cut because file descriptors ran out, although no new connection came. Returns the
    /// connection to cut off, or `None` if none may be ended.
    pub fn make_room(&mut self, now: Millis) -> Option<C> {
        let id = self.first_to_go(now)?;
        self.cut(id)
    }

    /// Removes a connection that is gone.
    pub fn gone(&mut self, id: u64) {
        let Some(row) = self.rows.remove(&id) else { return };
        self.dying -= usize::from(row.cut);
        if let Some(key) = row.key {
            self.leave_order(row.address, key);
        }
    }

    /// Notes that a call began, and returns the call's number. If `bounded` is set, the call has to end within
    /// [`Bounds::call`].
    pub(crate) fn call_began(&mut self, id: u64, bounded: bool, now: Millis) -> u64 {
        self.last_call += 1;
        if bounded {
            self.calls.insert(self.last_call, (now, id));
        }
        self.change(id, now, |row| row.calls += 1);
        self.last_call
    }

    /// Notes that the call with this number ended.
    pub(crate) fn call_ended(&mut self, id: u64, call: u64, now: Millis) {
        let _ = self.calls.remove(&call).or_else(|| self.patient.remove(&call));
        self.change(id, now, |row| row.calls = row.calls.saturating_sub(1));
    }

    /// Notes that a client with good credentials uses the connection.
    pub fn known(&mut self, id: u64, now: Millis) {
        self.change(id, now, |row| row.known = true);
    }

    /// Notes that an authenticated stream opened on the connection.
    pub fn stream_began(&mut self, id: u64, now: Millis) {
        self.change(id, now, |row| {
            row.known = true;
            row.streams += 1;
        });
    }

    /// Notes that an authenticated stream ended on the connection.
    pub fn stream_ended(&mut self, id: u64, now: Millis) {
        self.change(id, now, |row| row.streams = row.streams.saturating_sub(1));
    }

    /// Returns the connections whose time is over, and marks them as asked to leave or as cut.
    pub fn look(&mut self, now: Millis) -> Overdue<C> {
        let mut overdue = Overdue {
            leave: Vec::new(),
            cut: Vec::new(),
        };
        for (standing, bound, why) in [
            (Standing::Leaving, GRACE.min(self.bounds.first_request), Why::Idle),
            (Standing::Stranger, self.bounds.first_request, Why::Silent),
            (Standing::Idle, self.bounds.idle, Why::Idle),
        ] {
            let Some(last) = now.checked_sub(millis(bound)) else {
                continue;
            };
            let over: Vec<u64> = self.stands(standing, last).collect();
            for id in over {
                if standing == Standing::Leaving {
                    let known = self.rows.get(&id).is_some_and(|row| row.known);
                    let why = if known { Why::Idle } else { Why::Silent };
                    overdue
                        .cut
                        .extend(self.cut(id).map(|connection| (connection, why)));
                } else {
                    self.change(id, now, |row| row.leaving = true);
                    overdue
                        .leave
                        .extend(self.rows.get(&id).map(|row| (row.connection.clone(), why)));
                }
            }
        }
        for id in self.slow_calls(now) {
            overdue
                .cut
                .extend(self.cut(id).map(|connection| (connection, Why::Call)));
        }
        overdue
    }

    /// Returns the connections of calls that have taken too long, and removes those calls.
    fn slow_calls(&mut self, now: Millis) -> Vec<u64> {
        let bound = self.bounds.call;
        let mut slow = Vec::new();
        while let Some((call, id)) = first_over(&self.calls, now, bound) {
            let began = self.calls.remove(&call);
            let shared = |row: &Row<C>| row.streams > 0 || row.calls > 1;
            match (began, self.rows.get(&id).is_some_and(shared)) {
                (Some(began), true) => drop(self.patient.insert(call, began)),
                _ => slow.push(id),
            }
        }
        while let Some((call, id)) = first_over(&self.patient, now, bound * PATIENCE) {
            self.patient.remove(&call);
            slow.push(id);
        }
        slow
    }

    /// Returns the connection that has to be ended for a new one from this address, `Ok(None)` if there is room, or
    /// `Err` if there is no room and no connection may be ended.
    fn must_go(&self, address: ClientAddress, now: Millis) -> Result<Option<u64>, ()> {
        let of_address = self.addresses.get(&address).filter(|strangers| {
            self.bounds
                .strangers_of_address
                .is_some_and(|most| strangers.len() >= most)
        });
        if let Some((_, _, id)) = of_address.and_then(|strangers| strangers.first()) {
            return Ok(Some(*id));
        }
        if self.rows.len() - self.dying < self.bounds.connections {
            return Ok(None);
        }
        self.first_to_go(now).map(Some).ok_or(())
    }

    /// Returns the connection to end to make room, in the order of [`GO`].
    fn first_to_go(&self, now: Millis) -> Option<u64> {
        GO.iter().find_map(|(standing, longer)| {
            let since = now.checked_sub(millis(*longer))?;
            self.stands(*standing, since).next()
        })
    }

    /// Returns the connections that have had this standing since `since` or longer, the longest first.
    fn stands(&self, standing: Standing, since: Millis) -> impl Iterator<Item = u64> {
        let range = (standing, 0, 0)..=(standing, since, u64::MAX);
        self.order.range(range).map(|(_, _, id)| *id)
    }

    /// Marks a connection as cut, whatever is under way on it, and returns its handle. Returns `None` if it was cut
    /// before.
    fn cut(&mut self, id: u64) -> Option<C> {
        let row = self.rows.get_mut(&id).filter(|row| !row.cut)?;
        row.cut = true;
        self.dying += 1;
        let connection = row.connection.clone();
        self.stand(id, 0);
        Some(connection)
    }

    fn change(&mut self, id: u64, now: Millis, change: impl FnOnce(&mut Row<C>)) {
        if let Some(row) = self.rows.get_mut(&id) {
            change(row);
            self.stand(id, now);
        }
    }

    /// Puts the connection into the orders by its present standing. If the standing has not changed, the connection
    /// keeps the time since which it has had it.
    fn stand(&mut self, id: u64, now: Millis) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        let standing = row.standing();
        if row.key.map(|(standing, _, _)| standing) == standing {
            return;
        }
        let key = standing.map(|standing| (standing, now, id));
        let (before, address) = (std::mem::replace(&mut row.key, key), row.address);
        if let Some(before) = before {
            self.leave_order(address, before);
        }
        if let Some(key) = key {
            self.order.insert(key);
            if self.bounds.strangers_of_address.is_some() && is_stranger(key.0) {
                self.addresses.entry(address).or_default().insert(key);
            }
        }
    }

    fn leave_order(&mut self, address: ClientAddress, key: Key) {
        self.order.remove(&key);
        if let Some(strangers) = self.addresses.get_mut(&address) {
            strangers.remove(&key);
            if strangers.is_empty() {
                self.addresses.remove(&address);
            }
        }
    }
}

impl<C> Row<C> {
    fn standing(&self) -> Option<Standing> {
        if self.cut || self.streams > 0 {
            return None;
        }
        Some(match (self.calls > 0, self.known) {
            (true, true) => Standing::Calling,
            (true, false) => Standing::StrangerCalling,
            (false, _) if self.leaving => Standing::Leaving,
            (false, true) => Standing::Idle,
            (false, false) => Standing::Stranger,
        })
    }
}

fn is_stranger(standing: Standing) -> bool {
    matches!(standing, Standing::Stranger | Standing::StrangerCalling)
}

/// Returns the number of the oldest call and the id of its connection, if the call began `bound` ago or earlier.
fn first_over(calls: &BTreeMap<u64, (Millis, u64)>, now: Millis, bound: Duration) -> Option<(u64, u64)> {
    let (call, (began, id)) = calls.first_key_value()?;
    (began + millis(bound) <= now).then_some((*call, *id))
}

/// Returns a duration in whole milliseconds.
pub fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
