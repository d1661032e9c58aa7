//! Whole lines in a buffer: how many are written in one piece, fit into what room is left, or are lost.

/// As many lines as are no longer than `max` together; one that is longer goes alone.
pub(super) fn piece(lines: &[u8], max: usize) -> usize {
    if lines.len() <= max {
        return lines.len();
    }
    let newline = |byte: &u8| *byte == b'\n';
    match lines[..max].iter().rposition(newline) {
        Some(last) => last + 1,
        None => lines
            .iter()
            .position(newline)
            .map_or(lines.len(), |end| end + 1),
    }
}

/// How many bytes of whole lines there is room for.
pub(super) fn fitting(lines: &[u8], room: usize) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    let last = lines[..room].iter().rposition(|byte| *byte == b'\n');
    last.map_or(0, |last| last + 1)
}

/// Text without a newline at its end counts as a line.
pub(super) fn count(lines: &[u8]) -> u64 {
    let ends = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
    ends + u64::from(lines.last().is_some_and(|last| *last != b'\n'))
}

/// Lines that were dropped, and how many of them were reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dropped {
    total: u64,
    reported: u64,
}

impl Dropped {
    pub(super) fn add(&mut self, lines: u64) {
        self.total += lines;
    }

    pub(super) fn total(self) -> u64 {
        self.total
    }

    /// How many there are to report.
    pub(super) fn take(&mut self) -> Option<u64> {
        let news = self.total - self.reported;
        self.reported = self.total;
        (news > 0).then_some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_ends_with_a_line() {
        assert_eq!(piece(b"a\nb\n", 10), 4);
        assert_eq!(piece(b"aa\nbb\ncc\n", 7), 6);
        assert_eq!(piece(b"aaaa\nb\n", 3), 5, "a long line goes alone");
        assert_eq!(piece(b"aaaa", 3), 4);
    }

    #[test]
    fn lines_that_do_not_fit_are_left_whole() {
        assert_eq!(fitting(b"a\nb\n", 4), 4);
        assert_eq!(fitting(b"a\nb\n", 3), 2);
        assert_eq!(fitting(b"aaa\n", 3), 0);
        assert_eq!(fitting(b"aaa", 0), 0);
    }

    #[test]
    fn drops_are_reported_once() {
        assert_eq!((count(b"a\nb\n"), count(b"a\nb"), count(b"")), (2, 2, 0));
        let mut dropped = Dropped::default();
        assert_eq!(dropped.take(), None);
        dropped.add(3);
        assert_eq!((dropped.take(), dropped.take()), (Some(3), None));
        dropped.add(1);
        assert_eq!((dropped.take(), dropped.total()), (Some(1), 4));
    }
}
