//! Draws the [`View`] on the terminal.
//!
//! ```text
//!  sessions 1204   messages/s 310   …          facts
//!  ROLE     NODE       STATE …                 a line a node
//!  ! chat-1 does not answer                    alarms
//! ```

use std::io::{self, Write as _};

use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::{cursor, queue, terminal};

use super::view::{Cell, HEAD, Mood, View};

/// The largest number of lines that are kept free for alarms when the table of nodes is longer than the screen.
const ALARM_LINES: usize = 10;
/// The widths of the columns of [`HEAD`], in characters.
const WIDTHS: [usize; HEAD.len()] = [9, 20, 10, 8, 9, 8, 9, 11, 9, 9, 6];

/// The terminal while it shows the screen. When this value is dropped, the terminal is as it was before.
pub struct Screen(());

impl Screen {
    /// Takes the terminal. Fails if this process has no terminal.
    pub fn open() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let screen = Self(());
        queue!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Draws the view in place of the former one.
    pub fn draw(&self, view: &View) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let mut drawn = Vec::new();
        write(&mut drawn, &lines(view, width.into(), height.into()))?;
        let mut out = io::stdout().lock();
        out.write_all(&drawn)?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout();
        // Nobody is left to whom an error could be shown.
        let _ = queue!(out, cursor::Show, terminal::LeaveAlternateScreen);
        let _ = out.flush();
        let _ = terminal::disable_raw_mode();
    }
}

/// The colour or the attribute with which a part of a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Dim,
    Bold,
    Reversed,
    Good,
    Warn,
    Bad,
}

/// The parts of a line.
type Line = Vec<(String, Look)>;

/// Returns the lines of the screen, cut to its width and height.
fn lines(view: &View, width: usize, height: usize) -> Vec<Line> {
    let mut lines = facts(view, width);
    let below = alarms(view);
    let room = height.saturating_sub(lines.len() + below.len().min(ALARM_LINES) + 1);
    lines.extend(nodes(view).into_iter().take(room));
    let room = height.saturating_sub(lines.len() + 1);
    lines.extend(below.into_iter().take(room));
    lines.resize(height.saturating_sub(1), Line::new());
    lines.push(vec![(" tern top   q ends it".to_owned(), Look::Dim)]);
    lines.into_iter().map(|line| cut(line, width)).collect()
}

/// Returns the lines of the facts, with as many facts on a line as there is room for.
fn facts(view: &View, width: usize) -> Vec<Line> {
    let (mut lines, mut taken) = (vec![Line::new()], 0);
    for (name, cell) in &view.facts {
        let long = name.len() + cell.text.chars().count() + 4;
        if taken > 0 && taken + long > width {
            lines.push(Line::new());
            taken = 0;
        }
        taken += long;
        let value = match cell.mood {
            Mood::Plain => Look::Bold,
            mood => look(mood),
        };
        if let Some(line) = lines.last_mut() {
            line.push((format!(" {name} "), Look::Dim));
            line.push((format!("{}  ", cell.text), value));
        }
    }
    lines
}

/// Returns the lines of the table of nodes, with its head.
fn nodes(view: &View) -> Vec<Line> {
    let row = |cells: [(&str, Look); HEAD.len()]| -> Line {
        let padded = |((text, look), width)| {
            let kept: String = str::chars(text).take(width).collect();
            (format!("{kept:<width$} "), look)
        };
        cells.into_iter().zip(WIDTHS).map(padded).collect()
    };
    let head = row(HEAD.map(|name| (name, Look::Reversed)));
    let rows = view.rows.iter().map(|cells| {
        row(std::array::from_fn(|column| {
            let cell = &cells[column];
            (cell.text.as_str(), look(cell.mood))
        }))
    });
    std::iter::once(head).chain(rows).collect()
}

/// Returns a line for each alarm, or one that says that all is well.
fn alarms(view: &View) -> Vec<Line> {
    if view.alarms.is_empty() && !view.rows.is_empty() {
        return vec![vec![(" all is well".to_owned(), Look::Good)]];
    }
    let line = |alarm: &Cell| vec![(format!(" ! {}", alarm.text), look(alarm.mood))];
    view.alarms.iter().map(line).collect()
}

fn look(mood: Mood) -> Look {
    match mood {
        Mood::Plain => Look::Plain,
        Mood::Warn => Look::Warn,
        Mood::Bad => Look::Bad,
    }
}

/// Cuts a line to `width` characters.
fn cut(line: Line, width: usize) -> Line {
    let mut left = width;
    let part = |(text, look): (String, Look)| {
        let kept: String = text.chars().take(left).collect();
        left -= kept.chars().count();
        (kept, look)
    };
    line.into_iter().map(part).collect()
}

/// Writes the lines from the first one of the screen on.
fn write(out: &mut Vec<u8>, lines: &[Line]) -> io::Result<()> {
    for (number, line) in lines.iter().enumerate() {
        queue!(out, cursor::MoveTo(0, u16::try_from(number).unwrap_or(u16::MAX)))?;
        for (text, look) in line {
            match look {
                Look::Plain => {}
                Look::Dim => queue!(out, SetAttribute(Attribute::Dim))?,
                Look::Bold => queue!(out, SetAttribute(Attribute::Bold))?,
                Look::Reversed => queue!(out, SetAttribute(Attribute::Reverse))?,
                Look::Good => queue!(out, SetForegroundColor(Color::DarkGreen))?,
                Look::Warn => queue!(out, SetForegroundColor(Color::DarkYellow))?,
                Look::Bad => queue!(
                    out,
                    SetAttribute(Attribute::Bold),
                    SetForegroundColor(Color::DarkRed)
                )?,
            }
            queue!(out, Print(text), SetAttribute(Attribute::Reset), ResetColor)?;
        }
        queue!(out, terminal::Clear(terminal::ClearType::UntilNewLine))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &Line) -> String {
        line.iter().map(|(text, _)| text.as_str()).collect()
    }

    fn view(rows: usize, alarms: usize) -> View {
        let bad = |n| Cell {
            text: format!("chat-{n} does not answer"),
            mood: Mood::Bad,
        };
        View {
            facts: vec![("sessions", Cell::default()), ("messages/s", Cell::default())],
            rows: vec![Default::default(); rows],
            alarms: (0..alarms).map(bad).collect(),
        }
    }

    #[test]
    fn what_is_badly_wrong_is_red() {
        let lines = lines(&view(0, 1), 80, 12);
        let alarm = lines
            .iter()
            .find(|line| text(line).starts_with(" ! chat-0 does not answer"));
        assert_eq!(alarm.map(|line| line[0].1), Some(Look::Bad));
        let mut drawn = Vec::new();
        write(&mut drawn, &lines).unwrap();
        let drawn = String::from_utf8(drawn).unwrap();
        let red = format!("{} ! chat-0", SetForegroundColor(Color::DarkRed));
        assert!(drawn.contains(&red), "{drawn:?}");
        assert!(text(&lines[11]).contains("q ends it"));
    }

    #[test]
    fn alarms_keep_their_room_beside_many_nodes_and_nothing_is_wider_than_the_screen() {
        for (width, height) in [(80, 24), (20, 12), (300, 50), (1, 1), (0, 0)] {
            let lines = lines(&view(100, 3), width, height);
            assert_eq!(lines.len(), height.max(1), "{width}x{height}");
            assert!(lines.iter().all(|line| text(line).chars().count() <= width));
            if height >= 12 {
                let alarms = lines.iter().filter(|line| text(line).starts_with(" ! "));
                assert_eq!(alarms.count(), 3, "{width}x{height}");
            }
        }
    }
}
