//! Tests stalled readers without TLS. docs/testing.md explains why these tests do not run through TLS.

use crate::common::{Client, Scratch, channel, report_close, serve, serve_on};
use crate::system::{TOTAL_MAX, limits_with, number};
use fdpush::{Limits, Outcome, SlowReader};

#[test]
fn stalled_readers_share_the_frames_of_a_broadcast() {
    let server = serve(|server| server.limits(limits_with(SlowReader::DropNewest)));
    let readers: Vec<_> = (0..200).map(|_| server.connect("/")).collect();
    for _ in 0..64 {
        let (delivery, queued) = server.ask(|ctx| {
            let delivery = ctx.broadcast(&vec![7; 16 << 10]);
            (delivery, ctx.stats().queued_bytes)
        });
        assert_eq!((delivery.matched, delivery.queued + delivery.dropped), (readers.len(), readers.len()));
        assert!(
            queued <= TOTAL_MAX,
            "a shared message must count once, so at most {TOTAL_MAX} bytes may be queued, not {queued}"
        );
    }
}

/// With `drop_newest`, the server can drop a message only if it has written no byte of the message. The test uses a
/// unix socket, because a unix socket accepts a small message completely or not at all.
#[test]
fn with_drop_newest_a_stalled_reader_loses_messages_but_stays_connected() {
    let scratch = Scratch::new("stalled");
    let path = scratch.file("sock");
    let (tx, rx) = channel();
    let limits = Limits { queue_bytes_max: TOTAL_MAX, ..limits_with(SlowReader::DropNewest) };
    let server =
        serve_on(&format!("unix:{}", path.display()), |server| server.limits(limits).on_close(report_close(tx)));
    let connect = || Client::connect_unix(&path, "/").expect("the server accepts the WebSocket");
    let (hog, mut stalled, mut quick) = (connect(), connect(), connect());
    let fds = [hog.fd(), stalled.fd(), quick.fd()];
    let queued = server.ask(move |ctx| {
        for size in [16 << 10, 100, 1] {
            while ctx.push(fds[0], &vec![0; size]).is_queued() {}
        }
        assert!(ctx.stats().queued_bytes > TOTAL_MAX / 16 * 14);
        let mut queued = 0u64;
        while ctx.push(fds[1], &[&queued.to_be_bytes()[..], &[0; 500]].concat()).is_queued() {
            queued += 1;
            assert!(ctx.stats().queued_bytes <= TOTAL_MAX);
        }
        assert!(ctx.is_open(fds[1]), "the server must drop messages for a stalled reader and keep it connected");
        assert_eq!(ctx.push(fds[2], "a fast reader can still be pushed to"), Outcome::Queued);
        let stays = ctx.info(fds[1]).expect("the connection exists").traffic.messages_out;
        assert!(stays > 100 && stays <= queued, "over 100 of the {queued} messages must stay queued, not {stays}");
        stays
    });
    assert_eq!(quick.text(), "a fast reader can still be pushed to");
    for sent in 0..queued {
        assert_eq!(number(&stalled.binary()), sent);
    }
    assert_eq!(server.ask(move |ctx| ctx.push(fds[1], "the client read its queue and is fast again")), Outcome::Queued);
    assert_eq!(stalled.text(), "the client read its queue and is fast again");
    assert!(rx.so_far().is_empty());
}
