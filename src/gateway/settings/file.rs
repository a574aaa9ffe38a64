//! Reads the configuration file: flat TOML, with a key `a_b` for each flag `--a-b`.
//!
//! The values of the file become flags. So the same rules apply to values of the file and to flags. An error names the
//! file, the line and the key, and contains no secret.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction};
use toml::de::{DeTable, DeValue};

use super::declarations::{declaration, declarations};
use super::faults::Faults;
use super::toml_value::toml_value;
use super::value::check_values;
use crate::gateway::runtime::files;
use crate::gateway::wire::suggestion::nearest;

/// The maximum length of the configuration file in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A parsed configuration file. Each value was checked alone, and not together with other settings.
#[derive(Clone)]
pub struct File {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
}

/// A key of the configuration file and the values of the key.
#[derive(Clone, PartialEq)]
pub struct Entry {
    pub key: &'static str,
    /// The number of the line in the file, counted from 1.
    pub line: usize,
    /// The values in the form of flags. A list has several values.
    pub values: Vec<String>,
}

/// The TOML type of a value. The value name of the setting in `--help`, such as `SIZE`, determines this type.
enum Kind {
    Count,
    Size,
    Bool,
    Text,
}

impl File {
    /// Reads a configuration file and checks each value. Invalid values are left out, and are reported in `faults`.
    ///
    /// Returns `None` if the file cannot be read or is not TOML.
    pub fn read(path: &Path, faults: &mut Faults) -> Option<File> {
        let text = match files::read_text(path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(why) => {
                faults.mark_invalid("config", format!("config {}: {why}", path.display()));
                return None;
            }
        };
        let Read { entries, wrong, is_toml } = entries(&text);
        for Wrong { line, key, why } in wrong {
            let text = format!("{}:{line}: {why}", path.display());
            match key {
                Some(key) => faults.mark_invalid(key, text),
                None => faults.add(&[], text),
            }
        }
        is_toml.then(|| File { path: path.to_owned(), entries })
    }

    /// Returns the entry of the file for a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Entry {
    /// Returns the flags that have the same effect as the entry.
    pub fn flags(&self) -> impl Iterator<Item = String> {
        let name = self.key.replace('_', "-");
        self.values.iter().map(move |value| format!("--{name}={value}"))
    }
}

/// The result of parsing a configuration file.
struct Read {
    entries: Vec<Entry>,
    /// The errors of the file, in the order of the lines.
    wrong: Vec<Wrong>,
    is_toml: bool,
}

/// An error in a line of the file.
struct Wrong {
    line: usize,
    /// The setting that has no valid value.
    key: Option<&'static str>,
    why: String,
}

fn entries(text: &str) -> Read {
    let line_of = |offset: usize| text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut read = Read { entries: Vec::new(), wrong: Vec::new(), is_toml: errors.is_empty() };
    for error in errors {
        let line = line_of(error.span().map_or(0, |span| span.start));
        // The parser often reports several errors for one mistake. Only the first error of a line is reported.
        if read.wrong.iter().all(|wrong| wrong.line != line) {
            // The `Display` text of a parser error quotes the line, which can contain a secret. So only the message of
            // the error is used.
            read.wrong.push(Wrong { line, key: None, why: error.message().to_owned() });
        }
    }
    if read.is_toml {
        for (key, value) in table.get_ref() {
            let line = line_of(key.span().start);
            let name: &str = key.get_ref();
            match entry(name, value.get_ref(), line) {
                Ok(entry) => read.entries.push(entry),
                Err(whys) => {
                    let key = declaration(name).map(|arg| arg.get_id().as_str());
                    read.wrong.extend(whys.into_iter().map(|why| Wrong { line, key, why }));
                }
            }
        }
    }
    read.wrong.sort_by_key(|wrong| wrong.line);
    read
}

fn entry(name: &str, value: &DeValue<'_>, line: usize) -> Result<Entry, Vec<String>> {
    if name == "config" {
        return Err(vec![
            "config: the file cannot name another configuration file; give --config or FDPUSH_CONFIG".to_owned(),
        ]);
    }
    let Some(arg) = declaration(name) else {
        let names = declarations().map(|arg| arg.get_id().as_str()).filter(|key| *key != "config");
        let hint = match nearest(name, names) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "`fdpush config` prints all keys".to_owned(),
        };
        let form = if value.is_table() { " (tables are not supported: all keys are at the top level)" } else { "" };
        return Err(vec![format!("unknown key {name}{form}; {hint}")]);
    };
    let key = arg.get_id().as_str();
    let values = values(arg, value).map_err(|why| vec![format!("{key}: {why}")])?;
    let wrong: Vec<String> = check_values(arg, &values)
        .map(|(value, why)| match value {
            Some(value) => format!("{key} = {}: {why}", toml_value(arg, &[value.to_owned()])),
            None => format!("{key}: {why}"),
        })
        .collect();
    if wrong.is_empty() { Ok(Entry { key, line, values }) } else { Err(wrong) }
}

/// Returns the values of a key in the form of flags.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let kind = Kind::of(arg);
    if !matches!(arg.get_action(), ArgAction::Append) {
        return Ok(vec![kind.text(value)?]);
    }
    let DeValue::Array(items) = value else {
        return Err(format!(
            "the value is {}: expected an array of strings, for example [\"…\", \"…\"]",
            kind_of(value)
        ));
    };
    if items.is_empty() {
        return Err("the array is empty: to use the default, omit the key".to_owned());
    }
    let mut values = Vec::new();
    for item in items.iter() {
        let text = kind.text(item.get_ref())?;
        if text.contains(',') {
            return Err("an element contains a comma: write each value as its own element".to_owned());
        }
        values.push(text);
    }
    Ok(values)
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
            (Kind::Size, _) => "a string with a unit, for example \"64KiB\", or an integer in bytes",
            (Kind::Text, _) => "a string",
        };
        Err(format!("the value is {}: expected {expected}", kind_of(value)))
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
        let wrong = entries(text).wrong.into_iter().next().unwrap_or_else(|| panic!("{text} must have an error"));
        (wrong.line, wrong.why)
    }

    #[test]
    fn all_faults_are_reported() {
        let lines = |text: &str| -> Vec<usize> { entries(text).wrong.iter().map(|wrong| wrong.line).collect() };
        assert_eq!(lines("missed_max = 0\ncolour = 1\nlog = \"warn\"\nheaders_max = 1.5\n"), [1, 2, 4]);
        assert_eq!(lines("origin = [\"a\", \"https://good.example\", \"https://b/\"]"), [1, 1]);
        assert_eq!(lines("log = \"warn\nmissed_max = \nheaders_max = 5 5\n"), [1, 2, 3]);
    }

    #[test]
    fn values_become_flags() {
        let text = "ping_every = \"5s\"\nmissed_max = 3\nlisten = [\"a:1\", \"unix:/x\"]\nhead_bytes_max = 0x1000\n";
        let Read { entries, wrong, .. } = entries(text);
        assert!(wrong.is_empty());
        let mut flags: Vec<String> = entries.iter().flat_map(Entry::flags).collect();
        flags.sort();
        let expected =
            ["--head-bytes-max=4096", "--listen=a:1", "--listen=unix:/x", "--missed-max=3", "--ping-every=5s"];
        assert_eq!(flags, expected);
        assert_eq!(entries.iter().find(|entry| entry.key == "listen").map(|entry| entry.line), Some(3));
    }

    #[test]
    fn an_error_names_the_line_and_the_allowed_values() {
        let table: [(&str, usize, &[&str]); 16] = [
            ("\nping_evry = \"5s\"", 2, &["ping_evry", "did you mean ping_every?"]),
            ("ping-every = \"5s\"", 1, &["ping-every", "did you mean ping_every?"]),
            ("colour = 1", 1, &["colour", "fdpush config"]),
            ("config = \"x\"", 1, &["config", "FDPUSH_CONFIG"]),
            ("[limits]\nheaders_max = 1", 1, &["limits", "tables are not supported"]),
            ("ping_every = 5", 1, &["ping_every", "an integer", "expected a string"]),
            ("ping_every = \"soon\"", 1, &["ping_every", "soon", "25s"]),
            ("missed_max = \"2\"", 1, &["missed_max", "a string", "expected an integer"]),
            ("missed_max = 0", 1, &["missed_max", "at least 1"]),
            ("queue_bytes_max = 1.5", 1, &["queue_bytes_max", "a float", "64KiB"]),
            ("listen = \"a:1\"", 1, &["listen", "expected an array of strings"]),
            ("listen = [\"a\"]", 1, &["listen", "[\"a\"]", "HOST:PORT, [V6]:PORT or unix:PATH"]),
            ("api = []", 1, &["api", "empty"]),
            ("origin = [\"https://a,https://b\"]", 1, &["origin", "comma"]),
            ("auth = \"magic\"", 1, &["auth", "magic", "trust, jwt, webhook"]),
            ("log = \"warn\"\nlog = \"info\"", 2, &["duplicate key"]),
        ];
        for (text, line, hints) in table {
            let (at, why) = refused(text);
            assert_eq!(at, line, "{text}: {why}");
            for hint in hints {
                assert!(why.contains(hint), "{text}: expected {hint:?} in {why}");
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
