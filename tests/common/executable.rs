//! Programs that tests write.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Creates an executable file with `contents`, for its owner and everybody who may read it.
///
/// Another process writes the file. If this process wrote it, a program that another test starts at
/// the same moment would hold the file open for writing until its exec, and the kernel does not run
/// such a file ("Text file busy").
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
