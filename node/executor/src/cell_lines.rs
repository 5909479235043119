//! What a cell says, in a container's log, of what it does with the container (executor.md
//! sections 3 and 7). All are of the container's own source, and standard output's, except where
//! creating has failed.

use std::fmt;

use model::CellId;

/// Diego's words, for one container.
#[derive(Clone, Copy, Debug)]
pub struct CellLines<'a> {
    pub cell_id: &'a CellId,
    /// Diego's container guid: the instance's or the task's.
    pub guid: &'a str,
}

impl CellLines<'_> {
    #[must_use]
    pub fn creating(&self) -> String {
        format!("Cell {} creating container for instance {}", self.cell_id, self.guid)
    }

    #[must_use]
    pub fn created(&self) -> String {
        format!("Cell {} successfully created container for instance {}", self.cell_id, self.guid)
    }

    /// On standard error.
    #[must_use]
    pub fn not_created(&self, error: &dyn fmt::Display) -> String {
        let Self { cell_id, guid } = self;
        format!("Cell {cell_id} failed to create container for instance {guid}: {error}")
    }

    #[must_use]
    pub fn stopping(&self) -> String {
        format!("Cell {} stopping instance {}", self.cell_id, self.guid)
    }

    #[must_use]
    pub fn destroying(&self) -> String {
        format!("Cell {} destroying container for instance {}", self.cell_id, self.guid)
    }

    #[must_use]
    pub fn destroyed(&self) -> String {
        format!("Cell {} successfully destroyed container for instance {}", self.cell_id, self.guid)
    }

    #[must_use]
    pub fn not_destroyed(&self) -> String {
        format!("Cell {} failed to destroy container for instance {}", self.cell_id, self.guid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_diegos() {
        let cell_id = "cell-1".into();
        let lines = CellLines { cell_id: &cell_id, guid: "abc" };
        let all = [
            lines.creating(),
            lines.created(),
            lines.not_created(&"no room"),
            lines.stopping(),
            lines.destroying(),
            lines.destroyed(),
            lines.not_destroyed(),
        ];
        expect_test::expect![[r#"
            Cell cell-1 creating container for instance abc
            Cell cell-1 successfully created container for instance abc
            Cell cell-1 failed to create container for instance abc: no room
            Cell cell-1 stopping instance abc
            Cell cell-1 destroying container for instance abc
            Cell cell-1 successfully destroyed container for instance abc
            Cell cell-1 failed to destroy container for instance abc"#]]
        .assert_eq(&all.join("\n"));
    }
}
