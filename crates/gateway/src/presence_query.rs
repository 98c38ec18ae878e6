//! Answers `PresenceQuery`: the gateway asks the presence nodes that own the users.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use prost::Message as _;
use tern_cluster::{NodeContext, Role};
use tern_identity::principal::{Principal, Scope};
use tern_proto::internal::GetStatesRequest;
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::v1::{GetPresenceRequest, GetPresenceResponse, Presence, PresenceState};
use tern_proto::{ApiError, parse};
use tern_types::{Slot, UserId};
use tonic::Status;

use crate::{nodes, refused};

/// The most users of one call.
const MAX_USERS: usize = 256;
/// The number of rounds in which nodes are asked. Another round is needed if a node's map, or this gateway's, is
/// behind.
const ROUNDS: usize = 4;
/// The pause after the first round. Each further pause is longer by as much.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers GetPresence. Users who do not exist are shown as hidden. `Err` if the caller is no API key with the scope
/// `presence:read`, if the request is malformed or names too many users, or if a presence node cannot be asked.
pub async fn get_presence(ctx: &NodeContext, caller: &Principal, request: Bytes) -> Result<Bytes, Status> {
    caller.key(Scope::PresenceRead)?;
    let request = GetPresenceRequest::decode(request).map_err(|_| refused::malformed())?;
    if request.user_ids.len() > MAX_USERS {
        return Err(ApiError::invalid("user_ids", &format!("at most {MAX_USERS}")).into());
    }
    let users = request.user_ids.iter().map(|id| parse::id("user_ids", id));
    let users = users.collect::<Result<Vec<UserId>, _>>()?;
    let known = states(ctx, &users).await?;
    let presences = users.iter().map(|user| {
        known.get(user).cloned().unwrap_or_else(|| Presence {
            user_id: user.to_string(),
            state: PresenceState::Hidden.into(),
            last_seen_ms: 0,
        })
    });
    let response = GetPresenceResponse {
        presences: presences.collect(),
    };
    Ok(response.encode_to_vec().into())
}

/// Returns the presence of those users who exist.
async fn states(ctx: &NodeContext, users: &[UserId]) -> Result<HashMap<UserId, Presence>, Status> {
    let mut known = HashMap::new();
    let mut missing: Vec<UserId> = users.to_vec();
    for round in 0..ROUNDS {
        let mut by_node: HashMap<String, Vec<UserId>> = HashMap::new();
        let mut version = 0;
        for user in std::mem::take(&mut missing) {
            let slot = Slot::of_user(user);
            let (node, map_version) = nodes::find(&ctx.map, |map| map.owner(Role::Presence, slot)).await?;
            version = map_version;
            by_node.entry(node.address).or_default().push(user);
        }
        let asked = by_node
            .into_iter()
            .map(|(address, users)| ask(ctx, address, users, version));
        for (users, states) in try_join_all(asked).await? {
            match states {
                Some(states) => known.extend(states),
                None => missing.extend(users),
            }
        }
        if missing.is_empty() {
            return Ok(known);
        }
        tokio::time::sleep(PAUSE * (round as u32 + 1)).await;
    }
    Err(ApiError::unavailable("the presence nodes change").into())
}

/// The users that a node was asked for, and its answer. `None` if some of them belong to another node.
type Asked = (Vec<UserId>, Option<Vec<(UserId, Presence)>>);

/// Asks the presence node at `address`.
async fn ask(
    ctx: &NodeContext,
    address: String,
    users: Vec<UserId>,
    map_version: i64,
) -> Result<Asked, Status> {
    let mut client = PresenceClient::new(ctx.channels.get(&address)?);
    let request = GetStatesRequest {
        map_version,
        user_ids: users.iter().map(|user| user.to_vec().into()).collect(),
    };
    let answer = client
        .get_states(request)
        .await
        .map_err(refused::told)?
        .into_inner();
    if answer.not_owner {
        return Ok((users, None));
    }
    let states = answer.states.iter().filter_map(|state| {
        let user = UserId::from_slice(&state.user_id).ok()?;
        let shown = if state.online {
            PresenceState::Online
        } else {
            PresenceState::Offline
        };
        let presence = Presence {
            user_id: user.to_string(),
            state: shown.into(),
            last_seen_ms: state.last_seen_ms,
        };
        Some((user, presence))
    });
    let states = states.collect();
    Ok((users, Some(states)))
}
