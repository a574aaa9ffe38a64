//! Formats a log record as one line.
//!
//! Each byte of a line passes through [`Escape`], so untrusted text cannot end a line, begin another line or send
//! control sequences to a terminal. The caller puts untrusted text in quotes with `{:?}`.

use std::fmt::{self, Write};
use std::time::SystemTime;

use log::Level;

/// The maximum length of a line with its line end, in bytes.
///
/// A write of up to `PIPE_BUF` (4096) bytes to a pipe is atomic. So the lines of several processes that write to one
/// pipe are not mixed.
pub const LINE_BYTES_MAX: usize = 4096;

/// The text that ends each line that was cut to [`LINE_BYTES_MAX`].
const CUT: &str = " [cut]";

/// Formats a log line as simple_logger does: time (UTC), level, target, message.
pub fn format(time: SystemTime, level: Level, target: &str, message: fmt::Arguments<'_>) -> String {
    let time = humantime::format_rfc3339_millis(time);
    finish(format_args!("{time} {level:<5} [{target}] {message}"))
}

/// Formats a line that has no time, no level and no target.
pub fn plain(text: &str) -> String {
    finish(format_args!("{text}"))
}

fn finish(text: fmt::Arguments<'_>) -> String {
    let mut escape = Escape { line: String::with_capacity(128), is_cut: false };
    // At the maximum length of a line, the formatter stops with an error. So a very long text is not formatted
    // completely.
    let _ = escape.write_fmt(text);
    if escape.is_cut {
        escape.line.push_str(CUT);
    }
    escape.line.push('\n');
    escape.line
}

/// A writer that escapes characters that are not visible text.
struct Escape {
    line: String,
    is_cut: bool,
}

impl Escape {
    fn push(&mut self, text: &str) -> fmt::Result {
        if self.line.len() + text.len() + CUT.len() + 1 > LINE_BYTES_MAX {
            self.is_cut = true;
            return Err(fmt::Error);
        }
        self.line.push_str(text);
        Ok(())
    }
}

impl Write for Escape {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '\n' => self.push("\\n"),
            '\r' => self.push("\\r"),
            '\t' => self.push("\\t"),
            c if is_escaped(c) => self.push(&c.escape_unicode().to_string()),
            c => self.push(c.encode_utf8(&mut [0; 4])),
        })
    }
}

/// Returns whether a character is escaped: control characters (C0, DEL, C1), line and paragraph separators, and
/// invisible or bidirectional characters.
fn is_escaped(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(message: fmt::Arguments<'_>) -> String {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        format(time, Level::Warn, "fdpush::gateway", message)
    }

    const HEAD: &str = "2023-11-14T22:13:20.123Z WARN  [fdpush::gateway] ";

    #[test]
    fn a_line_has_the_format_of_simple_logger() {
        assert_eq!(line(format_args!("fd {}: 日本 \"é\" \\", 7)), format!("{HEAD}fd 7: 日本 \"é\" \\\n"));
    }

    #[test]
    fn a_log_record_is_one_line() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let line = line(format_args!("a{c}b"));
            let text = line.strip_suffix('\n').expect("the line has a line end");
            assert!(text.starts_with(HEAD) && text.ends_with('b'), "{line:?}");
            assert!(!text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')), "{line:?}");
        }
        for (c, escaped) in [
            ('\n', "\\n"),
            ('\r', "\\r"),
            ('\t', "\\t"),
            ('\u{1b}', "\\u{1b}"),
            ('\u{7f}', "\\u{7f}"),
            ('\u{85}', "\\u{85}"),
            ('\u{2028}', "\\u{2028}"),
            ('\u{202e}', "\\u{202e}"),
            ('\u{2066}', "\\u{2066}"),
            ('\u{feff}', "\\u{feff}"),
        ] {
            assert_eq!(line(format_args!("{c}{c}x{c}")), format!("{HEAD}{escaped}{escaped}x{escaped}\n"));
        }
    }

    #[test]
    fn a_target_and_a_plain_line_are_escaped_too() {
        let line = format(SystemTime::UNIX_EPOCH, Level::Error, "a\nb", format_args!("c"));
        assert_eq!(line, "1970-01-01T00:00:00.000Z ERROR [a\\nb] c\n");
        assert_eq!(plain("a\u{1b}[2Jb"), "a\\u{1b}[2Jb\n");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        for unit in ["x", "é", "日", "🦀", "\n", "\u{2028}"] {
            let line = line(format_args!("{}", unit.repeat(1 << 20)));
            assert!(line.len() <= LINE_BYTES_MAX && line.len() > LINE_BYTES_MAX - 16, "{unit:?}: {}", line.len());
            assert!(line.ends_with(" [cut]\n"), "{unit:?}");
        }
        let room = LINE_BYTES_MAX - HEAD.len() - CUT.len() - 1;
        assert!(!line(format_args!("{}", "x".repeat(room))).contains("[cut]"));
        assert!(line(format_args!("{}", "x".repeat(room + 1))).contains("[cut]"));
    }

    #[test]
    fn a_long_text_is_not_formatted_to_its_end() {
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("and on ")?;
                }
            }
        }
        assert!(line(format_args!("{Endless}")).ends_with(" [cut]\n"));
    }
}
