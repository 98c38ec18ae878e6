//! Reads how long a chat is to keep its messages from a request.

use tern_proto::{ApiError, v1};
use tern_types::limits::{DISAPPEAR_S, KEEP_S};

use tern_chat_core::retention::{Mode, Retention};

/// Reads the retention that a request asks for; `None` stands for the default of all its fields.
///
/// # Errors
///
/// The mode is not known to this version, a time is out of its range, or one is given that the mode does not have.
pub fn of_request(wanted: Option<&v1::Retention>) -> Result<Retention, ApiError> {
    let Some(wanted) = wanted else {
        return Ok(Retention::default());
    };
    let mode = match v1::RetentionMode::try_from(wanted.mode) {
        Ok(v1::RetentionMode::Unspecified) => Mode::Default,
        Ok(v1::RetentionMode::Forever) => Mode::Forever,
        Ok(v1::RetentionMode::ForTime) if KEEP_S.contains(&wanted.keep_s) => Mode::ForTime(wanted.keep_s),
        Ok(v1::RetentionMode::ForTime) => {
            return Err(ApiError::invalid("retention.keep_s", "must be 3600 to 315360000"));
        }
        Ok(v1::RetentionMode::UntilDelivered) => Mode::UntilDelivered,
        Err(_) => return Err(ApiError::invalid("retention.mode", "is not known to this server")),
    };
    if wanted.keep_s != mode.keep_s() {
        return Err(ApiError::invalid(
            "retention.keep_s",
            "is for the mode FOR_TIME only",
        ));
    }
    let disappear_after_s = wanted.disappear_after_s;
    if disappear_after_s != 0 && !DISAPPEAR_S.contains(&disappear_after_s) {
        let problem = "must be 0 or 5 to 31536000";
        return Err(ApiError::invalid("retention.disappear_after_s", problem));
    }
    Ok(Retention {
        mode,
        disappear_after_s,
    })
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn read(mode: i32, keep_s: u32, disappear_after_s: u32) -> Result<Retention, ApiError> {
        let wanted = v1::Retention {
            mode,
            keep_s,
            disappear_after_s,
        };
        of_request(Some(&wanted))
    }

    #[test]
    fn each_mode_is_read_with_its_times() {
        let cases = [
            ((0, 0, 0), Mode::Default),
            ((1, 0, 5), Mode::Forever),
            ((2, 3_600, 0), Mode::ForTime(3_600)),
            ((2, 315_360_000, 31_536_000), Mode::ForTime(315_360_000)),
            ((3, 0, 60), Mode::UntilDelivered),
        ];
        for ((number, keep_s, disappear_after_s), mode) in cases {
            let expected = Retention {
                mode,
                disappear_after_s,
            };
            let read = read(number, keep_s, disappear_after_s).ok();
            assert_eq!(read, Some(expected), "{mode:?}");
        }
        assert_eq!(of_request(None).ok(), Some(Retention::default()));
    }

    #[test]
    fn what_no_chat_can_have_is_refused() {
        for (mode, keep_s, disappear_after_s) in [
            (4, 0, 0),
            (-1, 0, 0),
            (2, 0, 0),
            (2, 3_599, 0),
            (2, 315_360_001, 0),
            (0, 3_600, 0),
            (1, 3_600, 0),
            (3, 3_600, 0),
            (0, 0, 4),
            (1, 0, 31_536_001),
        ] {
            let refused = read(mode, keep_s, disappear_after_s).err();
            let code = refused.map(|error| error.code());
            assert_eq!(
                code,
                Some(Code::InvalidArgument),
                "{mode}, {keep_s}, {disappear_after_s}"
            );
        }
    }
}
