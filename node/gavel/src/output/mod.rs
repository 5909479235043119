//! What people and scripts see: results on standard output, progress on standard error.
//!
//! A terminal gets colours and a moving line; a pipe gets the same words, plain. Results are
//! written through [`Screen`], which reports a closed pipe instead of panicking.

mod progress;
mod table;

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use serde_json::Value;

pub(crate) use progress::Progress;
pub(crate) use table::{Cell, Style, Table};

use crate::failure::Failure;

/// Where results go, and in what form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    json: bool,
    coloured: bool,
    moving: bool,
}

impl Screen {
    /// `NO_COLOR`, when set to anything, keeps colours off (no-color.org).
    pub(crate) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            coloured: !plain && std::io::stdout().is_terminal(),
            moving: !plain && std::io::stderr().is_terminal(),
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    pub(crate) fn line(self, text: impl Display) -> Result<(), Failure> {
        writeln!(std::io::stdout().lock(), "{text}").map_err(Failure::Output)
    }

    /// Text in a style, where styles can be seen.
    pub(crate) fn styled(self, style: Style, text: &str) -> String {
        if self.coloured { style.paint(text) } else { text.to_owned() }
    }

    pub(crate) fn table(self, table: &Table) -> Result<(), Failure> {
        let text = table.render(self.coloured);
        std::io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::Output)
    }

    /// A list: an object a line in JSON, else a table, else a word on standard error that there
    /// is nothing.
    pub(crate) fn list<T>(
        self,
        items: &[T],
        to_json: impl Fn(&T) -> Value,
        to_table: impl FnOnce(&[T]) -> Table,
        nothing: &str,
    ) -> Result<(), Failure> {
        if self.json {
            return items.iter().try_for_each(|item| self.line(to_json(item)));
        }
        if items.is_empty() {
            eprintln!("{nothing}");
            return Ok(());
        }
        self.table(&to_table(items))
    }

    /// One thing with nested parts: a line of JSON, or the same on many lines for people.
    pub(crate) fn document(self, value: &Value) -> Result<(), Failure> {
        if self.json { self.line(value) } else { self.line(format_args!("{value:#}")) }
    }

    /// That a change is done; scripts have the exit status.
    pub(crate) fn done(self, text: impl Display) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.line(text) }
    }

    pub(crate) fn progress(self) -> Progress {
        Progress::new(self.moving)
    }
}
