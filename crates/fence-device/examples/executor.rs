//! The executor alone, as the tests start it: `executor LOCK_FILE`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let lock_file = std::env::args_os().nth(1).unwrap_or_default();
    fence_device::executor_main(Path::new(&lock_file))
}
