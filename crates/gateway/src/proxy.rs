//! Passes unary calls of clients on, as bytes, to the nodes that answer them.
//!
//! A node that does not own the chat, or the user, says so in the metadata of its answer. The call is then routed
//! again, a few times, each time after this gateway's map has caught up. A request carries a request_id if doing it
//! twice would matter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use tern_cluster::routing::{self, CHAT, MAP_VERSION};
use tern_cluster::{NodeContext, Role};
use tern_identity::principal::Principal;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_telemetry::request_id::REQUEST_ID;
use tern_transport::connections::{ClientAddress, Connection};
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
use crate::refused::{malformed, told, unknown_method, unreadable};
use crate::{deadline, metrics, peek, presence_query};

/// The most bytes of a node's answer: a page of the largest entries.
const MAX_RESPONSE_BYTES: usize = tern_cluster::links::MAX_LINK_MESSAGE_BYTES;
/// The most times that a call is routed again.
const REROUTES: usize = 3;
/// The pause before a node is asked again whose map may be behind this gateway's.
const PAUSE: Duration = Duration::from_millis(100);

/// The keys of a client's metadata that are passed on: its trace context and the id of the call. Credentials
/// and keys that begin with `tern-` are not passed on.
const PASSED_ON: [&str; 3] = ["traceparent", "tracestate", REQUEST_ID];

/// The proxy that authenticates, limits and passes on the unary calls of clients.
pub struct Proxy {
    ctx: NodeContext,
    auth: Arc<Auth>,
    limits: CallLimits,
    methods: HashMap<String, Method>,
}

impl Proxy {
    /// Makes a proxy for all methods of the protos. `Err` if the descriptors do not decode.
    pub fn new(ctx: NodeContext, auth: Arc<Auth>, limits: CallLimits) -> anyhow::Result<Self> {
        Ok(Self {
            ctx,
            auth,
            limits,
            methods: methods::all()?,
        })
    }

    /// Answers one HTTP request to a unary method.
    pub async fn serve(self: Arc<Self>, request: http::Request<Body>) -> http::Response<Body> {
        let Some(method) = self.methods.get(request.uri().path()).cloned() else {
            return unknown_method().into_http();
        };
        tonic::server::Grpc::new(BytesCodec)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .client_streaming(Call { proxy: self, method }, request)
            .await
    }

    async fn call(&self, method: &Method, request: Request<Streaming<Bytes>>) -> Result<Bytes, Status> {
        let (metadata, extensions, mut messages) = request.into_parts();
        let mut onward = MetadataMap::new();
        let mut known = None;
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
            known = Some(caller);
        } else {
            self.limits.take_stranger(ClientAddress::of(&extensions)).await?;
        }
        for key in PASSED_ON {
            if let Some(value) = metadata.get(key) {
                onward.insert(key, value.clone());
            }
        }
        tern_telemetry::propagate(&mut onward);
        let message = only_message(&mut messages).await?;
        drop(messages);
        let chat = chat_of(method.target, known.as_deref(), &message);
        self.route(method, chat, onward, message).await
    }

    /// Asks the node that the call belongs to, and the next one if that node does not own the chat or the user.
    async fn route(
        &self,
        method: &Method,
        mut chat: Option<ChatId>,
        metadata: MetadataMap,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        let mut reroutes = 0;
        loop {
            let answer = self.ask(method, chat, metadata.clone(), message.clone()).await;
            let status = match answer {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let Some((version, named)) = not_owner(&status).filter(|_| reroutes < REROUTES) else {
                return Err(match status.code() {
                    // The node is older than this gateway.
                    Code::Unimplemented => unknown_method(),
                    _ => told(status),
                });
            };
            reroutes += 1;
            metrics::rerouted("call");
            chat = named.or(chat);
            self.catch_up(version).await;
        }
    }

    /// Asks one node, found by the map as it is now. Waits for a while if there is none.
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
            (Target::Push, _) => map.any(Role::Push),
            (Target::Chat | Target::OwnLog | Target::AnyChat, Some(chat)) => {
                map.owner(Role::Chat, Slot::of_chat(chat))
            }
            (Target::Chat | Target::OwnLog | Target::AnyChat, None) => map.any(Role::Chat),
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

    /// Waits until the map is at least of `version`, for a while. If it is already, waits a little: the node may be
    /// behind.
    async fn catch_up(&self, version: i64) {
        let mut map = self.ctx.map.clone();
        if map.current().version() >= version {
            tokio::time::sleep(PAUSE).await;
            return;
        }
        let caught_up = async { while map.changed().await.version() < version {} };
        // If the wait was in vain, the next try says what is wrong.
        let _ = timeout(MAP_PATIENCE, caught_up).await;
    }
}

/// Returns the chat whose owner answers a call. `None` if another node than a chat's owner does, or the request names no
/// chat.
fn chat_of(target: Target, caller: Option<&Principal>, message: &[u8]) -> Option<ChatId> {
    match target {
        Target::Chat => peek::chat_id(message),
        Target::OwnLog => match caller {
            Some(Principal::Device { user, .. }) => Some(ChatId::own(*user)),
            Some(Principal::Key { .. }) | None => peek::user_id(message).map(ChatId::own),
        },
        Target::Accounts
        | Target::Media
        | Target::Push
        | Target::AnyChat
        | Target::PresenceOwner
        | Target::Presence => None,
    }
}

/// Reads the call's one message. `Err` if it cannot be read or there is none.
async fn only_message(messages: &mut Streaming<Bytes>) -> Result<Bytes, Status> {
    let message = messages.message().await.map_err(unreadable)?;
    message.ok_or_else(malformed)
}

/// Returns the map's version and the chat in the answer of a node that is not the owner. `None` for any other status.
fn not_owner(status: &Status) -> Option<(i64, Option<ChatId>)> {
    let version = routing::not_owner(status)?;
    let chat = status.metadata().get(CHAT);
    let chat = chat.and_then(|chat| chat.to_str().ok()?.parse().ok());
    Some((version, chat))
}

/// One call of a method, as tonic's service.
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
            let bound = method.answer_within.filter(|bound| *bound < deadline);
            let answer = timeout(bound.unwrap_or(deadline), proxy.call(&method, request)).await;
            let answer = answer.unwrap_or_else(|_| {
                Err(match bound {
                    Some(_) => ApiError::unavailable("the chat's node takes too long"),
                    None => {
                        let message = format!("the call took longer than {deadline:?}");
                        ApiError::new(ErrorReason::TimedOut, message)
                    }
                }
                .into())
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

/// A codec that passes messages on as bytes, without decoding them.
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

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tern_proto::v1;
    use tern_types::{DeviceId, UserId};

    use super::*;

    /// Whatever a device claims, its call goes to its own user's log. The node refuses the claim.
    #[test]
    fn a_call_about_an_own_log_goes_to_that_of_the_device_or_of_the_user_who_is_named() {
        let (user, other) = (UserId::random(), UserId::random());
        let device = Principal::Device {
            user,
            device: DeviceId::random(),
        };
        let key = Principal::Key {
            key_id: "k".to_owned(),
            scopes: Vec::new(),
        };
        let request = |user_id: &str| {
            let request = v1::SetChatSettingsRequest {
                user_id: user_id.to_owned(),
                chat_id: ChatId::direct(user, other).to_string(),
                ..v1::SetChatSettingsRequest::default()
            };
            request.encode_to_vec()
        };
        let named = other.to_string();
        for (caller, user_id, expected) in [
            (&device, "", Some(ChatId::own(user))),
            (&device, named.as_str(), Some(ChatId::own(user))),
            (&key, named.as_str(), Some(ChatId::own(other))),
            (&key, "", None),
            (&key, "nobody", None),
        ] {
            let chat = chat_of(Target::OwnLog, Some(caller), &request(user_id));
            assert_eq!(chat, expected, "{caller:?} {user_id}");
        }
        assert_eq!(chat_of(Target::AnyChat, Some(&device), &request(&named)), None);
    }
}
