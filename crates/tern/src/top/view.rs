//! Computes what is shown from two moments: facts, a line for each node, and alarms. Pure.

use tern_cluster::Role;
use tern_proto::v1;

use super::page::{Page, quantile};
use crate::admin::output::{facts, span, table};

/// Age from which an unsettled commit is an alarm, in milliseconds. A commit is settled about half a second after it
/// was made, or by the recovery, ten seconds after; one that is older was forgotten by its owner.
const UNSETTLED_LATE_MS: i64 = 12_000;
/// Queueing delay from which a node is shown as late, in seconds. Longer delays make a node shed load.
const QUEUE_LATE_S: f64 = 0.05;

/// A snapshot of the platform.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Answer of the Admin service, or the reason why there is none.
    pub map: Result<v1::GetClusterMapResponse, String>,
    pub queues: Result<v1::GetQueuesResponse, String>,
    /// Metrics by node name. Nodes whose metrics could not be read are absent.
    pub pages: std::collections::HashMap<String, Page>,
}

/// Severity of a cell or an alarm; `Bad` is shown in red and makes `--once` fail.
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
    pub text: String,
    pub mood: Mood,
}

/// Columns of the table of nodes.
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

/// Everything that is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Facts about the whole platform: name and value.
    pub facts: Vec<(&'static str, Cell)>,
    /// One row per node and role, with the columns of [`HEAD`].
    pub rows: Vec<[Cell; HEAD.len()]>,
    /// Alarms, the worst first.
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
                    let line = NodeLine::of(node, pages, seconds);
                    totals.add(node, &line);
                    view.node(node, map.map_version, &line);
                }
                view.missing(before, map);
                view.sweeps(before, now, map);
            }
            Err(why) => view.alarm(Mood::Bad, format!("the Admin service does not answer: {why}")),
        }
        view.totals(&totals);
        view.waiting(now);
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

    fn alarm(&mut self, mood: Mood, text: String) {
        self.alarms.push(Cell { text, mood });
    }

    fn node(&mut self, node: &v1::ClusterNode, map_version: i64, line: &NodeLine) {
        let name = &node.name;
        let (state, mood) = match &node.answer {
            None => ("NO ANSWER", Mood::Bad),
            Some(answer) if node.draining || answer.draining => ("draining", Mood::Warn),
            Some(_) if node.unwell => ("UNWELL", Mood::Bad),
            Some(_) => ("up", Mood::Plain),
        };
        if node.answer.is_none() {
            self.alarm(Mood::Bad, format!("{name} does not answer"));
        } else if node.unwell {
            self.alarm(Mood::Bad, format!("{name} is cut off from what others reach"));
        } else if !line.scraped {
            self.alarm(
                Mood::Warn,
                format!("the metrics of {name} cannot be had at {:?}", node.admin_address),
            );
        }
        let version = node.answer.as_ref().map(|answer| answer.map_version);
        let behind = version.is_some_and(|version| version != map_version);
        if behind {
            self.alarm(Mood::Warn, format!("{name} follows another version of the map"));
        }
        if line.etcd == Some(false) {
            self.alarm(
                Mood::Bad,
                format!("{name} does not reach etcd: its map is frozen"),
            );
        }
        if line.unsafe_settings > 0.0 {
            self.alarm(Mood::Warn, format!("{name}: settings of Postgres are not safe"));
        }
        let sheds = line.shed_level.unwrap_or(0.0);
        if sheds > 0.0 {
            self.alarm(Mood::Warn, format!("{name} gives way under load: level {sheds}"));
        }
        let late = line.queue.is_some_and(|queue| queue > QUEUE_LATE_S);
        let warn = |bad: bool| if bad { Mood::Warn } else { Mood::Plain };
        self.rows.push([
            plain(&node.role),
            plain(name),
            cell(state, mood),
            cell(
                &version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
                warn(behind),
            ),
            plain(&count(line.sessions)),
            plain(&rate(line.messages)),
            plain(&rate(line.out)),
            plain(&ms(line.commit[0])),
            plain(&ms(line.commit[1])),
            cell(&ms(line.queue), warn(late)),
            cell(&count(line.shed_level), warn(sheds > 0.0)),
        ]);
    }

    fn missing(&mut self, before: &Moment, map: &v1::GetClusterMapResponse) {
        // A platform may run without media nodes.
        let needed = Role::ALL.into_iter().filter(|role| *role != Role::Media);
        for role in needed.map(Role::as_str) {
            if !map.nodes.iter().any(|node| node.role == role && !node.draining) {
                self.alarm(Mood::Bad, format!("there is no {role} node"));
            }
        }
        for old in before.map.iter().flat_map(|before| &before.nodes) {
            if !map
                .nodes
                .iter()
                .any(|node| node.name == old.name && node.role == old.role)
            {
                self.alarm(Mood::Warn, format!("{} has left the map", old.name));
            }
        }
    }

    fn sweeps(&mut self, before: &Moment, now: &Moment, map: &v1::GetClusterMapResponse) {
        let found = |moment: &Moment| -> f64 {
            let pages = map.nodes.iter().filter(|node| node.role == "gateway");
            let pages = pages.filter_map(|node| moment.pages.get(&node.name));
            pages
                .filter_map(|page| page.sum("tern_gateway_sweep_found_total", &[]))
                .sum()
        };
        let (total, new) = (found(now), found(now) - found(before));
        let mood = match (new > 0.0, total > 0.0) {
            (true, _) => Mood::Bad,
            (_, true) => Mood::Warn,
            _ => Mood::Plain,
        };
        if new > 0.0 {
            self.alarm(
                Mood::Bad,
                format!("the sweep found {new} rows that were lost on the way"),
            );
        }
        self.facts.push(("sweep hits", cell(&format!("{total}"), mood)));
    }

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

    fn waiting(&mut self, now: &Moment) {
        let queues = match &now.queues {
            Ok(queues) => queues,
            Err(why) => {
                self.facts.push(("postgres", cell("NO ANSWER", Mood::Bad)));
                return self.alarm(Mood::Bad, format!("nobody can say what waits: {why}"));
            }
        };
        self.facts.push(("postgres", plain("answers")));
        let commits: u64 = queues.unsettled.iter().map(|range| range.commits).sum();
        let oldest = queues
            .unsettled
            .iter()
            .map(|range| range.oldest_age_ms)
            .max()
            .unwrap_or(0);
        let late = oldest > UNSETTLED_LATE_MS;
        if late {
            self.alarm(
                Mood::Bad,
                format!("a commit has not been settled for {}", span(oldest)),
            );
        }
        let mood = if late { Mood::Bad } else { Mood::Plain };
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
        for node in &queues.nodes_missed {
            self.alarm(Mood::Bad, format!("{node} does not say how its shards are"));
        }
    }
}

/// The figures of one node. `None` if the node does not have the figure, or its metrics could not be read.
#[derive(Debug, Clone, Default)]
struct NodeLine {
    scraped: bool,
    sessions: Option<f64>,
    messages: Option<f64>,
    out: Option<f64>,
    /// p50 and p99 of the time of a commit, in seconds.
    commit: [Option<f64>; 2],
    /// The longest delay in any of the node's queues, in seconds.
    queue: Option<f64>,
    shed_level: Option<f64>,
    etcd: Option<bool>,
    unsafe_settings: f64,
}

impl NodeLine {
    fn of(node: &v1::ClusterNode, pages: (Option<&Page>, Option<&Page>), seconds: f64) -> Self {
        let (before, Some(now)) = pages else {
            return Self::default();
        };
        let first = Page::default();
        let before = before.unwrap_or(&first);
        // A counter that fell was reset by a restart, so it counts from 0.
        let per_second = |name: &str, labels: &[(&str, &str)]| {
            let (was, is) = (before.sum(name, labels)?, now.sum(name, labels)?);
            Some(if is < was { is } else { is - was } / seconds)
        };
        let shared = Self {
            scraped: true,
            queue: now.max("tern_node_shed_delay_seconds", &[]),
            shed_level: now.sum("tern_node_shed_level", &[("of", "effect")]),
            etcd: now.sum("tern_node_etcd_up", &[]).map(|up| up > 0.0),
            unsafe_settings: unsafe_settings(now),
            ..Self::default()
        };
        let commit = [("kind", "commit")];
        match node.role.as_str() {
            "gateway" => Self {
                sessions: now.sum("tern_gateway_sessions", &[]),
                out: per_second("tern_gateway_events_out_total", &[]),
                ..shared
            },
            "chat" => {
                let buckets = |page: &Page| page.buckets("tern_chat_job_seconds", &commit);
                let (was, is) = (buckets(before), buckets(now));
                Self {
                    messages: per_second("tern_chat_job_items_total", &commit),
                    out: match (
                        per_second("tern_chat_pushes_total", &[]),
                        per_second("tern_chat_window_entries_total", &[]),
                    ) {
                        (None, None) => None,
                        (live, window) => Some(live.unwrap_or(0.0) + window.unwrap_or(0.0)),
                    },
                    commit: [0.5, 0.99].map(|q| quantile(&was, &is, q)),
                    ..shared
                }
            }
            "presence" => Self {
                sessions: now.sum("tern_presence_sessions", &[]),
                ..shared
            },
            _ => shared,
        }
    }
}

/// Returns how many Postgres settings the node reports as unsafe, that is with the value 0.
fn unsafe_settings(page: &Page) -> f64 {
    ["fsync", "full_page_writes", "synchronous_commit"]
        .into_iter()
        .filter_map(|setting| page.sum("tern_node_postgres_setting_safe", &[("setting", setting)]))
        .filter(|safe| *safe < 1.0)
        .count() as f64
}

/// Sums over all nodes of the platform.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    sessions: f64,
    messages: f64,
    deliveries: f64,
    etcd_up: u32,
    etcd_known: u32,
}

impl Totals {
    fn add(&mut self, node: &v1::ClusterNode, line: &NodeLine) {
        match node.role.as_str() {
            "gateway" => self.sessions += line.sessions.unwrap_or(0.0),
            "chat" => {
                self.messages += line.messages.unwrap_or(0.0);
                self.deliveries += line.out.unwrap_or(0.0);
            }
            _ => {}
        }
        if let Some(up) = line.etcd {
            self.etcd_known += 1;
            self.etcd_up += u32::from(up);
        }
    }
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
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn node(role: &str, name: &str, answered: bool) -> v1::ClusterNode {
        v1::ClusterNode {
            role: role.into(),
            name: name.into(),
            admin_address: "h:1".into(),
            answer: answered.then_some(v1::NodeAnswer {
                map_version: 7,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn moment(at_ms: i64, nodes: &[v1::ClusterNode], pages: &[(&str, &str)]) -> Moment {
        let pages = pages
            .iter()
            .map(|(name, page)| ((*name).to_owned(), Page::read(page)));
        Moment {
            at_ms,
            map: Ok(v1::GetClusterMapResponse {
                map_version: 7,
                nodes: nodes.to_vec(),
                ..Default::default()
            }),
            queues: Ok(v1::GetQueuesResponse::default()),
            pages: pages.collect::<HashMap<_, _>>(),
        }
    }

    fn row<'a>(view: &'a View, name: &str) -> Vec<&'a str> {
        let row = view.rows.iter().find(|row| row[1].text == name).unwrap();
        row.iter().map(|cell| &*cell.text).collect()
    }

    fn fact<'a>(view: &'a View, name: &str) -> &'a Cell {
        &view.facts.iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn alarms(view: &View) -> Vec<&str> {
        view.alarms.iter().map(|alarm| &*alarm.text).collect()
    }

    const CHAT: [&str; 2] = [
        "tern_chat_job_items_total{kind=\"commit\",shard=\"0\"} 100\ntern_chat_pushes_total 1000\n\
         tern_chat_job_seconds_bucket{kind=\"commit\",le=\"0.001\"} 0\n\
         tern_chat_job_seconds_bucket{kind=\"commit\",le=\"+Inf\"} 0\ntern_node_etcd_up 1\n",
        "tern_chat_job_items_total{kind=\"commit\",shard=\"0\"} 300\ntern_chat_pushes_total 5000\n\
         tern_chat_job_seconds_bucket{kind=\"commit\",le=\"0.001\"} 60\n\
         tern_chat_job_seconds_bucket{kind=\"commit\",le=\"+Inf\"} 61\ntern_node_etcd_up 1\n\
         tern_node_shed_delay_seconds{signal=\"commit\"} 0.0015\ntern_node_shed_level{of=\"effect\"} 0\n",
    ];

    #[test]
    fn rates_and_quantiles_are_of_what_lies_in_between() {
        let nodes = [
            node("chat", "chat-0", true),
            node("gateway", "gateway-0", true),
            node("presence", "presence-0", true),
            node("accounts", "accounts-0", true),
        ];
        let gateway = "tern_gateway_sessions 12\ntern_gateway_events_out_total 8\ntern_node_etcd_up 1\n";
        let before = moment(0, &nodes, &[("chat-0", CHAT[0]), ("gateway-0", gateway)]);
        let pages = [
            ("chat-0", CHAT[1]),
            ("gateway-0", gateway),
            ("presence-0", ""),
            ("accounts-0", ""),
        ];
        let now = moment(2000, &nodes, &pages);
        let view = View::of(&before, &now);
        assert_eq!(
            row(&view, "chat-0"),
            [
                "chat", "chat-0", "up", "7", "", "100", "2000", "1.0 ms", "long", "1.5 ms", "0"
            ]
        );
        assert_eq!(row(&view, "gateway-0")[4..7], ["12", "", "0.0"]);
        assert_eq!(fact(&view, "messages/s").text, "100");
        assert_eq!(fact(&view, "deliveries/s").text, "2000");
        assert_eq!(fact(&view, "sessions").text, "12");
        assert_eq!(fact(&view, "etcd").text, "reached by 2 of 2");
        assert_eq!(alarms(&view), [""; 0]);
        assert!(view.text().contains("chat-0") && view.text().contains("sweep hits"));
    }

    #[test]
    fn a_counter_that_fell_began_anew() {
        let nodes = [node("chat", "chat-0", true)];
        let before = moment(0, &nodes, &[("chat-0", CHAT[1])]);
        let now = moment(1000, &nodes, &[("chat-0", CHAT[0])]);
        assert_eq!(row(&View::of(&before, &now), "chat-0")[5], "100");
    }

    #[test]
    fn what_is_wrong_is_said_the_worst_first() {
        let behind = v1::ClusterNode {
            answer: Some(v1::NodeAnswer {
                map_version: 6,
                ..Default::default()
            }),
            ..node("presence", "presence-0", true)
        };
        let nodes = [
            node("gateway", "gateway-0", true),
            node("chat", "chat-0", false),
            behind,
            node("accounts", "accounts-0", true),
        ];
        let quiet = "tern_node_etcd_up 1\ntern_gateway_sweep_found_total 1\n";
        let found = "tern_node_etcd_up 0\ntern_gateway_sweep_found_total 3\n\
                     tern_node_shed_level{of=\"effect\"} 2\n\
                     tern_node_postgres_setting_safe{setting=\"fsync\",value=\"off\"} 0\n";
        let before = moment(0, &nodes, &[("gateway-0", quiet)]);
        let mut now = moment(
            1000,
            &nodes,
            &[("gateway-0", found), ("presence-0", ""), ("chat-0", "")],
        );
        now.queues = Ok(v1::GetQueuesResponse {
            unsettled: vec![v1::UnsettledRange {
                commits: 5,
                oldest_age_ms: 60_000,
                ..Default::default()
            }],
            nodes_missed: vec!["chat-0".into()],
            ..Default::default()
        });
        let view = View::of(&before, &now);
        let bad = view.alarms.iter().filter(|alarm| alarm.mood == Mood::Bad).count();
        assert_eq!(
            alarms(&view)[..bad],
            [
                "gateway-0 does not reach etcd: its map is frozen",
                "chat-0 does not answer",
                "the sweep found 2 rows that were lost on the way",
                "a commit has not been settled for 1 min",
                "chat-0 does not say how its shards are",
            ]
        );
        assert_eq!(
            alarms(&view)[bad..],
            [
                "gateway-0: settings of Postgres are not safe",
                "gateway-0 gives way under load: level 2",
                "presence-0 follows another version of the map",
                "the metrics of accounts-0 cannot be had at \"h:1\"",
            ]
        );
        assert_eq!(fact(&view, "sweep hits"), &cell("3", Mood::Bad));
        assert_eq!(fact(&view, "etcd").mood, Mood::Bad);
    }

    #[test]
    fn who_is_gone_is_missed_and_a_role_without_nodes_is_badly_wrong() {
        let nodes = [
            node("gateway", "gateway-0", true),
            node("chat", "chat-0", true),
            node("chat", "chat-1", true),
            node("accounts", "accounts-0", true),
            node("presence", "presence-0", true),
        ];
        let pages = ["gateway-0", "chat-0", "accounts-0"].map(|name| (name, ""));
        let (before, now) = (
            moment(0, &nodes, &[]),
            moment(1000, &[&nodes[..2], &nodes[3..4]].concat(), &pages),
        );
        assert_eq!(
            alarms(&View::of(&before, &now)),
            [
                "there is no presence node",
                "chat-1 has left the map",
                "presence-0 has left the map"
            ]
        );
    }

    #[test]
    fn a_platform_that_does_not_answer_is_shown_as_that() {
        let silent = Moment {
            map: Err("no route".into()),
            queues: Err("no route".into()),
            ..moment(1000, &[], &[])
        };
        let view = View::of(&silent, &silent);
        assert_eq!(
            alarms(&view),
            [
                "the Admin service does not answer: no route",
                "nobody can say what waits: no route"
            ]
        );
        assert_eq!(fact(&view, "postgres").mood, Mood::Bad);
    }
}
