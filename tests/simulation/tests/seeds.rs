//! Many seeded histories, on all cores. `SEED=n` replays one and prints its events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fence_simulation::{print_figures, run_seed};

/// Seeds that once broke an invariant.
const REGRESSIONS: [u64; 3] = [23_517, 352_501, 482_090];

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn no_history_breaks_an_invariant() {
    if let Ok(seed) = std::env::var("SEED") {
        let history = run_seed(seed.parse().unwrap(), |_| {});
        for action in &history.actions {
            println!("{action:?}");
        }
        assert_eq!(history.violation, None, "seed {seed}");
        return;
    }
    let (first, count) = (number("FIRST_SEED", 0), number("SEEDS", 100_000));
    let (next, executions, successes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count + REGRESSIONS.len() as u64 {
                return;
            }
            let seed = match n.checked_sub(count) {
                None => first + n,
                Some(regression) => REGRESSIONS[usize::try_from(regression).unwrap()],
            };
            let history = run_seed(seed, |_| {});
            executions.fetch_add(history.executions.into(), Ordering::Relaxed);
            successes.fetch_add(history.successes as u64, Ordering::Relaxed);
            assert_eq!(
                history.violation, None,
                "seed {seed}; replay: SEED={seed} cargo test -p fence-simulation --test seeds -- --nocapture"
            );
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let (executions, successes) = (executions.into_inner(), successes.into_inner());
    print_figures(format_args!(
        "simulation: {count} seeds, {} seeds/s, {executions} executions, {successes} agents succeeded",
        u128::from(count) * 1_000 / start.elapsed().as_millis().max(1)
    ));
    // A simulation that fences nothing would break nothing either.
    assert!(executions > count / 2 && successes > count / 20, "{executions}, {successes}");
}
