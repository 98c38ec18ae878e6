//! Handles the calls that say how a group is run. Only the chat's owner takes them. Each public method handles the call of
//! its name.

use tern_proto::{parse, v1};
use tern_types::limits::MAX_DESCRIPTION_BYTES;
use tonic::{Request, Status};

use tern_chat_core::change::Action;

use super::call::{Calls, Who};
use crate::grpc::policy::policy;

/// The handlers of the calls that say how a group is run.
pub struct Running {
    pub calls: Calls,
}

impl Running {
    /// Sets a group's description.
    pub async fn set_description(
        &self,
        request: Request<v1::SetDescriptionRequest>,
    ) -> Result<v1::SetDescriptionResponse, Status> {
        let (call, chat) = self.calls.open_change(request, Who::Anybody).await?;
        let text = call.request.description.clone();
        let text = parse::paragraphs("description", text, MAX_DESCRIPTION_BYTES)?;
        let seq = self
            .calls
            .change(&call, chat, Action::SetDescription(text))
            .await?;
        Ok(v1::SetDescriptionResponse { seq })
    }

    /// Sets a group's policy.
    pub async fn set_policy(
        &self,
        request: Request<v1::SetPolicyRequest>,
    ) -> Result<v1::SetPolicyResponse, Status> {
        let (call, chat) = self.calls.open_change(request, Who::Anybody).await?;
        let policy = policy(call.request.policy.as_ref())?;
        let seq = self.calls.change(&call, chat, Action::SetPolicy(policy)).await?;
        Ok(v1::SetPolicyResponse { seq })
    }

    /// Freezes a chat, or ends that.
    pub async fn freeze(&self, request: Request<v1::FreezeRequest>) -> Result<v1::FreezeResponse, Status> {
        let (call, chat) = self.calls.open_change(request, Who::Nobody).await?;
        let seq = self
            .calls
            .change(&call, chat, Action::Freeze(call.request.frozen))
            .await?;
        Ok(v1::FreezeResponse { seq })
    }
}
