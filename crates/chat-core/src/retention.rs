//! How long the server keeps what is said in a chat, and after which time messages disappear.

use tern_proto::v1;

/// The choice of how long the server keeps the contents of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The members chose nothing, so the operator's choice for all chats holds. If this is the operator's choice, messages
    /// are kept for ever.
    #[default]
    Default,
    /// Messages are kept for ever.
    Forever,
    /// A message is kept for this number of seconds ([`tern_types::limits::KEEP_S`]) after it was sent.
    ForTime(u32),
    /// A message is kept until every device that is to get it has acknowledged it.
    UntilDelivered,
}

impl Mode {
    /// Returns the mode that holds in a chat that has this one. `default` is the operator's choice. The result is never
    /// [`Self::Default`].
    #[must_use]
    pub fn or(self, default: Self) -> Self {
        match (self, default) {
            (Self::Default, Self::Default) => Self::Forever,
            (Self::Default, chosen) => chosen,
            (Self::Forever | Self::ForTime(_) | Self::UntilDelivered, _) => self,
        }
    }

    /// Returns the number of the mode as it is stored: that of `tern.v1.RetentionMode`.
    pub fn number(self) -> i16 {
        match self {
            Self::Default => 0,
            Self::Forever => 1,
            Self::ForTime(_) => 2,
            Self::UntilDelivered => 3,
        }
    }

    /// Returns the seconds for which messages are kept, and 0 if no time is set.
    pub fn keep_s(self) -> u32 {
        match self {
            Self::ForTime(seconds) => seconds,
            Self::Default | Self::Forever | Self::UntilDelivered => 0,
        }
    }

    /// Returns the mode with this stored number and these seconds; `None` if this version does not know it.
    pub fn of_stored(number: i16, keep_s: u32) -> Option<Self> {
        [
            Self::Default,
            Self::Forever,
            Self::ForTime(keep_s),
            Self::UntilDelivered,
        ]
        .into_iter()
        .find(|mode| mode.number() == number)
    }
}

/// The choice of a chat's members for their messages. The default leaves all to the operator, and messages stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// How long the server keeps messages.
    pub mode: Mode,
    /// The seconds from its sending on after which a message disappears, from the server and from all devices
    /// ([`tern_types::limits::DISAPPEAR_S`]). 0: messages stay.
    pub disappear_after_s: u32,
}

impl Retention {
    /// Returns the seconds after which a message that is sent now disappears, and 0 if it stays. `asked_s` is the time
    /// that its sender asks for, or 0. The shorter one of that and the chat's holds.
    pub fn expires_after(self, asked_s: u32) -> u32 {
        match (self.disappear_after_s, asked_s) {
            (0, asked) => asked,
            (of_chat, 0) => of_chat,
            (of_chat, asked) => of_chat.min(asked),
        }
    }

    /// Returns the retention as the public API has it.
    pub fn to_wire(self) -> v1::Retention {
        let mode = match self.mode {
            Mode::Default => v1::RetentionMode::Unspecified,
            Mode::Forever => v1::RetentionMode::Forever,
            Mode::ForTime(_) => v1::RetentionMode::ForTime,
            Mode::UntilDelivered => v1::RetentionMode::UntilDelivered,
        };
        v1::Retention {
            mode: mode.into(),
            keep_s: self.mode.keep_s(),
            disappear_after_s: self.disappear_after_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [Mode; 4] = [
        Mode::Default,
        Mode::Forever,
        Mode::ForTime(3600),
        Mode::UntilDelivered,
    ];

    #[test]
    fn a_mode_is_read_as_it_was_stored_and_has_the_number_of_the_api() {
        for mode in MODES {
            assert_eq!(Mode::of_stored(mode.number(), mode.keep_s()), Some(mode));
            let wire = Retention {
                mode,
                disappear_after_s: 5,
            };
            let wire = wire.to_wire();
            assert_eq!(i32::from(mode.number()), wire.mode);
            assert_eq!((wire.keep_s, wire.disappear_after_s), (mode.keep_s(), 5));
        }
        assert_eq!(Mode::of_stored(4, 0), None);
    }

    #[test]
    fn the_operator_decides_where_the_members_chose_nothing() {
        for default in MODES {
            for chosen in [Mode::Forever, Mode::ForTime(7200), Mode::UntilDelivered] {
                assert_eq!(chosen.or(default), chosen);
            }
        }
        assert_eq!(Mode::Default.or(Mode::UntilDelivered), Mode::UntilDelivered);
        assert_eq!(Mode::Default.or(Mode::Default), Mode::Forever);
    }

    #[test]
    fn the_shorter_time_holds() {
        for (of_chat, asked, expected) in [(0, 0, 0), (0, 9, 9), (5, 0, 5), (5, 9, 5), (9, 5, 5)] {
            let retention = Retention {
                disappear_after_s: of_chat,
                ..Retention::default()
            };
            assert_eq!(retention.expires_after(asked), expected, "{of_chat}, {asked}");
        }
    }
}
