//! The subscribers and pushers of one server on one epoll instance, and their counts of messages.
//!
//! Push `number` goes to subscriber `number % subscribers` through pusher `number % pushers`. The number of pushers is
//! a divisor of the number of subscribers. So one pusher sends all messages of a subscriber, in order.

use std::io;
use std::time::{Duration, Instant};

use fdpush_load::epoll::{Epoll, Readiness};

use crate::pusher::{PushFormat, Pusher};
use crate::server::{Addresses, TIMEOUT};
use crate::subscriber::Subscriber;
use crate::{Load, failure};

/// The maximum number of concurrent upgrades. This number is less than a listener's backlog.
const UPGRADES: usize = 500;

pub struct Clients {
    epoll: Epoll,
    events: Vec<Readiness>,
    buffer: Vec<u8>,
    pub subscribers: Vec<Subscriber>,
    pub pushers: Vec<Pusher>,
}

/// The numbers of messages of all pushers and subscribers together.
#[derive(Copy, Clone, Debug, Default)]
pub struct Counts {
    pub sent: usize,
    pub answered: usize,
    pub acknowledged: usize,
    pub received: usize,
    /// The number of pushers whose last request was refused during the shutdown.
    pub refused: usize,
}

impl Clients {
    /// Connects all subscribers and pushers.
    pub fn connect(load: &Load, addresses: Addresses, format: impl Fn(usize) -> PushFormat) -> io::Result<Clients> {
        let total = load.subscribers;
        if load.pushers == 0 || total == 0 || !total.is_multiple_of(load.pushers) {
            return Err(failure("the number of pushers must divide the number of subscribers"));
        }
        let epoll = Epoll::new()?;
        let mut subscribers: Vec<Subscriber> = Vec::with_capacity(total);
        while subscribers.len() < total {
            let begun = subscribers.len();
            for number in begun..total.min(begun + UPGRADES) {
                subscribers.push(Subscriber::connect(addresses.listen, number, total)?);
            }
            for (number, subscriber) in subscribers.iter_mut().enumerate().skip(begun) {
                subscriber.start()?;
                epoll.add(&subscriber.socket, number)?;
            }
        }
        let mut pushers = Vec::with_capacity(load.pushers);
        for number in 0..load.pushers {
            let pusher = Pusher::connect(addresses.api, format(number))?;
            epoll.add(&pusher.socket, total + number)?;
            pushers.push(pusher);
        }
        Ok(Clients { epoll, events: Vec::new(), buffer: vec![0; 256 << 10], subscribers, pushers })
    }

    /// Adds a push to a pusher. The next [`turn`](Clients::turn) sends the push.
    pub fn push(&mut self, pusher: usize) {
        let total = self.subscribers.len();
        let count = self.pushers.len();
        if let Some(one) = self.pushers.get_mut(pusher).filter(|pusher| !pusher.has_ended) {
            let number = pusher + one.sent * count;
            one.push(number % total, number);
        }
    }

    /// Returns the number of pushes that may still get an answer.
    pub fn in_flight(&self) -> usize {
        self.pushers.iter().filter(|pusher| !pusher.has_ended).map(Pusher::in_flight).sum()
    }

    /// Sends pending data, waits for events up to the timeout, and reads all received data.
    pub fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        self.flush()?;
        let (total, count) = (self.subscribers.len(), self.pushers.len());
        self.epoll.wait(&mut self.events, Some(timeout))?;
        for event in &self.events {
            if let Some(subscriber) = self.subscribers.get_mut(event.token) {
                subscriber.receive(&mut self.buffer)?;
            } else if let Some(pusher) = self.pushers.get_mut(event.token - total) {
                let (name, subscribers) = (event.token - total, &mut self.subscribers);
                pusher.receive(&mut self.buffer, |index, queued| {
                    subscribers[(name + index * count) % total].acknowledged += queued;
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.pushers.iter_mut().try_for_each(Pusher::flush)
    }

    /// Returns whether every stream has ended.
    pub fn has_ended(&self) -> bool {
        self.subscribers.iter().all(|subscriber| subscriber.has_ended)
            && self.pushers.iter().all(|pusher| pusher.has_ended)
    }

    /// Reads until every stream has ended.
    pub fn read_to_end(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !self.has_ended() {
            self.turn(Duration::from_millis(100))?;
            if Instant::now() > deadline {
                return Err(failure("a stream did not end in time"));
            }
        }
        Ok(())
    }

    /// Checks that every acknowledged message arrived, and returns the counts of all pushers and subscribers.
    pub fn check(&self) -> io::Result<Counts> {
        let mut counts = self.counts();
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            let (acknowledged, received) = (subscriber.acknowledged, subscriber.received);
            if received < acknowledged {
                return Err(failure(format!(
                    "subscriber {number}: {acknowledged} messages acknowledged, {received} received"
                )));
            }
            counts.acknowledged += acknowledged;
            counts.received += received;
        }
        Ok(counts)
    }

    /// Returns the counts of the pushers. The counts of the subscribers are 0.
    pub fn counts(&self) -> Counts {
        let sent = self.pushers.iter().map(|pusher| pusher.sent).sum();
        let answered = self.pushers.iter().map(|pusher| pusher.answered).sum();
        let refused = self.pushers.iter().filter(|pusher| pusher.is_refused).count();
        Counts { sent, answered, refused, ..Counts::default() }
    }
}
