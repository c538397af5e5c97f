//! One JSON object a line, one line a file, in the order in which files are finished.

use std::io::{self, Write};

use serde::Serialize;

use super::{Report, Sink, Totals};

/// Writes reports as JSON Lines; every line is flushed as soon as it is whole.
pub struct JsonLines<W> {
    out: W,
}

impl<W: Write> JsonLines<W> {
    pub fn new(out: W) -> Self {
        Self { out }
    }

    pub(super) fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        // Serialised first, so that a reader never sees half a line for want of a value.
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }
}

impl<W: Write> Sink for JsonLines<W> {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        self.line(report)
    }

    fn finish(&mut self, _totals: &Totals) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn one_line_a_report_that_reads_back_equal() {
        let mut out = Vec::new();
        let mut sink = JsonLines::new(&mut out);
        for report in samples::all() {
            sink.report(&report).unwrap();
        }
        sink.finish(&Totals::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let read: Vec<Report> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, samples::all());
    }
}
