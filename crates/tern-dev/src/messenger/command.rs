//! Parses a typed line into a command.
//!
//! - [`keeping`]: how the user keeps a chat; [`running`]: how a chat is run
//! - [`parts`]: words, numbers and times; [`help`]: the help

mod help;
mod keeping;
mod parts;
mod running;

use tern_client::Audience;
use tern_proto::v1::Role;

pub use help::HELP;
pub use keeping::Keeping;
pub use running::{Rule, Running};

use parts::{about, nth, number, numbered, unquote, words};

/// The largest number of bytes of a reaction that the server takes.
const MAX_REACTION: usize = 64;

/// The meaning of a typed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Sends this text to the open chat.
    Say(String),
    /// Opens the direct chat with this person, or the chat with this title or number.
    Chat(String),
    /// Creates a group of the user and these people.
    Group { title: String, people: Vec<String> },
    /// Adds these people to the open group.
    Add(Vec<String>),
    /// Removes this person from the open group.
    Remove(String),
    /// Changes a person's role in the open group.
    Role { who: String, role: Role },
    /// Leaves the open group. The person named here, if any, becomes an owner of it first.
    Leave(Option<String>),
    /// Renames the open group.
    Title(String),
    /// Makes this file the picture of the open group, or the user's own picture if no group is open.
    Picture(String),
    /// Sends this file to the open chat.
    Send(String),
    /// Saves the files of the message with this number, at the path `to` or in the directory for downloads.
    Save { message: u64, to: Option<String> },
    /// Sends the message with this number, and its files, on to another chat.
    Forward { message: u64, to: String },
    /// Answers a message. Here and below, `message` is the number that was typed, as in `/reply #12 yes`; without one
    /// the command is about the selected message, or else about the newest one.
    Reply { message: Option<u64>, text: String },
    /// Writes into the thread that the message is in, or that begins with it.
    Thread { message: Option<u64>, text: String },
    /// Shows the thread that the message is in, or that begins with it.
    ShowThread(Option<u64>),
    /// Changes the text of an own message.
    Edit { message: Option<u64>, text: String },
    /// Reacts to a message, or takes the same reaction back.
    React { message: Option<u64>, reaction: String },
    /// Pins a message.
    Pin(Option<u64>),
    /// Ends that a message is pinned.
    Unpin(Option<u64>),
    /// Deletes a message for everyone.
    Delete(Option<u64>),
    /// Deletes a message for the user alone.
    Hide(Option<u64>),
    /// Shows the pinned messages of the open chat.
    Pins,
    /// Finds messages by these words: in the open chat, or in all chats if none is open or with `everywhere`.
    Search { words: String, everywhere: bool },
    /// Shows a message that was found, by its number in the list of those, from 1 on.
    Hit(usize),
    /// Sends a refused message again: the last one is 1, the one before it 2.
    Retry(usize),
    /// Deletes a refused message, counted as for `Retry`.
    Discard(usize),
    /// Connects again after the server has ended the connection.
    Connect,
    /// Shows the members of the open chat.
    Who,
    /// Shows who received and read an own message: the last one is 1, the one before it 2.
    Info(usize),
    /// Lists the chats.
    Chats,
    /// Shows the archived chats in the list, or folds them again.
    Archived,
    /// Changes how the user keeps the open chat.
    Keep(Keeping),
    /// Changes how the open chat is run.
    Run(Running),
    /// Blocks this person.
    Block(String),
    /// Ends the block of this person.
    Unblock(String),
    /// Shows the people whom the user has blocked.
    Blocked,
    /// Adds these people to the contacts; without names it shows the contacts.
    Contacts(Vec<String>),
    /// Removes this person from the contacts.
    Forget(String),
    /// Changes these settings; without settings it shows them.
    Privacy(Vec<Setting>),
    /// Shows the help.
    Help,
    /// Leaves the program.
    Quit,
    /// Does nothing, for a blank line.
    Nothing,
    /// The line was not understood. The text says why.
    Wrong(String),
}

/// A privacy setting of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The people who see the user online and last seen.
    SeenBy(Audience),
    /// True if others are told how far the user has read.
    ReadReceipts(bool),
}

impl Command {
    /// Parses a line. A text with several lines (which only pasting makes) is a message, even if it begins with `/`,
    /// unless it is the new text of a message or an answer to one.
    pub fn parse(line: &str) -> Self {
        let line = line.trim_end();
        let takes_lines = ["/edit ", "/reply ", "/thread "]
            .iter()
            .any(|command| line.starts_with(command));
        if line.contains('\n') && !takes_lines {
            return Self::Say(line.to_owned());
        }
        let Some(rest) = line.strip_prefix('/') else {
            return if line.trim().is_empty() {
                Self::Nothing
            } else {
                Self::Say(line.to_owned())
            };
        };
        if rest.starts_with('/') {
            return Self::Say(rest.to_owned());
        }
        let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        Self::of_word(word, rest.trim()).unwrap_or_else(|| Self::wrong(word))
    }

    /// Returns whether the command is about messages that it does not name by their numbers in the chat, so that those
    /// typed before it have to be there.
    pub fn is_about_a_message(&self) -> bool {
        matches!(
            self,
            Self::Reply { message: None, .. }
                | Self::Thread { message: None, .. }
                | Self::ShowThread(None)
                | Self::Edit { message: None, .. }
                | Self::React { message: None, .. }
                | Self::Pin(None)
                | Self::Unpin(None)
                | Self::Delete(None)
                | Self::Hide(None)
                | Self::Pins
                | Self::Search { .. }
                | Self::Hit(_)
        )
    }

    /// Returns the command that begins with `word` and goes on with `rest`. `None` if there is no such command, or if
    /// `rest` does not fit it.
    fn of_word(word: &str, rest: &str) -> Option<Self> {
        let words = words(rest);
        let all = || (!rest.is_empty()).then(|| unquote(rest));
        Some(match word {
            "chat" | "c" => Self::Chat(all()?),
            "group" | "g" => Self::group(&words)?,
            "add" if !words.is_empty() => Self::Add(words),
            "remove" => Self::Remove(all()?),
            "title" => Self::Title(all()?),
            "picture" => Self::Picture(all()?),
            "send" => Self::Send(all()?),
            "save" => Self::save(rest)?,
            "forward" => Self::forward(rest)?,
            "role" => Self::role(&words)?,
            "leave" => Self::Leave(all()),
            "reply" => Self::reply(rest)?,
            "thread" => Self::thread(rest)?,
            "edit" => Self::edit(rest)?,
            "react" => Self::react(rest)?,
            "pin" => Self::Pin(number(rest)?),
            "unpin" => Self::Unpin(number(rest)?),
            "delete" => Self::Delete(number(rest)?),
            "hide" => Self::Hide(number(rest)?),
            "pins" => Self::Pins,
            "search" => Self::search(rest, false)?,
            "searchall" => Self::search(rest, true)?,
            "hit" => Self::Hit(nth(rest)?),
            "retry" => Self::Retry(nth(rest)?),
            "discard" => Self::Discard(nth(rest)?),
            "connect" => Self::Connect,
            "block" => Self::Block(all()?),
            "unblock" => Self::Unblock(all()?),
            "blocked" => Self::Blocked,
            "contacts" => Self::Contacts(words),
            "forget" => Self::Forget(all()?),
            "privacy" => Self::Privacy(settings(&words)?),
            "who" => Self::Who,
            "info" => Self::Info(nth(rest)?),
            "chats" => Self::Chats,
            "archived" => Self::Archived,
            "help" | "h" | "?" => Self::Help,
            "quit" | "q" | "exit" => Self::Quit,
            _ => return Self::of_chat(word, rest),
        })
    }

    /// Returns the same for the commands about how a chat is kept and run.
    fn of_chat(word: &str, rest: &str) -> Option<Self> {
        let keeping = Keeping::of_word(word, rest).map(Self::Keep);
        keeping.or_else(|| Running::of_word(word, rest).map(Self::Run))
    }

    fn group(words: &[String]) -> Option<Self> {
        let (title, people) = words.split_first()?;
        (!people.is_empty()).then(|| Self::Group {
            title: title.clone(),
            people: people.to_vec(),
        })
    }

    fn save(rest: &str) -> Option<Self> {
        let (message, to) = numbered(rest)?;
        let to = (!to.is_empty()).then(|| unquote(to));
        Some(Self::Save { message, to })
    }

    fn forward(rest: &str) -> Option<Self> {
        let (message, to) = numbered(rest)?;
        (!to.is_empty()).then(|| Self::Forward {
            message,
            to: unquote(to),
        })
    }

    fn reply(rest: &str) -> Option<Self> {
        let (message, text) = about(rest)?;
        Some(Self::Reply { message, text })
    }

    /// Parses `/thread`: with a text it writes into the thread, without one it shows the thread.
    fn thread(rest: &str) -> Option<Self> {
        match about(rest) {
            Some((message, text)) => Some(Self::Thread { message, text }),
            None => Some(Self::ShowThread(number(rest)?)),
        }
    }

    fn edit(rest: &str) -> Option<Self> {
        let (message, text) = about(rest)?;
        Some(Self::Edit { message, text })
    }

    fn react(rest: &str) -> Option<Self> {
        let (message, reaction) = about(rest)?;
        (reaction.len() <= MAX_REACTION).then_some(Self::React { message, reaction })
    }

    fn search(rest: &str, everywhere: bool) -> Option<Self> {
        (!rest.is_empty()).then(|| Self::Search {
            words: rest.to_owned(),
            everywhere,
        })
    }

    fn role(words: &[String]) -> Option<Self> {
        let [who, role] = words else { return None };
        Some(Self::Role {
            who: who.clone(),
            role: role_named(role)?,
        })
    }

    /// Returns the text for a command that was not understood: the command's usage, if `word` begins its name.
    fn wrong(word: &str) -> Self {
        let usage = HELP
            .iter()
            .find(|(usage, _)| usage.trim_start_matches('/').starts_with(word) && !word.is_empty());
        match usage {
            Some((usage, what)) => Self::Wrong(format!("like this: {usage} ({what})")),
            None => Self::Wrong(format!("there is no /{word}; /help says what there is")),
        }
    }
}

/// Parses privacy settings, as in `nobody receipts off`. `None` if a word is not understood.
fn settings(words: &[String]) -> Option<Vec<Setting>> {
    let mut words = words.iter().map(String::as_str);
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        settings.push(match word {
            "everyone" => Setting::SeenBy(Audience::Everyone),
            "contacts" => Setting::SeenBy(Audience::Contacts),
            "nobody" => Setting::SeenBy(Audience::Nobody),
            "receipts" => match words.next() {
                Some("on") => Setting::ReadReceipts(true),
                Some("off") => Setting::ReadReceipts(false),
                _ => return None,
            },
            _ => return None,
        });
    }
    Some(settings)
}

fn role_named(word: &str) -> Option<Role> {
    match word {
        "owner" => Some(Role::Owner),
        "admin" => Some(Role::Admin),
        "member" => Some(Role::Member),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
