//! The directory: for each uid and each group, the loops that have its connections.
//!
//! A server with several loops has one directory. The entries of the directory are in shards, and each shard has a
//! lock, so that loops rarely wait for each other. A server with one loop has no directory.
//!
//! The directory also decides whether a connection may have a uid. The shard of the uid is locked during the decision,
//! so the decision is exact even if clients log in with one uid on all loops at the same moment.

use std::hash::{BuildHasher, RandomState};
use std::sync::PoisonError;

use compact_str::CompactString;
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::fd::{Fd, Numbering};
use crate::sync::{Mutex, MutexGuard};

/// The number of shards, a power of two.
const SHARDS: usize = 64;

const _: () = assert!(size_of::<Entry>() <= 48);

/// The loops that have connections of each uid, and members of each group.
///
/// A loop calls [`claim`](Directory::claim) before it binds one of its connections to a uid, and
/// [`release`](Directory::release) when one of its connections ends or gets another uid. [`join`](Directory::join) and
/// [`leave`](Directory::leave) record that connections join and leave groups.
#[derive(Debug)]
pub struct Directory {
    shards: Box<[Mutex<Shard>]>,
    /// The hash function. Without its random seed, clients could choose names whose hashes collide.
    hasher: SipHasher13,
    logins: Logins,
    numbering: Numbering,
}

/// The rule for a login with a uid that has a connection already.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Logins {
    /// A uid has any number of connections.
    Many,
    /// The new connection gets the uid, and the earlier connection of the uid is closed.
    ReplaceOld,
    /// The new connection does not get the uid.
    RefuseNew,
}

/// The result of [`Directory::claim`]: whether the connection may have the uid.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The connection may have the uid.
    Granted,
    /// The connection may have the uid, and the caller must close this connection, which had the uid until now.
    ///
    /// Each replaced connection is returned by exactly one call of `claim`.
    Replaced(Fd),
    /// The connection may not have the uid, because another connection has the uid.
    Taken,
    /// The connection may not have the uid, because the uid has the maximum number of connections already.
    Full,
}

/// A loop, and the number of its connections that have a certain uid or are in a certain group.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The number of the loop.
    pub index: u16,
    /// The number of connections. In an entry of the directory, the number is at least 1.
    pub count: u32,
}

#[derive(Debug, Default)]
struct Shard {
    uids: HashTable<Entry>,
    groups: HashTable<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: CompactString,
    holders: Holders,
}

#[derive(Debug)]
enum Holders {
    /// The only connection of a uid. With [`Logins::Many`], no entry has this variant.
    Owner(Fd),
    One(Part),
    Several(Box<[Part]>),
}

impl Directory {
    /// Creates an empty directory for `loops` loops.
    pub fn new(loops: usize, logins: Logins) -> Directory {
        let random = RandomState::new();
        // A test with schedules needs the same shards in each run: see `src/sync.rs`.
        let key = |number: u64| if cfg!(all(test, fdpush_interleave)) { number } else { random.hash_one(number) };
        Directory {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: SipHasher13::new_with_keys(key(0), key(1)),
            logins,
            numbering: Numbering::new(0, loops),
        }
    }

    /// Records that a connection of the loop `index` gets a uid, if the rule for logins permits it.
    ///
    /// The connection must not have the uid already. `max` is the maximum number of connections of the uid, and applies
    /// only to [`Logins::Many`].
    pub fn claim(&self, uid: &str, fd: Fd, index: usize, max: Option<u32>) -> Claim {
        let hash = self.hasher.hash(uid.as_bytes());
        let mut shard = self.lock(hash);
        let Some(entry) = shard.uids.find_mut(hash, |entry| entry.name == uid) else {
            let holders = match self.logins {
                Logins::Many if max == Some(0) => return Claim::Full,
                Logins::Many => Holders::One(Part::new(index)),
                Logins::ReplaceOld | Logins::RefuseNew => Holders::Owner(fd),
            };
            self.insert(&mut shard.uids, hash, uid, holders);
            return Claim::Granted;
        };
        match (&mut entry.holders, self.logins) {
            (Holders::Owner(_), Logins::RefuseNew) => Claim::Taken,
            (Holders::Owner(owner), _) => Claim::Replaced(std::mem::replace(owner, fd)),
            (holders, _) if max.is_some_and(|max| holders.count() >= max as usize) => Claim::Full,
            (holders, _) => {
                holders.add(index);
                Claim::Granted
            }
        }
    }

    /// Records that a connection of the loop `index` no longer has a uid.
    ///
    /// The call does nothing if the uid belongs to another connection now, which has replaced this connection.
    pub fn release(&self, uid: &str, fd: Fd, index: usize) {
        let hash = self.hasher.hash(uid.as_bytes());
        let mut shard = self.lock(hash);
        let Ok(mut entry) = shard.uids.find_entry(hash, |entry| entry.name == uid) else { return };
        let is_last = match &mut entry.get_mut().holders {
            Holders::Owner(owner) => *owner == fd,
            holders => holders.remove(index, 1),
        };
        if is_last {
            entry.remove();
        }
    }

    /// Returns whether the rule for logins allows at most one connection for each uid.
    pub fn is_exclusive(&self) -> bool {
        self.logins != Logins::Many
    }

    /// Returns the only connection of a uid.
    ///
    /// The result is `None` if the uid has no connection, or if the rule is [`Logins::Many`].
    pub fn owner(&self, uid: &str) -> Option<Fd> {
        self.find_uid(uid, |holders| match holders {
            Holders::Owner(fd) => Some(*fd),
            _ => None,
        })?
    }

    /// Appends to `parts` each loop that has connections of a uid.
    pub fn find_loops_of_uid(&self, uid: &str, parts: &mut Vec<Part>) {
        let numbering = self.numbering;
        self.find_uid(uid, |holders| match holders {
            Holders::Owner(fd) => parts.push(Part::new(numbering.loop_of(*fd))),
            holders => parts.extend_from_slice(holders.parts()),
        });
    }

    /// Returns the number of connections of a uid.
    pub fn connection_count(&self, uid: &str) -> usize {
        self.find_uid(uid, Holders::count).unwrap_or(0)
    }

    /// Records that a connection of the loop `index` joined a group.
    pub fn join(&self, group: &str, index: usize) {
        let hash = self.hasher.hash(group.as_bytes());
        let mut shard = self.lock(hash);
        match shard.groups.find_mut(hash, |entry| entry.name == group) {
            Some(entry) => entry.holders.add(index),
            None => self.insert(&mut shard.groups, hash, group, Holders::One(Part::new(index))),
        }
    }

    /// Records that `count` connections of the loop `index` left a group.
    pub fn leave(&self, group: &str, index: usize, count: usize) {
        let hash = self.hasher.hash(group.as_bytes());
        let mut shard = self.lock(hash);
        let Ok(mut entry) = shard.groups.find_entry(hash, |entry| entry.name == group) else { return };
        if entry.get_mut().holders.remove(index, count) {
            entry.remove();
        }
    }

    /// Appends to `parts` each loop that has members of a group.
    pub fn find_loops_of_group(&self, group: &str, parts: &mut Vec<Part>) {
        self.find_group(group, |holders| parts.extend_from_slice(holders.parts()));
    }

    /// Returns the number of members of a group.
    pub fn member_count(&self, group: &str) -> usize {
        self.find_group(group, Holders::count).unwrap_or(0)
    }

    /// Removes the connections of a loop that has ended from all entries of the directory.
    pub fn remove_loop(&self, index: usize) {
        let numbering = self.numbering;
        let stays = |entry: &mut Entry| match &mut entry.holders {
            Holders::Owner(fd) => numbering.loop_of(*fd) != index,
            holders => !holders.remove(index, usize::MAX),
        };
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.uids.retain(stays);
            shard.groups.retain(stays);
        }
    }

    /// Returns the number of uids and the number of groups.
    pub fn counts(&self) -> (usize, usize) {
        self.shards
            .iter()
            .map(lock)
            .fold((0, 0), |(users, groups), shard| (users + shard.uids.len(), groups + shard.groups.len()))
    }

    fn find_uid<R>(&self, uid: &str, read: impl FnOnce(&Holders) -> R) -> Option<R> {
        let hash = self.hasher.hash(uid.as_bytes());
        self.lock(hash).uids.find(hash, |entry| entry.name == uid).map(|entry| read(&entry.holders))
    }

    fn find_group<R>(&self, group: &str, read: impl FnOnce(&Holders) -> R) -> Option<R> {
        let hash = self.hasher.hash(group.as_bytes());
        self.lock(hash).groups.find(hash, |entry| entry.name == group).map(|entry| read(&entry.holders))
    }

    fn insert(&self, table: &mut HashTable<Entry>, hash: u64, name: &str, holders: Holders) {
        let entry = Entry { name: name.into(), holders };
        table.insert_unique(hash, entry, |entry| self.hasher.hash(entry.name.as_bytes()));
    }

    fn lock(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // `HashTable` uses the lowest bits and the seven highest bits of a hash, so other bits select the shard.
        lock(&self.shards[(hash >> 48) as usize % SHARDS])
    }
}

/// Locks a shard. No code panics while it holds the lock, so the shard is valid even if the lock is poisoned.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Holders {
    fn parts(&self) -> &[Part] {
        match self {
            Holders::Owner(_) => &[],
            Holders::One(part) => std::slice::from_ref(part),
            Holders::Several(parts) => parts,
        }
    }

    fn count(&self) -> usize {
        match self {
            Holders::Owner(_) => 1,
            holders => holders.parts().iter().map(|part| part.count as usize).sum(),
        }
    }

    fn find_mut(&mut self, index: usize) -> Option<&mut Part> {
        let parts = match self {
            Holders::Owner(_) => &mut [],
            Holders::One(part) => std::slice::from_mut(part),
            Holders::Several(parts) => &mut **parts,
        };
        parts.iter_mut().find(|part| usize::from(part.index) == index)
    }

    /// Adds one connection of a loop to the entry.
    fn add(&mut self, index: usize) {
        match self.find_mut(index) {
            Some(part) => part.count += 1,
            None => *self = Holders::Several(self.parts().iter().copied().chain([Part::new(index)]).collect()),
        }
    }

    /// Removes `count` connections of a loop from the entry, and returns `true` if the entry has no connection left.
    fn remove(&mut self, index: usize, count: usize) -> bool {
        let Some(part) = self.find_mut(index) else { return self.parts().is_empty() };
        part.count = part.count.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        if part.count == 0 {
            let left: Box<[Part]> = self.parts().iter().copied().filter(|part| part.count > 0).collect();
            *self = if let [part] = *left { Holders::One(part) } else { Holders::Several(left) };
        }
        self.parts().is_empty()
    }
}

impl Part {
    fn new(index: usize) -> Part {
        Part { index: u16::try_from(index).unwrap_or(u16::MAX), count: 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Barrier;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::fd::Slot;

    const LOOPS: usize = 3;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn fd(number: usize) -> Fd {
        Fd::new(Slot(number as u32), 0)
    }

    fn loops_of(directory: &Directory, uid: &str) -> Vec<(u16, u32)> {
        let mut parts = Vec::new();
        directory.find_loops_of_uid(uid, &mut parts);
        parts.into_iter().map(|part| (part.index, part.count)).collect()
    }

    #[test]
    fn connections_of_a_uid_are_counted_by_loop() {
        let directory = Directory::new(LOOPS, Logins::Many);
        assert_eq!(directory.claim("u", fd(0), 0, Some(3)), Claim::Granted);
        assert_eq!(directory.claim("u", fd(2), 2, Some(3)), Claim::Granted);
        assert_eq!(directory.claim("u", fd(3), 0, Some(3)), Claim::Granted);
        assert_eq!(directory.claim("u", fd(1), 1, Some(3)), Claim::Full);
        assert_eq!((loops_of(&directory, "u"), directory.connection_count("u")), (vec![(0, 2), (2, 1)], 3));
        directory.release("u", fd(0), 0);
        directory.release("u", fd(2), 2);
        assert_eq!((loops_of(&directory, "u"), directory.counts()), (vec![(0, 1)], (1, 0)));
        directory.release("u", fd(3), 0);
        assert_eq!((loops_of(&directory, "u"), directory.counts()), (vec![], (0, 0)));
    }

    #[test]
    fn a_login_replaces_only_the_last_connection_of_the_uid() {
        let directory = Directory::new(LOOPS, Logins::ReplaceOld);
        assert_eq!(directory.claim("u", fd(0), 0, None), Claim::Granted);
        assert_eq!(directory.claim("u", fd(1), 1, None), Claim::Replaced(fd(0)));
        assert_eq!(directory.claim("u", fd(3), 0, None), Claim::Replaced(fd(1)));
        directory.release("u", fd(0), 0);
        assert_eq!((directory.owner("u"), loops_of(&directory, "u")), (Some(fd(3)), vec![(0, 1)]));
        directory.release("u", fd(3), 0);
        assert_eq!((directory.owner("u"), directory.counts()), (None, (0, 0)));
    }

    #[test]
    fn the_connections_of_an_ended_loop_are_removed() {
        let directory = Directory::new(LOOPS, Logins::Many);
        for number in 0..4 {
            assert_eq!(directory.claim("u", fd(number), number % LOOPS, None), Claim::Granted);
            directory.join(NAMES[number % 2], number % LOOPS);
        }
        directory.remove_loop(0);
        assert_eq!((loops_of(&directory, "u"), directory.connection_count("u")), (vec![(1, 1), (2, 1)], 2));
        assert_eq!((directory.member_count("a"), directory.member_count("b")), (1, 1));
        directory.remove_loop(1);
        directory.remove_loop(2);
        assert_eq!(directory.counts(), (0, 0));

        let owners = Directory::new(LOOPS, Logins::ReplaceOld);
        owners.claim("u", fd(1), 1, None);
        owners.claim("v", fd(2), 2, None);
        owners.remove_loop(1);
        assert_eq!((owners.owner("u"), owners.owner("v")), (None, Some(fd(2))));
    }

    #[test]
    fn one_connection_has_the_uid_after_simultaneous_logins() {
        for logins in [Logins::ReplaceOld, Logins::RefuseNew] {
            let directory = Directory::new(LOOPS, logins);
            let start = Barrier::new(LOOPS);
            let claims: Vec<(Fd, Claim)> = thread::scope(|scope| {
                let claim = |index| {
                    let (directory, start) = (&directory, &start);
                    move || {
                        start.wait();
                        let fds = (0..2000).map(|number| fd(number * LOOPS + index));
                        fds.map(|fd| (fd, directory.claim("u", fd, index, None))).collect::<Vec<_>>()
                    }
                };
                let threads: Vec<_> = (0..LOOPS).map(|index| scope.spawn(claim(index))).collect();
                threads.into_iter().flat_map(|thread| thread.join().expect("the thread must not panic")).collect()
            });
            let owner = directory.owner("u").expect("the uid must have a connection after the logins");
            let mut granted: BTreeSet<Fd> =
                claims.iter().filter(|(_, claim)| *claim != Claim::Taken).map(|(fd, _)| *fd).collect();
            for (_, claim) in &claims {
                if let Claim::Replaced(old) = claim {
                    assert!(granted.remove(old), "the connection {old} must be replaced only once");
                }
            }
            assert_eq!(
                granted.into_iter().collect::<Vec<_>>(),
                [owner],
                "all connections except the last must be replaced"
            );
        }
    }

    /// The number of connections for each pair of a name (its index in `NAMES`) and a loop.
    type Counts = BTreeMap<(usize, usize), u32>;

    /// Returns the number of connections of a name on each loop that has any.
    fn expected(counts: &Counts, name: usize) -> BTreeMap<u16, u32> {
        let of_name = counts.iter().filter(|((other, _), count)| *other == name && **count > 0);
        of_name.map(|((_, index), count)| (*index as u16, *count)).collect()
    }

    fn found(find: impl FnOnce(&mut Vec<Part>)) -> BTreeMap<u16, u32> {
        let mut parts = Vec::new();
        find(&mut parts);
        parts.into_iter().map(|part| (part.index, part.count)).collect()
    }

    /// Applies an operation to the directory, and to the expected numbers of connections in `counts`.
    fn apply(directory: &Directory, counts: &mut [Counts; 2], (kind, number, name): (usize, usize, usize)) {
        let (index, text) = (number % LOOPS, NAMES[name]);
        let [uids, groups] = counts;
        let counts = if kind < 2 { uids } else { groups };
        let count = counts.entry((name, index)).or_default();
        match kind {
            0 => assert_eq!(directory.claim(text, fd(number), index, None), Claim::Granted),
            1 if *count > 0 => directory.release(text, fd(number), index),
            2 => directory.join(text, index),
            3 if *count > 0 => directory.leave(text, index, 1),
            _ => return,
        }
        *count = if kind % 2 == 0 { *count + 1 } else { *count - 1 };
    }

    proptest! {
        #[test]
        fn directory_matches_naive(
            operations in prop::collection::vec((0..4_usize, 0..12_usize, 0..NAMES.len()), 0..200),
        ) {
            let (directory, mut counts) = (Directory::new(LOOPS, Logins::Many), <[Counts; 2]>::default());
            for operation in operations {
                apply(&directory, &mut counts, operation);
                for (name, text) in NAMES.iter().enumerate() {
                    let [users, members] = [expected(&counts[0], name), expected(&counts[1], name)];
                    prop_assert_eq!(directory.connection_count(text), users.values().sum::<u32>() as usize);
                    prop_assert_eq!(directory.member_count(text), members.values().sum::<u32>() as usize);
                    prop_assert_eq!(found(|parts| directory.find_loops_of_uid(text, parts)), users);
                    prop_assert_eq!(found(|parts| directory.find_loops_of_group(text, parts)), members);
                }
            }
        }
    }
}
