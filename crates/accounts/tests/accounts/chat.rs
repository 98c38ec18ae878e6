//! A stand-in for a chat node, with the calls that accounts nodes make.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sqlx::PgPool;
use tern_proto::ApiError;
use tern_proto::internal::chat_node_server::ChatNode;
use tern_proto::internal::{
    AppendOwnRequest, AppendOwnResponse, BlocksChangedRequest, BlocksChangedResponse, HaveWrittenRequest,
    HaveWrittenResponse, LinkDeviceRequest, LinkDeviceResponse, ReadInboxRequest, ReadInboxResponse,
    UnlinkDeviceRequest, UnlinkDeviceResponse,
};
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ErrorReason};
use tern_types::{ChatId, DeviceId, RequestId, UserId};
use tonic::{Request, Response, Status};

/// The stand-in.
#[derive(Clone)]
pub struct Chat {
    pool: PgPool,
    /// The number of next calls that fail.
    failures: Arc<AtomicUsize>,
    unlinked: Arc<Mutex<Vec<DeviceId>>>,
    /// The devices that cannot be unlinked.
    stuck: Arc<Mutex<Vec<DeviceId>>>,
    /// The pairs (sender, recipient) of which the sender has written to the recipient.
    written: Arc<Mutex<Vec<(UserId, UserId)>>>,
    /// The chats whose blocks were said to have changed, each with the number of blocks that the store had then.
    blocks: Arc<Mutex<Vec<(ChatId, i64)>>>,
    /// The version of the map by which the node says it owns nothing, or 0 if it owns everything.
    owns_nothing_by: Arc<AtomicI64>,
    /// The entries of own logs, with the user and the request_id of each.
    own: Arc<Mutex<Vec<(UserId, RequestId, v1::AccountChanged)>>>,
    /// The reason with which the node refuses entries of own logs, if it does.
    refuses_own: Arc<Mutex<Option<ErrorReason>>>,
}

impl Chat {
    pub fn new(pool: &PgPool) -> Self {
        Self {
            pool: pool.clone(),
            failures: Arc::default(),
            unlinked: Arc::default(),
            stuck: Arc::default(),
            written: Arc::default(),
            blocks: Arc::default(),
            owns_nothing_by: Arc::default(),
            own: Arc::default(),
            refuses_own: Arc::default(),
        }
    }

    /// Returns what the user's own log says, in order.
    pub fn own_log(&self, user: UserId) -> Vec<(v1::AccountChange, String)> {
        let own = self.own.lock().unwrap();
        let of_user = own.iter().filter(|(of, ..)| *of == user);
        of_user
            .map(|(.., entry)| (entry.change(), entry.subject_id.clone()))
            .collect()
    }

    /// Makes the node refuse entries of own logs with this reason; `None`: it takes them.
    pub fn refuse_own(&self, reason: Option<ErrorReason>) {
        *self.refuses_own.lock().unwrap() = reason;
    }

    /// Makes the node say that `from` has written to `to`.
    pub fn writes(&self, from: UserId, to: UserId) {
        self.written.lock().unwrap().push((from, to));
    }

    pub fn blocks(&self) -> Vec<(ChatId, i64)> {
        self.blocks.lock().unwrap().clone()
    }

    /// Makes the node answer that it is not the owner, by the map of this version; 0 makes it the owner again.
    pub fn owns_nothing_by(&self, version: i64) {
        self.owns_nothing_by.store(version, Ordering::SeqCst);
    }

    /// Makes the next `calls` calls fail as UNAVAILABLE.
    pub fn fail(&self, calls: usize) {
        self.failures.store(calls, Ordering::SeqCst);
    }

    /// Makes the node fail to unlink these devices, which no other attempt mends.
    pub fn sticks(&self, devices: &[DeviceId]) {
        self.stuck.lock().unwrap().extend(devices);
    }

    /// Returns the devices that the node was told to unlink and did, in order.
    pub fn unlinked(&self) -> Vec<DeviceId> {
        self.unlinked.lock().unwrap().clone()
    }

    fn work(&self) -> Result<(), Status> {
        let less = |failures: usize| failures.checked_sub(1);
        match self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        {
            Ok(_) => Err(Status::unavailable("told to fail")),
            Err(_) => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl ChatNode for Chat {
    async fn read_inbox(&self, _: Request<ReadInboxRequest>) -> Result<Response<ReadInboxResponse>, Status> {
        Err(Status::unimplemented("accounts never asks"))
    }

    async fn have_written(
        &self,
        request: Request<HaveWrittenRequest>,
    ) -> Result<Response<HaveWrittenResponse>, Status> {
        self.work()?;
        let request = request.into_inner();
        let to = UserId::from_slice(&request.to_user_id).unwrap();
        let written = self.written.lock().unwrap();
        let has = |id: &[u8]| {
            let other = UserId::from_slice(id).unwrap();
            let pair = if request.reversed {
                (to, other)
            } else {
                (other, to)
            };
            written.contains(&pair)
        };
        let from_user_ids = request.from_user_ids.into_iter().filter(|id| has(id));
        Ok(Response::new(HaveWrittenResponse {
            from_user_ids: from_user_ids.collect(),
        }))
    }

    async fn blocks_changed(
        &self,
        request: Request<BlocksChangedRequest>,
    ) -> Result<Response<BlocksChangedResponse>, Status> {
        self.work()?;
        assert!(request.metadata().contains_key("tern-map-version"));
        let chat = ChatId::from_slice(&request.into_inner().chat_id).unwrap();
        let count = sqlx::query_scalar("SELECT count(*) FROM blocks")
            .fetch_one(&self.pool)
            .await
            .unwrap();
        self.blocks.lock().unwrap().push((chat, count));
        match self.owns_nothing_by.load(Ordering::SeqCst) {
            0 => Ok(Response::new(BlocksChangedResponse {})),
            version => {
                let mut status = Status::unavailable("the chat belongs to another node");
                status.metadata_mut().insert("tern-not-owner", version.into());
                Err(status)
            }
        }
    }

    async fn append_own(
        &self,
        request: Request<AppendOwnRequest>,
    ) -> Result<Response<AppendOwnResponse>, Status> {
        if let Some(reason) = *self.refuses_own.lock().unwrap() {
            return Err(ApiError::new(reason, "told to refuse").into());
        }
        assert!(request.metadata().contains_key("tern-map-version"));
        let AppendOwnRequest {
            user_id,
            request_id,
            content,
        } = request.into_inner();
        let content: v1::EntryContent = v1::Entry {
            content,
            ..Default::default()
        }
        .decoded_content()
        .unwrap();
        let Some(Content::AccountChanged(changed)) = content.content else {
            panic!("{content:?}")
        };
        let (user, request) = (
            UserId::from_slice(&user_id).unwrap(),
            RequestId::from_slice(&request_id).unwrap(),
        );
        let mut own = self.own.lock().unwrap();
        if !own.iter().any(|(of, known, _)| (*of, *known) == (user, request)) {
            own.push((user, request, changed));
        }
        Ok(Response::new(AppendOwnResponse { seq: 1 }))
    }

    async fn link_device(
        &self,
        request: Request<LinkDeviceRequest>,
    ) -> Result<Response<LinkDeviceResponse>, Status> {
        self.work()?;
        let request = request.into_inner();
        let (user, device) = (
            UserId::from_slice(&request.user_id).unwrap(),
            DeviceId::from_slice(&request.device_id).unwrap(),
        );
        sqlx::query(
            "UPDATE devices SET active = true WHERE device_id = $1 AND user_id = $2 AND revoked_at IS NULL",
        )
        .bind(device.0)
        .bind(user.0)
        .execute(&self.pool)
        .await
        .unwrap();
        let changed = v1::AccountChanged {
            change: v1::AccountChange::DeviceLinked.into(),
            subject_id: device.to_string(),
        };
        let content = v1::EntryContent {
            content: Some(Content::AccountChanged(changed)),
            ..Default::default()
        };
        let note = "INSERT INTO own_log_outbox (user_id, request_id, number, content) VALUES ($1, $2, 1, $3)
                    ON CONFLICT DO NOTHING";
        sqlx::query(note)
            .bind(user.0)
            .bind(device.0)
            .bind(content.encoded().to_vec())
            .execute(&self.pool)
            .await
            .unwrap();
        Ok(Response::new(LinkDeviceResponse::default()))
    }

    async fn unlink_device(
        &self,
        request: Request<UnlinkDeviceRequest>,
    ) -> Result<Response<UnlinkDeviceResponse>, Status> {
        self.work()?;
        let device = DeviceId::from_slice(&request.into_inner().device_id).unwrap();
        if self.stuck.lock().unwrap().contains(&device) {
            return Err(Status::internal("told to fail"));
        }
        self.unlinked.lock().unwrap().push(device);
        Ok(Response::new(UnlinkDeviceResponse::default()))
    }
}
