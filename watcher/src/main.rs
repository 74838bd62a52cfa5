//! The program `fence-watcher`.

fn main() {}
