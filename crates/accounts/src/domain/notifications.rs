//! Decides which settings of notifications a user may have.

use jiff::tz::TimeZone;
use tern_proto::v1;
use tern_proto::{ApiError, parse};

/// The minutes of a day.
const MINUTES_A_DAY: i16 = 24 * 60;
/// The most bytes of the name of a time zone. The longest of the IANA database has 32.
const MAX_TIME_ZONE_BYTES: usize = 64;

/// A user's settings of when they are notified. The default is at any time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notifications {
    /// The hours of each day without notifications, if there are any.
    pub quiet_hours: Option<QuietHours>,
}

/// Hours of each day. They may go past midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietHours {
    /// The minute of the day at which they begin, 0 to 1,439.
    pub from: i16,
    /// The minute of the day at which they end, 0 to 1,439. It is another one than `from`.
    pub to: i16,
    /// The name of the time zone in the IANA database.
    pub time_zone: String,
}

impl Notifications {
    /// Reads settings as a client sends them. Returns `Err` with INVALID_FIELD and the field's name if the quiet hours
    /// are none, or their time zone is not known.
    pub fn read(settings: v1::NotificationSettings) -> Result<Self, ApiError> {
        let quiet_hours = settings.quiet_hours.map(QuietHours::read).transpose()?;
        Ok(Self { quiet_hours })
    }

    /// Returns the settings as clients get them.
    pub fn message(self) -> v1::NotificationSettings {
        v1::NotificationSettings {
            quiet_hours: self.quiet_hours.map(|hours| v1::QuietHours {
                from_minute: hours.from.unsigned_abs().into(),
                to_minute: hours.to.unsigned_abs().into(),
                time_zone: hours.time_zone,
            }),
        }
    }
}

impl QuietHours {
    fn read(hours: v1::QuietHours) -> Result<Self, ApiError> {
        let from = minute("settings.quiet_hours.from_minute", hours.from_minute)?;
        let field = "settings.quiet_hours.to_minute";
        let to = minute(field, hours.to_minute)?;
        if from == to {
            return Err(ApiError::invalid(field, "must not be from_minute"));
        }
        let field = "settings.quiet_hours.time_zone";
        let time_zone = parse::text(field, hours.time_zone, MAX_TIME_ZONE_BYTES)?;
        if !TimeZone::get(&time_zone).is_ok_and(|zone| !zone.is_unknown()) {
            return Err(ApiError::invalid(
                field,
                "must be the name of a time zone of the IANA database",
            ));
        }
        Ok(Self { from, to, time_zone })
    }
}

fn minute(field: &'static str, minute: u32) -> Result<i16, ApiError> {
    let minute = i16::try_from(minute).ok();
    minute
        .filter(|minute| *minute < MINUTES_A_DAY)
        .ok_or_else(|| ApiError::invalid(field, "must be a minute of the day, 0 to 1,439"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(from_minute: u32, to_minute: u32, time_zone: &str) -> v1::NotificationSettings {
        v1::NotificationSettings {
            quiet_hours: Some(v1::QuietHours {
                from_minute,
                to_minute,
                time_zone: time_zone.to_owned(),
            }),
        }
    }

    #[test]
    fn good_settings_are_returned_as_they_were_set() {
        for good in [
            v1::NotificationSettings::default(),
            settings(1320, 420, "Europe/Berlin"),
            settings(0, 1439, "America/Argentina/ComodRivadavia"),
            settings(1439, 0, "UTC"),
        ] {
            let read = Notifications::read(good.clone()).unwrap();
            assert_eq!(read.message(), good);
        }
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        let (from, to, zone) = ("from_minute", "to_minute", "time_zone");
        let long = format!("Europe/{}", "x".repeat(64));
        for (bad, expected) in [
            (settings(1440, 420, "Europe/Berlin"), from),
            (settings(u32::MAX, 420, "Europe/Berlin"), from),
            (settings(65_536, 420, "Europe/Berlin"), from),
            (settings(420, 1440, "Europe/Berlin"), to),
            (settings(420, 420, "Europe/Berlin"), to),
            (settings(0, 420, ""), zone),
            (settings(0, 420, "Europe/Atlantis"), zone),
            (settings(0, 420, "CET-1CEST,M3.5.0,M10.5.0/3"), zone),
            (settings(0, 420, "Etc/Unknown"), zone),
            (settings(0, 420, "../Europe/Berlin"), zone),
            (settings(0, 420, "Europe/Berlin\0"), zone),
            (settings(0, 420, &long), zone),
        ] {
            let error = Notifications::read(bad.clone()).unwrap_err();
            let expected = format!("settings.quiet_hours.{expected}");
            assert_eq!(error.field, Some(expected.as_str()), "{bad:?}");
        }
    }
}
