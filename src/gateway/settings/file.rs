//! The configuration file: flat TOML, a key `a_b` for each flag `--a-b`. Its values become flags, so that they are
//! judged by the same rules; its errors name the file, the line and the key, and show nothing of a secret.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction};
use toml::de::{DeTable, DeValue};

use super::{declaration, declarations, is_secret, is_url, parse, show};
use crate::gateway::spelling::nearest;

/// A file that was read and is sound by itself.
#[derive(Clone)]
pub struct File {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
}

/// One of its keys.
#[derive(Clone, PartialEq)]
pub struct Entry {
    pub key: &'static str,
    /// Counted from 1.
    pub line: usize,
    /// As flags have them; several for a list.
    pub values: Vec<String>,
}

/// What a value may be in TOML. The name of the value in the help says which.
enum Kind {
    Count,
    Size,
    Bool,
    Text,
}

impl File {
    /// Reads a file, and judges each of its values.
    pub fn read(path: &Path) -> Result<File, String> {
        let text = fs::read_to_string(path).map_err(|why| format!("config {}: {why}", path.display()))?;
        let entries = entries(&text).map_err(|(line, why)| format!("{}:{line}: {why}", path.display()))?;
        Ok(File { path: path.to_owned(), entries })
    }

    /// What it says of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Entry {
    /// What it would be on the command line.
    pub fn flags(&self) -> impl Iterator<Item = String> {
        let name = self.key.replace('_', "-");
        self.values.iter().map(move |value| format!("--{name}={value}"))
    }
}

/// The keys of a file's text; or the line of what is wrong with it, and what that is.
fn entries(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let line_of = |offset: usize| text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    // The parser's own message quotes the line, which may hold a secret.
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        (line_of(offset), error.message().to_owned())
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(key.span().start);
        let name: &str = key.get_ref();
        let entry = entry(name, value.get_ref(), line).map_err(|why| (line, why))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(name: &str, value: &DeValue<'_>, line: usize) -> Result<Entry, String> {
    if name == "config" {
        return Err("config: the file cannot name another; give --config or FDPUSH_CONFIG".to_owned());
    }
    let Some(arg) = declaration(name) else {
        let names = declarations().map(|arg| arg.get_id().as_str()).filter(|key| *key != "config");
        let hint = match nearest(name, names) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "`fdpush config` prints all there are".to_owned(),
        };
        let form = if value.is_table() { " (there are no tables: all keys are at the top)" } else { "" };
        return Err(format!("unknown key {name}{form}; {hint}"));
    };
    let key = arg.get_id().as_str();
    let values = values(arg, value).map_err(|why| format!("{key}: {why}"))?;
    let entry = Entry { key, line, values };
    judge(arg, &entry)?;
    Ok(entry)
}

/// The values of a key as flags have them.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let kind = Kind::of(arg);
    if !matches!(arg.get_action(), ArgAction::Append) {
        return Ok(vec![kind.text(value)?]);
    }
    let DeValue::Array(items) = value else {
        return Err(format!("it is {}: expected an array of strings, as [\"…\", \"…\"]", kind_of(value)));
    };
    if items.is_empty() {
        return Err("the array is empty: to have the default, leave the key out".to_owned());
    }
    let mut values = Vec::new();
    for item in items.iter() {
        let text = kind.text(item.get_ref())?;
        if text.contains(',') {
            return Err("an element has a comma in it: give each its own element".to_owned());
        }
        values.push(text);
    }
    Ok(values)
}

/// Has clap judge the values, which it would otherwise do as though they stood on the command line.
fn judge(arg: &Arg, entry: &Entry) -> Result<(), String> {
    let line = ["fdpush", "serve"].into_iter().map(str::to_owned).chain(entry.flags());
    let Err(error) = parse(line.map(Into::into)) else { return Ok(()) };
    let why = match (error.get(ContextKind::ValidValue), error.source()) {
        (Some(ContextValue::Strings(valid)), _) if !valid.is_empty() => format!("expected {}", valid.join(", ")),
        (_, Some(why)) => why.to_string(),
        _ => error.kind().to_string(),
    };
    if is_secret(arg) || is_url(arg) {
        return Err(format!("{}: {why}", entry.key));
    }
    Err(format!("{} = {}: {why}", entry.key, show::value(arg, &entry.values)))
}

impl Kind {
    fn of(arg: &Arg) -> Kind {
        match arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str()) {
            Some("COUNT") => Kind::Count,
            Some("SIZE") => Kind::Size,
            Some("BOOL") => Kind::Bool,
            _ => Kind::Text,
        }
    }

    fn text(&self, value: &DeValue<'_>) -> Result<String, String> {
        let expected = match (self, value) {
            (Kind::Count | Kind::Size, DeValue::Integer(integer)) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix());
                return number.map(|number| number.to_string()).map_err(|_| "the integer is too large".to_owned());
            }
            (Kind::Bool, DeValue::Boolean(is_so)) => return Ok(is_so.to_string()),
            (Kind::Size | Kind::Text, DeValue::String(text)) => return Ok(text.clone().into_owned()),
            (Kind::Count, _) => "an integer",
            (Kind::Bool, _) => "true or false",
            (Kind::Size, _) => "a string with a unit, as \"64KiB\", or an integer, which is bytes",
            (Kind::Text, _) => "a string",
        };
        Err(format!("it is {}: expected {expected}", kind_of(value)))
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (usize, String) {
        entries(text).err().unwrap_or_else(|| panic!("{text} passed"))
    }

    #[test]
    fn values_become_flags() {
        let text = "ping_every = \"5s\"\nmissed_max = 3\nlisten = [\"a:1\", \"unix:/x\"]\nhead_bytes_max = 0x1000\n";
        let entries = entries(text).unwrap_or_else(|why| panic!("{why:?}"));
        let mut flags: Vec<String> = entries.iter().flat_map(Entry::flags).collect();
        flags.sort();
        let expected =
            ["--head-bytes-max=4096", "--listen=a:1", "--listen=unix:/x", "--missed-max=3", "--ping-every=5s"];
        assert_eq!(flags, expected);
        assert_eq!(entries.iter().find(|entry| entry.key == "listen").map(|entry| entry.line), Some(3));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_is_allowed() {
        let table: [(&str, usize, &[&str]); 16] = [
            ("\nping_evry = \"5s\"", 2, &["ping_evry", "did you mean ping_every?"]),
            ("ping-every = \"5s\"", 1, &["ping-every", "did you mean ping_every?"]),
            ("colour = 1", 1, &["colour", "fdpush config"]),
            ("config = \"x\"", 1, &["config", "FDPUSH_CONFIG"]),
            ("[limits]\nheaders_max = 1", 1, &["limits", "no tables"]),
            ("ping_every = 5", 1, &["ping_every", "an integer", "expected a string"]),
            ("ping_every = \"soon\"", 1, &["ping_every", "soon", "25s"]),
            ("missed_max = \"2\"", 1, &["missed_max", "a string", "expected an integer"]),
            ("missed_max = 0", 1, &["missed_max", "1.."]),
            ("queue_bytes_max = 1.5", 1, &["queue_bytes_max", "a float", "64KiB"]),
            ("listen = \"a:1\"", 1, &["listen", "expected an array of strings"]),
            ("listen = [\"a\"]", 1, &["listen", "\"a\"", "HOST:PORT, [V6]:PORT or unix:PATH"]),
            ("api = []", 1, &["api", "empty"]),
            ("origin = [\"https://a,https://b\"]", 1, &["origin", "comma"]),
            ("auth = \"magic\"", 1, &["auth", "magic", "trust, jwt, webhook"]),
            ("log = \"warn\"\nlog = \"info\"", 2, &["duplicate key"]),
        ];
        for (text, line, hints) in table {
            let (at, why) = refused(text);
            assert_eq!(at, line, "{text}: {why}");
            for hint in hints {
                assert!(why.contains(hint), "{text}: no {hint:?} in {why}");
            }
        }
    }

    #[test]
    fn errors_show_no_secret() {
        for text in [
            "jwt_secret = [\"hush\"",
            "jwt_secret = [\"hush,hush\"]",
            "webhook_secret = 'hush",
            "api_key = \"hush\"",
            "webhook = \"htp://u:hush@h/\"",
            "auth_url = \"http://u:hush@\"",
        ] {
            let (_, why) = refused(text);
            assert!(!why.contains("hush"), "{text}: {why}");
        }
        assert!(refused("webhook_secret = \"***\"").1.contains("fdpush config"));
    }
}
