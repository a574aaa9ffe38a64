//! Tests of the webhook with a back end that is slow, broken, down, or healthy.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use fdpush::Fd;

use super::event::{Event, Kind};
use super::queue::{BatchBounds, Bounds, EventQueue};
use super::{Config, EmitResult, GivenUp, Webhook, WebhookStats};
use crate::gateway::hooks::backend::mock::{MockBackend, MockReply, Received, TEST_TIMEOUT};
use crate::gateway::hooks::backend::signature::SigningKey;
use crate::gateway::hooks::backend::{BackendConfig, BackendUrl};
use crate::gateway::runtime::clock;

/// Returns a configuration with short pauses between attempts and a long retry time.
fn config(double: &MockBackend) -> Config {
    let (backoff_first, backoff_max) = (Duration::from_millis(1), Duration::from_millis(5));
    Config {
        backoff_first,
        backoff_max,
        timeout: TEST_TIMEOUT,
        retry_time_max: TEST_TIMEOUT,
        ..Config::new(double.contact())
    }
}

fn start(config: Config) -> Webhook {
    Webhook::start(config).expect("the webhook can start")
}

fn emit_text(webhook: &Webhook, text: &str) {
    webhook.emit(Event::Message { fd: Fd::from_u64(1).expect("the fd is valid"), uid: None, text });
}

fn seqs(received: &Received) -> Vec<u64> {
    let body = received.json();
    body["events"]
        .as_array()
        .expect("the body has events")
        .iter()
        .map(|event| event["seq"].as_u64().expect("the value is a number"))
        .collect()
}

/// Returns counters with these numbers of dropped events: `queue_full` for a full queue, and `shutdown` for the end of
/// the server.
fn lost(queue_full: u64, shutdown: u64) -> GivenUp {
    GivenUp { queue_full, shutdown, ..GivenUp::default() }
}

fn await_stats(webhook: &Webhook, is_met: impl Fn(WebhookStats) -> bool) {
    let deadline = clock::now() + TEST_TIMEOUT;
    while !is_met(webhook.stats()) {
        assert!(clock::now() < deadline, "{:?}", webhook.stats());
        std::thread::yield_now();
    }
}

/// Returns the requests in order. For each request, returns whether the back end accepted the request, and the sequence
/// numbers of the events in the request.
fn took(double: &MockBackend, is_taken: impl Fn(usize) -> bool) -> Vec<(bool, Vec<u64>)> {
    let requests = std::iter::from_fn(|| double.try_next());
    requests.enumerate().map(|(index, received)| (is_taken(index), seqs(&received))).collect()
}

#[test]
fn events_are_signed_and_numbered() {
    let double = MockBackend::always(200, "");
    let secret = SigningKey::new("s3cret").expect("the secret is valid");
    let contact = BackendConfig { secret: Some(secret.clone()), node: "a\"b".to_owned(), ..double.contact() };
    let webhook = start(Config { contact, ..config(&double) });
    let before = clock::unix_ms();
    webhook.emit(Event::Online { uid: "not enabled" });
    webhook.emit(Event::Message { fd: Fd::from_u64(1).expect("the fd is valid"), uid: Some("u"), text: "hi" });
    let received = double.next();
    assert_eq!(received.header("x-fdpush-signature"), Some(secret.sign(&received.body).as_str()));
    assert_eq!(received.header("x-fdpush-node"), Some("a\"b"));
    let body = received.json();
    assert_eq!((&body["node"], &body["given_up"]), (&"a\"b".into(), &0.into()));
    assert_eq!(body["run"].as_str().map(str::len), Some(16));
    let times =
        [&body["sent_ms"], &body["events"][0]["time_ms"]].map(|time| time.as_u64().expect("the event has a time"));
    assert!(times[0] >= times[1] && times[1] >= before, "{times:?}");
    assert_eq!(body["events"].as_array().map(Vec::len), Some(1));
    assert_eq!((&body["events"][0]["seq"], &body["events"][0]["text"]), (&1.into(), &"hi".into()));

    // A new secret applies to the next request, and the sequence numbers continue.
    let other = SigningKey::new("other").expect("the secret is valid");
    webhook.set_secret(Some(other.clone()));
    emit_text(&webhook, "again");
    let received = double.next();
    assert_eq!(received.header("x-fdpush-signature"), Some(other.sign(&received.body).as_str()));
    assert_eq!(seqs(&received), [2]);
    assert_eq!(received.json()["run"], body["run"]);
    await_stats(&webhook, |stats| stats == WebhookStats { sent: 2, ..WebhookStats::default() });
}

#[test]
fn events_keep_their_order_across_failures_of_all_kinds() {
    let count = AtomicUsize::new(0);
    let double = MockBackend::start(move |_| match count.fetch_add(1, Ordering::SeqCst) % 7 {
        0 => MockReply::Answer(500, "no"),
        1 => MockReply::Raw(Vec::new()),
        2 => MockReply::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        3 => MockReply::Raw(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_vec()),
        4 => MockReply::Answer(429, ""),
        5 => MockReply::Answer(204, ""),
        // An answer with status 200 accepts the events, even if the body of the answer is incomplete.
        _ => MockReply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234".to_vec()),
    });
    let webhook = start(Config { batch_max: 10, ..config(&double) });
    for number in 0..100 {
        emit_text(&webhook, &number.to_string());
    }
    assert_eq!(webhook.finish(TEST_TIMEOUT), 0);
    let stats = webhook.stats();
    assert_eq!((stats.sent, stats.queued, stats.given_up), (100, 0, GivenUp::default()));

    let requests = took(&double, |index| index % 7 >= 5);
    assert_eq!(stats.failures, requests.iter().filter(|(is_taken, _)| !is_taken).count() as u64);
    let mut next = 1;
    for (is_taken, seqs) in requests {
        assert!(seqs.len() <= 10, "{seqs:?}");
        assert!(
            seqs.iter().copied().eq(next..next + seqs.len() as u64),
            "the sequence numbers must continue from {next}: {seqs:?}"
        );
        next += if is_taken { seqs.len() as u64 } else { 0 };
    }
    assert_eq!(next, 101, "all 100 events must be accepted without a gap");
}

#[test]
fn the_number_and_the_bytes_of_events_in_a_batch_are_bounded() {
    let gate = Arc::new(Barrier::new(2));
    let (passes, count) = (Arc::clone(&gate), AtomicUsize::new(0));
    let double = MockBackend::start(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            passes.wait();
        }
        MockReply::Answer(200, "")
    });
    let webhook = start(Config { batch_max: 3, batch_bytes_max: 1200, ..config(&double) });
    emit_text(&webhook, "first");
    assert_eq!(seqs(&double.next()), [1]);
    // While the back end handles the first event, the other events wait.
    for length in [1, 1, 1, 1, 5000, 600, 600, 1] {
        emit_text(&webhook, &"x".repeat(length));
    }
    gate.wait();
    assert_eq!(webhook.finish(TEST_TIMEOUT), 0);
    let batches: Vec<Vec<u64>> = took(&double, |_| true).into_iter().map(|(_, seqs)| seqs).collect();
    assert_eq!(
        batches,
        [vec![2, 3, 4], vec![5], vec![6], vec![7], vec![8, 9]],
        "event 6 must be sent alone, because it exceeds the bound"
    );
}

#[test]
fn a_hanging_back_end_does_not_delay_the_loop() {
    let double = MockBackend::start(|_| MockReply::Hang);
    let webhook = start(Config { queue_max: 100, ..config(&double) });
    emit_text(&webhook, "first");
    double.next();
    let start = clock::now();
    for _ in 0..1000 {
        emit_text(&webhook, "more");
    }
    let taken = clock::now() - start;
    assert!(taken < TEST_TIMEOUT / 4, "`emit` must not wait for the back end: {taken:?}");
    assert_eq!(webhook.stats(), WebhookStats { queued: 100, given_up: lost(901, 0), ..WebhookStats::default() });

    // The back end does not answer, so `finish` takes its maximum time. The events that were not sent are counted as
    // dropped.
    let start = clock::now();
    assert_eq!(webhook.finish(Duration::from_millis(50)), 100);
    assert!(clock::now() - start < TEST_TIMEOUT / 2);
    assert_eq!(
        webhook.stats(),
        WebhookStats { given_up: lost(901, 100), ..WebhookStats::default() },
        "a late answer must not change the counters"
    );
    emit_text(&webhook, "too late");
    assert_eq!(webhook.stats().given_up, lost(901, 101));
    assert_eq!(webhook.finish(TEST_TIMEOUT), 0, "a second `finish` must return 0");
}

#[test]
fn dropped_events_leave_gaps_in_the_sequence_numbers() {
    let gate = Arc::new(Barrier::new(2));
    let passes = Arc::clone(&gate);
    let count = AtomicUsize::new(0);
    let double = MockBackend::start(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            passes.wait();
        }
        MockReply::Answer(200, "")
    });
    let kinds = [Kind::Message, Kind::Online].into_iter().collect();
    let webhook = start(Config { queue_max: 3, kinds, ..config(&double) });
    emit_text(&webhook, "1 is in flight and counts");
    assert_eq!(seqs(&double.next()), [1]);
    emit_text(&webhook, "2");
    emit_text(&webhook, "3");
    emit_text(&webhook, "4 exceeds queue_max");
    for uid in ["5", "6", "7", "8 exceeds twice queue_max"] {
        webhook.emit(Event::Online { uid });
    }
    emit_text(&webhook, "9");
    assert_eq!(webhook.stats(), WebhookStats { queued: 6, given_up: lost(3, 0), ..WebhookStats::default() });
    gate.wait();
    await_stats(&webhook, |stats| stats.sent == 6);
    emit_text(&webhook, "10");
    assert_eq!(webhook.finish(TEST_TIMEOUT), 0);
    let requests: Vec<Received> = std::iter::from_fn(|| double.try_next()).collect();
    let all: Vec<u64> = requests.iter().flat_map(seqs).collect();
    assert_eq!(all, [2, 3, 5, 6, 7, 10]);
    assert_eq!(requests.last().expect("the back end received a request").json()["given_up"], 3);
}

#[test]
fn old_events_are_dropped_and_later_events_are_sent() {
    let double = MockBackend::start(|received| {
        let is_good = received.json()["events"]
            .as_array()
            .expect("the body has events")
            .iter()
            .all(|event| event["text"] == "good");
        MockReply::Answer(if is_good { 200 } else { 500 }, "")
    });
    let retry_time_max = Duration::from_millis(100);
    let webhook = start(Config { batch_max: 1, retry_time_max, ..config(&double) });
    let start = clock::now();
    emit_text(&webhook, "bad");
    await_stats(&webhook, |stats| stats.given_up.timed_out == 1);
    assert!(clock::now() - start >= retry_time_max, "the event must not be dropped before retry_time_max");
    emit_text(&webhook, "good");
    await_stats(&webhook, |stats| stats.sent == 1);
    let requests = took(&double, |_| false);
    let (last, tries) = requests.split_last().expect("the back end received requests");
    assert_eq!(last.1, [2]);
    assert!(!tries.is_empty() && tries.iter().all(|(_, seqs)| *seqs == [1]), "{tries:?}");
    assert_eq!(webhook.stats().failures, tries.len() as u64);
}

#[test]
fn finish_does_not_wait_for_the_next_attempt() {
    let is_well = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_well);
    let double =
        MockBackend::start(move |_| MockReply::Answer(if seen.load(Ordering::SeqCst) { 200 } else { 503 }, ""));
    // The average pause between two requests is half an hour.
    let pause = Duration::from_secs(3600);
    let webhook = start(Config { backoff_first: pause, backoff_max: pause, ..config(&double) });
    emit_text(&webhook, "patience");
    await_stats(&webhook, |stats| stats.failures > 0);
    is_well.store(true, Ordering::SeqCst);
    assert_eq!(webhook.finish(TEST_TIMEOUT), 0);
    assert_eq!(
        webhook.stats(),
        WebhookStats { sent: 1, failures: webhook.stats().failures, ..WebhookStats::default() }
    );
}

#[test]
fn finish_returns_within_its_maximum_time_if_the_back_end_does_not_recover() {
    let double = MockBackend::always(503, "");
    let webhook = start(config(&double));
    for number in 0..250 {
        emit_text(&webhook, &number.to_string());
    }
    await_stats(&webhook, |stats| stats.failures > 1);
    let start = clock::now();
    assert_eq!(webhook.finish(Duration::from_millis(100)), 250);
    assert!(clock::now() - start < TEST_TIMEOUT / 2);
    let stats = webhook.stats();
    assert_eq!((stats.queued, stats.sent, stats.given_up), (0, 0, lost(0, 250)));
}

#[test]
fn finish_returns_at_once_if_no_event_waits() {
    let double = MockBackend::always(200, "");
    let webhook = start(config(&double));
    let start = clock::now();
    assert_eq!(webhook.finish(TEST_TIMEOUT), 0);
    assert!(clock::now() - start < TEST_TIMEOUT / 2);
    assert!(double.try_next().is_none());
}

#[test]
fn events_wait_for_a_back_end_that_is_down() {
    let double = MockBackend::always(200, "");
    let closed_port = BackendUrl::parse("http://127.0.0.1:1/").expect("the URL is valid");
    let webhook = start(Config { contact: BackendConfig { url: closed_port, ..double.contact() }, ..config(&double) });
    emit_text(&webhook, "anyone?");
    await_stats(&webhook, |stats| stats.failures >= 3);
    assert_eq!(webhook.stats().queued, 1);
}

#[test]
fn one_failed_request_drops_all_old_events() {
    let queue = EventQueue::new(Bounds { events_max: 10_000, bytes_max: 1 << 20 });
    let start = clock::now();
    let second = |second| start + Duration::from_secs(second);
    for number in 0..1000 {
        assert!(queue.push(Box::from(&b"{}"[..]), true, second(number)));
    }
    let mut batch = queue.take(BatchBounds { events_max: 100, bytes_max: 1 << 20 }).expect("events wait in the queue");
    assert_eq!(queue.failed(&mut batch, None), 0, "without a maximum age, no event must be dropped");
    assert_eq!(queue.failed(&mut batch, Some(second(50))), 50);
    assert_eq!((batch.len(), batch[0].seq), (50, 51), "the other events must stay in the batch");
    assert_eq!(queue.failed(&mut batch, Some(second(900))), 850);
    assert!(batch.is_empty());
    assert_eq!(
        queue.stats(),
        WebhookStats { queued: 100, given_up: GivenUp { timed_out: 900, ..GivenUp::default() }, failures: 3, sent: 0 }
    );
    let mut batch = queue.take(BatchBounds { events_max: 100, bytes_max: 300 }).expect("events wait in the queue");
    assert_eq!((batch.len(), batch[0].seq), (10, 901));
    queue.delivered(&mut batch, 4);
    assert_eq!((batch.len(), batch[0].seq, queue.stats().queued, queue.stats().sent), (6, 905, 96, 4));
    queue.count_refused_request();
    queue.drop_refused(&mut batch);
    assert_eq!((batch.len(), batch[0].seq), (5, 906));
    let given_up = GivenUp { timed_out: 900, refused: 1, ..GivenUp::default() };
    assert_eq!(queue.stats(), WebhookStats { queued: 95, given_up, failures: 5, sent: 4 });
}

#[test]
fn the_bytes_of_the_queue_are_bounded() {
    let queue = EventQueue::new(Bounds { events_max: 1000, bytes_max: 10 });
    let now = clock::now();
    let push = |length: usize, is_message| queue.push(vec![b'x'; length].into(), is_message, now);
    assert!(push(10, true));
    assert!(!push(1, true));
    assert!(push(10, false));
    assert!(!push(1, false));
    let mut batch = queue.take(BatchBounds { events_max: 9, bytes_max: 1 }).expect("events wait in the queue");
    assert!(!push(1, true), "events in flight must count for the bound");
    queue.delivered(&mut batch, 1);
    assert!(push(10, false) && !push(1, true));
}

/// Starts a back end that refuses a request if the text of an event starts with `bad`. The text of such an event, for
/// example `bad 413`, also contains the status of the refusal. The back end accepts all other requests.
fn start_selective_back_end() -> MockBackend {
    MockBackend::start(|received| match bad_status(received) {
        Some(status) => MockReply::Answer(status, "no"),
        None => MockReply::Answer(200, ""),
    })
}

fn bad_status(received: &Received) -> Option<u16> {
    let body = received.json();
    let mut texts =
        body["events"].as_array().expect("the body has events").iter().filter_map(|event| event["text"].as_str());
    texts.find_map(|text| text.strip_prefix("bad ")?.parse().ok())
}

#[test]
fn a_refused_event_is_dropped_and_blocks_no_other_event() {
    for status in [400, 401, 403, 404, 410, 413, 422, 431, 499] {
        let double = start_selective_back_end();
        // A refusal must cause no pause. `pause` is longer than the deadline of the test, so the test fails if a
        // refusal causes a pause.
        let pause = TEST_TIMEOUT * 10;
        let webhook = start(Config { backoff_first: pause, backoff_max: pause, ..config(&double) });
        for number in 1..=100 {
            let text = if number == 63 { format!("bad {status}") } else { number.to_string() };
            emit_text(&webhook, &text);
        }
        assert_eq!(webhook.finish(TEST_TIMEOUT), 0);
        let given_up = GivenUp { refused: 1, ..GivenUp::default() };
        let stats = webhook.stats();
        assert_eq!((stats.sent, stats.queued, stats.given_up), (99, 0, given_up), "{status}");
        let requests: Vec<Received> = std::iter::from_fn(|| double.try_next()).collect();
        // The first request contains only the events that were emitted before this request was sent. The back end
        // refuses up to seven requests until a request has a single event. After the refusal of the single event, each
        // accepted request doubles the number of events in the next request.
        assert!(requests.len() <= 24, "{}", requests.len());
        let taken: Vec<u64> = requests.iter().filter(|request| bad_status(request).is_none()).flat_map(seqs).collect();
        let expected: Vec<u64> = (1..=100).filter(|seq| *seq != 63).collect();
        assert_eq!(taken, expected, "the other events must arrive once and in order");
        assert_eq!(requests.last().expect("the back end received a request").json()["given_up"], 1);
        assert_eq!(stats.failures, requests.iter().filter(|request| bad_status(request).is_some()).count() as u64);
    }
}

#[test]
fn a_back_end_that_refuses_all_events_gets_about_one_request_per_event() {
    let double = MockBackend::always(404, "not found");
    let webhook = start(Config { queue_max: 1000, ..config(&double) });
    for number in 0..200 {
        emit_text(&webhook, &number.to_string());
    }
    await_stats(&webhook, |stats| stats.given_up.refused == 200);
    let requests: Vec<Vec<u64>> = std::iter::from_fn(|| double.try_next()).map(|received| seqs(&received)).collect();
    assert!(requests.len() <= 200 + 14, "{}", requests.len());
    let single: Vec<u64> = requests.iter().filter(|seqs| seqs.len() == 1).map(|seqs| seqs[0]).collect();
    assert_eq!(single, (1..=200).collect::<Vec<u64>>(), "each event must be refused alone, once and in order");
    assert_eq!(webhook.stats().queued, 0);
}

#[test]
fn many_consecutive_refusals_cause_a_pause() {
    let double = MockBackend::always(401, "");
    let webhook = start(Config { queue_max: 1000, ..config(&double) });
    let start = clock::now();
    for number in 0..120 {
        emit_text(&webhook, &number.to_string());
    }
    await_stats(&webhook, |stats| stats.given_up.refused == 120);
    let taken = clock::now() - start;
    assert!(
        taken >= Duration::from_millis(20 * 20),
        "each refusal from the hundredth on must cause a pause: {taken:?}"
    );
}

#[test]
fn refused_and_failing_events_keep_their_order() {
    let count = AtomicUsize::new(0);
    // Every third request fails with status 503, regardless of its events.
    let is_well = move || !count.fetch_add(1, Ordering::SeqCst).is_multiple_of(3);
    let double = MockBackend::start(move |received| match bad_status(received) {
        _ if !is_well() => MockReply::Answer(503, ""),
        Some(status) => MockReply::Answer(status, ""),
        None => MockReply::Answer(204, ""),
    });
    let webhook = start(Config { batch_max: 16, ..config(&double) });
    let is_bad = |number: u64| number.is_multiple_of(7) || (40..=50).contains(&number) || number == 1 || number == 99;
    for number in 1..=99 {
        emit_text(&webhook, &if is_bad(number) { "bad 413".to_owned() } else { number.to_string() });
    }
    let bad = (1..=99).filter(|number| is_bad(*number)).count() as u64;
    await_stats(&webhook, |stats| stats.queued == 0);
    let stats = webhook.stats();
    assert_eq!((stats.sent, stats.given_up.gaps(), stats.given_up.refused), (99 - bad, bad, bad));
    let requests: Vec<Received> = std::iter::from_fn(|| double.try_next()).collect();
    let mut next = 1;
    for (index, request) in requests.iter().enumerate() {
        let seqs = seqs(request);
        assert_eq!(seqs[0], next, "{seqs:?}");
        match bad_status(request) {
            _ if index.is_multiple_of(3) => {}
            None => next = seqs.last().expect("an event arrived") + 1,
            Some(_) if seqs.len() == 1 => next += 1,
            Some(_) => {}
        }
    }
    assert_eq!(next, 100);
}

#[test]
fn an_event_is_refused_even_if_the_body_of_the_answer_is_invalid() {
    let endless: Vec<u8> = [b"HTTP/1.1 400 No\r\n\r\n".as_slice(), &vec![b'x'; 1 << 20]].concat();
    let replies: [fn(Vec<u8>) -> MockReply; 3] = [
        MockReply::Raw,
        |_| MockReply::Raw(b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\n1".to_vec()),
        |_| MockReply::Trickle("HTTP/1.1 400 \r\n\r\n"),
    ];
    for reply in replies {
        let endless = endless.clone();
        let double = MockBackend::start(move |received| match bad_status(received) {
            Some(_) => reply(endless.clone()),
            None => MockReply::Answer(200, ""),
        });
        // The slow back end needs 0.2 s for the head of its answer. If the head arrives after the timeout on a busy
        // machine, the webhook repeats the request.
        let webhook = start(Config { timeout: Duration::from_secs(2), ..config(&double) });
        emit_text(&webhook, "bad 400");
        await_stats(&webhook, |stats| stats.given_up.refused == 1);
        emit_text(&webhook, "good");
        await_stats(&webhook, |stats| stats.sent == 1);
    }
}

#[test]
fn the_pause_lasts_at_least_as_long_as_the_header_retry_after_states() {
    let answers = [
        "HTTP/1.1 429 Too Many\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 Busy\r\nretry-after: 1\r\nContent-Length: 0\r\n\r\n",
    ];
    for answer in answers {
        let count = AtomicUsize::new(0);
        let (sender, times) = mpsc::channel();
        let double = MockBackend::start(move |_| {
            sender.send(clock::now()).expect("the test waits");
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => MockReply::Raw(answer.into()),
                _ => MockReply::Answer(200, ""),
            }
        });
        let webhook = start(config(&double));
        emit_text(&webhook, "patience");
        let [first, second] = [(); 2].map(|()| times.recv_timeout(TEST_TIMEOUT).expect("a request arrives"));
        assert!(second - first >= Duration::from_secs(1), "{answer}");
        await_stats(&webhook, |stats| stats == WebhookStats { sent: 1, failures: 1, ..WebhookStats::default() });
    }
}

#[test]
fn the_pause_from_the_header_retry_after_is_bounded() {
    for pause in ["31536000", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        let count = AtomicUsize::new(0);
        let double = MockBackend::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => MockReply::Raw(format!("HTTP/1.1 503 Busy\r\nRetry-After: {pause}\r\n\r\n").into()),
            _ => MockReply::Answer(200, ""),
        });
        let webhook = start(Config { retry_after_max: Duration::from_millis(10), ..config(&double) });
        emit_text(&webhook, "patience");
        await_stats(&webhook, |stats| stats.sent == 1);
    }
}

#[test]
fn failing_events_are_sent_in_smaller_requests() {
    // A request with more than three events fails. `replies` lists the ways in which a request fails. The timeout is
    // short only for a back end that hangs. With a short timeout, the webhook would repeat requests to a back end that
    // answers late on a busy machine.
    let replies: [(fn() -> MockReply, Duration); 3] = [
        (|| MockReply::Answer(500, ""), TEST_TIMEOUT),
        (|| MockReply::Raw(Vec::new()), TEST_TIMEOUT),
        (|| MockReply::Hang, Duration::from_millis(300)),
    ];
    for (reply, timeout) in replies {
        let gate = Arc::new(Barrier::new(2));
        let (passes, count) = (Arc::clone(&gate), AtomicUsize::new(0));
        let double = MockBackend::start(move |received| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                passes.wait();
            }
            if seqs(received).len() > 3 { reply() } else { MockReply::Answer(200, "") }
        });
        let webhook = start(Config { timeout, retry_time_max: TEST_TIMEOUT * 2, ..config(&double) });
        emit_text(&webhook, "first");
        double.next();
        for number in 0..20 {
            emit_text(&webhook, &number.to_string());
        }
        gate.wait();
        await_stats(&webhook, |stats| stats.sent == 21);
        assert_eq!(webhook.stats().given_up, GivenUp::default());
    }
}

#[test]
fn only_a_body_with_a_single_event_may_exceed_the_maximum_length_of_a_body() {
    let double = MockBackend::always(200, "");
    let batch_bytes_max = 700;
    let contact = BackendConfig { node: "n".repeat(128), ..double.contact() };
    let webhook = start(Config { batch_bytes_max, contact, ..config(&double) });
    for number in 0..300_usize {
        emit_text(&webhook, &"\u{1}\"x".repeat(number % 40));
    }
    await_stats(&webhook, |stats| stats.sent == 300);
    let requests: Vec<Received> = std::iter::from_fn(|| double.try_next()).collect();
    assert!(requests.iter().any(|request| seqs(request).len() > 1));
    for request in requests {
        assert!(request.body.len() <= batch_bytes_max || seqs(&request).len() == 1, "{}", request.body.len());
    }
}

#[test]
fn an_oversized_event_is_counted_and_leaves_no_gap_in_the_sequence_numbers() {
    let double = MockBackend::always(200, "");
    let webhook = start(Config { event_bytes_max: 4096, ..config(&double) });
    let emit =
        |text: &str| webhook.emit(Event::Message { fd: Fd::from_u64(1).expect("the fd is valid"), uid: None, text });
    assert_eq!(emit(&"\u{1}".repeat(1000)), EmitResult::TooLarge(4096));
    assert_eq!(emit(&"x".repeat(3000)), EmitResult::Queued);
    await_stats(&webhook, |stats| stats.sent == 1);
    let request = double.next();
    assert_eq!((seqs(&request), &request.json()["given_up"]), (vec![1], &0.into()));
    assert_eq!(webhook.stats().given_up, GivenUp { too_large: 1, ..GivenUp::default() });
}
