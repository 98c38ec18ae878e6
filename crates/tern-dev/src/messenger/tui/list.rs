//! A list of messages over the timeline: those that were found, or the neighbours of one that is too far back.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize as _;
use ratatui::text::Line as Text;
use ratatui::widgets::{Block, Clear, Paragraph};

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
}

/// Draws a list, one line for each message. Lines that are too long are cut off. The selected line is on the screen.
pub fn draw(frame: &mut Frame<'_>, area: Rect, list: &List) {
    let height = u16::try_from(list.lines.len() + 2).unwrap_or(u16::MAX);
    let height = height.min(area.height);
    let page = usize::from(height.saturating_sub(2));
    let from = list
        .selected
        .map_or(0, |selected| (selected + 1).saturating_sub(page));
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
    let lines = list.lines.iter().enumerate().skip(from).take(page);
    let lines: Vec<Text<'_>> = lines
        .map(|(index, line)| {
            let line = Text::from(format!(" {line}"));
            if list.selected == Some(index) {
                line.reversed()
            } else {
                line
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
}
