//! Benchmarks of the timer wheel and the registry, without sockets.
//!
//! The timer wheel and the registry contain a million connections, or ten thousand in test mode (`cargo bench --
//! --test`). Before criterion starts, a few lines report the memory per connection, the cost of a heartbeat period, and
//! the longest calls.

use std::fs;
use std::hint::black_box;
use std::time::Instant;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use fdpush::Slot;
use fdpush::bench::{Owner, Registry, SlotSet, Tick, Wheel};
use fdpush::{Change, ScanCursor, SecondLogin};
use rustix::time::{ClockId, clock_gettime};

#[path = "state/broadcast.rs"]
mod broadcast;
#[path = "../src/gateway/api/first_names.rs"]
mod first_names;

use first_names::FirstNames;

/// A heartbeat period, in ticks. A tick is a millisecond.
const PERIOD: u64 = 25_000;

fn connections() -> u32 {
    let args: Vec<String> = std::env::args().collect();
    let measures = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    if measures { 1_000_000 } else { 10_000 }
}

/// Returns the time of a connection's first ping.
///
/// The times are distributed evenly over a period, independent of the order of the slots.
fn first_ping(slot: u32) -> Tick {
    Tick(1 + u64::from(slot.wrapping_mul(0x9e37_79b1)) % PERIOD)
}

fn armed(count: u32) -> Wheel {
    let mut wheel = Wheel::new(Tick(0));
    for slot in 0..count {
        wheel.arm(Owner::Connection(Slot(slot)), first_ping(slot));
    }
    wheel
}

/// Advances for one period, tick by tick, as the loop does.
///
/// Each connection whose deadline has passed gets a deadline in the next period. Returns the number of these
/// connections.
fn run_period(wheel: &mut Wheel, from: u64) -> u32 {
    let mut expired = 0;
    for now in from + 1..=from + PERIOD {
        wheel.advance(Tick(now));
        while let Some(owner) = wheel.pop_expired() {
            wheel.arm(owner, Tick(now + PERIOD));
            expired += 1;
        }
    }
    expired
}

/// Returns the resident memory of this process in bytes.
fn resident_bytes() -> f64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux has smaps_rollup");
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse().ok());
    1024.0 * kib.unwrap_or(0.0)
}

/// Reports memory and the cost of a heartbeat period.
///
/// Each connection has its own uid. This function must run first, because later measurements would reuse freed memory.
fn report(_: &mut Criterion) {
    let count = connections();
    let uids = uids(count);
    let each = |bytes: f64| bytes / f64::from(count);

    let start = resident_bytes();
    let mut wheel = armed(count);
    let with_wheel = resident_bytes();
    let registry = bound(&uids);
    let with_registry = resident_bytes();
    assert_eq!(registry.user_count(), uids.len());

    // In the first period, the deadlines move down from their initial levels of the wheel. The second period costs as
    // much as each later period.
    assert_eq!(run_period(&mut wheel, 0), count);
    let began = Instant::now();
    assert_eq!(run_period(&mut wheel, PERIOD), count);
    let period = began.elapsed();
    println!(
        "{count} connections: {:.0} bytes each in the wheel, {:.0} in the registry with a uid of 8 bytes; a heartbeat \
         period of {} s is {:.1} ms, {:.0} ns each",
        each(with_wheel - start),
        each(with_registry - with_wheel),
        PERIOD / 1000,
        period.as_secs_f64() * 1e3,
        each(period.as_secs_f64() * 1e9),
    );
}

/// A heartbeat period, in ticks, for which the timer wheel moves the most deadlines in one step from one of its levels
/// to the next.
///
/// Deadlines that are one such period away are on the third level of the wheel.
const LONG_PERIOD: u64 = 300_000;

/// The number of calls that are timed together, because a clock read costs as much as a call.
const CALLS: u32 = 16;

/// The number of ticks by which each call advances the wheel.
const TICKS: u64 = 4;

/// Reports the CPU time of the longest calls while the registry and the timer wheel grow and shrink.
///
/// The loop serves no client during a call.
fn report_longest(_: &mut Criterion) {
    let count = 2 * connections();
    let uids = uids(count);
    let mut registry = Registry::new();
    let mut kicked = Vec::new();
    let mut bind = |slot: u32, registry: &mut Registry| {
        registry.bind(Slot(slot), &uids[slot as usize], SecondLogin::Multi, &mut kicked);
    };
    let binding = longest(count, |slot| bind(slot, &mut registry));
    let joining = longest(count, |slot| _ = registry.join(Slot(slot), "room"));
    let removing = longest(count, |slot| _ = registry.remove(Slot(slot)));
    assert_eq!((registry.user_count(), registry.membership_count()), (0, 0));
    let [portion, whole] = [PORTION, usize::MAX].map(|max| longest_portion(&uids, max));

    // All connections open at the same time. The first ping of each connection is due in the second half of the period.
    let mut wheel = Wheel::new(Tick(0));
    for slot in 0..count {
        let early = (u64::from(slot.wrapping_mul(0x9e37_79b9)) * (LONG_PERIOD / 2)) >> 32;
        wheel.arm(Owner::Connection(Slot(slot)), Tick(LONG_PERIOD - early));
    }
    let mut expired = 0;
    let advancing = longest((LONG_PERIOD / TICKS) as u32, |turn| {
        wheel.advance(Tick((u64::from(turn) + 1) * TICKS));
        while wheel.pop_expired().is_some() {
            expired += 1;
        }
    });
    assert_eq!(expired, count);
    println!(
        "{count} connections, the longest calls: bind {binding:.2} ms, join {joining:.2} ms, remove {removing:.2} ms, \
         a portion of the list of users {portion:.2} ms, the whole list in one call {whole:.2} ms, advance \
         of the wheel by {} ms with a heartbeat of 300 s {advancing:.2} ms",
        u64::from(CALLS) * TICKS,
    );
}

/// The number of entries of a list that the API visits in one turn: a portion of the list. [`PAGE`] is the number of
/// names that a page of the API needs.
const PORTION: usize = 30_000;
const PAGE: usize = 1001;

/// Returns the longest CPU time of one portion of a list of all users, in milliseconds.
///
/// A portion has at most `max` entries. This function measures all portions twice: first with `uids`, and then with
/// uids in descending order. In descending order, each uid enters the page and removes another uid from it.
fn longest_portion(uids: &[String], max: usize) -> f64 {
    let descending: Vec<String> = (0..uids.len()).map(|slot| format!("{:08}", uids.len() - slot)).collect();
    [uids, &descending].map(|uids| longest_portion_of(&bound(uids), max)).into_iter().fold(0.0, f64::max)
}

fn longest_portion_of(registry: &Registry, max: usize) -> f64 {
    let mut names = FirstNames::new(None, PAGE);
    let (mut longest, mut cursor) = (0.0_f64, Some(ScanCursor::default()));
    while let Some(start) = cursor {
        let before = cpu_ms();
        let (users, next) = registry.scan_users(start, max);
        users.for_each(|(uid, _)| names.add(uid));
        longest = longest.max(cpu_ms() - before);
        cursor = next;
    }
    let mut all: Vec<&str> = registry.users().map(|(uid, _)| uid).collect();
    all.sort_unstable();
    assert!(names.len() == PAGE && names.iter().eq(all.into_iter().take(PAGE)));
    longest
}

/// The number of connections in a portion of a flush. A flush of a turn writes for about 5 ms.
const FLUSHED: usize = 1000;

/// Reports the CPU time of a broadcast, and of the same broadcast that is added to all queues in one call.
fn report_broadcast(_: &mut Criterion) {
    for count in [connections(), 2 * connections()] {
        let mut server = broadcast::Server::open(count);
        // The first broadcast allocates the lists of receivers. The later broadcasts reuse them.
        server.broadcast();
        server.flush();
        let times: [f64; 2] = std::array::from_fn(|_| {
            let before = cpu_ms();
            server.broadcast();
            cpu_ms() - before
        });
        server.flush();
        let fan_outs: [f64; 2] = std::array::from_fn(|_| {
            let before = cpu_ms();
            server.fan_out();
            cpu_ms() - before
        });
        let before = cpu_ms();
        server.flush_some(FLUSHED);
        let flushed = cpu_ms() - before;
        server.flush();
        println!(
            "a broadcast to {count} connections: {:.2} ms, and {:.2} ms for a second one; a portion of the flush with \
             {FLUSHED} connections and both messages, without system calls, is {flushed:.2} ms; with each message added \
             to all queues in one call: {:.1} ms, and {:.1} ms for a second one",
            fan_outs[0], fan_outs[1], times[0], times[1],
        );
    }
}

/// Reports the CPU time of the calls that an upgrade needs, by the number of connections.
///
/// Each connection gets a uid, and joins three groups of 10, 30 and 100 members. The names of groups are formatted
/// before the measurement.
fn report_growth(_: &mut Criterion) {
    let most = 2 * connections();
    let sizes = [10_000, 100_000, 1_000_000, most].into_iter().filter(|size| *size <= most);
    let uids = uids(most);
    let group = |slot: u32, members: u32| format!("{members}-{}", slot / members);
    let groups: Vec<[String; 3]> = (0..most).map(|slot| [10, 30, 100].map(|members| group(slot, members))).collect();
    let (mut registry, mut kicked, mut first) = (Registry::new(), Vec::new(), 0);
    for size in sizes {
        let started = cpu_ms();
        for slot in first..size {
            registry.bind(Slot(slot), &uids[slot as usize], SecondLogin::Multi, &mut kicked);
        }
        let bound = cpu_ms();
        for slot in first..size {
            for group in &groups[slot as usize] {
                assert_eq!(registry.join(Slot(slot), group), Change::Done);
            }
        }
        let joined = cpu_ms();
        if size > first {
            let each = |ms: f64| ms * 1e6 / f64::from(size - first);
            println!(
                "from {first} to {size} connections: bind {:.0} ns, join of three groups {:.0} ns each",
                each(bound - started),
                each(joined - bound),
            );
        }
        first = size;
    }
    assert_eq!((registry.user_count(), registry.membership_count()), (most as usize, 3 * most as usize));
}

/// Returns the CPU time of this thread, in milliseconds.
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// Returns the longest CPU time of [`CALLS`] consecutive calls, in milliseconds.
fn longest(count: u32, mut call: impl FnMut(u32)) -> f64 {
    let (mut longest, mut before) = (0.0_f64, cpu_ms());
    for index in 0..count {
        call(index);
        if index % CALLS == CALLS - 1 {
            let now = cpu_ms();
            longest = longest.max(now - before);
            before = now;
        }
    }
    longest
}

fn wheel(c: &mut Criterion) {
    let count = connections();
    let mut wheel = armed(count);
    wheel.check_invariants();
    assert_eq!(wheel.len(), count as usize);
    assert_eq!(run_period(&mut wheel, 0), count, "each connection must be due once a period");
    wheel.check_invariants();

    let mut group = c.benchmark_group("wheel");
    group.throughput(Throughput::Elements(u64::from(count))).sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("arm", |b| b.iter_with_large_drop(|| armed(black_box(count))));

    // The server calls `arm_no_later` for each message. The deadline is not moved, because the existing deadline is
    // earlier.
    group.bench_function("touch", |b| {
        b.iter(|| {
            for slot in 0..count {
                wheel.arm_no_later(Owner::Connection(Slot(slot)), Tick(3 * PERIOD));
            }
        });
    });
    assert_eq!(wheel.len(), count as usize);

    group.bench_function("cancel", |b| {
        b.iter_batched_ref(
            || armed(count),
            |wheel| {
                for slot in 0..count {
                    wheel.cancel(Owner::Connection(Slot(slot)));
                }
                assert_eq!(wheel.len(), 0);
            },
            BatchSize::PerIteration,
        );
    });

    let mut from = PERIOD;
    group.bench_function("a heartbeat period: expire and arm", |b| {
        b.iter(|| {
            assert_eq!(run_period(&mut wheel, from), count);
            from += PERIOD;
        });
    });
}

fn uids(count: u32) -> Vec<String> {
    (0..count).map(|slot| format!("{:08}", slot.wrapping_mul(7919) % 100_000_000)).collect()
}

fn bound(uids: &[String]) -> Registry {
    let mut registry = Registry::new();
    let mut kicked = Vec::new();
    for (slot, uid) in uids.iter().enumerate() {
        let change = registry.bind(Slot(slot as u32), uid, SecondLogin::Multi, &mut kicked);
        assert_eq!(change, Change::Done);
    }
    registry
}

fn users(c: &mut Criterion) {
    let uids = uids(connections());
    let mut registry = bound(&uids);
    assert_eq!(registry.user_count(), uids.len());
    assert!(registry.slots_of(&uids[77]).eq([Slot(77)]));

    let mut group = c.benchmark_group("registry");
    group.throughput(Throughput::Elements(uids.len() as u64)).sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("bind", |b| b.iter_with_large_drop(|| bound(black_box(&uids))));
    group.bench_function("find by uid", |b| {
        b.iter(|| uids.iter().map(|uid| registry.slots_of(black_box(uid)).count()).sum::<usize>());
    });
    group.bench_function("remove", |b| {
        b.iter_batched_ref(
            || bound(&uids),
            |registry| {
                for slot in 0..uids.len() as u32 {
                    black_box(registry.remove(Slot(slot)));
                }
                assert_eq!(registry.user_count(), 0);
            },
            BatchSize::PerIteration,
        );
    });
    assert_eq!(registry.remove(Slot(77)).uid.as_deref(), Some(&*uids[77]));
    assert_eq!(registry.count_of(&uids[77]), 0);
}

fn joined(count: u32) -> Registry {
    let mut registry = Registry::new();
    for slot in 0..count {
        assert_eq!(registry.join(Slot(slot), "room"), Change::Done);
    }
    registry
}

fn group(c: &mut Criterion) {
    let count = connections() / 10;
    let registry = joined(count);
    let sum: u64 = registry.members("room").map(|slot| u64::from(slot.0)).sum();
    assert_eq!(sum, (0..u64::from(count)).sum::<u64>());

    let mut group = c.benchmark_group("group");
    group.throughput(Throughput::Elements(u64::from(count))).sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("join", |b| b.iter_with_large_drop(|| joined(black_box(count))));
    group.bench_function("members", |b| b.iter(|| registry.members("room").map(|slot| u64::from(slot.0)).sum::<u64>()));
    group.bench_function("remove", |b| {
        b.iter_batched_ref(
            || joined(count),
            |registry| {
                for slot in 0..count {
                    black_box(registry.remove(Slot(slot)));
                }
                assert_eq!(registry.group_count(), 0);
            },
            BatchSize::PerIteration,
        );
    });
}

/// Measures iteration over the slots of open WebSockets, as in a broadcast.
fn open(c: &mut Criterion) {
    const LEFT: usize = 10;
    let count = connections();
    let mut set = SlotSet::default();
    (0..count).for_each(|slot| _ = set.insert(Slot(slot)));
    let mut found: Vec<Slot> = Vec::with_capacity(count as usize);
    let mut walk = |set: &SlotSet| {
        found.clear();
        found.extend(black_box(set).iter());
        found.len()
    };
    assert_eq!(walk(&set), count as usize);

    let mut group = c.benchmark_group("open connections");
    group.bench_function("walk, all open", |b| b.iter(|| walk(&set)));
    let step = count / LEFT as u32;
    (0..count).filter(|slot| slot % step != 0).for_each(|slot| _ = set.remove(Slot(slot)));
    assert_eq!(walk(&set), LEFT);
    group.bench_function("walk, 10 left", |b| b.iter(|| walk(&set)));
    group.bench_function("insert and remove", |b| {
        b.iter(|| {
            set.insert(black_box(Slot(1)));
            set.remove(black_box(Slot(1)));
        });
    });
    assert_eq!(walk(&set), LEFT);
}

criterion_group!(benches, report, report_longest, report_broadcast, report_growth, wheel, users, group, open);
criterion_main!(benches);
