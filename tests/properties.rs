//! What holds for all lists of nodes: written short and read again, they name the same nodes.

use std::collections::BTreeSet;

use fence_protocol::{NodeName, expand_hostlist};
use fence_watcher::config::fold_hostlist;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_folded_list_of_nodes_names_the_same_nodes(nodes in nodes()) {
        let folded = fold_hostlist(&nodes);

        let again = expand_hostlist(&folded).unwrap();
        prop_assert_eq!(again.len(), nodes.len(), "{}", folded);
        prop_assert_eq!(again.into_iter().collect::<BTreeSet<_>>(), nodes, "{}", folded);
    }
}

/// Few prefixes and few digits, so that ranges and widths come about. A comma separates names, so no
/// name of a hostlist holds one.
fn nodes() -> impl Strategy<Value = BTreeSet<NodeName>> {
    let name = prop_oneof![
        "[ab]-?[0-9]{1,2}",
        "[ab]?0{0,2}(9|1[0-2]|99|100)",
        "[a-z0-9:@+=~#%_][A-Za-z0-9_.:]{0,9}",
        "n(429496729[4-6]|[0-9]{12})",
    ];
    let names = name.prop_filter_map("two dots", |text| text.parse::<NodeName>().ok());
    // An empty list has no expression.
    proptest::collection::btree_set(names, 1..40)
}
