//! Draws the view on the screen.
//!
//! ```text
//! ┌ list of chats ┬ title ──────────────┐
//! │ ▌ lunch club 2│ 14:05  Bob    hello │
//! │   Bob         │ 14:06  you    hi  ✓✓│
//! │               ├─────────────────────┤
//! │               │ › typed             │
//! └ status ───────┴─────────────────────┘
//! ```
//!
//! - [`chats`]: the list of chats; [`header`]: the title of the open one

mod chats;
mod header;

use std::ops::Range;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Wrap};
use tern_types::{Clock, Seq, UserId};

use super::wrap::wrap;
use super::{Screen, help, list};
use crate::messenger::clock;
use crate::messenger::view::{Connection, Line, Tick, View};

/// The width of the list of chats, in columns.
const LIST: u16 = 26;
/// The width of the screen, in columns, below which the list of chats is left out.
const NARROW: u16 = 70;
/// The columns of the time, as in `14:05  `.
const TIME_COLUMNS: usize = 7;
/// The columns of a name with the blanks after it.
const NAME_COLUMNS: usize = 11;
/// The columns of a tick, as in ` ✓✓`.
const TICK_COLUMNS: usize = 3;
/// The columns of the sign of the connection, with the blanks beside it.
const SIGN_COLUMNS: u16 = 3;
/// The colour of the tick "read".
const READ: Color = Color::Cyan;
/// The colours of people's names. Cyan and red are not among them, because they mean "read" and "not sent".
const NAMES: [Color; 6] = [
    Color::Green,
    Color::Yellow,
    Color::Magenta,
    Color::Blue,
    Color::LightGreen,
    Color::LightMagenta,
];

/// Draws the whole screen, and updates `screen` with the sizes that it was drawn with.
pub fn screen(frame: &mut Frame<'_>, view: &View, screen: &mut Screen) {
    let [body, status] = Layout::vertical([Constraint::Min(3), Constraint::Length(1)]).areas(frame.area());
    let list = if frame.area().width < NARROW { 0 } else { LIST };
    let [left, right] = Layout::horizontal([Constraint::Length(list), Constraint::Min(10)]).areas(body);
    if list > 0 {
        chats::draw(frame, view, left);
    }
    let [timeline_area, input_area] =
        Layout::vertical([Constraint::Min(2), Constraint::Length(3)]).areas(right);
    timeline(frame, view, screen, timeline_area);
    input(frame, view, screen, input_area);
    status_line(frame, view, screen, status);
    if let Some(shown) = &screen.list {
        list::draw(frame, body, shown);
    }
    if let Some(from) = screen.help {
        screen.help = Some(help::draw(frame, body, from));
    }
}

/// Draws the title and the messages of the open chat.
fn timeline(frame: &mut Frame<'_>, view: &View, screen: &mut Screen, area: Rect) {
    let title = view.open.map_or_else(
        || " tern ".to_owned(),
        |chat| format!(" {} ", header::titled(view, chat)),
    );
    let block = Block::new()
        .borders(Borders::BOTTOM)
        .title(Text::from(title).bold());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let (lines, selected) = view
        .open
        .map(|chat| lines(view, chat, usize::from(inner.width)))
        .unwrap_or_default();
    // If the timeline is scrolled up, the lines on the screen stay in place while more arrive below.
    if screen.scrolled > 0 && lines.len() > screen.lines {
        screen.scrolled += lines.len() - screen.lines;
    }
    (screen.page, screen.lines) = (usize::from(inner.height), lines.len());
    if let Some(selected) = selected {
        screen.scrolled = scrolled_to(&selected, screen);
    }
    screen.scrolled = screen.scrolled.min(lines.len().saturating_sub(screen.page));
    let end = lines.len() - screen.scrolled;
    let shown = &lines[end.saturating_sub(screen.page)..end];
    // The newest line stands at the bottom, so blank lines fill the space above.
    let above = vec![Text::raw(""); screen.page.saturating_sub(shown.len())];
    frame.render_widget(Paragraph::new([above, shown.to_vec()].concat()), inner);
}

/// Returns by how many lines the timeline is to be scrolled up so that the selected ones are on the screen.
fn scrolled_to(selected: &Range<usize>, screen: &Screen) -> usize {
    let least = screen.lines.saturating_sub(selected.start + screen.page);
    let most = screen.lines.saturating_sub(selected.end);
    screen.scrolled.max(least).min(most)
}

/// Returns the timeline of a chat as styled lines of at most `width` columns, and which of them are those of the
/// selected message.
fn lines(view: &View, chat: tern_types::ChatId, width: usize) -> (Vec<Text<'static>>, Option<Range<usize>>) {
    let new_from = view.rooms.get(&chat).and_then(|room| room.new_from);
    let details = view.details(chat);
    let (mut out, mut selected) = (Vec::new(), None);
    let (mut day, mut new_shown) = (String::new(), false);
    for line in view.lines(chat) {
        let today = clock::day(line.at);
        if today != day {
            out.push(ruler(&today, width, Style::new().dim()));
            day = today;
        }
        let own = line.who == Some(view.me);
        if !new_shown && new_from.is_some_and(|from| line.seq >= Some(from)) && !own {
            out.push(ruler("new", width, Style::new().fg(Color::Green)));
            new_shown = true;
        }
        let (seq, from) = (line.seq, out.len());
        out.extend(message(view, line, width));
        if seq.is_some() && seq == view.selected {
            let marked = Style::new().add_modifier(Modifier::REVERSED);
            out[from..].iter_mut().for_each(|line| line.style = marked);
            selected = Some(from..out.len());
        }
        if let Some((_, text)) = details.as_ref().filter(|(of, _)| Some(*of) == seq) {
            let indent = " ".repeat(TIME_COLUMNS + NAME_COLUMNS);
            out.push(Text::from(Span::styled(
                format!("{indent}{text}"),
                Style::new().dim().italic(),
            )));
        }
    }
    (out, selected)
}

/// Returns a line of the timeline as styled lines: time, name, the message that it answers, text and tick.
fn message(view: &View, line: Line, width: usize) -> Vec<Text<'static>> {
    let time = Span::styled(
        format!("{:<TIME_COLUMNS$}", clock::time(line.at)),
        Style::new().dim(),
    );
    let Some(who) = line.who else {
        let text = wrap(&line.shown(), width.saturating_sub(TIME_COLUMNS));
        let first = |index| {
            if index == 0 {
                time.clone()
            } else {
                Span::raw(" ".repeat(TIME_COLUMNS))
            }
        };
        let text = text.into_iter().enumerate();
        return text
            .map(|(index, text)| Text::from(vec![first(index), Span::raw(text).dim().italic()]))
            .collect();
    };
    let indent = TIME_COLUMNS + NAME_COLUMNS;
    let room = width.saturating_sub(indent + TICK_COLUMNS);
    let quote = line.quote.as_ref().map(|quote| cut(&format!("┃ {quote}"), room));
    let quote = quote.map(|quote| Span::raw(quote).dim());
    let style = if line.deleted {
        Style::new().dim().italic()
    } else {
        Style::new()
    };
    let text = wrap(&line.shown(), room);
    let text = text.into_iter().map(|part| Span::styled(part, style));
    let rows: Vec<Span<'static>> = quote.into_iter().chain(text).collect();
    let last = rows.len() - 1;
    let name = cut(&view.name(who), NAME_COLUMNS - 2);
    let pad = " ".repeat(NAME_COLUMNS.saturating_sub(Span::raw(&name).width()));
    let mut out = Vec::new();
    for (index, row) in rows.into_iter().enumerate() {
        let mut spans = if index == 0 {
            vec![
                time.clone(),
                Span::styled(format!("{name}{pad}"), name_style(view, who)),
            ]
        } else {
            vec![Span::raw(" ".repeat(indent))]
        };
        spans.push(row);
        if index == last {
            spans.extend(line.tick.as_ref().map(tick));
        }
        out.push(Text::from(spans));
    }
    if let Some(Tick::Failed(why)) = &line.tick {
        let why = format!("not sent: {why} · /retry or /discard");
        for part in wrap(&why, width.saturating_sub(indent)) {
            let part = format!("{}{part}", " ".repeat(indent));
            out.push(Text::from(Span::styled(part, Style::new().fg(Color::Red))));
        }
    }
    out
}

fn tick(tick: &Tick) -> Span<'static> {
    match tick {
        Tick::Waiting => Span::raw(" ◷").dim(),
        Tick::Sent => Span::raw(" ✓").dim(),
        Tick::Delivered => Span::raw(" ✓✓").dim(),
        Tick::Read => Span::raw(" ✓✓").fg(READ).bold(),
        Tick::Failed(_) => Span::raw(" ✗").fg(Color::Red).bold(),
    }
}

/// Returns the style of a person's name, whose colour depends on the person's id.
fn name_style(view: &View, who: UserId) -> Style {
    if who == view.me {
        return Style::new().bold();
    }
    let sum = who.as_bytes().iter().fold(0_usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(*byte))
    });
    Style::new().fg(NAMES[sum % NAMES.len()]).bold()
}

/// Returns a horizontal line with a text in its middle.
fn ruler(text: &str, width: usize, style: Style) -> Text<'static> {
    let side = width.saturating_sub(text.len() + 2) / 2;
    Text::from(Span::styled(format!("{0} {text} {0}", "─".repeat(side)), style))
}

/// Draws the line that is being typed, and below it the notice, or else who is typing.
fn input(frame: &mut Frame<'_>, view: &View, screen: &Screen, area: Rect) {
    let [line, notice] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let prompt = "› ";
    let width = usize::from(line.width).saturating_sub(3);
    let (text, at) = screen.input.window(width);
    let silent = view.open.and_then(|chat| view.silent(chat));
    let shown = match (screen.input.is_empty(), view.open) {
        (true, Some(_)) if silent.is_some() => Span::raw(silent.unwrap_or_default()).dim(),
        (true, Some(_)) if view.thread.is_some() => Span::raw("message in this thread").dim(),
        (true, Some(chat)) => Span::raw(format!("message to {}", view.title(chat))).dim(),
        (true, None) => Span::raw("/chat bob, or /help").dim(),
        (false, _) => Span::raw(text),
    };
    frame.render_widget(
        Paragraph::new(Text::from(vec![Span::raw(prompt).bold(), shown])),
        line,
    );
    let column = u16::try_from(at).unwrap_or(0).saturating_add(2);
    // No cursor is shown in a chat where the user cannot write.
    if silent.is_none() || !screen.input.is_empty() {
        frame.set_cursor_position(Position::new(line.x.saturating_add(column), line.y));
    }
    let typing = view.open.and_then(|chat| view.typing(chat));
    if let (None, Some(text)) = (&screen.notice, &typing) {
        frame.render_widget(Paragraph::new(Span::raw(text.as_str()).dim().italic()), notice);
    }
    if let Some((text, _)) = &screen.notice {
        let style = Style::new().fg(Color::Yellow);
        frame.render_widget(
            Paragraph::new(text.as_str())
                .style(style)
                .wrap(Wrap { trim: false }),
            notice,
        );
    }
}

/// Draws the state of the connection, and the keys that the user may press.
fn status_line(frame: &mut Frame<'_>, view: &View, screen: &Screen, area: Rect) {
    let (sign, text) = match &view.connection {
        Connection::Connecting => ("○".yellow(), "connecting …".to_owned()),
        Connection::Connected { gateway, caught_up } => (
            "●".green(),
            format!("{gateway}{}", if *caught_up { "" } else { " · catching up …" }),
        ),
        Connection::Waiting { reason, until } => {
            let left = until.map(|until| until.since(Clock::monotonic()).as_secs() + 1);
            let again = left
                .map(|seconds| format!(" · again in {seconds} s"))
                .unwrap_or_default();
            ("●".red(), format!("not connected: {reason}{again}"))
        }
        Connection::Ended(why) => ("●".red(), format!("not connected: {why}")),
    };
    let scrolled = if screen.scrolled > 0 {
        " · Esc: newest"
    } else {
        ""
    };
    let (text, keys) = match view.selected {
        Some(seq) => {
            let own = view
                .target(None, false)
                .is_some_and(|message| message.entry.sender == Some(view.me));
            keys_for(
                seq,
                own,
                text,
                usize::from(area.width.saturating_sub(SIGN_COLUMNS)),
            )
        }
        None => {
            let keys =
                format!("   Tab: next chat · ↑: select · PgUp: older · /help · Ctrl-C: leave{scrolled}");
            (text, keys)
        }
    };
    let line = Text::from(vec![
        " ".into(),
        sign,
        Span::raw(format!(" {text}")),
        Span::raw(keys).dim(),
    ]);
    frame.render_widget(Paragraph::new(line), area);
}

/// Returns what the status line says while a message is selected: the connection and the keys, or only the keys if both
/// do not fit into `width` columns. Only an `own` message can be edited.
fn keys_for(selected: Seq, own: bool, connection: String, width: usize) -> (String, String) {
    let columns = |text: &str| Span::raw(text).width();
    let edit = if own { "e: edit · " } else { "" };
    let keys =
        format!("#{selected} · r: reply · t: thread · {edit}+: react · p: pin · d: delete · h: hide · Esc");
    let both = format!("   {keys}");
    if columns(&connection) + columns(&both) <= width {
        (connection, both)
    } else if columns(&keys) <= width {
        (String::new(), keys)
    } else {
        // People seldom react to what they wrote themselves.
        let other = if own { "e:edit" } else { "+:react" };
        let short = format!("r:reply {other} p:pin d:del h:hide #{selected}");
        (String::new(), short)
    }
}

/// Shortens a text to at most `width` columns, with `…` at its end if something is cut off.
fn cut(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        if Span::raw(out.as_str()).width() + 2 > width {
            break;
        }
        out.push(c);
    }
    out + "…"
}

#[cfg(test)]
mod tests;
