//! Prints the transcript for a person to read, and the table at the end.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// The latency from which on a latency is shown in red, because a person notices it.
const SLOW: Duration = Duration::from_millis(1000);
/// The columns of a person's name.
const NAME_COLUMNS: usize = 8;

/// The terminal colours (SGR codes) of the people's names.
const COLOURS: [(&str, &str); 3] = [("Alice", "35"), ("Bob", "32"), ("Carol", "33")];

/// The transcript that is printed, and the counts of messages, deliveries and checks for the table.
pub struct Report {
    colours: bool,
    started: Instant,
    scenes: Vec<Scene>,
    checks: usize,
    number: usize,
}

/// A row of the table.
struct Scene {
    title: String,
    sent: usize,
    deliveries: Vec<Duration>,
    took: Instant,
    lasted: Duration,
}

impl Report {
    /// Starts an empty report. It has colours if standard output is a terminal and NO_COLOR is not set.
    pub fn new() -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            colours,
            started: Instant::now(),
            scenes: Vec::new(),
            checks: 0,
            number: 0,
        }
    }

    /// Prints the title of the demo.
    pub fn title(&self, lines: &[&str]) {
        self.say("");
        for line in lines {
            self.say(&format!("   {line}"));
        }
    }

    /// Begins a scene, with a heading and a row in the table.
    pub fn scene(&mut self, title: &str) {
        self.number += 1;
        self.say(&format!(
            "\n{}",
            self.paint("1;36", &format!("── {}. {title} ", self.number))
        ));
        self.part(title);
    }

    /// Begins a part of a scene: it has no heading but a row of its own in the table.
    pub fn part(&mut self, title: &str) {
        self.end_scene();
        self.scenes.push(Scene {
            title: title.to_owned(),
            sent: 0,
            deliveries: Vec::new(),
            took: Instant::now(),
            lasted: Duration::ZERO,
        });
    }

    fn end_scene(&mut self) {
        if let Some(scene) = self.scenes.last_mut() {
            scene.lasted = scene.took.elapsed();
        }
    }

    /// Prints and counts something that was checked.
    pub fn checked(&mut self, what: &str) {
        self.checks += 1;
        self.say(&format!("   {} {what}", self.paint("32", "✔")));
    }

    /// Prints something that has happened.
    pub fn note(&self, what: &str) {
        self.say(&format!("   {what}"));
    }

    /// Prints a failure that is caused on purpose.
    pub fn alarm(&self, what: &str) {
        self.say(&format!("   {}", self.paint("1;31", &format!("☠ {what}"))));
    }

    /// Counts a message that was sent.
    pub fn sent(&mut self) {
        if let Some(scene) = self.scenes.last_mut() {
            scene.sent += 1;
        }
    }

    /// Counts a delivery and its latency.
    pub fn delivered(&mut self, latency: Duration) {
        if let Some(scene) = self.scenes.last_mut() {
            scene.deliveries.push(latency);
        }
    }

    /// Prints a message with its ticks and its arrivals.
    pub fn message(&self, who: &str, text: &str, ticks: &str, arrivals: &str) {
        let name = self.name(&format!("{who:<NAME_COLUMNS$}"));
        let width = text.chars().count();
        let pad = " ".repeat(44_usize.saturating_sub(width).max(1));
        self.say(&format!("   {name} {text}{pad}{ticks}"));
        if !arrivals.is_empty() {
            self.say(&format!("   {:NAME_COLUMNS$} {}", "", self.dim(arrivals)));
        }
    }

    /// Returns a person's name in their colour.
    pub fn name(&self, who: &str) -> String {
        let colour = COLOURS
            .iter()
            .find(|(name, _)| who.trim_end().starts_with(name))
            .map_or("1", |(_, colour)| *colour);
        self.paint(&format!("1;{colour}"), who)
    }

    /// Returns a text in a dim colour.
    pub fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Formats a tick with its latency.
    pub fn tick(&self, tick: &str, after: Duration) -> String {
        let colour = if tick == "✓✓ read" { "36" } else { "2" };
        format!("{} {}", self.paint(colour, tick), self.latency(after))
    }

    /// Formats a latency, in red if it is [`SLOW`] or slower.
    pub fn latency(&self, latency: Duration) -> String {
        let colour = if latency >= SLOW { "1;31" } else { "2" };
        self.paint(colour, &millis(latency))
    }

    /// Prints the error that ends the demo.
    pub fn failed(&mut self, error: &anyhow::Error) {
        self.end_scene();
        self.say(&format!("\n   {}", self.paint("1;31", &format!("✘ {error:#}"))));
    }

    /// Prints the table of all scenes.
    pub fn summary(&mut self) {
        self.end_scene();
        self.say(&format!("\n{}", self.paint("1;36", "── Summary ")));
        self.say(&self.dim(&row("scene", &["sent", "delivered", "p50", "max", "took"])));
        let mut all = Vec::new();
        let mut sent = 0;
        for scene in &self.scenes {
            self.say(&scene_row(
                &scene.title,
                scene.sent,
                &scene.deliveries,
                scene.lasted,
            ));
            all.extend_from_slice(&scene.deliveries);
            sent += scene.sent;
        }
        self.say(&self.paint("1", &scene_row("all", sent, &all, self.started.elapsed())));
        let checks = self.checks;
        let verdict = format!(
            "{sent} messages, {} deliveries, {checks} checks: nothing lost, nothing twice, all in order",
            all.len()
        );
        self.say(&format!("\n   {} {verdict}", self.paint("1;32", "✔")));
        self.say(&self.dim("   A latency is the time from handing a message to the sender's app until the receiver has stored it."));
        self.say(&self.dim("   `make run` keeps the platform up for you to chat on\n"));
    }

    /// Returns a text with an SGR code, or unchanged if there are no colours.
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn say(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        // A write fails if the reader has closed the pipe. The exit code still tells the outcome.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

fn scene_row(title: &str, sent: usize, deliveries: &[Duration], lasted: Duration) -> String {
    let mut sorted = deliveries.to_vec();
    sorted.sort();
    let show = |latency: Option<&Duration>| latency.map_or("-".to_owned(), |latency| millis(*latency));
    let p50 = show(sorted.get(sorted.len() / 2));
    let took = format!("{:.1} s", lasted.as_secs_f64());
    row(
        title,
        &[
            &sent.to_string(),
            &deliveries.len().to_string(),
            &p50,
            &show(sorted.last()),
            &took,
        ],
    )
}

fn row(title: &str, cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|cell| format!("{cell:>11}")).collect();
    format!("   {title:<46}{cells}")
}

/// Formats a duration in milliseconds, as in `4.2 ms`.
pub fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.0} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_median_and_maximum() {
        let times: Vec<Duration> = [5, 1, 90, 3, 2].map(Duration::from_millis).into();
        let row = scene_row("a scene", 5, &times, Duration::from_millis(1234));
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(
            cells,
            ["a", "scene", "5", "5", "3.0", "ms", "90", "ms", "1.2", "s"]
        );
    }
}
