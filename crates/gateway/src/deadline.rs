//! The deadline of a unary call: the time that its client gives in `grpc-timeout`, and never longer than [`LONGEST`].
//!
//! Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, "Timeout".

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// The longest time that a call may take. One that takes longer will not succeed any more.
pub const LONGEST: Duration = Duration::from_secs(30);

const TIMEOUT: &str = "grpc-timeout";
/// The most digits of a timeout: "TimeoutValue → {positive integer as ASCII string of at most 8 digits}".
const MAX_DIGITS: usize = 8;

/// Returns the time that a call with this metadata may take. A malformed timeout counts as none.
pub fn of(metadata: &MetadataMap) -> Duration {
    let asked = metadata.get(TIMEOUT).and_then(|value| value.to_str().ok());
    asked.and_then(parse).map_or(LONGEST, |asked| asked.min(LONGEST))
}

fn parse(text: &str) -> Option<Duration> {
    let (value, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if value.len() > MAX_DIGITS || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = value.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_ask_for_less_time_and_never_for_more() {
        let of = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(TIMEOUT, text.parse().unwrap());
            super::of(&metadata)
        };
        for (text, millis) in [
            ("250m", 250),
            ("5S", 5000),
            ("9000u", 9),
            ("1000000n", 1),
            ("0S", 0),
        ] {
            assert_eq!(of(text), Duration::from_millis(millis), "{text}");
        }
        let longest = [
            "1H",
            "1M",
            "99999999H",
            "",
            "S",
            "5",
            "-5S",
            "5s",
            "123456789m",
            "5 S",
            "é",
        ];
        for text in longest.into_iter().filter(|text| text.is_ascii()) {
            assert_eq!(of(text), LONGEST, "{text}");
        }
        assert_eq!(parse("é"), None);
        assert_eq!(super::of(&MetadataMap::new()), LONGEST);
    }
}
