//! Formats the progress of a file that is being sent or saved.

use tern_client::Progress;
use tern_types::ChatId;

/// The number of characters of a progress bar.
const BAR: usize = 20;

/// A file that is being sent or saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The chat below whose messages the transfer is shown.
    pub chat: ChatId,
    /// The work in words, as in "sending beach.png".
    pub what: String,
    /// The bytes that have been transferred.
    pub progress: Progress,
}

impl Transfer {
    /// Returns the line to show, as in "sending beach.png ▕██████░░░░▏ 60 % of 3.0 MB".
    pub fn line(&self) -> String {
        let full = (self.percent() as usize * BAR / 100).min(BAR);
        let bar = "█".repeat(full) + &"░".repeat(BAR - full);
        let size = size(self.progress.total);
        format!("{} ▕{bar}▏ {} % of {size}", self.what, self.percent())
    }

    /// Returns the progress in percent, rounded down.
    pub fn percent(&self) -> u64 {
        self.progress.done.saturating_mul(100) / self.progress.total.max(1)
    }
}

/// Formats a number of bytes in units of 1000, as in "3.0 MB".
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 3] = ["kB", "MB", "GB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_bars_read_well() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (3_145_735, "3.1 MB"),
            (999_999_999, "1.0 GB"),
            (2 << 30, "2.1 GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        let transfer = Transfer {
            chat: ChatId(uuid::Uuid::nil()),
            what: "sending a.png".to_owned(),
            progress: Progress {
                done: 500,
                total: 1000,
            },
        };
        let half = format!("{}{}", "█".repeat(10), "░".repeat(10));
        assert_eq!(transfer.line(), format!("sending a.png ▕{half}▏ 50 % of 1.0 kB"));
    }
}
