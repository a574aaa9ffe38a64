//! `POST /api/batch`: executes one push command per line of the request body, in bounded memory.
//!
//! Each line of the response body is the answer to one command.

use fdpush::{Context, Response, ResponseStream, Ticket};

use super::across::batch::Outgoing;
use super::backpressure::PausedBatches;
use super::error::ApiError;
use super::parts::ApiParts;
use super::push::{self, BatchLine};
use crate::gateway::wire::json::strip_bom;

/// The reason why the command in a batch line is not executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Skipped {
    /// The line is longer than `line_bytes_max`.
    Overlong,
    /// Memory for the line could not be allocated.
    OutOfMemory,
}

/// The state of a batch request between two pieces of its body.
#[derive(Debug)]
pub struct Batch {
    /// The bytes of the line whose line end has not arrived yet.
    partial: Vec<u8>,
    /// The reason why the bytes of an incomplete line are discarded. `None` if `partial` stores these bytes.
    skipped: Option<Skipped>,
    line_bytes_max: usize,
    /// The ticket for the response to the batch request. `None` after the head of the response was written.
    ticket: Option<Ticket<Response>>,
    /// The stream of the response body. `None` before the response begins, and after the response has ended.
    pub response: Option<ResponseStream>,
    /// The answers to the lines, if the server has several loops. In this case, `response` is `None`, because
    /// `outgoing` writes the response.
    pub outgoing: Option<Outgoing>,
    /// The number of lines handled so far, including empty and skipped lines.
    lines: u64,
}

impl Batch {
    /// Creates a batch whose lines have at most `line_bytes_max` bytes. `ticket` belongs to the batch request.
    pub fn new(ticket: Ticket<Response>, line_bytes_max: usize) -> Batch {
        let ticket = Some(ticket);
        Batch { partial: Vec::new(), skipped: None, line_bytes_max, ticket, response: None, outgoing: None, lines: 0 }
    }

    /// Begins the response to the batch request. Returns `false` if the response has already begun.
    pub fn begin(&mut self, ctx: &mut Context<'_>, head: &Response) -> bool {
        let Some(ticket) = self.ticket.take() else { return false };
        let fd = ticket.fd();
        self.response = ctx.begin_response(ticket, head);
        if ctx.loop_count() > 1 {
            self.outgoing = Some(Outgoing::new(fd, self.response.take()));
        }
        true
    }

    /// Executes the command of each line that ends in `piece`. Appends one answer per command to `out`.
    pub fn handle_piece(
        &mut self,
        ctx: &mut Context<'_>,
        parts: &mut ApiParts<'_>,
        paused: &mut PausedBatches,
        mut piece: &[u8],
        out: &mut String,
    ) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            piece = rest;
            if self.partial.is_empty() && self.skipped.is_none() && line.len() <= self.line_bytes_max {
                self.handle_line(ctx, parts, paused, line, out);
            } else {
                self.keep(line);
                self.handle_partial(ctx, parts, paused, out);
            }
        }
        self.keep(piece);
    }

    /// Executes the command of a last line that has no line end.
    pub fn handle_end(
        &mut self,
        ctx: &mut Context<'_>,
        parts: &mut ApiParts<'_>,
        paused: &mut PausedBatches,
        out: &mut String,
    ) {
        if !self.partial.is_empty() || self.skipped.is_some() {
            self.handle_partial(ctx, parts, paused, out);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.skipped.is_none() {
            self.skipped = reserve(&mut self.partial, bytes.len(), self.line_bytes_max).err();
        }
        if self.skipped.is_some() {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn handle_partial(
        &mut self,
        ctx: &mut Context<'_>,
        parts: &mut ApiParts<'_>,
        paused: &mut PausedBatches,
        out: &mut String,
    ) {
        if let Some(skipped) = self.skipped.take() {
            self.lines += 1;
            let error = match skipped {
                Skipped::Overlong => {
                    ApiError::too_large(format!("line length limit exceeded ({} bytes)", self.line_bytes_max))
                }
                Skipped::OutOfMemory => ApiError::out_of_memory(),
            };
            match &self.outgoing {
                Some(outgoing) => {
                    let mut answer = String::new();
                    error.write(None, Some(self.lines), &mut answer);
                    outgoing.add(ctx, answer);
                }
                None => {
                    error.write(None, Some(self.lines), out);
                    out.push('\n');
                }
            }
            return;
        }
        let mut line = std::mem::take(&mut self.partial);
        self.handle_line(ctx, parts, paused, &line, out);
        line.clear();
        self.partial = line;
    }

    fn handle_line(
        &mut self,
        ctx: &mut Context<'_>,
        parts: &mut ApiParts<'_>,
        paused: &mut PausedBatches,
        line: &[u8],
        out: &mut String,
    ) {
        self.lines += 1;
        // Empty lines are skipped, because some programs write two line ends after the last line.
        if strip_bom(line).trim_ascii().is_empty() {
            return;
        }
        if let Some(outgoing) = &self.outgoing {
            return outgoing.execute(ctx, parts, self.lines, line);
        }
        let place = BatchLine { line: self.lines, paused };
        push::handle_command(ctx, parts, line, Some(place), out);
        out.push('\n');
    }
}

/// Reserves memory for `more` bytes of an incomplete line.
///
/// If the memory of the line must grow, its size at least doubles, so that a line in many pieces is not copied many
/// times. The size of the memory never exceeds `bytes_max`, the maximum length of a line.
fn reserve(line: &mut Vec<u8>, more: usize, bytes_max: usize) -> Result<(), Skipped> {
    let length = line.len() + more;
    if length > bytes_max {
        return Err(Skipped::Overlong);
    }
    if length > line.capacity() {
        let capacity = length.max(line.capacity().saturating_mul(2)).min(bytes_max);
        line.try_reserve_exact(capacity - line.len()).map_err(|_| Skipped::OutOfMemory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_line_is_bounded_and_its_allocation_may_fail() {
        let mut line = Vec::new();
        for _ in 0..100 {
            assert_eq!(reserve(&mut line, 10, 1000), Ok(()));
            line.extend_from_slice(&[b'x'; 10]);
            assert!(line.capacity() <= 1000);
        }
        assert_eq!(reserve(&mut line, 1, 1000), Err(Skipped::Overlong));
        // An allocation has at most `isize::MAX` bytes. With the 1000 bytes of the line, this reservation needs more
        // bytes, so it must fail.
        assert_eq!(reserve(&mut line, isize::MAX as usize, usize::MAX), Err(Skipped::OutOfMemory));
        assert_eq!(line.len(), 1000);
    }
}
