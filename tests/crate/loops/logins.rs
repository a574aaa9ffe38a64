//! Tests logins with the same uid on all loops at the same moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use fdpush::{AbortOutcome, Change, Context, Delivery, Fd, Limits, Request, SecondLogin, Server, Upgrade};

use super::clients::{ask_at, connect_each, connect_one_each, loop_of};
use crate::common::{Client, DEADLINE, TestServer, accept_with_fd, channel, refusal, serve};

const LOOPS: usize = 4;
const THREADS: usize = 8;

/// Accepts an upgrade with the uid of the query.
fn accept_uid(_: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> Upgrade {
    let uid = request.query("uid").unwrap_or_default();
    Upgrade::accept().uid(uid).header("X-Fd", fd.to_string()).into()
}

fn start(policy: SecondLogin, limits: Limits) -> TestServer {
    serve(move |server: Server| server.loops(LOOPS).second_login(policy).limits(limits).on_upgrade(accept_uid))
}

/// Makes this number of connections from each of [`THREADS`] threads at the same time. Returns the clients, and the
/// statuses of refusals.
fn race(server: &TestServer, connects: usize, target: &str) -> (Vec<Client>, Vec<u16>) {
    let (start, address) = (&Barrier::new(THREADS), server.address());
    let connect = move || {
        start.wait();
        let connect = |_| Client::connect(address, target, &[]);
        (0..connects).map(connect).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(connect)).collect();
        let results = threads.into_iter().flat_map(|thread| thread.join().expect("the thread ends without a panic"));
        let (accepted, refused): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
        (accepted.into_iter().flatten().collect(), refused.into_iter().map(|error| refusal(error).0).collect())
    })
}

#[test]
fn the_last_of_thousands_of_racing_logins_stays() {
    let server = start(SecondLogin::KickOld, Limits::default());
    let mut logins = 0;
    // Each round has clients of all loops. The clients of a round are closed before the next round.
    for _ in 0..5 {
        let (clients, refused) = race(&server, 50, "/?uid=u");
        assert_eq!((clients.len(), refused.len()), (THREADS * 50, 0));
        logins += clients.len();
        for index in 0..LOOPS {
            assert!(clients.iter().any(|client| loop_of(client.fd(), LOOPS) == index), "loop {index} must have logins");
        }
        server.wait_until("one connection stays", |ctx| ctx.connection_count("u") == 1);
        let mut stayed = Vec::new();
        let owner = || server.remote.fds_of("u").wait().expect("the server answers");
        let fds = owner();
        assert_eq!(fds.len(), 1, "the uid must have exactly one connection");
        for mut client in clients {
            if client.fd() == fds[0] {
                stayed.push(client);
            } else {
                assert_eq!(client.closed(), (4001, "uid connected again".to_owned()));
            }
        }
        assert_eq!(owner(), fds);
        let delivery = server.remote.push_uid("u", "to the last").wait().expect("the server answers");
        assert_eq!((delivery.matched, delivery.queued), (1, 1));
        assert_eq!(stayed[0].text(), "to the last");
    }
    assert_eq!(logins, 2000);
}

#[test]
fn one_of_racing_logins_wins_and_the_others_are_refused() {
    let server = start(SecondLogin::RejectNew, Limits::default());
    for round in 0..250 {
        let (mut clients, refused) = race(&server, 1, &format!("/?uid=u{round}"));
        assert_eq!((clients.len(), refused), (1, vec![409; THREADS - 1]), "exactly one login must succeed");
        let client = clients.remove(0);
        assert_eq!(server.remote.fds_of(format!("u{round}")).wait(), Ok(vec![client.fd()]));
    }
}

#[test]
fn a_uid_is_free_after_its_connection_has_ended() {
    let server = start(SecondLogin::RejectNew, Limits::default());
    for round in 0..2 * LOOPS {
        let mut client = server.connect("/?uid=u");
        assert_eq!(refusal(Client::connect(server.address(), "/?uid=u", &[])).0, 409, "round {round}");
        client.close(1000, "");
        server.wait_until("the uid is free", |ctx| !ctx.is_online("u"));
    }
}

#[test]
fn the_connections_of_a_uid_are_limited_on_all_loops_together() {
    let limits = Limits { uid_connections_max: Some(3), ..Limits::default() };
    let server = start(SecondLogin::Multi, limits);
    for round in 0..100 {
        let uid = format!("u{round}");
        let (clients, refused) = race(&server, 1, &format!("/?uid={uid}"));
        assert_eq!((clients.len(), refused), (3, vec![429; THREADS - 3]));
        assert_eq!(server.remote.fds_of(uid).wait().map(|fds| fds.len()), Ok(3));
    }
}

#[test]
fn a_bind_of_a_racing_connection_follows_the_same_rules() {
    let server = serve(|server| server.loops(LOOPS).second_login(SecondLogin::KickOld));
    let clients: Vec<Client> = (0..40).map(|_| server.connect("/")).collect();
    let fds: Vec<Fd> = clients.iter().map(Client::fd).collect();
    // Each loop binds all its connections in one turn, and all loops do so at the same moment.
    let bound = server.remote.call_each(move |ctx| {
        let own: Vec<Fd> = fds.iter().copied().filter(|fd| ctx.is_own(*fd)).collect();
        own.into_iter().map(|fd| ctx.bind(fd, "u").is_done()).collect::<Vec<bool>>()
    });
    let bound = bound.wait().expect("the server answers").concat();
    assert_eq!(bound, [true; 40]);
    let owner = server.remote.fds_of("u").wait().expect("the server answers");
    assert_eq!(owner.len(), 1);
    for mut client in clients.into_iter().filter(|client| client.fd() != owner[0]) {
        assert_eq!(client.closed().0, 4001);
    }
}

#[test]
fn a_connection_that_claims_its_uid_again_survives_an_earlier_kick() {
    let server = serve(|server| server.loops(2).second_login(SecondLogin::KickOld));
    let mut clients = connect_one_each(&server, 2);
    let (first, second) = (clients[0].fd(), clients[1].fd());
    assert_eq!(server.remote.bind(first, "u").wait(), Ok(Change::Done));
    let (entered, enter) = channel();
    let (release, released) = mpsc::channel::<()>();
    // The bind of the second connection sends a kick to the first loop. Before the kick takes effect, the first
    // connection claims its uid again in one command.
    let claims = server.remote.call_at(first, move |ctx| {
        entered.send(()).expect("the test waits");
        let _ = released.recv_timeout(DEADLINE);
        [ctx.unbind(first), ctx.bind(first, "u")]
    });
    enter.next();
    assert_eq!(server.remote.bind(second, "u").wait(), Ok(Change::Done));
    end_turn(&server, second);
    release.send(()).expect("the loop waits");
    assert_eq!(claims.wait(), Ok([Change::Done; 2]));
    assert_eq!(clients[1].closed(), (4001, "uid connected again".to_owned()));
    end_turn(&server, first);
    assert_eq!(server.remote.push_uid("u", "to the last").wait(), Ok(Delivery::new(1, 0)));
    assert_eq!(clients[0].text(), "to the last");
}

#[test]
fn a_user_that_changes_loops_during_a_command_is_not_offline() {
    let server = serve(|server| server.loops(2));
    let mut by_loop = connect_each(&server, 2, 2);
    let old = by_loop[1][0].fd();
    let mut clients = by_loop.remove(0);
    let (new, other) = (clients[0].fd(), clients[1].fd());
    assert_eq!(server.remote.bind(old, "u").wait(), Ok(Change::Done));
    assert_eq!(server.remote.join(old, "g").wait(), Ok(Change::Done));
    // A connection of the first loop has the uid `v` and the group `h`. The commands below go to the uids `u` and `v`
    // and to the groups `g` and `h`, and must also find the connection that has the uid `u` and the group `g`.
    assert_eq!(server.remote.bind(other, "v").wait(), Ok(Change::Done));
    assert_eq!(server.remote.join(other, "h").wait(), Ok(Change::Done));
    let (entered, enter) = channel();
    let (release, released) = mpsc::channel::<()>();
    // The second loop is blocked. When it continues, it first aborts the old connection, and then carries out its parts
    // of the commands below.
    let held_up = server.remote.call_at(old, move |ctx| {
        entered.send(()).expect("the test waits");
        let _ = released.recv_timeout(DEADLINE);
        ctx.abort(old)
    });
    enter.next();
    let remote = &server.remote;
    let (online, fds, members) = (remote.is_online("u"), remote.fds_of("u"), remote.members("g"));
    let one = [remote.push_uid("u", "uid"), remote.push_group("g", "group")];
    let two = [remote.push_uids(["v", "u"], "uids"), remote.push_groups(["h", "g"], "groups")];
    // When the first loop binds the new connection, it has already carried out its parts of the commands above.
    assert_eq!(remote.bind(new, "u").wait(), Ok(Change::Done));
    assert_eq!(remote.join(new, "g").wait(), Ok(Change::Done));
    // The connection `other` has got the push to `h` and `g` as a member of `h`. As a member of `g`, it must not get
    // this push again.
    assert_eq!(remote.join(other, "g").wait(), Ok(Change::Done));
    release.send(()).expect("the loop waits");
    assert_eq!(held_up.wait(), Ok(AbortOutcome::Aborted { was_open: true }));
    assert_eq!((online.wait(), fds.wait(), members.wait()), (Ok(true), Ok(vec![new]), Ok(vec![new, other])));
    assert_eq!(one.map(|push| push.wait()), [Ok(Delivery::new(1, 0)), Ok(Delivery::new(2, 0))]);
    assert_eq!(two.map(|push| push.wait()), [Ok(Delivery::new(2, 0)); 2]);
    assert_eq!(server.remote.broadcast("end").wait().map(|delivery| delivery.matched), Ok(3));
    let mut texts = |index: usize| -> Vec<String> {
        std::iter::from_fn(|| Some(clients[index].text()).filter(|text| text != "end")).collect()
    };
    let sorted = |mut texts: Vec<String>| {
        texts.sort_unstable();
        texts
    };
    // The server repeats a push for the names whose connections it missed. The repeated push may arrive after later
    // messages.
    assert_eq!(sorted(texts(0)), ["group", "groups", "uid", "uids"]);
    assert_eq!(sorted(texts(1)), ["group", "groups", "uids"]);
}

#[test]
fn a_push_to_a_user_with_many_logins_always_has_a_receiver() {
    let server = serve(|server: Server| {
        server.loops(2).second_login(SecondLogin::KickOld).on_upgrade(|ctx, fd, request| match request.query("uid") {
            Some(_) => accept_uid(ctx, fd, request),
            None => accept_with_fd(ctx, fd, request),
        })
    });
    let pusher = connect_one_each(&server, 2).remove(0);
    let mut last = server.connect("/?uid=u");
    let (logins, address) = (Arc::new(AtomicBool::new(false)), server.address());
    let is_done = Arc::clone(&logins);
    let thread = thread::spawn(move || {
        for _ in 0..300 {
            let next = Client::connect(address, "/?uid=u", &[]).expect("the server accepts the WebSocket");
            drop(std::mem::replace(&mut last, next));
        }
        is_done.store(true, Ordering::Release);
        last
    });
    let mut pushes = 0;
    while !logins.load(Ordering::Acquire) || pushes == 0 {
        let deliveries = ask_at(&server, pusher.fd(), |ctx| -> Vec<Delivery> {
            (0..20)
                .map(|number| if number % 2 == 0 { ctx.push_uid("u", "x") } else { ctx.push_uids(["u"], "x") })
                .collect()
        });
        for delivery in deliveries {
            assert_eq!(delivery.matched + delivery.forwarded, 1, "{delivery:?}");
            pushes += 1;
        }
        assert_eq!(server.remote.is_online("u").wait(), Ok(true));
        assert_eq!(server.remote.fds_of("u").wait().map(|fds| fds.len()), Ok(1));
        let delivery = server.remote.push_uids(["u", "nobody"], "x").wait().expect("the server answers");
        assert!(delivery.matched > 0, "{delivery:?}");
    }
    drop(thread.join().expect("the thread ends without a panic"));
}

/// Waits until the loop of a connection has sent the posts of earlier commands to the other loops. A post is, for
/// instance, a kick of a connection of another loop.
fn end_turn(server: &TestServer, fd: Fd) {
    let (ended, end) = channel();
    ask_at(server, fd, move |ctx| {
        // A loop sends its posts at the end of a turn, after its timers have fired. The second timer fires in a later
        // turn than the first, so the posts of the turn of the first timer are sent before.
        ctx.after(Duration::ZERO, move |ctx| {
            ctx.after(Duration::ZERO, move |_| ended.send(()).expect("the test waits"));
        });
    });
    end.next();
}
