//! A list of messages over the timeline: those that were found, or the neighbours of one that is too far back.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize as _;
use ratatui::text::Line as Text;
use ratatui::widgets::{Block, Clear, Paragraph};

use super::wrap::wrap;

/// The columns that the border and the blank before a line take.
const FRAME: u16 = 3;

/// A list that is shown until Esc is pressed.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    title: &'static str,
    lines: Vec<String>,
    /// The line that Enter goes to; `None` if there is nothing to choose.
    pub selected: Option<usize>,
}

impl List {
    /// Makes a list. In one of `choices` the first line is selected.
    pub fn new(title: &'static str, lines: Vec<String>, choices: bool) -> Self {
        Self {
            title,
            lines,
            selected: choices.then_some(0),
        }
    }

    /// Shows these lines instead. The same one stays selected.
    pub fn renew(&mut self, lines: Vec<String>) {
        self.lines = lines;
    }

    /// Selects the line above the selected one, or with `down` the one below. At the ends it stays.
    pub fn step(&mut self, down: bool) {
        let last = self.lines.len().saturating_sub(1);
        let step = |selected: usize| {
            if down {
                (selected + 1).min(last)
            } else {
                selected.saturating_sub(1)
            }
        };
        self.selected = self.selected.map(step);
    }

    /// Returns the rows of at most `width` columns that the lines take, each with the number of its line.
    fn rows(&self, width: usize) -> Vec<(usize, String)> {
        let lines = self.lines.iter().enumerate();
        let rows = lines.flat_map(|(index, line)| wrap(line, width).into_iter().map(move |row| (index, row)));
        rows.collect()
    }
}

/// Draws a list. Lines that are too long are wrapped. The end of the selected line is on the screen.
pub fn draw(frame: &mut Frame<'_>, area: Rect, list: &List) {
    let rows = list.rows(usize::from(area.width.saturating_sub(FRAME)));
    let height = u16::try_from(rows.len() + 2).unwrap_or(u16::MAX);
    let height = height.min(area.height);
    let page = usize::from(height.saturating_sub(2));
    let last = rows.iter().rposition(|(index, _)| list.selected == Some(*index));
    let from = last.map_or(0, |last| (last + 1).saturating_sub(page));
    let place = Rect {
        y: area.y + (area.height - height) / 2,
        height,
        ..area
    };
    let keys = match list.selected {
        Some(_) => " ↑ ↓: select · Enter: show · Esc: close ",
        None => " Esc: close ",
    };
    let title = Text::from(format!(" {} ", list.title)).bold();
    let block = Block::bordered().title(title).title_bottom(keys);
    let rows = rows.into_iter().skip(from).take(page);
    let lines: Vec<Text<'_>> = rows
        .map(|(index, row)| {
            let row = Text::from(format!(" {row}"));
            if list.selected == Some(index) {
                row.reversed()
            } else {
                row
            }
        })
        .collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn the_selected_line_is_on_the_screen() {
        let lines = (0..40).map(|number| format!("line {number}.")).collect();
        let mut list = List::new("found", lines, true);
        list.step(false);
        assert_eq!(list.selected, Some(0));
        for expected in (1..40).chain([39]) {
            list.step(true);
            assert_eq!(list.selected, Some(expected));
            let mut terminal = Terminal::new(TestBackend::new(60, 12)).unwrap();
            terminal.draw(|frame| draw(frame, frame.area(), &list)).unwrap();
            let shown = terminal.backend().to_string();
            assert!(shown.contains(&format!("line {expected}.")), "{shown}");
        }
    }
    #[test]
    fn what_was_found_can_be_read_on_a_narrow_screen() {
        let hit = "1. [yesterday 09:30 #12] (lunch club) Bob: the tea is ready";
        let other = "2. [yesterday 09:31 #13] (lunch club) Bob: no milk though";
        let mut list = List::new("found", vec![hit.to_owned(), other.to_owned()], true);
        for (height, texts) in [(8, ["the tea is ready", "no milk"]), (4, ["(lunch", "though"])] {
            let mut terminal = Terminal::new(TestBackend::new(40, height)).unwrap();
            terminal.draw(|frame| draw(frame, frame.area(), &list)).unwrap();
            let shown = terminal.backend().to_string();
            assert!(texts.iter().all(|text| shown.contains(text)), "{shown}");
            list.step(true);
        }
    }
}
