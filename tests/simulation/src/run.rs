//! Seeded histories: the same seed gives the same history.

use crate::action::{Action, Budget, Config};
use crate::setup::Setup;
use crate::world::World;

/// The result of a history.
#[derive(Debug)]
pub struct History {
    /// What happened, in order.
    pub actions: Vec<Action>,
    /// The invariant that was broken, and how.
    pub violation: Option<String>,
    /// How many executions were started.
    pub executions: u32,
    /// How many agents succeeded.
    pub successes: usize,
}

/// The maximum number of events while faults are allowed.
const STORM_STEPS: u32 = 250;

/// The maximum number of steps until everything must be at rest.
const CALM_STEPS: u32 = 5_000;

/// Runs the history of `seed`; `adjust` may change the world that the seed chooses.
pub fn run_seed(seed: u64, adjust: impl Fn(&mut Config)) -> History {
    let mut random = Random(seed);
    let mut config = config(&mut random);
    adjust(&mut config);
    let mut world = World::new(config);
    let mut actions = Vec::new();
    for _ in 0..STORM_STEPS {
        let possible = world.actions(false);
        let Some(action) = pick(&mut random, possible) else { break };
        world.apply(&action);
        actions.push(action);
    }
    let mut rests = true;
    if world.violation().is_none() {
        world.apply(&Action::FillDisk(false));
        rests = settle(&mut random, &mut world, &mut actions);
    }
    let restless = (!rests).then_some("the world does not come to rest");
    History {
        violation: world.violation().or(restless).map(str::to_owned),
        executions: world.executions(),
        successes: world.successes(),
        actions,
    }
}

/// Lets everything that is under way end, without further faults; returns false if it does not.
fn settle(random: &mut Random, world: &mut World, actions: &mut Vec<Action>) -> bool {
    for _ in 0..CALM_STEPS {
        let mut possible = world.actions(true);
        // Time passes only when nothing else can happen: otherwise only time could pass.
        if possible.iter().any(|action| !matches!(action, Action::Advance(_))) {
            possible.retain(|action| !matches!(action, Action::Advance(_)));
        }
        let Some(action) = pick(random, possible) else {
            world.check_end();
            return true;
        };
        world.apply(&action);
        actions.push(action);
    }
    false
}

fn config(random: &mut Random) -> Config {
    let mut some = |most: u64| u8::try_from(random.below(most + 1)).unwrap_or(0);
    let budget = Budget {
        agents: 1 + some(4),
        agent_kills: some(2),
        signals: some(2),
        watcher_kills: some(3),
        watcher_stops: some(1),
        host_crashes: some(1) * some(1),
        full_disks: some(1),
        clock_steps: some(1) * some(1),
        foreign_requests: some(3),
        foreign_answers: some(1),
        device_faults: some(4),
        reloads: some(2),
        idle_spans: some(6),
    };
    Config {
        targets: 1 + some(2),
        setup: Setup::ALL[usize::from(some(6))],
        max_concurrent: usize::from(1 + some(1)),
        is_named: some(1) == 0,
        in_memory: some(1) == 0,
        watchers: 1 + usize::from(some(1)),
        lock: some(3) != 0,
        is_small: false,
        has_reboots: true,
        patience_ms: 20_000,
        budget,
        mutation: None,
    }
}

/// Picks an action, and prefers progress to disturbance.
fn pick(random: &mut Random, possible: Vec<Action>) -> Option<Action> {
    if possible.is_empty() {
        return None;
    }
    let (progress, disturbance): (Vec<_>, Vec<_>) = possible.into_iter().partition(is_progress);
    let choose_progress = disturbance.is_empty() || random.below(100) < 80;
    let mut from = if choose_progress && !progress.is_empty() { progress } else { disturbance };
    if from.is_empty() {
        return None;
    }
    let index = usize::try_from(random.below(from.len() as u64)).unwrap_or(0);
    Some(from.swap_remove(index))
}

fn is_progress(action: &Action) -> bool {
    matches!(
        action,
        Action::AgentStep(_)
            | Action::StartWatcher(_)
            | Action::WatcherStep(_)
            | Action::Hear(..)
            | Action::Tick(_)
            | Action::Device(..)
            | Action::List(..)
            | Action::Told(_)
    )
}

/// `SplitMix64`: eight lines that always give the same numbers, so that each seed keeps its
/// history.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
