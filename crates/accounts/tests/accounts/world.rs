//! The test world: an accounts node on a database of its own, with stand-ins for the nodes that it calls.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::PgPool;
use tern_accounts::accounts::{Accounts, Limits, TokenMaker};
use tern_accounts::grpc::Service;
use tern_accounts::peers::Peers;
use tern_accounts::store::Store;
use tern_cluster::{ClusterMap, MapHandle, Node, NodeContext, Role};
use tern_identity::principal::{Principal, Scope};
use tern_local::Shared;
use tern_proto::error::reason_of;
use tern_proto::internal::accounts_admin_client::AccountsAdminClient;
use tern_proto::internal::accounts_admin_server::AccountsAdminServer;
use tern_proto::internal::accounts_node_client::AccountsNodeClient;
use tern_proto::internal::accounts_node_server::AccountsNodeServer;
use tern_proto::internal::chat_node_server::ChatNodeServer;
use tern_proto::internal::gateway_node_server::{GatewayNode, GatewayNodeServer};
use tern_proto::internal::{
    CloseDevicesRequest, CloseDevicesResponse, PrivacyChangedRequest, PrivacyChangedResponse,
    SuspensionChangedRequest, SuspensionChangedResponse,
};
use tern_proto::v1::auth_client::AuthClient;
use tern_proto::v1::auth_server::AuthServer;
use tern_proto::v1::devices_client::DevicesClient;
use tern_proto::v1::devices_server::DevicesServer;
use tern_proto::v1::users_client::UsersClient;
use tern_proto::v1::users_server::UsersServer;
use tern_proto::v1::{self, ErrorReason};
use tern_store::postgres::{self, PostgresArgs};
use tern_store::schema;
use tern_types::{DeviceId, RequestId, UserId};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use crate::chat::Chat;

/// The time for which access tokens are valid.
pub const TTL: Duration = Duration::from_secs(3600);
/// The number of new strangers that one user may watch in a day.
pub const NEW_STRANGERS: usize = 20;

/// An accounts node with its database, and the stand-ins that it calls.
pub struct World {
    pub pool: PgPool,
    pub accounts: Arc<Accounts>,
    pub chat: Chat,
    pub gateways: Gateways,
    pub ctx: NodeContext,
    /// The signing key in PEM.
    pub pem: String,
    pub database_url: String,
    pub channel: Channel,
    _servers: Shared,
}

impl World {
    pub async fn start() -> Self {
        let servers = Shared::get().await.unwrap();
        let database_url = servers.database().await.unwrap();
        let args = PostgresArgs::from_url(&database_url).unwrap();
        let wanted = schema::Wanted {
            cells: None,
            citus: servers.is_citus(),
        };
        schema::migrate(&args, wanted).await.unwrap();
        let pool = postgres::pool(&args).await.unwrap();

        let chat = Chat::new(&pool);
        let gateways = Gateways::default();
        let mut nodes = vec![(
            Role::Chat,
            node("c1", &serve(Routes::new(ChatNodeServer::new(chat.clone()))).await),
        )];
        for name in ["g1", "g2"] {
            let address = serve(Routes::new(GatewayNodeServer::new(gateways.clone()))).await;
            nodes.push((Role::Gateway, node(name, &address)));
        }
        // Nothing listens at this address, as for a gateway that has just died.
        nodes.push((Role::Gateway, node("g3", "127.0.0.1:1")));
        let ctx = NodeContext::alone("a1", 1, MapHandle::fixed(ClusterMap::new(1, nodes)));

        let pem = tern_identity::token::generate_pem().unwrap();
        let accounts = accounts(&pool, &ctx, &pem);
        let service = Service::new(accounts.clone(), TaskTracker::new());
        let mut routes = RoutesBuilder::default();
        routes.add_service(UsersServer::new(service.clone()));
        routes.add_service(DevicesServer::new(service.clone()));
        routes.add_service(AccountsAdminServer::new(service.clone()));
        routes.add_service(AuthServer::new(service.clone()));
        routes.add_service(AccountsNodeServer::new(service));
        let channel = ctx.channels.get(&serve(routes.routes()).await).unwrap();
        Self {
            pool,
            accounts,
            chat,
            gateways,
            ctx,
            pem,
            database_url,
            channel,
            _servers: servers,
        }
    }

    /// Returns another node on the same store, with another signing key.
    pub fn with_new_signing_key(&self) -> Arc<Accounts> {
        accounts(
            &self.pool,
            &self.ctx,
            &tern_identity::token::generate_pem().unwrap(),
        )
    }

    pub fn users(&self) -> UsersClient<Channel> {
        UsersClient::new(self.channel.clone())
    }

    pub fn devices(&self) -> DevicesClient<Channel> {
        DevicesClient::new(self.channel.clone())
    }

    pub fn operator(&self) -> AccountsAdminClient<Channel> {
        AccountsAdminClient::new(self.channel.clone())
    }

    pub fn node(&self) -> AccountsNodeClient<Channel> {
        AccountsNodeClient::new(self.channel.clone())
    }

    pub fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    /// Makes a user whose display name is the external id in capitals.
    pub async fn user(&self, external_id: &str) -> UserId {
        let request = v1::CreateUserRequest {
            external_id: external_id.into(),
            display_name: external_id.to_uppercase(),
        };
        let created = self
            .users()
            .create_user(by(&admin(), request))
            .await
            .unwrap()
            .into_inner();
        created.user.unwrap().user_id.parse().unwrap()
    }

    /// Links a new device of the user.
    pub async fn link(&self, user: UserId) -> v1::LinkDeviceResponse {
        self.devices()
            .link_device(by(&admin(), link_request(user)))
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn device_ids(&self, user: UserId) -> Vec<String> {
        let request = v1::ListDevicesRequest {
            user_id: user.to_string(),
        };
        let listed = self
            .devices()
            .list_devices(by(&admin(), request))
            .await
            .unwrap()
            .into_inner();
        listed
            .devices
            .into_iter()
            .map(|device| device.device_id)
            .collect()
    }

    pub async fn refresh(&self, token: &str) -> Result<v1::TokenPair, ErrorReason> {
        let request = v1::RefreshTokenRequest {
            refresh_token: token.into(),
        };
        let answer = self.auth().refresh_token(request).await;
        answer
            .map(|answer| answer.into_inner().tokens.unwrap())
            .map_err(|status| reason(&status))
    }
}

pub fn accounts(pool: &PgPool, ctx: &NodeContext, pem: &str) -> Arc<Accounts> {
    let tokens = TokenMaker::from_pem(pem, TTL).unwrap();
    Arc::new(Accounts::new(
        Store::new(pool.clone()),
        Peers::new(ctx.clone()),
        tokens,
        Limits {
            new_strangers: NEW_STRANGERS,
        },
    ))
}

pub fn link_request(user: UserId) -> v1::LinkDeviceRequest {
    v1::LinkDeviceRequest {
        user_id: user.to_string(),
        request_id: RequestId::random().to_string(),
        display_name: "phone".into(),
        platform: "ios".into(),
    }
}

/// Makes a request with this caller in its metadata, as the gateway passes it on.
pub fn by<T>(principal: &Principal, request: T) -> Request<T> {
    let mut request = Request::new(request);
    principal.write(request.metadata_mut());
    request
}

pub fn key(scopes: &[Scope]) -> Principal {
    Principal::Key {
        key_id: "k1".into(),
        scopes: scopes.to_vec(),
    }
}

pub fn admin() -> Principal {
    key(&[Scope::Admin])
}

pub fn device(linked: &v1::LinkDeviceResponse) -> Principal {
    let device = linked.device.as_ref().unwrap();
    Principal::Device {
        user: device.user_id.parse().unwrap(),
        device: device.device_id.parse().unwrap(),
    }
}

pub fn reason(status: &Status) -> ErrorReason {
    reason_of(status).unwrap_or_else(|| panic!("{status:?}"))
}

pub fn node(name: &str, address: &str) -> Node {
    Node {
        name: name.into(),
        address: address.into(),
        admin: String::new(),
        incarnation: 1,
        ..Node::default()
    }
}

/// Serves the routes on a free port, and returns the address.
pub async fn serve(routes: Routes) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(
        Server::builder()
            .add_routes(routes)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    address
}

/// A stand-in for all gateways: the devices that were to be closed, the users whose privacy changed (with read
/// receipts off or on), and the suspensions, once for each gateway that was told.
#[derive(Clone, Default)]
pub struct Gateways {
    closed: Arc<Mutex<Vec<DeviceId>>>,
    privacy: Arc<Mutex<Vec<(UserId, bool)>>>,
    suspensions: Arc<Mutex<Vec<SuspensionChangedRequest>>>,
}

impl Gateways {
    /// Returns the changes of privacy since the last call.
    pub fn take_privacy(&self) -> Vec<(UserId, bool)> {
        std::mem::take(&mut self.privacy.lock().unwrap())
    }

    /// Returns the devices that gateways were told to close, once for each gateway.
    pub fn told(&self) -> Vec<DeviceId> {
        self.closed.lock().unwrap().clone()
    }

    /// Returns the suspensions, once for each gateway that was told.
    pub fn suspensions(&self) -> Vec<SuspensionChangedRequest> {
        self.suspensions.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl GatewayNode for Gateways {
    async fn privacy_changed(
        &self,
        request: Request<PrivacyChangedRequest>,
    ) -> Result<Response<PrivacyChangedResponse>, Status> {
        let users = request.into_inner().users.into_iter();
        let users = users.map(|user| (UserId::from_slice(&user.user_id).unwrap(), user.read_receipts_off));
        self.privacy.lock().unwrap().extend(users);
        Ok(Response::new(PrivacyChangedResponse {}))
    }

    async fn close_devices(
        &self,
        request: Request<CloseDevicesRequest>,
    ) -> Result<Response<CloseDevicesResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.code, i32::from(v1::CloseCode::DeviceRevoked));
        let devices = request
            .device_ids
            .iter()
            .map(|id| DeviceId::from_slice(id).unwrap());
        self.closed.lock().unwrap().extend(devices);
        Ok(Response::new(CloseDevicesResponse { closed: 1 }))
    }

    async fn suspension_changed(
        &self,
        request: Request<SuspensionChangedRequest>,
    ) -> Result<Response<SuspensionChangedResponse>, Status> {
        self.suspensions.lock().unwrap().push(request.into_inner());
        Ok(Response::new(SuspensionChangedResponse { closed: 1 }))
    }
}
