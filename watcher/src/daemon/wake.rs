//! Turns inotify and signals into events of the daemon's loop. Nothing is decided here. A lost
//! event loses no request: the loop looks at the directories periodically.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use fence_spool::Places;
use log::warn;
use nix::sys::signal::{SigSet, Signal};
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::Wake;

/// Blocks the signals of the service, for this thread and all that it starts.
pub(super) fn block_signals() -> nix::Result<SigSet> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block()?;
    Ok(signals)
}

/// Waits for signals in a separate thread.
pub(super) fn watch_signals(signals: SigSet, wake: Sender<Wake>) -> std::io::Result<()> {
    thread::Builder::new().name("signals".into()).spawn(move || {
        loop {
            let event = match signals.wait() {
                Ok(Signal::SIGTERM) => Wake::Stop("SIGTERM"),
                Ok(Signal::SIGINT) => Wake::Stop("SIGINT"),
                Ok(_) => Wake::Reload,
                Err(_) => continue,
            };
            if wake.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Watches the directories of requests and queries while the returned value lives. Without inotify
/// (each user has a bounded number of instances), the periodic look remains.
///
/// The directories above are watched as well: only they show the removal of an open directory.
pub(super) fn watch_spool(places: &Places, wake: Sender<Wake>) -> Option<RecommendedWatcher> {
    let watched = places.clone();
    let wake = Arc::new(wake);
    let handlers_own = Arc::downgrade(&wake);
    let handler = move |event: notify::Result<notify::Event>| {
        for wake_up in translate(event, &watched) {
            // The receiver is gone only when the daemon is.
            let _ = wake.send(wake_up);
        }
    };
    let above = [places.requests.parent(), places.responses.parent()];
    let directories = [places.requests.as_path(), &places.queries];
    let started = notify::recommended_watcher(handler).and_then(|mut watcher| {
        if handlers_own.strong_count() == 0 {
            // The library does not report that its thread could not be started, but the handler is
            // gone. To use or drop the watcher would panic.
            std::mem::forget(watcher);
            return Err(notify::Error::generic("no thread can be started for it"));
        }
        for directory in directories.into_iter().chain(above.into_iter().flatten()) {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    started
        .inspect_err(|problem| {
            warn!("inotify is not available, requests are found by looking only: {problem}");
        })
        .ok()
}

fn translate(event: notify::Result<notify::Event>, places: &Places) -> Vec<Wake> {
    let Ok(event) = event else { return vec![Wake::Rescan] };
    if event.need_rescan() {
        return vec![Wake::Rescan];
    }
    let concerns_locks =
        !matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)));
    let concerns_ours =
        matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
    let beside_requests = event.paths.iter().filter(|path| path.parent() == Some(&places.requests));
    let mut names = beside_requests.filter_map(|path| path.file_name()?.to_str());
    if names.any(|name| {
        concerns_locks && fence_spool::is_lock(name) || concerns_ours && OURS.contains(&name)
    }) {
        // Not at once: a process that removes the whole directory would find it not empty.
        return vec![Wake::LookAgain];
    }
    let is_news = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Create(_) => true,
        // A file that is gone is noticed when its turn comes.
        EventKind::Modify(ModifyKind::Name(mode)) => mode != RenameMode::From,
        EventKind::Remove(_) => event.paths.iter().any(|path| is_directory(path, places)),
        _ => false,
    };
    if !is_news {
        return Vec::new();
    }
    event.paths.iter().filter_map(|path| wake_for(path, places)).collect()
}

fn wake_for(path: &Path, places: &Places) -> Option<Wake> {
    if is_directory(path, places) {
        return Some(Wake::Rescan);
    }
    let file_name = path.file_name()?.to_str()?;
    if file_name.starts_with('.') || path.extension()? != "json" {
        return None;
    }
    match path.parent()? {
        parent if parent == places.requests => Some(Wake::Request(file_name.to_owned())),
        parent if parent == places.queries => Some(Wake::Query(file_name.to_owned())),
        _ => None,
    }
}

fn is_directory(path: &Path, places: &Places) -> bool {
    [&places.requests, &places.responses, &places.queries].iter().any(|known| *known == path)
}

/// The watcher's own directories beside the requests.
const OURS: [&str; 3] = [".claimed", ".rejected", ".returning"];

#[cfg(test)]
mod tests {
    use super::*;
    use notify::Event;
    use notify::event::{CreateKind, DataChange, Flag, RemoveKind};

    fn places() -> Places {
        Places::new("/s/requests", "/s/responses")
    }

    fn woken_by(kind: EventKind, path: &str) -> String {
        let event = Event::new(kind).add_path(path.into());
        format!("{:?}", translate(Ok(event), &places()))
    }

    #[test]
    fn only_whole_visible_records_wake_the_loop() {
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        assert_eq!(woken_by(renamed, "/s/requests/a.json"), r#"[Request("a.json")]"#);
        assert_eq!(woken_by(renamed, "/s/queries/a.json"), r#"[Query("a.json")]"#);
        assert_eq!(woken_by(renamed, "/s/requests/.a.json.tmp"), "[]");
        assert_eq!(woken_by(renamed, "/s/queries/a.answer"), "[]");
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        assert_eq!(woken_by(data, "/s/requests/a.json"), "[]");
        let created = EventKind::Create(CreateKind::File);
        assert_eq!(woken_by(created, "/s/requests/a.json"), r#"[Request("a.json")]"#);
    }

    #[test]
    fn a_lock_that_changes_its_name_is_noticed() {
        let [from, to] = [RenameMode::From, RenameMode::To]
            .map(|mode| EventKind::Modify(ModifyKind::Name(mode)));
        for kind in [EventKind::Remove(RemoveKind::File), from, to] {
            for lock in ["/s/requests/.watcher.lock", "/s/requests/.running.lock"] {
                assert_eq!(woken_by(kind, lock), "[LookAgain]");
            }
        }
        let created = EventKind::Create(CreateKind::File);
        assert_eq!(woken_by(created, "/s/requests/.watcher.lock"), "[LookAgain]");
        let read = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert_eq!(woken_by(read, "/s/requests/.watcher.lock"), "[]");
        let elsewhere = EventKind::Remove(RemoveKind::File);
        assert_eq!(woken_by(elsewhere, "/s/queries/.watcher.lock"), "[]");
    }

    #[test]
    fn a_directory_of_the_watchers_own_that_is_removed_is_noticed() {
        let moved = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        for kind in [EventKind::Remove(RemoveKind::Folder), moved] {
            for directory in
                ["/s/requests/.claimed", "/s/requests/.rejected", "/s/requests/.returning"]
            {
                assert_eq!(woken_by(kind, directory), "[LookAgain]");
            }
        }
        let created = EventKind::Create(CreateKind::Folder);
        assert_eq!(woken_by(created, "/s/requests/.claimed"), "[]");
    }

    #[test]
    fn lost_events_and_removed_directories_make_the_loop_look_at_everything() {
        let removed = EventKind::Remove(RemoveKind::Folder);
        for directory in ["/s/requests", "/s/responses", "/s/queries"] {
            assert_eq!(woken_by(removed, directory), "[Rescan]");
        }
        let removed = EventKind::Remove(RemoveKind::File);
        assert_eq!(woken_by(removed, "/s/requests/a.json"), "[]");
        let created = EventKind::Create(CreateKind::File);
        assert_eq!(woken_by(created, "/s/other.json"), "[]");
        let lost = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        let wake = translate(Ok(lost), &places());
        assert!(matches!(wake[..], [Wake::Rescan]));
    }
}
