//! Reads the reports that `tern-dev bench … --json` prints.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use super::costs::{Costs, Server};

/// The name of the row with the processor time of all servers for a thousand things.
const CPU: &str = "CPU of servers a 1,000";

/// The kinds of load whose reports are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pairs of people: what a message costs.
    Direct,
    /// One group: what a further delivery costs.
    Group,
    /// Streams that do nothing: what a stream and a connect cost.
    Idle,
    /// People who come and go: what a change of presence costs.
    Presence,
}

impl Kind {
    /// Returns the kind of a load by its title, for example `direct: 100 pairs, 8 in flight each`. A title may begin
    /// with the state of the store, as in `warm: direct: 100 pairs`.
    fn of(title: &str) -> Option<Self> {
        title.split(": ").find_map(|word| match word {
            "direct" => Some(Self::Direct),
            "group" => Some(Self::Group),
            "idle" => Some(Self::Idle),
            "presence" => Some(Self::Presence),
            _ => None,
        })
    }

    /// Returns the name of the row that says how many messages, connects or changes there were in a second.
    fn rate(self) -> &'static str {
        match self {
            Self::Direct | Self::Group => "messages a second",
            Self::Idle => "connects a second",
            Self::Presence => "changes a second",
        }
    }
}

/// The figures that one run of a bench measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The file that the report was read from.
    pub file: String,
    /// The kind of load.
    pub kind: Kind,
    /// Messages, connects or changes of presence a second.
    pub rate: f64,
    /// Devices that got each message; 1 if the load has no groups.
    pub deliveries: f64,
    /// The processor time of one message, connect or change, in microseconds.
    pub cpu: Costs,
    /// Bytes of WAL of one message, connect or change. `None` if the bench did not know the database.
    pub wal_bytes: Option<f64>,
    /// KiB of a gateway's memory that a stream took; only of idle streams.
    pub stream_kib: Option<f64>,
}

/// A report, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Report {
    load: String,
    rows: Vec<Row>,
    faults: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    value: Option<f64>,
    #[serde(default)]
    parts: BTreeMap<String, f64>,
}

/// Reads the report in `file`.
///
/// # Errors
///
/// Returns an error that names the file, and the row if one is missing or has no value.
pub fn read(file: &Path) -> anyhow::Result<Run> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("read {name}"))?;
    parse(&name, &text)
}

/// Makes a run of the text of a report. `file` is its name in errors and tables. See [`read`] for the errors.
pub fn parse(file: &str, text: &str) -> anyhow::Result<Run> {
    let report: Report = serde_json::from_str(text)
        .with_context(|| format!("{file} is not one report of tern-dev bench --json"))?;
    if let Some(fault) = report.faults.first() {
        anyhow::bail!("{file}: the run failed, so it measured nothing: {fault}");
    }
    let kind = Kind::of(&report.load)
        .with_context(|| format!("{file}: not a load that is understood here: {}", report.load))?;
    let row = |name: &str| report.rows.iter().find(|row| row.name == name);
    let optional = |name: &str| row(name)?.value.filter(|value| value.is_finite());
    let value = |name: &str| {
        let positive = optional(name).filter(|value| *value > 0.0);
        positive.with_context(|| format!("{file}: no value above 0 in the row “{name}”"))
    };
    let rate = value(kind.rate())?;
    // The report of a group counts what a delivery costs.
    let deliveries = match kind {
        Kind::Group => value("deliveries a second")? / rate,
        Kind::Direct | Kind::Idle | Kind::Presence => 1.0,
    };
    let parts = row(CPU).map(|row| &row.parts).filter(|parts| !parts.is_empty());
    let parts = parts.with_context(|| format!("{file}: the row “{CPU}” has no parts"))?;
    let cpu = Costs::by(|server| {
        let own = parts.iter().filter(|(name, _)| Server::named(name) == server);
        // A thousandth of the seconds of a thousand things, in microseconds.
        own.fold(0.0_f64, |sum, (_, seconds)| sum + seconds * 1000.0 * deliveries)
    });
    Ok(Run {
        file: file.to_owned(),
        kind,
        rate,
        deliveries,
        cpu,
        wal_bytes: optional("WAL each").map(|bytes| bytes * deliveries),
        stream_kib: optional("gateway memory each"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = r#"{
        "load": "group: 200 members, devices of each: 1, writers: 1, 16 in flight, TLS, 10 s",
        "rows": [
            {"name": "deliveries a second", "value": 398000.0, "unit": ""},
            {"name": "messages a second", "value": 2000.0, "unit": ""},
            {"name": "send to last member p50", "value": null, "unit": "ms"},
            {"name": "CPU of servers a 1,000", "value": 0.003, "unit": "s", "note": "gateway 0.002",
             "parts": {"gateway": 0.002, "chat": 0.0006, "accounts": 0.0003, "etcd": 0.0001}},
            {"name": "WAL each", "value": 10.0, "unit": "bytes"}
        ],
        "postgres": {"fsync": "on"},
        "faults": []
    }"#;

    #[test]
    fn the_report_of_a_group_says_what_a_message_costs() {
        let run = parse("group.json", GROUP).unwrap();
        assert_eq!((run.kind, run.rate, run.deliveries), (Kind::Group, 2000.0, 199.0));
        assert!((run.cpu.gateway - 398.0).abs() < 1e-6 && (run.cpu.others - 79.6).abs() < 1e-6);
        assert_eq!((run.cpu.postgres, run.stream_kib), (0.0, None));
        assert_eq!(run.wal_bytes, Some(1990.0));
    }

    #[test]
    fn an_error_names_the_file_and_what_is_wrong_with_it() {
        let cases = [
            ("{}".to_owned(), "not one report"),
            (GROUP.replace("group:", "mixed:"), "mixed:"),
            (
                GROUP.replace("messages a second", "messages"),
                "messages a second",
            ),
            (GROUP.replace("2000.0", "0.0"), "messages a second"),
            (GROUP.replace("\"parts\"", "\"other\""), "has no parts"),
            (GROUP.replace("[]", "[\"2 messages were lost\"]"), "were lost"),
        ];
        for (text, what) in cases {
            let error = format!("{:#}", parse("group.json", &text).unwrap_err());
            assert!(error.contains("group.json") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn the_state_of_the_store_may_stand_before_the_load() {
        assert_eq!(Kind::of("warm: direct: 100 pairs, TLS"), Some(Kind::Direct));
        assert_eq!(Kind::of("media: 10 uploaders"), None);
    }
}
