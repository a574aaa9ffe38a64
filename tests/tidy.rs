//! Holds the house up: which floor a file is on, what it may know, and how long it may be.
//!
//! In the manner of rust-analyzer's and TigerBeetle's tidy: it reads the source as text, so it knows nothing that a
//! reader does not see, and its complaints name the line. The floors are drawn in `src/lib.rs`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that are longer, by file and name. To be shortened, never to be extended.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// The rooms of the library and their floors. A room is a file, a directory, or both, under `src/`.
const ROOMS: &[(&str, usize)] = &[
    ("protocol", 0),
    ("fd", 0),
    ("tick", 0),
    ("peer", 0),
    ("message", 0),
    ("limits", 0),
    ("histogram", 0),
    ("connection", 1),
    ("wheel", 1),
    ("registry", 1),
    ("event_loop", 2),
    ("server", 3),
    ("context", 3),
    ("remote", 3),
    ("main", 4),
    ("gateway", 4),
];

/// What only one floor may name, and which one.
const PRIVILEGES: &[(&str, usize)] =
    &[("mio", 2), ("rustix", 2), ("socket2", 2), ("Instant", 2), ("TcpStream", 2), ("UnixStream", 2)];

/// A source file: its path from the crate's root, and its lines.
struct Source {
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// Its lines without comments, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, without_comment(line)))
    }

    /// The room it belongs to, and its floor. The map of the house, `lib.rs`, belongs to none.
    fn room(&self) -> Option<(&str, usize)> {
        let path = self.path.strip_prefix("src/")?;
        let name = path.split('/').next()?.trim_end_matches(".rs");
        if name == "lib" {
            return None;
        }
        let room = ROOMS.iter().find(|(room, _)| *room == name);
        let (room, floor) = room.unwrap_or_else(|| panic!("{}: on which floor? Say so in tests/tidy.rs", self.path));
        Some((room, *floor))
    }
}

/// Collects what is wrong, so that one run names all of it.
#[derive(Default)]
struct Complaints(String);

impl Complaints {
    fn add(&mut self, source: &Source, line: usize, what: impl std::fmt::Display) {
        writeln!(self.0, "{}:{line}: {what}", source.path).expect("a string takes everything");
    }

    fn check(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

#[test]
fn imports_only_point_down() {
    let mut complaints = Complaints::default();
    for source in sources(&["src"]) {
        let Some((room, floor)) = source.room().filter(|(_, floor)| *floor < 4) else { continue };
        for (line, code) in source.code() {
            for target in code.split("crate::").skip(1) {
                let target: String = target.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                match ROOMS.iter().find(|(room, _)| *room == target) {
                    None => complaints.add(&source, line, format!("crate::{target} names no room")),
                    Some((_, above)) if *above > floor => {
                        complaints.add(&source, line, format!("floor {floor} must not know {target} on floor {above}"));
                    }
                    Some((sibling, 1)) if floor == 1 && *sibling != room => {
                        complaints.add(&source, line, format!("{room} must not know its sibling {sibling}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    complaints.check();
}

#[test]
fn the_gateway_is_a_user_like_any_other() {
    let mut complaints = Complaints::default();
    for source in sources(&["src/main.rs", "src/gateway", "examples"]) {
        for (line, code) in source.code() {
            for private in ["event_loop", "fdpush::fuzz"] {
                if code.contains(private) {
                    complaints.add(&source, line, format!("{private} is not for users of the crate"));
                }
            }
        }
    }
    complaints.check();
}

#[test]
fn the_world_outside_is_known_to_one_floor_only() {
    let mut complaints = Complaints::default();
    for source in sources(&["src"]) {
        let Some((_, floor)) = source.room() else { continue };
        for (line, code) in source.code() {
            for (name, privileged) in PRIVILEGES {
                // `server.rs` passes the loop's epoll on without looking at it.
                let is_passed_on = source.path == "src/server.rs" && code == "use mio::Poll;";
                if floor != *privileged && floor < 4 && has_word(code, name) && !is_passed_on {
                    complaints.add(&source, line, format!("{name} is for floor {privileged} only"));
                }
            }
            if floor < 2 && code.contains("log::") {
                complaints.add(&source, line, "no log lines below floor 2");
            }
        }
    }
    complaints.check();
}

#[test]
fn the_clock_is_read_in_one_file() {
    let mut readers: Vec<String> = sources(&["src"])
        .filter(|source| source.code().any(|(_, code)| code.contains("Instant::now")))
        .map(|source| source.path)
        .collect();
    readers.dedup();
    // The gateway is a user of the crate, with threads of its own, and has a clock of its own.
    assert_eq!(readers, ["src/event_loop/clock.rs", "src/gateway/runtime/clock.rs"]);
}

#[test]
fn files_are_short_and_open_by_saying_what_they_are() {
    let mut complaints = Complaints::default();
    for source in sources(&["src", "tests", "examples", "benches", "fuzz"]) {
        let count = source.lines.len();
        if count > FILE_LINES_MAX {
            complaints.add(&source, count, format!("{count} lines: more than {FILE_LINES_MAX}"));
        }
        if !source.lines.first().is_some_and(|line| line.starts_with("//! ")) {
            complaints.add(&source, 1, "opens without //!");
        }
    }
    complaints.check();
}

#[test]
fn functions_are_short() {
    let mut complaints = Complaints::default();
    let mut excused = Vec::new();
    for source in sources(&["src", "tests", "examples", "benches", "fuzz"]) {
        for (line, name, count) in functions(&source) {
            if count <= FUNCTION_LINES_MAX {
                continue;
            }
            let excuse = (source.path.as_str(), name);
            match LONG_FUNCTIONS.iter().find(|listed| **listed == excuse) {
                Some(listed) => excused.push(listed),
                None => {
                    complaints.add(&source, line, format!("fn {name} has {count} lines: over {FUNCTION_LINES_MAX}"))
                }
            }
        }
    }
    complaints.check();
    assert_eq!(excused.len(), LONG_FUNCTIONS.len(), "the list of long functions has an entry too many");
}

#[test]
fn nothing_is_unsafe_unfinished_or_skipped() {
    // Written in two halves, because this file is read, too.
    let forbidden = [
        (concat!("un", "safe "), "the crate does without"),
        (concat!("un", "safe("), "the crate does without"),
        (concat!("to", "do!"), "finish it"),
        (concat!("un", "implemented!"), "finish it"),
        (concat!("dbg", "!("), "take it out again"),
        (concat!("#[", "ignore"), "a test that is not run shows nothing"),
        (concat!("thread::", "sleep"), "wait for a condition with a deadline"),
    ];
    let mut complaints = Complaints::default();
    for source in sources(&["src", "tests", "examples", "benches"]) {
        for (line, code) in source.code() {
            for (what, why) in forbidden {
                if code.contains(what) {
                    complaints.add(&source, line, format!("{what}: {why}"));
                }
            }
        }
    }
    complaints.check();
}

#[test]
fn tidy_itself_sees_what_it_is_meant_to_see() {
    assert_eq!(without_comment("let a = 1; // mio"), "let a = 1; ");
    assert_eq!(without_comment("    /// [`Instant`]"), "    ");
    assert_eq!(without_comment(r#"let url = "http://mio";"#), r#"let url = "http://mio";"#);
    assert!(has_word("use mio::Poll;", "mio") && !has_word("amio::Poll", "mio") && !has_word("mio_like", "mio"));
    let text = "fn a(\n    b: u8,\n) {\n    b\n}\n\npub(crate) fn c() {}\nimpl D {\n    const fn d();\n    fn e() {\n    }\n}\n";
    let source = Source { path: String::new(), lines: text.lines().map(str::to_owned).collect() };
    let found: Vec<_> = functions(&source).collect();
    assert_eq!(found, [(1, "a", 5), (7, "c", 1), (9, "d", 1), (10, "e", 2)]);
    assert!(sources(&["src"]).any(|source| source.path == "src/protocol/frame.rs"));
}

#[test]
fn the_server_neither_prints_with_macros_nor_starts_threads_that_nothing_watches() {
    // Such a macro panics where its output cannot be written, and waits where it is not read.
    let printing =
        ["println!", "print!(", "eprintln!", "eprint!("].map(|what| (what, "gateway/operations/logging prints"));
    let threads =
        ["thread::spawn", "thread::Builder", "thread::scope"].map(|what| (what, "gateway/runtime/threads starts it"));
    let mut complaints = Complaints::default();
    for source in sources(&["src"]) {
        // Tests stand last.
        let is_test = source.path.ends_with("tests.rs") || source.path == "src/gateway/hooks/backend/mock.rs";
        let code = source.code().take_while(|(_, code)| *code != "mod tests {");
        for (line, code) in code.filter(|_| !is_test) {
            for (what, instead) in printing.iter().chain(&threads) {
                let is_supervisor = source.path == "src/gateway/runtime/threads.rs" && *what == "thread::Builder";
                if code.contains(what) && !is_supervisor {
                    complaints.add(&source, line, format!("{what}: {instead}"));
                }
            }
        }
    }
    complaints.check();
}

/// The Rust files under these paths, in order.
fn sources(paths: &[&str]) -> impl Iterator<Item = Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for path in paths {
        collect(&root.join(path), &mut files);
    }
    files.sort();
    files.into_iter().map(move |file| {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let path = file.strip_prefix(root).expect("a file of this crate").display().to_string();
        Source { path, lines: text.lines().map(str::to_owned).collect() }
    })
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
        files.push(path.to_owned());
    }
    // What is built or installed there is not ours.
    if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
        for entry in fs::read_dir(path).expect("a directory") {
            collect(&entry.expect("an entry").path(), files);
        }
    }
}

/// A line up to its comment. A `//` behind a colon is part of a URL.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part))
}

/// The functions of a formatted file: first line, name and number of lines. Formatted, a function ends with the first
/// line that closes a brace at its own depth.
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
