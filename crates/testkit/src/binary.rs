//! The `pintle` binary under test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

/// Path of the binary: what `PINTLE_BIN` names, or the one of this build, made now when it is not there.
///
/// # Panics
/// When it does not build.
#[must_use]
pub fn pintle() -> PathBuf {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        if let Some(path) = std::env::var_os("PINTLE_BIN") {
            return path.into();
        }
        // A test stands in target/<host>/<profile>/deps/; cargo decides whether there is anything to build.
        let test = std::env::current_exe().unwrap_or_default();
        let profile = test.ancestors().nth(2).map(PathBuf::from).unwrap_or_default();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "pintle"]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().is_ok_and(|s| s.success()), "pintle does not build");
        profile.join("pintle")
    });
    PATH.clone()
}
