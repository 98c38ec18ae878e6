//! Decides whose presence somebody may see, from the store and from what a chat node knows.

use std::collections::HashSet;
use std::time::Duration;

use tern_proto::ApiError;
use tern_types::{Timestamp, UserId};

use super::Accounts;
use crate::domain::privacy::{self, Observer, Relation, STRANGER_FOR, Sight};
use crate::metrics;

/// The decision about the people that somebody wants to watch. People in neither list are hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watchable {
    /// The people whom the watcher may see.
    pub visible: Vec<UserId>,
    /// Strangers that exceed the day's limit.
    pub limited: Vec<UserId>,
    /// The time until one more stranger may be watched. It is meaningful only if `limited` is not empty.
    pub retry_after: Duration,
}

impl Accounts {
    /// Decides which of `people` (at most 256) the watcher may see. This costs one statement, a call to a chat node if
    /// it matters who has written to the watcher, and a transaction that counts new strangers if there are any. The
    /// watcher always sees themselves.
    pub async fn may_watch(
        &self,
        watcher: UserId,
        people: &[UserId],
        now: Timestamp,
    ) -> Result<Watchable, ApiError> {
        let people = distinct(people);
        let mut asked = people.clone();
        asked.push(watcher);
        let mut relations = self.store.relations(watcher, &asked, now - STRANGER_FOR).await?;
        let Some(own) = relations.iter().find(|(user, _)| *user == watcher) else {
            return Ok(Watchable::default());
        };
        let own = own.1.audience;
        relations.retain(|(user, _)| *user != watcher);
        let unknown = relations
            .iter()
            .filter(|(_, relation)| privacy::sight(own, *relation) == Sight::Unknown);
        let unknown: Vec<UserId> = unknown.map(|(user, _)| *user).collect();
        if !unknown.is_empty() {
            let written = self.peers.have_written(watcher, &unknown).await?;
            note_written(&mut relations, &written);
        }
        let seen = |wanted: Sight| -> Vec<UserId> {
            let seen = relations
                .iter()
                .filter(|(_, relation)| privacy::sight(own, *relation) == wanted);
            seen.map(|(user, _)| *user).collect()
        };
        let mut visible = seen(Sight::Visible);
        visible.extend(people.contains(&watcher).then_some(watcher));
        let strangers: HashSet<UserId> = seen(Sight::Stranger).into_iter().collect();
        // Strangers are admitted in the order in which they were asked for.
        let strangers: Vec<UserId> = people
            .into_iter()
            .filter(|user| strangers.contains(user))
            .collect();
        let mut watchable = Watchable {
            visible,
            ..Default::default()
        };
        if !strangers.is_empty() {
            self.admit_strangers(watcher, &strangers, now, &mut watchable)
                .await?;
        }
        Ok(watchable)
    }

    /// Returns those of `watchers` (at most 256) who may see that the person is online. This costs two statements, and
    /// a call to a chat node if it matters to whom the person has written.
    pub async fn may_see(&self, person: UserId, watchers: &[UserId]) -> Result<Vec<UserId>, ApiError> {
        let Some(privacy) = self.store.privacy(person).await? else {
            return Ok(Vec::new());
        };
        let observers = self.store.observers(person, watchers).await?;
        let sight = |observer: &Observer, written| privacy::is_seen_by(privacy.audience, *observer, written);
        let unknown = observers
            .iter()
            .filter(|(_, observer)| sight(observer, None) == Sight::Unknown);
        let unknown: Vec<UserId> = unknown.map(|(watcher, _)| *watcher).collect();
        let written = match unknown.is_empty() {
            true => Vec::new(),
            false => self.peers.has_written_to(person, &unknown).await?,
        };
        let seen = observers.into_iter().filter(|(watcher, observer)| {
            let written = written.contains(watcher);
            *watcher == person || sight(observer, Some(written)) == Sight::Visible
        });
        Ok(seen.map(|(watcher, _)| watcher).collect())
    }

    /// Counts new strangers against the limit of the last 24 hours, and adds the outcome to `watchable`. The lock of
    /// the watcher's row lets one such count run at a time for each watcher, so that the limit holds for all of the
    /// watcher's devices together.
    async fn admit_strangers(
        &self,
        watcher: UserId,
        strangers: &[UserId],
        now: Timestamp,
        watchable: &mut Watchable,
    ) -> Result<(), ApiError> {
        let mut tx = self.store.begin().await?;
        self.store.lock_user(&mut tx, watcher).await?;
        let day = self.store.strangers(&mut tx, watcher, now - STRANGER_FOR).await?;
        let admission = privacy::admit(&day, strangers, self.limits.new_strangers, now);
        self.store
            .add_strangers(&mut tx, watcher, &admission.new, now)
            .await?;
        self.store.commit(tx).await?;
        metrics::strangers(admission.new.len(), admission.limited.len());
        let limited: HashSet<&UserId> = admission.limited.iter().collect();
        let admitted = strangers.iter().filter(|user| !limited.contains(user));
        watchable.visible.extend(admitted.copied());
        watchable.limited = admission.limited;
        watchable.retry_after = admission.retry_after;
        Ok(())
    }
}

fn note_written(relations: &mut [(UserId, Relation)], written: &[UserId]) {
    let written: HashSet<&UserId> = written.iter().collect();
    for (user, relation) in relations {
        relation.written = Some(written.contains(user));
    }
}

fn distinct(users: &[UserId]) -> Vec<UserId> {
    let mut seen = HashSet::new();
    users.iter().copied().filter(|user| seen.insert(*user)).collect()
}
