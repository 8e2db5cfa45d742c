//! The kernel's network settings of the namespace the calling thread is in.

use std::io;

/// Sets `net.<path>`, written with slashes; leaves it alone when it has the value already.
///
/// # Errors
/// With the setting's name, when it does not exist or may not be written.
pub fn set(path: &str, value: &str) -> io::Result<()> {
    if get(path).is_ok_and(|now| now == value) {
        return Ok(());
    }
    let file = format!("/proc/sys/net/{path}");
    std::fs::write(&file, value).map_err(|err| io::Error::new(err.kind(), format!("setting {file} to {value}: {err}")))
}

/// Reads `net.<path>`.
///
/// # Errors
/// When it does not exist.
pub fn get(path: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(format!("/proc/sys/net/{path}"))?.trim_end().to_owned())
}
