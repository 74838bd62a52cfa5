//! Programs that tests write.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes an executable file of `contents`, for its owner and all who may read it.
///
/// Another process writes it. If this one did, a program that another test starts at the same moment
/// would have the file open for writing until its exec, and the kernel runs no such file ("Text file
/// busy").
pub(crate) fn write_executable(path: &Path, contents: impl AsRef<[u8]>) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(contents.as_ref()).unwrap();
    assert!(writer.wait().unwrap().success(), "{}", path.display());
}
