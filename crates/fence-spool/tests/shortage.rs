//! A lack of descriptors is reported before the claim, when the watcher can still wait until it is
//! over.
//!
//! This is a separate program, because the limit applies to the whole process.

use std::fs;

use fence_protocol::{RecordName, RequestId};
use fence_spool::{ClaimOutcome, Places, Sight, WatcherSpool, is_claim_held};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn a_request_that_cannot_be_opened_is_not_claimed_and_its_claim_needs_no_more_descriptors() {
    let site = std::env::temp_dir().join(format!("fence-shortage-{}", RequestId::random()));
    let places = Places::new(site.join("requests"), site.join("responses"));
    let spool = WatcherSpool::open(&places, true).unwrap();
    let name: RecordName = "n".parse().unwrap();
    fs::write(places.requests.join("n.json"), "{}").unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let set = |limit| setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    // The lowest free number: room for exactly one more file, or for none.
    let is_free = |number: &u64| !fs::exists(format!("/proc/self/fd/{number}")).unwrap();
    let free = (0..soft).find(is_free).unwrap();

    set(free);
    let claims = [spool.claim(&name, false), spool.claim(&name, false)];
    let read = spool.inspect(&name);
    set(free + 1);
    let claim = spool.claim(&name, false);
    set(free);
    let looked = (is_claim_held(&spool.claimed_path(&name)), spool.read_query("q.json"));
    set(soft);

    for claim in claims {
        let ClaimOutcome::Failed(problem) = claim else { panic!("{claim:?}") };
        assert!(problem.is_passing(), "{problem}");
    }
    assert!(matches!(read, Sight::Failed(problem) if problem.is_passing()));
    let ClaimOutcome::Claimed { sight: Sight::Content { bytes, .. }, client_gone } = claim else {
        panic!("{claim:?}")
    };
    assert_eq!((&bytes[..], client_gone), (&b"{}"[..], true));
    assert!(looked.0.is_err_and(|problem| problem.is_passing()), "not: no client holds it");
    assert!(matches!(looked.1, Ok(None)), "there is no such query");
    fs::remove_dir_all(site).unwrap();
}
