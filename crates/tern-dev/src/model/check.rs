//! Compares what the model predicts for a run with what the run measured.

use serde::Serialize;

use super::constants::Constants;
use super::costs::Server;
use super::measured::{Kind, Run};

/// The most that a prediction may be off, as a share of what was measured.
const TOLERANCE: f64 = 0.25;
/// The least share of the processor time of all servers from which on a server is judged by itself. Less is a few
/// ticks of the clock that measured it.
const MATTERS: f64 = 0.1;

/// The prediction and the measurement of one server, in microseconds of processor time a message. That is the same
/// number as milliseconds for a thousand messages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Compared {
    /// The server, or `all servers`.
    pub server: &'static str,
    pub predicted: f64,
    pub measured: f64,
    /// False if it takes too little to be judged.
    pub judged: bool,
}

impl Compared {
    /// Returns how far the prediction is off as a share of what was measured, for example -0.1 if it is 10 % too low.
    pub fn off(&self) -> f64 {
        self.predicted / self.measured.max(f64::MIN_POSITIVE) - 1.0
    }
}

/// Compares the prediction for a run of `bench direct` or `bench group` with the run.
///
/// # Errors
///
/// Returns an error if the run is of another kind.
pub fn compare(constants: &Constants, run: &Run) -> anyhow::Result<Vec<Compared>> {
    anyhow::ensure!(
        matches!(run.kind, Kind::Direct | Kind::Group),
        "{}: only runs of bench direct and bench group are predicted",
        run.file
    );
    let (predicted, measured) = (constants.predict(run), run.cpu);
    let all = Compared {
        server: "all servers",
        predicted: predicted.total(),
        measured: measured.total(),
        judged: true,
    };
    let each = Server::ALL.into_iter().map(|server| Compared {
        server: server.name(),
        predicted: predicted.of(server),
        measured: measured.of(server),
        judged: measured.of(server) >= MATTERS * all.measured,
    });
    Ok(std::iter::once(all).chain(each).collect())
}

/// Returns an error that names every server that is judged and whose prediction is more than 25 % off.
pub fn verdict(file: &str, compared: &[Compared]) -> anyhow::Result<()> {
    let wrong = compared
        .iter()
        .filter(|one| one.judged && one.off().abs() > TOLERANCE);
    let wrong: Vec<String> = wrong
        .map(|one| format!("{} {:+.0} %", one.server, one.off() * 100.0))
        .collect();
    anyhow::ensure!(
        wrong.is_empty(),
        "{file}: the prediction is more than {:.0} % off: {}",
        TOLERANCE * 100.0,
        wrong.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::measured::parse;

    /// Returns the report of a run of pairs, as `tern-dev bench direct --json` prints it. Times are in seconds for a
    /// thousand messages.
    fn report(rate: f64, gateway: f64, chat: f64, postgres: f64) -> String {
        format!(
            r#"{{
                "load": "direct: 100 pairs, 8 in flight each, 200-byte bodies, TLS, 10 s",
                "rows": [
                    {{"name": "messages a second", "value": {rate}, "unit": ""}},
                    {{"name": "send to result p50", "value": 9.0, "unit": "ms"}},
                    {{"name": "CPU of servers a 1,000", "value": 0.03, "unit": "s", "note": "gateway 0.009",
                      "parts": {{"gateway": {gateway}, "chat": {chat}, "postgres": {postgres},
                                 "presence": 0.0005}}}},
                    {{"name": "WAL each", "value": 900.0, "unit": "bytes"}}
                ],
                "postgres": {{"fsync": "on"}},
                "faults": []
            }}"#
        )
    }

    fn constants() -> Constants {
        let full = parse("full.json", &report(40_000.0, 0.010, 0.006, 0.014)).unwrap();
        let leisure = parse("leisure.json", &report(100.0, 0.200, 0.150, 0.700)).unwrap();
        Constants::measured(&[full, leisure])
    }

    fn check(text: &str) -> anyhow::Result<()> {
        let run = parse("run.json", text)?;
        verdict("run.json", &compare(&constants(), &run)?)
    }

    #[test]
    fn a_run_within_a_quarter_of_the_prediction_passes() {
        check(&report(40_000.0, 0.010, 0.006, 0.014)).unwrap();
        check(&report(42_000.0, 0.011, 0.0055, 0.016)).unwrap();
    }

    #[test]
    fn a_run_beyond_a_quarter_fails_and_the_error_names_the_server_and_how_far_off_it_is() {
        let error = check(&report(40_000.0, 0.010, 0.006, 0.020))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("run.json") && error.contains("postgres -30 %"),
            "{error}"
        );
        assert!(!error.contains("gateway"), "{error}");
        let error = check(&report(40_000.0, 0.004, 0.006, 0.014))
            .unwrap_err()
            .to_string();
        assert!(error.contains("gateway +150 %"), "{error}");
    }

    #[test]
    fn a_server_that_takes_next_to_nothing_is_not_judged() {
        let run = parse("run.json", &report(40_000.0, 0.010, 0.006, 0.014)).unwrap();
        let compared = compare(&constants(), &run).unwrap();
        let judged = compared.iter().filter(|one| one.judged);
        let judged: Vec<&str> = judged.map(|one| one.server).collect();
        assert_eq!(judged, ["all servers", "gateway", "chat", "postgres"]);
    }

    #[test]
    fn streams_that_do_nothing_are_not_predicted() {
        let idle = report(1.0, 0.1, 0.1, 0.1).replace("direct:", "idle:");
        let idle = idle.replace("messages a second", "connects a second");
        let error = check(&idle).unwrap_err().to_string();
        assert!(error.contains("only runs of bench direct"), "{error}");
    }
}
