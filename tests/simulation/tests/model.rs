//! Small worlds, exhaustively: every order of the steps of agents, watchers and devices, with every
//! crash at every place that the budget allows.

use fence_simulation::{Action, Budget, Config, Mutation, Setup, World, print_figures};
use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model, Property};

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
    has_reboots: false,
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

/// Explores the world in the order that finds the shortest way to a violation.
fn check(what: &str, config: Config) {
    report(what, builder(config).spawn_bfs());
}

/// Explores it in the order that needs little memory: a seen state is a number, and few states
/// wait.
fn check_large(what: &str, config: Config) {
    report(what, builder(config).spawn_dfs());
}

fn builder(config: Config) -> CheckerBuilder<Small> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Small(config).checker().threads(cores)
}

fn report(what: &str, checker: impl Checker<Small>) {
    let start = std::time::Instant::now();
    let checker = checker.join();
    print_figures(format_args!(
        "model, {what}: {} states, {} distinct, depth {}, {} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed().as_secs()
    ));
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

#[test]
fn a_reboot_whose_target_comes_back_after_the_answer() {
    let budget = Budget { agents: 1, watcher_kills: 1, watcher_stops: 1, ..WORLD.budget };
    check("a reboot, each end of the watcher", Config { has_reboots: true, budget, ..WORLD });
    let faults = Budget { agents: 1, watcher_kills: 1, device_faults: 1, ..WORLD.budget };
    check("a reboot, a fault of the device", Config { has_reboots: true, budget: faults, ..WORLD });
}

#[test]
fn a_fence_that_waits_for_the_power_on_of_a_reboot() {
    let budget = Budget { agents: 2, ..WORLD.budget };
    check("two agents, reboots", Config { has_reboots: true, budget, ..WORLD });
}

/// Takes half an hour, so it runs only on request. Each world has up to ten million distinct
/// states; a second watcher would make too many of them.
#[test]
#[ignore = "takes half an hour"]
fn two_agents_two_targets_and_every_crash() {
    let budget = Budget { agents: 2, signals: 1, agent_kills: 1, watcher_kills: 1, ..WORLD.budget };
    check_large("two agents, one target, every crash", Config { budget, ..WORLD });
    check_large("two agents, two targets, every crash", Config { targets: 2, budget, ..WORLD });
    let with_host = Budget { host_crashes: 1, ..budget };
    check_large("the same, one target, and the host's", Config { budget: with_host, ..WORLD });
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
fn the_checker_finds_each_injected_bug() {
    let none = WORLD.budget;
    let agent = Budget { agents: 1, ..none };
    let agents = Budget { agents: 2, ..none };
    let killed = Budget { watcher_kills: 1, ..agent };
    let one = |budget| Config { budget, ..WORLD };
    let one_plug = Config { targets: 2, setup: Setup::OnePlug, max_concurrent: 2, ..one(agents) };
    let moved_plug =
        Config { setup: Setup::OnePlug, max_concurrent: 2, ..one(Budget { reloads: 1, ..agents }) };
    for (mutation, config) in [
        (Mutation::ClaimAfterStart, one(agent)),
        (Mutation::NoDeadlineCheck, one(agent)),
        (Mutation::AnswerBeforeConfirmation, one(agent)),
        (Mutation::DeleteBeforeAnswer, one(killed)),
        (Mutation::RetryAfterCrash, one(killed)),
        (Mutation::ClientNotChecked, one(Budget { agent_kills: 1, ..agent })),
        (Mutation::ReloadForgotten, Config { targets: 2, ..one(Budget { reloads: 1, ..agents }) }),
        (Mutation::MovedPlugForgotten, moved_plug),
        (Mutation::OrderForNobody, one(Budget { agent_kills: 1, ..agent })),
        (Mutation::RemarkCountsAsOff, one(Budget { device_faults: 2, ..agent })),
        (Mutation::SecondFenceForOneDeath, one(agents)),
        (Mutation::FenceBeforeDeathCounts, one(Budget { idle_spans: 1, ..agents })),
        (Mutation::OtherNamesForgotten, one_plug),
        (Mutation::StopForgotten, one(Budget { watcher_stops: 1, ..agents })),
        (
            Mutation::StopServesNobody,
            Config {
                targets: 2,
                setup: Setup::Addresses,
                ..one(Budget { watcher_stops: 1, ..agents })
            },
        ),
        (
            Mutation::IdentityForgotten,
            one(Budget { foreign_requests: 2, watcher_kills: 1, ..none }),
        ),
        (Mutation::DeviceLimitForgotten, Config { targets: 2, ..one(agents) }),
        (Mutation::WatcherLockIgnored, Config { watchers: 2, ..one(agents) }),
        (Mutation::OnForgottenWhenAnswered, Config { has_reboots: true, ..one(agent) }),
        (
            Mutation::FenceBesideItsOn,
            Config { has_reboots: true, ..one(Budget { idle_spans: 1, ..agents }) },
        ),
    ] {
        let model = builder(Config { mutation: Some(mutation), ..config });
        let checker = model.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found = checker.discovery("S1 to S6").or(checker.discovery("S5 at rest"));
        let path = found.unwrap_or_else(|| panic!("{mutation:?} is not found"));
        let steps = path.into_actions().len();
        print_figures(format_args!("mutation {mutation:?}: found by the model in {steps} steps"));
    }
}
