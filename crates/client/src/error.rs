//! Why a call failed.

use pintle_api::Status;
use pintle_api::service::BoxError;

/// Why a call failed: the API said no, or it could not be asked, or its answer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API answered with a failure.
    #[error("{0}")]
    Status(Box<Status>),
    /// The API could not be reached or the connection broke.
    #[error("request failed: {0}")]
    Transport(#[source] BoxError),
    /// An object could not be encoded, or an answer is not what was asked for.
    #[error("{what}: {source}")]
    Decode {
        /// What was being read or written.
        what: String,
        /// What is wrong with it.
        #[source]
        source: BoxError,
    },
    /// The request could not be built from its arguments or the configuration.
    #[error("{0}")]
    Config(String),
}

impl From<Status> for Error {
    fn from(s: Status) -> Self {
        Self::Status(Box::new(s))
    }
}

impl Error {
    /// An answer that does not decode.
    pub fn decode(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Decode { what: what.into(), source: source.into() }
    }

    /// The API's answer, when it gave one.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(s) => Some(s),
            _ => None,
        }
    }

    /// The HTTP code of the API's answer; 0 when there was none.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.status().map_or(0, |s| s.code)
    }

    fn reason(&self) -> &str {
        self.status().map_or("", |s| s.reason.as_str())
    }

    /// The object (or the path) does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// The name is taken.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// The write lost a race or a precondition does not hold.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == 409 && !self.is_already_exists()
    }

    /// The object breaks a rule; trying again does not help.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.reason() == "Invalid"
    }

    /// The caller may not do this, or admission forbids it.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == 403
    }

    /// The server is busy.
    #[must_use]
    pub fn is_too_many_requests(&self) -> bool {
        self.code() == 429
    }

    /// The revision asked for is gone from history.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.code() == 410
    }

    /// The server gave up in time, and may yet have done it.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.reason() == "Timeout" || self.reason() == "ServerTimeout"
    }

    /// The failure is that the namespace is going away, so nothing can be created in it.
    #[must_use]
    pub fn is_namespace_terminating(&self) -> bool {
        self.code() == 403
            && self
                .status()
                .and_then(|s| s.details.as_ref())
                .is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
    }
}

/// For calls about an object that may be gone.
pub trait UnlessGone<T> {
    /// `None` when the object is gone: then there is nothing left to do about it.
    ///
    /// # Errors
    /// Every other failure.
    fn unless_gone(self) -> Result<Option<T>, Error>;
}

impl<T> UnlessGone<T> for Result<T, Error> {
    fn unless_gone(self) -> Result<Option<T>, Error> {
        match self {
            Ok(answer) => Ok(Some(answer)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }
}
