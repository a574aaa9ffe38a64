//! The calls of the API on a server with several loops.
//!
//! All API connections are on the first loop. A call that concerns clients of other loops also runs on these loops. The
//! first loop answers the call when all these loops have carried out their parts. The answer to a command is written
//! after all loops have written the messages that the command caused.
//!
//! The first loop checks each call before the call runs on other loops. So a refused call has no effect.

mod agenda;
mod answer;
pub mod batch;
mod commands;
mod lists;
mod lookups;
pub mod loops;
mod memberships;
mod pages;
mod push;

use fdpush::{Context, Fd, Request, Response};

use self::answer::{Answer, Work};
use self::commands::Kind;
pub use self::loops::Loops;
pub use self::push::send;
use super::call::{Call, decode};
use super::error::ApiError;
use super::parts::{ApiParts, MetricsText};
use super::response::uncached;
use crate::gateway::runtime::progress::Progress;

/// The API of a server with several loops.
pub struct Across {
    loops: Loops,
    /// The counter of the commands in progress.
    commands: Progress,
    /// The counter of the commands in progress that take several turns.
    long_commands: Progress,
    /// The counter of the lists in progress that take several turns.
    long_lists: Progress,
}

impl Across {
    /// Creates the API of the first loop.
    pub fn new(loops: Loops) -> Across {
        let [commands, long_commands, long_lists] = [(); 3].map(|()| Progress::default());
        Across { loops, commands, long_commands, long_lists }
    }

    /// Returns whether a command is in progress. The notices of groups must wait for the end of the command.
    pub fn has_command(&self) -> bool {
        self.commands.count() > 0
    }

    /// Starts a call for which [`Call::concerns_loops`] returns `true`. Returns a deferred response.
    pub fn respond(
        &self,
        ctx: &mut Context<'_>,
        fd: Fd,
        call: Call<'_>,
        request: &Request<'_>,
        parts: &mut ApiParts<'_>,
        scrape: impl FnOnce() -> MetricsText,
    ) -> Response {
        let (response, ticket) = ctx.defer_response(fd);
        let answer = Answer::new(ticket, parts.metrics.clone(), call.label());
        let body = request.body();
        let work = match call {
            Call::Push => {
                push::answer(ctx, parts, body, answer);
                return uncached(response);
            }
            Call::Metrics => Ok(lookups::metrics(scrape())),
            Call::Ready => Ok(lookups::ready()),
            Call::Stats => Ok(lookups::stats()),
            Call::Close => self.command(ctx, Kind::Close, body),
            Call::Unbind => self.command(ctx, Kind::Unbind, body),
            Call::Ungroup => self.command(ctx, Kind::Ungroup, body),
            Call::Bind => memberships::bind(&self.loops, body),
            Call::Join => memberships::join(&self.loops, &self.commands, body),
            Call::Leave => memberships::leave(&self.loops, &self.commands, body),
            Call::Online => lookups::online(body),
            Call::Users | Call::User(_) | Call::Groups | Call::Group(_) | Call::Connections => {
                lists::list(&self.loops, &self.long_lists, call, request)
            }
            Call::Connection(fd) => decode(fd).and_then(|fd| lookups::connection(&fd)),
            Call::Attributes(fd) => decode(fd).and_then(|fd| lookups::attributes(&fd, request.method(), body)),
            Call::Batch | Call::Healthy | Call::OpenApi => Err(ApiError::not_found("not here")),
        };
        match work {
            Ok(work) => work(ctx, answer),
            Err(error) => answer.send(ctx, Err(error)),
        }
        uncached(response)
    }

    fn command(&self, ctx: &Context<'_>, kind: Kind, body: &[u8]) -> Result<Work, ApiError> {
        commands::command(ctx, &self.loops, [&self.commands, &self.long_commands], kind, body)
    }
}
