//! The configuration file: whether it can be trusted, and its text.

use std::path::Path;

use fence_spool::{FileError, TrustedFile};

use super::ConfigError;

/// The text of the file at `path`.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let text = || {
        let absolute = std::path::absolute(path).map_err(FileError::Unreadable)?;
        let bytes = TrustedFile::find(&absolute)?.read(FILE_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|_| FileError::Refused("it is not UTF-8 text".to_owned()))
    };
    text().map_err(|error| match error {
        FileError::Missing => ConfigError::Missing(path.to_owned()),
        FileError::Refused(why) => ConfigError::Refused(path.to_owned(), why),
        FileError::Unreadable(error) => ConfigError::Unreadable(path.to_owned(), error),
    })
}

const FILE_BYTES_MAX: usize = 1024 * 1024;
