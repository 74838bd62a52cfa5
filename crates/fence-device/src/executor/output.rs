//! What a program writes: read to the end so that it never blocks, kept up to a bound.

use std::fmt::Write as _;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};

/// The most that is read from a pipe after its program has ended. No pipe holds more, unless
/// something in the background goes on writing.
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

    /// Becomes readable when there is more; `None` after the end.
    pub(super) fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(PipeReader::as_fd)
    }

    /// Reads once; `None` when there is nothing more for now or for ever.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let pipe = self.pipe.as_mut()?;
        match pipe.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Some(0),
            // Closing the end that is at its end also takes it out of the poll set.
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

    /// Reads what is there and gives the text.
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
