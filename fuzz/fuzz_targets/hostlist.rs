//! Hostlist expressions: bounded, and the same nodes after folding and expanding again.
#![no_main]

use std::collections::BTreeSet;

use fence_log::is_plain;
use fence_protocol::{NODES_MAX, NodeName, expand_hostlist, fold_hostlist};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match expand_hostlist(text) {
    Ok(nodes) => {
        assert!((1..=NODES_MAX).contains(&nodes.len()));
        // Folding 65,536 names again and again would leave no time for other inputs.
        if nodes.len() > 1_000 {
            return;
        }
        let nodes: BTreeSet<NodeName> = nodes.into_iter().collect();
        let again = expand_hostlist(&fold_hostlist(&nodes)).expect("a folded list is one");
        assert_eq!(again.into_iter().collect::<BTreeSet<_>>(), nodes);
    }
    Err(error) => {
        // A character takes up to ten bytes to escape.
        let text = error.to_string();
        assert!(text.chars().all(is_plain) && text.len() <= 3_000, "{text:?}");
    }
});
