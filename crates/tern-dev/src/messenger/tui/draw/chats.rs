//! Draws the list of chats.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use tern_client::Chat;
use tern_proto::v1::ChatKind;
use tern_types::{Clock, Timestamp};

use super::cut;
use crate::messenger::view::{View, is_muted};

/// The columns of the sign before a title.
const SIGN_COLUMNS: usize = 2;

/// Draws the list: the chats, a line for the archive, and the archived chats unless they are folded.
pub fn draw(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let width = usize::from(area.width).saturating_sub(3);
    let (listed, now) = (view.listed(), Clock::wall());
    let chats = listed.chats.iter().copied();
    let (archived, others): (Vec<&Chat>, Vec<&Chat>) = chats.partition(|chat| chat.settings.archived);
    let line = |chat: &&Chat| row(view, chat, width, now);
    let mut lines: Vec<Text<'_>> = others.iter().map(line).collect();
    if listed.archived > 0 {
        let sign = if listed.folded { "▸" } else { "▾" };
        lines.push(Text::from(format!("{sign} archived ({})", listed.archived)).dim());
    }
    lines.extend(archived.iter().map(line));
    let block = Block::new().borders(Borders::RIGHT).title(" chats ".bold());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Returns the line of a chat: sign, title, and at its right how it is kept and what is unread.
fn row(view: &View, chat: &Chat, width: usize, now: Timestamp) -> Text<'static> {
    let is_open = view.open == Some(chat.id);
    let (kept, unread) = (kept(view, chat, now), unread(chat));
    let right = Span::raw(&kept).width() + Span::raw(&unread).width();
    let room = width.saturating_sub(right + SIGN_COLUMNS);
    let title = cut(&view.title(chat.id), room);
    let pad = " ".repeat(room.saturating_sub(Span::raw(&title).width()));
    let sign = match chat.peer {
        Some(peer) if view.is_online(peer) => "● ",
        _ if chat.kind == ChatKind::Group => "# ",
        _ => "  ",
    };
    let style = match (is_open, !unread.is_empty(), chat.left) {
        (_, _, true) => Style::new().add_modifier(Modifier::DIM),
        (true, ..) => Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED),
        (_, true, _) => Style::new().add_modifier(Modifier::BOLD),
        _ => Style::new(),
    };
    let counts = if is_muted(chat, now) {
        Style::new().add_modifier(Modifier::DIM)
    } else {
        Style::new().fg(Color::Green).add_modifier(Modifier::BOLD)
    };
    Text::from(vec![
        Span::styled(format!("{sign}{title}{pad}"), style),
        Span::raw(kept).dim(),
        Span::styled(unread, counts),
    ])
}

/// Returns the signs of how the user keeps a chat: pinned, muted, with a draft.
fn kept(view: &View, chat: &Chat, now: Timestamp) -> String {
    let signs = [
        (chat.settings.pinned_at_ms > 0, " 📌"),
        (is_muted(chat, now), " 🔕"),
        (!view.draft(chat.id).is_empty(), " ✎"),
    ];
    let signs = signs.into_iter().filter(|(is, _)| *is);
    signs.map(|(_, sign)| sign).collect()
}

/// Returns what is unread in a chat, as in " @2 7", or a point if the user marked the chat.
fn unread(chat: &Chat) -> String {
    let mut text = String::new();
    if chat.unread_mention_count > 0 {
        text.push_str(&format!(" @{}", chat.unread_mention_count));
    }
    match (chat.unread, chat.settings.marked_unread) {
        (0, false) => {}
        (0, true) => text.push_str(" •"),
        (count, _) => text.push_str(&format!(" {count}")),
    }
    text
}
