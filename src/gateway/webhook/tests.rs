//! Events on their way to a back end that is slow, broken, away, or well.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use fdpush::Fd;

use super::event::{Event, Kind};
use super::queue::{BatchBounds, Bounds, Queue};
use super::{Config, Stats, Webhook};
use crate::gateway::backend::double::{Double, PATIENCE, Received, Reply};
use crate::gateway::backend::signature::Secret;
use crate::gateway::backend::{Contact, Url};
use crate::gateway::clock;

/// Tries again at once and gives up late.
fn config(double: &Double) -> Config {
    let (backoff_first, backoff_max) = (Duration::from_millis(1), Duration::from_millis(5));
    Config { backoff_first, backoff_max, timeout: PATIENCE, retry_time_max: PATIENCE, ..Config::new(double.contact()) }
}

fn start(config: Config) -> Webhook {
    Webhook::start(config).expect("a webhook")
}

fn say(webhook: &Webhook, text: &str) {
    webhook.emit(Event::Message { fd: Fd::from_u64(1).expect("an fd"), uid: None, text });
}

fn seqs(received: &Received) -> Vec<u64> {
    let body = received.json();
    body["events"].as_array().expect("events").iter().map(|event| event["seq"].as_u64().expect("a number")).collect()
}

fn await_stats(webhook: &Webhook, is_met: impl Fn(Stats) -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !is_met(webhook.stats()) {
        assert!(clock::now() < deadline, "{:?}", webhook.stats());
        std::thread::yield_now();
    }
}

/// Which events a failing back end saw in requests that it took (`true`) and others, in order.
fn took(double: &Double, is_taken: impl Fn(usize) -> bool) -> Vec<(bool, Vec<u64>)> {
    let requests = std::iter::from_fn(|| double.try_next());
    requests.enumerate().map(|(index, received)| (is_taken(index), seqs(&received))).collect()
}

#[test]
fn events_come_signed_and_numbered() {
    let double = Double::always(200, "");
    let secret = Secret::new("s3cret").expect("a secret");
    let contact = Contact { secret: Some(secret.clone()), node: "a\"b".to_owned(), ..double.contact() };
    let webhook = start(Config { contact, ..config(&double) });
    let before = clock::unix_ms();
    webhook.emit(Event::Online { uid: "nobody asked" });
    webhook.emit(Event::Message { fd: Fd::from_u64(1).expect("an fd"), uid: Some("u"), text: "hi" });
    let received = double.next();
    assert_eq!(received.header("x-fdpush-signature"), Some(secret.sign(&received.body).as_str()));
    assert_eq!(received.header("x-fdpush-node"), Some("a\"b"));
    let body = received.json();
    assert_eq!((&body["node"], &body["given_up"]), (&"a\"b".into(), &0.into()));
    assert_eq!(body["run"].as_str().map(str::len), Some(16));
    let times = [&body["sent_ms"], &body["events"][0]["time_ms"]].map(|time| time.as_u64().expect("a time"));
    assert!(times[0] >= times[1] && times[1] >= before, "{times:?}");
    assert_eq!(body["events"].as_array().map(Vec::len), Some(1));
    assert_eq!((&body["events"][0]["seq"], &body["events"][0]["text"]), (&1.into(), &"hi".into()));

    // A new secret is for the next request, and the numbers go on.
    let other = Secret::new("other").expect("a secret");
    webhook.set_secret(Some(other.clone()));
    say(&webhook, "again");
    let received = double.next();
    assert_eq!(received.header("x-fdpush-signature"), Some(other.sign(&received.body).as_str()));
    assert_eq!(seqs(&received), [2]);
    assert_eq!(received.json()["run"], body["run"]);
    await_stats(&webhook, |stats| stats == Stats { sent: 2, ..Stats::default() });
}

#[test]
fn order_holds_across_failures_of_all_kinds() {
    let count = AtomicUsize::new(0);
    let double = Double::start(move |_| match count.fetch_add(1, Ordering::SeqCst) % 7 {
        0 => Reply::Answer(500, "no"),
        1 => Reply::Raw(Vec::new()),
        2 => Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        3 => Reply::Raw(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_vec()),
        4 => Reply::Answer(410, ""),
        5 => Reply::Answer(204, ""),
        // Taken, although the answer's body is cut short.
        _ => Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234".to_vec()),
    });
    let webhook = start(Config { batch_max: 10, ..config(&double) });
    for number in 0..100 {
        say(&webhook, &number.to_string());
    }
    assert_eq!(webhook.finish(PATIENCE), 0);
    let stats = webhook.stats();
    assert_eq!((stats.sent, stats.queued, stats.given_up), (100, 0, 0));

    let requests = took(&double, |index| index % 7 >= 5);
    assert_eq!(stats.failures, requests.iter().filter(|(is_taken, _)| !is_taken).count() as u64);
    let mut next = 1;
    for (is_taken, seqs) in requests {
        assert!(seqs.len() <= 10, "{seqs:?}");
        assert!(seqs.iter().copied().eq(next..next + seqs.len() as u64), "{seqs:?} after {next}");
        next += if is_taken { seqs.len() as u64 } else { 0 };
    }
    assert_eq!(next, 101, "without a hole");
}

#[test]
fn a_batch_is_bounded_in_number_and_bytes() {
    let gate = Arc::new(Barrier::new(2));
    let (passes, count) = (Arc::clone(&gate), AtomicUsize::new(0));
    let double = Double::start(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            passes.wait();
        }
        Reply::Answer(200, "")
    });
    let webhook = start(Config { batch_max: 3, batch_bytes_max: 1000, ..config(&double) });
    say(&webhook, "first");
    assert_eq!(seqs(&double.next()), [1]);
    // While the back end thinks about the first, the others pile up.
    for length in [1, 1, 1, 1, 5000, 600, 600, 1] {
        say(&webhook, &"x".repeat(length));
    }
    gate.wait();
    assert_eq!(webhook.finish(PATIENCE), 0);
    let batches: Vec<Vec<u64>> = took(&double, |_| true).into_iter().map(|(_, seqs)| seqs).collect();
    assert_eq!(
        batches,
        [vec![2, 3, 4], vec![5], vec![6], vec![7], vec![8, 9]],
        "the sixth is too large, but for itself"
    );
}

#[test]
fn a_hanging_back_end_is_nothing_to_the_loop() {
    let double = Double::start(|_| Reply::Hang);
    let webhook = start(Config { queue_max: 100, ..config(&double) });
    say(&webhook, "first");
    double.next();
    let start = clock::now();
    for _ in 0..1000 {
        say(&webhook, "more");
    }
    let taken = clock::now() - start;
    assert!(taken < PATIENCE / 4, "less than it takes to wait once: {taken:?}");
    assert_eq!(webhook.stats(), Stats { queued: 100, given_up: 901, ..Stats::default() });

    // The end is as long as it may be, and the rest is counted.
    let start = clock::now();
    assert_eq!(webhook.finish(Duration::from_millis(50)), 100);
    assert!(clock::now() - start < PATIENCE / 2);
    assert_eq!(webhook.stats(), Stats { given_up: 1001, ..Stats::default() }, "and a late answer changes nothing");
    say(&webhook, "too late");
    assert_eq!(webhook.stats().given_up, 1002);
    assert_eq!(webhook.finish(PATIENCE), 0, "once is enough");
}

#[test]
fn holes_are_where_events_were_given_up() {
    let gate = Arc::new(Barrier::new(2));
    let passes = Arc::clone(&gate);
    let count = AtomicUsize::new(0);
    let double = Double::start(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            passes.wait();
        }
        Reply::Answer(200, "")
    });
    let kinds = [Kind::Message, Kind::Online].into_iter().collect();
    let webhook = start(Config { queue_max: 3, kinds, ..config(&double) });
    say(&webhook, "1, which is on its way and counts");
    assert_eq!(seqs(&double.next()), [1]);
    say(&webhook, "2");
    say(&webhook, "3");
    say(&webhook, "4 is one too many");
    for uid in ["5", "6", "7", "8 is one too many"] {
        webhook.emit(Event::Online { uid });
    }
    say(&webhook, "9");
    assert_eq!(webhook.stats(), Stats { queued: 6, given_up: 3, ..Stats::default() });
    gate.wait();
    await_stats(&webhook, |stats| stats.sent == 6);
    say(&webhook, "10");
    assert_eq!(webhook.finish(PATIENCE), 0);
    let requests: Vec<Received> = std::iter::from_fn(|| double.try_next()).collect();
    let all: Vec<u64> = requests.iter().flat_map(seqs).collect();
    assert_eq!(all, [2, 3, 5, 6, 7, 10]);
    assert_eq!(requests.last().expect("a request").json()["given_up"], 3);
}

#[test]
fn what_is_too_old_is_given_up_and_the_rest_goes_on() {
    let double = Double::start(|received| {
        let is_good = received.json()["events"].as_array().expect("events").iter().all(|event| event["text"] == "good");
        Reply::Answer(if is_good { 200 } else { 500 }, "")
    });
    let retry_time_max = Duration::from_millis(100);
    let webhook = start(Config { batch_max: 1, retry_time_max, ..config(&double) });
    say(&webhook, "bad");
    let start = clock::now();
    await_stats(&webhook, |stats| stats.given_up == 1);
    assert!(clock::now() - start >= retry_time_max - Duration::from_millis(5), "not before its time");
    say(&webhook, "good");
    await_stats(&webhook, |stats| stats.sent == 1);
    let requests = took(&double, |_| false);
    let (last, tries) = requests.split_last().expect("requests");
    assert_eq!(last.1, [2]);
    assert!(!tries.is_empty() && tries.iter().all(|(_, seqs)| *seqs == [1]), "{tries:?}");
    assert_eq!(webhook.stats().failures, tries.len() as u64);
}

#[test]
fn finishing_does_not_wait_for_the_next_try() {
    let is_well = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_well);
    let double = Double::start(move |_| Reply::Answer(if seen.load(Ordering::SeqCst) { 200 } else { 503 }, ""));
    // Half an hour on average.
    let pause = Duration::from_secs(3600);
    let webhook = start(Config { backoff_first: pause, backoff_max: pause, ..config(&double) });
    say(&webhook, "patience");
    await_stats(&webhook, |stats| stats.failures > 0);
    is_well.store(true, Ordering::SeqCst);
    assert_eq!(webhook.finish(PATIENCE), 0);
    assert_eq!(webhook.stats(), Stats { sent: 1, failures: webhook.stats().failures, ..Stats::default() });
}

#[test]
fn finishing_ends_in_time_where_the_back_end_does_not_recover() {
    let double = Double::always(503, "");
    let webhook = start(config(&double));
    for number in 0..250 {
        say(&webhook, &number.to_string());
    }
    await_stats(&webhook, |stats| stats.failures > 1);
    let start = clock::now();
    assert_eq!(webhook.finish(Duration::from_millis(100)), 250);
    assert!(clock::now() - start < PATIENCE / 2);
    let stats = webhook.stats();
    assert_eq!((stats.queued, stats.sent, stats.given_up), (0, 0, 250));
}

#[test]
fn finishing_an_idle_webhook_is_immediate() {
    let double = Double::always(200, "");
    let webhook = start(config(&double));
    let start = clock::now();
    assert_eq!(webhook.finish(PATIENCE), 0);
    assert!(clock::now() - start < PATIENCE / 2);
    assert!(double.try_next().is_none());
}

#[test]
fn a_back_end_that_is_away_is_waited_for() {
    let double = Double::always(200, "");
    let nobody = Url::parse("http://127.0.0.1:1/").expect("a URL");
    let webhook = start(Config { contact: Contact { url: nobody, ..double.contact() }, ..config(&double) });
    say(&webhook, "anyone?");
    await_stats(&webhook, |stats| stats.failures >= 3);
    assert_eq!(webhook.stats().queued, 1);
}

#[test]
fn a_flood_of_old_events_is_given_up_in_one_go() {
    let queue = Queue::new(Bounds { events_max: 10_000, bytes_max: 1 << 20 });
    let start = clock::now();
    let second = |second| start + Duration::from_secs(second);
    for number in 0..1000 {
        assert!(queue.push(Box::from(&b"{}"[..]), true, second(number)));
    }
    let mut batch = queue.take(BatchBounds { events_max: 100, bytes_max: 1 << 20 }).expect("a batch");
    assert_eq!(queue.failed(&mut batch, None), 0, "older than the clock can say");
    assert_eq!(queue.failed(&mut batch, Some(second(50))), 50);
    assert_eq!((batch.len(), batch[0].seq), (50, 51), "the others are tried again");
    assert_eq!(queue.failed(&mut batch, Some(second(900))), 850);
    assert!(batch.is_empty());
    assert_eq!(queue.stats(), Stats { queued: 100, given_up: 900, failures: 3, sent: 0 });
    let batch = queue.take(BatchBounds { events_max: 100, bytes_max: 20 }).expect("a batch");
    assert_eq!((batch.len(), batch[0].seq), (10, 901));
    queue.delivered(&batch);
    assert_eq!(queue.stats(), Stats { queued: 90, given_up: 900, failures: 3, sent: 10 });
}

#[test]
fn bytes_are_bounded_too() {
    let queue = Queue::new(Bounds { events_max: 1000, bytes_max: 10 });
    let now = clock::now();
    let push = |length: usize, is_message| queue.push(vec![b'x'; length].into(), is_message, now);
    assert!(push(10, true));
    assert!(!push(1, true));
    assert!(push(10, false));
    assert!(!push(1, false));
    let batch = queue.take(BatchBounds { events_max: 9, bytes_max: 1 }).expect("a batch");
    assert!(!push(1, true), "what is on its way counts");
    queue.delivered(&batch);
    assert!(push(10, false) && !push(1, true));
}
