//! Tests of tokens for each kind of key, of invalid tokens, and of forged tokens.

use std::path::{Path, PathBuf};

use super::*;
use crate::gateway::runtime::files;

/// A time in 2023 at which the sample tokens are valid, in seconds since 1970.
const NOW: u64 = 1_700_000_000;

/// The `exp` of the sample tokens, in seconds since 1970.
const EXP: u64 = 4_102_444_800;

/// A file that is removed when this value is dropped.
struct File(PathBuf);

impl File {
    fn new(bytes: impl AsRef<[u8]>) -> File {
        let path = files::unused_path();
        std::fs::write(&path, bytes).expect("the file can be written");
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A secret that signed no sample token.
const OTHER: &str = "another secret of at least 32 bytes";

fn try_load(secrets: &[&str], files: &[&[u8]]) -> Result<Keys, String> {
    let files: Vec<File> = files.iter().map(File::new).collect();
    let files = files.iter().map(|file| KeyFile::read(&file.0)).collect::<Result<Vec<_>, _>>()?;
    Keys::new(secrets, &files)
}

fn load(secrets: &[&str], files: &[&str]) -> Keys {
    let files: Vec<&[u8]> = files.iter().map(|file| file.as_bytes()).collect();
    try_load(secrets, &files).expect("the keys are usable")
}

/// Returns a token with this header and these claims, signed with HS256 by this secret.
fn sign(head: &str, claims: &str, secret: &str) -> String {
    let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(head), BASE64_URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("the token can be signed");
    format!("{message}.{signature}")
}

fn signed(claims: &str) -> String {
    sign(r#"{"alg":"HS256"}"#, claims, samples::SECRET)
}

#[test]
fn every_kind_of_key_verifies_its_own_tokens() {
    let table = [
        (load(&[samples::SECRET], &[]), samples::HS256),
        (load(&[], &[samples::SECRET]), samples::HS256),
        (load(&[], &[samples::RSA]), samples::RS256),
        (load(&[], &[samples::RSA_PKCS1]), samples::RS256),
        (load(&[], &[samples::EC]), samples::ES256),
        (load(&[], &[samples::ED]), samples::EDDSA),
        (load(&[OTHER], &[samples::ED, samples::RFC_RSA, samples::EC, samples::RSA]), samples::RS256),
    ];
    let groups = vec!["room".to_owned(), "staff".to_owned()];
    let wanted =
        Identity { exp: Some(EXP), ..Identity::new(Some("10010".to_owned()), groups).expect("the names are valid") };
    for (index, (keys, token)) in table.into_iter().enumerate() {
        assert_eq!(keys.verify_at(token, NOW), Ok(wanted.clone()), "{index}");
        assert_eq!(keys.verify_at(token, EXP + LEEWAY - 1), Ok(wanted.clone()), "{index}");
        assert_eq!(keys.verify_at(token, EXP + LEEWAY), Err(TokenError::Expired), "{index}");
    }
}

#[test]
fn a_token_of_a_previous_key_is_valid_and_a_token_of_an_unknown_key_is_not() {
    let keys = load(&[OTHER, samples::SECRET], &[]);
    assert!(keys.verify_at(samples::HS256, NOW).is_ok());
    let keys = load(&[OTHER, &OTHER.to_uppercase()], &[]);
    assert_eq!(keys.verify_at(samples::HS256, NOW), Err(TokenError::Signature));
    let keys = load(&[], &[samples::RFC_RSA, samples::RFC_EC, samples::RFC_ED]);
    for token in [samples::RS256, samples::ES256, samples::EDDSA] {
        assert_eq!(keys.verify_at(token, NOW), Err(TokenError::Signature));
    }
}

#[test]
fn the_example_tokens_of_the_rfcs_are_verified() {
    let secret = BASE64_URL_SAFE_NO_PAD.decode(samples::RFC_SECRET).expect("the text is base64url");
    let table: [(&[u8], &str); 3] = [
        (&secret, samples::RFC_HS256),
        (samples::RFC_RSA.as_bytes(), samples::RFC_RS256),
        (samples::RFC_EC.as_bytes(), samples::RFC_ES256),
    ];
    for (file, token) in table {
        let keys = try_load(&[], &[file]).expect("the key is usable");
        let keys = keys.issuer(Some("joe".to_owned()));
        // The signatures of these tokens are valid. At this time, the only fault of these tokens is the missing
        // subject.
        assert_eq!(keys.verify_at(token, 1_300_819_379), Err(TokenError::Missing("sub")));
        assert_eq!(keys.verify_at(token, NOW), Err(TokenError::Expired));
        let keys = keys.issuer(Some("jim".to_owned()));
        assert_eq!(keys.verify_at(token, 1_300_819_379), Err(TokenError::Issuer));
    }
    let error = load(&[], &[samples::RFC_ED]).verify_at(samples::RFC_EDDSA, NOW);
    assert_eq!(error, Err(TokenError::Claims("not a JSON object".to_owned())));
}

#[test]
fn the_key_and_not_the_token_decides_the_algorithm() {
    let claims = format!(r#"{{"sub":"admin","exp":{EXP}}}"#);
    let with = |head: &str, secret: &str| sign(head, &claims, secret);
    let unsigned =
        |head: &str| format!("{}.{}.", BASE64_URL_SAFE_NO_PAD.encode(head), BASE64_URL_SAFE_NO_PAD.encode(&claims));
    let both = load(&[samples::SECRET], &[samples::RSA, samples::EC, samples::ED]);
    let public = load(&[], &[samples::RSA, samples::EC, samples::ED]);
    for (token, with_secret, without) in [
        // The secret of this HS256 token is the text of a public key, which everybody knows.
        (with(r#"{"alg":"HS256"}"#, samples::RSA), TokenError::Signature, TokenError::Algorithm),
        (with(r#"{"alg":"HS256"}"#, samples::RSA.trim_end()), TokenError::Signature, TokenError::Algorithm),
        (with(r#"{"alg":"RS256"}"#, samples::RSA), TokenError::Signature, TokenError::Signature),
        (with(r#"{"alg":"EdDSA"}"#, samples::ED), TokenError::Signature, TokenError::Signature),
        (with(r#"{"alg":"RS256"}"#, samples::SECRET), TokenError::Signature, TokenError::Signature),
        (unsigned(r#"{"alg":"none"}"#), TokenError::Algorithm, TokenError::Algorithm),
        (unsigned(r#"{"alg":"None"}"#), TokenError::Algorithm, TokenError::Algorithm),
        (unsigned(r#"{"alg":"HS256"}"#), TokenError::Signature, TokenError::Algorithm),
        (unsigned(r#"{"alg":"ES256"}"#), TokenError::Signature, TokenError::Signature),
        (unsigned(r#"{"alg":""}"#), TokenError::Algorithm, TokenError::Algorithm),
        (with(r#"{"alg":"hs256"}"#, samples::SECRET), TokenError::Algorithm, TokenError::Algorithm),
        (with(r#"{"alg":"HS384"}"#, samples::SECRET), TokenError::Algorithm, TokenError::Algorithm),
        (samples::RS512.to_owned(), TokenError::Algorithm, TokenError::Algorithm),
        (samples::PS256.to_owned(), TokenError::Algorithm, TokenError::Algorithm),
        (
            samples::RS256.replacen("eyJhbGciOiJSUzI1NiI", "eyJhbGciOiJIUzI1NiI", 1),
            TokenError::Signature,
            TokenError::Algorithm,
        ),
    ] {
        assert_eq!(both.verify_at(&token, NOW), Err(with_secret), "{token}");
        assert_eq!(public.verify_at(&token, NOW), Err(without), "{token}");
    }
}

#[test]
fn a_header_cannot_choose_a_key_or_an_extension() {
    let keys = load(&[samples::SECRET], &[]);
    let claims = format!(r#"{{"sub":"a","exp":{EXP}}}"#);
    let verify = |head: &str| keys.verify_at(&sign(head, &claims, samples::SECRET), NOW).map(|_| ());
    for (head, outcome) in [
        (r#"{"alg":"HS256","kid":"../../dev/null"}"#, Ok(())),
        (
            r#"{"alg":"HS256","kid":["' OR 1=1 --"],"typ":7,"jku":"http://127.0.0.1/keys","jwk":{"kty":"oct","k":""}}"#,
            Ok(()),
        ),
        (r#" {"alg":"HS\u0032\u00356"}"#, Ok(())),
        (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, Err(TokenError::Critical)),
        (r#"{"alg":"HS256","crit":[]}"#, Err(TokenError::Critical)),
        (r#"{"alg":"HS256","alg":"none"}"#, Err(TokenError::Malformed)),
        (r#"{"alg":"HS256","\u0061lg":"HS256"}"#, Err(TokenError::Malformed)),
        (r#"{"alg":["HS256"]}"#, Err(TokenError::Malformed)),
        (r#"{"alg":null}"#, Err(TokenError::Malformed)),
        (r#"["HS256",null]"#, Err(TokenError::Malformed)),
        (r#"{"typ":"JWT"}"#, Err(TokenError::Malformed)),
        (r#"{"alg":"HS256"} x"#, Err(TokenError::Malformed)),
        ("", Err(TokenError::Malformed)),
    ] {
        assert_eq!(verify(head), outcome, "{head}");
    }
}

#[test]
fn a_cut_or_changed_token_is_refused() {
    let keys = load(&[samples::SECRET], &[samples::RSA, samples::EC, samples::ED]);
    // The verification of ES256 and EdDSA signatures is slow, so the test cuts ES256 and EdDSA tokens only at every
    // eleventh position.
    for (token, step) in [(samples::HS256, 1), (samples::ES256, 11), (samples::EDDSA, 11)] {
        for cut in (0..token.len()).rev().step_by(step) {
            assert!(keys.verify_at(&token[..cut], NOW).is_err(), "{cut}");
            // The test replaces the character at the position `cut`. The unused bits of the last character must be
            // zero, so a change of the last character must be refused, too.
            let other = if token.as_bytes()[cut] == b'A' { 'B' } else { 'A' };
            let forged = format!("{}{other}{}", &token[..cut], &token[cut + 1..]);
            assert!(keys.verify_at(&forged, NOW).is_err(), "{cut}");
        }
    }
    let [head, claims, signature]: [&str; 3] =
        samples::HS256.split('.').collect::<Vec<_>>().try_into().expect("the token has three parts");
    for token in [
        String::new(),
        "..".to_owned(),
        ".....".to_owned(),
        "é.é.é".to_owned(),
        format!("{head}.{claims}"),
        format!("{head}.{claims}.{signature}."),
        format!("{head}.{claims}.{signature}.x"),
        format!("{head}.{claims}.{signature}="),
        format!("{head}.{claims}. {signature}"),
        format!("{head}.{claims}.{signature}\n"),
        format!("{head}.{claims}=.{signature}"),
        format!("{head}\0.{claims}.{signature}"),
        format!(" {head}.{claims}.{signature}"),
        format!("{head}.{claims}.!!!"),
        format!("{head}.x.{claims}.y.{signature}"),
    ] {
        let error = keys.verify_at(&token, NOW).expect_err("the text is not a token");
        assert!(matches!(error, TokenError::Malformed | TokenError::Signature), "{token:?}: {error}");
    }
    let huge = format!("{head}.{}.{signature}", "A".repeat(TOKEN_BYTES_MAX));
    assert_eq!(keys.verify_at(&huge, NOW), Err(TokenError::TooLong));
    let deep = signed(&format!(r#"{{"x":{}"#, "[".repeat(40_000)));
    assert!(matches!(keys.verify_at(&deep, NOW), Err(TokenError::Claims(_))));
}

#[test]
fn the_times_in_a_token_are_checked() {
    const TIME: &str = "a number of seconds since 1970";
    let keys = load(&[samples::SECRET], &[]);
    let (exp, nbf) = (|why| Err(TokenError::ClaimType("exp", why)), |why| Err(TokenError::ClaimType("nbf", why)));
    for (times, outcome) in [
        (r#""exp":1700000000"#.to_owned(), Ok(NOW)),
        (format!(r#""exp":{}"#, NOW - LEEWAY + 1), Ok(NOW - LEEWAY + 1)),
        (format!(r#""exp":{}"#, NOW - LEEWAY), Err(TokenError::Expired)),
        (format!(r#""exp":{}.999"#, NOW - LEEWAY), Err(TokenError::Expired)),
        (r#""exp":1700000000.75"#.to_owned(), Ok(NOW)),
        (r#""exp":1.7e9"#.to_owned(), Ok(NOW)),
        (format!(r#""exp":{SECONDS_MAX}"#), Ok(SECONDS_MAX)),
        (r#""exp":9007199254740994"#.to_owned(), exp(TIME)),
        (r#""exp":18446744073709551616"#.to_owned(), exp(TIME)),
        (r#""exp":1e300"#.to_owned(), exp(TIME)),
        (r#""exp":1e400"#.to_owned(), exp(TIME)),
        (r#""exp":"1800000000""#.to_owned(), exp(TIME)),
        (r#""exp":true"#.to_owned(), exp(TIME)),
        (r#""exp":[1800000000]"#.to_owned(), exp(TIME)),
        (r#""exp":0"#.to_owned(), Err(TokenError::Expired)),
        (r#""exp":-1"#.to_owned(), Err(TokenError::Expired)),
        (r#""exp":-1e300"#.to_owned(), exp(TIME)),
        (r#""exp":null"#.to_owned(), Err(TokenError::Missing("exp"))),
        (r#""iat":1700000000"#.to_owned(), Err(TokenError::Missing("exp"))),
        (format!(r#""exp":{EXP},"nbf":{}"#, NOW + LEEWAY), Ok(EXP)),
        (format!(r#""exp":{EXP},"nbf":{}.5"#, NOW + LEEWAY), Err(TokenError::Early)),
        (format!(r#""exp":{EXP},"nbf":{}"#, NOW + LEEWAY + 1), Err(TokenError::Early)),
        (format!(r#""exp":{EXP},"nbf":-5,"iat":{EXP}"#), Ok(EXP)),
        (format!(r#""exp":{EXP},"nbf":"now""#), nbf(TIME)),
    ] {
        let token = signed(&format!(r#"{{"sub":"a",{times}}}"#));
        let got = keys.verify_at(&token, NOW);
        assert_eq!(got.map(|identity| identity.exp.expect("the token has an exp")), outcome, "{times}");
    }
}

#[test]
fn the_names_in_a_token_are_checked() {
    const NAME: &str = "a string or an integer of 64 bits";
    const NAMES: &str = "an array of strings or integers of 64 bits";
    let keys = load(&[samples::SECRET], &[]);
    let name = |len: usize| "n".repeat(len);
    let many = |count: usize| format!(r#""sub":"a","groups":[{}]"#, vec![r#""g""#; count].join(","));
    for (claims, outcome) in [
        (r#""sub":"\u00e9\n""#.to_owned(), Ok(0)),
        (format!(r#""sub":"{}""#, name(128)), Ok(0)),
        (format!(r#""sub":"{}""#, name(129)), Err(TokenError::Name(NameError::Uid(129)))),
        (r#""sub":"""#.to_owned(), Err(TokenError::Name(NameError::Uid(0)))),
        (r#""sub":10010"#.to_owned(), Ok(0)),
        (r#""sub":-1,"groups":["b",7]"#.to_owned(), Ok(2)),
        (r#""sub":18446744073709551615,"groups":{}"#.to_owned(), Ok(0)),
        (r#""sub":18446744073709551616"#.to_owned(), Err(TokenError::ClaimType("sub", NAME))),
        (r#""sub":10010.0"#.to_owned(), Err(TokenError::ClaimType("sub", NAME))),
        (r#""sub":true"#.to_owned(), Err(TokenError::ClaimType("sub", NAME))),
        (r#""sub":["a"]"#.to_owned(), Err(TokenError::ClaimType("sub", NAME))),
        (r#""sub":"\ud800""#.to_owned(), Err(TokenError::ClaimType("sub", NAME))),
        (r#""sub":null"#.to_owned(), Err(TokenError::Missing("sub"))),
        (r#""name":"a""#.to_owned(), Err(TokenError::Missing("sub"))),
        (r#""sub":"a","groups":null"#.to_owned(), Ok(0)),
        (r#""sub":"a","groups":[]"#.to_owned(), Ok(0)),
        (many(1000), Ok(1000)),
        (many(1001), Err(TokenError::Name(NameError::Groups(1001)))),
        (r#""sub":"a","groups":["b",""]"#.to_owned(), Err(TokenError::Name(NameError::Group(2, 0)))),
        (r#""sub":"a","groups":"b""#.to_owned(), Err(TokenError::ClaimType("groups", NAMES))),
        (r#""sub":"a","groups":["b",7.5]"#.to_owned(), Err(TokenError::ClaimType("groups", NAMES))),
        (r#""sub":"a","groups":{"1":"b"}"#.to_owned(), Err(TokenError::ClaimType("groups", NAMES))),
    ] {
        let token = signed(&format!(r#"{{{claims},"exp":{EXP}}}"#));
        let got = keys.verify_at(&token, NOW);
        assert_eq!(got.map(|identity| identity.groups.len()), outcome, "{claims}");
    }
    let token = signed(&format!("\u{feff}{{\"sub\":10010,\"groups\":[7,\"7\"],\"exp\":{EXP}.5}}"));
    let identity = keys.verify_at(&token, NOW).expect("the token is valid");
    assert_eq!((identity.uid.as_deref(), identity.exp), (Some("10010"), Some(EXP)));
    assert_eq!(identity.groups, ["7", "7"]);
}

#[test]
fn a_duplicate_claim_is_refused() {
    let keys = load(&[samples::SECRET], &[]);
    for twice in [
        r#""sub":"a","sub":"admin","exp":4102444800"#,
        r#""sub":"a","s\u0075b":"admin","exp":4102444800"#,
        r#""exp":1,"sub":"a","exp":4102444800"#,
        r#""sub":"a","exp":4102444800,"groups":[],"groups":["staff"]"#,
    ] {
        let error = keys.verify_at(&signed(&format!("{{{twice}}}")), NOW).expect_err("the token is invalid");
        assert!(error.to_string().contains("duplicate field"), "{error}");
    }
    let error = keys.verify_at(&signed(r#"["a",4102444800]"#), NOW);
    assert_eq!(error, Err(TokenError::Claims("not a JSON object".to_owned())));
}

#[test]
fn issuer_and_audience_are_checked_if_configured() {
    let keys = load(&[samples::SECRET], &[]);
    let strict = keys.clone().issuer(Some("shop".to_owned())).audience(Some("push".to_owned()));
    for (claims, outcome) in [
        (r#""iss":"shop","aud":"push""#, Ok(())),
        (r#""iss":"shop","aud":["mail","push"]"#, Ok(())),
        (r#""iss":"shop","aud":["mail"]"#, Err(TokenError::Audience)),
        (r#""iss":"shop","aud":[]"#, Err(TokenError::Audience)),
        (r#""iss":"shop","aud":"PUSH""#, Err(TokenError::Audience)),
        (r#""iss":"shop","aud":{"push":1}"#, Err(TokenError::ClaimType("aud", "a string or an array of strings"))),
        (r#""iss":"shop","aud":["push",1]"#, Err(TokenError::ClaimType("aud", "a string or an array of strings"))),
        (r#""iss":"shop""#, Err(TokenError::Missing("aud"))),
        (r#""aud":"push""#, Err(TokenError::Missing("iss"))),
        (r#""iss":"shop/","aud":"push""#, Err(TokenError::Issuer)),
        (r#""iss":["shop"],"aud":"push""#, Err(TokenError::ClaimType("iss", "a string"))),
    ] {
        let token = signed(&format!(r#"{{"sub":"a","exp":{EXP},{claims}}}"#));
        assert_eq!(strict.verify_at(&token, NOW).map(|_| ()), outcome, "{claims}");
        assert!(
            keys.verify_at(&token, NOW).is_ok(),
            "{claims}: must be accepted if no issuer and no audience is configured"
        );
    }
}

#[test]
fn errors_do_not_contain_the_token() {
    let keys = load(&[samples::SECRET], &[]).issuer(Some("shop".to_owned()));
    for claims in [r#"{"sub":"secretive","exp":1}"#, r#"{"sub":"secretive","sub":"b"}"#, r#"{"iss":"secretive""#] {
        let token = signed(claims);
        let error = format!("{0} {0:?}", keys.verify_at(&token, NOW).expect_err("the token is invalid"));
        assert!(!error.contains("secretive") && !error.contains(&token[..20]), "{error}");
    }
    assert!(!format!("{keys:?}").contains(samples::SECRET));
}

#[test]
fn unusable_keys_are_refused_at_the_start() {
    let private = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let two = format!("{}{}", samples::EC, samples::ED);
    let der = |pem: &str| {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        base64::prelude::BASE64_STANDARD.decode(body).expect("the text is base64")
    };
    let (rsa_der, ed_der) = (der(samples::RSA), der(samples::ED));
    let table: [(&[u8], &str); 17] = [
        (samples::RSA_1024.as_bytes(), "RSA of 2048 to 4096 bits"),
        (samples::EC_P384.as_bytes(), "EC on P-256"),
        (samples::EC_K1.as_bytes(), "EC on P-256"),
        (samples::ED448.as_bytes(), "Ed25519"),
        (samples::ED_SHORT.as_bytes(), "Ed25519"),
        (samples::CERTIFICATE.as_bytes(), "openssl x509 -pubkey"),
        (private.as_bytes(), "openssl pkey -pubout"),
        (two.as_bytes(), "several"),
        (&samples::RSA.as_bytes()[..200], "PEM public key"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "PEM public key"),
        (b"\xff-----BEGIN PUBLIC KEY-----\n", "found binary data"),
        (&rsa_der, "a DER key is not a secret"),
        (&ed_der, "a DER key is not a secret"),
        (br#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#, "a JSON Web Key is not a secret"),
        (br#"{"keys":[]}"#, "a JSON Web Key is not a secret"),
        (b"ssh-ed25519 AAAA me@here\n", "an SSH key is not a secret"),
        (b"\n", "empty"),
    ];
    for (file, hint) in table {
        let error = try_load(&[], &[file]).expect_err(hint);
        assert!(error.contains(hint) && error.contains("jwt_key_file /"), "{hint}: {error}");
    }
    let short = "a".repeat(31);
    for (secret, hint) in [
        ("", "jwt_secret 2: secret is empty"),
        (samples::RSA, "jwt_secret 2: a PEM key is not a secret"),
        (&*short, "jwt_secret 2: a secret of 31 bytes is too short: HS256 needs at least 32"),
    ] {
        let error = try_load(&[OTHER, secret], &[]).expect_err(hint);
        assert!(error.starts_with(hint), "{error}");
    }
    assert!(try_load(&[], &[]).is_err_and(|why| why.contains("missing key for tokens")));
    assert!(try_load(&[], &[&[b'a'; (64 << 10) + 1]]).is_err_and(|why| why.contains("exceeds 65536")));
    let missing = KeyFile::read(Path::new("/nowhere/at/all.pem"));
    assert!(missing.is_err_and(|why| why.starts_with("jwt_key_file /nowhere/at/all.pem: ")));
}

#[test]
fn a_byte_order_mark_and_a_line_end_are_not_part_of_a_secret() {
    for (start, end) in [("", ""), ("", "\n"), ("", "\r\n"), ("\u{feff}", "\n"), ("'", "'\n"), ("\u{feff}\"", "\"\r\n")]
    {
        let file = format!("{start}{}{end}", samples::SECRET);
        assert!(load(&[], &[&file]).verify_at(samples::HS256, NOW).is_ok(), "{file:?}");
    }
    let lines = format!("{}\n# the old one\n", samples::SECRET);
    for lines in [lines, format!("{}\n\n", samples::SECRET), format!("\n{}", samples::SECRET)] {
        assert!(try_load(&[], &[lines.as_bytes()]).is_err_and(|why| why.contains("must be one line")), "{lines:?}");
    }
    // A byte-order mark before PEM is not part of the key.
    let marked = format!("\u{feff}{}", samples::ED);
    assert!(load(&[], &[&marked]).verify_at(samples::EDDSA, NOW).is_ok());
    // Every byte of a binary file is part of the secret.
    let binary = b"\xef\xbb\xbf\"\x00\xff 0123456789abcdef0123456789abcdef\"\n";
    assert_eq!(KeyFile::read(&File::new(&binary[..]).0).expect("the secret is valid").secret(), Some(&binary[..]));
}

#[test]
fn a_token_is_found_in_the_query_or_in_a_header_or_in_a_subprotocol() {
    let found = |query: Option<&'static str>, header: Option<&'static str>, offered: &[&'static str]| {
        choose(query.map(Cow::from), header, offered.iter().copied())
    };
    assert_eq!(found(None, None, &[]), None);
    assert_eq!(found(Some("a"), Some("Bearer b"), &["bearer.c"]).as_deref(), Some("a"));
    assert_eq!(found(Some(""), Some("bearer b"), &["bearer.c"]).as_deref(), Some("b"));
    let offered = ["chat", "bearer.", "bearer.c", "bearer.d"];
    assert_eq!(found(None, Some("Basic Zm9v"), &offered).as_deref(), Some("c"));
    assert_eq!(found(None, Some("Bearer "), &["BEARER.c", "bearer"]), None);
}

#[test]
fn issued_tokens_are_valid() {
    let groups = ["room".to_owned(), "staff".to_owned()];
    let ttl = Duration::from_millis(3_599_001);
    let plain = Grant { uid: "10010", groups: &[], ttl, issuer: None, audience: None };
    let full = Grant { groups: &groups, issuer: Some("shop"), audience: Some("push"), ..plain };
    let keys = load(&[samples::SECRET], &[]);
    let strict = keys.clone().issuer(Some("shop".to_owned())).audience(Some("push".to_owned()));
    let token = issue_at(samples::SECRET.as_bytes(), &full, NOW).expect("the token can be issued");
    let identity = strict.verify_at(&token, NOW).expect("the token is valid");
    assert_eq!((identity.exp, identity.groups.as_slice()), (Some(NOW + 3600), &groups[..]));
    let token = issue_at(samples::SECRET.as_bytes(), &plain, NOW).expect("the token can be issued");
    assert_eq!(keys.verify_at(&token, NOW).map(|identity| identity.uid), Ok(Some("10010".to_owned())));
    assert_eq!(strict.verify_at(&token, NOW), Err(TokenError::Missing("iss")));
    assert!(issue(samples::SECRET.as_bytes(), &plain).is_ok_and(|token| keys.verify(&token).is_ok()));

    for (secret, grant) in [
        ("", plain),
        (samples::ED, plain),
        (samples::SECRET, Grant { uid: "", ..plain }),
        (samples::SECRET, Grant { groups: &[String::new()], ..plain }),
        (samples::SECRET, Grant { ttl: Duration::ZERO, ..plain }),
        (samples::SECRET, Grant { ttl: Duration::MAX, ..plain }),
    ] {
        assert!(issue_at(secret.as_bytes(), &grant, NOW).is_err());
    }
}
