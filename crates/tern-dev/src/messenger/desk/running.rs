//! Carries out the commands about how a chat is run: its description and rules, invite links, who asks to join, and how
//! long its messages stay.

use std::collections::HashMap;

use tern_client::{Chat, InviteOptions, Joined};
use tern_proto::v1::{GroupPolicy, Invite, Retention};
use tern_types::{ChatId, Clock, Timestamp, UserId};

use super::chats::resolve;
use super::{Desk, Update};
use crate::messenger::clock;
use crate::messenger::command::{Rule, Running};
use crate::messenger::words::{self, clean};

/// The text of `/description` that removes the description.
const NONE: &str = "-";

impl Desk {
    /// Carries out a command about how the open chat is run.
    pub(super) fn run(&mut self, running: Running) {
        match running {
            Running::Disappear(after) => self.disappear(after),
            Running::Description(text) => self.describe(text),
            Running::Policy(rules) => self.set_rules(&rules),
            Running::Owner(name) => self.hand_over(name),
            Running::Invite { once, approval } => self.invite(once, approval),
            Running::Invites => self.list_invites(),
            Running::Revoke(nth) => self.revoke(nth),
            Running::Join { chat, token } => self.join(chat, token),
            Running::Requests => self.list_requests(),
            Running::Answer { who, accept } => self.answer(who, accept),
        }
    }

    fn disappear(&self, after: Option<u32>) {
        let Some(chat) = self.chat_open().and_then(|_| self.open_chat()) else {
            return;
        };
        let Some(disappear_after_s) = after else {
            return self.notice(format!("messages here: {}", words::retention(&chat.retention)));
        };
        let id = chat.id;
        let retention = Retention {
            disappear_after_s,
            ..chat.retention
        };
        self.spawn(move |client, _| async move {
            client.set_retention(id, retention).await?;
            Ok(())
        });
    }

    fn describe(&self, text: Option<String>) {
        let Some(chat) = self.group() else { return };
        let Some(text) = text else {
            let description = match chat.description.as_str() {
                "" => "this group has no description".to_owned(),
                description => clean(description),
            };
            return self.notice(description);
        };
        let id = chat.id;
        self.spawn(move |client, _| async move {
            let text = if text == NONE { "" } else { text.as_str() };
            client.set_description(id, text).await?;
            Ok(())
        });
    }

    fn set_rules(&self, rules: &[Rule]) {
        let Some(chat) = self.group() else { return };
        if rules.is_empty() {
            return self.notice(words::policy(&chat.policy));
        }
        let (id, mut policy) = (chat.id, chat.policy);
        rules.iter().for_each(|rule| apply(*rule, &mut policy));
        self.spawn(move |client, _| async move {
            client.set_policy(id, policy).await?;
            Ok(())
        });
    }

    fn hand_over(&self, name: String) {
        let Some(chat) = self.group().map(|chat| chat.id) else {
            return;
        };
        let (back_end, known) = (self.back_end.clone(), self.known(&[name]));
        self.spawn(move |client, _| async move {
            for user in resolve(back_end.as_ref(), known).await? {
                client.hand_over(chat, user).await?;
            }
            Ok(())
        });
    }

    fn invite(&self, once: bool, approval: bool) {
        let Some(chat) = self.group().map(|chat| chat.id) else {
            return;
        };
        let options = InviteOptions {
            max_uses: once.into(),
            needs_approval: approval,
            ..Default::default()
        };
        self.spawn(move |client, updates| async move {
            let invite = client.create_invite(chat, options).await?;
            let link = format!("tern:{chat}/{}", invite.token);
            let (title, lines) = ("who types /join with this text joins the group", vec![link]);
            let _ = updates.send(Update::Lines { title, lines }).await;
            Ok(())
        });
    }

    fn list_invites(&self) {
        let Some(chat) = self.group().map(|chat| chat.id) else {
            return;
        };
        self.spawn(move |client, updates| async move {
            let invites = client.invites(chat).await?;
            let ids = invites.iter().map(|invite| invite.invite_id.clone()).collect();
            let people = invites
                .iter()
                .filter_map(|invite| invite.created_by_user_id.parse().ok());
            let names = client
                .names(people.collect::<Vec<UserId>>())
                .await
                .unwrap_or_default();
            let now = Clock::wall();
            let line = |(index, invite): (usize, &Invite)| {
                format!("{}. {}", index + 1, invite_line(invite, &names, now))
            };
            let lines: Vec<String> = invites.iter().enumerate().map(line).collect();
            let _ = updates.send(Update::Invites { chat, ids }).await;
            let title = "invite links (/revoke 1 ends the first)";
            let told = if lines.is_empty() {
                Update::Notice("this group has no invite links".to_owned())
            } else {
                Update::Lines { title, lines }
            };
            let _ = updates.send(told).await;
            Ok(())
        });
    }

    fn revoke(&self, nth: usize) {
        let Some(chat) = self.group().map(|chat| chat.id) else {
            return;
        };
        let shown = self.view.invites.as_ref().filter(|(of, _)| *of == chat);
        let id = shown.and_then(|(_, ids)| ids.get(nth.checked_sub(1)?));
        let Some(id) = id.cloned() else {
            return self.notice(format!("there is no link {nth}: /invites lists them"));
        };
        self.spawn(move |client, updates| async move {
            client.revoke_invite(chat, &id).await?;
            let told = "nobody can join by this link any more".to_owned();
            let _ = updates.send(Update::Notice(told)).await;
            Ok(())
        });
    }

    fn join(&self, chat: ChatId, token: String) {
        self.spawn(move |client, updates| async move {
            let group = client.look_up_invite(chat, &token).await?;
            match client.join_by_invite(chat, &token).await? {
                Joined::Member(_) => {
                    let chat = client.fetch_chat(chat).await?;
                    let id = chat.id;
                    let _ = updates.send(Update::Made(Box::new(chat))).await;
                    let _ = updates.send(Update::Open(id)).await;
                }
                Joined::Requested => {
                    let title = clean(&group.title);
                    let told = format!("you asked to join “{title}”: somebody there has to let you in");
                    let _ = updates.send(Update::Notice(told)).await;
                }
            }
            Ok(())
        });
    }

    fn list_requests(&self) {
        let Some(chat) = self.group().map(|chat| chat.id) else {
            return;
        };
        self.spawn(move |client, updates| async move {
            let requests = client.join_requests(chat).await?;
            let people = requests.iter().filter_map(|request| request.user_id.parse().ok());
            let names = client
                .names(people.collect::<Vec<UserId>>())
                .await
                .unwrap_or_default();
            // The person types these names to accept and to refuse those who ask.
            let _ = updates.send(Update::Names(names.clone())).await;
            let now = Clock::wall();
            let lines: Vec<String> = requests
                .iter()
                .map(|request| {
                    let name = name_of(&request.user_id, &names);
                    let since = clock::ago(Timestamp(request.requested_at_ms), now);
                    format!("{name} asks to join, since {since}")
                })
                .collect();
            let title = "/accept a name, or /refuse it";
            let told = if lines.is_empty() {
                Update::Notice("nobody asks to join".to_owned())
            } else {
                Update::Lines { title, lines }
            };
            let _ = updates.send(told).await;
            Ok(())
        });
    }

    fn answer(&self, who: String, accept: bool) {
        let Some(chat) = self.group().map(|chat| chat.id) else {
            return;
        };
        let (back_end, known) = (self.back_end.clone(), self.known(std::slice::from_ref(&who)));
        self.spawn(move |client, updates| async move {
            for user in resolve(back_end.as_ref(), known).await? {
                client.answer_join_request(chat, user, accept).await?;
            }
            let what = if accept { "let in" } else { "refused" };
            let _ = updates.send(Update::Notice(format!("{who} is {what}"))).await;
            Ok(())
        });
    }

    /// Returns the open chat, as far as it is known.
    fn open_chat(&self) -> Option<&Chat> {
        self.view.rooms.get(&self.view.open?)?.chat.as_ref()
    }

    /// Returns the open chat if it is a group. Otherwise tells the user that no group is open, and returns `None`.
    fn group(&self) -> Option<&Chat> {
        let group = self.open_group().and_then(|_| self.open_chat());
        if group.is_none() {
            self.notice("that is for groups: open one first".to_owned());
        }
        group
    }
}

/// Puts a rule into a policy.
fn apply(rule: Rule, policy: &mut GroupPolicy) {
    match rule {
        Rule::Send(role) => policy.send_role = role.into(),
        Rule::Add(role) => policy.add_role = role.into(),
        Rule::Edit(role) => policy.edit_role = role.into(),
        Rule::Slow(seconds) => policy.slow_mode_s = seconds,
        Rule::History(history, entries) => {
            policy.joiner_history = history.into();
            policy.joiner_history_entries = entries;
        }
    }
}

/// Returns what there is to say of an invite link, as in "by Alice, today 14:05 · 3 of 10 have joined". `now` is the time
/// by the wall clock.
fn invite_line(invite: &Invite, names: &HashMap<UserId, String>, now: Timestamp) -> String {
    let by = match invite.created_by_user_id.as_str() {
        "" => "the operator".to_owned(),
        user => name_of(user, names),
    };
    let made = clock::ago(Timestamp(invite.created_at_ms), now);
    let joined = match invite.max_uses {
        0 => format!("{} have joined", invite.uses),
        most => format!("{} of {most} have joined", invite.uses),
    };
    let mut line = format!("by {by}, {made} · {joined}");
    if invite.expires_at_ms > 0 {
        let end = clock::ago(Timestamp(invite.expires_at_ms), now);
        line.push_str(&format!(" · ends {end}"));
    }
    if invite.needs_approval {
        line.push_str(" · who comes by it has to be let in");
    }
    line
}

/// Returns the name of the person with this id, or the id if there is no name.
fn name_of(id: &str, names: &HashMap<UserId, String>) -> String {
    let user = id.parse::<UserId>().ok();
    let name = user.and_then(|user| names.get(&user));
    name.map_or_else(|| id.to_owned(), |name| clean(name))
}

#[cfg(test)]
mod tests {
    use tern_proto::v1;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_invite_link_is_told_by_what_matters() {
        let now = Timestamp(1_700_000_000_000);
        let (alice, today) = (UserId(Uuid::from_u128(1)), format!("today {}", clock::time(now)));
        let names = HashMap::from([(alice, "Alice".to_owned())]);
        let plain = Invite {
            created_by_user_id: alice.to_string(),
            created_at_ms: now.0,
            uses: 3,
            ..Default::default()
        };
        let strict = Invite {
            created_by_user_id: String::new(),
            max_uses: 10,
            expires_at_ms: now.0,
            needs_approval: true,
            ..plain.clone()
        };
        let told = [plain, strict].map(|invite| invite_line(&invite, &names, now));
        let expected = [
            format!("by Alice, {today} · 3 have joined"),
            format!(
                "by the operator, {today} · 3 of 10 have joined · ends {today} · who comes by it has to be let in"
            ),
        ];
        assert_eq!(told, expected);
        assert_eq!(name_of("nobody", &names), "nobody");
    }

    #[test]
    fn a_rule_changes_nothing_but_what_it_names() {
        let before = GroupPolicy {
            send_role: v1::Role::Admin.into(),
            slow_mode_s: 30,
            ..Default::default()
        };
        let mut after = before;
        apply(Rule::History(v1::JoinerHistory::Last, 9), &mut after);
        apply(Rule::Slow(0), &mut after);
        let expected = GroupPolicy {
            slow_mode_s: 0,
            joiner_history: v1::JoinerHistory::Last.into(),
            joiner_history_entries: 9,
            ..before
        };
        assert_eq!(after, expected);
    }
}
