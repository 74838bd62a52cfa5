//! A socket that carries lines in both directions and never blocks.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

/// The result of one look at a socket.
#[derive(Debug)]
pub(super) enum Received {
    /// The lines that are complete, perhaps none.
    Lines(Vec<Vec<u8>>),
    /// There is nothing to read at the moment.
    Nothing,
    /// The other end is gone.
    End,
}

/// One end of such a socket, in an epoll set.
#[derive(Debug)]
pub(super) struct Wire {
    socket: UnixStream,
    /// The token of this socket's events.
    token: u64,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    waits_for_room: bool,
}

impl Wire {
    pub(super) fn new(socket: UnixStream, epoll: &Epoll, token: u64) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        let (incoming, outgoing) = (Vec::new(), Vec::new());
        Ok(Wire { socket, token, incoming, outgoing, waits_for_room: false })
    }

    /// Reads once.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let count = match self.socket.read(buffer) {
            Ok(0) => return Ok(Received::End),
            Ok(count) => count,
            Err(error) if is_passing(&error) => return Ok(Received::Nothing),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Ok(Received::End);
            }
            Err(error) => return Err(error),
        };
        let mut lines = Vec::new();
        for part in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            self.incoming.extend_from_slice(part);
            if part.ends_with(b"\n") {
                lines.push(std::mem::take(&mut self.incoming));
            }
        }
        Ok(Received::Lines(lines))
    }

    /// Adds a line to those that are still to be sent.
    pub(super) fn queue(&mut self, line: &[u8]) {
        self.outgoing.extend_from_slice(line);
    }

    /// Sends as much as there is room for, and asks for an event if there is more to send.
    pub(super) fn send(&mut self, epoll: &Epoll) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.outgoing.len() {
            match self.socket.write(&self.outgoing[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The event of the socket also shows that the other end is gone.
                Err(_) => break,
            }
        }
        self.outgoing.drain(..sent);
        if self.outgoing.is_empty() == self.waits_for_room {
            self.waits_for_room = !self.waits_for_room;
            let mut events = EpollFlags::EPOLLIN;
            events.set(EpollFlags::EPOLLOUT, self.waits_for_room);
            epoll.modify(&self.socket, &mut EpollEvent::new(events, self.token))?;
        }
        Ok(())
    }

    /// Shows the other end that this end is gone.
    pub(super) fn shut_down(&self) {
        // If the other end is gone, there is nothing to show.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
