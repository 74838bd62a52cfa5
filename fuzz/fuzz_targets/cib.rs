//! What `cibadmin` writes: file systems of the node that is asked about and no others, in bounds that a
//! request can hold.
#![no_main]

use gfs2_discovery::{Cib, Evidence, Finding, Mount, Mounts, Reading, Target, conclude};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(cib) = Cib::parse(text) else { return };
    let absent = || "not here".to_owned();
    let mount = Mount { directory: "/mnt/scratch".to_owned(), table: "c:vol1".to_owned() };
    let evidence = Evidence {
        corosync: Reading::Absent(absent()),
        lockspaces: Reading::Absent(absent()),
        mounts: Mounts(vec![mount]),
        cib: Reading::Got(cib),
        storages: Reading::Absent(absent()),
    };
    for plug in ["node2", "n1", ""] {
        let found = conclude(Target { plug, nodename: None }, &evidence);
        let names = found.names();
        assert!(names.len() <= 1000 && names.is_sorted() && names.iter().all(|n| n.len() <= 255));
        assert_eq!(found.outcome() == Finding::Found, !names.is_empty());
        // Whose history is not there cannot have held anything.
        assert!(names.is_empty() || text.contains("lrm_resource"), "{names:?}");
        assert!(found.learned().values().all(|ways| !ways.is_empty()));
        let _ = found.to_string();
    }
});
