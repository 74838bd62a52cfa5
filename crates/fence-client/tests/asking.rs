//! Queries to a watcher that answers, that does not answer, and that ends while the client waits.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs::{self, DirBuilder};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use fence_client::{AskError, NewQuery, ask, check_alive, wait};
use fence_clock::boot_ms;
use fence_protocol::{Query, QueryAnswer, QueryCode, QueryKind};
use fence_spool::{ClientSpool, Liveness, Places, QueryText, WatcherLock, WatcherSpool};

/// The place of a spool; it is removed with the value.
struct Site(PathBuf);

impl Site {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fence-client-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Site(path)
    }

    fn places(&self) -> Places {
        Places::new(self.0.join("requests"), self.0.join("responses"))
    }

    /// A running watcher, and the client's view of the spool.
    fn served(&self) -> (WatcherSpool, WatcherLock, ClientSpool) {
        let watcher = WatcherSpool::open(&self.places(), true).unwrap();
        let lock = watcher.lock().unwrap();
        (watcher, lock, ClientSpool::open(&self.places()).unwrap())
    }

    fn is_tidy(&self) -> bool {
        fs::read_dir(self.0.join("queries")).unwrap().count() == 0
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn until(deadline_boot_ms: u64) -> NewQuery<'static> {
    NewQuery { kind: QueryKind::Reachable, device: Some("pdu"), target: None, deadline_boot_ms }
}

/// Later than any test lasts.
fn patient() -> NewQuery<'static> {
    until(boot_ms() + 600_000)
}

/// The client's query, once it exists, with its file's name.
fn asked(watcher: &WatcherSpool) -> (String, Query) {
    loop {
        let name = watcher.queries().unwrap().into_iter().next();
        if let Some(name) = name
            && let Some(QueryText::Whole { bytes, .. }) = watcher.read_query(&name).unwrap()
        {
            return (name, Query::parse(&bytes).unwrap());
        }
        // Until the client has sent its query.
        thread::sleep(Duration::from_millis(3));
    }
}

/// Sends a query while `watcher` does its part; returns the client's result.
fn asking(
    site: &Site,
    question: NewQuery<'_>,
    watcher: impl FnOnce(),
) -> Result<QueryAnswer, AskError> {
    let spool = ClientSpool::open(&site.places()).unwrap();
    thread::scope(|scope| {
        let client = scope.spawn(|| ask(&spool, &question));
        watcher();
        client.join().unwrap()
    })
}

#[test]
fn the_answer_is_given_and_nothing_is_left() {
    let site = Site::new();
    let (watcher, _lock, _) = site.served();

    let answer = asking(&site, patient(), || {
        let (name, query) = asked(&watcher);
        assert_eq!((query.query, query.device.as_deref()), (QueryKind::Reachable, Some("pdu")));
        assert_eq!(query.boot_id, fence_clock::boot_id().ok());
        assert!(query.asked_boottime_ms.unwrap() < query.deadline_boottime_ms);
        let answer = QueryAnswer::new(&query.query_id, QueryCode::Yes, "asked");
        watcher.answer_query(&query.query_id, &answer.to_json()).unwrap();
        watcher.remove_query(&name).unwrap();
    });

    assert_eq!(answer.unwrap().message, "asked");
    assert!(site.is_tidy());
}

#[test]
fn a_watcher_that_ends_while_it_is_waited_for_is_not_running() {
    let site = Site::new();
    let (watcher, lock, spool) = site.served();
    let pid = std::process::id();
    assert_eq!(check_alive(&spool).unwrap(), Some(pid));

    let answer = asking(&site, patient(), || {
        asked(&watcher);
        drop(lock);
    });

    let error = answer.unwrap_err();
    assert!(matches!(error, AskError::NotRunning(Liveness::Dead { pid: Some(p) }) if p == pid));
    let words = format!("no fence-watcher is running on this node (process {pid} has");
    assert!(error.to_string().starts_with(&words), "{error}");
    assert!(site.is_tidy());
}

#[test]
fn an_answer_that_is_the_last_action_of_a_watcher_counts() {
    let site = Site::new();
    let (watcher, lock, _) = site.served();

    let answer = asking(&site, patient(), || {
        let (_, query) = asked(&watcher);
        let answer = QueryAnswer::new(&query.query_id, QueryCode::Yes, "the last");
        watcher.answer_query(&query.query_id, &answer.to_json()).unwrap();
        // The query stays, so no event announces the answer.
        drop(lock);
    });

    assert_eq!(answer.unwrap().message, "the last");
}

#[test]
fn a_watcher_that_lives_and_does_not_answer_in_time_is_running() {
    let site = Site::new();
    let (_watcher, _lock, spool) = site.served();

    let error = ask(&spool, &until(boot_ms() + 50)).unwrap_err();

    let pid = std::process::id();
    let words = format!("fence-watcher (process {pid}) is running but gave no answer");
    assert_eq!(error.to_string(), words);
    assert!(site.is_tidy());
}

#[test]
fn no_watcher_is_asked_where_none_ever_ran() {
    let site = Site::new();
    let spool = ClientSpool::create(&site.places()).unwrap();

    let error = ask(&spool, &patient()).unwrap_err();

    assert!(matches!(error, AskError::NotRunning(Liveness::Never)), "{error}");
    assert!(error.to_string().contains("(it was never started on this spool); start it"));
}

#[test]
fn a_foreign_answer_and_an_invalid_answer_are_errors() {
    for (text, words) in [
        (r#"{"query_id":"x","code":0,"message":""}"#, "fence-watcher answered another question"),
        ("hello", "fence-watcher's answer is malformed: it is not an object"),
    ] {
        let site = Site::new();
        let (watcher, _lock, _) = site.served();

        let answer = asking(&site, patient(), || {
            let (_, query) = asked(&watcher);
            watcher.answer_query(&query.query_id, text.as_bytes()).unwrap();
        });

        assert_eq!(answer.unwrap_err().to_string(), words);
    }
}

#[test]
fn an_event_ends_the_wait() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, b"x").unwrap();

    wait([reader.as_fd()], u64::MAX);
}
