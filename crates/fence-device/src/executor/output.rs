//! The output of a program: read to its end, so that the program never blocks, and kept to a bound.

use std::fmt::Write as _;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};

/// The most bytes that are read from a pipe after the end of its program. No pipe contains more,
/// unless a background process still writes.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// One of a program's two outputs.
#[derive(Debug)]
pub(super) struct Output {
    pipe: Option<PipeReader>,
    kept: Vec<u8>,
    kept_max: usize,
    dropped: u64,
}

impl Output {
    /// The output that arrives through `pipe`, which must not block.
    pub(super) fn new(pipe: PipeReader, kept_max: usize) -> Self {
        Output { pipe: Some(pipe), kept: Vec::new(), kept_max, dropped: 0 }
    }

    /// Readable when there is more output; `None` after its end.
    pub(super) fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(PipeReader::as_fd)
    }

    /// Reads once; `None` if there is no output at the moment, or no more.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let pipe = self.pipe.as_mut()?;
        match pipe.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Some(0),
            // A pipe that is closed leaves the poll set.
            Ok(0) | Err(_) => {
                self.pipe = None;
                None
            }
            Ok(count) => {
                let kept = count.min(self.kept_max - self.kept.len());
                self.kept.extend_from_slice(&buffer[..kept]);
                self.dropped += (count - kept) as u64;
                Some(count)
            }
        }
    }

    /// Reads the remaining output, and returns the text.
    pub(super) fn finish(mut self, buffer: &mut [u8]) -> String {
        let mut drained = 0;
        while drained < DRAIN_BYTES_MAX
            && let Some(count) = self.read(buffer)
        {
            drained += count;
        }
        let readable =
            |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
        let mut text: String = String::from_utf8_lossy(&self.kept).chars().map(readable).collect();
        if self.dropped > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n({} bytes more)", self.dropped);
        }
        text
    }
}
