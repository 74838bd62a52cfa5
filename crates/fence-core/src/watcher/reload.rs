//! A new configuration: running executions continue where they started, waiting requests get a new
//! route.

use fence_protocol::{FenceResult, RecordName};

use super::{
    Device, Effect, Job, Settings, State, Then, Watcher, lane_max, refusal_of, route, unlisted,
};

impl Watcher {
    pub(super) fn reconfigured(
        &mut self,
        settings: Settings,
        devices: Vec<Device>,
        effects: &mut Vec<Effect>,
    ) {
        let waiting = self.take_queued();
        self.queue.set_bounds(settings.max_running, lane_max(&devices));
        (self.settings, self.devices) = (settings, devices);
        self.asked.clear();
        self.look_at_unlisted(effects);
        for (name, job) in waiting {
            let named = job.request.device.as_deref();
            if !unlisted(&self.devices, named, &job.target).is_empty() {
                // Treated as a new request: it waits for the lists.
                self.ids.remove(&job.request.request_id);
                effects.push(Effect::Look(name));
                continue;
            }
            match route(&self.devices, named, &job.target, job.action) {
                Ok(device) => {
                    let (lane, machines) = (device.lane(&job.target), device.machines(&job.target));
                    self.settle_or_enqueue(name, Job { lane, machines, ..job }, effects);
                }
                Err(why) => {
                    let why = format!("the configuration changed while it waited: {why}");
                    let answer = refusal_of(&job.request, FenceResult::Rejected, why);
                    self.answer(name, answer, Some(job.request), Then::RemovePending, effects);
                }
            }
        }
    }

    /// Takes all waiting requests out of the queue.
    fn take_queued(&mut self) -> Vec<(RecordName, Job)> {
        let is_queued = |state: &State| matches!(state, State::Queued(_));
        let names = self.records.iter().filter(|(_, (state, _))| is_queued(state));
        let names: Vec<RecordName> = names.map(|(name, _)| name.clone()).collect();
        let mut taken = Vec::new();
        for name in names {
            if let Some(State::Queued(job)) = self.take(&name) {
                self.queue.remove(&job.lane, &job.machines, job.seq);
                taken.push((name, job));
            }
        }
        taken
    }
}
