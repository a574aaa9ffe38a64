//! Tests pushes to clients with and without permessage-deflate.

use crate::common::deflated::{connect, message};
use crate::common::{Client, Raw, limits_with_long_times, serve};
use fdpush::{Frame, Heartbeat, IntoPush, Limits, Message, Outcome, SlowReader};

fn limits() -> Limits {
    Limits { compression: true, ..limits_with_long_times() }
}

#[test]
fn a_message_to_many_clients_is_deflated_once() {
    let server = serve(|server| server.limits(limits()));
    let mut deflating: Vec<Raw> = (0..5).map(|_| connect(server.address(), "/?group=room")).collect();
    let mut plain: Vec<Client> = (0..5).map(|_| server.connect("/?group=room")).collect();
    let long = "{\"price\": 10, \"name\": \"gold\"}".repeat(40);
    let text = long.clone();
    let delivery = server.ask(move |ctx| {
        ctx.push_group("room", &text);
        ctx.push_group("room", "short");
        ctx.broadcast(&Frame::text(&text));
        ctx.broadcast((&text).compress(false))
    });
    assert_eq!((delivery.matched, delivery.queued), (10, 10));
    let expected = [(true, &long[..]), (false, "short"), (true, &long), (false, &long)];
    for raw in &mut deflating {
        for (is_deflated, text) in expected {
            assert_eq!(message(raw), (is_deflated, text.as_bytes().to_vec()));
        }
    }
    for client in &mut plain {
        for (_, text) in expected {
            assert_eq!(client.text(), text);
        }
    }
    let counts = server.ask(|ctx| ctx.stats().compression);
    assert_eq!((counts.deflated, counts.messages_out), (2, 10));
    assert_eq!(counts.bytes_out, 2 * long.len() as u64);
}

#[test]
fn without_a_receiver_that_negotiated_compression_no_message_is_deflated() {
    let server = serve(|server| server.limits(limits()));
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect("/")).collect();
    let long = "a message ".repeat(100);
    let text = long.clone();
    server.ask(move |ctx| ctx.broadcast(&text));
    clients.iter_mut().for_each(|client| assert_eq!(client.text(), long));
    assert_eq!(server.ask(|ctx| ctx.stats().compression), Default::default());
}

#[test]
fn the_length_from_which_messages_are_deflated_can_be_set() {
    let server = serve(|server| server.limits(Limits { compress_bytes_min: 2000, ..limits() }));
    let mut raw = connect(server.address(), "/");
    server.ask(|ctx| ctx.broadcast(&"x".repeat(1999)));
    server.ask(|ctx| ctx.broadcast(&"x".repeat(2000)));
    assert_eq!(message(&mut raw), (false, vec![b'x'; 1999]));
    assert_eq!(message(&mut raw), (true, vec![b'x'; 2000]));
}

#[test]
fn a_push_through_remote_keeps_its_compression_option() {
    let server = serve(|server| server.limits(limits()));
    let mut raw = connect(server.address(), "/?uid=ann");
    let long = "from another thread ".repeat(50);
    server.remote.push_uid("ann", &long).wait().expect("the server returns a result");
    server.remote.push_uid("ann", Message::Text(&long).compress(false)).wait().expect("the server returns a result");
    assert_eq!(message(&mut raw), (true, long.clone().into_bytes()));
    assert_eq!(message(&mut raw), (false, long.into_bytes()));
}

#[test]
fn slow_readers_with_and_without_compression_keep_the_total_bound() {
    const TOTAL_MAX: usize = 1 << 20;
    let limits = Limits {
        queue_bytes_max: 1 << 20,
        message_bytes_max: 64 << 10,
        queue_total_bytes_max: TOTAL_MAX,
        slow_reader: SlowReader::DropNewest,
        ..limits()
    };
    // The server sends no pings, because the clients of this test treat a ping as an error.
    let server = serve(move |server| server.limits(limits).heartbeat(Heartbeat::Off));
    let mut deflating: Vec<Raw> = (0..4).map(|number| connect(server.address(), &format!("/?uid=d{number}"))).collect();
    let mut plain: Vec<Client> = (0..4).map(|number| server.connect(&format!("/?uid=p{number}"))).collect();
    let texts: Vec<String> = (0..400_u64)
        .map(|number| {
            let noise = |at: u64| (number * 5000 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            (0..1500).fold(format!("{number} "), |text, at| text + &format!("{:x},", noise(at)))
        })
        .collect();
    let mut dropped = 0;
    for text in &texts {
        let text = text.clone();
        let (delivery, queued) = server.ask(move |ctx| (ctx.broadcast(&text), ctx.stats().queued_bytes));
        assert_eq!(delivery.matched, 8);
        dropped += delivery.dropped;
        assert!(queued <= TOTAL_MAX, "at most {TOTAL_MAX} bytes may be queued, not {queued}");
    }
    assert!(dropped > 0);
    // A reader can miss messages, but the messages that it gets are whole and in order.
    let deflated_bytes = server.ask(|ctx| ctx.stats().compression.bytes_out_deflated);
    assert!(deflated_bytes > 0);
    let check = |uid: String, mut next: Box<dyn FnMut() -> String + '_>| {
        let mut rest = texts.iter();
        let mut read = || {
            let received = next();
            assert!(received == "the end" || rest.any(|text| *text == received), "{}", &received[..10]);
            received
        };
        let push_end =
            || server.remote.push_uid(&uid, "the end").wait().expect("the server returns a result").queued == 1;
        while !push_end() {
            read();
        }
        while read() != "the end" {}
    };
    for (number, raw) in deflating.iter_mut().enumerate() {
        check(format!("d{number}"), Box::new(|| String::from_utf8(message(raw).1).expect("the text is UTF-8")));
    }
    for (number, client) in plain.iter_mut().enumerate() {
        check(format!("p{number}"), Box::new(|| client.text()));
    }
}

#[test]
fn a_message_over_the_queue_bound_is_too_large_even_if_it_deflates_to_less() {
    let limits = Limits { message_bytes_max: 1000, queue_bytes_max: 1010, ..limits() };
    let server = serve(move |server| server.limits(limits));
    let _raw = connect(server.address(), "/?uid=ann");
    let outcome = server.ask(|ctx| {
        let fd = ctx.fds_of("ann")[0];
        ctx.push(fd, &"x".repeat(1100))
    });
    assert_eq!(outcome, Outcome::TooLarge);
}
