//! A notice is what a device tells the other members of a chat while they are online, such as that its user is typing.
//! It is never stored, and it is dropped rather than delay anything else.

/// One notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The person is typing, or was typing until now.
    Typing {
        /// True if the person is typing no more.
        stopped: bool,
    },
}

/// The kind of a [`Notice`], without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// [`Notice::Typing`].
    Typing,
}

impl Notice {
    /// Returns the kind of the notice.
    pub fn kind(&self) -> NoticeKind {
        match self {
            Self::Typing { .. } => NoticeKind::Typing,
        }
    }
}

impl NoticeKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 1] = [Self::Typing];

    /// Returns the kind as metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Typing => "typing",
        }
    }

    /// Returns whether a new entry in the chat makes older notices of this kind untrue.
    pub fn ends_with_an_entry(self) -> bool {
        match self {
            Self::Typing => true,
        }
    }
}
