//! Builds the parts of a chat node that reach devices. A test holds the gateways' ends of the links.

use std::time::Duration;

use tern_chat::fanout::Fanout;
use tern_chat::gateways::{ControlLink, Gateways};
use tern_chat::lookup::{Lookup, Patience};
use tern_chat::wake::wake;
use tern_chat_core::Missing;
use tern_chat_core::shard::Woken;
use tern_cluster::links::NodeIdentity;
use tern_cluster::standing::Standing;
use tern_cluster::{ClusterMap, MapHandle, Node, NodeContext, Role};
use tern_proto::internal::{DownItem, FoundSession, LiveSession, down_item};
use tern_types::{ChatId, DeviceId, Seq, Slot, UserId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::nodes::{PresenceNode, node};

/// The longest time in which a link is made, or made again.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The longest waits for an answer. A look-up waits this long for a node that hangs, and a node that answers does so in
/// less on every machine.
const LOOK_UP_PATIENCE: Patience = Patience {
    presence: Duration::from_secs(2),
    gateway: Duration::from_secs(3),
};

/// The parts that a shard uses to reach devices.
pub struct Chat {
    pub fanout: Fanout,
    pub gateways: Gateways,
    /// The chat whose devices are woken.
    pub chat: ChatId,
    map: ClusterMap,
}

impl Chat {
    /// Starts a chat node with these presence nodes in its map.
    pub fn of(presences: impl IntoIterator<Item = Node>) -> Self {
        Self::with_gateways(presences, &[])
    }

    /// Starts a chat node with these presence nodes and gateways in its map.
    pub fn with_gateways(presences: impl IntoIterator<Item = Node>, names: &[&str]) -> Self {
        Self::placed(presences, names, |_| Standing::certain())
    }

    /// Starts a chat node with these nodes in its map, and this place in it.
    pub fn placed(
        presences: impl IntoIterator<Item = Node>,
        names: &[&str],
        standing: impl FnOnce(MapHandle) -> Standing,
    ) -> Self {
        let presences = presences.into_iter().map(|node| (Role::Presence, node));
        let in_map = names.iter().map(|name| (Role::Gateway, node(name, "")));
        let map = ClusterMap::new(1, presences.chain(in_map));
        let gateways = Gateways::default();
        let handle = MapHandle::fixed(map.clone());
        let mut ctx = NodeContext::alone("chat-0", 1, handle.clone());
        ctx.standing = standing(handle);
        Self {
            fanout: Fanout::new(Lookup::start(&ctx, gateways.clone(), LOOK_UP_PATIENCE)),
            gateways,
            chat: ChatId(uuid::Uuid::nil()),
            map,
        }
    }

    /// Starts a chat node, and waits until it is linked to all of these presence nodes.
    pub async fn linked(presences: &[&PresenceNode]) -> Self {
        let chat = Self::of(presences.iter().map(|presence| presence.node.clone()));
        chat.until_linked(presences).await;
        chat
    }

    /// Waits until each of these presence nodes answers look-ups.
    pub async fn until_linked(&self, presences: &[&PresenceNode]) {
        let users: Vec<UserId> = presences.iter().map(|presence| self.user_of(presence)).collect();
        let linked = async {
            while self.fanout.lookup.sessions(users.clone()).await.failed {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(PATIENCE, linked).await.is_ok(), "not linked");
    }

    /// Returns a user whose slot this presence node owns.
    pub fn user_of(&self, presence: &PresenceNode) -> UserId {
        let its = |user: &UserId| {
            self.map
                .owner(Role::Presence, Slot::of_user(*user))
                .is_some_and(|owner| owner.name == presence.node.name)
        };
        std::iter::repeat_with(UserId::random).find(its).unwrap()
    }

    /// Wakes the devices up to seq 9. Returns whether all of them count as woken.
    pub async fn wakes(&self, missing: &[Missing]) -> bool {
        self.woken(missing).await == Woken::All
    }

    /// Wakes the devices up to seq 9.
    pub async fn woken(&self, missing: &[Missing]) -> Woken {
        wake(&self.fanout, &self.gateways, self.chat, Seq(9), missing).await
    }

    /// Links a gateway with this name.
    pub fn gateway(&self, name: &str) -> Gateway {
        let peer = NodeIdentity {
            name: name.to_owned(),
            incarnation: 1,
        };
        let (_link, items) = self.gateways.open_control(peer);
        Gateway { _link, items }
    }
}

/// A gateway's end of its link.
pub struct Gateway {
    _link: ControlLink,
    items: mpsc::Receiver<DownItem>,
}

impl Gateway {
    /// Waits for the next wake. Returns its number, its sessions, and the seq from which it begins.
    pub async fn woken(&mut self) -> (u64, Vec<u64>, u64) {
        match timeout(PATIENCE, self.items.recv()).await.unwrap().unwrap().item {
            Some(down_item::Item::Wake(wake)) => (wake.wake, wake.sessions, wake.from_seq),
            other => panic!("{other:?}"),
        }
    }

    /// Lets the gateway answer from now on that it has these sessions, and confirm every wake.
    pub fn answers(self, chat: &Chat, sessions: Vec<FoundSession>) -> JoinHandle<()> {
        let Self { _link, mut items } = self;
        let gateways = chat.gateways.clone();
        let answer = async move {
            let _link = _link;
            while let Some(item) = items.recv().await {
                match item.item {
                    Some(down_item::Item::FindSessions(asked)) => {
                        let asked_for = |found: &&FoundSession| asked.user_ids.contains(&found.user_id);
                        let found = sessions.iter().filter(asked_for).cloned().collect();
                        gateways.sessions_found(asked.question, found);
                    }
                    Some(down_item::Item::Wake(wake)) => gateways.wake_done(wake.wake),
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::spawn(answer)
    }
}

/// Returns a new device of the user that lacks the entries from seq 3 on.
pub fn missing(user: UserId) -> Missing {
    Missing {
        user,
        device: DeviceId::random(),
        from: Seq(3),
    }
}

/// Returns a session of the device as presence knows it.
pub fn online(missing: &Missing, gateway: &str, session: u64) -> LiveSession {
    LiveSession {
        user_id: missing.user.to_vec().into(),
        device_id: missing.device.to_vec().into(),
        gateway: gateway.to_owned(),
        session,
    }
}

/// Returns a session of the device as its gateway knows it.
pub fn here(missing: &Missing, session: u64) -> FoundSession {
    FoundSession {
        user_id: missing.user.to_vec().into(),
        device_id: missing.device.to_vec().into(),
        session,
    }
}
