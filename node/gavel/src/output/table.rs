//! Aligned columns, without borders, as `cf` prints them.

/// How a word is shown on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Wait,
    Bad,
}

impl Style {
    pub(super) fn paint(self, text: &str) -> String {
        // ECMA-48, "select graphic rendition".
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Wait => "33",
            Self::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// One field of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    to_the_right: bool,
}

impl Cell {
    pub(crate) fn styled(style: Style, text: impl Into<String>) -> Self {
        Self { text: one_line(&text.into()), style, to_the_right: false }
    }

    /// A number, set against the column's right edge.
    pub(crate) fn number(value: impl ToString) -> Self {
        Self { text: value.to_string(), style: Style::Plain, to_the_right: true }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(Style::Plain, text)
    }
}

/// Text from outside may hold anything; in a table it is one line and moves no cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Rows under a heading. A column that is empty in every row is left out.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    heading: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(heading: [&str; N]) -> Self {
        let heading = heading.map(|name| Cell::styled(Style::Bold, name)).to_vec();
        Self { heading, rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, row: [Cell; N]) {
        assert_eq!(N, self.heading.len(), "a row has a cell for each heading");
        self.rows.push(row.to_vec());
    }

    /// The text, with a line feed after each row.
    pub(crate) fn render(&self, coloured: bool) -> String {
        let columns: Vec<Column> = (0..self.heading.len())
            .filter_map(|at| {
                let width = self.rows.iter().map(|row| row[at].width()).max().unwrap_or(0);
                let to_the_right = self.rows.iter().any(|row| row[at].to_the_right);
                let width_or_heading = width.max(self.heading[at].width());
                (width > 0).then_some(Column { at, width: width_or_heading, to_the_right })
            })
            .collect();
        let mut text = String::new();
        for row in std::iter::once(&self.heading).chain(&self.rows) {
            let mut line = String::new();
            for column in &columns {
                column.push(&mut line, &row[column.at], coloured);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

struct Column {
    at: usize,
    width: usize,
    to_the_right: bool,
}

impl Column {
    fn push(&self, line: &mut String, cell: &Cell, coloured: bool) {
        let gap = " ".repeat(self.width - cell.width());
        let text = if coloured { cell.style.paint(&cell.text) } else { cell.text.clone() };
        let (before, after) = if self.to_the_right { (&*gap, "") } else { ("", &*gap) };
        line.push_str(before);
        line.push_str(&text);
        line.push_str(after);
        line.push_str("   ");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(["name", "count", "why", "state"]);
        table.row(["a".into(), Cell::number(7), "".into(), Cell::styled(Style::Good, "running")]);
        table.row(["longer\x1b[2J".into(), Cell::number(1234), "".into(), "down".into()]);
        table
    }

    #[test]
    fn columns_line_up_and_empty_ones_are_left_out() {
        expect![[r#"
            name         count   state
            a                7   running
            longer [2J    1234   down
        "#]]
        .assert_eq(&sample().render(false));
    }

    #[test]
    fn colours_take_no_room() {
        let painted = sample().render(true);
        assert!(painted.contains("\x1b[32mrunning\x1b[0m"), "{painted:?}");
        let codes = ["\x1b[1m", "\x1b[32m", "\x1b[0m"];
        let plain = codes.iter().fold(painted, |text, code| text.replace(code, ""));
        assert_eq!(plain, sample().render(false));
    }
}
