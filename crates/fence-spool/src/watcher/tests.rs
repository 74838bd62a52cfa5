//! The watcher's side of the spool.

use super::*;
use crate::testing::{Pair, Scratch, each_untrusted, mode, name, names, set_mode, write};
use crate::{Liveness, PlaceError, Stage};
use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;

#[test]
fn an_examination_refuses_all_that_a_start_refuses_and_makes_nothing() {
    let scratch = Scratch::new();
    let places = Places::new(scratch.join("spool/requests"), scratch.join("spool/responses"));
    assert!(examine_places(&places).is_empty());
    assert!(!scratch.join("spool").exists());

    drop(WatcherSpool::open(&places, true).unwrap());
    assert!(examine_places(&places).is_empty());
    let requests = |name: &str| scratch.join("spool/requests").join(name);
    let responses = |name: &str| scratch.join("spool/responses").join(name);
    for path in [
        requests(""),
        requests(".claimed"),
        requests(".rejected"),
        responses(""),
        responses(".started"),
        places.queries.clone(),
    ] {
        set_mode(&path, 0o770);
        let start = WatcherSpool::open(&places, true).unwrap_err().to_string();
        let found: Vec<String> = examine_places(&places).iter().map(ToString::to_string).collect();
        assert!(found.contains(&start), "{start}: {found:?}");
        assert!(start.contains("chmod go-w"), "{start}");
        set_mode(&path, 0o700);
    }
    let twice = Places { queries: places.responses.clone(), ..places.clone() };
    let start = WatcherSpool::open(&twice, true).unwrap_err().to_string();
    assert_eq!(examine_places(&twice).iter().map(ToString::to_string).collect::<Vec<_>>(), [start]);
}

#[test]
fn an_examination_finds_locks_that_cannot_be_taken_and_disturbs_no_watcher() {
    for name in [".watcher.lock", ".running.lock"] {
        let pair = Pair::new();
        fs::create_dir(pair.request(name)).unwrap();

        let found = examine_places(&pair.places);

        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].to_string().contains(name), "{}", found[0]);
    }
    let pair = Pair::new();
    let _lock = pair.watcher.lock().unwrap();
    assert!(examine_places(&pair.places).is_empty());
    assert!(matches!(pair.client.watcher(), Liveness::Alive { .. }));
}

#[test]
fn the_directories_are_made_for_the_owner_alone() {
    let pair = Pair::new();
    for path in [
        pair.places.requests.clone(),
        pair.places.responses.clone(),
        pair.places.queries.clone(),
        pair.request(".claimed"),
        pair.request(".rejected"),
        pair.response(".started"),
    ] {
        assert_eq!(mode(&path), 0o700, "{}", path.display());
    }
}

#[test]
fn without_leave_to_create_the_directories_of_the_user_must_be_there() {
    let pair = Pair::new();
    fs::remove_dir_all(&pair.places.responses).unwrap();

    let error = WatcherSpool::open(&pair.places, false).unwrap_err();

    assert!(matches!(error, SpoolError::Place(PlaceError::Missing { .. })), "{error}");
    set_mode(&pair.places.requests, 0o777);
    assert!(WatcherSpool::open(&pair.places, true).is_err());
}

#[test]
fn one_directory_for_two_purposes_is_refused() {
    let pair = Pair::new();
    let places = Places::new(&pair.places.requests, &pair.places.requests);

    let error = WatcherSpool::open(&places, true).unwrap_err().to_string();

    assert!(error.contains(places.requests.to_str().unwrap()), "{error}");
}

#[test]
fn a_directory_that_was_made_again_is_noticed() {
    let directories: [fn(&Pair) -> std::path::PathBuf; 6] = [
        |pair| pair.places.requests.clone(),
        |pair| pair.places.responses.clone(),
        |pair| pair.places.queries.clone(),
        |pair| pair.request(".claimed"),
        |pair| pair.request(".rejected"),
        |pair| pair.response(".started"),
    ];
    for directory in directories {
        let pair = Pair::new();
        let path = directory(&pair);
        assert!(pair.watcher.is_current());

        fs::remove_dir_all(&path).unwrap();
        assert!(!pair.watcher.is_current(), "{} is gone", path.display());
        WatcherSpool::open(&pair.places, true).unwrap();
        assert!(!pair.watcher.is_current(), "{} is another one", path.display());
    }
}

#[test]
fn without_the_directories_of_claims_and_marks_nothing_is_claimed() {
    let directories: [fn(&Pair) -> std::path::PathBuf; 2] =
        [|pair| pair.request(".claimed"), |pair| pair.response(".started")];
    for directory in directories {
        let pair = Pair::new();
        let path = directory(&pair);
        write(&pair.request("n3-1.json"), b"{}");
        let fails = || {
            let claim = pair.watcher.claim(&name("n3-1"), false);
            let ClaimOutcome::Failed(error) = claim else { panic!("{claim:?}") };
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert_eq!(pair.watcher.pending().unwrap(), ["n3-1.json"]);
        };
        fs::rename(&path, path.with_extension("old")).unwrap();
        fails();
        // Another one in its place is not the one that is open.
        WatcherSpool::open(&pair.places, true).unwrap();
        fails();
        fs::remove_dir(path.with_extension("old")).unwrap();
        fails();
    }
}

#[test]
fn whether_an_answer_can_be_written_is_tried_and_leaves_nothing() {
    let pair = Pair::new();
    let before = names(&pair.places.responses);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| pair.watcher.try_answering().unwrap()));
        }
    });
    check_answers(&pair.places).unwrap();
    assert_eq!(names(&pair.places.responses), before);

    fs::remove_dir_all(&pair.places.responses).unwrap();
    let error = pair.watcher.try_answering().unwrap_err().to_string();
    assert!(error.contains(pair.places.responses.to_str().unwrap()), "{error}");
    check_answers(&pair.places).unwrap();
}

#[test]
fn only_visible_json_names_are_pending() {
    let pair = Pair::new();
    for file in ["a.json", "b b.json", "..c.json", ".d.json.tmp", "e.txt", "f.JSON", ".json"] {
        write(&pair.request(file), b"");
        write(&pair.places.queries.join(file), b"");
    }
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(pair.watcher.pending().unwrap()), ["a.json", "b b.json"]);
    assert_eq!(sorted(pair.watcher.queries().unwrap()), ["a.json", "b b.json"]);
}

#[test]
fn a_claim_moves_the_request_and_reads_it_afterwards() {
    let pair = Pair::new();
    let _submitted = pair.client.submit(&name("n"), b"{}").unwrap();

    for sync in [true, false] {
        let claim = pair.watcher.claim(&name("n"), sync);
        if sync {
            let ClaimOutcome::Claimed { sight: Sight::Content { bytes, .. }, client_gone } = claim
            else {
                panic!("{claim:?}")
            };
            assert_eq!((&bytes[..], client_gone), (&b"{}"[..], false));
        } else {
            assert!(matches!(claim, ClaimOutcome::Gone), "{claim:?}");
        }
    }
    assert_eq!(pair.watcher.claimed().unwrap(), [name("n")]);
    assert_eq!(pair.watcher.pending().unwrap(), [""; 0]);
    assert!(matches!(pair.watcher.inspect(&name("n")), Sight::Gone));
    let left = pair.watcher.inspect_claimed(&name("n"));
    assert!(matches!(left, Sight::Content { bytes, .. } if bytes == b"{}"));
    pair.watcher.remove_claimed(&name("n")).unwrap();
    pair.watcher.remove_claimed(&name("n")).unwrap();
    assert_eq!(pair.watcher.claimed().unwrap(), []);
}

#[test]
fn a_claim_tells_whether_the_client_is_still_there() {
    let pair = Pair::new();
    let gone = pair.client.submit(&name("gone"), b"{}").unwrap();
    let held = pair.client.submit(&name("held"), b"{}").unwrap();
    drop(gone);
    write(&pair.request("foreign.json"), b"{}");
    // Another probe at the same time is no client.
    let probe = File::open(pair.request("gone.json")).unwrap();
    probe.try_lock_shared().unwrap();

    for (request, expected) in [("gone", true), ("held", false), ("foreign", true)] {
        let claim = pair.watcher.claim(&name(request), false);
        let ClaimOutcome::Claimed { client_gone, .. } = claim else { panic!("{claim:?}") };
        assert_eq!(client_gone, expected, "{request}");
        let held = is_claim_held(&pair.watcher.claimed_path(&name(request))).unwrap();
        assert_eq!(held, Some(!expected), "{request}");
    }
    drop(held);
    let held = || is_claim_held(&pair.watcher.claimed_path(&name("held"))).unwrap();
    assert_eq!(held(), Some(false));
    pair.watcher.remove_claimed(&name("held")).unwrap();
    assert_eq!(held(), None);
}

#[test]
fn a_request_is_abandoned_as_soon_as_its_client_is_gone() {
    let pair = Pair::new();
    let client = pair.client.submit(&name("a"), b"{}").unwrap();
    let abandoned = |text: &str| Some(pair.watcher.abandoned(&name(text))?.is_handed_over);
    assert_eq!(abandoned("a"), None, "pending");
    pair.watcher.claim(&name("a"), false);
    assert_eq!(abandoned("a"), None, "claimed");

    drop(client);

    assert_eq!(abandoned("a"), Some(false));
    drop(pair.client.submit(&name("b"), b"{}").unwrap());
    assert_eq!(abandoned("b"), Some(false));
    assert_eq!(abandoned("c"), None);
}

#[test]
fn a_request_that_is_handed_over_can_be_taken_back_until_the_watcher_has_it() {
    let pair = Pair::new();
    let client = pair.client.submit(&name("a"), b"{}").unwrap();
    pair.watcher.claim(&name("a"), false);

    client.hand_over();
    assert!(pair.watcher.abandoned(&name("a")).unwrap().is_handed_over);
    assert!(client.take_back());
    assert!(pair.watcher.abandoned(&name("a")).is_none(), "it is held again");

    client.hand_over();
    let taken_over = pair.watcher.abandoned(&name("a")).unwrap();
    assert!(!client.take_back());
    drop(taken_over);

    assert!(client.take_back());
    drop(client);
    assert!(!pair.watcher.abandoned(&name("a")).unwrap().is_handed_over);
}

#[test]
fn a_requests_stage_is_the_place_where_it_lies() {
    let pair = Pair::new();
    let stage = || pair.client.stage(&name("a")).unwrap();
    assert_eq!(stage(), Stage::Elsewhere);
    let client = pair.client.submit(&name("a"), b"{}").unwrap();
    assert_eq!(stage(), Stage::Pending);
    pair.watcher.claim(&name("a"), false);
    assert_eq!(stage(), Stage::Claimed);
    pair.watcher.remove_claimed(&name("a")).unwrap();
    assert_eq!(stage(), Stage::Elsewhere);
    drop(client);

    drop(pair.client.submit(&name("a"), b"{}").unwrap());
    assert_eq!(stage(), Stage::Elsewhere, "nobody waits for it");
}

#[test]
fn of_many_claimers_exactly_one_wins() {
    let pair = Pair::new();
    let others: Vec<_> = (0..4).map(|_| WatcherSpool::open(&pair.places, false).unwrap()).collect();
    for number in 0..300 {
        write(&pair.request(&format!("n{number}.json")), b"{}");
    }
    let won = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for watcher in &others {
            scope.spawn(|| {
                for number in 0..300 {
                    match watcher.claim(&name(&format!("n{number}")), false) {
                        ClaimOutcome::Claimed { .. } => won.lock().unwrap().push(number),
                        ClaimOutcome::Gone => {}
                        ClaimOutcome::Failed(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let won = won.into_inner().unwrap();
    assert_eq!(won.len(), 300);
    assert_eq!(won.into_iter().collect::<BTreeSet<_>>().len(), 300);
}

#[test]
fn what_must_not_be_read_can_be_seen_and_claimed_but_is_not_read() {
    let pair = Pair::new();
    each_untrusted(&pair.request("n.json"), |word| {
        let sight = pair.watcher.inspect(&name("n"));
        assert!(matches!(&sight, Sight::Untrusted(why) if why.contains(word)), "{sight:?}");
        let claim = pair.watcher.claim(&name("n"), false);
        let ClaimOutcome::Claimed { sight: Sight::Untrusted(_), client_gone: true } = claim else {
            panic!("{claim:?}")
        };
        fs::rename(pair.request(".claimed/n.json"), pair.request("n.json")).unwrap();
    });
}

#[test]
fn a_claim_that_fails_leaves_the_request_pending() {
    let pair = Pair::new();
    write(&pair.request("n.json"), b"second");
    write(&pair.request(".claimed/n.json"), b"first");

    let claim = pair.watcher.claim(&name("n"), true);

    let ClaimOutcome::Failed(error) = claim else { panic!("{claim:?}") };
    let text = format!("cannot claim '{}': File exists", pair.request("n.json").display());
    assert_eq!(error.to_string(), text);
    assert_eq!(fs::read(pair.request(".claimed/n.json")).unwrap(), b"first");

    fs::remove_dir_all(pair.request(".claimed")).unwrap();
    let claim = pair.watcher.claim(&name("n"), true);
    assert!(matches!(claim, ClaimOutcome::Failed(_)), "the request is not gone: {claim:?}");
    assert_eq!(fs::read(pair.request("n.json")).unwrap(), b"second");
}

#[test]
fn a_request_is_known_under_each_name_that_its_answer_can_have() {
    let pair = Pair::new();
    let target: NodeName = "n3".parse().unwrap();
    let known = |id: &RequestId| {
        (
            pair.watcher.answered(&name("x"), Some(id), Some(&target)).unwrap(),
            pair.watcher.answered(&name("x"), Some(id), None).unwrap(),
            pair.watcher.answered(&name("x"), None, None).unwrap(),
        )
    };
    let new = RequestId::random();
    assert_eq!(known(&new), (false, false, false));

    let by_id = RequestId::random();
    pair.watcher.answer(&RecordName::of_id(&by_id), b"{}").unwrap();
    assert_eq!(known(&by_id), (true, true, false));

    let by_target = RequestId::random();
    let both = RecordName::of_target_and_id(&target, &by_target).unwrap();
    pair.watcher.answer(&both, b"{}").unwrap();
    assert_eq!(known(&by_target), (true, false, false));

    let by_mark = RequestId::random();
    assert!(pair.watcher.mark_started(&by_mark).unwrap());
    assert!(!pair.watcher.mark_started(&by_mark).unwrap(), "it was started before");
    assert_eq!(known(&by_mark), (true, true, false));

    pair.watcher.answer(&name("x"), b"{}").unwrap();
    assert_eq!(known(&new), (true, true, true));
}

#[test]
fn a_request_is_known_in_whichever_case_its_identity_is_written() {
    let target: NodeName = "n3".parse().unwrap();
    let lower = RequestId::random();
    let upper: RequestId = lower.as_str().to_ascii_uppercase().parse().unwrap();
    let own_name = |id: &RequestId| name(id.as_str());
    let with_target = |id: &RequestId| name(&format!("n3-{id}"));
    let foreign = |_: &RequestId| name("job-1");
    let names: [&dyn Fn(&RequestId) -> RecordName; 3] = [&own_name, &with_target, &foreign];
    for first in names {
        for (one, other) in [(&lower, &upper), (&upper, &lower)] {
            let pair = Pair::new();
            let is_begun = |id: &RequestId, name: &RecordName| {
                pair.watcher.was_begun(name, id, Some(&target)).unwrap()
            };
            write(&pair.request(&first(one).file_name()), b"{}");
            assert!(matches!(pair.watcher.claim(&first(one), false), ClaimOutcome::Claimed { .. }));
            assert!(!is_begun(one, &first(one)), "{one}");

            write(&pair.request("job-2.json"), b"{}");
            assert!(matches!(
                pair.watcher.claim(&name("job-2"), false),
                ClaimOutcome::Claimed { .. }
            ));
            assert!(is_begun(other, &name("job-2")), "{one} as {}", first(one));
            pair.watcher.answer(&first(one), b"{}").unwrap();
            pair.watcher.remove_claimed(&first(one)).unwrap();
            let id = Some(other);
            assert!(pair.watcher.answered(&own_name(other), id, Some(&target)).unwrap());
        }
    }
}

#[test]
fn an_answer_is_never_overwritten() {
    let pair = Pair::new();
    pair.watcher.answer(&name("n"), b"first").unwrap();
    assert_eq!(mode(&pair.response("n.json")), 0o600);

    pair.watcher.answer(&name("n"), b"second").unwrap();
    // What a crash can leave behind: here even another name of the answer itself.
    fs::hard_link(pair.response("n.json"), pair.response(".n.json.tmp")).unwrap();
    pair.watcher.answer(&name("n"), b"third").unwrap();

    assert_eq!(fs::read(pair.response("n.json")).unwrap(), b"first");
    assert_eq!(names(&pair.places.responses), [".started", "n.json"]);
}

#[test]
fn an_unfinished_answer_of_a_crash_does_not_hinder_the_answer() {
    let pair = Pair::new();
    write(&pair.response(".n.json.tmp"), b"{\"succ");

    pair.watcher.answer(&name("n"), b"whole").unwrap();

    assert_eq!(fs::read(pair.response("n.json")).unwrap(), b"whole");
    assert_eq!(names(&pair.places.responses), [".started", "n.json"]);
}

#[test]
fn trying_how_files_are_renamed_leaves_nothing_behind_and_makes_nothing() {
    let pair = Pair::new();
    for leftover in [".try.tmp", ".tried.tmp"] {
        write(&pair.request(leftover), b"of a process that was killed");
    }

    check_renames(&pair.places).unwrap();

    assert_eq!(names(&pair.places.requests), [".claimed", ".rejected", ".returning"]);
    assert_eq!(names(&pair.places.responses), [".started"]);
    assert_eq!(names(&pair.places.queries), [""; 0]);
    fs::remove_dir(&pair.places.queries).unwrap();
    check_renames(&pair.places).unwrap();
    assert!(!pair.places.queries.exists());
}

#[test]
fn a_file_system_that_replaces_is_told_from_another_failure() {
    let pair = Pair::new();
    let requests = &pair.watcher.requests;
    for errno in [Errno::EINVAL, Errno::ENOSYS, Errno::EOPNOTSUPP] {
        let error = requests.rename_error("claim", "n.json", errno).to_string();
        assert!(error.contains(pair.places.requests.to_str().unwrap()), "{error}");
        assert!(error.contains("tmpfs") && !error.contains("n.json"), "{error}");
    }
    let error = requests.rename_error("claim", "n.json", Errno::ENOSPC).to_string();
    assert!(error.contains("n.json") && error.contains("No space"), "{error}");
}

#[test]
fn a_pending_request_can_be_removed_twice() {
    let pair = Pair::new();
    write(&pair.request("n.json"), b"{}");

    pair.watcher.remove_pending(&name("n")).unwrap();
    pair.watcher.remove_pending(&name("n")).unwrap();

    assert!(!pair.request("n.json").exists());
}

#[test]
fn a_query_that_must_not_be_read_is_none_and_can_be_removed() {
    let pair = Pair::new();
    each_untrusted(&pair.places.queries.join("q.json"), |word| {
        assert_eq!(pair.watcher.read_query("q.json").unwrap(), None, "{word}");
    });
    write(&pair.places.queries.join("q.json"), b"{}");
    let read = pair.watcher.read_query("q.json").unwrap();
    assert!(matches!(read, Some(QueryText::Whole { bytes, .. }) if bytes == b"{}"));
    pair.watcher.remove_query("q.json").unwrap();
    pair.watcher.remove_query("q.json").unwrap();
    assert_eq!(pair.watcher.read_query("q.json").unwrap(), None);
}

#[test]
fn no_file_name_leads_out_of_its_directory() {
    let pair = Pair::new();
    write(&pair.request("n.json"), b"{}");
    for path in ["../requests/n.json", "..", ".", "", "/etc/passwd", "a\0b"] {
        assert_eq!(pair.watcher.read_query(path).unwrap(), None, "{path}");
        assert!(pair.watcher.remove_query(path).is_err(), "{path}");
        assert!(pair.watcher.answer_query(path, b"x").is_err(), "{path}");
        assert!(pair.watcher.set_aside(path).is_err(), "{path}");
    }
    assert!(pair.request("n.json").exists());
}
