//! What a service reports to its manager.

use std::os::unix::net::UnixDatagram;

/// The next state that a service reports, without its status for people.
pub fn next_told(socket: &UnixDatagram) -> String {
    loop {
        let message = next_message(socket);
        if !message.starts_with("STATUS=") {
            return message;
        }
    }
}

/// The next message of a service to its manager.
pub fn next_message(socket: &UnixDatagram) -> String {
    let mut message = [0; 1024];
    let length = socket.recv(&mut message).expect("the watcher reports nothing");
    String::from_utf8_lossy(&message[..length]).trim_end().to_owned()
}
