//! A simulated spool: five directories of files. After a crash of the host, the synced changes
//! remain, and any part of the others.

use std::collections::{BTreeMap, BTreeSet};

/// The directories of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Dir {
    Requests,
    Claimed,
    Responses,
    Started,
    Returning,
}

/// A file without its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    /// The wall clock at the last write, in milliseconds.
    pub(crate) mtime_ms: i64,
    /// The agent that holds the lock on it.
    pub(crate) held_by: Option<usize>,
    is_synced: bool,
}

/// A change of names that a crash may undo.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Change {
    removed: Option<(Dir, String)>,
    added: Option<(Dir, String, u32)>,
    unsynced: BTreeSet<Dir>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    names: BTreeMap<(Dir, String), u32>,
    files: BTreeMap<u32, File>,
    durable: BTreeMap<(Dir, String), u32>,
    changes: Vec<Change>,
    next: u32,
    /// Nothing can be written: the disk is full or read-only.
    pub(crate) is_full: bool,
}

impl Disk {
    pub(crate) fn file(&self, dir: Dir, name: &str) -> Option<&File> {
        self.files.get(self.names.get(&(dir, name.to_owned()))?)
    }

    pub(crate) fn has(&self, dir: Dir, name: &str) -> bool {
        self.names.contains_key(&(dir, name.to_owned()))
    }

    pub(crate) fn list(&self, dir: Dir) -> Vec<String> {
        self.names.keys().filter(|(d, _)| *d == dir).map(|(_, name)| name.clone()).collect()
    }

    /// Writes a whole file under a new name; returns false if the disk is full or the name exists.
    pub(crate) fn create(
        &mut self,
        dir: Dir,
        name: &str,
        bytes: Vec<u8>,
        mtime_ms: i64,
        held_by: Option<usize>,
        is_synced: bool,
    ) -> bool {
        if self.is_full || self.has(dir, name) {
            return false;
        }
        let id = self.next;
        self.next += 1;
        self.files.insert(id, File { bytes, mtime_ms, held_by, is_synced });
        self.change(None, Some((dir, name.to_owned(), id)));
        true
    }

    /// Overwrites a file in place, as a simple client does.
    pub(crate) fn write(&mut self, dir: Dir, name: &str, bytes: Vec<u8>, mtime_ms: i64) {
        if self.is_full {
            return;
        }
        let id = self.names.get(&(dir, name.to_owned())).copied();
        if let Some(file) = id.and_then(|id| self.files.get_mut(&id)) {
            *file = File { bytes, mtime_ms, held_by: file.held_by, is_synced: false };
        }
    }

    /// Renames without replacing; returns false if the source does not exist or the new name does.
    pub(crate) fn rename(&mut self, from: Dir, name: &str, to: Dir, to_name: &str) -> bool {
        let Some(id) = self.names.get(&(from, name.to_owned())).copied() else { return false };
        if self.has(to, to_name) {
            return false;
        }
        self.change(Some((from, name.to_owned())), Some((to, to_name.to_owned(), id)));
        true
    }

    pub(crate) fn unlink(&mut self, dir: Dir, name: &str) -> bool {
        let was_there = self.has(dir, name);
        if was_there {
            self.change(Some((dir, name.to_owned())), None);
        }
        was_there
    }

    pub(crate) fn sync(&mut self, dir: Dir) {
        for change in &mut self.changes {
            change.unsynced.remove(&dir);
        }
        let mut waiting = Vec::new();
        for change in std::mem::take(&mut self.changes) {
            if change.unsynced.is_empty() {
                apply(&mut self.durable, &change);
            } else {
                waiting.push(change);
            }
        }
        self.changes = waiting;
    }

    /// The host crashes. Bit n of `survives` says whether the n-th unsynced change of names, or an
    /// unsynced content of a file, is on the disk nevertheless.
    pub(crate) fn crash(&mut self, survives: u64) {
        let bit = |n: usize| survives >> (n % 64) & 1 == 1;
        let mut names = self.durable.clone();
        for (n, change) in self.changes.iter().enumerate() {
            if bit(n) {
                apply(&mut names, change);
            }
        }
        self.changes.clear();
        self.durable = names.clone();
        self.names = names;
        self.forget_nameless();
        for (n, file) in self.files.values_mut().enumerate() {
            file.held_by = None;
            if !file.is_synced && !bit(n + 17) {
                file.bytes.clear();
            }
            file.is_synced = true;
        }
    }

    /// A spool in memory: nothing survives.
    pub(crate) fn lose_everything(&mut self) {
        *self = Disk { next: self.next, ..Disk::default() };
    }

    /// The end of a process releases its locks.
    pub(crate) fn release(&mut self, agent: usize) {
        for file in self.files.values_mut().filter(|file| file.held_by == Some(agent)) {
            file.held_by = None;
        }
    }

    fn change(&mut self, removed: Option<(Dir, String)>, added: Option<(Dir, String, u32)>) {
        let dirs = removed.iter().map(|(d, _)| *d).chain(added.iter().map(|(d, _, _)| *d));
        let change = Change { unsynced: dirs.collect(), removed, added };
        apply(&mut self.names, &change);
        self.changes.push(change);
        self.forget_nameless();
    }

    fn forget_nameless(&mut self) {
        let mut named: BTreeSet<u32> = self.names.values().copied().collect();
        named.extend(self.durable.values());
        named.extend(self.changes.iter().filter_map(|c| c.added.as_ref().map(|(_, _, id)| *id)));
        self.files.retain(|id, _| named.contains(id));
    }
}

fn apply(names: &mut BTreeMap<(Dir, String), u32>, change: &Change) {
    if let Some(removed) = &change.removed {
        names.remove(removed);
    }
    if let Some((dir, name, id)) = &change.added {
        names.insert((*dir, name.clone()), *id);
    }
}
