//! Single lines to the local syslog socket. Nothing here waits for its reader.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use log::Level;

use crate::shown_line;

/// The longest line, in bytes. The socket of a usual Linux takes some 200 KiB, but readers cut far
/// shorter lines.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The facility `daemon`, in the form of a priority (syslog(3)).
const DAEMON: u8 = 3 << 3;

/// A connection to the local syslog.
///
/// The socket does not block: if its reader hangs and its queue is full, lines are lost.
pub struct Syslog {
    path: PathBuf,
    socket: UnixDatagram,
    /// `program[pid]`.
    tag: String,
}

impl Syslog {
    /// Connects to `/dev/log`; `None` if no syslog listens.
    pub fn connect(program: &str) -> Option<Self> {
        Self::connect_to(Path::new("/dev/log"), program).ok()
    }

    fn connect_to(path: &Path, program: &str) -> io::Result<Self> {
        let tag = format!("{program}[{}]", std::process::id());
        Ok(Syslog { path: path.to_owned(), socket: dial(path)?, tag })
    }

    /// Sends `text` as one line, `<priority>program[pid]: text`. The line has no time: every local
    /// syslog adds the local time. False if the line cannot be sent now, and is lost.
    pub fn send(&mut self, level: Level, text: &str) -> bool {
        let mut text = shown_line(text);
        text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
        let line = format!("<{}>{}: {text}", DAEMON | severity(level), self.tag);
        match self.socket.send(line.as_bytes()) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // The syslog daemon was restarted, so it has another socket.
            Err(_) => dial(&self.path).is_ok_and(|socket| {
                self.socket = socket;
                self.socket.send(line.as_bytes()).is_ok()
            }),
        }
    }
}

/// The severity of syslog(3), which the journal uses as well.
pub(crate) fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn dial(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Reader {
        path: PathBuf,
        socket: UnixDatagram,
    }

    impl Reader {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("fl-{}-{name}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            Reader { socket: UnixDatagram::bind(&path).unwrap(), path }
        }

        fn line(&self) -> String {
            let mut buffer = [0; 16 * 1024];
            let size = self.socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..size].to_vec()).unwrap()
        }
    }

    impl Drop for Reader {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    #[test]
    fn a_line_carries_priority_program_and_pid_and_stays_one_line() {
        let reader = Reader::new("line");
        let mut syslog = Syslog::connect_to(&reader.path, "fence_x").unwrap();

        assert!(syslog.send(Level::Warn, "n3\n<0>kernel: forged"));

        let pid = std::process::id();
        assert_eq!(reader.line(), format!("<28>fence_x[{pid}]: n3\\n<0>kernel: forged"));
    }

    #[test]
    fn a_reader_that_is_stuck_loses_lines_and_does_not_hold_the_sender() {
        let reader = Reader::new("stuck");
        let mut syslog = Syslog::connect_to(&reader.path, "fence_x").unwrap();

        let lost = (0..100_000).find(|_| !syslog.send(Level::Info, "line"));

        assert!(lost.is_some());
    }

    #[test]
    fn a_syslog_that_was_started_anew_gets_the_next_line() {
        let reader = Reader::new("anew");
        let mut syslog = Syslog::connect_to(&reader.path, "fence_x").unwrap();
        drop(reader);
        assert!(!syslog.send(Level::Info, "nobody listens"));

        let reader = Reader::new("anew");

        assert!(syslog.send(Level::Info, "here again"));
        assert!(reader.line().ends_with("here again"));
    }

    #[test]
    fn an_endless_text_is_cut() {
        let reader = Reader::new("cut");
        let mut syslog = Syslog::connect_to(&reader.path, "fence_x").unwrap();

        assert!(syslog.send(Level::Info, &"ä".repeat(100_000)));

        assert!(reader.line().len() < LINE_BYTES_MAX + 100);
    }
}
