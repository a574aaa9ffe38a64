//! Tests of the state that loops share, under many schedules of the threads of the loops: see `src/sync.rs`.
//!
//! Each test is a scenario with two to five threads. shuttle runs the scenario under random schedules, and then under
//! schedules with few preemptions (PCT). The two smallest scenarios run under all schedules. A schedule in which all
//! threads wait fails. So a schedule in which a wake is lost fails. A failure prints the seed or the schedule.
//!
//! shuttle makes all atomic operations sequentially consistent. So these tests do not find a memory ordering that is too
//! weak.
//!
//! ```text
//! .ci/run interleave                                 the default schedules
//! INTERLEAVE_SCHEDULES=100000 .ci/run interleave     more schedules of each scenario
//! INTERLEAVE_SEED=2 .ci/run interleave               other schedules
//! ```
//!
//! Each fault in the table was added to the code once. The table has a test that finds the fault, and the number of
//! schedules or the seed that shuttle prints.
//!
//! | fault | test | found by |
//! |---|---|---|
//! | directory: `claim` searches the uid under one lock, and inserts the uid under another lock | `racing_logins_have_exactly_one_owner_…` | the first random schedule |
//! | waker: the wake is cleared after the items are taken, not before | `each_accepted_post_…` | the random seed 2515402840356996764 |
//! | admission: the drop of a kept place frees the place a second time | `racing_accepts_…` | the first random schedule |
//! | posts: the shutdown is sent before the posts | `a_shutdown_loses_no_push_…` | the first random schedule |
//! | process: the last loop that has drained does not wake the others | `a_shutdown_loses_no_push_…` | the random seed 15359900104748044703 |

mod directory;
mod loops;
mod mailbox;
mod process;

use std::env;
use std::num::NonZeroU64;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// The number of schedules of each kind if `INTERLEAVE_SCHEDULES` is not set.
const SCHEDULES: u64 = 500;

/// A long scenario runs under one fifth of the schedules.
const LONG_PART: usize = 5;

/// The maximum number of preemptions of a PCT schedule, plus 1.
const PCT_DEPTH: usize = 3;

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    // The warning says that all atomic operations are sequentially consistent.
    config.silence_warnings = true;
    config
}

/// Runs a scenario under random schedules, and under schedules with few preemptions.
fn explore(scenario: impl Fn() + Clone + Send + Sync + 'static) {
    explore_part(1, scenario);
}

/// Runs a long scenario under fewer schedules.
fn explore_some(scenario: impl Fn() + Clone + Send + Sync + 'static) {
    explore_part(LONG_PART, scenario);
}

fn explore_part(part: usize, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let number = |name: &str| -> Option<NonZeroU64> {
        env::var(name).ok().map(|text| text.parse().expect("the variable is a positive number"))
    };
    let schedules = number("INTERLEAVE_SCHEDULES").map_or(SCHEDULES, NonZeroU64::get) as usize;
    let schedules = schedules.div_ceil(part);
    let seed = number("INTERLEAVE_SEED").map_or(1, NonZeroU64::get);
    Runner::new(RandomScheduler::new_from_seed(seed, schedules), config()).run(scenario.clone());
    Runner::new(PctScheduler::new_from_seed(seed, PCT_DEPTH, schedules), config()).run(scenario);
}

/// Runs a small scenario under all schedules, and returns their number.
fn exhaust(scenario: impl Fn() + Send + Sync + 'static) -> usize {
    Runner::new(DfsScheduler::new(None, false), config()).run(scenario)
}

/// Runs `call` on one thread for each loop, and returns the results in the order of loops.
fn on_each<T: Send>(loops: usize, call: impl Fn(usize) -> T + Send + Sync) -> Vec<T> {
    let call = &call;
    shuttle::thread::scope(|scope| {
        let threads: Vec<_> = (0..loops).map(|index| scope.spawn(move || call(index))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the thread must not panic")).collect()
    })
}
