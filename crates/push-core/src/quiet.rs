//! The hours in which a person wants no notifications.

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;
use tern_types::Timestamp;

/// The same hours of each day in a time zone. They may go past midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietHours {
    /// The minute of the day at which they begin, 0 to 1,439.
    pub from_minute: u16,
    /// The minute of the day at which they end, 0 to 1,439.
    pub to_minute: u16,
    /// The name of the time zone in the IANA database.
    pub time_zone: String,
}

impl QuietHours {
    /// Returns when the hours end in which `now` lies; `None` if it lies in none, or if the time zone is not known.
    /// If a change of the clocks leaves out the minute at which the hours end, they end as much later. If it repeats that
    /// minute, they end at the first of the two that is to come.
    pub fn end(&self, now: Timestamp) -> Option<Timestamp> {
        let zone = TimeZone::get(&self.time_zone).ok()?;
        let instant = Instant::from_millisecond(now.0).ok()?;
        let local = zone.to_datetime(instant);
        let minute = minute_of(local.hour(), local.minute());
        let (from, to) = (self.from_minute, self.to_minute);
        let (is_quiet, ends_tomorrow) = if from <= to {
            (from <= minute && minute < to, false)
        } else {
            (minute < to || from <= minute, from <= minute)
        };
        if !is_quiet {
            return None;
        }
        let date = if ends_tomorrow {
            local.date().tomorrow().ok()?
        } else {
            local.date()
        };
        let (hour, minute) = (i8::try_from(to / 60).ok()?, i8::try_from(to % 60).ok()?);
        let time = jiff::civil::Time::new(hour, minute, 0, 0).ok()?;
        let end = date.to_datetime(time);
        let first = zone.to_ambiguous_timestamp(end).compatible().ok()?;
        let end = if first > instant {
            first
        } else {
            zone.to_ambiguous_timestamp(end).later().ok()?
        };
        (end > instant).then(|| Timestamp(end.as_millisecond()))
    }
}

fn minute_of(hour: i8, minute: i8) -> u16 {
    u16::from(hour.unsigned_abs()) * 60 + u16::from(minute.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn hours(from: &str, to: &str, zone: &str) -> QuietHours {
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':').unwrap();
            hour.parse::<u16>().unwrap() * 60 + minute.parse::<u16>().unwrap()
        };
        QuietHours {
            from_minute: minute(from),
            to_minute: minute(to),
            time_zone: zone.to_owned(),
        }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<Instant>().unwrap().as_millisecond())
    }

    const BERLIN: &str = "Europe/Berlin";
    /// The hours, their time zone, a time, and the end of the hours in which that lies.
    const CASES: &[(&str, &str, &str, &str, Option<&str>)] = &[
        ("22:00", "07:00", BERLIN, "2025-06-10T19:59:00Z", None),
        (
            "22:00",
            "07:00",
            BERLIN,
            "2025-06-10T20:00:00Z",
            Some("2025-06-11T05:00:00Z"),
        ),
        (
            "22:00",
            "07:00",
            BERLIN,
            "2025-06-11T04:59:59Z",
            Some("2025-06-11T05:00:00Z"),
        ),
        ("22:00", "07:00", BERLIN, "2025-06-11T05:00:00Z", None),
        ("13:00", "14:00", "UTC", "2025-06-10T12:59:00Z", None),
        (
            "13:00",
            "14:00",
            "UTC",
            "2025-06-10T13:30:00Z",
            Some("2025-06-10T14:00:00Z"),
        ),
        ("13:00", "14:00", "UTC", "2025-06-10T14:00:00Z", None),
        (
            "22:00",
            "00:00",
            "UTC",
            "2025-06-10T23:00:00Z",
            Some("2025-06-11T00:00:00Z"),
        ),
        (
            "00:00",
            "06:00",
            "Asia/Kathmandu",
            "2025-06-10T18:15:00Z",
            Some("2025-06-11T00:15:00Z"),
        ),
        // The night in which summer begins has an hour less, and that in which it ends one more.
        (
            "22:00",
            "07:00",
            BERLIN,
            "2025-03-29T22:00:00Z",
            Some("2025-03-30T05:00:00Z"),
        ),
        (
            "22:00",
            "07:00",
            BERLIN,
            "2025-10-25T22:00:00Z",
            Some("2025-10-26T06:00:00Z"),
        ),
        // The end is in the hour that is left out.
        (
            "22:00",
            "02:30",
            BERLIN,
            "2025-03-30T00:30:00Z",
            Some("2025-03-30T01:30:00Z"),
        ),
        // The end is in the hour that comes twice: the first, then the second time.
        (
            "22:00",
            "02:30",
            BERLIN,
            "2025-10-26T00:10:00Z",
            Some("2025-10-26T00:30:00Z"),
        ),
        (
            "22:00",
            "02:30",
            BERLIN,
            "2025-10-26T01:10:00Z",
            Some("2025-10-26T01:30:00Z"),
        ),
        ("00:00", "23:59", "No/Where", "2025-06-10T12:00:00Z", None),
    ];

    #[test]
    fn they_end_at_the_next_end_in_the_time_zone() {
        for &(from, to, zone, now, end) in CASES {
            assert_eq!(
                hours(from, to, zone).end(at(now)),
                end.map(at),
                "{from} to {to}, {zone}, {now}"
            );
        }
    }

    proptest! {
        #[test]
        fn an_end_is_to_come_within_two_days(
            from in 0_u16..1440,
            to in 0_u16..1440,
            now in 0_i64..4_000_000_000,
        ) {
            let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "UTC"];
            for zone in zones {
                let hours = QuietHours { from_minute: from, to_minute: to, time_zone: zone.to_owned() };
                let now = Timestamp(now * 1000);
                if let Some(end) = hours.end(now) {
                    // Samoa left out a whole day when it changed sides.
                    prop_assert!(end > now && end.since(now) <= Duration::from_secs(49 * 3600));
                }
            }
        }
    }
}
