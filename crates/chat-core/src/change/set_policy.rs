//! The action that gives the group another policy. An admin or an owner may do it, whatever the policy says.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules, at_least};
use crate::ChangeRefusal;
use crate::content::encode;
use crate::entry::EntryKind;
use crate::group::{Group, Role};
use crate::policy::Policy;

pub(super) struct SetPolicy(pub Policy);

impl Rules for SetPolicy {
    fn kind(&self) -> EntryKind {
        EntryKind::ChatUpdated
    }

    fn content(&self, _: UserId) -> Bytes {
        encode(Content::GroupPolicyChanged(v1::GroupPolicyChanged {
            policy: Some(self.0.to_wire()),
        }))
    }

    fn permit(&self, group: &Group, _: UserId, role: Role) -> Result<Permitted, ChangeRefusal> {
        at_least(role, Role::Admin)?;
        Ok(if group.policy == self.0 {
            Permitted::Nothing
        } else {
            Permitted::Entry(Action::SetPolicy(self.0))
        })
    }

    fn apply(&self, group: &mut Group, _: Seq) {
        group.policy = self.0;
    }
}
