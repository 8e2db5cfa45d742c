//! Running a command and looking at what it said.

use std::io::Write;
use std::process::{Command, Stdio};

/// What a command said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Exit status; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that must have ended well.
    ///
    /// # Panics
    /// When it did not: the test has failed.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "{} ended with {}:\n{}{}", self.command, self.code, self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error of a command that must have failed.
    ///
    /// # Panics
    /// When it did not: the test has failed.
    #[track_caller]
    #[must_use]
    pub fn err(self) -> String {
        assert!(self.code != 0, "{} ended well:\n{}", self.command, self.stdout);
        self.stderr
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When the command failed or printed something else.
    #[track_caller]
    #[must_use]
    pub fn json(self) -> serde_json::Value {
        let command = self.command.clone();
        let text = self.ok();
        let parsed = serde_json::from_str(&text);
        assert!(parsed.is_ok(), "{command} printed no JSON:\n{text}");
        parsed.unwrap_or_default()
    }
}

/// Runs a command to its end with this standard input.
///
/// # Panics
/// When the command cannot be started: the machine lacks what the tests need, see `scripts/setup`.
#[expect(clippy::panic, reason = "a test's verdict")]
pub fn run(mut command: Command, input: &str) -> Output {
    let shown = format!("{command:?}").replace('"', "");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e} (scripts/setup installs what tests use)"));
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // From a thread of its own: a command may print more than a pipe holds before it reads.
        std::thread::spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
    }
    let out = child.wait_with_output().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Output {
        command: shown,
        code: out.status.code().unwrap_or(-1),
        stdout: text(&out.stdout),
        stderr: text(&out.stderr),
    }
}
