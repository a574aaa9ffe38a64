//! Tests tokens with public keys: each algorithm with its key file, and a key change by SIGHUP.

use std::fs;

use crate::common::gateway::{Gateway, next, until};
use crate::common::{Client, Scratch, refusal};
use crate::samples;
use serde_json::{Value, json};

// The keys that replace the keys of `samples`, and tokens that are signed with these new keys. PyJWT created the tokens
// from the claims in `samples`.

const NEXT_RSA: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0LY3gc+UH/SOvrhvRC3e
Is2bwprXbhcfmy9800qL2C5/UCevIqAdbm2vtlDbeaXe/1OhoO7ytNQMFZ5tpHw5
m2VsOJBb1a5BJB1j0u6/Bx/uTBXrKs/97/+TuTMsiuy7i3Nn+d8m2Csxi962LXs5
3cZS3kj95xMAJQcC4wUu7OHz1kYiZ5NZSX2P0NO6J1Hc7iQaDHnekJh4ZrpV/GCF
VFSyPd5HrPmBizEkyMQzREW3hfAY2YLAG/Xb9AyNZGzHp/fCi/MYdw1nCLnQh829
dO7MfmEHsuzFNwcosVkgIAQ0cCyqI1DDpEW6IFQu/elTaaRhLKpd9YWO/qjPrac2
lwIDAQAB
-----END PUBLIC KEY-----
";

const NEXT_RS256: &str = "\
     eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMDAxMCIsImdyb3VwcyI6WyJyb29tIiwic3RhZmYiXSwiZXhwIjo0MTAyNDQ\
     0ODAwfQ.kbrjOa39Vfjzt83wXDqIZZE4IfUyAg9e6dHjf2GPi8f2VdB-H11GrW4SRGhbMgkfM83aa3YR9r7rVWoeBguODDbW3MizOGkomAj1\
     _Fb0j2iFWuaLtiCVlUneauKSZDP_BxRWnh3yCUzLA7M6g00GUIOvfYHQprVvs4B1RRaIMQ4YYvdl5DdX3vWtqXw59ANrGRXcCduSECkyHfya\
     P6sIIRZpc3LILxj4VL7o1LcU_vSXh3ARWcdZVlKb5ujMK2Ip9doChUnm6c5ON9KA9spzF7rRfojOEck-BV70wjz1iTgS-FRlIx6lxNfYLCwf\
     OcjtQAc7fDzqivfYWHJg-gxbbw";

const NEXT_EC: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZri7uQVUI1YU/BeBUtsv73RxXDDH
iZRKOV6ltDZpAJEuwxDTyJabToD84fKQdL1hSWCZWAnQJcjUNtmNanMiFA==
-----END PUBLIC KEY-----
";

const NEXT_ES256: &str = "\
     eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMDAxMCIsImdyb3VwcyI6WyJyb29tIiwic3RhZmYiXSwiZXhwIjo0MTAyNDQ\
     0ODAwfQ.9GAv9rQcZjUtj6ptGpFotqeay6bKfR05__EX9l9rTsnWpsAb9HRAVzRFUgFfn5FsSNs9I2Gk65DMSxYzlA6cNg";

const NEXT_ED: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA3ib7U0BBrIg1Dgz9mc8sidtjj30KqMQKG/yTjxr9AjM=
-----END PUBLIC KEY-----
";

const NEXT_EDDSA: &str = "\
     eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMDAxMCIsImdyb3VwcyI6WyJyb29tIiwic3RhZmYiXSwiZXhwIjo0MTAyNDQ\
     0ODAwfQ.IquHNI6czlb2gPy9FHwIHy1iumbLyIxBb_wbdfol-Ivl0EqMRG3Fk0SFEo5iuZ5rf3ao-lMeiFw0ryJKt9hrAg";

/// A public key, and a token that the key verifies.
type Pair = (&'static str, &'static str);

/// For each algorithm: the old key with a token, and the new key with a token.
const ALGORITHMS: [(Pair, Pair); 3] = [
    ((samples::RSA, samples::RS256), (NEXT_RSA, NEXT_RS256)),
    ((samples::EC, samples::ES256), (NEXT_EC, NEXT_ES256)),
    ((samples::ED, samples::EDDSA), (NEXT_ED, NEXT_EDDSA)),
];

fn enter(gateway: &Gateway, token: &str) -> Result<Client, tungstenite::Error> {
    Client::connect(gateway.address, &format!("/?token={token}"), &[])
}

/// Checks that a new client gets the uid of its token and joins both groups of the token.
fn check_identity(gateway: &Gateway, client: &mut Client) {
    let welcome = next(client);
    assert_eq!((&welcome["type"], &welcome["uid"]), (&json!("welcome"), &json!("10010")));
    let mut groups = gateway.get(&format!("/api/connections/{}", welcome["fd"]))["groups"].take();
    groups.as_array_mut().expect("the value is an array").sort_by_key(Value::to_string);
    assert_eq!(groups, json!(["room", "staff"]));
}

#[test]
fn each_algorithm_verifies_tokens_before_and_after_a_key_change() {
    for (index, ((old_key, old), (new_key, new))) in ALGORITHMS.into_iter().enumerate() {
        let scratch = Scratch::new(&format!("tokens-{index}"));
        let [config, key, next_key] = ["fdpush.toml", "key.pem", "next.pem"].map(|name| scratch.file(name));
        let configure = |files: &[&std::path::Path]| {
            let text = format!("auth = \"jwt\"\njwt_key_file = {files:?}\n");
            fs::write(&config, text).expect("the file can be written");
        };
        fs::write(&key, old_key).expect("the file can be written");
        fs::write(&next_key, new_key).expect("the file can be written");
        configure(&[&key]);
        let gateway = Gateway::spawn(&["--config", &config.display().to_string()]);
        let reload = |words: &str| {
            gateway.signal("-HUP");
            gateway.logged(words);
        };
        const CHANGED: &str = "changed: jwt_key_file";

        let mut first = enter(&gateway, old).expect("the token is valid");
        check_identity(&gateway, &mut first);
        let others = ALGORITHMS.iter().flat_map(|((_, old), (_, new))| [*old, *new]).filter(|token| *token != old);
        for token in others.chain([samples::HS256]) {
            assert_eq!(refusal(enter(&gateway, token)).0, 401, "{token}");
        }

        configure(&[&next_key, &key]);
        reload(CHANGED);
        assert!(enter(&gateway, old).is_ok() && enter(&gateway, new).is_ok());
        // First the settings name only the old key again. Then the settings stay the same, and the key file changes.
        configure(&[&key]);
        reload(CHANGED);
        assert_eq!(refusal(enter(&gateway, new)).0, 401);
        fs::write(&key, new_key).expect("the file can be written");
        reload(CHANGED);
        assert_eq!(refusal(enter(&gateway, old)).0, 401);
        check_identity(&gateway, &mut enter(&gateway, new).expect("the token is valid"));
        // A reload with an incomplete key file changes nothing.
        fs::write(&key, &new_key[..new_key.len() / 2]).expect("the file can be written");
        reload("settings not reloaded: ");
        assert!(enter(&gateway, new).is_ok());

        // SIGHUP keeps the open connections.
        until("only the first connection is open", || gateway.get("/api/stats")["open"] == 1);
        assert_eq!(gateway.done("/api/push", json!({"uid": "10010", "text": "still there?"}))["queued"], 1);
        while first.text() != "still there?" {}
    }
}
