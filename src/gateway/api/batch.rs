//! `POST /api/batch`: a push command a line, an answer a line, in bounded memory however many there are.

use fdpush::Context;

use super::Parts;
use super::backpressure::Holds;
use super::error::ApiError;
use super::push::{self, Place};
use crate::gateway::wire::json::skip_mark;

/// A batch on its way: what the pieces of its body amount to.
#[derive(Debug)]
pub struct Batch {
    /// The start of a line whose end has not come.
    partial: Vec<u8>,
    /// Whether that line is too long, and what comes of it passed over.
    is_overlong: bool,
    line_bytes_max: usize,
    /// Whether its answers have begun.
    is_begun: bool,
    /// Lines that have ended.
    lines: u64,
}

impl Batch {
    /// A batch whose lines have at most so many bytes.
    pub fn new(line_bytes_max: usize) -> Batch {
        Batch { partial: Vec::new(), is_overlong: false, line_bytes_max, is_begun: false, lines: 0 }
    }

    /// Begins the answers. `false`: they have begun.
    pub fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.is_begun, true)
    }

    /// Carries out the lines that end in `piece`, and appends an answer for each to `out`.
    pub fn handle_piece(
        &mut self,
        ctx: &mut Context<'_>,
        parts: &mut Parts<'_>,
        holds: &mut Holds,
        mut piece: &[u8],
        out: &mut String,
    ) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            piece = rest;
            if self.partial.is_empty() && !self.is_overlong && line.len() <= self.line_bytes_max {
                self.handle_line(ctx, parts, holds, line, out);
            } else {
                self.keep(line);
                self.handle_partial(ctx, parts, holds, out);
            }
        }
        self.keep(piece);
    }

    /// The body has ended: what is left is a line, too.
    pub fn handle_end(&mut self, ctx: &mut Context<'_>, parts: &mut Parts<'_>, holds: &mut Holds, out: &mut String) {
        if !self.partial.is_empty() || self.is_overlong {
            self.handle_partial(ctx, parts, holds, out);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.is_overlong |= self.partial.len() + bytes.len() > self.line_bytes_max;
        if self.is_overlong {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn handle_partial(&mut self, ctx: &mut Context<'_>, parts: &mut Parts<'_>, holds: &mut Holds, out: &mut String) {
        if std::mem::take(&mut self.is_overlong) {
            self.lines += 1;
            let what = format!("a line has at most {} bytes", self.line_bytes_max);
            ApiError::too_large(what).write(None, Some(self.lines), out);
            out.push('\n');
            return;
        }
        let mut line = std::mem::take(&mut self.partial);
        self.handle_line(ctx, parts, holds, &line, out);
        line.clear();
        self.partial = line;
    }

    fn handle_line(
        &mut self,
        ctx: &mut Context<'_>,
        parts: &mut Parts<'_>,
        holds: &mut Holds,
        line: &[u8],
        out: &mut String,
    ) {
        self.lines += 1;
        // An empty line is none: many a program ends its last one twice.
        if skip_mark(line).trim_ascii().is_empty() {
            return;
        }
        let place = Place { line: self.lines, holds };
        push::carry_out(ctx, parts, line, Some(place), out);
        out.push('\n');
    }
}
