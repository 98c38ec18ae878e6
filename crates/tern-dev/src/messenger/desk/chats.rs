//! Finds, opens, creates and changes chats.

use anyhow::Context as _;
use tern_client::{BackEnd, Chat, Client};
use tern_proto::v1::{self, ChatKind};
use tern_types::{ChatId, Clock, RequestId, UserId};

use super::{Desk, Update};
use crate::messenger::setup::capitalised;
use crate::messenger::words;

impl Desk {
    /// Opens the chat that has this title or number, or the direct chat with this person. A person that this device
    /// does not know is looked up at the server.
    pub(super) fn find(&mut self, name: String) {
        if let Some(chat) = self.view.chat_named(&name) {
            return self.open(chat);
        }
        if let Some(person) = self.view.person(&name) {
            return self.open_direct(person);
        }
        let back_end = self.back_end.clone();
        self.spawn(|client, updates| async move {
            let person = person(back_end.as_ref(), &name).await?;
            let chat = ChatId::direct(client.user(), person);
            let _ = updates
                .send(Update::Names([(person, capitalised(&name))].into()))
                .await;
            let names = client.names([person]).await.unwrap_or_default();
            let _ = updates.send(Update::Names(names)).await;
            let _ = updates
                .send(Update::Members {
                    chat,
                    members: vec![person],
                })
                .await;
            let _ = updates.send(Update::Open(chat)).await;
            Ok(())
        });
    }

    /// Opens the direct chat with a person. If nobody has written in it yet, it is shown as an empty chat.
    pub fn open_direct(&mut self, person: UserId) {
        let id = ChatId::direct(self.client.user(), person);
        if self.view.room(id).chat.is_none() {
            self.view.set_chat(empty_direct(id, person));
        }
        self.open(id);
    }

    /// Opens the chat of an [`Update::Open`]. If the chat is not known but one other member is, it is opened as a
    /// direct chat with that person.
    pub fn open_new(&mut self, chat: ChatId) {
        let person = self
            .view
            .room(chat)
            .members
            .iter()
            .copied()
            .find(|user| *user != self.client.user());
        match (self.view.room(chat).chat.is_some(), person) {
            (false, Some(person)) => self.open_direct(person),
            _ => self.open(chat),
        }
    }

    pub(super) fn create_group(&self, title: String, people: Vec<String>) {
        let (back_end, known) = (self.back_end.clone(), self.known(&people));
        self.spawn(|client, updates| async move {
            let members = resolve(back_end.as_ref(), known).await?;
            let chat = client.create_group(&title, &members).await?;
            let id = chat.id;
            let _ = updates.send(Update::Made(Box::new(chat))).await;
            let _ = updates.send(Update::Open(id)).await;
            Ok(())
        });
    }

    pub(super) fn add(&mut self, people: Vec<String>) {
        let (back_end, known) = (self.back_end.clone(), self.known(&people));
        self.in_group(|client, chat_id, request_id| async move {
            let people = resolve(back_end.as_ref(), known).await.map_err(failed)?;
            let user_ids = people.iter().map(ToString::to_string).collect();
            let request = v1::AddMembersRequest {
                chat_id,
                request_id,
                user_ids,
                ..Default::default()
            };
            client.api().add_members(request).await.map(drop)
        });
    }

    pub(super) fn remove(&mut self, name: String) {
        let (back_end, known) = (self.back_end.clone(), self.known(&[name]));
        self.in_group(|client, chat_id, request_id| async move {
            for user in resolve(back_end.as_ref(), known).await.map_err(failed)? {
                let (chat_id, request_id, user_id) = (chat_id.clone(), request_id.clone(), user.to_string());
                let request = v1::RemoveMemberRequest {
                    chat_id,
                    request_id,
                    user_id,
                    ..Default::default()
                };
                client.api().remove_member(request).await?;
            }
            Ok(())
        });
    }

    pub(super) fn set_role(&mut self, who: String, role: v1::Role) {
        let (back_end, known) = (self.back_end.clone(), self.known(&[who]));
        self.in_group(move |client, chat_id, _| async move {
            for user in resolve(back_end.as_ref(), known).await.map_err(failed)? {
                appoint(&client, &chat_id, user, role).await?;
            }
            Ok(())
        });
    }

    /// Leaves the open group. If `heir` is given, that person becomes an owner first.
    pub(super) fn leave(&mut self, heir: Option<String>) {
        let (back_end, heirs) = (self.back_end.clone(), heir.map(|heir| self.known(&[heir])));
        self.in_group(move |client, chat_id, request_id| async move {
            for user in resolve(back_end.as_ref(), heirs.unwrap_or_default())
                .await
                .map_err(failed)?
            {
                appoint(&client, &chat_id, user, v1::Role::Owner).await?;
            }
            let request = v1::LeaveChatRequest {
                chat_id,
                request_id,
                ..Default::default()
            };
            client.api().leave_chat(request).await.map(drop)
        });
    }

    pub(super) fn title(&mut self, title: String) {
        self.in_group(|client, chat_id, request_id| async move {
            let request = v1::UpdateChatRequest {
                chat_id,
                request_id,
                title,
                ..Default::default()
            };
            client.api().update_chat(request).await.map(drop)
        });
    }

    pub(super) fn who(&mut self) {
        let Some(chat) = self.view.open else {
            return self.notice("no chat is open".to_owned());
        };
        self.load_members(chat);
        let members: Vec<UserId> = self.view.room(chat).members.iter().copied().collect();
        let mut names: Vec<String> = members.iter().map(|member| self.view.name(*member)).collect();
        names.sort();
        self.notice(format!("in {}: {}", self.view.title(chat), names.join(", ")));
    }

    /// Lists the chats, those of the archive last.
    pub(super) fn list(&self) {
        let now = Clock::wall();
        let line = |(index, chat): (usize, &&Chat)| {
            let kept = self.view.kept(chat, now);
            let kept = (!kept.is_empty()).then(|| format!(" ({kept})"));
            let title = self.view.title(chat.id);
            format!("{}. {title}{}", index + 1, kept.unwrap_or_default())
        };
        let lines: Vec<String> = self.view.chats().iter().enumerate().map(line).collect();
        self.notice(if lines.is_empty() {
            "no chats yet: /chat bob begins one".to_owned()
        } else {
            lines.join("\n")
        });
    }

    /// Shows the chats of the archive in the list, or folds them again.
    pub(super) fn archived(&mut self) {
        let archived = self.view.listed().archived;
        if archived == 0 {
            return self.notice("no chat is in the archive: /archive puts the open one there".to_owned());
        }
        self.view.archive_open = !self.view.archive_open;
    }

    /// Looks up people by name among those that this device knows. A name that it does not know becomes an `Err`,
    /// which [`resolve`] looks up at the server.
    pub(super) fn known(&self, names: &[String]) -> Vec<Result<UserId, String>> {
        names
            .iter()
            .map(|name| self.view.person(name).ok_or_else(|| name.clone()))
            .collect()
    }

    /// Returns the open chat if it is a group, otherwise `None`.
    pub(in crate::messenger) fn open_group(&self) -> Option<ChatId> {
        let room = self.view.rooms.get(&self.view.open?)?;
        let chat = room.chat.as_ref()?;
        (chat.kind == ChatKind::Group).then_some(chat.id)
    }

    /// Makes a change to the open group as a task of its own. `change` gets the client, the chat's id and a new
    /// request_id. If no group is open, the user is told so.
    fn in_group<F, Fut>(&self, change: F)
    where
        F: FnOnce(Client, String, String) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), tern_client::CallError>> + Send,
    {
        let Some(chat) = self.open_group() else {
            return self.notice("that is for groups: open one first".to_owned());
        };
        self.spawn(move |client, _| async move {
            Ok(change(client, chat.to_string(), RequestId::random().to_string()).await?)
        });
        self.load_members(chat);
    }
}

/// Gives a member of a group a role.
async fn appoint(
    client: &Client,
    chat_id: &str,
    user: UserId,
    role: v1::Role,
) -> Result<(), tern_client::CallError> {
    let request = v1::SetRoleRequest {
        chat_id: chat_id.to_owned(),
        request_id: RequestId::random().to_string(),
        user_id: user.to_string(),
        role: role.into(),
        ..Default::default()
    };
    client.api().set_role(request).await.map(drop)
}

fn empty_direct(id: ChatId, peer: UserId) -> Chat {
    Chat {
        kind: ChatKind::Direct,
        peer: Some(peer),
        member_count: 2,
        role: v1::Role::Member,
        active_at: Clock::wall(),
        ..Chat::unknown(id)
    }
}

/// Finds a person by log-in name, as given or else in lower case. Fails without an API key, or if there is no such
/// person.
async fn person(back_end: Option<&BackEnd>, name: &str) -> anyhow::Result<UserId> {
    let back_end = back_end.context("only people of your chats can be found by name without an API key")?;
    let person = back_end
        .find_user(name)
        .await?
        .or(back_end.find_user(&name.to_lowercase()).await?);
    person.with_context(|| {
        format!("nobody is called {name} yet: they are when they run `tern-dev chat --user {name}`")
    })
}

/// Returns the ids of the people that [`Desk::known`] has looked up. Asks the server for the names that this device
/// does not know. Fails if there is nobody of such a name.
pub(super) async fn resolve(
    back_end: Option<&BackEnd>,
    people: Vec<Result<UserId, String>>,
) -> anyhow::Result<Vec<UserId>> {
    let mut users = Vec::new();
    for known in people {
        users.push(match known {
            Ok(user) => user,
            Err(name) => person(back_end, &name).await?,
        });
    }
    Ok(users)
}

/// Turns a failed look-up into the error of a call, with words for people.
fn failed(error: anyhow::Error) -> tern_client::CallError {
    tern_client::CallError {
        code: tonic::Code::NotFound,
        reason: v1::ErrorReason::Unspecified,
        message: words::fault(&error),
        retry_after: None,
    }
}
