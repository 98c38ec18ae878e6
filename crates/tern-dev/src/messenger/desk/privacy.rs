//! Carries out the commands about blocks, contacts and privacy settings.

use tern_client::{Audience, Client};
use tern_types::UserId;

use super::chats::resolve;
use super::{Desk, Update};
use crate::messenger::command::Setting;

impl Desk {
    pub(super) fn block(&self, name: String) {
        let (back_end, known) = (self.back_end.clone(), self.known(std::slice::from_ref(&name)));
        self.spawn(|client, updates| async move {
            for user in resolve(back_end.as_ref(), known).await? {
                client.block(user).await?;
            }
            let _ = updates.send(Update::Watch).await;
            let notice = format!("{name} is blocked: no messages pass between you");
            let _ = updates.send(Update::Notice(notice)).await;
            Ok(())
        });
    }

    pub(super) fn unblock(&self, name: String) {
        let (back_end, known) = (self.back_end.clone(), self.known(std::slice::from_ref(&name)));
        self.spawn(|client, updates| async move {
            for user in resolve(back_end.as_ref(), known).await? {
                client.unblock(user).await?;
            }
            let _ = updates.send(Update::Watch).await;
            let notice = format!("{name} is not blocked");
            let _ = updates.send(Update::Notice(notice)).await;
            Ok(())
        });
    }

    pub(super) fn blocked(&self) {
        self.spawn(|client, updates| async move {
            let blocked = client.list_blocked().await?;
            let notice = format!("blocked: {}", named(&client, blocked).await);
            let _ = updates.send(Update::Notice(notice)).await;
            Ok(())
        });
    }

    /// Adds these people to the contacts and shows who all contacts are. Without people it only shows them.
    pub(super) fn contacts(&self, people: Vec<String>) {
        let (back_end, known) = (self.back_end.clone(), self.known(&people));
        self.spawn(|client, updates| async move {
            let people = resolve(back_end.as_ref(), known).await?;
            if !people.is_empty() {
                client.change_contacts(&people, &[]).await?;
                let _ = updates.send(Update::Watch).await;
            }
            let contacts = client.list_contacts().await?;
            let notice = format!("contacts: {}", named(&client, contacts).await);
            let _ = updates.send(Update::Notice(notice)).await;
            Ok(())
        });
    }

    /// Removes a person from the contacts.
    pub(super) fn forget(&self, name: String) {
        let (back_end, known) = (self.back_end.clone(), self.known(std::slice::from_ref(&name)));
        self.spawn(|client, updates| async move {
            let people = resolve(back_end.as_ref(), known).await?;
            client.change_contacts(&[], &people).await?;
            let _ = updates.send(Update::Watch).await;
            let notice = format!("{name} is no contact");
            let _ = updates.send(Update::Notice(notice)).await;
            Ok(())
        });
    }

    /// Changes these settings, leaves the others as they are, and shows all of them.
    pub(super) fn privacy(&self, settings: Vec<Setting>) {
        self.spawn(|client, updates| async move {
            let mut privacy = client.privacy().await?;
            for setting in &settings {
                match setting {
                    Setting::SeenBy(audience) => privacy.audience = *audience,
                    Setting::ReadReceipts(on) => privacy.read_receipts_off = !on,
                }
            }
            if !settings.is_empty() {
                privacy = client.set_privacy(privacy).await?;
                let _ = updates.send(Update::Watch).await;
            }
            let seen_by = match privacy.audience {
                Audience::Everyone => "everyone",
                Audience::Nobody => "nobody",
                Audience::Contacts | Audience::Unspecified => "contacts and people you wrote to",
            };
            let receipts = if privacy.read_receipts_off { "off" } else { "on" };
            let notice = format!("seen online by {seen_by}; read receipts {receipts}");
            let _ = updates.send(Update::Notice(notice)).await;
            Ok(())
        });
    }
}

/// Returns the names of people, as in "Bob, Carol", or "nobody". A person without a name is shown by id.
async fn named(client: &Client, people: Vec<UserId>) -> String {
    let names = client.names(people.iter().copied()).await.unwrap_or_default();
    let name = |user: &UserId| names.get(user).cloned().unwrap_or_else(|| user.to_string());
    let names: Vec<String> = people.iter().map(name).collect();
    if names.is_empty() {
        "nobody".to_owned()
    } else {
        names.join(", ")
    }
}
