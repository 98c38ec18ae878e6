//! Draws the [`View`] on the terminal.
//!
//! ```text
//!  sessions 1204   messages/s 310   …          facts
//!  ROLE     NODE       STATE …                 a line a node
//!  ! chat-1 does not answer                    alarms
//! ```

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table, Wrap};

use super::view::{Cell, HEAD, Mood, View};

/// Lines of facts. All facts together are about 200 columns wide, so they wrap.
const FACT_LINES: u16 = 3;
/// Most lines that alarms may take from the table of nodes; further alarms are not visible.
const ALARM_LINES: u16 = 10;
const WIDTHS: [u16; HEAD.len()] = [9, 20, 10, 8, 9, 8, 9, 11, 9, 9, 6];

/// Draws the whole screen.
pub fn screen(frame: &mut Frame<'_>, view: &View) {
    let alarms = u16::try_from(view.alarms.len())
        .unwrap_or(u16::MAX)
        .clamp(1, ALARM_LINES);
    let [top, middle, bottom, help] = Layout::vertical([
        Constraint::Length(FACT_LINES),
        Constraint::Min(2),
        Constraint::Length(alarms),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    facts(frame, view, top);
    nodes(frame, view, middle);
    frame.render_widget(Paragraph::new(alarm_lines(view)), bottom);
    frame.render_widget(Line::from(" tern top   q ends it").dim(), help);
}

fn facts(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let mut spans = Vec::new();
    for (name, cell) in &view.facts {
        spans.push(Span::from(format!(" {name} ")).dim());
        spans.push(Span::styled(
            cell.text.clone(),
            style(cell).add_modifier(Modifier::BOLD),
        ));
        spans.push(Span::from("  "));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)).wrap(Wrap { trim: false }), area);
}

fn nodes(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let rows = view.rows.iter().map(|row| {
        Row::new(
            row.iter()
                .map(|cell| Span::styled(cell.text.clone(), style(cell))),
        )
    });
    let table = Table::new(rows, WIDTHS.map(Constraint::Length))
        .header(Row::new(HEAD).style(Style::new().add_modifier(Modifier::REVERSED)));
    frame.render_widget(table, area);
}

fn alarm_lines(view: &View) -> Vec<Line<'_>> {
    if view.alarms.is_empty() && !view.rows.is_empty() {
        return vec![Line::from(" all is well").fg(Color::Green)];
    }
    let line = |alarm: &Cell| Line::styled(format!(" ! {}", alarm.text), style(alarm));
    view.alarms.iter().map(line).collect()
}

fn style(cell: &Cell) -> Style {
    match cell.mood {
        Mood::Plain => Style::new(),
        Mood::Warn => Style::new().fg(Color::Yellow),
        Mood::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn what_is_badly_wrong_is_red() {
        let bad = Cell {
            text: "chat-1 does not answer".into(),
            mood: Mood::Bad,
        };
        let view = View {
            facts: vec![("sessions", Cell::default())],
            alarms: vec![bad],
            ..View::default()
        };
        let mut terminal = Terminal::new(TestBackend::new(80, 12)).unwrap();
        terminal.draw(|frame| screen(frame, &view)).unwrap();
        let buffer = terminal.backend().buffer();
        let line: String = (0..80).map(|x| buffer[(x, 10)].symbol()).collect();
        assert!(line.starts_with(" ! chat-1 does not answer"), "{line:?}");
        assert_eq!(buffer[(3, 10)].fg, Color::Red);
        assert!((0..80).any(|x| buffer[(x, 11)].symbol() == "q"));
    }
}
