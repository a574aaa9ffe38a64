//! The rules that the simulation checks: delivery, order, and owners of uids.
//!
//! In this file, a name is a uid or the name of a group.

use std::collections::{BTreeMap, BTreeSet};

/// The number of a client.
pub type Id = usize;

/// The uid and the groups of each open client.
pub type Names = BTreeMap<Id, (Option<String>, BTreeSet<String>)>;

/// The receivers of a message.
#[derive(Clone, Debug)]
pub enum Receivers {
    Clients(BTreeSet<Id>),
    Uids(BTreeSet<String>),
    Groups(BTreeSet<String>),
    All,
}

/// A message, and the clients that must and may receive it.
#[derive(Debug)]
struct Sent {
    /// The source of the message. Messages of one source arrive in order.
    source: Option<usize>,
    receivers: Receivers,
    /// Each of these clients must receive the message, because the client stays a receiver after the send.
    must: BTreeSet<Id>,
    /// Each of these clients has the message in its queue.
    queued: BTreeSet<Id>,
    /// Each of these clients becomes a receiver by a join that another loop has sent before the message. The join is
    /// not carried out yet.
    promised: BTreeSet<Id>,
    /// Each of these clients was a receiver at some time after the send.
    may: BTreeSet<Id>,
}

/// The owner of a uid that can have one connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Owner {
    Client(Id),
    /// A client may have claimed the uid and ended within one step.
    Unknown,
}

/// The messages of a run, and the names of clients after the last step.
#[derive(Debug, Default)]
pub struct Oracle {
    sent: Vec<Sent>,
    /// The number of messages that were sent before the loops were last at rest. These messages have reached all
    /// queues.
    queued: usize,
    names: Names,
    owners: BTreeMap<String, Owner>,
    /// Whether a uid has at most one connection.
    is_exclusive: bool,
    /// Binds that were sent to the loops of clients and are not carried out yet.
    pub binds: Vec<(Id, String)>,
    /// Joins and binds that another loop has sent since the loops were at rest.
    ///
    /// A client can get a name and lose the name in one step, and receive a message in between.
    sent_names: Vec<(Id, String)>,
    /// Names that clients have lost or may lose since the loops were at rest. The client is `None` if all members of a
    /// group lose the name. The name is empty if a client loses its uid.
    unsure: Vec<(Option<Id>, String)>,
    /// The clients that have disconnected by themselves. These clients receive no further messages.
    gone: BTreeSet<Id>,
    /// The owners that ended while no other client had claimed their uid. A login must not have closed these owners.
    pub unreplaced: BTreeSet<Id>,
}

impl Oracle {
    pub fn new(is_exclusive: bool) -> Oracle {
        Oracle { is_exclusive, ..Oracle::default() }
    }

    /// Updates the oracle with the names of all clients after a step.
    pub fn observe(&mut self, names: Names) {
        let mut ended_owners = Vec::new();
        for (uid, owner) in std::mem::take(&mut self.owners) {
            let keeps = |id| names.get(&id).is_some_and(|(bound, _)| bound.as_ref() == Some(&uid));
            match owner {
                Owner::Client(id) if !names.contains_key(&id) => ended_owners.push((uid, id)),
                Owner::Client(id) if !keeps(id) => {}
                owner => _ = self.owners.insert(uid, owner),
            }
        }
        for (id, (uid, _)) in &names {
            let before = self.names.get(id).and_then(|(uid, _)| uid.as_ref());
            if let Some(uid) = uid.as_ref().filter(|uid| Some(*uid) != before) {
                self.claim(*id, uid);
            }
        }
        self.names = names;
        let ended = |id: &Id| !self.names.contains_key(id);
        for (id, uid) in self.binds.extract_if(.., |(id, _)| ended(id)) {
            self.owners.insert(uid, Owner::Unknown);
            // In this step, the client may have got the uid of the bind, and a login may then have taken this uid from
            // the client.
            ended_owners.retain(|(_, owner)| *owner != id);
        }
        ended_owners.retain(|(uid, _)| !self.owners.contains_key(uid));
        self.unreplaced.extend(ended_owners.into_iter().map(|(_, id)| id));
        for sent in &mut self.sent[self.queued..] {
            let now = receivers(&self.names, &sent.receivers);
            sent.must.retain(|id| now.contains(id) && is_sure(&self.unsure, *id, &sent.receivers));
            let arrived: Vec<Id> = sent.promised.extract_if(.., |id| now.contains(id)).collect();
            sent.must.extend(arrived);
            sent.promised.retain(|id| self.names.contains_key(id));
            sent.may.extend(now);
            sent.may.extend(possible_receivers(&self.sent_names, &sent.receivers));
        }
    }

    /// Records that another loop has sent a join or a bind of a client.
    pub fn send_name(&mut self, id: Id, name: &str) {
        self.sent_names.push((id, name.to_owned()));
    }

    /// Records that a loop removes a name of a client, or of all members of a group, perhaps before earlier messages arrive.
    pub fn send_removal(&mut self, id: Option<Id>, name: &str) {
        self.unsure.push((id, name.to_owned()));
    }

    /// Records that the loops are at rest: every post that was sent is carried out.
    pub fn rest(&mut self) {
        self.sent_names.clear();
        self.unsure.clear();
        self.queued = self.sent.len();
    }

    /// Records that a client has got a uid.
    pub fn claim(&mut self, id: Id, uid: &str) {
        self.owners.insert(uid.to_owned(), Owner::Client(id));
        self.binds.retain(|(bound, name)| (*bound, name.as_str()) != (id, uid));
    }

    /// Returns the clients that are online with a uid, or `None` if the oracle does not know the owner of the uid.
    pub fn online(&self, uid: &str) -> Option<BTreeSet<Id>> {
        let bound = |(_, (bound, _)): &(&Id, &(Option<String>, BTreeSet<String>))| bound.as_deref() == Some(uid);
        let bound: BTreeSet<Id> = self.names.iter().filter(bound).map(|(id, _)| *id).collect();
        match self.owners.get(uid) {
            _ if !self.is_exclusive => Some(bound),
            Some(Owner::Client(owner)) => Some(BTreeSet::from([*owner])),
            Some(Owner::Unknown) => None,
            None => Some(BTreeSet::new()),
        }
    }

    /// Returns the number of the next message.
    pub fn next(&self) -> usize {
        self.sent.len()
    }

    /// Records a message, and returns the clients that must receive it. `promised` are clients that become receivers by a
    /// join that the sender has sent before the message. `is_own` tells which clients belong to the loop of the sender.
    pub fn send(
        &mut self,
        source: Option<usize>,
        to: Receivers,
        promised: &[Id],
        is_own: impl Fn(Id) -> bool,
    ) -> BTreeSet<Id> {
        let may = receivers(&self.names, &to);
        let possible = possible_receivers(&self.sent_names, &to);
        let mut must = match &to {
            Receivers::Uids(uids) => uids.iter().flat_map(|uid| self.online(uid).unwrap_or_default()).collect(),
            _ => may.clone(),
        };
        let expected = must.clone();
        let mut queued = BTreeSet::new();
        must.retain(|id| {
            let is_own = is_own(*id);
            if is_own {
                queued.insert(*id);
            }
            !is_own && is_sure(&self.unsure, *id, &to)
        });
        let promised: BTreeSet<Id> = promised.iter().copied().collect();
        let may = may.into_iter().chain(promised.iter().copied()).chain(possible).collect();
        self.sent.push(Sent { source, receivers: to, must, queued, promised, may });
        expected
    }

    /// Records that another command changes the names of the client `id`, or of all clients if `id` is `None`. The
    /// order of this command and of a promised join is not known. So the client may no longer become a receiver by the
    /// promised join.
    pub fn change_names(&mut self, id: Option<Id>) {
        for sent in &mut self.sent[self.queued..] {
            sent.promised.retain(|promised| id.is_some_and(|id| *promised != id));
        }
    }

    /// Records that a client has disconnected by itself.
    pub fn disconnect(&mut self, id: Id) {
        self.gone.insert(id);
    }

    /// Checks the messages that a client received.
    pub fn check(&self, id: Id, texts: &[String]) {
        let numbers: Vec<usize> = texts.iter().map(|text| text.parse().expect("the text is a number")).collect();
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        for number in &numbers {
            let sent = &self.sent[*number];
            assert!(sent.may.contains(&id), "client {id} is no receiver of {number}: {sent:?}");
            if let Some(source) = sent.source
                && let Some(before) = last.insert(source, *number)
            {
                assert!(before < *number, "client {id} received {before} before {number}: {sent:?}");
            }
        }
        let unique: BTreeSet<usize> = numbers.iter().copied().collect();
        assert_eq!(unique.len(), numbers.len(), "client {id} received a message twice: {numbers:?}");
        for (number, sent) in self.sent.iter().enumerate() {
            let is_expected = [&sent.must, &sent.queued, &sent.promised].iter().any(|clients| clients.contains(&id));
            let is_received = unique.contains(&number) || self.gone.contains(&id);
            assert!(!is_expected || is_received, "client {id} did not receive {number}: {sent:?}");
        }
    }
}

/// Returns the clients that have one of the names.
fn receivers(names: &Names, to: &Receivers) -> BTreeSet<Id> {
    let is_receiver = |id: Id, uid: &Option<String>, groups: &BTreeSet<String>| match to {
        Receivers::Clients(clients) => clients.contains(&id),
        Receivers::Uids(uids) => uid.as_ref().is_some_and(|uid| uids.contains(uid)),
        Receivers::Groups(wanted) => !groups.is_disjoint(wanted),
        Receivers::All => true,
    };
    names.iter().filter(|(id, (uid, groups))| is_receiver(**id, uid, groups)).map(|(id, _)| *id).collect()
}

/// Returns the clients to which another loop has sent one of the names.
fn possible_receivers(sent_names: &[(Id, String)], to: &Receivers) -> BTreeSet<Id> {
    let names = match to {
        Receivers::Uids(names) | Receivers::Groups(names) => names,
        Receivers::Clients(_) | Receivers::All => return BTreeSet::new(),
    };
    sent_names.iter().filter(|(_, name)| names.contains(name)).map(|(id, _)| *id).collect()
}

/// Returns whether no pending removal can take from a client the uid or group by which it is a receiver.
fn is_sure(unsure: &[(Option<Id>, String)], id: Id, to: &Receivers) -> bool {
    let is_removed = |name: &String| match to {
        Receivers::Groups(groups) => groups.contains(name),
        Receivers::Uids(_) => name.is_empty(),
        Receivers::Clients(_) | Receivers::All => false,
    };
    !unsure.iter().any(|(of, name)| of.is_none_or(|of| of == id) && is_removed(name))
}
