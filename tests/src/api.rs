//! The unary services, called as a back end (API key) or a device (access token). A call is made again while the
//! platform answers UNAVAILABLE, as a client does.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use tern_proto::v1::admin_client::AdminClient;
use tern_proto::v1::auth_client::AuthClient;
use tern_proto::v1::chats_client::ChatsClient;
use tern_proto::v1::devices_client::DevicesClient;
use tern_proto::v1::groups_client::GroupsClient;
use tern_proto::v1::inbox_client::InboxClient;
use tern_proto::v1::media_client::MediaClient;
use tern_proto::v1::push_client::PushClient;
use tern_proto::v1::users_client::UsersClient;
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tower::{Service, ServiceExt as _};

use crate::bounds::{BOUND, PAUSE};

/// A caller with its credentials.
#[derive(Clone)]
pub struct Api {
    channel: Patient,
    bearer: Bearer,
}

/// A channel that makes a call again while the platform answers UNAVAILABLE. On a busy machine a node may not be
/// reached for a moment, or may not get a connection to the store in time. Every unary call may be repeated.
#[derive(Clone)]
pub struct Patient {
    channel: Channel,
    patience: Duration,
}

impl Service<http::Request<Body>> for Patient {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Each attempt waits until the channel is ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { channel, patience } = self.clone();
        Box::pin(async move {
            let end = Instant::now() + patience;
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a message in memory").to_bytes();
            loop {
                let body = Body::new(Full::new(body.clone()));
                let attempt = http::Request::from_parts(head.clone(), body);
                let answer = channel.clone().oneshot(attempt).await?;
                let status = Status::from_header_map(answer.headers());
                let away = status.is_some_and(|status| status.code() == Code::Unavailable);
                if !away || Instant::now() >= end {
                    return Ok(answer);
                }
                sleep(PAUSE).await;
            }
        })
    }
}

/// Adds the credentials to each call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// The channel of a service client, with credentials.
pub type Caller = InterceptedService<Patient, Bearer>;

impl Api {
    /// Makes a caller with an API key or an access token.
    pub fn new(channel: Channel, credential: &str) -> Self {
        let value = format!("Bearer {credential}")
            .parse()
            .expect("a credential is ASCII");
        Self::patient(channel, Some(value))
    }

    /// Makes a caller without credentials.
    pub fn anonymous(channel: Channel) -> Self {
        Self::patient(channel, None)
    }

    fn patient(channel: Channel, value: Option<MetadataValue<Ascii>>) -> Self {
        let patience = BOUND;
        Self {
            channel: Patient { channel, patience },
            bearer: Bearer(value),
        }
    }

    /// Returns the same caller, which makes each call once and so sees UNAVAILABLE.
    #[must_use]
    pub fn once(self) -> Self {
        let patience = Duration::ZERO;
        let channel = Patient {
            patience,
            ..self.channel
        };
        Self { channel, ..self }
    }

    pub fn users(&self) -> UsersClient<Caller> {
        UsersClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn devices(&self) -> DevicesClient<Caller> {
        DevicesClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn chats(&self) -> ChatsClient<Caller> {
        ChatsClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn groups(&self) -> GroupsClient<Caller> {
        GroupsClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn inbox(&self) -> InboxClient<Caller> {
        InboxClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn admin(&self) -> AdminClient<Caller> {
        AdminClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn media(&self) -> MediaClient<Caller> {
        MediaClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn push(&self) -> PushClient<Caller> {
        PushClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn auth(&self) -> AuthClient<Caller> {
        AuthClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }
}
