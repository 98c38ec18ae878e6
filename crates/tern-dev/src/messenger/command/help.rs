//! The help, a line for each command.

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
        "write into the thread of the selected message or the last one, or begin one (/thread #12 hello); without a text \
         it shows the thread",
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
    (
        "/hide",
        "delete the selected or your last message for yourself (/hide #12)",
    ),
    ("/pin", "pin the selected or last message (/pin #12)"),
    ("/pins", "which messages of this chat are pinned"),
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
    (
        "/mute 8h",
        "no signs of new messages here for 8 h (s, m, h, d, w; alone: always; /mute off)",
    ),
    (
        "/pinchat",
        "this chat at the top of the list (/unpinchat ends that)",
    ),
    ("/archive", "this chat out of the list (/unarchive ends that)"),
    ("/archived", "show the chats of the archive, or fold them again"),
    ("/unread", "show this chat as unread until you read it again"),
    (
        "/disappear 1d",
        "new messages disappear here after a day (5s to 52w; /disappear off; alone: as it is)",
    ),
    ("/description we eat", "what this group is for (alone: as it is)"),
    (
        "/policy send admins slow 30s",
        "who may send, add and edit (all, admins, owners), how long members wait between messages (slow off), what new \
         members may read (history none, all, or the last 100 entries: history 100); alone: as it is",
    ),
    ("/owner bob", "bob owns this group then, and you are an admin"),
    (
        "/invite once approval",
        "make an invite link, for one person, who has to be accepted (both words may be left out)",
    ),
    ("/invites", "the invite links of this group"),
    ("/revoke 2", "end the second of them"),
    ("/join tern:…", "join a group by such a link"),
    ("/requests", "who asks to join this group"),
    ("/accept bob", "let bob in (/refuse bob: do not)"),
    ("/refuse bob", "do not let bob in"),
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
