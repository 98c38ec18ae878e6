//! The queues to the presence nodes, one for each node.
//!
//! A queue outlives its links. Each new link begins by saying everything about the node's slots anew, such as
//! all their sessions, and only the newest link takes from the queue. A queue is bounded: an item that finds
//! no room is dropped, and everything is said anew. If the item ends something that was said before, such as
//! a session, that does not make up for it: then the link ends, and the node forgets what the next one does not
//! say.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The most items that wait for one node. Further items are dropped, and everything is said anew.
const MAX_WAITING: usize = 65_536;

/// One thing that a node is told.
pub trait Item {
    /// Returns whether the item ends something that was said before. If it is dropped, it is not made up for by saying
    /// anew what there is.
    fn ends(&self) -> bool;
}

/// The queues of all nodes, by node name.
pub struct Queues<T>(Mutex<HashMap<String, Arc<Queue<T>>>>);

/// The queue of one node.
pub struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    /// Notified when there is something to take.
    pub news: Notify,
}

/// The items that wait for one node, and the link that may take them.
struct Waiting<T> {
    items: VecDeque<T>,
    /// True if everything about the node's slots is to be said anew.
    all: bool,
    /// The number of the newest link, the only one that may take from here.
    link: u64,
    /// True while the newest link is up.
    linked: bool,
}

/// The access of one link to its queue. Dropping it says that the link is down.
pub struct Taker<T> {
    /// The queue of the link's node.
    pub queue: Arc<Queue<T>>,
    /// The number of the link, with which it takes from the queue.
    pub link: u64,
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let waiting = Waiting {
            items: VecDeque::new(),
            all: false,
            link: 0,
            linked: false,
        };
        Self {
            waiting: Mutex::new(waiting),
            news: Notify::new(),
        }
    }
}

impl<T> Queues<T> {
    /// Returns the queue of a node, new or known.
    pub fn of(&self, node: &str) -> Arc<Queue<T>> {
        let mut queues = lock(&self.0);
        if let Some(queue) = queues.get(node) {
            return queue.clone();
        }
        queues.entry(node.to_owned()).or_default().clone()
    }

    /// Begins a link to the node, which is to say everything anew. An older link takes nothing from the queue
    /// any more.
    pub fn begin(&self, node: &str) -> Taker<T> {
        let mut queues = lock(&self.0);
        let queue = queues.entry(node.to_owned()).or_default().clone();
        // This is done under the lock of all queues, so that [`Self::keep`] does not forget the queue of a link that is
        // up.
        let link = queue.begin();
        Taker { queue, link }
    }

    /// Forgets the queues of nodes for which `there` says false, except those whose link is up: it was made by a newer
    /// map.
    pub fn keep(&self, there: impl Fn(&str) -> bool) {
        lock(&self.0).retain(|node, queue| there(node) || lock(&queue.waiting).linked);
    }
}

impl<T> Queue<T> {
    fn begin(&self) -> u64 {
        let mut waiting = lock(&self.waiting);
        waiting.link += 1;
        (waiting.linked, waiting.all) = (true, true);
        self.news.notify_one();
        waiting.link
    }

    /// Makes the link say everything about the node's slots anew.
    pub fn say_all(&self) {
        lock(&self.waiting).all = true;
        self.news.notify_one();
    }

    /// Takes at most `max` items, and whether everything is to be said anew. `None` if the link is to end: there is a
    /// newer one, or a new one is needed.
    pub fn take(&self, link: u64, max: usize) -> Option<(Vec<T>, bool)> {
        let mut waiting = lock(&self.waiting);
        if waiting.link != link {
            drop(waiting);
            // The newer link may have missed the notification that this one got.
            self.news.notify_one();
            return None;
        }
        let count = waiting.items.len().min(max);
        let items = waiting.items.drain(..count).collect();
        Some((items, std::mem::take(&mut waiting.all)))
    }
}

impl<T: Item> Queue<T> {
    /// Queues an item. If it finds no room it is dropped, and everything is said anew, by a new link if the item ends
    /// something.
    pub fn push(&self, item: T) {
        let mut waiting = lock(&self.waiting);
        if waiting.items.len() < MAX_WAITING {
            waiting.items.push_back(item);
        } else if item.ends() {
            waiting.end_link();
        } else {
            waiting.all = true;
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Queues an item that a new link says anyhow. It is dropped if no link is up.
    pub fn push_if_linked(&self, item: T) {
        if lock(&self.waiting).linked {
            self.push(item);
        }
    }
}

impl<T> Waiting<T> {
    /// Makes the newest link end. The next one says everything, so nothing has to wait for it.
    fn end_link(&mut self) {
        self.items.clear();
        self.link += 1;
        self.linked = false;
    }
}

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.queue.waiting);
        if waiting.link == self.link {
            waiting.linked = false;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An item that ends something.
    const END: u32 = u32::MAX;

    impl Item for u32 {
        fn ends(&self) -> bool {
            *self == END
        }
    }

    #[test]
    fn a_map_that_is_behind_its_links_takes_no_queue_from_them() {
        let queues = Queues::<u32>::default();
        let taker = queues.begin("presence-0");
        queues.keep(|_| false);
        assert!(Arc::ptr_eq(&queues.of("presence-0"), &taker.queue));
        drop(taker);
        queues.keep(|_| false);
        assert!(lock(&queues.0).is_empty(), "the node is gone, and so is its link");
    }

    #[test]
    fn what_waits_is_for_the_newest_link_and_each_begins_with_everything() {
        let queues = Queues::<u32>::default();
        let older = queues.begin("presence-0");
        let newer = queues.begin("presence-0");
        older.queue.push(7);
        assert!(older.queue.take(older.link, 9).is_none());
        drop(older);
        assert_eq!(newer.queue.take(newer.link, 9), Some((vec![7], true)));
        assert_eq!(newer.queue.take(newer.link, 9), Some((vec![], false)));
    }

    #[test]
    fn what_does_not_fit_is_made_up_for_by_saying_everything() {
        let queues = Queues::<u32>::default();
        let taker = queues.begin("presence-0");
        taker.queue.take(taker.link, 0);
        (0..=MAX_WAITING as u32).for_each(|item| taker.queue.push(item));
        let (items, all) = taker.queue.take(taker.link, usize::MAX).expect("the newest");
        assert_eq!((items.len(), all), (MAX_WAITING, true));
    }

    #[test]
    fn an_end_that_does_not_fit_is_made_up_for_by_a_new_link() {
        let queues = Queues::<u32>::default();
        let taker = queues.begin("presence-0");
        (0..MAX_WAITING as u32).for_each(|item| taker.queue.push(item));
        taker.queue.push(END);
        assert!(taker.queue.take(taker.link, 9).is_none(), "the link ends");
        taker.queue.push_if_linked(1);
        drop(taker);
        let next = queues.begin("presence-0");
        assert_eq!(next.queue.take(next.link, 9), Some((vec![], true)));
        next.queue.push(END);
        assert_eq!(next.queue.take(next.link, 9), Some((vec![END], false)));
    }
}
