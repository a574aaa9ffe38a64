//! Tests `Remote`, timers, and queries of the state of the server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::common::raw::UPGRADE;
use crate::common::{DEADLINE, channel, echo, limits_with_long_times, report_close, serve};
use fdpush::{
    AbortOutcome, Cause, Change, CloseCode, CloseOutcome, Delivery, Fd, Frame, Limits, Message, Notice, Outcome,
    RemoteError, Reply, Server, State,
};

#[test]
fn another_thread_can_push() {
    let server = serve(|server| server);
    let mut ann = server.connect("/?uid=ann&group=room");
    let mut bob = server.connect("/?uid=bob&group=room");
    let (remote, fd) = (server.remote.clone(), ann.fd());
    let pusher = thread::spawn(move || {
        let one = Delivery::new(1, 0);
        let two = Delivery::new(2, 0);
        assert_eq!(remote.push(fd, "by fd").wait(), Ok(Outcome::Queued));
        assert_eq!(remote.push_uid("ann", "by uid").wait(), Ok(one));
        assert_eq!(remote.push_uids(["ann", "bob", "ann"], "by uids").wait(), Ok(two));
        assert_eq!(remote.push_group("room", &Frame::binary(b"by group")).wait(), Ok(two));
        assert_eq!(remote.push_groups(["room", "room"], Message::Text("by groups").except(&[fd])).wait(), Ok(one));
        remote.broadcast("to all").wait()
    });
    assert_eq!(pusher.join().expect("the thread ends without a panic").map(|delivery| delivery.matched), Ok(2));
    assert_eq!(ann.text(), "by fd");
    assert_eq!(ann.text(), "by uid");
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.text(), "by uids");
        assert_eq!(client.binary(), b"by group");
    }
    assert_eq!(bob.text(), "by groups");
    assert_eq!(ann.text(), "to all");
    assert_eq!(bob.text(), "to all");
}

#[test]
fn another_thread_can_bind_join_query_and_close() {
    let server = serve(|server| server);
    let mut client = server.connect("/");
    let (remote, fd) = (&server.remote, client.fd());
    assert_eq!(remote.bind(fd, "ann").wait(), Ok(Change::Done));
    assert_eq!(remote.join(fd, "room").wait(), Ok(Change::Done));
    assert_eq!(remote.uid_of(fd).wait(), Ok(Some("ann".to_owned())));
    assert_eq!(remote.fds_of("ann").wait(), Ok(vec![fd]));
    assert_eq!(remote.members("room").wait(), Ok(vec![fd]));
    assert_eq!(remote.connections().wait(), Ok(vec![fd]));
    assert_eq!(remote.leave(fd, "room").wait(), Ok(Change::Done));
    assert_eq!(remote.ungroup("room").wait(), Ok(0));
    assert_eq!(remote.unbind(fd).wait(), Ok(Change::Done));
    assert_eq!(remote.close(fd, 4000, "enough").wait(), Ok(CloseOutcome::Closing));
    assert_eq!(client.closed(), (4000, "enough".to_owned()));
}

#[test]
fn commands_of_one_thread_run_in_order() {
    let server = serve(|server| server);
    let mut client = server.connect("/?uid=ann");
    for number in 0..1000 {
        drop(server.remote.push_uid("ann", &number.to_string()).sent().expect("the inbox has room"));
    }
    for number in 0..1000 {
        assert_eq!(client.text(), number.to_string());
    }
}

#[test]
fn concurrent_pushes_of_many_threads_all_arrive() {
    const THREADS: usize = 8;
    const EACH: usize = 200;
    let server = serve(|server| server);
    let mut client = server.connect("/?uid=ann");
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let remote = server.remote.clone();
            thread::spawn(move || {
                for number in 0..EACH {
                    drop(remote.push_uid("ann", &format!("{thread} {number}")).sent().expect("the inbox has room"));
                }
            })
        })
        .collect();
    let mut next = [0; THREADS];
    for _ in 0..THREADS * EACH {
        let text = client.text();
        let (thread, number) = text.split_once(' ').expect("the text has two numbers");
        let thread: usize = thread.parse().expect("the value is a number");
        assert_eq!(number, next[thread].to_string(), "thread {thread}");
        next[thread] += 1;
    }
    for thread in threads {
        thread.join().expect("the thread ends without a panic");
    }
}

#[test]
fn a_call_runs_on_the_loop_and_returns_its_value() {
    let server = serve(|server| server);
    let client = server.connect("/?uid=ann");
    let reply =
        server.remote.call(|ctx| (ctx.fds_of("ann"), thread::current().id())).sent().expect("the inbox has room");
    let (fds, id) = reply.wait_timeout(DEADLINE).expect("the server answers");
    assert_eq!(fds, [client.fd()]);
    assert_ne!(id, thread::current().id());
}

#[test]
fn a_panic_in_a_call_is_returned_to_its_caller_and_the_server_continues() {
    let server = serve(|server| server);
    let mut client = server.connect("/");
    for wait in [Reply::wait, |reply: Reply<()>| reply.wait_timeout(DEADLINE)] {
        let reply = server
            .remote
            .call(|_| std::panic::resume_unwind(Box::new("on purpose")))
            .sent()
            .expect("the inbox has room");
        assert_eq!(wait(reply), Err(RemoteError::Panicked));
    }
    server.ask(|ctx| ctx.broadcast("still here"));
    assert_eq!(client.text(), "still here");
}

#[test]
fn a_notice_reaches_on_notice() {
    struct News(&'static str);
    let server = serve(|server| {
        server.on_notice(|ctx, notice: Notice| {
            let news = notice.downcast::<News>().expect("the notice is a `News`");
            ctx.broadcast(news.0);
        })
    });
    let mut client = server.connect("/");
    server.remote.notify(News("first")).expect("the inbox has room");
    server.remote.notify(News("second")).expect("the inbox has room");
    assert_eq!(client.text(), "first");
    assert_eq!(client.text(), "second");
}

#[test]
fn a_full_inbox_refuses_further_commands_and_the_accepted_ones_run() {
    let server = serve(|server| server.limits(Limits { inbox_max: 3, ..limits_with_long_times() }));
    let (busy, release) = server.hold();
    let replies: Vec<_> =
        (0..3).map(|number| server.remote.call(move |_| number).sent().expect("the inbox has room")).collect();
    assert_eq!(server.remote.broadcast("too many").sent().map(|_| ()), Err(RemoteError::Full));
    assert_eq!(server.remote.notify(()), Err(RemoteError::Full));
    let timed_out = busy.wait_timeout(Duration::from_millis(1));
    assert_eq!(timed_out, Err(RemoteError::TimedOut));
    release.send(()).expect("the handler waits for the test");
    for (number, reply) in replies.into_iter().enumerate() {
        assert_eq!(reply.wait(), Ok(number));
    }
    assert_eq!(server.ask(|ctx| ctx.stats().open), 0, "the inbox must have room for one more command");
}

#[test]
fn commands_sent_before_run_are_run_or_return_closed() {
    let server = Server::bind("127.0.0.1:0").expect("the server can bind the address").catch_signals(false);
    let remote = server.remote();
    let (reply, late) =
        (remote.stats().sent().expect("the inbox has room"), remote.stats().sent().expect("the inbox has room"));
    drop(server);
    assert_eq!(
        reply.wait().map(|stats| stats.open),
        Err(RemoteError::Closed),
        "a server that never ran must answer no command"
    );
    assert_eq!(late.wait_timeout(DEADLINE).map(|stats| stats.open), Err(RemoteError::Closed));
    assert_eq!(remote.stats().sent().map(|_| ()), Err(RemoteError::Closed));

    let (tx, rx) = channel();
    let server = serve(move |server| {
        tx.send(server.remote().stats().sent().expect("the inbox has room")).expect("the test waits");
        server
    });
    assert_eq!(rx.next().wait().map(|stats| stats.open), Ok(0));
    drop(server);
}

#[test]
fn waiting_for_a_reply_on_the_loop_thread_returns_an_error() {
    let server = serve(|server| server);
    let outcome = server.ask(|ctx| ctx.remote().stats().wait().map(|_| ()));
    assert_eq!(outcome, Err(RemoteError::OwnThread));
    let outcome = server.ask(|ctx| ctx.remote().stats().wait_timeout(DEADLINE).map(|_| ()));
    assert_eq!(outcome, Err(RemoteError::OwnThread));
    // A handler may send a command and not wait for the reply. The command runs after the handler has returned.
    let mut client = server.connect("/");
    server.ask(|ctx| {
        drop(ctx.remote().broadcast("second").sent().expect("the inbox has room"));
        ctx.broadcast("first");
    });
    assert_eq!(client.text(), "first");
    assert_eq!(client.text(), "second");
}

#[test]
fn a_timeout_fires_once_and_never_early() {
    const DELAY: Duration = Duration::from_millis(30);
    let (tx, rx) = channel();
    let server =
        serve(move |server| server.on_timer(move |_, timer| tx.send((timer, Instant::now())).expect("the test waits")));
    for _ in 0..5 {
        let (set, timer) = server.ask(|ctx| {
            // Before this closure sets the timer, it blocks the loop for a time as long as the timer's delay.
            let since = Instant::now();
            while since.elapsed() < DELAY {
                thread::yield_now();
            }
            (Instant::now(), ctx.set_timer(DELAY))
        });
        let (fired, at) = rx.next();
        assert_eq!(fired, timer);
        assert!(at.duration_since(set) >= DELAY, "the timer must not fire before its delay");
        assert!(!server.ask(move |ctx| ctx.cancel(timer)), "a timer that fired must no longer exist");
    }
    assert!(rx.so_far().is_empty());
}

#[test]
fn an_interval_fires_until_it_is_cancelled() {
    let (tx, rx) = channel();
    let mut fired = 0;
    let server = serve(move |server| {
        server.on_timer(move |ctx, timer| {
            fired += 1;
            tx.send((timer, fired)).expect("the test waits");
            if fired == 5 {
                assert!(ctx.cancel(timer), "a timer may cancel itself");
                assert!(!ctx.cancel(timer));
                ctx.set_timer(Duration::from_millis(20));
            }
        })
    });
    let every = server.ask(|ctx| ctx.set_interval(Duration::from_millis(2)));
    for number in 1..=5 {
        assert_eq!(rx.next(), (every, number));
    }
    let (last, number) = rx.next();
    assert_ne!(last, every);
    assert_eq!(number, 6, "the cancelled interval must not fire again");
}

#[test]
fn missed_intervals_are_skipped() {
    const PERIOD: Duration = Duration::from_millis(20);
    let (tx, rx) = channel();
    let mut is_first = true;
    let server = serve(move |server| {
        server.on_timer(move |_, _| {
            let since = Instant::now();
            // The first call of the handler lasts ten intervals.
            while is_first && since.elapsed() < 10 * PERIOD {
                thread::yield_now();
            }
            is_first = false;
            tx.send(Instant::now()).expect("the test waits");
        })
    });
    let every = server.ask(|ctx| ctx.set_interval(PERIOD));
    let free = rx.next();
    for count in 0..5 {
        // Directly after the long first call, the server makes one call for all missed intervals. Then the interval
        // applies again. The times are ticks: milliseconds, rounded down.
        let earliest = (count * PERIOD).saturating_sub(Duration::from_millis(1));
        assert!(rx.next().duration_since(free) >= earliest, "call {count} must not come before its interval");
    }
    server.ask(move |ctx| ctx.cancel(every));
}

#[test]
fn a_cancelled_timer_never_fires() {
    let (tx, rx) = channel();
    let server = serve(move |server| server.on_timer(move |_, timer| tx.send(timer).expect("the test waits")));
    let (cancelled, kept) = server.ask(|ctx| {
        let cancelled = [ctx.set_timer(Duration::from_millis(1)), ctx.set_interval(Duration::from_millis(1))];
        let kept = ctx.set_timer(Duration::from_millis(20));
        assert!(ctx.cancel(cancelled[0]) && ctx.cancel(cancelled[1]));
        assert!(!ctx.cancel(cancelled[0]));
        (cancelled, kept)
    });
    let fired = rx.next();
    assert_eq!(fired, kept);
    assert!(!cancelled.contains(&fired));
    assert!(rx.so_far().is_empty());
}

#[test]
fn a_timer_with_the_longest_duration_is_valid() {
    let (tx, rx) = channel();
    let server = serve(move |server| server.on_timer(move |_, timer| tx.send(timer).expect("the test waits")));
    let (soon, far) = server.ask(|ctx| {
        let far = [
            ctx.set_timer(Duration::MAX),
            ctx.set_interval(Duration::MAX),
            ctx.set_timer(Duration::from_secs(u32::MAX.into())),
        ];
        (ctx.set_timer(Duration::ZERO), far)
    });
    assert_eq!(rx.next(), soon);
    assert!(server.ask(move |ctx| far.into_iter().all(|timer| ctx.cancel(timer))));
    assert!(rx.so_far().is_empty());
}

#[test]
fn on_start_is_called_before_the_first_connection() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        let open = tx.clone();
        server
            .on_start(move |ctx| {
                assert_eq!(ctx.stats().connections, 0);
                tx.send("start").expect("the test waits");
            })
            .on_open(move |_, _, _| open.send("open").expect("the test waits"))
    });
    let _client = server.connect("/");
    assert_eq!([rx.next(), rx.next()], ["start", "open"]);
}

#[test]
fn info_returns_the_state_of_a_connection() {
    let before = SystemTime::now() - Duration::from_secs(1);
    let server = serve(|server| server.on_message(echo));
    let mut client = server.connect("/?uid=ann&group=a&group=b");
    let fd = client.fd();
    client.send("hello");
    assert_eq!(client.text(), "hello");
    client.send_binary(&[0; 1000]);
    assert_eq!(client.binary().len(), 1000);
    let info = server.ask(move |ctx| ctx.info(fd)).expect("the connection exists");
    assert_eq!((info.fd, info.state, info.uid.as_deref()), (fd, State::Open, Some("ann")));
    assert_eq!(info.groups, ["b", "a"], "groups must be listed from the newest join to the oldest");
    assert!(info.peer.is_loopback());
    assert!(info.connected_at >= before && info.connected_at <= SystemTime::now() + Duration::from_secs(1));
    assert!(info.idle_for <= info.connected_for);
    assert_eq!(info.queued_bytes, 0);
    let traffic = info.traffic;
    assert_eq!((traffic.messages_in, traffic.messages_out), (2, 2));
    // The counted bytes include the upgrade, and both messages with their frame headers (masked and unmasked).
    assert!(traffic.bytes_in > 1000 + 8 + 5 + 6 && traffic.bytes_out > 1000 + 4 + 5 + 2);

    let mut waiting = server.raw();
    waiting.send(&UPGRADE[..20]);
    server.wait_until("the server reads the bytes", |ctx| {
        let http = Fd::from_u64(2).expect("the fd is valid");
        ctx.info(http).is_some_and(|info| info.traffic.bytes_in == 20 && info.state == State::Http)
    });
}

#[test]
fn stats_and_connections_return_the_state_of_the_server() {
    let server = serve(|server| server);
    let clients = [
        server.connect("/?uid=ann&group=a"),
        server.connect("/?uid=ann&group=b"),
        server.connect("/?uid=bob&group=a"),
        server.connect("/"),
    ];
    let fds = clients.each_ref().map(|client| client.fd());
    assert_eq!(server.ask(|ctx| ctx.connections().collect::<Vec<Fd>>()), fds, "connections must be listed by slot");
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!((stats.open, stats.connections, stats.accepted, stats.opened, stats.closed), (4, 4, 4, 4, 0));
    assert_eq!((stats.users, stats.groups, stats.refused, stats.queued_bytes), (2, 2, 0, 0));
    let [first, ..] = clients;
    drop(first);
    server.wait_until("one connection has ended", |ctx| ctx.stats().connections == 3);
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!((stats.open, stats.accepted, stats.opened, stats.closed), (3, 4, 4, 1));
    assert_eq!(server.ask(|ctx| ctx.connections().collect::<Vec<Fd>>()), fds[1..]);
}

#[test]
fn resume_continues_reading_a_paused_connection() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.on_message(move |_, fd, message| {
            tx.send((fd, message.as_text().unwrap_or_default().to_owned())).expect("the test waits");
        })
    });
    let mut paused = server.connect("/");
    let mut other = server.connect("/");
    let fd = paused.fd();
    assert!(server.ask(move |ctx| ctx.pause(fd).is_done()));
    paused.send("one");
    paused.send("two");
    for _ in 0..50 {
        other.send("meanwhile");
        assert_eq!(rx.next(), (other.fd(), "meanwhile".to_owned()));
    }
    // The connection is paused for reading only, so the server can still push to it.
    assert_eq!(server.ask(move |ctx| ctx.push(fd, "patience")), Outcome::Queued);
    assert_eq!(paused.text(), "patience");
    assert!(server.ask(move |ctx| ctx.resume(fd).is_done()));
    assert_eq!(rx.next(), (fd, "one".to_owned()));
    assert_eq!(rx.next(), (fd, "two".to_owned()));
}

#[test]
fn resume_delivers_messages_of_a_client_that_disconnected_while_paused() {
    let (messages, rx) = channel();
    let (tx, closes) = channel();
    let server = serve(move |server| {
        server
            .on_message(move |_, _, message| messages.send(message.len()).expect("the test waits"))
            .on_close(report_close(tx))
    });
    let mut client = server.connect("/");
    let fd = client.fd();
    server.ask(move |ctx| ctx.pause(fd));
    client.send("last words");
    drop(client);
    assert!(server.ask(move |ctx| ctx.resume(fd).is_done()));
    assert_eq!(rx.next(), 10);
    let (ended, closed) = closes.next();
    assert_eq!((ended, closed.code, closed.cause), (fd, CloseCode::ABNORMAL, Cause::ConnectionLost));
}

#[test]
fn common_queries_have_a_method_of_remote_and_call_serves_all_others() {
    let server = serve(|server| server);
    let mut client = server.connect("/?uid=ann&group=a&group=b");
    let (fd, remote) = (client.fd(), server.remote.clone());
    assert_eq!(remote.is_online("ann").wait(), Ok(true));
    assert_eq!(remote.is_online("bob").wait(), Ok(false));
    assert_eq!(remote.groups_of(fd).wait(), Ok(vec!["b".to_owned(), "a".to_owned()]));
    assert_eq!(remote.is_open(fd).wait(), Ok(true));
    assert_eq!(remote.ping(fd, *b"p").wait(), Ok(Outcome::Queued));
    assert_eq!(remote.ping(fd, vec![0; 126]).wait(), Ok(Outcome::TooLarge));
    assert_eq!(remote.call(move |ctx| ctx.protect(fd)).wait(), Ok(Change::Done));
    assert_eq!(remote.abort(fd).wait(), Ok(AbortOutcome::Aborted { was_open: true }));
    client.lost();
    assert_eq!(remote.is_open(fd).wait(), Ok(false));
}

#[test]
fn endless_commands_do_not_delay_clients() {
    const COMMANDS: usize = 100;
    let ran = Arc::new(AtomicUsize::new(0));
    let (tx, rx) = channel();
    let seen = Arc::clone(&ran);
    let server = serve(move |server| {
        server.on_message(move |_, _, _| tx.send(seen.load(Ordering::Relaxed)).expect("the test waits"))
    });
    let mut client = server.connect("/");
    let (go, wait) = mpsc::channel();
    let held = server.remote.call(move |_| wait.recv_timeout(DEADLINE)).sent().expect("the inbox has room");
    for _ in 0..COMMANDS {
        let ran = Arc::clone(&ran);
        let busy = move |_: &mut fdpush::Context<'_>| {
            let until = Instant::now() + Duration::from_millis(6);
            while Instant::now() < until {}
            ran.fetch_add(1, Ordering::Relaxed);
        };
        let _ = server.remote.call(busy).sent().expect("the inbox has room");
    }
    client.send("hello");
    go.send(()).expect("the loop waits");
    assert_eq!(held.wait(), Ok(Ok(())));
    let before = rx.next();
    assert!(before < COMMANDS / 2, "the message must arrive before half of the commands, not after {before}");
}

#[test]
fn on_turn_end_is_called_once_for_each_request() {
    let (sender, rx) = channel();
    let mut ends = 0;
    let server = serve(move |server| {
        server.on_turn_end(move |ctx| {
            ends += 1;
            if ends == 1 {
                ctx.request_turn_end();
            }
            ctx.push_group("g", &format!("end {ends}"));
            sender.send(ends).expect("the receiver is open");
        })
    });
    let mut client = server.connect("/?group=g");
    // The two calls of `request_turn_end` in this turn cause one call of `on_turn_end`. This handler calls
    // `request_turn_end` again, which causes the second call of `on_turn_end`.
    server.ask(|ctx| {
        ctx.request_turn_end();
        ctx.request_turn_end();
        ctx.push_group("g", "in the turn");
    });
    assert_eq!([client.text(), client.text(), client.text()], ["in the turn", "end 1", "end 2"]);
    assert_eq!((rx.next(), rx.next()), (1, 2));
    // A call of `request_turn_end` in a later turn causes one more call of `on_turn_end`.
    server.ask(|ctx| ctx.request_turn_end());
    assert_eq!((client.text().as_str(), rx.next()), ("end 3", 3));
    assert!(rx.so_far().is_empty());
}
