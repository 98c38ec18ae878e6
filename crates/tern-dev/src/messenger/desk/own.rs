//! Tells the user what has changed in their account, and who asks to join their groups.

use tern_proto::v1::AccountChange;
use tern_types::{ChatId, UserId};

use super::{Desk, Update};
use crate::messenger::words::clean;

impl Desk {
    /// Tells the user that somebody asks to join a group.
    pub(super) fn tell_request(&self, chat: ChatId, user: UserId) {
        let title = self.view.title(chat);
        self.spawn(move |client, updates| async move {
            let names = client.names([user]).await.unwrap_or_default();
            let name = names
                .get(&user)
                .map_or_else(|| user.to_string(), |name| clean(name));
            let _ = updates.send(Update::Names(names)).await;
            let told = format!("{name} asks to join {title}: /requests there says more");
            let _ = updates.send(Update::Notice(told)).await;
            Ok(())
        });
    }

    /// Tells the user of a change of their devices, so that they notice one that is not theirs. After other changes they
    /// may see other people than before. `subject` is the device, or the other person.
    pub(super) fn tell_account(&mut self, change: AccountChange, subject: &str) {
        let other = subject != self.client.device().to_string();
        match change {
            AccountChange::DeviceLinked if other => {
                self.notice("a new device of yours was linked".to_owned());
            }
            AccountChange::DeviceRevoked if other => {
                self.notice("a device of yours was revoked".to_owned());
            }
            AccountChange::Blocked
            | AccountChange::Unblocked
            | AccountChange::Contacts
            | AccountChange::Privacy => self.watch_again(),
            AccountChange::DeviceLinked
            | AccountChange::DeviceRevoked
            | AccountChange::Notifications
            | AccountChange::Unspecified => {}
        }
    }
}
