//! Serves `tern.v1.Groups`: how groups are run, invite links, and requests to join. Its calls begin like those of
//! `tern.v1.Chats`.

use tern_proto::v1;
use tern_proto::v1::groups_server::Groups;
use tern_store::Pools;
use tonic::{Request, Response, Status};

use super::caller::Callers;
use super::chats::call::Calls;
use super::chats::running::Running;
use super::invites::Invites;
use super::writes::Writes;
use crate::own::OwnLogs;
use crate::store::seal::MasterKey;

/// The public service of groups.
pub struct GroupsService {
    running: Running,
    invites: Invites,
}

impl GroupsService {
    /// Wires the service.
    pub fn new(writes: Writes, pools: Pools, master: MasterKey, own: OwnLogs) -> Self {
        let calls = Calls {
            callers: Callers::new(pools.people().clone()),
            writes,
            pools: pools.clone(),
        };
        Self {
            running: Running { calls: calls.clone() },
            invites: Invites {
                calls,
                pools,
                master,
                own,
            },
        }
    }
}

#[tonic::async_trait]
impl Groups for GroupsService {
    async fn set_description(
        &self,
        request: Request<v1::SetDescriptionRequest>,
    ) -> Result<Response<v1::SetDescriptionResponse>, Status> {
        self.running.set_description(request).await.map(Response::new)
    }

    async fn set_policy(
        &self,
        request: Request<v1::SetPolicyRequest>,
    ) -> Result<Response<v1::SetPolicyResponse>, Status> {
        self.running.set_policy(request).await.map(Response::new)
    }

    async fn freeze(
        &self,
        request: Request<v1::FreezeRequest>,
    ) -> Result<Response<v1::FreezeResponse>, Status> {
        self.running.freeze(request).await.map(Response::new)
    }

    async fn create_invite(
        &self,
        request: Request<v1::CreateInviteRequest>,
    ) -> Result<Response<v1::CreateInviteResponse>, Status> {
        self.invites.create_invite(request).await.map(Response::new)
    }

    async fn list_invites(
        &self,
        request: Request<v1::ListInvitesRequest>,
    ) -> Result<Response<v1::ListInvitesResponse>, Status> {
        self.invites.list_invites(request).await.map(Response::new)
    }

    async fn revoke_invite(
        &self,
        request: Request<v1::RevokeInviteRequest>,
    ) -> Result<Response<v1::RevokeInviteResponse>, Status> {
        self.invites.revoke_invite(request).await.map(Response::new)
    }

    async fn look_up_invite(
        &self,
        request: Request<v1::LookUpInviteRequest>,
    ) -> Result<Response<v1::LookUpInviteResponse>, Status> {
        self.invites.look_up_invite(request).await.map(Response::new)
    }

    async fn join_by_invite(
        &self,
        request: Request<v1::JoinByInviteRequest>,
    ) -> Result<Response<v1::JoinByInviteResponse>, Status> {
        self.invites.join_by_invite(request).await.map(Response::new)
    }

    async fn list_join_requests(
        &self,
        request: Request<v1::ListJoinRequestsRequest>,
    ) -> Result<Response<v1::ListJoinRequestsResponse>, Status> {
        self.invites.list_join_requests(request).await.map(Response::new)
    }

    async fn answer_join_request(
        &self,
        request: Request<v1::AnswerJoinRequestRequest>,
    ) -> Result<Response<v1::AnswerJoinRequestResponse>, Status> {
        self.invites.answer_join_request(request).await.map(Response::new)
    }

    async fn withdraw_join_request(
        &self,
        request: Request<v1::WithdrawJoinRequestRequest>,
    ) -> Result<Response<v1::WithdrawJoinRequestResponse>, Status> {
        self.invites
            .withdraw_join_request(request)
            .await
            .map(Response::new)
    }
}
