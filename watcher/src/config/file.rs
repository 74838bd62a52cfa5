//! The configuration file and the programs it names: whether they may be believed.
//!
//! Whoever can write the file can have any program run as root, so nobody else may be able to.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::ConfigError;

/// The text of the file at `path`.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable(path.to_owned(), error);
    let refused = |why: &str| ConfigError::Refused(path.to_owned(), why.to_owned());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ConfigError::Missing(path.to_owned()));
        }
        Err(error) => return Err(unreadable(error)),
    };
    let facts = file.metadata().map_err(unreadable)?;
    if !facts.is_file() {
        return Err(refused("it is not a regular file"));
    }
    if facts.uid() != 0 && facts.uid() != nix::unistd::geteuid().as_raw() {
        return Err(refused("it belongs to another user: chown root: it"));
    }
    if facts.mode() & 0o022 != 0 {
        return Err(refused("others can write to it: chmod go-w it"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused("it has more than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8 text"))
}

/// Whether `program` is there and can be executed; the error says what is wrong.
pub(super) fn check_program(program: &Path) -> Result<(), String> {
    let shown = program.display();
    let facts =
        std::fs::metadata(program).map_err(|error| format!("program '{shown}': {error}"))?;
    if !facts.is_file() || facts.mode() & 0o111 == 0 {
        return Err(format!("'{shown}' is not an executable program: chmod +x it"));
    }
    Ok(())
}

const FILE_BYTES_MAX: u64 = 1024 * 1024;
