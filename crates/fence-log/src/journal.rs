//! Lines to systemd's journal, with the fields of a fence: `journalctl TARGET=n3` finds them.
//!
//! The protocol is systemd's "Native Journal Protocol": one datagram per line, with a field in each of
//! its lines.

use std::fmt::Write;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use log::Level;

use crate::logger::severity;
use crate::shown_line;

/// The longest message, in bytes. A datagram to the journal can be far longer.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// The words of a line that become fields, and the names of these fields.
const FIELDS: [(&str, &str); 5] = [
    ("request", "REQUEST"),
    ("target", "TARGET"),
    ("action", "ACTION"),
    ("device", "DEVICE"),
    ("result", "RESULT"),
];

/// The journal's socket.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The word before the text of a device.
const LAST: &str = "duration_ms";

/// A connection to the journal.
pub(crate) struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
    program: &'static str,
}

impl Journal {
    /// Connects to the journal; `None` if none listens.
    pub(crate) fn connect(program: &'static str) -> Option<Self> {
        Self::connect_to(Path::new(SOCKET), program).ok()
    }

    fn connect_to(path: &Path, program: &'static str) -> io::Result<Self> {
        Ok(Journal { path: path.to_owned(), socket: dial(path)?, program })
    }

    /// Sends `text` as one line. A journal that does not read blocks this call. False if the line
    /// was not sent.
    pub(crate) fn send(&mut self, level: Level, text: &str) -> bool {
        let mut message = shown_line(text);
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        let (priority, program) = (severity(level), self.program);
        let mut entry =
            format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={program}\nMESSAGE={message}\n");
        for (name, value) in fields(&message) {
            // A String takes every text.
            let _ = writeln!(entry, "{name}={value}");
        }
        // A journal that was replaced has another socket.
        self.socket.send(entry.as_bytes()).is_ok()
            || dial(&self.path).is_ok_and(|socket| {
                self.socket = socket;
                self.socket.send(entry.as_bytes()).is_ok()
            })
    }
}

fn dial(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// The fields in a line such as `answered: request=ID target=n3 result=success the device shows it`.
///
/// A word counts only before the first word of another kind, and only once: the text of a device comes
/// after these words, and cannot imitate one.
fn fields(line: &str) -> impl Iterator<Item = (&'static str, &str)> {
    let words = line.split_once(": ").map_or("", |(_, words)| words).split(' ');
    let pairs = words.map_while(|word| word.split_once('='));
    let known = pairs.take_while(|(word, _)| *word != LAST);
    let mut free = FIELDS.to_vec();
    known.filter_map(move |(word, value)| {
        let at = free.iter().position(|(known, _)| *known == word)?;
        let (_, name) = free.remove(at);
        (!value.is_empty()).then_some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields_of(line: &str) -> Vec<(&'static str, &str)> {
        fields(line).collect()
    }

    #[test]
    fn the_words_at_the_beginning_of_a_line_become_fields() {
        let line = "answered: request=1-2 target=n3 action=off device=bmc result=success \
                    verified=true duration_ms=31 the device shows it";
        assert_eq!(
            fields_of(line),
            [
                ("REQUEST", "1-2"),
                ("TARGET", "n3"),
                ("ACTION", "off"),
                ("DEVICE", "bmc"),
                ("RESULT", "success")
            ]
        );
        assert_eq!(fields_of("answered: request=1 device= result=interrupted").len(), 2);
        assert_eq!(fields_of("begun: target=n3 target=n9"), [("TARGET", "n3")]);
    }

    #[test]
    fn the_text_of_a_device_becomes_no_field() {
        for line in [
            "answered: request=1 the device says target=n9 result=success",
            "answered: request=1 result=failed duration_ms=3 target=n9 off",
            "request=1 target=n9",
            "ready",
            "the device said: no target=n9",
        ] {
            let fields = fields_of(line);
            assert!(!fields.iter().any(|(name, _)| *name == "TARGET"), "{line}: {fields:?}");
        }
    }

    #[test]
    fn an_entry_has_one_line_for_each_field() {
        let path = std::env::temp_dir().join(format!("fence-journal-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let reader = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::connect_to(&path, "fence-x").unwrap();

        assert!(journal.send(Level::Warn, "begun: target=n3 a\nTARGET=n9"));

        let mut buffer = [0; 1024];
        let size = reader.recv(&mut buffer).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            std::str::from_utf8(&buffer[..size]).unwrap(),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=fence-x\nMESSAGE=begun: target=n3 a\\nTARGET=n9\nTARGET=n3\n"
        );
    }

    #[test]
    fn a_journal_that_was_replaced_gets_the_next_line() {
        let path = std::env::temp_dir().join(format!("fence-journal-2-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let before = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::connect_to(&path, "fence-x").unwrap();
        drop(before);
        assert!(!journal.send(Level::Info, "nobody reads"));
        std::fs::remove_file(&path).unwrap();
        let _reader = UnixDatagram::bind(&path).unwrap();

        assert!(journal.send(Level::Info, "read"));
        std::fs::remove_file(&path).unwrap();
    }
}
