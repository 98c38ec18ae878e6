//! Calls from gateways and accounts nodes; any chat node answers them.

use sqlx::PgPool;
use tern_proto::ApiError;
use tern_proto::internal::chat_node_server::ChatNode;
use tern_proto::internal::{
    BlocksChangedRequest, BlocksChangedResponse, DeviceInbox, HaveWrittenRequest, HaveWrittenResponse,
    InboxRow, LinkDeviceRequest, LinkDeviceResponse, ReadInboxRequest, ReadInboxResponse,
    UnlinkDeviceRequest, UnlinkDeviceResponse,
};
use tern_proto::v1::ErrorReason;
use tern_types::{DeviceId, UserId};
use tonic::{Request, Response, Status};

use super::store_away;
use crate::epoch::StoreEpoch;
use crate::store::{devices, is_conflict, listing};

/// Devices of one question.
const MAX_DEVICES: usize = 64;
/// Tries after deadlocks.
const TRIES: usize = 5;

pub struct NodeService {
    pool: PgPool,
    epoch: StoreEpoch,
}

impl NodeService {
    pub fn new(pool: PgPool, epoch: StoreEpoch) -> Self {
        Self { pool, epoch }
    }
}

#[tonic::async_trait]
impl ChatNode for NodeService {
    async fn read_inbox(
        &self,
        request: Request<ReadInboxRequest>,
    ) -> Result<Response<ReadInboxResponse>, Status> {
        let asked = request.into_inner().device_ids;
        if asked.len() > MAX_DEVICES {
            return Err(Status::invalid_argument("at most 64 devices"));
        }
        let asked = asked.iter().map(|id| device(id)).collect::<Result<Vec<_>, _>>()?;
        let epoch = self.epoch.read().await.map_err(store_away)?;
        let inboxes = listing::inboxes(&self.pool, &asked).await.map_err(store_away)?;
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
                read_receipts_off: false,
                suspended: inbox.suspended,
            });
        }
        for gone in asked
            .iter()
            .filter(|device| !inboxes.iter().any(|(active, _)| active == *device))
        {
            devices.push(DeviceInbox {
                device_id: gone.to_vec().into(),
                active: false,
                rows: Vec::new(),
                read_receipts_off: false,
                suspended: false,
            });
        }
        Ok(Response::new(ReadInboxResponse {
            devices,
            store_epoch: epoch.to_string(),
        }))
    }

    async fn have_written(
        &self,
        _request: Request<HaveWrittenRequest>,
    ) -> Result<Response<HaveWrittenResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn blocks_changed(
        &self,
        _request: Request<BlocksChangedRequest>,
    ) -> Result<Response<BlocksChangedResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn link_device(
        &self,
        request: Request<LinkDeviceRequest>,
    ) -> Result<Response<LinkDeviceResponse>, Status> {
        let request = request.into_inner();
        let (user, device) = (user(&request.user_id)?, device(&request.device_id)?);
        for _ in 0..TRIES {
            match devices::link(&self.pool, user, device).await {
                Ok(true) => return Ok(Response::new(LinkDeviceResponse {})),
                Ok(false) => return Err(ApiError::new(ErrorReason::DeviceNotFound, "no such device").into()),
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(store_away(error).into()),
            }
        }
        Err(ApiError::unavailable("the user's chats are changing").into())
    }

    async fn unlink_device(
        &self,
        request: Request<UnlinkDeviceRequest>,
    ) -> Result<Response<UnlinkDeviceResponse>, Status> {
        let request = request.into_inner();
        let (user, device) = (user(&request.user_id)?, device(&request.device_id)?);
        for _ in 0..TRIES {
            match devices::unlink(&self.pool, user, device).await {
                Ok(()) => return Ok(Response::new(UnlinkDeviceResponse {})),
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(store_away(error).into()),
            }
        }
        Err(ApiError::unavailable("the user's chats are changing").into())
    }
}

fn user(bytes: &[u8]) -> Result<UserId, Status> {
    UserId::from_slice(bytes).map_err(|_| Status::invalid_argument("user_id"))
}

fn device(bytes: &[u8]) -> Result<DeviceId, Status> {
    DeviceId::from_slice(bytes).map_err(|_| Status::invalid_argument("device_id"))
}
