//! Whether two processes count deadlines by the same clock.
//!
//! Deadlines are instants of `CLOCK_BOOTTIME`. They mean the same to both programs only on the same
//! kernel, and only if neither runs in a time namespace that shifts the clock. Otherwise the
//! watcher would start a fence long after its deadline, or not at all.

/// Why this process has another `CLOCK_BOOTTIME` than the machine, or `None`. `read` returns the
/// text of a file, or the target of a link, if it exists.
///
/// The kernel shows the offsets for the children of a process. The process itself has the same
/// offsets, unless it has just created the namespace for its children.
pub fn shifted(read: impl Fn(&str) -> Option<String>) -> Option<String> {
    // Kernels without time namespaces have none of these files.
    let offsets = read("/proc/self/timens_offsets").unwrap_or_default();
    let boottime = offsets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        // Earlier kernels print the number of the clock.
        let is_it = matches!(words.next()?, "boottime" | "7");
        let seconds: i64 = words.next()?.parse().ok()?;
        let nanoseconds: i64 = words.next()?.parse().ok()?;
        is_it.then_some((seconds, nanoseconds))
    });
    match boottime {
        Some((seconds, nanoseconds)) if (seconds, nanoseconds) != (0, 0) => {
            let words = if seconds < 0 {
                format!("{} s behind", seconds.unsigned_abs())
            } else {
                format!("{seconds} s ahead of")
            };
            return Some(format!(
                "a time namespace sets CLOCK_BOOTTIME {words} the machine's clock, so deadlines of \
                 fences would be wrong: run it outside of this time namespace"
            ));
        }
        _ => {}
    }
    let (own, of_children) = (read("/proc/self/ns/time"), read("/proc/self/ns/time_for_children"));
    (own.is_some() && of_children.is_some() && own != of_children).then(|| {
        "it and its children have two time namespaces, so deadlines of fences may be wrong: run it \
         outside of these time namespaces"
            .to_owned()
    })
}

/// Why a client that reports this boot and this instant certainly does not share the clock of a
/// watcher, or `None`.
pub fn difference(
    client_boot_id: Option<&str>,
    client_boot_ms: Option<u64>,
    boot_id: &str,
    boot_ms: u64,
) -> Option<String> {
    // A UUID: its letters may be in either case.
    if let Some(client) = client_boot_id.filter(|client| !client.eq_ignore_ascii_case(boot_id)) {
        return Some(other_boot(client, boot_id));
    }
    // The client read its clock before the watcher reads its own.
    let ahead_ms = client_boot_ms?.checked_sub(boot_ms).filter(|ahead_ms| *ahead_ms > 0)?;
    Some(format!(
        "the client's CLOCK_BOOTTIME is {ahead_ms} ms ahead of the clock of fence-watcher: run both on \
         one kernel, outside of time namespaces"
    ))
}

/// The message for two different boots.
pub(crate) fn other_boot(client: &str, watcher: &str) -> String {
    // Bound the client's text before it is shown.
    let client: String = client.chars().take(BOOT_ID_CHARS).flat_map(char::escape_debug).collect();
    format!(
        "the client and fence-watcher have different boots (boot_id '{client}' and '{watcher}'), so \
         their deadlines cannot be compared: run both on one kernel, with one \
         /proc/sys/kernel/random/boot_id"
    )
}

const BOOT_ID_CHARS: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    fn shifted_by(offsets: Option<&str>, own: Option<&str>, of_children: Option<&str>) -> String {
        let text = shifted(|path| match path {
            "/proc/self/timens_offsets" => offsets.map(str::to_owned),
            "/proc/self/ns/time" => own.map(str::to_owned),
            "/proc/self/ns/time_for_children" => of_children.map(str::to_owned),
            other => panic!("{other}"),
        });
        text.unwrap_or_default()
    }

    #[test]
    fn the_machines_own_clock_is_no_problem_whatever_the_kernel_shows() {
        let zero = "monotonic           0         0\nboottime            0         0\n";
        let one = Some("time:[4026531834]");
        for (offsets, own, of_children) in [
            (None, None, None),
            (Some(""), one, one),
            (Some(zero), one, one),
            (Some("monotonic 5 0\nboottime 0 0\n"), one, one),
            (Some("1 5 0\n7 0 0\n"), one, None),
        ] {
            assert_eq!(shifted_by(offsets, own, of_children), "", "{offsets:?}");
        }
    }

    #[test]
    fn a_clock_that_is_shifted_is_named_with_what_to_do() {
        for (offsets, words) in [
            ("monotonic 0 0\nboottime -3600 0\n", "3600 s behind the machine's"),
            ("monotonic 0 0\nboottime 86400 0\n", "86400 s ahead of the machine's"),
            ("boottime 0 500000000\n", "0 s ahead of"),
            ("1 0 0\n7 12 0\n", "12 s ahead of"),
        ] {
            let problem = shifted_by(Some(offsets), None, None);
            assert!(problem.contains(words), "{problem}");
            assert!(problem.contains("run it outside of"), "{problem}");
        }
        let problem = shifted_by(Some("boottime 0 0\n"), Some("time:[1]"), Some("time:[2]"));
        assert!(problem.contains("two time namespaces"), "{problem}");
    }

    #[test]
    fn a_client_of_another_boot_or_clock_is_recognised_if_it_names_them() {
        assert_eq!(difference(Some("a"), Some(5), "a", 5), None);
        assert_eq!(difference(Some("a"), None, "a", 5), None);
        assert_eq!(difference(Some("A"), Some(5), "a", 5), None);
        assert_eq!(difference(None, Some(4), "a", 5), None);
        assert_eq!(difference(None, None, "a", 5), None);

        let other = difference(Some("b\n"), Some(5), "a", 5).unwrap();
        assert!(other.contains("boot_id 'b\\n' and 'a'"), "{other}");
        let ahead = difference(Some("a"), Some(5_007), "a", 7).unwrap();
        assert!(ahead.contains("5000 ms ahead"), "{ahead}");
    }
}
