//! corosync's configuration: a number only for a name that stands there, and only one that stands there.
#![no_main]

use gfs2_discovery::{Corosync, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let corosync = Corosync::parse(text);
    let sections = text.matches('{').count();
    assert!(corosync.nodes.len() <= sections);
    let lower = text.to_ascii_lowercase();
    for plug in ["node2", "n1.example.org", "10.77.0.12", ""] {
        let target = Target { plug, nodename: None };
        if let Ok(id) = corosync.node_id(target) {
            assert!(lower.contains(plug.split('.').next().unwrap_or_default()));
            assert!(corosync.nodes.iter().any(|node| node.id == Some(id)));
        }
    }
    for node in &corosync.nodes {
        assert!(node.name.iter().chain(&node.addresses).all(|name| text.contains(name.as_str())));
    }
});
