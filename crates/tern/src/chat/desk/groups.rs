//! Groups: made, and changed.

use tern_client::{Chat, Client};
use tern_proto::v1::{self, ChatKind};
use tern_types::RequestId;

use super::{Desk, Update, resolve};

impl Desk {
    pub(super) fn create_group(&self, title: String, people: Vec<String>) {
        let (back_end, known) = (self.back_end.clone(), self.known(&people));
        self.spawn(|client, updates| async move {
            let members = resolve(back_end.as_ref(), known).await?;
            let chat = client.create_group(&title, &members).await?;
            let _ = updates.send(Update::Open(chat.id)).await;
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

    pub(super) fn in_group<F, Fut>(&self, change: F)
    where
        F: FnOnce(Client, String, String) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), tern_client::CallError>> + Send,
    {
        let group = |chat: &Chat| chat.kind == ChatKind::Group;
        let open = self.view.open.filter(|id| {
            self.view
                .rooms
                .get(id)
                .and_then(|room| room.chat.as_ref())
                .is_some_and(group)
        });
        let Some(chat) = open else {
            return self.notice("that is for groups: open one first".to_owned());
        };
        self.spawn(move |client, _| async move {
            Ok(change(client, chat.to_string(), RequestId::random().to_string()).await?)
        });
        self.load_members(chat);
    }
}

fn failed(error: anyhow::Error) -> tern_client::CallError {
    tern_client::CallError {
        code: tonic::Code::NotFound,
        reason: v1::ErrorReason::Unspecified,
        message: format!("{error:#}"),
        retry_after: None,
    }
}
