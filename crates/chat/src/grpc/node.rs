//! Serves the calls from gateways and other nodes. Any chat node answers them, except [`ChatNode::blocks_changed`] and
//! [`ChatNode::append_own`], which only the chat's owner answers.

use std::time::Duration;

use tern_proto::ApiError;
use tern_proto::internal::chat_node_server::ChatNode;
use tern_proto::internal::{
    AppendOwnRequest, AppendOwnResponse, BlocksChangedRequest, BlocksChangedResponse, DeviceInbox,
    HaveWrittenRequest, HaveWrittenResponse, InboxRow, LinkDeviceRequest, LinkDeviceResponse,
    ReadInboxRequest, ReadInboxResponse, UnlinkDeviceRequest, UnlinkDeviceResponse,
};
use tern_proto::v1::{EntryContent, ErrorReason};
use tern_types::{ChatId, DeviceId, RequestId, UserId};
use tonic::{Request, Response, Status};

use tern_chat_core::change::Action;
use tern_chat_core::change::own::OwnChange;
use tern_chat_core::content::fingerprint;
use tern_chat_core::shard::Event;
use tern_chat_core::target::Windows;
use tern_chat_core::{Change, Outcome, Sending};

use tern_store::Pools;
use tern_store::error::is_conflict;

use super::own_log::OwnLog;
use super::store_failed;
use super::writes::Writes;
use crate::answer;
use crate::epoch::StoreEpoch;
use crate::store::inboxes::Inbox;
use crate::store::{devices, inboxes, people, written};

/// The most devices of one request.
const MAX_DEVICES: usize = 64;
/// The most users of one request: as many as a screen shows.
const MAX_PEOPLE: usize = 256;
/// The largest content of an entry that the server itself appends to an own log, in bytes.
const MAX_NOTE_BYTES: usize = 8 << 10;
/// The most tries of a transaction in all, if deadlocks or serialisation failures end it.
const TRIES: usize = 5;

/// The service for other nodes.
pub struct NodeService {
    writes: Writes,
    own: OwnLog,
    pools: Pools,
    epoch: StoreEpoch,
    windows: Windows,
}

impl NodeService {
    /// Wires the service. `windows` are the times in which messages may be edited and deleted.
    pub fn new(writes: Writes, own: OwnLog, pools: Pools, epoch: StoreEpoch, windows: Windows) -> Self {
        Self {
            writes,
            own,
            pools,
            epoch,
            windows,
        }
    }

    /// Returns the answers for those of the asked devices that have no inbox, because they are not active.
    async fn without_inbox(
        &self,
        asked: &[DeviceId],
        inboxes: &[(DeviceId, Inbox)],
    ) -> Result<Vec<DeviceInbox>, ApiError> {
        let gone = asked.iter().copied();
        let gone: Vec<DeviceId> = gone
            .filter(|device| !inboxes.iter().any(|(active, _)| active == device))
            .collect();
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        let revoked = people::revoked(self.pools.people(), &gone)
            .await
            .map_err(store_failed)?;
        let answer = |device: &DeviceId| DeviceInbox {
            device_id: device.to_vec().into(),
            active: false,
            unknown: !revoked.contains(device),
            ..DeviceInbox::default()
        };
        Ok(gone.iter().map(answer).collect())
    }
}

#[tonic::async_trait]
impl ChatNode for NodeService {
    async fn read_inbox(
        &self,
        request: Request<ReadInboxRequest>,
    ) -> Result<Response<ReadInboxResponse>, Status> {
        let ReadInboxRequest {
            device_ids: asked,
            opens,
            accept_partial,
        } = request.into_inner();
        if asked.len() > MAX_DEVICES {
            return Err(Status::invalid_argument(format!("at most {MAX_DEVICES} devices")));
        }
        let asked = asked.iter().map(|id| device(id)).collect::<Result<Vec<_>, _>>()?;
        let (epoch, number) = self.epoch.read(opens).await.map_err(store_failed)?;
        let read = inboxes::inboxes(&self.pools, &asked)
            .await
            .map_err(store_failed)?;
        let (inboxes, partial) = (read.devices, read.partial);
        if partial && !accept_partial {
            return Err(ApiError::unavailable("a part of the inboxes cannot be read now").into());
        }
        let mut devices: Vec<DeviceInbox> = Vec::with_capacity(asked.len());
        for (device, inbox) in &inboxes {
            let rows = inbox.rows.iter().map(|(chat, from, age_ms)| InboxRow {
                chat_id: chat.to_vec().into(),
                from_seq: from.0,
                age_ms: *age_ms,
            });
            devices.push(DeviceInbox {
                device_id: device.to_vec().into(),
                active: true,
                rows: rows.collect(),
                read_receipts_off: inbox.read_receipts_off,
                suspended: inbox.suspended,
                user_id: inbox.user.to_vec().into(),
                unknown: false,
            });
        }
        devices.extend(self.without_inbox(&asked, &inboxes).await?);
        Ok(Response::new(ReadInboxResponse {
            devices,
            store_epoch: epoch.to_string(),
            stream_number: number.unwrap_or(0),
            partial,
            edit_window_s: seconds(self.windows.edit),
            delete_window_s: seconds(self.windows.delete),
        }))
    }

    async fn have_written(
        &self,
        request: Request<HaveWrittenRequest>,
    ) -> Result<Response<HaveWrittenResponse>, Status> {
        let request = request.into_inner();
        let to = user(&request.to_user_id)?;
        if request.from_user_ids.len() > MAX_PEOPLE {
            return Err(Status::invalid_argument(format!("at most {MAX_PEOPLE} users")));
        }
        let from = request.from_user_ids.iter().map(|id| user(id));
        let from = from.collect::<Result<Vec<_>, _>>()?;
        let written = match request.reversed {
            false => written::have_written(&self.pools, to, &from).await,
            true => written::has_written_to(&self.pools, to, &from).await,
        };
        let written = written.map_err(store_failed)?;
        Ok(Response::new(HaveWrittenResponse {
            from_user_ids: written.iter().map(|user| user.to_vec().into()).collect(),
        }))
    }

    async fn blocks_changed(
        &self,
        request: Request<BlocksChangedRequest>,
    ) -> Result<Response<BlocksChangedResponse>, Status> {
        let chat = ChatId::from_slice(&request.get_ref().chat_id)
            .map_err(|_| Status::invalid_argument("chat_id"))?;
        self.writes.check_owner(chat, request.metadata())?;
        let changed = |origin| Event::BlocksChanged { origin, chat };
        let noted = self.writes.call(chat, changed, Outcome::noted).await?;
        noted.map_err(|refusal| answer::to_error(&refusal))?;
        Ok(Response::new(BlocksChangedResponse {}))
    }

    async fn append_own(
        &self,
        request: Request<AppendOwnRequest>,
    ) -> Result<Response<AppendOwnResponse>, Status> {
        let user = user(&request.get_ref().user_id)?;
        self.writes.check_owner(ChatId::own(user), request.metadata())?;
        let AppendOwnRequest {
            request_id, content, ..
        } = request.into_inner();
        let request =
            RequestId::from_slice(&request_id).map_err(|_| Status::invalid_argument("request_id"))?;
        let decodes = <EntryContent as prost::Message>::decode(content.clone()).is_ok();
        if content.len() > MAX_NOTE_BYTES || !decodes {
            return Err(Status::invalid_argument("content"));
        }
        let change = Change {
            actor: UserId::SYSTEM,
            device: DeviceId::BACK_END,
            request,
            fingerprint: fingerprint([content.as_ref()]),
            action: Action::Own(Box::new(OwnChange::Note(content))),
            sending: Sending::default(),
        };
        let appended = self.own.change(user, change).await?;
        let place = appended.map_err(|refusal| answer::change_to_error(&refusal))?;
        Ok(Response::new(AppendOwnResponse {
            seq: place.map_or(0, |place| place.seq.0),
        }))
    }

    async fn link_device(
        &self,
        request: Request<LinkDeviceRequest>,
    ) -> Result<Response<LinkDeviceResponse>, Status> {
        let request = request.into_inner();
        let (user, device) = (user(&request.user_id)?, device(&request.device_id)?);
        if !past_conflicts(|| devices::link(&self.pools, user, device)).await? {
            return Err(ApiError::new(ErrorReason::DeviceNotFound, "no such device").into());
        }
        Ok(Response::new(LinkDeviceResponse {}))
    }

    async fn unlink_device(
        &self,
        request: Request<UnlinkDeviceRequest>,
    ) -> Result<Response<UnlinkDeviceResponse>, Status> {
        let request = request.into_inner();
        let (user, device) = (user(&request.user_id)?, device(&request.device_id)?);
        past_conflicts(|| devices::unlink(&self.pools, user, device)).await?;
        Ok(Response::new(UnlinkDeviceResponse {}))
    }
}

/// Runs a transaction over a user's chats, and again if a deadlock or a serialisation failure ends it, at most [`TRIES`]
/// times in all. Returns its result, or `Err` if the store fails or the tries are used up.
async fn past_conflicts<T, F>(transaction: impl Fn() -> F) -> Result<T, ApiError>
where
    F: Future<Output = sqlx::Result<T>>,
{
    for _ in 0..TRIES {
        match transaction().await {
            Err(error) if is_conflict(&error) => {}
            done => return done.map_err(store_failed),
        }
    }
    Err(ApiError::unavailable("the user's chats are changing"))
}

fn user(bytes: &[u8]) -> Result<UserId, Status> {
    UserId::from_slice(bytes).map_err(|_| Status::invalid_argument("user_id"))
}

fn device(bytes: &[u8]) -> Result<DeviceId, Status> {
    DeviceId::from_slice(bytes).map_err(|_| Status::invalid_argument("device_id"))
}

/// Returns the time in seconds, as clients are told it. It is at least 1, because 0 says that nothing is known.
fn seconds(window: Duration) -> u32 {
    u32::try_from(window.as_secs()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_told_in_seconds_and_never_as_unknown() {
        let told = [0, 900, u64::from(u32::MAX), u64::MAX].map(|s| seconds(Duration::from_secs(s)));
        assert_eq!(told, [1, 900, u32::MAX, u32::MAX]);
    }
}
