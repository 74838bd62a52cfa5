//! The configuration file: whether it can be trusted, and its text.

use std::path::Path;

use fence_spool::{FileError, TrustedFile};

use super::ConfigError;

/// The text of the file at `path`.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |error| match error {
        FileError::Missing => ConfigError::Missing(path.to_owned()),
        FileError::Refused(why) => ConfigError::Refused(path.to_owned(), why),
        FileError::Unreadable(error) => ConfigError::Unreadable(path.to_owned(), error),
    };
    let absolute =
        std::path::absolute(path).map_err(|error| failed(FileError::Unreadable(error)))?;
    let bytes =
        TrustedFile::find(&absolute).and_then(|file| file.read(FILE_BYTES_MAX)).map_err(failed)?;
    String::from_utf8(bytes)
        .map_err(|_| failed(FileError::Refused("it is not UTF-8 text".to_owned())))
}

const FILE_BYTES_MAX: usize = 1024 * 1024;
