//! Every connection of a listener, and which of them has to go (pure).
//!
//! A connection stands somewhere between "nothing came yet" and "carries an authenticated stream", by what was begun and ended
//! on it. Where nothing is under way, the time since then is bounded. A call is bounded by itself, until its answer is taken,
//! unless the protos say that it is a stream: a stream has its own rules. And when no more connections fit, one goes by where it
//! stands, of those the one that stands there longest.
//!
//! A connection that carries an authenticated stream costs one row here, and no row in any order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tern_types::IdMap;

use super::{Bounds, ClientAddress};

/// Milliseconds of the listener's clock.
pub type Millis = u64;

/// A connection that was asked to leave and has nothing under way has this long to do so.
pub const GRACE: Duration = Duration::from_secs(5);
/// Calls that take too long are put up with for so many times as long where others share the connection: ending them ends all.
const PATIENCE: u32 = 10;
/// Connections that were cut and are not gone yet: their tasks have to run first. That many descriptors are kept for them.
pub const DYING: usize = 16;

/// A stranger has this long to say who it is before others are spared for it: a client that means it mostly has shaken hands and
/// sent its credentials by then. Otherwise those who come would push out each other, and never the idle.
pub const YOUNG: Duration = Duration::from_secs(2);
/// Who goes when no more connections fit, of each the one that stands there longest; the number: only those who stand there longer.
/// Authenticated streams stand nowhere: none is ended for others.
const GO: [(Standing, Duration); 7] = [
    (Standing::Leaving, Duration::ZERO),
    (Standing::Stranger, YOUNG),
    (Standing::StrangerCalling, YOUNG),
    (Standing::Idle, Duration::ZERO),
    (Standing::Stranger, Duration::ZERO),
    (Standing::StrangerCalling, Duration::ZERO),
    (Standing::Calling, Duration::ZERO),
];

/// Where a connection stands that carries no authenticated stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It was asked to leave, and nothing is under way.
    Leaving,
    /// Nothing is under way, and nobody known was ever on it: no request yet, or none with credentials.
    Stranger,
    /// The same, with a call under way: a stream that was not opened yet is one.
    StrangerCalling,
    /// Nothing is under way; there were calls with good credentials.
    Idle,
    /// The same, with a call under way.
    Calling,
}

/// Why a connection was ended from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// No request within its time, or none with credentials.
    Silent,
    /// No request for a long time.
    Idle,
    /// A call, or the taking of its answer, took too long.
    Call,
    /// Another one came, and no more fit.
    Room,
}

/// What the look at the clock found.
#[derive(Debug, PartialEq, Eq)]
pub struct Overdue<C> {
    /// To be asked to leave.
    pub leave: Vec<(C, Why)>,
    /// To be cut off.
    pub cut: Vec<(C, Why)>,
}

/// What a new connection meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission<C> {
    /// It is in; another one is to be cut off for it, where there is one.
    In(Option<C>),
    /// All others carry authenticated streams.
    Full,
}

type Key = (Standing, Millis, u64);

#[derive(Debug)]
struct Row<C> {
    connection: C,
    address: ClientAddress,
    key: Option<Key>,
    calls: u32,
    streams: u32,
    known: bool,
    leaving: bool,
    cut: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Table<C> {
    bounds: Bounds,
    rows: IdMap<u64, Row<C>>,
    order: BTreeSet<Key>,
    /// Strangers by their address, where their number is limited.
    addresses: HashMap<ClientAddress, BTreeSet<Key>>,
    /// Bounded calls in the order in which they began, with their connection.
    calls: BTreeMap<u64, (Millis, u64)>,
    /// Those that are put up with for longer.
    patient: BTreeMap<u64, (Millis, u64)>,
    last_call: u64,
    dying: usize,
}

impl<C: Clone> Table<C> {
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

    /// Whether those that were cut are so many that they have to go first.
    pub fn is_behind(&self) -> bool {
        self.dying >= DYING
    }

    /// A connection came.
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

    /// Somebody has to go although nobody came: what descriptors were kept for does not suffice.
    pub fn make_room(&mut self, now: Millis) -> Option<C> {
        let id = self.first_to_go(now)?;
        self.cut(id)
    }

    /// The connection is gone.
    pub fn gone(&mut self, id: u64) {
        let Some(row) = self.rows.remove(&id) else { return };
        self.dying -= usize::from(row.cut);
        if let Some(key) = row.key {
            self.leave_order(row.address, key);
        }
    }

    /// A call began; `bounded`: its end is waited for no longer than any call's. Returns its number.
    pub fn call_began(&mut self, id: u64, bounded: bool, now: Millis) -> u64 {
        self.last_call += 1;
        if bounded {
            self.calls.insert(self.last_call, (now, id));
        }
        self.change(id, now, |row| row.calls += 1);
        self.last_call
    }

    pub fn call_ended(&mut self, id: u64, call: u64, now: Millis) {
        let _ = self.calls.remove(&call).or_else(|| self.patient.remove(&call));
        self.change(id, now, |row| row.calls = row.calls.saturating_sub(1));
    }

    /// It is known who is on it.
    pub fn known(&mut self, id: u64, now: Millis) {
        self.change(id, now, |row| row.known = true);
    }

    /// An authenticated stream is open on it.
    pub fn stream_began(&mut self, id: u64, now: Millis) {
        self.change(id, now, |row| {
            row.known = true;
            row.streams += 1;
        });
    }

    pub fn stream_ended(&mut self, id: u64, now: Millis) {
        self.change(id, now, |row| row.streams = row.streams.saturating_sub(1));
    }

    /// Whose time is over.
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

    /// The connections of calls that have taken too long.
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

    /// Who has to go for a new one from this address.
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

    fn first_to_go(&self, now: Millis) -> Option<u64> {
        GO.iter().find_map(|(standing, longer)| {
            let since = now.checked_sub(millis(*longer))?;
            self.stands(*standing, since).next()
        })
    }

    /// Who has stood there since then or longer, the longest first.
    fn stands(&self, standing: Standing, since: Millis) -> impl Iterator<Item = u64> {
        let range = (standing, 0, 0)..=(standing, since, u64::MAX);
        self.order.range(range).map(|(_, _, id)| *id)
    }

    /// It goes, whatever is under way on it.
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

    /// Puts it where it stands now; since when it has stood there stays.
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

fn first_over(calls: &BTreeMap<u64, (Millis, u64)>, now: Millis, bound: Duration) -> Option<(u64, u64)> {
    let (call, (began, id)) = calls.first_key_value()?;
    (began + millis(bound) <= now).then_some((*call, *id))
}

pub fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
