//! Checks the source text: layers, lengths of files and functions, and the language of names and comments.
//!
//! This test follows the `tidy` tests of rust-analyzer and TigerBeetle. The test reads the source as text, and an error
//! names the file and the line. `src/lib.rs` has a drawing of the layers.

#[path = "tidy/cycles.rs"]
mod cycles;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// The functions that may be longer than `FUNCTION_LINES_MAX`, by file and name. This list may only become shorter.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// The modules of the crate and their layers. A module is a file, a directory, or both, under `src/`.
const MODULES: &[(&str, usize)] = &[
    ("protocol", 0),
    ("fd", 0),
    ("tick", 0),
    ("peer", 0),
    ("message", 0),
    ("limits", 0),
    ("log_throttle", 0),
    ("token_bucket", 0),
    ("histogram", 0),
    ("split_table", 0),
    ("sync", 0),
    ("tls", 0),
    ("connection", 1),
    ("wheel", 1),
    ("registry", 1),
    ("directory", 1),
    ("event_loop", 2),
    ("server", 3),
    ("context", 3),
    ("remote", 3),
    ("ticket", 3),
    ("main", 4),
    ("gateway", 4),
];

/// Names of crates and types, each with the number of a layer. Only this layer and layer 4 may use the name.
const RESTRICTED_NAMES: &[(&str, usize)] =
    &[("mio", 2), ("rustix", 2), ("socket2", 2), ("Instant", 2), ("TcpStream", 2), ("UnixStream", 2)];

/// Words that may not start a comment, because they hide its subject: question words and indefinite pronouns.
const QUESTION_WORDS: &[&str] = &[
    "What",
    "Who",
    "Whose",
    "Whom",
    "How",
    "Where",
    "Whoever",
    "Whatever",
    "Wherever",
    "Nobody",
    "Somebody",
    "Everybody",
    "Anybody",
];

/// Words that no name may contain. These words are metaphors for which the field has a term.
const METAPHORS: &[&str] = &[
    "bystander",
    "door",
    "floor",
    "greedy",
    "house",
    "hush",
    "innocent",
    "judge",
    "knock",
    "lane",
    "life",
    "loud",
    "mischief",
    "mute",
    "nobody",
    "people",
    "polite",
    "proud",
    "relief",
    "relieve",
    "rooms",
    "seat",
    "stranger",
    "told",
    "tongue",
    "twin",
    "who",
    "whoever",
    "whom",
    "witness",
];

/// Names of the standard library that contain a word of [`METAPHORS`].
const STANDARD_NAMES: &[&str] = &["floor", "floor_char_boundary"];

/// A source file: its path from the crate's root, and its lines.
struct Source {
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// Returns the lines without comments, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, without_comment(line)))
    }

    /// Returns the module of the file and its layer. `lib.rs` belongs to no module.
    fn module(&self) -> Option<(&str, usize)> {
        let path = self.path.strip_prefix("src/")?;
        let name = path.split('/').next()?.trim_end_matches(".rs");
        if name == "lib" {
            return None;
        }
        let entry = MODULES.iter().find(|(module, _)| *module == name);
        let (module, layer) = entry.unwrap_or_else(|| panic!("{}: add its module to tests/tidy.rs", self.path));
        Some((module, *layer))
    }
}

/// Collects errors, so that one run of a test reports all of them.
#[derive(Default)]
struct Errors(String);

impl Errors {
    fn add(&mut self, source: &Source, line: usize, error: impl std::fmt::Display) {
        writeln!(self.0, "{}:{line}: {error}", source.path).expect("writing to a string succeeds");
    }

    fn check(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

#[test]
fn imports_only_point_down() {
    let mut errors = Errors::default();
    for source in sources(&["src"]) {
        let Some((module, layer)) = source.module().filter(|(_, layer)| *layer < 4) else { continue };
        for (line, code) in source.code() {
            for target in code.split("crate::").skip(1) {
                let target: String = target.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                match MODULES.iter().find(|(module, _)| *module == target) {
                    None => errors.add(&source, line, format!("crate::{target} is not in the list of modules")),
                    Some((_, above)) if *above > layer => {
                        errors.add(&source, line, format!("layer {layer} must not import {target} of layer {above}"));
                    }
                    Some((sibling, 1)) if layer == 1 && *sibling != module => {
                        errors.add(&source, line, format!("{module} must not import its sibling {sibling}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    errors.check();
}

#[test]
fn the_gateway_uses_the_public_api_only() {
    let mut errors = Errors::default();
    for source in sources(&["src/main.rs", "src/gateway", "examples"]) {
        for (line, code) in source.code() {
            for private in ["event_loop", "fdpush::fuzz"] {
                if code.contains(private) {
                    errors.add(&source, line, format!("{private} is not public API"));
                }
            }
        }
    }
    errors.check();
}

#[test]
fn only_layer_2_uses_sockets_and_the_clock() {
    let mut errors = Errors::default();
    for source in sources(&["src"]) {
        let Some((_, layer)) = source.module() else { continue };
        for (line, code) in source.code() {
            for (name, allowed) in RESTRICTED_NAMES {
                // `server.rs` may import `mio::Poll`, because it only passes the epoll instance to the event loop.
                let is_passed_on = source.path == "src/server.rs" && code == "use mio::Poll;";
                if layer != *allowed && layer < 4 && has_word(code, name) && !is_passed_on {
                    errors.add(&source, line, format!("only layer {allowed} may use {name}"));
                }
            }
            if layer < 2 && code.contains("log::") {
                errors.add(&source, line, "layers 0 and 1 must not log");
            }
        }
    }
    errors.check();
}

#[test]
fn the_clock_is_read_in_one_file() {
    let mut files: Vec<String> = sources(&["src"])
        .filter(|source| source.code().any(|(_, code)| code.contains("Instant::now")))
        .map(|source| source.path)
        .collect();
    files.dedup();
    // The gateway uses only the public API of the crate, so it reads the clock in its own file.
    assert_eq!(files, ["src/event_loop/clock.rs", "src/gateway/runtime/clock.rs"]);
}

#[test]
fn files_are_short_and_open_with_a_module_comment() {
    let mut errors = Errors::default();
    for source in sources(&["src", "tests", "examples", "benches", "fuzz"]) {
        let count = source.lines.len();
        if count > FILE_LINES_MAX {
            errors.add(&source, count, format!("{count} lines: more than {FILE_LINES_MAX}"));
        }
        if !source.lines.first().is_some_and(|line| line.starts_with("//! ")) {
            errors.add(&source, 1, "the first line is not a `//!` comment");
        }
    }
    errors.check();
}

#[test]
fn functions_are_short() {
    let mut errors = Errors::default();
    let mut excused = Vec::new();
    for source in sources(&["src", "tests", "examples", "benches", "fuzz"]) {
        for (line, name, count) in functions(&source) {
            if count <= FUNCTION_LINES_MAX {
                continue;
            }
            let excuse = (source.path.as_str(), name);
            match LONG_FUNCTIONS.iter().find(|listed| **listed == excuse) {
                Some(listed) => excused.push(listed),
                None => errors.add(&source, line, format!("fn {name} has {count} lines: over {FUNCTION_LINES_MAX}")),
            }
        }
    }
    errors.check();
    assert_eq!(excused.len(), LONG_FUNCTIONS.len(), "each function in LONG_FUNCTIONS must be long");
}

#[test]
fn comments_do_not_start_with_a_question_word() {
    let mut errors = Errors::default();
    for source in sources(&["src", "tests", "examples", "benches", "fuzz"]) {
        for (line, text) in comment_starts(&source) {
            let word = text.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
            if QUESTION_WORDS.contains(&word) {
                errors.add(&source, line, text);
            }
        }
    }
    errors.check();
}

#[test]
fn names_are_not_metaphors() {
    let mut errors = Errors::default();
    for source in sources(&["src", "tests", "examples", "benches", "fuzz"]) {
        for (line, code) in source.code() {
            let code = without_strings(code);
            let names = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            for name in names.filter(|name| !STANDARD_NAMES.contains(name)) {
                if words_of(name).iter().any(|word| METAPHORS.contains(&word.as_str())) {
                    errors.add(&source, line, format!("{name} contains a metaphor: use the term of the field"));
                }
            }
        }
    }
    errors.check();
}

#[test]
fn the_drawing_of_the_layers_shows_every_module() {
    let lib = sources(&["src/lib.rs"]).next().expect("src/lib.rs is a file");
    let comment = lib.lines.iter().filter_map(|line| line.strip_prefix("//!"));
    let drawing: Vec<&str> =
        comment.skip_while(|line| *line != " # Architecture").take_while(|line| *line != " # Features").collect();
    let gateway =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway")).expect("src/gateway is a directory");
    let gateway = gateway.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let directories: Vec<String> = gateway.filter(|name| !name.ends_with(".rs")).collect();
    let modules = MODULES.iter().map(|(name, _)| *name).chain(directories.iter().map(String::as_str));
    let missing: Vec<&str> = modules.filter(|name| !drawing.iter().any(|line| has_word(line, name))).collect();
    assert!(missing.is_empty(), "the drawing of src/lib.rs must have all modules; missing: {missing:?}");
}

#[test]
fn there_is_no_unsafe_unfinished_or_ignored_code() {
    // Each forbidden text is in two parts, because this test also reads this file.
    let forbidden = [
        (concat!("un", "safe "), "the crate forbids it"),
        (concat!("un", "safe("), "the crate forbids it"),
        (concat!("to", "do!"), "finish the code"),
        (concat!("un", "implemented!"), "finish the code"),
        (concat!("dbg", "!("), "remove it"),
        (concat!("#[", "ignore"), "every test must run"),
        (concat!("thread::", "sleep"), "wait for a condition, with a deadline"),
    ];
    let mut errors = Errors::default();
    for source in sources(&["src", "tests", "examples", "benches"]) {
        for (line, code) in source.code() {
            for (text, advice) in forbidden {
                if code.contains(text) {
                    errors.add(&source, line, format!("{text}: {advice}"));
                }
            }
        }
    }
    errors.check();
}

#[test]
fn tests_start_the_binary_through_one_module() {
    // The text is in two parts, because this test also reads this file.
    let variable = concat!("CARGO_BIN", "_EXE_fdpush");
    let mut errors = Errors::default();
    for source in sources(&["tests"]).filter(|source| source.path != "tests/common/command.rs") {
        for (line, _) in source.code().filter(|(_, code)| code.contains(variable)) {
            errors.add(&source, line, "start the binary through tests/common/command.rs, which refuses default ports");
        }
    }
    errors.check();
}

#[test]
fn the_checks_find_known_errors() {
    assert_eq!(without_comment("let a = 1; // mio"), "let a = 1; ");
    assert_eq!(without_comment("    /// [`Instant`]"), "    ");
    assert_eq!(without_comment(r#"let url = "http://mio";"#), r#"let url = "http://mio";"#);
    assert!(has_word("use mio::Poll;", "mio") && !has_word("amio::Poll", "mio") && !has_word("mio_like", "mio"));
    let text = "fn a(\n    b: u8,\n) {\n    b\n}\n\npub(crate) fn c() {}\nimpl D {\n    const fn d();\n    fn e() {\n    }\n}\n";
    let source = Source { path: String::new(), lines: text.lines().map(str::to_owned).collect() };
    let found: Vec<_> = functions(&source).collect();
    assert_eq!(found, [(1, "a", 5), (7, "c", 1), (9, "d", 1), (10, "e", 2)]);
    let text = "/// What.\n/// Who.\n///\n/// How.\nlet a = 1; // Where\n// Whose\n";
    let source = Source { path: String::new(), lines: text.lines().map(str::to_owned).collect() };
    assert_eq!(comment_starts(&source).collect::<Vec<_>>(), [(1, "What."), (4, "How."), (6, "Whose")]);
    assert_eq!(without_strings(r#"let a = f("b\"c", d);"#), r#"let a = f("", d);"#);
    assert_eq!(words_of("LogThrottle"), ["log", "throttle"]);
    assert_eq!(words_of("HEAD_TIME_MAX"), ["head", "time", "max"]);
    assert!(sources(&["src"]).any(|source| source.path == "src/protocol/frame.rs"));
}

#[test]
fn only_the_modules_for_printing_and_threads_print_and_start_threads() {
    // A printing macro panics if the output is closed and blocks if the pipe is full.
    let printing =
        ["println!", "print!(", "eprintln!", "eprint!("].map(|text| (text, "print through gateway/operations/logging"));
    let threads = ["thread::spawn", "thread::Builder", "thread::scope"]
        .map(|text| (text, "start threads in gateway/runtime/threads"));
    let mut errors = Errors::default();
    for source in sources(&["src"]) {
        // A test module is the last item of its file, so the check stops at its start.
        let is_test = source.path.ends_with("tests.rs")
            || source.path.contains("/tests/")
            || source.path == "src/gateway/hooks/backend/mock.rs";
        let code = source.code().take_while(|(_, code)| *code != "mod tests {");
        for (line, code) in code.filter(|_| !is_test) {
            for (text, instead) in printing.iter().chain(&threads) {
                let may_start = match &*source.path {
                    "src/gateway/runtime/threads.rs" => *text == "thread::Builder",
                    // This file starts the threads of the loops.
                    "src/event_loop/threads.rs" => *text != "thread::spawn",
                    _ => false,
                };
                if code.contains(text) && !may_start {
                    errors.add(&source, line, format!("{text}: {instead}"));
                }
            }
        }
    }
    errors.check();
}

/// Returns the line number and text at the start of each paragraph of a comment. Ignores comments after code.
fn comment_starts(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let mut previous = "";
    source.lines.iter().enumerate().filter_map(move |(index, line)| {
        let text = line.trim_start().strip_prefix("//").map(|text| text.trim_start_matches(['/', '!']).trim());
        let is_start = previous.is_empty() && text.is_some_and(|text| !text.is_empty());
        previous = text.unwrap_or_default();
        text.filter(|_| is_start).map(|text| (index + 1, text))
    })
}

/// Returns the words of a name in snake case, camel case or capitals, in lower case.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        was_lower = c.is_lowercase();
        if c != '_' {
            words.last_mut().expect("the list has a word").extend(c.to_lowercase());
        }
    }
    words
}

/// Returns the Rust files under these paths, sorted.
fn sources(paths: &[&str]) -> impl Iterator<Item = Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for path in paths {
        collect(&root.join(path), &mut files);
    }
    files.sort();
    files.into_iter().map(move |file| {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let path = file.strip_prefix(root).expect("the file is in this crate").display().to_string();
        Source { path, lines: text.lines().map(str::to_owned).collect() }
    })
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
        files.push(path.to_owned());
    }
    // Build output and installed packages are not sources of this crate.
    if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
        for entry in fs::read_dir(path).expect("the directory can be read") {
            collect(&entry.expect("the directory entry can be read").path(), files);
        }
    }
}

/// Returns a line without its comment. A `//` after a colon is part of a URL.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// Returns a line without the content of its string literals.
fn without_strings(code: &str) -> String {
    let (mut kept, mut is_string, mut is_escaped) = (String::new(), false, false);
    for c in code.chars() {
        let is_quote = c == '"' && !is_escaped;
        is_escaped = is_string && c == '\\' && !is_escaped;
        if is_quote {
            is_string = !is_string;
        }
        if is_quote || !is_string {
            kept.push(c);
        }
    }
    kept
}

fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part))
}

/// Returns the first line, name and number of lines of each function in a formatted file.
///
/// In formatted code a function ends with the first line that closes a brace at its own indentation.
fn functions(source: &Source) -> impl Iterator<Item = (usize, &str, usize)> {
    source.lines.iter().enumerate().filter_map(|(index, line)| {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let name = function_name(trimmed)?;
        let ends = |line: &&String| {
            let rest = line.strip_prefix(indent);
            rest == Some("}") || rest.is_some_and(|rest| !rest.starts_with(' ') && rest.ends_with([';', '}']))
        };
        let count = source.lines[index..].iter().position(|line| ends(&line))? + 1;
        Some((index + 1, name, count))
    })
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_qualifier =
        |word: &str| word.starts_with("pub") || matches!(word, "const" | "async" | "extern" | "in" | "\"C\"");
    let name = after.split(['(', '<']).next()?;
    before.split_whitespace().all(is_qualifier).then_some(name)
}
