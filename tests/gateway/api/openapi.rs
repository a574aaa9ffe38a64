//! Tests `GET /openapi.json`: the document describes the server, and `docs/api.md` describes the same paths.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::gateway::{Gateway, JSON, json_of};

const DOCUMENT: &str = include_str!("../../../src/gateway/api/openapi.json");
const REFERENCE: &str = include_str!("../../../docs/api.md");

fn document() -> Value {
    serde_json::from_str(DOCUMENT).expect("the document is JSON")
}

fn members(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object.as_object().expect("the value is an object").iter().map(|(name, value)| (name.as_str(), value))
}

fn elements(array: &Value) -> &[Value] {
    array.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Returns the part of the document that the `$ref` of a value names, or the value itself if it has no `$ref`.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("the reference is valid"),
        None => value,
    }
}

/// Returns the path of a request, with a uid, a group and an fd in the places of the placeholders.
fn filled(path: &str, fd: u64) -> String {
    path.replace("{uid}", "ann").replace("{name}", "room").replace("{fd}", &fd.to_string())
}

/// Checks that an answer has all required members of a schema, and no member that the schema does not have.
fn check_answer(document: &Value, schema: &Value, answer: &Value, place: &str) {
    let schema = resolved(document, schema);
    for branch in elements(&schema["anyOf"]) {
        if !answer.is_null() && branch["type"] != "null" {
            check_answer(document, branch, answer, place);
        }
    }
    if let Some(properties) = schema["properties"].as_object() {
        for (name, value) in members(answer) {
            let property = properties.get(name).unwrap_or_else(|| panic!("{place}: the document must have {name}"));
            check_answer(document, property, value, &format!("{place}.{name}"));
        }
        for name in elements(&schema["required"]) {
            assert!(answer.get(name.as_str().expect("the name is a string")).is_some(), "{place}: expected {name}");
        }
    }
    for element in elements(answer) {
        check_answer(document, &schema["items"], element, &format!("{place}[]"));
    }
}

/// Returns the paths in `docs/api.md`, without their queries.
fn paths_in_reference() -> BTreeSet<&'static str> {
    let is_in_path = |byte: char| byte.is_ascii_alphanumeric() || "/{}%$._-".contains(byte);
    let starts = ["GET /", "PUT /", "POST /", "PATCH /", "$API/api/", ":9502/api/", "`/api/"];
    let ends_of_starts = starts.iter().flat_map(|start| {
        REFERENCE.match_indices(start).map(|(place, _)| place + start.find('/').expect("each start has a slash"))
    });
    ends_of_starts.map(|start| REFERENCE[start..].split(|letter| !is_in_path(letter)).next().unwrap_or("")).collect()
}

/// Returns whether the path of a request matches a path of the document. A placeholder, such as `{uid}`, matches any
/// segment.
fn is_path_of(path: &str, documented: &str) -> bool {
    let (given, wanted): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), documented.split('/').collect());
    given.len() == wanted.len()
        && given.iter().zip(wanted).all(|(given, wanted)| *given == wanted || wanted.starts_with('{'))
}

#[test]
fn the_document_is_served_like_other_queries() {
    let gateway = Gateway::start(&["--api-key", "key"]);
    let key = ("Authorization", "Bearer key");
    let reply = gateway.call("GET", "/openapi.json", &[key], "");
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(reply.header("Cache-Control"), Some("no-store"));
    assert_eq!(reply.body, DOCUMENT);
    assert_eq!(gateway.call("GET", "/openapi.json", &[], "").status, 401);
    let refused = gateway.call("POST", "/openapi.json", &[key], "{}");
    assert_eq!((refused.status, refused.header("Allow")), (405, Some("GET")));
}

#[test]
fn the_server_has_each_path_and_only_the_methods_of_the_document() {
    let gateway = Gateway::start(&[]);
    let (_ann, fd) = gateway.open("/?uid=ann", &[]);
    let document = document();
    for (path, operations) in members(&document["paths"]) {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            // An empty body is not a command, so the requests change nothing. An empty batch has no command.
            let reply = gateway.call(method, &filled(path, fd), &[JSON], "");
            let is_documented = operations.get(method.to_lowercase()).is_some();
            let is_valid = method == "GET" || path == "/api/batch";
            let expected = if !is_documented {
                405
            } else if is_valid {
                200
            } else {
                400
            };
            assert_eq!(reply.status, expected, "{method} {path}: {}", reply.body);
        }
    }
}

#[test]
fn the_server_accepts_only_the_members_and_parameters_of_the_document() {
    let gateway = Gateway::start(&[]);
    let document = document();
    for (path, operations) in members(&document["paths"]) {
        let body = &operations["post"]["requestBody"]["content"]["application/json"];
        if body.is_object() {
            let (status, answer) = gateway.post(path, json!({"colour": 1}));
            let message = answer["error"]["message"].as_str().expect("the error has a message");
            let (_, known) = message.split_once("; members: ").expect("the message lists the members");
            let schema = resolved(&document, &body["schema"]);
            let documented: BTreeSet<&str> = members(&schema["properties"]).map(|(name, _)| name).collect();
            assert_eq!((status, known.split(", ").collect()), (400, documented), "{path}");
        }
        let parameters = elements(&operations["get"]["parameters"]);
        let in_query = parameters.iter().map(|parameter| resolved(&document, parameter));
        let in_query: BTreeSet<&str> = in_query
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().expect("the parameter has a name"))
            .collect();
        if !in_query.is_empty() {
            let reply = gateway.call("GET", &format!("{}?colour=1", filled(path, 1)), &[], "");
            let answer = json_of(&reply);
            let message = answer["error"]["message"].as_str().expect("the error has a message");
            let (_, known) = message.split_once("; members: ").expect("the message lists the parameters");
            assert_eq!((reply.status, known.split(", ").collect()), (400, in_query), "{path}");
        }
    }
}

#[test]
fn the_answers_of_the_server_have_the_members_of_the_document() {
    let gateway = Gateway::start(&[]);
    let (_ann, fd) = gateway.open("/?uid=ann", &[]);
    let (_other, other) = gateway.open("/", &[]);
    gateway.done("/api/join", json!({"fds": [fd, other], "groups": ["room", "hall"]}));
    let document = document();
    let schema = |path: &str, method: &str, status: &str| {
        let response = &document["paths"][path][method]["responses"][status];
        resolved(&document, response)["content"]["application/json"]["schema"].clone()
    };
    for (path, operations) in members(&document["paths"]) {
        if operations["get"]["responses"]["200"]["content"]["application/json"].is_object() {
            check_answer(&document, &schema(path, "get", "200"), &gateway.get(&filled(path, fd)), path);
        }
    }
    for (path, command) in [
        ("/api/push", json!({"id": 7, "uids": ["ann", "bob"], "data": 1})),
        ("/api/bind", json!({"fd": other, "uid": "bob"})),
        ("/api/unbind", json!({"fd": other})),
        ("/api/join", json!({"fd": other, "group": "yard"})),
        ("/api/leave", json!({"fd": other, "group": "yard"})),
        ("/api/ungroup", json!({"group": "hall"})),
        ("/api/online", json!({"uids": ["ann", "bob"]})),
        ("/api/close", json!({"fd": other})),
    ] {
        check_answer(&document, &schema(path, "post", "200"), &gateway.done(path, &command), path);
        let (status, answer) = gateway.post(path, json!({"id": 7}));
        assert_eq!(status, 400);
        check_answer(&document, &schema(path, "post", "400"), &answer, path);
    }
}

#[test]
fn the_reference_and_the_document_have_the_same_paths() {
    let document = document();
    let documented: BTreeSet<&str> = members(&document["paths"]).map(|(path, _)| path).collect();
    for path in &documented {
        assert!(REFERENCE.contains(&format!("{path}`")) || REFERENCE.contains(&format!("{path}?")), "{path}");
    }
    for path in paths_in_reference() {
        assert!(documented.iter().any(|documented| is_path_of(path, documented)), "the document must have {path}");
    }
}
