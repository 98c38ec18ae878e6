//! Collects and prints the results of a load, as a table for people or JSON for machines.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::meter::{Latency, Meter};
use super::target::{GENERATOR, Spent, Target};

/// The results of a load, in the order in which they are shown.
#[derive(Debug, Serialize)]
pub struct Report {
    load: String,
    rows: Vec<Row>,
    postgres: BTreeMap<String, String>,
    /// The things that happened and must not, such as lost messages. If there are any, the bench fails.
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// `None` if nothing was measured.
    value: Option<f64>,
    unit: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    /// The parts of the value by name, unrounded. Only processor time has parts, one for each kind of server.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parts: BTreeMap<String, f64>,
}

impl Report {
    /// Starts the report of a load on this platform. Its title is the load and the transport.
    pub async fn on(target: &Target, load: String) -> anyhow::Result<Self> {
        let mut report = Self::new(load, target.settings().await?);
        report.add_to_title(target.transport());
        Ok(report)
    }

    fn new(load: String, postgres: BTreeMap<String, String>) -> Self {
        Self {
            load,
            rows: Vec::new(),
            postgres,
            faults: Vec::new(),
        }
    }

    /// Adds a condition of the load to the title.
    pub fn add_to_title(&mut self, condition: &str) {
        self.load = format!("{}, {condition}", self.load);
    }

    /// Adds the length of the measured time to the title.
    pub fn add_duration(&mut self, spent: &Spent) {
        self.add_to_title(&format!("{:.0} s", spent.seconds));
    }

    /// Puts the state of the store ("cold" or "warm") before the title.
    pub fn qualify(&mut self, state: &str) {
        self.load = format!("{state}: {}", self.load);
    }

    /// Adds a row.
    pub fn row(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.noted(name, value, unit, String::new());
    }

    /// Adds a row with a note beside its value.
    pub fn noted(&mut self, name: &'static str, value: f64, unit: &'static str, note: String) {
        self.rows.push(Row {
            name: name.to_owned(),
            value: Some(value),
            unit,
            note,
            parts: BTreeMap::new(),
        });
    }

    /// Adds a row that says how many of `count` things there were in each second of the measured time.
    pub fn a_second(&mut self, name: &'static str, count: u64, spent: &Spent) {
        self.row(name, count as f64 / spent.seconds, "");
    }

    /// Adds two rows, `name p50` and `name p99`: the median and the 99th percentile of a latency.
    pub fn latency(&mut self, name: &str, latency: &Latency) {
        for (percentile, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            self.rows.push(Row {
                name: format!("{name} {percentile}"),
                value: latency.ms(quantile),
                unit: "ms",
                note: String::new(),
                parts: BTreeMap::new(),
            });
        }
    }

    /// Adds rows for the processor time of 1,000 things and for the WAL bytes of one. `count` is the number of things
    /// that happened, such as messages; if it is 0, no rows are added.
    pub fn spent(&mut self, spent: &Spent, count: u64) {
        let thousands = count as f64 / 1000.0;
        if thousands <= 0.0 {
            return;
        }
        let each = |seconds: f64| seconds / thousands;
        let servers = spent.cpu.iter().filter(|(name, _)| *name != GENERATOR);
        let total = spent.servers();
        let mut parts: Vec<(&String, f64)> = servers.map(|(name, seconds)| (name, each(*seconds))).collect();
        parts.sort_by(|one, other| other.1.total_cmp(&one.1));
        let unrounded = parts.iter().map(|(name, seconds)| ((*name).clone(), *seconds));
        let unrounded: BTreeMap<String, f64> = unrounded.collect();
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, seconds)| *seconds >= 0.0005)
            .map(|(name, seconds)| format!("{name} {seconds:.3}"))
            .collect();
        self.noted("CPU of servers a 1,000", each(total), "s", parts.join(" + "));
        if let Some(row) = self.rows.last_mut() {
            row.parts = unrounded;
        }
        let generator = spent.cpu.get(GENERATOR).copied().unwrap_or_default();
        let busy = (total + generator) / spent.seconds;
        self.noted(
            "CPU of the generator a 1,000",
            each(generator),
            "s",
            format!("not counted above; {busy:.2} processors busy in all"),
        );
        if let Some(bytes) = spent.wal_bytes {
            self.row("WAL each", bytes as f64 / count as f64, "bytes");
        }
    }

    /// Adds a row for lost messages. Messages that were lost or refused, and rows that the sweep found, are faults
    /// under any load.
    pub fn check(&mut self, meter: &Meter, sweep_found: Option<u64>) {
        let count = |what: &std::sync::atomic::AtomicU64| what.load(Ordering::Relaxed);
        let (sent, repeated, lost) = (count(&meter.sent), count(&meter.repeated), count(&meter.lost));
        let refused = count(&meter.refused);
        let note = match sweep_found {
            Some(found) => format!("of {sent} sent; {repeated} came twice, {refused} refused; swept {found}"),
            None => format!("of {sent} sent; {repeated} came twice, {refused} refused"),
        };
        self.noted("lost", lost as f64, "", note);
        if lost > 0 {
            self.fault(format!("{lost} messages were lost"));
        }
        if let Some(why) = meter.refusal() {
            self.fault(format!("{refused} sends were refused, the first one: {why}"));
        }
        if let Some(found @ 1..) = sweep_found {
            self.fault(format!("the sweep found {found} rows"));
        }
    }

    /// Adds a fault, which makes the bench fail.
    pub fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// Prints the report on standard output, as JSON if `json` is set.
    #[allow(clippy::print_stdout, reason = "a command speaks by standard output")]
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        println!("\n  tern-dev bench: {}\n", self.load);
        for row in &self.rows {
            let value = row.value.map_or_else(|| "-".to_owned(), number);
            println!("  {:<32}{value:>12} {:<6} {}", row.name, row.unit, row.note);
        }
        if !self.postgres.is_empty() {
            let settings: Vec<String> = self
                .postgres
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            println!("\n  Postgres: {}", settings.join(", "));
        }
        println!();
        Ok(())
    }

    /// Returns an error that names all faults, if there are any.
    pub fn verdict(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.faults.is_empty(), "{}", self.faults.join("; "));
        Ok(())
    }
}

/// Formats a number with as many digits as matter, as in `0.083`, `5.2` or `15,432`.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        let shown = [0.0, 0.0834, 5.25, 123.4, 15_432.1, 1_234_567.0].map(number);
        assert_eq!(shown, ["0", "0.083", "5.2", "123", "15,432", "1,234,567"]);
    }

    #[test]
    fn a_latency_has_a_row_for_each_percentile_and_conditions_stand_in_the_title() {
        let mut report = Report::new("direct: 3 pairs".to_owned(), BTreeMap::new());
        report.add_to_title("TLS");
        report.add_duration(&Spent {
            seconds: 9.6,
            cpu: BTreeMap::new(),
            wal_bytes: None,
        });
        assert_eq!(report.load, "direct: 3 pairs, TLS, 10 s");
        let latency = Latency::new();
        latency.record(std::time::Duration::from_millis(2));
        report.latency("send to result", &latency);
        let names: Vec<&str> = report.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["send to result p50", "send to result p99"]);
        assert!(
            report
                .rows
                .iter()
                .all(|row| row.value.is_some() && row.unit == "ms")
        );
    }

    #[test]
    fn the_processor_time_of_each_server_is_there_unrounded() {
        let mut report = Report::new("direct".to_owned(), BTreeMap::new());
        let cpu = [("gateway", 0.5), ("postgres", 0.000_25), (GENERATOR, 3.0)];
        let spent = Spent {
            seconds: 10.0,
            cpu: cpu.map(|(name, seconds)| (name.to_owned(), seconds)).into(),
            wal_bytes: None,
        };
        report.spent(&spent, 2000);
        let parts = &report.rows[0].parts;
        assert_eq!(
            (parts["gateway"], parts["postgres"], parts.len()),
            (0.25, 0.000_125, 2)
        );
        assert_eq!(report.rows[0].value, Some(0.250_125));
    }

    #[test]
    fn what_was_lost_or_refused_fails_the_bench() {
        let meter = Meter::new();
        let mut report = Report::new("direct".to_owned(), BTreeMap::new());
        report.check(&meter, Some(0));
        assert!(report.verdict().is_ok());
        meter.lost.store(2, Ordering::Relaxed);
        meter.refused("because".to_owned());
        report.check(&meter, Some(1));
        let verdict = report.verdict().unwrap_err().to_string();
        for part in ["2 messages were lost", "because", "the sweep found 1"] {
            assert!(verdict.contains(part), "{verdict}");
        }
    }
}
