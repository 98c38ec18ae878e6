//! How long it takes until all devices are back that lost their streams at once.

use serde::Serialize;

use super::load::positive;
use super::platform::Sizing;

/// The longest delay of a client between two tries in seconds (`crates/client-core/src/backoff.rs`). Delays are drawn
/// evenly between 0 and a ceiling that doubles up to this.
const LONGEST_DELAY: f64 = 30.0;

/// The storm.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Reconnect storm")]
pub struct StormArgs {
    /// Devices that lose their streams at once
    #[arg(long, default_value_t = 100e6, value_parser = positive)]
    storm_devices: f64,
    /// Gateways that they come back to [default: as many as hold their streams]
    #[arg(long, value_parser = positive)]
    storm_gateways: Option<f64>,
    /// Connects a second that a gateway takes [default: as measured by bench idle]
    #[arg(long, value_parser = positive)]
    connect_rate: Option<f64>,
}

/// A storm of reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Storm {
    pub devices: f64,
    pub gateways: f64,
    /// Connects a second that the gateways take together.
    pub gateways_take: f64,
    /// Connects a second that the Postgres machine with the schema `people` takes, with all its processors.
    pub people_take: f64,
    /// Seconds until all are back, if only the gateways had to take them and no device waited in vain.
    pub seconds_by_gateways: f64,
    /// The same at the lower of the two rates.
    pub seconds: f64,
    /// Seconds until the last device is back at most, if connects beyond the rate are refused. As long as more devices
    /// come than are taken, none of the rate is wasted. Nobody is refused from then on, and whoever was refused last
    /// comes within the longest delay.
    pub last: f64,
}

/// Lets all devices come back.
pub fn storm(args: &StormArgs, sizing: &Sizing<'_>) -> Storm {
    let (devices, constants) = (args.storm_devices, sizing.constants);
    let (by_memory, by_descriptors) = sizing.hold(devices);
    let gateways = args.storm_gateways.unwrap_or(by_memory.max(by_descriptors));
    let gateways_take = gateways * args.connect_rate.unwrap_or(constants.connects);
    let people = constants.connect.postgres + constants.inbox_look;
    let people_take = sizing.machines.postgres_processors * 1e6 / people;
    let seconds = devices / gateways_take.min(people_take);
    Storm {
        devices,
        gateways,
        gateways_take,
        people_take,
        seconds_by_gateways: devices / gateways_take,
        seconds,
        last: seconds + LONGEST_DELAY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::platform::sized;

    #[test]
    fn the_scarcer_of_gateways_and_postgres_decides_how_long_a_storm_takes() {
        let args = StormArgs {
            storm_devices: 1e6,
            storm_gateways: Some(2.0),
            connect_rate: Some(5000.0),
        };
        let few = sized(&[], |sizing| storm(&args, sizing));
        assert_eq!(
            (few.seconds, few.seconds_by_gateways, few.last),
            (100.0, 100.0, 130.0)
        );
        let many = StormArgs {
            storm_gateways: Some(1000.0),
            ..args
        };
        let many = sized(&[], |sizing| storm(&many, sizing));
        assert!(many.seconds > many.seconds_by_gateways);
        assert_eq!(many.seconds, 1e6 / many.people_take);
        let all = StormArgs {
            storm_gateways: None,
            ..args
        };
        // 1 million streams of at most 60,000 to a gateway.
        assert_eq!(sized(&[], |sizing| storm(&all, sizing)).gateways, 17.0);
    }
}
