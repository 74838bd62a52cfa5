//! The client's side of the spool.

use super::*;
use crate::testing::{Pair, each_untrusted, is_ready, mode, name, names, write};
use crate::{ClaimOutcome, QueryText};
use fence_protocol::{QueryKind, RECORD_BYTES_MAX};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs;
use std::sync::Barrier;

#[test]
fn a_submitted_request_lies_there_whole_private_and_held() {
    let pair = Pair::new();

    let submitted = pair.client.submit(&name("n"), b"{}\n").unwrap();

    assert_eq!(submitted.name(), &name("n"));
    assert_eq!(fs::read(pair.request("n.json")).unwrap(), b"{}\n");
    assert_eq!(mode(&pair.request("n.json")), 0o600);
    assert_eq!(names(&pair.places.requests), [".claimed", ".rejected", ".returning", "n.json"]);
    let file = File::open(pair.request("n.json")).unwrap();
    assert!(matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
    drop(submitted);
    assert!(file.try_lock_shared().is_ok());
}

/// The names of the files with this event, hidden ones left out.
fn names_of(inotify: &Inotify) -> Vec<String> {
    let events = inotify.read_events().unwrap_or_default().into_iter();
    let names = events.filter_map(|event| event.name?.into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn a_linked_request_is_seen_by_who_looks_for_creation_or_for_closing_alone_and_is_complete() {
    for event in [AddWatchFlags::IN_CREATE, AddWatchFlags::IN_CLOSE_WRITE] {
        let pair = Pair::new();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        inotify.add_watch(&pair.places.requests, event).unwrap();

        let submitted = pair.client.submit_as(&name("n"), b"{}\n", Showing::Link).unwrap();

        assert_eq!(names_of(&inotify), ["n.json"], "{event:?}");
        assert_eq!(fs::read(pair.request("n.json")).unwrap(), b"{}\n");
        assert_eq!(mode(&pair.request("n.json")), 0o600);
        assert_eq!(names(&pair.places.requests), [".claimed", ".rejected", ".returning", "n.json"]);
        let file = File::open(pair.request("n.json")).unwrap();
        assert!(matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)), "held");
        assert!(!is_ready(submitted.wait_fd().unwrap(), 0), "submitting itself is no news");
        let ClaimOutcome::Claimed { client_gone, .. } = pair.watcher.claim(&name("n"), false)
        else {
            panic!()
        };
        assert!(!client_gone);
    }
}

#[test]
fn a_linked_request_replaces_none() {
    let pair = Pair::new();
    write(&pair.request("n.json"), b"another one");

    assert!(pair.client.submit_as(&name("n"), b"{}", Showing::Link).is_err());

    assert_eq!(fs::read(pair.request("n.json")).unwrap(), b"another one");
    assert_eq!(names(&pair.places.requests), [".claimed", ".rejected", ".returning", "n.json"]);
}

#[test]
fn a_try_shows_no_name_that_could_be_a_request_and_leaves_nothing() {
    for showing in [Showing::Rename, Showing::Link] {
        let pair = Pair::new();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        inotify.add_watch(&pair.places.requests, AddWatchFlags::IN_ALL_EVENTS).unwrap();

        pair.client.try_submitting(showing).unwrap();

        let events = inotify.read_events().unwrap();
        let mut names_seen = events.iter().filter_map(|event| event.name.as_ref()?.to_str());
        assert!(names_seen.clone().count() > 0);
        assert!(
            names_seen.all(|name| name.starts_with('.') && name.strip_suffix(".tmp").is_some())
        );
        assert_eq!(names(&pair.places.requests), [".claimed", ".rejected", ".returning"]);
    }
}

#[test]
fn missing_directories_are_made_for_their_owner_alone() {
    let pair = Pair::new();
    fs::remove_dir_all(&pair.places.requests).unwrap();
    fs::remove_dir_all(&pair.places.responses).unwrap();
    assert!(ClientSpool::open(&pair.places).is_err());

    ClientSpool::create(&pair.places).unwrap().try_submitting(Showing::Link).unwrap();

    assert_eq!(mode(&pair.places.requests), 0o700);
    assert_eq!(mode(&pair.places.responses), 0o700);
    crate::testing::set_mode(pair.places.requests.parent().unwrap(), 0o777);
    fs::remove_dir(&pair.places.requests).unwrap();
    assert!(ClientSpool::create(&pair.places).is_err(), "not where others can write");
    assert!(!pair.places.requests.exists());
}

#[test]
fn answers_are_found_in_a_directory_that_was_made_again() {
    let pair = Pair::new();
    let set_aside = pair.places.responses.with_file_name("old");
    fs::rename(&pair.places.responses, &set_aside).unwrap();
    assert_eq!(pair.client.look(&name("n")), Look::Absent);
    fs::create_dir(&pair.places.responses).unwrap();
    crate::testing::set_mode(&pair.places.responses, 0o700);
    assert_eq!(pair.client.look(&name("n")), Look::Absent);
    write(&pair.response("n.json"), b"answer");
    assert_eq!(pair.client.look(&name("n")), Look::Found(b"answer".to_vec()));
    crate::testing::set_mode(&pair.places.responses, 0o777);
    assert!(matches!(pair.client.look(&name("n")), Look::Failed(_)), "others can write there");
}

#[test]
fn a_request_that_cannot_be_submitted_leaves_nothing_behind() {
    let pair = Pair::new();
    write(&pair.request("n.json"), b"another one");

    let error = pair.client.submit(&name("n"), b"{}").unwrap_err().to_string();

    assert!(error.contains(pair.request("n.json").to_str().unwrap()), "{error}");
    assert_eq!(fs::read(pair.request("n.json")).unwrap(), b"another one");
    assert_eq!(names(&pair.places.requests), [".claimed", ".rejected", ".returning", "n.json"]);
}

#[test]
fn an_unfinished_file_of_another_client_is_not_touched() {
    let pair = Pair::new();
    write(&pair.request(".n.json.tmp"), b"half");

    assert!(pair.client.submit(&name("n"), b"{}").is_err());

    assert_eq!(fs::read(pair.request(".n.json.tmp")).unwrap(), b"half");
    assert!(!pair.request("n.json").exists());
}

#[test]
fn a_claim_and_a_removal_wake_the_client() {
    let pair = Pair::new();
    let submitted = pair.client.submit(&name("n"), b"{}").unwrap();
    assert!(!is_ready(submitted.wait_fd().unwrap(), 0), "submitting itself is no news");

    assert!(matches!(pair.watcher.claim(&name("n"), false), ClaimOutcome::Claimed { .. }));
    assert!(is_ready(submitted.wait_fd().unwrap(), 10_000));
    submitted.drain();
    assert!(!is_ready(submitted.wait_fd().unwrap(), 0));

    pair.watcher.answer(&name("n"), b"{}").unwrap();
    pair.watcher.remove_claimed(&name("n")).unwrap();
    assert!(is_ready(submitted.wait_fd().unwrap(), 10_000));
}

#[test]
fn a_watcher_that_removes_the_request_without_a_claim_wakes_the_client_too() {
    let pair = Pair::new();
    let submitted = pair.client.submit(&name("n"), b"{}").unwrap();

    fs::remove_file(pair.request("n.json")).unwrap();

    assert!(is_ready(submitted.wait_fd().unwrap(), 10_000));
}

#[test]
fn without_a_watch_to_be_had_a_request_is_submitted_all_the_same() {
    let pair = Pair::new();
    for errno in [Errno::EMFILE, Errno::ENOSPC, Errno::ENOSYS] {
        let start: fn(&File) -> nix::Result<Watch> = match errno {
            Errno::EMFILE => |_| Err(Errno::EMFILE),
            Errno::ENOSPC => |_| Err(Errno::ENOSPC),
            _ => |_| Err(Errno::ENOSYS),
        };
        let submitted =
            pair.client.submit_watched(&name("n"), b"{}", Showing::Rename, start).unwrap();

        assert!(submitted.wait_fd().is_none(), "{errno}");
        submitted.drain();
        assert!(pair.request("n.json").exists());
        assert_eq!(pair.client.withdraw(&submitted).unwrap(), WithdrawOutcome::Withdrawn);
    }
}

#[test]
fn a_request_is_pending_until_it_is_withdrawn_or_taken() {
    let pair = Pair::new();
    let one = pair.client.submit(&name("one"), b"{}").unwrap();
    let other = pair.client.submit(&name("other"), b"{}").unwrap();
    assert!(pair.request("one.json").exists());

    assert_eq!(pair.client.withdraw(&one).unwrap(), WithdrawOutcome::Withdrawn);
    assert!(!pair.request("one.json").exists());
    assert_eq!(pair.client.withdraw(&one).unwrap(), WithdrawOutcome::Taken);
    assert!(matches!(pair.watcher.claim(&name("one"), false), ClaimOutcome::Gone));

    assert!(matches!(pair.watcher.claim(&name("other"), false), ClaimOutcome::Claimed { .. }));
    assert!(!pair.request("other.json").exists());
    assert_eq!(pair.client.withdraw(&other).unwrap(), WithdrawOutcome::Taken);
}

#[test]
fn of_a_withdrawal_and_a_claim_exactly_one_wins() {
    let pair = Pair::new();
    let barrier = Barrier::new(2);
    let (mut withdrawn, mut claimed) = (0, 0);
    for round in 0..1000 {
        let name = name(&format!("n{round}"));
        let submitted = pair.client.submit(&name, b"{}").unwrap();
        let (withdrawal, claim) = std::thread::scope(|scope| {
            let claim = scope.spawn(|| {
                barrier.wait();
                pair.watcher.claim(&name, false)
            });
            barrier.wait();
            (pair.client.withdraw(&submitted).unwrap(), claim.join().unwrap())
        });
        match (withdrawal, claim) {
            (WithdrawOutcome::Withdrawn, ClaimOutcome::Gone) => withdrawn += 1,
            (
                WithdrawOutcome::Taken,
                ClaimOutcome::Claimed { sight: Sight::Content { .. }, .. },
            ) => {
                claimed += 1;
            }
            both => panic!("round {round}: {both:?}"),
        }
    }
    assert_eq!(withdrawn + claimed, 1000);
    assert_eq!(pair.watcher.claimed().unwrap().len(), claimed);
}

#[test]
fn an_answer_is_found_by_its_name_and_believed_only_from_root_or_us() {
    let pair = Pair::new();
    assert_eq!(pair.client.look(&name("n")), Look::Absent);
    pair.watcher.answer(&name("n"), b"{\"success\":true}").unwrap();
    assert_eq!(pair.client.look(&name("n")), Look::Found(b"{\"success\":true}".to_vec()));

    each_untrusted(&pair.response("m.json"), |word| {
        let Look::Refused(reason) = pair.client.look(&name("m")) else { panic!("{word}") };
        assert!(reason.contains(word), "{reason}");
    });

    write(&pair.response("m.json"), b"");
    let file = File::options().write(true).open(pair.response("m.json")).unwrap();
    file.set_len(RECORD_BYTES_MAX + 1).unwrap();
    let Look::Refused(reason) = pair.client.look(&name("m")) else { panic!() };
    assert!(reason.contains("too large (1048577 bytes)"), "{reason}");
}

#[test]
fn a_spool_that_is_not_there_is_named() {
    let pair = Pair::new();
    let places = Places::new(pair.request("none"), &pair.places.responses);

    let error = ClientSpool::open(&places).unwrap_err();

    assert!(matches!(error, SpoolError::Place(PlaceError::Missing { .. })), "{error}");
    assert!(error.to_string().contains(pair.request("none").to_str().unwrap()), "{error}");
}

#[test]
fn a_client_with_another_directory_of_answers_is_told_while_the_watcher_lives() {
    let pair = Pair::new();
    let elsewhere = pair.places.responses.with_file_name("elsewhere");
    let places = Places::new(&pair.places.requests, &elsewhere);
    let other = ClientSpool::create(&places).unwrap();
    assert!(other.check_served().is_ok(), "nobody serves it");

    let mut lock = pair.watcher.lock().unwrap();

    pair.client.check_served().unwrap();
    let error = other.check_served().unwrap_err().to_string();
    for part in [&elsewhere, &pair.places.responses] {
        assert!(error.contains(part.to_str().unwrap()), "{error}");
    }
    fs::remove_file(pair.request(".watcher.lock")).unwrap();
    assert!(pair.watcher.restore_lock(&mut lock).unwrap());
    assert!(other.check_served().is_err(), "the restored file says the same");
    drop(lock);
    assert!(other.check_served().is_ok());
}

fn query() -> Query {
    Query {
        query_id: RequestId::random().as_str().to_owned(),
        query: QueryKind::State,
        device: None,
        target: None,
        deadline_boottime_ms: 1,
        boot_id: None,
        asked_boottime_ms: None,
    }
}

#[test]
fn a_query_is_answered_and_leaves_nothing_behind() {
    let pair = Pair::new();
    let query = query();
    let asked = pair.client.ask(&query).unwrap();
    assert!(!is_ready(asked.wait_fd().unwrap(), 0));
    assert_eq!(pair.client.answer_of(&asked), None);

    let [file_name] = &pair.watcher.queries().unwrap()[..] else { panic!() };
    let Some(QueryText::Whole { bytes, .. }) = pair.watcher.read_query(file_name).unwrap() else {
        panic!("it cannot be read")
    };
    assert_eq!(Query::parse(&bytes), Ok(query.clone()));
    pair.watcher.answer_query(&query.query_id, b"answer").unwrap();
    pair.watcher.remove_query(file_name).unwrap();

    assert!(is_ready(asked.wait_fd().unwrap(), 10_000));
    asked.drain();
    assert_eq!(pair.client.answer_of(&asked), Some(b"answer".to_vec()));
    drop(asked);
    assert_eq!(names(&pair.places.queries), [""; 0]);
}

#[test]
fn a_query_that_nobody_answers_is_taken_back() {
    let pair = Pair::new();
    let query = query();
    drop(pair.client.ask(&query).unwrap());
    assert_eq!(names(&pair.places.queries), [""; 0]);

    pair.watcher.answer_query(&query.query_id, b"too late").unwrap();

    assert_eq!(names(&pair.places.queries), [""; 0], "nobody is there to remove the answer");
}

#[test]
fn a_query_id_that_is_a_path_is_refused() {
    let pair = Pair::new();
    let query = Query { query_id: "../requests/x".into(), ..query() };

    assert!(pair.client.ask(&query).is_err());

    assert_eq!(names(&pair.places.queries), [""; 0]);
    assert_eq!(names(&pair.places.requests), [".claimed", ".rejected", ".returning"]);
}
