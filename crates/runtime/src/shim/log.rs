//! Container logs in CRI's format: `<time> <stream> <F|P> <text>`, a line each.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Lines longer than this are written in parts marked `P`, the last one `F`.
pub const MAX_LINE: usize = 16 * 1024;

/// An output of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Output.
    Stdout,
    /// Error output.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A container's log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line that has not ended, for each stream.
    rest: [Vec<u8>; 2],
}

impl Log {
    /// Opens the log; an empty path keeps none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut log = Self { path: path.into(), file: None, rest: [vec![], vec![]] };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file anew, after someone moved the old one away.
    pub fn reopen(&mut self) -> io::Result<()> {
        if self.path.as_os_str().is_empty() {
            return Ok(());
        }
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        use std::os::unix::fs::OpenOptionsExt as _;
        self.file = Some(OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?);
        Ok(())
    }

    /// Takes what a stream wrote at `now` (nanoseconds since 1970).
    pub fn write(&mut self, stream: Stream, data: &[u8], now: i64) {
        if self.file.is_none() {
            return;
        }
        let rest = &mut self.rest[stream as usize];
        let mut out = vec![];
        rest.extend_from_slice(data);
        let mut done = 0;
        loop {
            let line = &rest[done..];
            // A part is cut only when more follows, so that a line of just the length stays one.
            match line.iter().take(MAX_LINE + 1).position(|b| *b == b'\n') {
                Some(end) => {
                    format_line(&mut out, now, stream, 'F', &line[..end]);
                    done += end + 1;
                }
                None if line.len() > MAX_LINE => {
                    format_line(&mut out, now, stream, 'P', &line[..MAX_LINE]);
                    done += MAX_LINE;
                }
                None => break,
            }
        }
        rest.drain(..done);
        self.put(&out);
    }

    /// Takes the end of a stream: what has no end of line is a part, so that readers add none.
    pub fn end(&mut self, stream: Stream, now: i64) {
        let rest = std::mem::take(&mut self.rest[stream as usize]);
        if !rest.is_empty() {
            let mut out = vec![];
            format_line(&mut out, now, stream, 'P', &rest);
            self.put(&out);
        }
    }

    fn put(&mut self, data: &[u8]) {
        if let Some(file) = &mut self.file
            && !data.is_empty()
        {
            // A full disk costs lines, never the container.
            let _ = file.write_all(data);
        }
    }
}

fn format_line(out: &mut Vec<u8>, now: i64, stream: Stream, tag: char, line: &[u8]) {
    // Writing to memory cannot fail.
    let _ = write!(out, "{} {} {tag} ", Time(now), stream.name());
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// Prints nanoseconds since 1970 as RFC 3339 has it, in UTC.
pub struct Time(pub i64);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, nanos) = (self.0.div_euclid(1_000_000_000), self.0.rem_euclid(1_000_000_000));
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days since 0000-03-01, in eras of 400 years: leap days come last in such a year.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let of_era = z.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{nanos:09}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |seconds: i64, expect: &str| assert_eq!(Time(seconds * 1_000_000_000 + 5).to_string(), expect);
        check(0, "1970-01-01T00:00:00.000000005Z");
        check(951_782_399, "2000-02-28T23:59:59.000000005Z");
        check(951_827_696, "2000-02-29T12:34:56.000000005Z");
        check(1_798_761_599, "2026-12-31T23:59:59.000000005Z");
        check(4_107_542_400, "2100-03-01T00:00:00.000000005Z");
    }

    #[test]
    fn lines_and_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/0.log");
        let mut log = Log::open(&path).unwrap();
        log.write(Stream::Stdout, b"one\ntwo", 0);
        log.write(Stream::Stderr, b"err\n", 0);
        log.write(Stream::Stdout, b"more\n\n", 0);
        log.write(Stream::Stdout, &[b'x'; MAX_LINE + 3], 0);
        log.write(Stream::Stdout, b"\nlast", 0);
        log.end(Stream::Stdout, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        let prefix = "1970-01-01T00:00:00.000000000Z ";
        let lines: Vec<&str> = text.lines().map(|l| l.strip_prefix(prefix).unwrap()).collect();
        let part = format!("stdout P {}", "x".repeat(MAX_LINE));
        let expect =
            ["stdout F one", "stderr F err", "stdout F twomore", "stdout F ", &part, "stdout F xxx", "stdout P last"];
        assert_eq!(lines, expect);
    }

    #[test]
    fn reopens_after_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("0.log"), dir.path().join("0.log.old"));
        let mut log = Log::open(&path).unwrap();
        log.write(Stream::Stdout, b"a\n", 0);
        std::fs::rename(&path, &old).unwrap();
        log.write(Stream::Stdout, b"b\n", 0);
        log.reopen().unwrap();
        log.write(Stream::Stdout, b"c\n", 0);
        assert_eq!(std::fs::read_to_string(&old).unwrap().lines().count(), 2);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("stdout F c\n"));
    }
}
