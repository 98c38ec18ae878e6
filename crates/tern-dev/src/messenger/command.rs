//! Parses a typed line into a command.

use tern_client::Audience;
use tern_proto::v1::Role;

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

/// The help: usage and meaning of each command. The first entry that begins with a command's name also explains that
/// command after a mistake.
pub const HELP: &[(&str, &str)] = &[
    (
        "/chat bob",
        "chat with bob (a group's title or a number of the list will do too)",
    ),
    ("/group \"lunch club\" bob carol", "make a group"),
    ("/add dave", "add to this group"),
    ("/remove dave", "remove from this group"),
    ("/title new title", "rename this group"),
    (
        "/role bob admin",
        "make bob an owner, an admin or a member of this group",
    ),
    ("/leave", "leave this group (/leave bob: bob owns it then)"),
    ("/picture boat.jpg", "this group's picture (no group open: yours)"),
    ("/send holiday.jpg", "send a file"),
    (
        "/save 12",
        "save the file of message 12 to your downloads (or: /save 12 path)",
    ),
    (
        "/forward 12 carol",
        "send message 12, with its files, on to another chat",
    ),
    (
        "/reply hello",
        "answer the selected message or the last one (/reply #12 hello: message 12)",
    ),
    (
        "/thread hello",
        "write into the thread of the selected message or the last one, or begin one (/thread #12 hello)",
    ),
    (
        "/edit hello",
        "change the text of your selected or last message (/edit #12 hello)",
    ),
    (
        "/react 👍",
        "react to the selected or last message; once more takes it back",
    ),
    (
        "/delete",
        "delete your selected or last message for everyone (/delete #12)",
    ),
    ("/pin", "pin the selected or last message (/pin #12)"),
    (
        "/unpin",
        "the opposite (alone: the newest message that is pinned)",
    ),
    (
        "/search words",
        "find messages of this chat that have these words (no chat open: of all)",
    ),
    ("/searchall words", "find messages of all chats"),
    ("/hit 2", "show the second message that was found, in its chat"),
    (
        "/retry",
        "send your last refused message again (/retry 2: the one before it)",
    ),
    ("/discard", "delete it instead (/discard 2: the one before it)"),
    ("/connect", "try again after the server has ended the connection"),
    ("/who", "who is in this chat"),
    (
        "/info",
        "who read your last message here (/info 2: the one before it)",
    ),
    ("/chats", "all chats"),
    ("/block bob", "no messages between you and bob any more"),
    ("/unblock bob", "the opposite"),
    ("/blocked", "whom you have blocked"),
    (
        "/contacts bob carol",
        "let them see you (without names: who they are)",
    ),
    ("/forget bob", "bob is no contact any more"),
    (
        "/privacy nobody receipts off",
        "who sees you online: everyone, contacts or nobody; whether others are told what you read (alone: as it is)",
    ),
    ("/quit", "leave this program"),
    ("//text", "a message that begins with a /"),
];

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
                | Self::Edit { message: None, .. }
                | Self::React { message: None, .. }
                | Self::Pin(None)
                | Self::Unpin(None)
                | Self::Delete(None)
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
            "help" | "h" | "?" => Self::Help,
            "quit" | "q" | "exit" => Self::Quit,
            _ => return None,
        })
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

    fn thread(rest: &str) -> Option<Self> {
        let (message, text) = about(rest)?;
        Some(Self::Thread { message, text })
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

/// Parses a number that counts messages from the last one, which is 1. An empty text means 1. `None` if the text is no
/// such number.
fn nth(rest: &str) -> Option<usize> {
    if rest.is_empty() {
        return Some(1);
    }
    rest.parse().ok().filter(|nth| *nth > 0)
}

/// Splits a text into a message's number and the rest. `None` if it does not begin with a number, as in `12` or `#12`.
fn numbered(text: &str) -> Option<(u64, &str)> {
    let (number, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let number = number.strip_prefix('#').unwrap_or(number);
    Some((number.parse().ok()?, rest.trim()))
}

/// Splits a text, as in `#12 hello`, into the number of the message that it is about, if there is one, and the rest.
/// `None` if the rest is empty.
fn about(text: &str) -> Option<(Option<u64>, String)> {
    let numbered = numbered(text).filter(|_| text.starts_with('#'));
    let (message, text) = numbered.map_or((None, text), |(number, rest)| (Some(number), rest));
    (!text.is_empty()).then(|| (message, text.to_owned()))
}

/// Parses the number of a message. An empty text means none. `None` if the text is no number.
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    let (number, rest) = numbered(text)?;
    rest.is_empty().then_some(Some(number))
}

/// Splits a text into words. A text in quotes is one word. Commas separate words as blanks do.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' | '“' | '”' => quoted = !quoted,
            c if !quoted && (c.is_whitespace() || c == ',') => words.push(String::new()),
            c => words.last_mut().into_iter().for_each(|word| word.push(c)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn unquote(text: &str) -> String {
    text.trim_matches(['"', '“', '”']).to_owned()
}

#[cfg(test)]
mod tests;
