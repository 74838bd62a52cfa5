//! Whether a resource was active at the end of its history of operations on a node.

use roxmltree::Node;

/// Whether the resource was active at the end of this history.
///
/// In doubt it was active: a failed stop, which is often the reason for the fence, leaves the file
/// system mounted, and an unfinished start may have mounted it.
pub(crate) fn was_active(history: Node<'_, '_>) -> bool {
    let mut operations: Vec<_> =
        history.children().filter(|node| node.has_tag_name("lrm_rsc_op")).collect();
    // An unfinished operation has the number -1, and comes after all others.
    operations.sort_by_key(|operation| {
        let call = number(*operation, "call-id").filter(|call| *call >= 0).unwrap_or(i64::MAX);
        (call, number(*operation, "last-rc-change").unwrap_or(0))
    });
    operations.into_iter().fold(false, after)
}

/// Whether the resource was active after `operation`, if it was `active` before.
fn after(active: bool, operation: Node<'_, '_>) -> bool {
    let code = number(operation, "rc-code");
    let status = number(operation, "op-status");
    match operation.attribute("operation") {
        // Each of these operations acts on a running resource, or leaves the resource running.
        Some("start" | "promote" | "demote" | "migrate_to" | "migrate_from") => true,
        // The history has one entry for all operations except recurring ones: an unfinished stop
        // has replaced the start.
        Some("stop") => !(code == Some(OK) && status == Some(DONE)),
        Some("monitor") if matches!(status, Some(PENDING | CANCELLED)) => active,
        Some("monitor") => match code {
            Some(NOT_RUNNING) => !matches!(status, None | Some(DONE | ERROR)),
            // If an agent is not installed, or refuses the parameters, a single monitor finds
            // nothing. Of a recurring monitor this says nothing about an earlier start.
            Some(NOT_INSTALLED | INVALID_PARAMETERS) => !is_single(operation),
            _ => status != Some(STATUS_NOT_INSTALLED) || !is_single(operation),
        },
        _ => active,
    }
}

fn is_single(monitor: Node<'_, '_>) -> bool {
    number(monitor, "interval").unwrap_or(0) == 0
}

fn number(operation: Node<'_, '_>, name: &str) -> Option<i64> {
    operation.attribute(name)?.parse().ok()
}

/// `op-status`: unfinished, done, cancelled, failed, and agent not installed.
const PENDING: i64 = -1;
const DONE: i64 = 0;
const CANCELLED: i64 = 1;
const ERROR: i64 = 4;
const STATUS_NOT_INSTALLED: i64 = 7;
/// OCF return codes.
const OK: i64 = 0;
const INVALID_PARAMETERS: i64 = 2;
const NOT_INSTALLED: i64 = 5;
const NOT_RUNNING: i64 = 7;
