//! Which line of the file each row that was sent came from. Rows mostly come from consecutive lines, so only the places
//! where they do not are kept.

/// The lines of rows 0, 1, 2 …
#[derive(Debug, Default)]
pub(crate) struct LineOfRow {
    /// First row and its line of each run of consecutive lines.
    runs: Vec<(u64, u64)>,
    rows: u64,
}

impl LineOfRow {
    /// The next row came from this line.
    pub(crate) fn push(&mut self, line: u64) {
        let goes_on = self.runs.last().is_some_and(|(row, first)| first + (self.rows - row) == line);
        if !goes_on {
            self.runs.push((self.rows, line));
        }
        self.rows += 1;
    }

    /// The line of a row; 0 where there is no such row.
    pub(crate) fn line(&self, row: u64) -> u64 {
        let after = self.runs.partition_point(|(first, _)| *first <= row);
        match after.checked_sub(1).map(|run| self.runs[run]) {
            Some((first, line)) if row < self.rows => line + (row - first),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every row finds its line, with gaps and without, and runs are kept rather than rows.
    #[test]
    fn rows_find_their_lines() {
        let lines = [2, 3, 4, 7, 8, 9, 12];
        let mut kept = LineOfRow::default();
        lines.iter().for_each(|line| kept.push(*line));
        for (row, line) in (0..).zip(lines) {
            assert_eq!(kept.line(row), line);
        }
        assert_eq!((kept.line(7), kept.runs.len()), (0, 3));
    }
}
