//! Tests the selection of a subprotocol, and the refusal of offers without a common subprotocol. The server refuses an
//! offer before it checks limits and second logins.

use crate::common::backend::{Answer, Backend};
use crate::common::command::call;
use crate::common::gateway::{Gateway, SECRET, next};
use crate::common::{Client, refusal};
use serde_json::{Value, json};

const NONE: &str = "no common subprotocol: this server supports none\n";
const TWO: &str = "no common subprotocol: this server supports chat.v2, chat.v1\n";

/// Connects with these subprotocols. Returns the subprotocol in the 101 response, or the body of the 400 response.
fn offer(gateway: &Gateway, target: &str, offers: &str) -> Result<Option<String>, String> {
    let headers = [("Sec-WebSocket-Protocol", offers)];
    let headers = if offers.is_empty() { &[][..] } else { &headers };
    let client = Client::connect(gateway.address, target, headers);
    match client {
        Ok(mut client) => {
            assert_eq!(next(&mut client)["type"], "welcome");
            Ok(client.header("Sec-WebSocket-Protocol").map(str::to_owned))
        }
        refused => match refusal(refused) {
            (400, body) => Err(body),
            other => panic!("{other:?}"),
        },
    }
}

fn one(name: &str) -> Result<Option<String>, String> {
    Ok(Some(name.to_owned()))
}

#[test]
fn the_server_selects_a_subprotocol_in_its_own_order() {
    let gateway = Gateway::start(&["--subprotocols", "chat.v2,chat.v1"]);
    assert_eq!(offer(&gateway, "/", ""), Ok(None));
    assert_eq!(offer(&gateway, "/", "chat.v1, graphql-ws, chat.v2"), one("chat.v2"));
    assert_eq!(offer(&gateway, "/", "chat.v1"), one("chat.v1"));
    assert_eq!(offer(&gateway, "/", "bearer.x, chat.v1"), one("chat.v1"));
    assert_eq!(offer(&gateway, "/", "bearer.x"), one("bearer.x"));
    assert_eq!(offer(&gateway, "/", "graphql-ws"), Err(TWO.to_owned()));
    let silent = Gateway::start(&[]);
    assert_eq!(offer(&silent, "/", ""), Ok(None));
    assert_eq!(offer(&silent, "/", "chat.v1, bearer.x"), one("bearer.x"));
    assert_eq!(offer(&silent, "/", "chat.v1"), Err(NONE.to_owned()));
}

#[test]
fn a_malformed_list_of_subprotocols_is_refused() {
    let gateway = Gateway::start(&["--subprotocols", "chat.v1", "--on-second-login", "kick_old"]);
    let mut ann = gateway.connect("/?uid=ann");
    for offers in ["\"chat.v1\"", "chat.v1, \"a,b\"", "chat v1", "chat.v1;q=1", "bearer.a==", ",", " "] {
        let why = "Sec-WebSocket-Protocol must be a list of one or more tokens\n";
        assert_eq!(offer(&gateway, "/?uid=ann", offers), Err(why.to_owned()), "{offers:?}");
    }
    assert_eq!(offer(&gateway, "/?uid=bob", ", chat.v1 ,"), one("chat.v1"));
    gateway.done("/api/push", json!({"uid": "ann", "data": "still here"}));
    assert_eq!(next(&mut ann)["data"], "still here");
}

#[test]
fn a_client_without_a_common_subprotocol_kicks_no_connection() {
    let gateway = Gateway::start(&["--on-second-login", "kick_old"]);
    let mut ann = gateway.connect("/?uid=ann");
    assert_eq!(offer(&gateway, "/?uid=ann", "chat.v1"), Err(NONE.to_owned()));
    gateway.done("/api/push", json!({"uid": "ann", "data": "still here"}));
    assert_eq!(next(&mut ann)["data"], "still here");
    assert_eq!(gateway.get("/api/stats")["opened"], 1);
}

#[test]
fn the_bearer_subprotocol_is_echoed_for_every_token_source() {
    let token = call(&["token", "--uid", "ann", "--jwt-secret", SECRET], &[]).out.trim().to_owned();
    let gateway = Gateway::start(&["--auth", "jwt", "--jwt-secret", SECRET, "--subprotocols", "chat.v1"]);
    let (query, bearer) = (format!("/?token={token}"), format!("bearer.{token}"));
    assert_eq!(offer(&gateway, &query, ""), Ok(None));
    assert_eq!(offer(&gateway, &query, &bearer), one(&bearer));
    assert_eq!(offer(&gateway, &query, "bearer.other"), one("bearer.other"));
    assert_eq!(offer(&gateway, "/", &bearer), one(&bearer));
    assert_eq!(
        offer(&gateway, "/", &format!("{bearer}, chat.v1")),
        one("chat.v1"),
        "the server must select chat.v1, so that the 101 response does not contain the token"
    );
    assert_eq!(offer(&gateway, &query, "chat.v9").map_err(|body| body.contains("supports chat.v1")), Err(true));
}

#[test]
fn the_connect_hook_can_select_the_subprotocol() {
    let backend = Backend::start(|request| {
        let question: Value = request.json();
        let choice = match question["target"].as_str().expect("the request has a target") {
            "/second" => json!({"uid": "ann", "subprotocol": "chat.v1"}),
            "/own" => json!({"uid": "ann", "subprotocol": "the-shop's"}),
            _ => json!({"uid": "ann", "subprotocol": null}),
        };
        Answer::Status(200, choice.to_string())
    });
    let url = backend.url();
    let gateway = Gateway::start(&["--auth", "webhook", "--auth-url", &url, "--subprotocols", "chat.v2,chat.v1"]);
    let both = "chat.v1, chat.v2";
    assert_eq!(offer(&gateway, "/none", both), one("chat.v2"));
    assert_eq!(offer(&gateway, "/second", both), one("chat.v1"));
    assert_eq!(offer(&gateway, "/own", "the-shop's"), one("the-shop's"));
    assert_eq!(offer(&gateway, "/none", "bearer.x"), one("bearer.x"));
    assert_eq!(offer(&gateway, "/none", "graphql-ws"), Err(TWO.to_owned()));
    // A browser closes the connection if the server selects a subprotocol that the client did not offer. So an answer
    // of the hook with such a subprotocol is an error.
    let headers = [("Sec-WebSocket-Protocol", both)];
    assert_eq!(refusal(Client::connect(gateway.address, "/own", &headers)).0, 503);
    assert!(gateway.logged("connect hook failed").contains("was not offered by the client"));
    assert_eq!(refusal(Client::connect(gateway.address, "/own", &[])).0, 503);
    assert_eq!(gateway.metric(r#"fdpush_auth_requests_total{outcome="failed"}"#), 2.0);
}
