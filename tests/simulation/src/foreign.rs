//! Other implementations of clients and responders.

use fence_protocol::{FenceAction, Request, Requested};

use crate::disk::Dir;
use crate::world::{Birth, World, instant};

impl World {
    /// 0: whole, under its id. 1: half, to be completed. 2: the identity of an agent, under another
    /// name. 3: the identity of an older client again, under another name. 4: not a request.
    pub(crate) fn foreign_request(&mut self, kind: u8, target: u8) {
        let again = self.ledger.births.iter().find(|(_, b)| match kind {
            2 => b.agent.is_some(),
            _ => b.agent.is_none(),
        });
        let again = again.map(|(id, birth)| (id.clone(), birth.agent.is_some(), birth.boot));
        let id = match (kind, again) {
            (2 | 3, Some((id, was_an_agents, boot))) => {
                if was_an_agents && boot != self.boot || self.ledger.taken.contains(&id) {
                    // The agent's file is protected by its boot identity and leaves no durable
                    // trace before its answer. Another implementation of a watcher may leave no
                    // trace at all. A client that uses the identity again makes a new request.
                    self.ledger.executed.remove(&id);
                }
                id
            }
            _ => self.new_id(),
        };
        let request = Request {
            request_id: id.clone(),
            timestamp: instant(self.now.wall_ms),
            action: Requested::Fence(FenceAction::Off),
            target_node: Some(Self::target(target)),
            gfs2_filesystems: Vec::new(),
            recorder_node: String::new(),
            deadline: None,
            boot_id: None,
            deadline_boottime_ms: None,
            device: None,
            held: false,
        };
        let name = match kind {
            2 | 3 => format!("job-{}.json", self.ids),
            _ => format!("{id}.json"),
        };
        let mut bytes = request.to_json();
        match kind {
            1 => bytes.truncate(bytes.iter().rposition(|b| *b == b'"').map_or(0, |at| at + 1)),
            4 => bytes = b"[]".to_vec(),
            _ => {}
        }
        let is_new = self.disk.create(Dir::Requests, &name, bytes, self.now.wall_ms, None, false);
        if is_new {
            if kind == 1 {
                self.half_written.insert(name);
            }
            let birth = Birth {
                boot: self.boot,
                // A client that asked first in this boot, under this identity, may still be
                // answered.
                at_boot_ms: self
                    .ledger
                    .births
                    .get(&id)
                    .filter(|birth| birth.boot == self.boot)
                    .map_or(self.now.boot_ms, |birth| birth.at_boot_ms),
                deadline_boot_ms: self.now.boot_ms + 60_000,
                agent: None,
                age_is_lost: self.ledger.births.get(&id).is_some_and(|birth| birth.age_is_lost),
            };
            // A client asked again under an existing identity, so the request has a new lifetime;
            // S2 checks that it runs once.
            self.ledger.shared.insert(id.clone());
            self.ledger.births.insert(id, birth);
        }
    }

    pub(crate) fn foreign_completes(&mut self, name: &str) {
        self.half_written.remove(name);
        let Some(file) = self.disk.file(Dir::Requests, name) else { return };
        let mut bytes = file.bytes.clone();
        bytes.extend_from_slice(b"}\n");
        self.disk.write(Dir::Requests, name, bytes, self.now.wall_ms);
    }

    /// The other watcher does not know identities, so it gets no file with an identity that an
    /// older client uses twice.
    pub(crate) fn foreign_takes(&mut self, name: &str) {
        let Some(file) = self.disk.file(Dir::Requests, name) else { return };
        let Ok(request) = Request::parse(&file.bytes) else { return };
        let id = request.request_id;
        if self.ledger.shared.contains(&id) || self.ledger.executed.contains_key(&id) {
            return;
        }
        self.disk.unlink(Dir::Requests, name);
        self.ledger.executed.insert(id.clone(), 1);
        self.ledger.proven.insert(id.clone());
        self.ledger.taken.insert(id.clone());
        let text = format!(r#"{{"request_id":"{id}","success":true}}"#);
        self.disk.create(Dir::Responses, name, text.into_bytes(), self.now.wall_ms, None, false);
    }

    /// No kind proves anything.
    pub(crate) fn foreign_answer(&mut self, index: usize, kind: u8) {
        let agent = &self.agents[index];
        let (id, target) = (&agent.request.request_id, &agent.expected.target);
        let text = match kind {
            0 => format!(r#"{{"request_id":"{id}","success":tr"#),
            1 => format!(
                r#"{{"request_id":"00000000-0000-4000-8000-999999999999","success":true,"target_node":"{target}"}}"#
            ),
            2 => format!(r#"{{"request_id":"{id}","success":true,"target_node":"other"}}"#),
            3 => format!(r#"{{"request_id":"{id}","success":"true","target_node":"{target}"}}"#),
            _ => format!(r#"{{"request_id":"{id}","success":true,"action_performed":"on"}}"#),
        };
        let name = if kind.is_multiple_of(2) { agent.name.file_name() } else { agent.other_name() };
        let bytes = text.into_bytes();
        self.disk.create(Dir::Responses, &name, bytes, self.now.wall_ms, None, false);
    }
}
