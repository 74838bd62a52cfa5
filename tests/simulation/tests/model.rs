//! Small worlds, exhaustively: every order in which the steps of agents, watchers and devices can
//! happen, with every crash at every place that the budget allows.
#![expect(clippy::print_stdout, reason = "the figures are what the run is read for")]

use fence_simulation::{Action, Budget, Config, Mutation, Setup, World};
use stateright::{Checker, Model, Property};

struct Small(Config);

impl Model for Small {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.0)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend(world.actions(false));
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        world.apply(&action);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("S1 to S6", |_, world: &World| world.violation().is_none()),
            Property::always("S5 at rest", |_, world: &World| {
                let mut world = world.clone();
                if !world.is_at_rest() {
                    return true;
                }
                world.check_end();
                world.violation().is_none()
            }),
            Property::sometimes("something is fenced", |_, world: &World| world.executions() > 0),
        ]
    }
}

const WORLD: Config = Config {
    targets: 1,
    setup: Setup::Shared,
    max_concurrent: 1,
    is_named: false,
    in_memory: false,
    watchers: 1,
    lock: true,
    is_small: true,
    patience_ms: 20_000,
    budget: Budget {
        agents: 0,
        agent_kills: 0,
        signals: 0,
        watcher_kills: 0,
        watcher_stops: 0,
        host_crashes: 0,
        full_disks: 0,
        clock_steps: 0,
        foreign_requests: 0,
        foreign_answers: 0,
        device_faults: 0,
        reloads: 0,
        idle_spans: 0,
    },
    mutation: None,
};

fn check(what: &str, config: Config) {
    let start = std::time::Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = Small(config).checker().threads(cores).spawn_bfs().join();
    println!(
        "{what}: {} states, {} distinct, depth {}, {} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed().as_secs()
    );
    checker.assert_properties();
}

#[test]
fn one_agent_and_every_crash() {
    let budget = Budget {
        agents: 1,
        agent_kills: 1,
        signals: 1,
        watcher_kills: 1,
        host_crashes: 1,
        device_faults: 1,
        ..WORLD.budget
    };
    check("one agent, each crash once", Config { budget, ..WORLD });
}

#[test]
fn two_agents_for_one_target_and_a_crash_of_the_watcher() {
    let budget = Budget { agents: 2, watcher_kills: 1, ..WORLD.budget };
    check("two agents, one target", Config { budget, ..WORLD });
}

#[test]
fn two_agents_for_two_targets_and_a_withdrawal() {
    let budget = Budget { agents: 2, signals: 1, ..WORLD.budget };
    check("two agents, two targets", Config { targets: 2, budget, ..WORLD });
}

#[test]
fn two_agents_for_two_targets_at_two_addresses() {
    let budget = Budget { agents: 2, ..WORLD.budget };
    let setup = Setup::Addresses;
    check("two agents, two addresses", Config { targets: 2, setup, budget, ..WORLD });
}

#[test]
fn two_agents_and_a_new_configuration() {
    let budget = Budget { agents: 2, reloads: 1, ..WORLD.budget };
    check("two agents, a reload", Config { targets: 2, budget, ..WORLD });
}

/// Takes many minutes: only where `LARGE_WORLDS` is set.
#[test]
fn two_agents_two_targets_and_every_crash() {
    if std::env::var_os("LARGE_WORLDS").is_none() {
        println!("two agents, two targets, every crash: not without LARGE_WORLDS=1");
        return;
    }
    let budget = Budget { agents: 2, signals: 1, agent_kills: 1, watcher_kills: 1, ..WORLD.budget };
    check("two agents, one target, every crash", Config { budget, ..WORLD });
    check("two agents, two targets, every crash", Config { targets: 2, budget, ..WORLD });
}

#[test]
fn two_watchers_without_their_lock() {
    let budget = Budget { agents: 1, watcher_kills: 1, agent_kills: 1, ..WORLD.budget };
    check("two watchers", Config { watchers: 2, lock: false, budget, ..WORLD });
}

#[test]
fn a_full_disk_and_a_crash() {
    let budget = Budget { agents: 1, full_disks: 1, watcher_kills: 1, ..WORLD.budget };
    check("a full disk", Config { budget, ..WORLD });
}

#[test]
fn an_older_client_with_one_identity_in_two_files() {
    let budget = Budget { foreign_requests: 2, watcher_kills: 1, host_crashes: 1, ..WORLD.budget };
    check("an older client", Config { budget, ..WORLD });
}

#[test]
fn an_older_client_and_a_crash_of_the_host() {
    let budget = Budget { foreign_requests: 1, host_crashes: 1, clock_steps: 1, ..WORLD.budget };
    check("an older client, a crash of the host", Config { budget, ..WORLD });
}

#[test]
fn the_checker_finds_each_bug_that_is_put_in() {
    for (mutation, budget) in [
        (Mutation::ClaimAfterStart, Budget { agents: 1, ..WORLD.budget }),
        (Mutation::NoDeadlineCheck, Budget { agents: 1, ..WORLD.budget }),
        (Mutation::AnswerBeforeConfirmation, Budget { agents: 1, ..WORLD.budget }),
        (Mutation::DeleteBeforeAnswer, Budget { agents: 1, watcher_kills: 1, ..WORLD.budget }),
        (Mutation::RetryAfterCrash, Budget { agents: 1, watcher_kills: 1, ..WORLD.budget }),
        (Mutation::ClientNotChecked, Budget { agents: 1, agent_kills: 1, ..WORLD.budget }),
        (Mutation::ReloadForgotten, Budget { agents: 2, reloads: 1, ..WORLD.budget }),
        (
            Mutation::RetryForNobody,
            Budget { agents: 1, agent_kills: 1, device_faults: 1, ..WORLD.budget },
        ),
        (
            Mutation::IdentityForgotten,
            Budget { foreign_requests: 2, watcher_kills: 1, ..WORLD.budget },
        ),
    ] {
        let targets = if mutation == Mutation::ReloadForgotten { 2 } else { 1 };
        let config = Config { mutation: Some(mutation), targets, budget, ..WORLD };
        let checker = Small(config).checker().spawn_bfs().join();
        let found = checker.discovery("S1 to S6").or(checker.discovery("S5 at rest"));
        let path = found.unwrap_or_else(|| panic!("{mutation:?} is not found"));
        println!("{mutation:?}: found after {} steps", path.into_actions().len());
    }
}
