//! A program that does nothing but write logs, as the tests start it.

fn main() {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    assert!(fence_audit::write_logs(&arguments), "{arguments:?}");
}
