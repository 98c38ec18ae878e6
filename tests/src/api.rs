//! The unary services, called as a back end (API key) or a device (access token).

use tern_proto::v1::admin_client::AdminClient;
use tern_proto::v1::auth_client::AuthClient;
use tern_proto::v1::chats_client::ChatsClient;
use tern_proto::v1::devices_client::DevicesClient;
use tern_proto::v1::inbox_client::InboxClient;
use tern_proto::v1::media_client::MediaClient;
use tern_proto::v1::users_client::UsersClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A caller with its credentials.
#[derive(Clone)]
pub struct Api {
    channel: Channel,
    bearer: Bearer,
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
pub type Caller = InterceptedService<Channel, Bearer>;

impl Api {
    /// Makes a caller with an API key or an access token.
    pub fn new(channel: Channel, credential: &str) -> Self {
        let value = format!("Bearer {credential}")
            .parse()
            .expect("a credential is ASCII");
        Self {
            channel,
            bearer: Bearer(Some(value)),
        }
    }

    /// Makes a caller without credentials.
    pub fn anonymous(channel: Channel) -> Self {
        Self {
            channel,
            bearer: Bearer(None),
        }
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

    pub fn inbox(&self) -> InboxClient<Caller> {
        InboxClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn admin(&self) -> AdminClient<Caller> {
        AdminClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn media(&self) -> MediaClient<Caller> {
        MediaClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn auth(&self) -> AuthClient<Caller> {
        AuthClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }
}
