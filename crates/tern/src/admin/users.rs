//! `tern admin users`, `devices` and `sessions`: shows users with their devices and live sessions, and suspends
//! users.

use clap::{Args, Subcommand};
use serde::Serialize;
use tern_client::api::Api;
use tern_proto::v1;
use tern_types::{Clock, UserId};

use super::output::{facts, show, table, when};
use super::remark;
use super::remote::Remote;

/// Users: list, show, suspend, resume
#[derive(Subcommand, Clone, Debug)]
pub enum UsersCommand {
    /// Print users, ordered by id
    List(ListArgs),
    /// Print one user with all their devices
    Show(OneArgs),
    /// Keep a user out until `resume`: their streams end at once, and messages to them are kept
    Suspend(OneArgs),
    /// Let a suspended user in again
    Resume(OneArgs),
}

#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Print suspended users only
    #[arg(long)]
    suspended: bool,
    /// Print at most this many users
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args, Clone, Debug)]
pub struct OneArgs {
    /// The user's id, or the external id that the app gave them
    user: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Serialize)]
struct User {
    user_id: String,
    external_id: String,
    display_name: String,
    created_at_ms: i64,
    /// The time of the suspension in milliseconds since the Unix epoch; 0 if the user is not suspended.
    suspended_at_ms: i64,
}

#[derive(Serialize)]
struct Device {
    device_id: String,
    display_name: String,
    platform: String,
    state: &'static str,
    linked_at_ms: i64,
    revoked_at_ms: i64,
    tokens_issued_at_ms: i64,
}

#[derive(Serialize)]
struct UserWithDevices {
    user: User,
    devices: Vec<Device>,
}

/// A live session of a device: an open stream at a gateway.
#[derive(Serialize)]
pub struct Session {
    /// The id of the device.
    pub device_id: String,
    /// The id that the gateway gave the session.
    pub session_id: String,
    /// The name of the gateway's node.
    pub gateway: String,
    /// The beginning of the session in milliseconds since the Unix epoch, by the gateway's clock; 0 if it is not known.
    pub since_ms: i64,
}

#[derive(Serialize)]
struct Change {
    user: User,
    closed: u32,
    gateways_missed: Vec<String>,
}

/// Runs the command to its end.
pub async fn run(command: UsersCommand) -> anyhow::Result<()> {
    match command {
        UsersCommand::List(args) => list(args).await,
        UsersCommand::Show(args) => {
            let (user, devices) = find(&args.remote.api()?, &args.user).await?;
            let both = UserWithDevices { user, devices };
            show(args.remote.json, &both, |both| {
                format!("{}\n{}", user_text(&both.user), devices_text(&both.devices))
            })
        }
        UsersCommand::Suspend(args) => {
            let api = args.remote.api()?;
            let user_id = find(&api, &args.user).await?.0.user_id;
            let done = api.suspend_user(v1::SuspendUserRequest { user_id }).await?;
            changed(&args.remote, done.user, done.closed, done.gateways_missed)
        }
        UsersCommand::Resume(args) => {
            let api = args.remote.api()?;
            let user_id = find(&api, &args.user).await?.0.user_id;
            let done = api.resume_user(v1::ResumeUserRequest { user_id }).await?;
            changed(&args.remote, done.user, 0, done.gateways_missed)
        }
    }
}

/// Runs `tern admin devices`: prints all devices of a user, revoked ones too.
pub async fn devices(args: OneArgs) -> anyhow::Result<()> {
    let (_, devices) = find(&args.remote.api()?, &args.user).await?;
    show(args.remote.json, &devices, |devices| devices_text(devices))
}

/// Runs `tern admin sessions`: prints the live sessions of a user.
pub async fn sessions(args: OneArgs) -> anyhow::Result<()> {
    let api = args.remote.api()?;
    let user_id = find(&api, &args.user).await?.0.user_id;
    let answer = api.list_sessions(v1::ListSessionsRequest { user_id }).await?;
    if answer.sessions_incomplete {
        remark("the presence node does not know all sessions yet: some may be missing")?;
    }
    let sessions: Vec<Session> = answer.sessions.into_iter().map(session).collect();
    let now = Clock::wall();
    show(args.remote.json, &sessions, |sessions| {
        let row = |session: &Session| {
            [
                session.device_id.clone(),
                session.gateway.clone(),
                when(session.since_ms, now),
                session.session_id.clone(),
            ]
        };
        table(
            ["DEVICE", "GATEWAY", "SINCE", "SESSION"],
            sessions.iter().map(row),
        )
    })
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let api = args.remote.api()?;
    let mut users = Vec::new();
    let mut request = v1::ListUsersRequest {
        suspended_only: args.suspended,
        ..Default::default()
    };
    loop {
        request.page_size = u32::try_from(args.limit - users.len())
            .unwrap_or(u32::MAX)
            .clamp(1, 1000);
        let page = api.list_users(request.clone()).await?;
        users.extend(page.users.into_iter().map(user).take(args.limit - users.len()));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || users.len() >= args.limit {
            break;
        }
    }
    if !request.page_token.is_empty() {
        remark("there are more: raise --limit")?;
    }
    let now = Clock::wall();
    show(args.remote.json, &users, |users| {
        let row = |user: &User| {
            [
                user.user_id.clone(),
                user.external_id.clone(),
                user.display_name.clone(),
                when(user.created_at_ms, now),
                when(user.suspended_at_ms, now),
            ]
        };
        table(
            ["USER", "EXTERNAL ID", "NAME", "CREATED", "SUSPENDED"],
            users.iter().map(row),
        )
    })
}

/// Finds a user, with all devices, by user id, or by the app's external id if nobody has this user id. The app's own ids
/// may be UUIDs as well. Fails if there is no such user.
async fn find(api: &Api, text: &str) -> anyhow::Result<(User, Vec<Device>)> {
    let by_id = match text.parse::<UserId>() {
        Ok(id) => by_id(api, id).await?,
        Err(_) => None,
    };
    let found = match by_id {
        Some(found) => found,
        None => {
            let external_id = text.to_owned();
            let request = v1::GetUserRequest {
                external_id,
                ..Default::default()
            };
            api.get_user(request).await?
        }
    };
    let devices = found.devices.into_iter().map(device).collect();
    Ok((user(found.user.unwrap_or_default()), devices))
}

/// Returns the user with this id, or `None` if there is none.
async fn by_id(api: &Api, id: UserId) -> anyhow::Result<Option<v1::GetUserResponse>> {
    let request = v1::GetUserRequest {
        user_id: id.to_string(),
        ..Default::default()
    };
    match api.get_user(request).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.reason == v1::ErrorReason::UserNotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Prints a user who was suspended or resumed. Gateways that did not answer are named on standard error.
fn changed(
    remote: &Remote,
    changed: Option<v1::AdminUser>,
    closed: u32,
    gateways_missed: Vec<String>,
) -> anyhow::Result<()> {
    let change = Change {
        user: user(changed.unwrap_or_default()),
        closed,
        gateways_missed,
    };
    if !change.gateways_missed.is_empty() {
        let missed = change.gateways_missed.join(", ");
        remark(&format!("did not answer, and find out within 30 s: {missed}"))?;
    }
    show(remote.json, &change, |change| {
        format!("{}streams ended  {}\n", user_text(&change.user), change.closed)
    })
}

fn user_text(user: &User) -> String {
    let now = Clock::wall();
    facts(&[
        ("user", user.user_id.clone()),
        ("external id", user.external_id.clone()),
        ("name", user.display_name.clone()),
        ("created", when(user.created_at_ms, now)),
        ("suspended", when(user.suspended_at_ms, now)),
    ])
}

fn devices_text(devices: &[Device]) -> String {
    let now = Clock::wall();
    let row = |device: &Device| {
        [
            device.device_id.clone(),
            device.display_name.clone(),
            device.platform.clone(),
            device.state.to_owned(),
            when(device.linked_at_ms, now),
            when(device.tokens_issued_at_ms, now),
        ]
    };
    let head = ["DEVICE", "NAME", "PLATFORM", "STATE", "LINKED", "TOKENS RENEWED"];
    table(head, devices.iter().map(row))
}

fn user(user: v1::AdminUser) -> User {
    User {
        user_id: user.user_id,
        external_id: user.external_id,
        display_name: user.display_name,
        created_at_ms: user.created_at_ms,
        suspended_at_ms: user.suspended_at_ms,
    }
}

fn device(device: v1::AdminDevice) -> Device {
    let state = match (device.active, device.revoked_at_ms) {
        (true, _) => "active",
        (false, 0) => "being linked",
        (false, _) => "revoked",
    };
    Device {
        device_id: device.device_id,
        display_name: device.display_name,
        platform: device.platform,
        state,
        linked_at_ms: device.linked_at_ms,
        revoked_at_ms: device.revoked_at_ms,
        tokens_issued_at_ms: device.tokens_issued_at_ms,
    }
}

/// Converts a session from its wire form.
pub fn session(session: v1::AdminSession) -> Session {
    Session {
        device_id: session.device_id,
        session_id: session.session_id,
        gateway: session.gateway,
        since_ms: session.since_ms,
    }
}
