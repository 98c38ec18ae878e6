//! Computes a view from two moments: facts, a line for each node, and alarms. The code is pure.
//!
//! - [`figures`]: computes numbers from the metrics
//! - [`alarms`]: finds what is wrong

mod alarms;
mod figures;

use tern_cluster::shedding::Level;
use tern_proto::v1;

use figures::{Figures, Sweeps, Totals};

use super::page::Page;
use crate::admin::output::{facts, span, table};
use crate::admin::state::State;

/// A snapshot of the platform.
#[derive(Debug, Clone)]
pub struct Moment {
    /// The time of the snapshot in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The map, as the Admin service tells it, or the reason why it does not answer.
    pub map: Result<v1::GetClusterMapResponse, String>,
    /// The queues, as the Admin service tells them, or the reason why it does not answer.
    pub queues: Result<v1::GetQueuesResponse, String>,
    /// The metrics by node name. Nodes whose metrics could not be read are absent.
    pub pages: std::collections::HashMap<String, Page>,
}

/// The severity of a cell or an alarm. `Bad` is shown in red, and an alarm with it makes `--once` fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum Mood {
    #[default]
    Plain,
    Warn,
    Bad,
}

/// A text on the screen with its severity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// The severity.
    pub mood: Mood,
}

/// The columns of the table of nodes.
pub const HEAD: [&str; 11] = [
    "ROLE",
    "NODE",
    "STATE",
    "MAP",
    "SESSIONS",
    "MSG/S",
    "OUT/S",
    "COMMIT P50",
    "P99",
    "QUEUE",
    "SHEDS",
];

/// The content of the screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The facts about the whole platform, as name and value.
    pub facts: Vec<(&'static str, Cell)>,
    /// A row for each role of each node, with the columns of [`HEAD`].
    pub rows: Vec<[Cell; HEAD.len()]>,
    /// The alarms, the worst first.
    pub alarms: Vec<Cell>,
}

impl View {
    /// Computes the view of the time between two moments. Rates are averages over that time.
    pub fn of(before: &Moment, now: &Moment) -> Self {
        let mut view = Self::default();
        let seconds = ((now.at_ms - before.at_ms) as f64 / 1000.0).max(0.001);
        let mut totals = Totals::default();
        match &now.map {
            Ok(map) => {
                for node in &map.nodes {
                    let pages = (before.pages.get(&node.name), now.pages.get(&node.name));
                    let figures = Figures::of(node, pages, seconds);
                    totals.add(node, &figures);
                    view.rows.push(row(node, map.map_version, &figures));
                    view.alarms
                        .extend(alarms::of_node(node, map.map_version, &figures));
                }
                view.alarms.extend(alarms::of_map(before, map));
                view.sweeps(Sweeps::between(before, now, map));
            }
            Err(why) => view
                .alarms
                .push(alarms::bad(format!("the Admin service does not answer: {why}"))),
        }
        view.totals(&totals);
        match &now.queues {
            Ok(queues) => view.queues(queues),
            Err(why) => {
                view.facts.push(("postgres", cell("NO ANSWER", Mood::Bad)));
                view.alarms
                    .push(alarms::bad(format!("nobody can say what waits: {why}")));
            }
        }
        view.alarms.sort_by_key(|alarm| std::cmp::Reverse(alarm.mood));
        view
    }

    /// Formats the view as text, for `--once`.
    pub fn text(&self) -> String {
        let said: Vec<(&str, String)> = self
            .facts
            .iter()
            .map(|(name, cell)| (*name, cell.text.clone()))
            .collect();
        let rows = self.rows.iter().map(|row| row.clone().map(|cell| cell.text));
        let alarms: String = self
            .alarms
            .iter()
            .map(|alarm| format!("! {}\n", alarm.text))
            .collect();
        format!("{}\n{}\n{alarms}", facts(&said), table(HEAD, rows))
    }

    /// Adds the fact and the alarm about the sweeps.
    fn sweeps(&mut self, sweeps: Sweeps) {
        let mood = match (sweeps.new > 0.0, sweeps.total > 0.0) {
            (true, _) => Mood::Bad,
            (_, true) => Mood::Warn,
            _ => Mood::Plain,
        };
        self.facts
            .push(("sweep hits", cell(&format!("{}", sweeps.total), mood)));
        self.alarms.extend(alarms::of_sweeps(sweeps));
    }

    /// Adds the facts about sums over all nodes.
    fn totals(&mut self, totals: &Totals) {
        self.facts
            .insert(0, ("sessions", plain(&count(Some(totals.sessions)))));
        self.facts
            .insert(1, ("messages/s", plain(&rate(Some(totals.messages)))));
        self.facts
            .insert(2, ("deliveries/s", plain(&rate(Some(totals.deliveries)))));
        let (up, of) = (totals.etcd_up, totals.etcd_known);
        let mood = if up < of { Mood::Bad } else { Mood::Plain };
        self.facts
            .push(("etcd", cell(&format!("reached by {up} of {of}"), mood)));
    }

    /// Adds the facts and the alarms about the queues.
    fn queues(&mut self, queues: &v1::GetQueuesResponse) {
        self.facts.push(("postgres", plain("answers")));
        let commits: u64 = queues.unsettled.iter().map(|range| range.commits).sum();
        let oldest = alarms::oldest_unsettled_ms(queues);
        let mood = match oldest > alarms::UNSETTLED_LATE_MS {
            true => Mood::Bad,
            false => Mood::Plain,
        };
        self.facts.push((
            "unsettled",
            cell(&format!("{commits}, oldest {}", span(oldest)), mood),
        ));
        let inbox = queues.inbox.unwrap_or_default();
        let about = if inbox.estimated { "about " } else { "" };
        let text = format!("{about}{} rows, oldest {}", inbox.rows, span(inbox.oldest_age_ms));
        self.facts.push(("inbox", plain(&text)));
        let (busy, waiting) = queues.shards.iter().fold((0, 0), |(busy, waiting), shard| {
            (busy + u64::from(shard.busy), waiting + shard.waiting)
        });
        let text = format!(
            "{busy} of {} at the store, {waiting} commands wait",
            queues.shards.len()
        );
        self.facts.push(("shards", plain(&text)));
        self.alarms.extend(alarms::of_queues(queues));
    }
}

/// Returns the row of one node, with the columns of [`HEAD`].
fn row(node: &v1::ClusterNode, map_version: i64, figures: &Figures) -> [Cell; HEAD.len()] {
    let state = State::of(node);
    let mood = match state {
        State::NoAnswer | State::Restarted | State::Unwell => Mood::Bad,
        State::Draining => Mood::Warn,
        State::Up => Mood::Plain,
    };
    let version = match &node.answer {
        None => "-".to_owned(),
        Some(answer) => answer.map_version.to_string(),
    };
    let late = figures
        .queue
        .is_some_and(|queue| queue >= Level::Typing.threshold().as_secs_f64());
    let sheds = figures.shed_level.is_some_and(|level| level > 0.0);
    let warn = |bad: bool| if bad { Mood::Warn } else { Mood::Plain };
    [
        plain(&node.role),
        plain(&node.name),
        cell(state.as_str(), mood),
        cell(&version, warn(alarms::is_behind(node, map_version))),
        plain(&count(figures.sessions)),
        plain(&rate(figures.messages)),
        plain(&rate(figures.out)),
        plain(&ms(figures.commit[0])),
        plain(&ms(figures.commit[1])),
        cell(&ms(figures.queue), warn(late)),
        cell(&count(figures.shed_level), warn(sheds)),
    ]
}

fn plain(text: &str) -> Cell {
    cell(text, Mood::Plain)
}

fn cell(text: &str, mood: Mood) -> Cell {
    Cell {
        text: text.to_owned(),
        mood,
    }
}

fn count(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.0}"))
}

fn rate(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value < 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

fn ms(seconds: Option<f64>) -> String {
    match seconds {
        None => String::new(),
        Some(seconds) if seconds.is_infinite() => "long".to_owned(),
        Some(seconds) => format!("{:.1} ms", seconds * 1000.0),
    }
}

#[cfg(test)]
mod tests;
