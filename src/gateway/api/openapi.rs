//! The description of the API in OpenAPI 3.1.
//!
//! `openapi.json` is written by hand. The tests of this file compare the document with the tables from which the server
//! reads paths, methods, members and query parameters.

use fdpush::Response;

const DOCUMENT: &str = include_str!("openapi.json");

/// Returns the response with the OpenAPI document.
pub fn response() -> Response {
    Response::json(200, DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fdpush::{CloseCode, NAME_BYTES_MAX};
    use serde_json::{Value, json};

    use super::super::call::Call;
    use super::super::command::{self, Shape};
    use super::super::page;
    use super::*;

    /// The API calls whose paths contain a name or an fd.
    const WITH_NAME: [Call<'static>; 4] =
        [Call::User("{uid}"), Call::Group("{name}"), Call::Connection("{fd}"), Call::Attributes("{fd}")];

    /// The commands with their paths.
    const COMMANDS: [(&str, Shape); 8] = [
        ("/api/push", command::PUSH),
        ("/api/bind", command::BIND),
        ("/api/unbind", command::UNBIND),
        ("/api/join", command::JOIN),
        ("/api/leave", command::LEAVE),
        ("/api/ungroup", command::UNGROUP),
        ("/api/close", command::CLOSE),
        ("/api/online", command::ONLINE),
    ];

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).expect("the document is JSON")
    }

    /// Returns the value to which the member `$ref` of `value` refers. Returns `value` itself if it has no `$ref`.
    fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("the reference is valid"),
            None => value,
        }
    }

    fn keys(object: &Value) -> BTreeSet<&str> {
        object.as_object().expect("the value is an object").keys().map(String::as_str).collect()
    }

    /// Checks that a schema allows exactly the members of a command.
    fn check_members(schema: &Value, shape: &Shape) {
        assert_eq!(keys(&schema["properties"]), shape.members.iter().copied().collect(), "{}", shape.call);
        assert_eq!(schema["additionalProperties"], false, "{}", shape.call);
    }

    #[test]
    fn the_openapi_document_states_the_version_of_the_server() {
        let document = document();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    }

    #[test]
    fn the_openapi_document_describes_exactly_the_calls_of_the_server() {
        let document = document();
        let documented = keys(&document["paths"]);
        let served: BTreeSet<&str> = Call::WITHOUT_NAME.into_iter().chain(WITH_NAME).map(Call::label).collect();
        assert_eq!(documented, served);
        for path in documented {
            let call = Call::of(path).expect("the path belongs to a call");
            assert_eq!(call.label(), path, "the server must find the call of this path");
            let operations = &document["paths"][path];
            let methods: BTreeSet<String> = keys(operations).iter().map(|method| method.to_uppercase()).collect();
            assert_eq!(methods, call.allowed().split(", ").map(str::to_owned).collect(), "{path}");
            for method in keys(operations) {
                let operation = &operations[method];
                assert_eq!(operation["security"] == json!([]), call.is_open(), "{path}");
                for status in ["401", "403"] {
                    assert_eq!(operation["responses"].get(status).is_none(), call.is_open(), "{path} {status}");
                }
            }
        }
    }

    #[test]
    fn the_openapi_document_describes_exactly_the_members_of_each_command() {
        let document = document();
        for (path, shape) in COMMANDS {
            assert_eq!(path.strip_prefix("/api/"), Some(shape.call));
            let body = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"];
            check_members(resolved(&document, &body["schema"]), &shape);
        }
        check_members(&document["components"]["schemas"]["Except"], &command::EXCEPT);
    }

    #[test]
    fn the_openapi_document_describes_exactly_the_query_parameters_of_each_call() {
        let document = document();
        let lists = [Call::Users, WITH_NAME[0], Call::Groups, WITH_NAME[1], Call::Connections];
        for call in Call::WITHOUT_NAME.into_iter().chain(WITH_NAME) {
            for operation in document["paths"][call.label()].as_object().expect("the path has operations").values() {
                let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
                let parameters = parameters.iter().map(|parameter| resolved(&document, parameter));
                let in_query: BTreeSet<&str> = parameters
                    .filter(|parameter| parameter["in"] == "query")
                    .filter_map(|parameter| parameter["name"].as_str())
                    .collect();
                let expected = if lists.contains(&call) { &page::PARAMETERS[..] } else { &[] };
                assert_eq!(in_query, expected.iter().copied().collect(), "{}", call.label());
            }
        }
    }

    #[test]
    fn the_openapi_document_states_the_limits_of_the_server() {
        let document = document();
        let components = &document["components"];
        let (schemas, limit) = (&components["schemas"], &components["parameters"]["Limit"]["schema"]);
        assert_eq!((&limit["default"], &limit["maximum"]), (&json!(page::LIMIT), &json!(page::LIMIT_MAX)));
        for name in ["Name", "NameText"] {
            assert_eq!(schemas[name]["maxLength"], NAME_BYTES_MAX, "{name}");
        }
        for list in ["Names", "Fds"] {
            assert_eq!(schemas[list]["maxItems"], command::NAMES_MAX, "{list}");
        }
        assert_eq!(schemas["Close"]["properties"]["reason"]["maxLength"], CloseCode::REASON_BYTES_MAX);
        let ranges = schemas["CloseCode"]["anyOf"].as_array().expect("the codes are ranges");
        for code in 0..=u16::MAX {
            let is_documented = ranges.iter().any(|range| {
                range["minimum"].as_u64() <= Some(code.into()) && range["maximum"].as_u64() >= Some(code.into())
            });
            assert_eq!(is_documented, CloseCode::from(code).is_sendable(), "{code}");
        }
    }
}
