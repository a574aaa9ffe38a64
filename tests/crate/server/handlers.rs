//! Tests the log lines about handlers that panic or block the loop.

use std::time::Duration;

use fdpush::{Context, Fd, Response};

use crate::common::log_lines::{block, keep_log_lines};
use crate::common::{TestServer, serve, silence_intended_panics};

/// Blocks the loop if the action is `block`, and panics if it is `panic`.
fn act(what: Option<&str>) {
    match what {
        Some("block") => block(),
        Some("panic") => panic!("on purpose: \"quoted\"\nERROR forged"),
        _ => {}
    }
}

/// Starts a server whose handlers block or panic. The query `?HANDLER=ACTION` or the payload selects the handler and
/// the action.
fn server_with_actions() -> TestServer {
    keep_log_lines();
    silence_intended_panics();
    let payload = |bytes: &[u8]| act(str::from_utf8(bytes).ok());
    serve(move |server| {
        server
            .on_upgrade(|ctx, fd, request| {
                act(request.query("upgrade").as_deref());
                crate::common::accept_with_fd(ctx, fd, request)
            })
            .on_open(|ctx, fd, request| {
                if let Some(uid) = request.query("uid") {
                    ctx.bind(fd, uid);
                }
                ctx.set_session(fd, request.query("close").unwrap_or_default().into_owned());
                act(request.query("open").as_deref());
            })
            .on_message(move |_, _, message| payload(message.as_bytes()))
            .on_ping(move |_, _, bytes| payload(bytes))
            .on_pong(move |_, _, bytes| payload(bytes))
            .on_close(|ctx: &mut Context<'_>, fd: Fd, _| act(ctx.session::<String>(fd).map(String::as_str)))
            .on_request(|_, _, request| {
                act(request.query("request").as_deref());
                Response::text(200, "fine\n")
            })
            .on_notice(|ctx, notice| match notice.downcast_ref::<&str>() {
                Some(&"timer") => drop(ctx.set_timer(Duration::ZERO)),
                what => act(what.copied()),
            })
            .on_timer(|_, _| act(Some("block")))
    })
}

#[test]
fn a_handler_that_blocks_the_loop_is_logged_by_name() {
    let server = server_with_actions();
    let blocked =
        |name: &str, peer: &str| server.wait_for_log_line(&format!("WARN {name} blocked the loop for "), peer);
    let mut ann = server.connect("/?uid=ann&open=block&close=block");
    let (fd, peer) = (
        ann.fd(),
        server.ask({
            let fd = ann.fd();
            move |ctx| ctx.info(fd).expect("the connection exists").peer
        }),
    );
    let named = format!(", fd {fd}, uid \"ann\", peer {peer} (1 since the last warning)");
    assert!(blocked("on_open", &named).ends_with(&named));
    ann.send("block");
    assert!(blocked("on_message", &named).ends_with(&named));
    ann.ping(b"block");
    assert!(blocked("on_ping", &named).ends_with(&named));
    ann.close(1000, "");
    assert!(blocked("on_close", &named).ends_with(&named));
    server.connect("/?upgrade=block");
    blocked("on_upgrade", ", fd ");
    let mut http = server.raw();
    http.send("GET /?request=block HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(http.reply().status, 200);
    blocked("on_request", ", fd ");
    server.remote.notify("block").expect("the inbox has room");
    blocked("on_notice", "ms (1 since");
    server.remote.notify("timer").expect("the inbox has room");
    blocked("on_timer", "ms (1 since");
    server.ask(|_| act(Some("block")));
    blocked("a command of Remote", "ms (1 since");
}

#[test]
fn a_slow_request_is_not_logged_as_on_message() {
    let server = server_with_actions();
    let mut refused = server.raw();
    let peer = format!("peer {} ", refused.local_addr());
    // The server logs the refusal of this request. The logger then blocks.
    refused.send(crate::common::raw::UPGRADE.replace("\r\n\r\n", "\r\nOrigin: http://slow-log.example\r\n\r\n"));
    assert_eq!(refused.reply().status, 403);
    server.wait_for_log_line("WARN fd ", "http://slow-log.example");
    server.ask(|_| ());
    assert_eq!(server.log_lines(&["WARN on_message blocked", &peer]), [""; 0]);
}

#[test]
fn a_panic_is_logged_in_one_line_with_handler_and_connection() {
    let server = server_with_actions();
    let text = "panicked: \"on purpose: \\\"quoted\\\"\\nERROR forged\"";
    for (name, target, payload) in [("on_open", "/?uid=bob&open=panic", ""), ("on_message", "/?uid=bob", "panic")] {
        let mut bob = server.connect(target);
        bob.send(payload);
        assert_eq!(bob.closed().0, 1011);
        let line = server.wait_for_log_line(
            &format!("ERROR {name} {text}"),
            &format!(", fd {}, uid \"bob\", peer 127.0.0.1:", bob.fd()),
        );
        assert!(line.ends_with(": the connection is closed") && !line.contains('\n'), "{line}");
    }
    assert_eq!(server.refusal("/?upgrade=panic", &[]).0, 500);
    server.wait_for_log_line(&format!("ERROR on_upgrade {text}"), ", peer 127.0.0.1:");
    server.remote.notify("panic").expect("the inbox has room");
    assert_eq!(server.wait_for_log_line(&format!("ERROR on_notice {text}"), ""), format!("ERROR on_notice {text}"));
}
