//! Tests the server inside a larger program: on another thread, with handlers of the program's own types, and with
//! timers.

use std::cell::Cell;
use std::panic;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::common::{Client, channel, limits_with_long_times, serve};
use fdpush::{
    Closures, Context, Delivery, Fd, Handler, Limits, Message, Remote, RemoteError, Reply, ReplyFuture, Server,
};

/// Fails to compile if `T` is not `Send`.
const fn assert_send<T: Send>() {}

const _: () = assert_send::<Server>();
const _: () = assert_send::<Server<Closures>>();
const _: () = assert_send::<Remote>();
const _: () = assert_send::<Reply<String>>();
const _: () = assert_send::<ReplyFuture<String>>();

#[test]
fn a_built_server_moves_to_another_thread() {
    let server = Server::bind("127.0.0.1:0")
        .expect("the server can listen")
        .catch_signals(false)
        .on_message(crate::common::echo);
    let (address, remote) = (server.local_addr().expect("the server listens on TCP"), server.remote());
    let running = thread::spawn(move || server.run());
    let mut client = Client::connect(address, "/", &[]).expect("the server accepts the WebSocket");
    client.send("hello");
    assert_eq!(client.text(), "hello");
    remote.shutdown().expect("the server is running");
    assert_eq!(client.closed().0, 1001);
    running.join().expect("the thread ends without a panic").expect("the server ends without an error");
}

/// A handler that is not `Send`.
struct Counter(Rc<Cell<u32>>);

impl Handler for Counter {
    fn on_message(&mut self, ctx: &mut Context<'_>, _: Fd, _: Message<'_>) {
        self.0.set(self.0.get() + 1);
        ctx.shutdown();
    }
}

#[test]
fn a_handler_that_is_not_send_runs_on_the_thread_that_made_it() {
    let count = Rc::new(Cell::new(0));
    let server = Server::bind("127.0.0.1:0").expect("the server can listen").catch_signals(false);
    let server = server.handler(Counter(Rc::clone(&count)));
    let address = server.local_addr().expect("the server listens on TCP");
    let client = thread::spawn(move || {
        let mut client = Client::connect(address, "/", &[]).expect("the server accepts the WebSocket");
        client.send("count this");
        client.closed().0
    });
    server.run().expect("the server ends without an error");
    assert_eq!((count.get(), client.join().expect("the thread ends without a panic")), (1, 1001));
}

#[test]
fn a_timer_calls_its_closure_once() {
    let (sender, calls) = channel();
    let server = serve(|server| server.on_timer(|_, _| panic!("on_timer was called for a timer with a closure")));
    server.ask(move |ctx| {
        let value = String::from("moved into the closure");
        ctx.after(Duration::from_millis(5), move |ctx| {
            sender.send((value, ctx.stats().timers)).expect("the test waits");
        })
    });
    assert_eq!(calls.next(), ("moved into the closure".to_owned(), 0));
    assert!(calls.is_disconnected(), "the closure must be dropped after its call");
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
                assert!(ctx.cancel(own.get().expect("the timer id is set before the timer fires")));
            }
        })));
    });
    assert_eq!([calls.next(), calls.next(), calls.next()], [1, 2, 3]);
    assert!(calls.is_disconnected(), "a cancelled closure must be dropped");
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
            // `resume_unwind` calls no panic hook, so this test prints no panic message.
            panic::resume_unwind(Box::new("panic of the test"));
        })
    });
    assert_eq!([calls.next(), calls.next()], [1, 2]);
    assert!(server.ask(move |ctx| ctx.cancel(timer)));
}

/// Wakes a thread that is parked in [`block_on`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls a future until it is ready. Parks the thread between two polls.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(thread::current())).into();
    loop {
        match future.as_mut().poll(&mut task::Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_task_awaits_the_replies_of_commands() {
    async fn push_twice(remote: &Remote) -> Result<(Delivery, Delivery), RemoteError> {
        let (first, second) = (remote.broadcast("first"), remote.broadcast("second").into_future());
        Ok((first.await?, second.await?))
    }
    let server = serve(|server| server);
    let mut client = server.connect("/");
    let all = Delivery::new(1, 0);
    assert_eq!(block_on(push_twice(&server.remote)), Ok((all, all)));
    assert_eq!([client.text(), client.text()], ["first", "second"]);
    let panics: Reply<()> = server.remote.call(|_| panic::resume_unwind(Box::new("panic of the test")));
    assert_eq!(block_on(panics.into_future()), Err(RemoteError::Panicked));
    let remote = server.remote.clone();
    server.stop().expect("the server ends without an error");
    assert_eq!(block_on(push_twice(&remote)), Err(RemoteError::Closed));
}

#[test]
fn a_full_inbox_accepts_a_shutdown_and_runs_it_after_its_commands() {
    let mut server = serve(|server| server.limits(Limits { inbox_max: 1, ..limits_with_long_times() }));
    let mut client = server.connect("/");
    let (held, release) = server.hold();
    let push = server.remote.broadcast("before the end").sent().expect("the inbox has room");
    assert_eq!(server.remote.broadcast("too many").wait(), Err(RemoteError::Full));
    for _ in 0..3 {
        assert_eq!(server.remote.shutdown(), Ok(()));
    }
    release.send(()).expect("the loop waits");
    assert_eq!(held.wait(), Ok(()));
    assert_eq!(push.wait().map(|delivery| delivery.queued), Ok(1));
    assert_eq!(client.text(), "before the end");
    assert_eq!(client.closed().0, 1001);
    server.wait_for_end().expect("the server ends without an error");
    assert_eq!(server.remote.shutdown(), Err(RemoteError::Closed));
}
