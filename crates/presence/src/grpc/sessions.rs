//! Answers push nodes, which ask before they push who has a live session, and at which of them a person is.

use tern_cluster::standing::Standing;
use tern_proto::internal::{ActiveSession, GetSessionsRequest, GetSessionsResponse};
use tonic::Status;

use super::ids;
use crate::hub::{Hub, Patience};

/// The most users in one GetSessions request: those of a batch of pushes.
const MAX_ASKED: usize = 256;

/// Answers with the live sessions of these users. `Err` if an id is malformed or there are too many.
pub async fn sessions(
    hub: &Hub,
    standing: &Standing,
    request: GetSessionsRequest,
) -> Result<GetSessionsResponse, Status> {
    if request.user_ids.len() > MAX_ASKED {
        return Err(Status::invalid_argument(format!("at most {MAX_ASKED} users")));
    }
    let users = ids(&request.user_ids)?;
    hub.catch_up(
        request.map_version,
        users.iter().copied(),
        &mut Patience::default(),
    )
    .await;
    let map_version = *hub.version().borrow();
    let mut sessions = Vec::new();
    let found = hub.active_sessions(&users, |session, active| {
        sessions.push(ActiveSession {
            user_id: session.user.to_vec().into(),
            device_id: session.device.to_vec().into(),
            active,
        });
    });
    Ok(GetSessionsResponse {
        map_version,
        sessions,
        not_owner: found.is_err(),
        // The standing is read after the sessions, as for look-ups.
        unsure: found.is_ok_and(|is_sure| !is_sure) || !standing.is_held(),
    })
}
