//! Keeps what the user has begun to write in a chat when they go to another one, and shows it again when they return.

use tern_types::ChatId;

use super::Screen;
use crate::messenger::desk::Desk;

/// Changes the text that is typed, if another chat is open now than `before`. A command that is typed goes along.
pub fn moved(before: Option<ChatId>, desk: &mut Desk, screen: &mut Screen) {
    if desk.view.open == before || is_command(screen) {
        return;
    }
    if let Some(chat) = before {
        desk.keep_draft(chat, screen.input.take());
    }
    if let Some(chat) = desk.view.open.filter(|_| screen.input.is_empty()) {
        screen.input.insert(&desk.view.draft(chat));
    }
}

/// Keeps what is typed when the program ends.
pub async fn ended(desk: &mut Desk, screen: &mut Screen) {
    if let Some(chat) = desk.view.open.filter(|_| !is_command(screen)) {
        desk.keep_last_draft(chat, screen.input.take()).await;
    }
}

fn is_command(screen: &Screen) -> bool {
    !screen.input.is_empty() && !screen.input.is_message()
}
