//! The methods of [`Context`] for the lists of all users and of all groups.

use crate::event_loop::Context;
use crate::registry::ScanCursor;

impl Context<'_> {
    /// Returns each uid that has connections on this loop, with the number of these connections, in no particular order.
    ///
    /// A connection of this loop that a login on another loop has replaced still counts until this loop has closed the
    /// connection.
    ///
    /// With a million users, an iteration over all users blocks the loop for tens of milliseconds.
    /// [`scan_users`](Context::scan_users) returns the users in portions.
    pub fn users(&self) -> impl Iterator<Item = (&str, usize)> {
        self.core.registry().users()
    }

    /// Returns the number of uids that have connections, on all loops.
    ///
    /// The call takes constant time.
    pub fn user_count(&self) -> usize {
        self.core.name_counts().0
    }

    /// Returns a portion of [`users`](Context::users) of this loop, and the cursor of the next portion.
    ///
    /// The first portion is at `ScanCursor::default()`. The cursor of the next portion is `None` after the last
    /// portion. A portion has at most `max` users, or at most 256 users if `max` is below 256. A portion can be empty,
    /// even if it is not the last portion.
    ///
    /// Users can go online and offline between two portions. A user who stays online during the whole scan is returned
    /// once. A user who goes online during the scan may be missing. A user who goes offline and online again during the
    /// scan may be missing or be returned twice.
    ///
    /// With several [loops](crate::Server::loops), each loop has its own list of users. A user is in the list of a loop
    /// while the user has a connection on that loop. A user with connections on several loops is in the list of each of
    /// these loops. A cursor belongs to the loop that returned it.
    ///
    /// ```
    /// use fdpush::{Context, ScanCursor};
    ///
    /// /// Counts the users with several devices, ten thousand users in each turn.
    /// struct Census { cursor: Option<ScanCursor>, with_several: usize }
    ///
    /// fn on_turn_end(ctx: &mut Context<'_>, census: &mut Census) {
    ///     let Some(cursor) = census.cursor else { return };
    ///     let (users, next) = ctx.scan_users(cursor, 10_000);
    ///     census.with_several += users.filter(|(_, connections)| *connections > 1).count();
    ///     census.cursor = next;
    ///     ctx.request_turn_end();
    /// }
    /// ```
    pub fn scan_users(
        &self,
        cursor: ScanCursor,
        max: usize,
    ) -> (impl Iterator<Item = (&str, usize)>, Option<ScanCursor>) {
        self.core.registry().scan_users(cursor, max)
    }

    /// Returns each group that has members on this loop, with the number of these members, in no particular order.
    ///
    /// With a million groups, an iteration over all groups blocks the loop for tens of milliseconds.
    /// [`scan_groups`](Context::scan_groups) returns the groups in portions.
    pub fn groups(&self) -> impl Iterator<Item = (&str, usize)> {
        self.core.registry().groups()
    }

    /// Returns the number of groups that have members, on all loops.
    ///
    /// The call takes constant time.
    pub fn group_count(&self) -> usize {
        self.core.name_counts().1
    }

    /// Returns a portion of [`groups`](Context::groups) of this loop, and the cursor of the next portion.
    ///
    /// This method works like [`scan_users`](Context::scan_users). A group that has members on this loop during the whole
    /// scan is returned once.
    pub fn scan_groups(
        &self,
        cursor: ScanCursor,
        max: usize,
    ) -> (impl Iterator<Item = (&str, usize)>, Option<ScanCursor>) {
        self.core.registry().scan_groups(cursor, max)
    }
}
