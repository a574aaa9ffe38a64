//! Tests sessions, paged listings of connections, and `on_stop`.

use std::rc::Rc;

use crate::common::{Client, DropSignal, channel, serve};
use fdpush::{Context, Delivery, Fd, Outcome, Upgrade};

/// The type of the session that these tests store for a connection.
struct Session {
    path: String,
    messages: u32,
}

#[test]
fn a_session_exists_from_the_upgrade_to_the_end_of_on_close() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server
            .on_upgrade(|ctx, fd, request| {
                assert!(ctx.set_session(fd, Session { path: request.path().into_owned(), messages: 0 }).is_done());
                Upgrade::accept().header("X-Fd", fd.to_string())
            })
            .on_message(|ctx, fd, _| {
                let session = ctx.session_mut::<Session>(fd).expect("on_upgrade sets the session");
                session.messages += 1;
                let line = format!("{} {}", session.path, session.messages);
                ctx.push(fd, &line);
            })
            .on_close(move |ctx, fd, _| {
                let session = ctx.session::<Session>(fd).expect("the session still exists");
                tx.send((fd, session.messages)).expect("the test waits");
                assert!(!ctx.set_session(fd, 1u8).is_done(), "no session may be set in on_close");
            })
    });
    let (mut ann, mut bob) = (server.connect("/ann"), server.connect("/bob"));
    let fd = ann.fd();
    for (client, answer) in [(&mut ann, "/ann 1"), (&mut bob, "/bob 1")] {
        client.send("hello");
        assert_eq!(client.text(), answer);
    }
    ann.send("again");
    assert_eq!(ann.text(), "/ann 2");
    ann.close(1000, "");
    assert_eq!(rx.next(), (fd, 2));
    server.ask(move |ctx| {
        assert!(ctx.session::<Session>(fd).is_none(), "the session must be dropped with its connection")
    });
}

#[test]
fn a_connection_has_one_session_of_one_type() {
    let server = serve(|server| server);
    let client = server.connect("/");
    let fd = client.fd();
    server.ask(move |ctx: &mut Context<'_>| {
        assert!(ctx.session::<u8>(fd).is_none(), "`session` must return no session before one is set");
        // A session need not be `Send`, because it stays on the thread of the loop.
        assert!(ctx.set_session(fd, Rc::new(7)).is_done());
        assert!(ctx.session::<u8>(fd).is_none(), "`session` must not return a session of another type");
        assert!(ctx.take_session::<u8>(fd).is_none(), "`take_session` must not remove a session of another type");
        assert_eq!(ctx.session::<Rc<i32>>(fd).map(|rc| **rc), Some(7));
        assert!(ctx.set_session(fd, 8u8).is_done(), "the new session must replace the old one");
        assert_eq!(ctx.take_session(fd), Some(8u8));
        assert_eq!(ctx.take_session::<u8>(fd), None);
        let unknown = Fd::from_u64(999).expect("the fd is valid");
        assert!(!ctx.set_session(unknown, 1u8).is_done());
    });
}

#[test]
fn the_session_of_a_refused_upgrade_is_dropped() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.on_upgrade(move |ctx, fd, _| {
            ctx.set_session(fd, DropSignal(tx.clone(), "dropped"));
            Upgrade::refuse(fdpush::Response::text(401, "no\n"))
        })
    });
    assert_eq!(server.refusal("/", &[]).0, 401);
    assert_eq!(rx.next(), "dropped");
}

#[test]
fn a_paged_listing_contains_each_open_connection_once() {
    let server = serve(|server| server);
    let mut clients: Vec<Client> = (0..10).map(|_| server.connect("/")).collect();
    let fds: Vec<Fd> = clients.iter().map(Client::fd).collect();
    let page = |after, limit| server.ask(move |ctx| ctx.connections_after(after, limit));
    assert_eq!(page(None, 4), fds[..4]);
    // Before the test reads the second page, the last connection of the first page closes, and a new connection takes
    // its slot.
    clients.remove(3).close(1000, "");
    server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 9);
    let newcomer = server.connect("/");
    assert_eq!(newcomer.fd().slot(), fds[3].slot());
    assert_eq!(page(Some(fds[3]), 4), fds[4..8]);
    assert_eq!(page(Some(fds[7]), 4), fds[8..]);
    assert_eq!(page(Some(fds[9]), 4), []);
    assert_eq!(page(None, 0), []);
    let reply = server.remote.connections_after(None, 100).sent().expect("the inbox has room");
    assert_eq!(reply.wait().expect("the server answers").len(), 10);
}

#[test]
fn a_push_to_many_fds_reaches_each_once() {
    let server = serve(|server| server);
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect("/")).collect();
    let fds: Vec<Fd> = clients.iter().map(Client::fd).collect();
    let mut named = vec![fds[0], fds[2], fds[0], Fd::from_u64(999).expect("the fd is valid")];
    let delivery = server.ask({
        let named = named.clone();
        move |ctx| ctx.push_fds(named, "to two")
    });
    assert_eq!(delivery, Delivery::new(2, 0));
    named.push(fds[1]);
    let reply = server
        .remote
        .push_fds(named, fdpush::Message::Text("to one").except(&fds[1..]))
        .sent()
        .expect("the inbox has room");
    assert_eq!(reply.wait().map(|delivery| delivery.matched), Ok(1));
    assert_eq!(clients[0].text(), "to two");
    assert_eq!(clients[0].text(), "to one");
    assert_eq!(clients[2].text(), "to two");
    server.ask(|ctx| ctx.broadcast("to all"));
    assert_eq!(clients[1].text(), "to all", "the client must get no message before the broadcast");
    assert_eq!(clients[2].text(), "to all");
}

#[test]
fn on_stop_is_the_last_callback() {
    let (tx, rx) = channel();
    let tx_stop = tx.clone();
    let server = serve(move |server| {
        server.on_close(move |_, _, _| tx.send("close").expect("the test waits")).on_stop(move |ctx| {
            assert_eq!(ctx.stats().open, 0);
            tx_stop.send("stop").expect("the test waits");
        })
    });
    let clients = [server.connect("/"), server.connect("/")];
    server.remote.shutdown().expect("the inbox has room");
    assert_eq!([rx.next(), rx.next()], ["close", "close"]);
    drop(clients);
    assert_eq!(rx.next(), "stop");
    drop(server);
    assert_eq!(rx.so_far(), [""; 0]);
}

#[test]
fn a_handler_can_use_a_session_and_the_context_at_the_same_time() {
    let (sender, sessions) = channel();
    let server = serve(|server| {
        server.on_close(move |ctx, fd, _| sender.send(ctx.take_session::<String>(fd)).expect("the test waits"))
    });
    let mut client = server.connect("/");
    let fd = client.fd();
    server.ask(move |ctx| {
        assert_eq!(
            ctx.with_session(fd, |_, _: &mut String| ()),
            None,
            "without a session, the call must return `None`"
        );
        ctx.set_session(fd, "hello".to_owned());
        assert_eq!(
            ctx.with_session(fd, |_, _: &mut u32| ()),
            None,
            "with a session of another type, the call must return `None`"
        );
        let outcome = ctx.with_session(fd, |ctx, session: &mut String| {
            session.push_str(", world");
            ctx.push(fd, session.as_str())
        });
        assert_eq!(outcome, Some(Outcome::Queued));
        ctx.with_session(fd, |ctx, _: &mut String| ctx.set_session(fd, "a newer one".to_owned()));
        assert_eq!(ctx.session::<String>(fd).map(String::as_str), Some("a newer one"));
        ctx.with_session(fd, |ctx, _: &mut String| ctx.close(fd, 1000, ""));
    });
    assert_eq!(client.text(), "hello, world");
    assert_eq!(client.closed().0, 1000);
    assert_eq!(sessions.next().as_deref(), Some("a newer one"), "on_close must get the newest session");
}
