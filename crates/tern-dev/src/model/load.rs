//! Computes the load that a number of users makes in the busiest hour of a day.

use serde::Serialize;

/// Seconds of an hour.
const HOUR: f64 = 3600.0;
/// Days of a year.
const YEAR: f64 = 365.0;
/// A device that connects comes online, and goes offline when it leaves.
const CHANGES_OF_A_CONNECT: f64 = 2.0;

/// The habits of a user. The defaults are those of a large messenger: WhatsApp said in 2020 that two billion users
/// sent 100 billion messages a day. The other defaults are assumptions.
#[derive(clap::Args, Clone, Copy, Debug, Serialize)]
#[command(next_help_heading = "What people do")]
pub struct Habits {
    /// Share of all devices that have a stream at the peak, above 0 and at most 1
    #[arg(long, default_value_t = 0.25, value_parser = share)]
    pub online: f64,
    /// Devices of a user, at least 1
    #[arg(long, default_value_t = 1.3, value_parser = at_least_one)]
    pub devices: f64,
    /// Messages that a user sends a day
    #[arg(long, default_value_t = 50.0, value_parser = positive)]
    pub messages: f64,
    /// People who get a message, on average over direct chats and groups, at least 1
    #[arg(long, default_value_t = 3.0, value_parser = at_least_one)]
    pub recipients: f64,
    /// Bytes of a message's body
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    pub body: f64,
    /// Connects of a device a day
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    pub connects: f64,
    /// Share of a day's messages and connects that falls into the busiest hour, above 0 and at most 1
    #[arg(long, default_value_t = 0.08, value_parser = share)]
    pub peak: f64,
}

/// The load of a platform in its busiest hour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    /// People with an account.
    pub users: f64,
    /// Devices with a stream.
    pub streams: f64,
    /// Messages a second.
    pub messages: f64,
    /// Deliveries of messages to devices a second. A device that is away gets its messages when it connects, and they
    /// are counted as if it had got them at once.
    pub deliveries: f64,
    /// Connects of devices a second.
    pub connects: f64,
    /// Changes of presence a second.
    pub changes: f64,
    /// Messages in a year.
    pub messages_a_year: f64,
}

impl Habits {
    /// Returns the load that this number of users makes.
    pub fn load(&self, users: f64) -> Load {
        let devices = users * self.devices;
        let at_the_peak = |a_day: f64| a_day * self.peak / HOUR;
        let messages = at_the_peak(users * self.messages);
        let connects = at_the_peak(devices * self.connects);
        Load {
            users,
            streams: devices * self.online,
            messages,
            deliveries: messages * self.deliveries(),
            connects,
            changes: connects * CHANGES_OF_A_CONNECT,
            messages_a_year: users * self.messages * YEAR,
        }
    }

    /// Returns the number of devices that get a message: all of the recipients' and the sender's other ones.
    pub fn deliveries(&self) -> f64 {
        (self.recipients + 1.0) * self.devices - 1.0
    }
}

/// Parses a number above 0, for example `1.5` or `2e9`. Returns `Err` with what is wrong with the text.
pub fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if number > 0.0 && number.is_finite() {
        Ok(number)
    } else {
        Err("must be above 0".to_owned())
    }
}

/// Parses a share. Returns `Err` with what is wrong with the text.
pub fn share(text: &str) -> Result<f64, String> {
    let share = positive(text)?;
    if share <= 1.0 {
        Ok(share)
    } else {
        Err("must be at most 1".to_owned())
    }
}

/// Parses a number that is at least 1. Returns `Err` with what is wrong with the text.
fn at_least_one(text: &str) -> Result<f64, String> {
    let number = positive(text)?;
    if number >= 1.0 {
        Ok(number)
    } else {
        Err("must be at least 1".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_follows_from_users_and_habits() {
        let habits = Habits {
            online: 0.5,
            devices: 2.0,
            messages: 36.0,
            recipients: 3.0,
            body: 100.0,
            connects: 18.0,
            peak: 0.1,
        };
        let load = habits.load(1000.0);
        assert_eq!((load.streams, load.messages, load.deliveries), (1000.0, 1.0, 7.0));
        assert_eq!((load.connects, load.changes), (1.0, 2.0));
        assert_eq!(load.messages_a_year, 13_140_000.0);
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        assert_eq!(positive("2e9"), Ok(2e9));
        for text in ["0", "-1", "NaN", "inf", "many"] {
            assert!(positive(text).is_err(), "{text}");
        }
        assert_eq!((share("1"), share("1.5").is_err()), (Ok(1.0), true));
        assert_eq!((at_least_one("1"), at_least_one("0.9").is_err()), (Ok(1.0), true));
    }
}
