//! Computes figures from the metrics of two moments: those of a node, the sums over all nodes, and the sweeps. The code
//! is pure.

use tern_proto::v1;

use super::Moment;
use crate::top::page::{Page, quantile};

/// The figures of one node. A figure is `None` if the node does not have it, or if its metrics could not be read.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// True if the node's metrics could be read.
    pub scraped: bool,
    /// The number of sessions of a gateway or a presence node.
    pub sessions: Option<f64>,
    /// The number of messages that a chat node commits in a second.
    pub messages: Option<f64>,
    /// The number of events that a gateway sends in a second, or of deliveries that a chat node makes in a second.
    pub out: Option<f64>,
    /// The p50 and the p99 of the time of a commit, in seconds.
    pub commit: [Option<f64>; 2],
    /// The longest delay in any of the node's queues, in seconds.
    pub queue: Option<f64>,
    /// The node's level of load shedding; 0 if it sheds nothing.
    pub shed_level: Option<f64>,
    /// True if the node reaches etcd.
    pub etcd: Option<bool>,
    /// The number of Postgres settings that the node reports as unsafe.
    pub unsafe_settings: f64,
}

impl Figures {
    /// Computes the figures from the node's page before and its page now; rates are averages over these seconds.
    pub fn of(node: &v1::ClusterNode, pages: (Option<&Page>, Option<&Page>), seconds: f64) -> Self {
        let (before, Some(now)) = pages else {
            return Self::default();
        };
        let first = Page::default();
        let before = before.unwrap_or(&first);
        let per_second = |name: &str, labels: &[(&str, &str)]| {
            let (was, is) = (before.sum(name, labels)?, now.sum(name, labels)?);
            Some(grown(was, is) / seconds)
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

/// Returns by how much a counter has grown. One that fell was reset by a restart, so it counts from 0.
fn grown(was: f64, is: f64) -> f64 {
    if is < was { is } else { is - was }
}

/// Returns how many Postgres settings the node reports as unsafe: those whose metric is 0.
fn unsafe_settings(page: &Page) -> f64 {
    ["fsync", "full_page_writes", "synchronous_commit"]
        .into_iter()
        .filter_map(|setting| page.sum("tern_node_postgres_setting_safe", &[("setting", setting)]))
        .filter(|safe| *safe < 1.0)
        .count() as f64
}

/// The sums over all nodes of the platform.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// The number of sessions at all gateways.
    pub sessions: f64,
    /// The number of messages that all chat nodes commit in a second.
    pub messages: f64,
    /// The number of deliveries that all chat nodes make in a second.
    pub deliveries: f64,
    /// The number of nodes that reach etcd. A node counts once for each of its roles.
    pub etcd_up: u32,
    /// The number of nodes that say whether they reach etcd, counted in the same way.
    pub etcd_known: u32,
}

impl Totals {
    /// Adds the figures of one node, as far as they count for its role.
    pub fn add(&mut self, node: &v1::ClusterNode, figures: &Figures) {
        match node.role.as_str() {
            "gateway" => self.sessions += figures.sessions.unwrap_or(0.0),
            "chat" => {
                self.messages += figures.messages.unwrap_or(0.0);
                self.deliveries += figures.out.unwrap_or(0.0);
            }
            _ => {}
        }
        if let Some(up) = figures.etcd {
            self.etcd_known += 1;
            self.etcd_up += u32::from(up);
        }
    }
}

/// The numbers of inbox rows that the sweeps of all gateways have found. Each of these rows was lost on the way.
#[derive(Debug, Clone, Copy)]
pub struct Sweeps {
    /// The number of rows found since the gateways were started.
    pub total: f64,
    /// The number of rows found between the two moments.
    pub new: f64,
}

impl Sweeps {
    /// Counts the rows that the gateways of the map have found. A gateway whose metrics could not be read at one of the
    /// two moments has found nothing new; one whose number fell was started again, and has found what it says now.
    pub fn between(before: &Moment, now: &Moment, map: &v1::GetClusterMapResponse) -> Self {
        let found = |moment: &Moment, node: &str| {
            let page = moment.pages.get(node)?;
            page.sum("tern_gateway_sweep_found_total", &[])
        };
        let mut sweeps = Self { total: 0.0, new: 0.0 };
        for node in map.nodes.iter().filter(|node| node.role == "gateway") {
            let Some(is) = found(now, &node.name) else {
                continue;
            };
            sweeps.total += is;
            if let Some(was) = found(before, &node.name) {
                sweeps.new += grown(was, is);
            }
        }
        sweeps
    }
}
