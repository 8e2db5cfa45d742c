//! Container log files: lines of `<time> <stream> <P|F> <text>`.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// The first `max` bytes of a file.
///
/// # Errors
/// When it cannot be read.
pub fn read_start(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![];
    fs::File::open(path)?.take(max as u64).read_to_end(&mut out)?;
    Ok(out)
}

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written, as it stands.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// The line goes on in the next one of the same stream.
    pub partial: bool,
    /// The text, without the end of line.
    pub text: &'a [u8],
}

/// Reads one line of a file, without its end of line. `None` for what is not one.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let mut word = || std::str::from_utf8(parts.next()?).ok();
    let (time, stream, tag) = (word()?, word()?, word()?);
    let text = parts.next().unwrap_or_default();
    let partial = tag.split(':').next() == Some("P");
    matches!(stream, "stdout" | "stderr").then_some(Line { time, stream, partial, text })
}

/// The last lines of a log, at most so many and so many bytes, without times.
///
/// # Errors
/// When it cannot be read.
pub fn tail(path: &Path, lines: usize, bytes: u64) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    // Times and stream names take room, too.
    let from = size.saturating_sub(bytes.saturating_mul(2) + 4096);
    file.seek(SeekFrom::Start(from))?;
    let mut data = vec![];
    file.read_to_end(&mut data)?;
    let all = data.split(|b| *b == b'\n').filter_map(parse);
    let all: Vec<Vec<u8>> = all.map(|l| if l.partial { l.text.to_vec() } else { [l.text, b"\n"].concat() }).collect();
    let mut out = all[all.len().saturating_sub(lines)..].concat();
    let keep = usize::try_from(bytes).unwrap_or(usize::MAX);
    if out.len() > keep {
        out.drain(..out.len() - keep);
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// The files a log was rotated to, the oldest first: `0.log.20060102-150405`, maybe with `.gz`.
#[must_use]
pub fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else { return vec![] };
    let prefix = format!("{name}.");
    let mut out: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)))
        .map(|e| e.path())
        .collect();
    out.sort();
    out
}

/// Removes a log with all it was rotated to.
pub fn remove(path: &Path) {
    for file in rotated(path).into_iter().chain([path.to_path_buf()]) {
        match fs::remove_file(&file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %file.display(), error = %e, "cannot remove a log file");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let l = parse(b"2026-01-02T03:04:05.000000006Z stderr P a b").unwrap();
        assert_eq!(
            (l.time, l.stream, l.partial, l.text),
            ("2026-01-02T03:04:05.000000006Z", "stderr", true, &b"a b"[..])
        );
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F ").unwrap().text, b"");
        assert_eq!(parse(b"garbage"), None);
    }

    #[test]
    fn ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let text: String =
            (0..10).map(|i| format!("2026-01-02T03:04:05Z stdout {} l{i}\n", if i == 8 { "P" } else { "F" })).collect();
        fs::write(&path, text).unwrap();
        assert_eq!(tail(&path, 3, 100).unwrap(), "l7\nl8l9\n");
        assert_eq!(tail(&path, 80, 4).unwrap(), "8l9\n");
        fs::write(dir.path().join("0.log.20260102-000000"), "").unwrap();
        fs::write(dir.path().join("1.log"), "").unwrap();
        assert_eq!(rotated(&path).len(), 1);
        remove(&path);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
