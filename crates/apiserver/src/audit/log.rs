//! The log of audit events: a line each, in a file that is put aside when it gets large.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// Where the log goes and when it is put aside.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// Days that files put aside are kept; 0 is for ever.
    pub max_age: u32,
    /// How many files put aside are kept; 0 is all.
    pub max_backups: usize,
    /// Megabytes at which the file is put aside; 0 is never.
    pub max_size: u64,
    /// Files put aside are compressed.
    pub compress: bool,
}

impl LogConfig {
    /// Upstream's defaults.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, max_age: 366, max_backups: 100, max_size: 100, compress: false }
    }
}

/// An open log.
pub(super) struct Log {
    config: LogConfig,
    /// `None` is standard output.
    file: Mutex<Option<(File, u64)>>,
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

impl Log {
    /// Opens it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn open(config: LogConfig) -> Result<Self, String> {
        let file = if config.path.as_os_str() == "-" {
            None
        } else {
            let opened = open(&config.path);
            Some(opened.map_err(|e| format!("cannot write the audit log {}: {e}", config.path.display()))?)
        };
        Ok(Self { config, file: Mutex::new(file) })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut file = self.file.lock();
        let Some((open_file, size)) = file.as_mut() else { return io::stdout().lock().write_all(line) };
        let most = self.config.max_size << 20;
        if most > 0 && *size > 0 && *size + line.len() as u64 > most {
            *file = Some(self.put_aside()?);
        } else {
            *size += line.len() as u64;
            return open_file.write_all(line);
        }
        let Some((open_file, size)) = file.as_mut() else { return Ok(()) };
        *size += line.len() as u64;
        open_file.write_all(line)
    }

    /// `audit-` and `.log` of `audit.log`.
    fn affixes(&self) -> (String, String) {
        let part = |p: Option<&std::ffi::OsStr>| p.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let extension = part(self.config.path.extension());
        let extension = if extension.is_empty() { extension } else { format!(".{extension}") };
        (format!("{}-", part(self.config.path.file_stem())), extension)
    }

    fn put_aside(&self) -> io::Result<(File, u64)> {
        let (prefix, extension) = self.affixes();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%3f");
        let aside = self.config.path.with_file_name(format!("{prefix}{now}{extension}"));
        std::fs::rename(&self.config.path, &aside)?;
        if self.config.compress
            && let Err(e) = compress(&aside)
        {
            tracing::warn!(file = %aside.display(), "compressing an audit log failed: {e}");
        }
        if let Err(e) = self.clean() {
            tracing::warn!("removing old audit logs failed: {e}");
        }
        open(&self.config.path)
    }

    /// Removes files put aside that are too old or too many.
    fn clean(&self) -> io::Result<()> {
        let Some(dir) = self.config.path.parent() else { return Ok(()) };
        let (prefix, extension) = self.affixes();
        let mut aside: Vec<PathBuf> = std::fs::read_dir(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?
            .filter_map(Result::ok)
            .map(|e| e.path())
            .filter(|p| {
                let name = p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                let name = name.strip_suffix(".gz").unwrap_or(&name);
                name.starts_with(&prefix) && name.ends_with(&extension)
            })
            .collect();
        // Names hold the time, so they sort by age.
        aside.sort();
        let many = if self.config.max_backups > 0 { aside.len().saturating_sub(self.config.max_backups) } else { 0 };
        let oldest = SystemTime::now().checked_sub(Duration::from_secs(u64::from(self.config.max_age) * 86400));
        for (i, path) in aside.iter().enumerate() {
            let old = self.config.max_age > 0
                && path.metadata().and_then(|m| m.modified()).is_ok_and(|t| oldest.is_some_and(|o| t < o));
            if i < many || old {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn compress(path: &Path) -> io::Result<()> {
    let mut to = path.as_os_str().to_owned();
    to.push(".gz");
    let mut gz = flate2::write::GzEncoder::new(File::create(&to)?, flate2::Compression::default());
    io::copy(&mut File::open(path)?, &mut gz)?;
    gz.finish()?.sync_all()?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let mut config = LogConfig::new(path.clone());
        (config.max_size, config.max_backups, config.compress) = (1, 2, true);
        let log = Log::open(config).unwrap();
        let line = vec![b'x'; 700 << 10];
        for _ in 0..5 {
            log.write(&line).unwrap();
            // Names are told apart by milliseconds.
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut names: Vec<String> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].starts_with("audit-20") && names[0].ends_with(".log.gz"), "{names:?}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 700 << 10);
    }
}
