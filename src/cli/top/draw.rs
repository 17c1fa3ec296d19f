//! A view on a terminal.

use super::view::View;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};

/// Columns that one fact takes.
const FACT_COLUMNS: u16 = 38;

/// Draws the view on the whole screen, whatever its size.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let area = frame.area();
    let across = (area.width / FACT_COLUMNS).max(1);
    let facts = u16::try_from(view.facts.len()).unwrap_or(u16::MAX).div_ceil(across);
    let cores = u16::try_from(view.cores.len()).unwrap_or(u16::MAX).saturating_add(2);
    let [title, numbers, lanes, latency, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(facts.saturating_add(1)),
        Constraint::Length(cores),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(view.title.as_str()).bold(), title);
    draw_facts(frame, numbers, view, usize::from(across));
    let bars = view.busy.iter().map(|busy| if *busy > 0.9 { Color::Red } else { Color::Reset });
    draw_table(frame, lanes, " cores ", &view.cores, 6, bars);
    draw_table(frame, latency, " latency ", &view.latency, 24, std::iter::empty());
    let footer = match &view.lost {
        Some(why) => Line::from(Span::styled(why.as_str(), Style::new().fg(Color::Red))),
        None => Line::from("q quits"),
    };
    frame.render_widget(footer, keys);
}

fn draw_facts(frame: &mut Frame<'_>, area: Rect, view: &View, across: usize) {
    let lines = view.facts.chunks(across).map(|facts| {
        let spans = facts.iter().flat_map(|(name, value)| {
            let name = Span::styled(format!("{name:<12}"), Style::new().fg(Color::Cyan));
            [name, Span::raw(format!("{value:<26}"))]
        });
        Line::from(spans.collect::<Vec<_>>())
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
}

/// The first row has the headings; `colours` are of the rows behind it.
fn draw_table(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    rows: &[Vec<String>],
    first: u16,
    colours: impl Iterator<Item = Color>,
) {
    let Some((heads, rows)) = rows.split_first() else { return };
    let right = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(at, cell)| {
            let line = Line::from(cell.clone());
            if at == 0 { line } else { line.right_aligned() }
        });
        Row::new(cells.collect::<Vec<_>>())
    };
    let colours = colours.chain(std::iter::repeat(Color::Reset));
    let body = rows.iter().zip(colours).map(|(row, colour)| right(row).fg(colour));
    let rest = std::iter::repeat_n(Constraint::Max(11), heads.len().saturating_sub(1));
    let widths: Vec<_> = std::iter::once(Constraint::Min(first)).chain(rest).collect();
    let table = Table::new(body.collect::<Vec<_>>(), widths)
        .header(right(heads).add_modifier(Modifier::UNDERLINED))
        .block(Block::bordered().title(title.to_owned()));
    frame.render_widget(table, area);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::view::tests::view;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let cells = buffer.content().chunks(usize::from(width));
        cells.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>()).collect()
    }

    #[test]
    fn a_screen_shows_everything() {
        let screen = screen(&view(), 80, 24);
        let shown: Vec<&str> = screen.iter().map(|line| line.trim_end()).collect();
        assert_eq!(shown[0], "forebay 0.1.0 at http://h:1: ok, extractor ready");
        assert_eq!(shown[1], "connections 3 of 20000                streams     0 of 0");
        let has = |text: &str| {
            assert!(shown.iter().any(|line| line.contains(text)), "{text}\n{}", shown.join("\n"))
        };
        has("┌ cores ─");
        has("┌ latency ─");
        has("crawl.ndjson.ttfb");
        has("1.60 ms");
        has("0/256");
        assert_eq!(*shown.last().unwrap(), "q quits");
    }

    #[test]
    fn a_server_that_is_gone_is_said_to_be() {
        let lost = View { lost: Some("http://h:1: nobody listens there".to_owned()), ..view() };
        assert!(screen(&lost, 80, 24).last().unwrap().starts_with("http://h:1: nobody"));
    }

    #[test]
    fn any_size_is_drawn() {
        for (width, height) in [(1, 1), (10, 3), (38, 8), (79, 20), (300, 100)] {
            screen(&view(), width, height);
            screen(&View::default(), width, height);
        }
    }
}
