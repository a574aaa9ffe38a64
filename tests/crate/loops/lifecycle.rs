//! Tests servers with several loops: the handlers of the loops, changes of the settings, the shutdown, and the end of
//! one loop by an error or a panic.

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use fdpush::{Context, Error, Fd, Handler, Limits, Message, Origins, RemoteError, Response, Server};

use super::clients::{ask_at, connect_one_each, loop_of, wait_for_stats};
use crate::common::{Client, DEADLINE, accept_with_fd, channel, serve, serve_made};

const LOOPS: usize = 3;

/// Answers each message with the index of the loop, and with the number of messages that the loop has received.
struct Counter {
    index: usize,
    messages: usize,
    // A handler need not be `Send`, because the thread of its loop creates it.
    _local: std::rc::Rc<()>,
}

impl Handler for Counter {
    fn on_upgrade(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &fdpush::Request<'_>) -> fdpush::Upgrade {
        accept_with_fd(ctx, fd, request)
    }

    fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, _: Message<'_>) {
        assert_eq!(ctx.loop_index(), self.index);
        self.messages += 1;
        ctx.push(fd, &format!("{} {}", self.index, self.messages));
    }
}

#[test]
fn a_factory_makes_the_handler_of_each_loop() {
    let make = |index| Counter { index, messages: 0, _local: std::rc::Rc::default() };
    let server = serve_made(|| Server::bind("127.0.0.1:0"), move |server| server.handlers(make).loops(LOOPS));
    let mut clients = connect_one_each(&server, LOOPS);
    for round in 1..5 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.send("count");
            assert_eq!(client.text(), format!("{index} {round}"));
        }
    }
}

#[test]
fn each_loop_has_its_own_copy_of_the_closures() {
    let (reports, report) = channel();
    let server = serve(|server| {
        let mut messages = 0;
        let (started, stopped) = (reports.clone(), reports);
        server
            .on_start(move |ctx| started.send(("start", ctx.loop_index())).expect("the test waits"))
            .on_stop(move |ctx| _ = stopped.send(("stop", ctx.loop_index())))
            .on_message(move |ctx, fd, _| {
                messages += 1;
                ctx.push(fd, &messages.to_string());
            })
            .on_request(|ctx, fd, _| Response::text(200, format!("{} {}", ctx.loop_index(), ctx.is_own(fd))))
            .loops(LOOPS)
    });
    let mut clients = connect_one_each(&server, LOOPS);
    for round in 1..4 {
        for client in &mut clients {
            client.send("count");
            assert_eq!(client.text(), round.to_string());
        }
    }
    let mut raw = server.raw();
    raw.send(crate::common::raw::GET);
    assert!(raw.reply().body.ends_with(" true"));
    server.stop().expect("the server drains");
    let mut reports = report.so_far();
    reports.sort_unstable();
    let of = |event| (0..LOOPS).map(move |index| (event, index));
    assert!(reports.into_iter().eq(of("start").chain(of("stop"))));
}

#[test]
fn a_single_handler_and_a_wrong_number_of_loops_are_refused() {
    struct Single;
    impl Handler for Single {}
    let bind = || Server::bind("127.0.0.1:0").expect("the server can bind a free port").catch_signals(false);
    assert!(matches!(bind().handler(Single).loops(2).run(), Err(Error::OneHandler)));
    assert!(matches!(bind().loops(0).run(), Err(Error::Loops(0))));
    assert!(matches!(bind().loops(257).run(), Err(Error::Loops(257))));
    let limits = Limits { forward_bytes_max: 1 << 20, ..Limits::default() };
    assert!(matches!(bind().loops(2).limits(limits).run(), Err(Error::Limit(_))));
}

#[test]
fn the_default_limits_permit_many_loops() {
    let server = Server::bind("127.0.0.1:0").expect("the server can bind a free port").catch_signals(false).loops(64);
    let indices = server.remote().call_each(|ctx| (ctx.loop_index(), ctx.limits() == &Limits::default()));
    server.remote().shutdown().expect("the inbox has room");
    thread::spawn(move || server.run()).join().expect("the thread ends without a panic").expect("the server drains");
    assert_eq!(indices.wait_timeout(DEADLINE), Ok((0..64).map(|index| (index, true)).collect()));
}

#[test]
fn a_factory_that_waits_for_its_server_gets_an_error() {
    for loops in [1, LOOPS] {
        let server =
            Server::bind("127.0.0.1:0").expect("the server can bind a free port").catch_signals(false).loops(loops);
        let (results, result) = channel();
        let remote = server.remote();
        remote.shutdown().expect("the inbox has room");
        let make = move |index| {
            results.send(remote.is_online("u").wait()).expect("the test waits");
            Counter { index, messages: 0, _local: std::rc::Rc::default() }
        };
        server.handlers(make).run().expect("the server drains");
        assert_eq!(result.so_far(), vec![Err(RemoteError::OwnThread); loops]);
    }
}

#[test]
fn a_server_with_one_loop_can_use_a_factory() {
    let make = |index| Counter { index, messages: 0, _local: std::rc::Rc::default() };
    let server = serve_made(|| Server::bind("127.0.0.1:0"), move |server| server.handlers(make));
    let mut client = server.connect("/");
    client.send("count");
    assert_eq!((client.text(), client.fd().as_u64()), ("0 1".to_owned(), 1));
    // A server with one loop has no directory and no counters that several loops share.
    assert!(server.ask(|ctx| format!("{ctx:?}").contains("siblings: None")));
}

#[test]
fn a_shutdown_from_any_loop_drains_all_loops() {
    for from in 0..LOOPS {
        let mut server = serve(|server| server.loops(LOOPS));
        let clients = connect_one_each(&server, LOOPS);
        ask_at(&server, clients[from].fd(), |ctx| ctx.shutdown());
        for mut client in clients {
            assert_eq!(client.closed(), (1001, "server is shutting down".to_owned()));
        }
        server.wait_for_end().expect("the server drains");
    }
}

#[test]
fn a_loop_that_has_drained_answers_until_all_loops_have_drained() {
    let mut server = serve(|server| server.loops(2));
    let mut clients = connect_one_each(&server, 2);
    server.remote.shutdown().expect("the server runs");
    let _ = clients[0].close_frame();
    drop(clients.remove(0));
    // The second client does not answer the close frame yet.
    let connections = wait_for_stats(&server, "one client is left", |stats| stats.connections == 1);
    assert_eq!(connections.open, 0);
    assert_eq!(server.remote.call_each(|ctx| ctx.is_draining()).wait(), Ok(vec![true, true]));
    drop(clients);
    server.wait_for_end().expect("the server drains");
    assert_eq!(server.remote.stats().wait().map(|stats| stats.open), Err(RemoteError::Closed));
}

#[test]
fn commands_before_the_run_are_carried_out_on_all_loops() {
    let server = Server::bind("127.0.0.1:0").expect("the server can bind a free port").catch_signals(false);
    let remote = server.remote();
    let (indices, stats) = (remote.call_each(|ctx| ctx.loop_index()), remote.stats_by_loop());
    let at = remote.call_at(Fd::from_u64(2).expect("the fd is valid"), |ctx| ctx.loop_index());
    let server = server.loops(LOOPS);
    let thread = thread::spawn(move || server.run());
    assert_eq!(indices.wait_timeout(DEADLINE), Ok(vec![0, 1, 2]));
    assert_eq!(stats.wait_timeout(DEADLINE).map(|stats| stats.len()), Ok(LOOPS));
    assert_eq!(at.wait_timeout(DEADLINE), Ok(1));
    remote.shutdown().expect("the server runs");
    thread.join().expect("the thread ends without a panic").expect("the server drains");

    let server =
        Server::bind("127.0.0.1:0").expect("the server can bind a free port").catch_signals(false).loops(LOOPS);
    server.remote().shutdown().expect("the inbox has room");
    server.run().expect("the server drains");
}

#[test]
fn commands_of_one_thread_stay_in_order_when_the_server_begins_to_run() {
    const COMMANDS: usize = 2000;
    let server =
        Server::bind("127.0.0.1:0").expect("the server can bind a free port").catch_signals(false).loops(LOOPS);
    let (remote, (calls, call)) = (server.remote(), channel());
    let send = |number: usize| {
        let calls = calls.clone();
        // The fds belong to the second and to the third loop.
        let fd = Fd::from_u64(2 + number as u64 % 2).expect("the fd is valid");
        drop(remote.call_at(fd, move |ctx| calls.send((ctx.loop_index(), number)).expect("the test waits")));
    };
    (0..COMMANDS / 2).for_each(send);
    let thread = thread::spawn(move || server.run());
    (COMMANDS / 2..COMMANDS).for_each(send);
    assert_eq!(remote.call_each(|_| ()).wait_timeout(DEADLINE), Ok(vec![(); LOOPS]));
    remote.shutdown().expect("the server runs");
    thread.join().expect("the thread ends without a panic").expect("the server drains");
    let calls = call.so_far();
    for index in [1, 2] {
        let of_loop = calls.iter().filter(|(other, _)| *other == index).map(|(_, number)| *number);
        assert!(of_loop.eq((0..COMMANDS).filter(|number| 1 + number % 2 == index)), "loop {index}");
    }
}

#[test]
fn new_settings_apply_to_all_loops() {
    let server = serve(|server| server.loops(LOOPS));
    let clients = connect_one_each(&server, LOOPS);
    ask_at(&server, clients[1].fd(), |ctx| {
        let limits = Limits { connection_groups_max: 1, queue_total_bytes_max: 30 << 20, ..ctx.limits().clone() };
        ctx.set_limits(limits).expect("the limits are valid");
        ctx.set_origins(Origins::Any);
        let limits = Limits { forward_bytes_max: 1 << 20, ..ctx.limits().clone() };
        ctx.set_limits(limits).expect_err("`forward_bytes_max` is too small for the longest message");
    });
    server.wait_until("the first loop has the limits", |ctx| ctx.limits().connection_groups_max == 1);
    for client in &clients {
        let fd = client.fd();
        assert_eq!(server.remote.join(fd, "a").wait(), Ok(fdpush::Change::Done));
        assert_eq!(server.remote.join(fd, "b").wait(), Ok(fdpush::Change::Full), "loop {}", loop_of(fd, LOOPS));
        assert_eq!(
            ask_at(&server, fd, |ctx| ctx.limits().queue_total_bytes_max),
            30 << 20,
            "each loop must return the limit of the server"
        );
        assert!(Client::connect(server.address(), "/", &[("Origin", "http://elsewhere")]).is_ok());
    }
}

#[test]
fn a_reply_cannot_be_waited_for_on_a_thread_of_a_loop() {
    let server = serve(|server| server.loops(2));
    let errors = server.remote.call_each(|ctx| {
        let remote = ctx.remote();
        (remote.stats().wait().err(), remote.push(Fd::from_u64(1).expect("the fd is valid"), "").wait().err())
    });
    let own = Some(RemoteError::OwnThread);
    assert_eq!(errors.wait(), Ok(vec![(own, own); 2]));
}

#[test]
fn calls_and_notices_go_to_the_loop_that_made_the_remote() {
    let (notices, notice) = channel();
    let server = serve(|server| {
        server.loops(LOOPS).on_notice(move |ctx, notice| {
            let number = notice.downcast::<usize>().map(|number| *number).ok();
            notices.send((ctx.loop_index(), number)).expect("the test waits");
        })
    });
    let remotes = server.remote.call_each(|ctx| ctx.remote()).wait().expect("the server answers");
    for (index, remote) in remotes.into_iter().enumerate() {
        assert_eq!(remote.call(|ctx| ctx.loop_index()).wait(), Ok(index));
        remote.notify(index).expect("the inbox has room");
        assert_eq!(notice.next(), (index, Some(index)));
    }
    server.remote.notify(7_usize).expect("the inbox has room");
    assert_eq!(notice.next(), (0, Some(7)));
}

#[test]
fn an_error_of_one_loop_drains_the_others() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the port can be bound");
    let socket = listener.try_clone().expect("the descriptor can be duplicated");
    let (closes, closed) = channel();
    let mut server = serve_made(
        move || Server::from_listener(listener),
        |server| server.loops(LOOPS).on_close(move |ctx, _, closed| _ = closes.send((ctx.loop_index(), closed.code))),
    );
    // The first loop accepts, and hands the sockets to the other loops.
    let clients = connect_one_each(&server, LOOPS);
    // Now accept(2) fails: the socket does not listen any more.
    socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Both).expect("the socket is a listener");
    for mut client in clients {
        assert_eq!(client.closed().0, 1001);
    }
    let ended = server.wait_for_end();
    assert!(matches!(ended, Err(Error::Accept(_))), "{ended:?}");
    let mut closes = closed.so_far();
    closes.sort_unstable_by_key(|(index, _)| *index);
    assert_eq!(closes.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_panic_of_a_factory_drains_the_other_loops_and_is_resumed() {
    let made = Arc::new(AtomicUsize::new(0));
    let make = {
        let made = Arc::clone(&made);
        move |index| {
            made.fetch_add(1, Ordering::AcqRel);
            assert_ne!(index, 1, "no handler for this loop");
            Counter { index, messages: 0, _local: std::rc::Rc::default() }
        }
    };
    let server = Server::bind("127.0.0.1:0")
        .expect("the server can bind a free port")
        .catch_signals(false)
        .loops(LOOPS)
        .handlers(make);
    let ended = catch_unwind(AssertUnwindSafe(|| server.run()));
    assert!(ended.is_err(), "`run` must resume the panic of the factory");
    assert_eq!(made.load(Ordering::Acquire), LOOPS);
}

#[test]
fn deferred_answers_reach_their_loop_from_any_loop() {
    let server = serve(|server| {
        server.loops(LOOPS).on_request(|ctx, fd, _| {
            let (later, ticket) = ctx.defer_response(fd);
            // Another loop answers.
            let fd = Fd::from_u64((ctx.loop_index() as u64 + 1) % LOOPS as u64 + 1).expect("the fd is valid");
            drop(ctx.remote().call_at(fd, move |ctx| {
                let text = format!("answered by {}", ctx.loop_index());
                assert_eq!(ctx.answer(ticket, Response::text(200, text)), fdpush::Change::Forwarded);
            }));
            later
        })
    });
    for _ in 0..LOOPS {
        let mut raw = server.raw();
        raw.send(crate::common::raw::GET);
        let reply = raw.reply();
        assert!(reply.status == 200 && reply.body.starts_with("answered by "), "{reply:?}");
    }
}

#[test]
fn control_connections_belong_to_the_first_loop() {
    let server = serve(|server| {
        let server = server.listen_control("127.0.0.1:0").expect("the server can bind a free port").loops(LOOPS);
        server
            .on_request(|ctx, _, request| Response::text(200, format!("{} {}", ctx.loop_index(), request.is_control())))
    });
    let fdpush::Address::Tcp(control) = server.addresses[1] else { panic!("the address is not a TCP address") };
    for _ in 0..6 {
        let mut raw = crate::common::Raw::connect(control);
        raw.send(crate::common::raw::GET);
        assert_eq!(raw.reply().body, "0 true");
    }
    let stats = server.remote.stats().wait().expect("the server answers");
    assert!(stats.control <= 6 && stats.accepted == 6, "{stats:?}");
}

#[test]
fn control_connections_are_served_until_all_loops_have_drained() {
    let mut server = serve(|server| {
        let server = server.listen_control("127.0.0.1:0").expect("the server can bind a free port").loops(2);
        server.on_request(|ctx, _, _| Response::text(200, format!("draining: {}", ctx.is_draining())))
    });
    let fdpush::Address::Tcp(control) = server.addresses[1] else { panic!("the address is not a TCP address") };
    let mut clients = connect_one_each(&server, 2);
    let mut raw = crate::common::Raw::connect(control);
    raw.send(crate::common::raw::GET);
    assert_eq!(raw.reply().body, "draining: false");
    server.remote.shutdown().expect("the server runs");
    // The client of the first loop disconnects. The other client does not answer its close frame yet.
    let _ = clients[0].close_frame();
    drop(clients.remove(0));
    wait_for_stats(&server, "the control connection and one client are left", |stats| stats.connections == 2);
    for _ in 0..5 {
        // Each command runs in its own turn of the first loop.
        assert_eq!(server.remote.call(|ctx| ctx.stats().control).wait(), Ok(1));
        raw.send(crate::common::raw::GET);
        assert_eq!(raw.reply().body, "draining: true");
    }
    drop(clients);
    raw.end();
    server.wait_for_end().expect("the server drains");
}

#[test]
fn a_drain_is_bounded_in_time_on_all_loops() {
    let limits = Limits { drain_time_max: Duration::from_millis(50), ..Limits::default() };
    let mut server = serve(move |server| server.loops(2).limits(limits));
    let clients = connect_one_each(&server, 2);
    server.remote.shutdown().expect("the server runs");
    // The clients do not answer the close frames.
    server.wait_for_end().expect("the server ends after drain_time_max");
    drop(clients);
    assert_eq!(refused_after_end(&server.remote), RemoteError::Closed);
}

fn refused_after_end(remote: &fdpush::Remote) -> RemoteError {
    remote.broadcast("late").wait().expect_err("the server has ended")
}
