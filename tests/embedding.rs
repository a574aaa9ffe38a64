//! The server inside a larger program: on another thread, with handlers of the program's own types, and with timers.

mod common;

use std::cell::Cell;
use std::panic;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use common::{Client, channel, serve};
use fdpush::{Closures, Context, Fd, Handler, Message, Remote, Reply, Server};

/// Fails to compile if `T` is not `Send`.
const fn assert_send<T: Send>() {}

const _: () = assert_send::<Server>();
const _: () = assert_send::<Server<Closures>>();
const _: () = assert_send::<Remote>();
const _: () = assert_send::<Reply<String>>();

#[test]
fn a_built_server_moves_to_another_thread() {
    let server = Server::bind("127.0.0.1:0").expect("a listener").catch_signals(false).on_message(common::echo);
    let (address, remote) = (server.local_addr().expect("a TCP address"), server.remote());
    let running = thread::spawn(move || server.run());
    let mut client = Client::connect(address, "/", &[]).expect("a WebSocket");
    client.send("hello");
    assert_eq!(client.text(), "hello");
    remote.drain().expect("a server");
    running.join().expect("no panic").expect("a regular end");
}

/// A handler that is not `Send`.
struct Counter(Rc<Cell<u32>>);

impl Handler for Counter {
    fn on_message(&mut self, ctx: &mut Context<'_>, _: Fd, _: Message<'_>) {
        self.0.set(self.0.get() + 1);
        ctx.drain();
    }
}

#[test]
fn a_handler_that_is_not_send_runs_on_the_thread_that_made_it() {
    let count = Rc::new(Cell::new(0));
    let server = Server::bind("127.0.0.1:0").expect("a listener").catch_signals(false);
    let server = server.handler(Counter(Rc::clone(&count)));
    let address = server.local_addr().expect("a TCP address");
    let client = thread::spawn(move || {
        let mut client = Client::connect(address, "/", &[]).expect("a WebSocket");
        client.send("count this");
        let (code, _) = client.closed();
        client.end();
        code
    });
    server.run().expect("a regular end");
    assert_eq!((count.get(), client.join().expect("no panic")), (1, 1001));
}

#[test]
fn a_timer_calls_its_closure_once() {
    let (sender, calls) = channel();
    let server = serve(|server| server.on_timer(|_, _| panic!("the timer has a closure")));
    server.ask(move |ctx| {
        let value = String::from("moved into the closure");
        ctx.after(Duration::from_millis(5), move |ctx| {
            sender.send((value, ctx.stats().timers)).expect("the test waits");
        })
    });
    assert_eq!(calls.next(), ("moved into the closure".to_owned(), 0));
    assert!(calls.is_disconnected(), "the closure is dropped after its call");
}

#[test]
fn a_repeated_closure_is_called_until_it_cancels_itself() {
    let (sender, calls) = channel();
    let server = serve(|server| server);
    server.ask(move |ctx| {
        let timer = Rc::new(Cell::new(None));
        let own = Rc::clone(&timer);
        let mut count = 0;
        timer.set(Some(ctx.every(Duration::from_millis(1), move |ctx| {
            count += 1;
            sender.send(count).expect("the test waits");
            if count == 3 {
                assert!(ctx.cancel(own.get().expect("it was set at once")));
            }
        })));
    });
    assert_eq!([calls.next(), calls.next(), calls.next()], [1, 2, 3]);
    assert!(calls.is_disconnected(), "a cancelled closure is dropped");
    assert_eq!(server.ask(|ctx| ctx.stats().timers), 0);
}

#[test]
fn a_cancelled_closure_is_dropped_uncalled() {
    let (sender, calls) = channel::<()>();
    let server = serve(|server| server);
    server.ask(move |ctx| {
        let timer = ctx.after(Duration::from_millis(1), move |_| sender.send(()).expect("the test waits"));
        assert!(ctx.cancel(timer) && !ctx.cancel(timer));
    });
    assert!(calls.is_disconnected());
}

#[test]
fn a_repeated_closure_that_panics_is_called_again() {
    let (sender, calls) = channel();
    let server = serve(|server| server);
    let timer = server.ask(move |ctx| {
        let mut count = 0;
        ctx.every(Duration::from_millis(1), move |_| {
            count += 1;
            sender.send(count).expect("the test waits");
            // No panic hook: the message is no part of this test's output.
            panic::resume_unwind(Box::new("a test panics here"));
        })
    });
    assert_eq!([calls.next(), calls.next()], [1, 2]);
    assert!(server.ask(move |ctx| ctx.cancel(timer)));
}
