//! Formats values in TOML.

use std::fmt::Write;

use clap::{Arg, ArgAction};

/// Formats the values of a setting in TOML.
pub fn toml_value(arg: &Arg, values: &[String]) -> String {
    let kind = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let is_count = kind == "COUNT";
    let one = |text: &String| match text.parse::<u64>() {
        Ok(number) if is_count => number.to_string(),
        _ if kind == "BOOL" => text.clone(),
        _ => quoted(text),
    };
    let list: Vec<String> = values.iter().map(one).collect();
    match arg.get_action() {
        ArgAction::Append => format!("[{}]", list.join(", ")),
        _ => list.join(", "),
    }
}

/// Formats a basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_strings_parse_to_the_original() {
        for text in ["", "a", "say \"x\"\\n", "tab\tline\nbell\u{7}\u{85}", "日本"] {
            let table: toml::Table = toml::from_str(&format!("a = {}", quoted(text))).expect("the text is TOML");
            assert_eq!(table["a"].as_str(), Some(text));
        }
    }
}
