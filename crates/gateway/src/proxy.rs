//! Unary calls of clients, passed on as bytes to the node that answers them.
//!
//! A chat node that is not the owner says so in the metadata of its answer: the call is routed again when this gateway's
//! map has caught up, a few times. Requests carry request_ids where doing them twice would matter.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use tern_node::connections::{ClientAddress, Connection};
use tern_node::request_id::REQUEST_ID;
use tern_node::{NodeContext, Role, telemetry};
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::limits::MAX_REQUEST_BYTES;
use tern_types::{ChatId, Slot};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::ClientStreamingService;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::auth::Auth;
use crate::call_limits::CallLimits;
use crate::methods::{self, Method, Target};
use crate::nodes::{self, MAP_PATIENCE};
use crate::{deadline, metrics, peek, presence_query};

/// An answer of a node: a page of the largest entries.
const MAX_RESPONSE_BYTES: usize = tern_node::links::MAX_LINK_MESSAGE_BYTES;
/// How often a call is routed again.
const REROUTES: usize = 3;
/// Between two tries of a node that is behind this gateway's map.
const PAUSE: Duration = Duration::from_millis(100);

/// Sent along: this gateway's version of the map.
const MAP_VERSION: &str = "tern-map-version";
/// In the answer of a node that is not the owner: its version of the map, and the chat.
const NOT_OWNER: &str = "tern-not-owner";
const CHAT: &str = "tern-chat";
/// How a node's tonic begins its INTERNAL for bytes that do not decode: it is the caller's fault.
const UNDECODABLE: &str = "failed to decode Protobuf message";
/// What of a client's metadata goes on: the trace, and the call's name. Credentials and anything `tern-*` stay here.
const PASSED_ON: [&str; 3] = ["traceparent", "tracestate", REQUEST_ID];

/// See the module.
pub struct Proxy {
    ctx: NodeContext,
    auth: Arc<Auth>,
    limits: CallLimits,
    methods: HashMap<String, Method>,
}

impl Proxy {
    pub fn new(ctx: NodeContext, auth: Arc<Auth>, limits: CallLimits) -> anyhow::Result<Self> {
        Ok(Self {
            ctx,
            auth,
            limits,
            methods: methods::all()?,
        })
    }

    /// One HTTP request to a unary method.
    pub async fn serve(self: Arc<Self>, request: http::Request<Body>) -> http::Response<Body> {
        let Some(method) = self.methods.get(request.uri().path()).cloned() else {
            return Status::unimplemented("there is no such method").into_http();
        };
        tonic::server::Grpc::new(BytesCodec)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .client_streaming(Call { proxy: self, method }, request)
            .await
    }

    async fn call(&self, method: &Method, request: Request<Streaming<Bytes>>) -> Result<Bytes, Status> {
        let (metadata, extensions, mut messages) = request.into_parts();
        let mut onward = MetadataMap::new();
        if method.authenticated {
            let caller = self.auth.principal(&metadata).await?;
            self.limits.take(&caller, &method.path).await?;
            if let Some(connection) = Connection::of(&extensions) {
                connection.known();
            }
            if method.target == Target::Presence {
                let message = only_message(&mut messages).await?;
                return presence_query::get_presence(&self.ctx, &caller, message).await;
            }
            caller.write(&mut onward);
        } else {
            self.limits.take_stranger(ClientAddress::of(&extensions)).await?;
        }
        for key in PASSED_ON {
            if let Some(value) = metadata.get(key) {
                onward.insert(key, value.clone());
            }
        }
        telemetry::propagate(&mut onward);
        let message = only_message(&mut messages).await?;
        drop(messages);
        self.route(method, onward, message).await
    }

    async fn route(&self, method: &Method, metadata: MetadataMap, message: Bytes) -> Result<Bytes, Status> {
        let mut chat = match method.target {
            Target::Chat => peek::chat_id(&message),
            Target::Accounts | Target::Media | Target::AnyChat | Target::PresenceOwner | Target::Presence => {
                None
            }
        };
        let mut reroutes = 0;
        loop {
            let answer = self.ask(method, chat, metadata.clone(), message.clone()).await;
            let status = match answer {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let Some((version, named)) = not_owner(&status).filter(|_| reroutes < REROUTES) else {
                return Err(told(status));
            };
            reroutes += 1;
            metrics::rerouted("call");
            chat = named.or(chat);
            self.catch_up(version).await;
        }
    }

    async fn ask(
        &self,
        method: &Method,
        chat: Option<ChatId>,
        metadata: MetadataMap,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        let (node, version) = nodes::find(&self.ctx.map, |map| match (method.target, chat) {
            (Target::Accounts, _) => map.any(Role::Accounts),
            (Target::Presence, _) => map.any(Role::Presence),
            (Target::Media, _) => map.any(Role::Media),
            (Target::Chat | Target::AnyChat, Some(chat)) => map.owner(Role::Chat, Slot::of_chat(chat)),
            (Target::Chat | Target::AnyChat, None) => map.any(Role::Chat),
            (Target::PresenceOwner, _) => match peek::user_id(&message) {
                Some(user) => map.owner(Role::Presence, Slot::of_user(user)),
                None => map.any(Role::Presence),
            },
        })
        .await?;
        let channel = self.ctx.channels.get(&node.address)?;
        let mut request = Request::from_parts(metadata, Default::default(), message);
        request
            .metadata_mut()
            .insert(MAP_VERSION, MetadataValue::from(version));
        let path = PathAndQuery::try_from(method.onward.as_str())
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
        client
            .ready()
            .await
            .map_err(|error| ApiError::unavailable(format!("the node is away: {error}")))?;
        client
            .unary(request, path, BytesCodec)
            .await
            .map(Response::into_inner)
    }

    /// Waits until the map is at least of `version`; when it is already, a little, for the node may be behind.
    async fn catch_up(&self, version: i64) {
        let mut map = self.ctx.map.clone();
        if map.current().version() >= version {
            tokio::time::sleep(PAUSE).await;
            return;
        }
        let caught_up = async { while map.changed().await.version() < version {} };
        // In vain: the next try says what is wrong.
        let _ = timeout(MAP_PATIENCE, caught_up).await;
    }
}

async fn only_message(messages: &mut Streaming<Bytes>) -> Result<Bytes, Status> {
    let message = messages.message().await.map_err(unreadable)?;
    message.ok_or_else(malformed)
}

/// The map's version and the chat that a node which is not the owner names.
fn not_owner(status: &Status) -> Option<(i64, Option<ChatId>)> {
    let text = |key| status.metadata().get(key).and_then(|value| value.to_str().ok());
    let version = text(NOT_OWNER)?.parse().ok()?;
    Some((version, text(CHAT).and_then(|chat| chat.parse().ok())))
}

/// A node's status as a client is told of it: code, message and details as they are, none of the metadata. A node that
/// did not answer becomes UNAVAILABLE with RetryInfo, a request that it could not decode INVALID_ARGUMENT.
pub fn told(status: Status) -> Status {
    if status.source().is_some() {
        tracing::info!(code = ?status.code(), message = status.message(), "a node did not answer");
        return ApiError::unavailable("the node did not answer").into();
    }
    if status.code() == Code::Internal && status.message().starts_with(UNDECODABLE) {
        return malformed();
    }
    // What a node's decoder, or this one for the answer, says of a message over its limit.
    if status.code() == Code::OutOfRange {
        return too_large();
    }
    Status::with_details(
        status.code(),
        status.message(),
        Bytes::copy_from_slice(status.details()),
    )
}

/// The request cannot be read here.
fn unreadable(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => too_large(),
        // Tonic's word for a frame that is cut off or none at all.
        Code::Internal => malformed(),
        _ => status,
    }
}

fn too_large() -> Status {
    let message = format!("a request has at most {MAX_REQUEST_BYTES} bytes");
    ApiError::new(ErrorReason::TooLarge, message).into()
}

/// As for any message that does not decode.
pub fn malformed() -> Status {
    ApiError::new(
        ErrorReason::ProtocolError,
        "the request is not the method's message",
    )
    .into()
}

struct Call {
    proxy: Arc<Proxy>,
    method: Method,
}

impl ClientStreamingService<Bytes> for Call {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (proxy, method) = (self.proxy.clone(), self.method.clone());
        Box::pin(async move {
            let began = Instant::now();
            let deadline = deadline::of(request.metadata());
            let answer = timeout(deadline, proxy.call(&method, request)).await;
            let answer = answer.unwrap_or_else(|_| {
                let message = format!("the call took longer than {deadline:?}");
                Err(ApiError::new(ErrorReason::TimedOut, message).into())
            });
            metrics::unary(
                &method.path,
                answer.as_ref().map_or_else(Status::code, |_| Code::Ok),
                began.elapsed(),
            );
            answer.map(Response::new)
        })
    }
}

/// Messages as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(message.len());
        dst.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}
