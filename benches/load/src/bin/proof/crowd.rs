//! Subscribers and pushers around one server, on one epoll, and the book of what was promised and what came.
//!
//! Push `number` goes to subscriber `number % subscribers`, over pusher `number % pushers`; as the one divides the other,
//! all that a subscriber gets comes over one connection, in order.

use std::io;
use std::time::{Duration, Instant};

use fdpush_load::epoll::{Epoll, Readiness};

use crate::pusher::{Manner, Pusher};
use crate::server::{PATIENCE, Places};
use crate::subscriber::Subscriber;
use crate::{Load, wrong};

/// Upgrades under way at a time, fewer than a listener's backlog.
const UPGRADES: usize = 500;

pub struct Crowd {
    epoll: Epoll,
    events: Vec<Readiness>,
    buffer: Vec<u8>,
    pub subscribers: Vec<Subscriber>,
    pub pushers: Vec<Pusher>,
}

/// What was counted.
#[derive(Copy, Clone, Debug, Default)]
pub struct Book {
    pub sent: usize,
    pub answered: usize,
    pub promised: usize,
    pub received: usize,
    /// Pushers whose last request came too late for a server that goes down.
    pub refused: usize,
}

impl Crowd {
    /// Everybody, connected.
    pub fn gather(load: &Load, places: Places, manner: impl Fn(usize) -> Manner) -> io::Result<Crowd> {
        let total = load.subscribers;
        if load.pushers == 0 || total == 0 || !total.is_multiple_of(load.pushers) {
            return Err(wrong("the number of pushers divides that of the subscribers"));
        }
        let epoll = Epoll::new()?;
        let mut subscribers: Vec<Subscriber> = Vec::with_capacity(total);
        while subscribers.len() < total {
            let begun = subscribers.len();
            for number in begun..total.min(begun + UPGRADES) {
                subscribers.push(Subscriber::connect(places.listen, number, total)?);
            }
            for (number, subscriber) in subscribers.iter_mut().enumerate().skip(begun) {
                subscriber.start()?;
                epoll.add(&subscriber.socket, number)?;
            }
        }
        let mut pushers = Vec::with_capacity(load.pushers);
        for number in 0..load.pushers {
            let pusher = Pusher::connect(places.api, manner(number))?;
            epoll.add(&pusher.socket, total + number)?;
            pushers.push(pusher);
        }
        Ok(Crowd { epoll, events: Vec::new(), buffer: vec![0; 256 << 10], subscribers, pushers })
    }

    /// Has a pusher push once more. It is sent with the next [`turn`](Crowd::turn).
    pub fn push(&mut self, pusher: usize) {
        let total = self.subscribers.len();
        let count = self.pushers.len();
        if let Some(one) = self.pushers.get_mut(pusher).filter(|pusher| !pusher.is_over) {
            let number = pusher + one.sent * count;
            one.push(number % total, number);
        }
    }

    /// Pushes that wait for their answer, and may still get one.
    pub fn under_way(&self) -> usize {
        self.pushers.iter().filter(|pusher| !pusher.is_over).map(Pusher::under_way).sum()
    }

    /// Sends what is to be sent, waits for something to happen, at most for so long, and reads what came.
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
                    subscribers[(name + index * count) % total].promised += queued;
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.pushers.iter_mut().try_for_each(Pusher::flush)
    }

    /// Whether every stream has ended.
    pub fn is_over(&self) -> bool {
        self.subscribers.iter().all(|subscriber| subscriber.is_over) && self.pushers.iter().all(|pusher| pusher.is_over)
    }

    /// Reads until every stream has ended.
    pub fn run_out(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_over() {
            self.turn(Duration::from_millis(100))?;
            if Instant::now() > deadline {
                return Err(wrong("there are streams that do not end"));
            }
        }
        Ok(())
    }

    /// Closes the book: whatever was promised has come.
    pub fn settle(&self) -> io::Result<Book> {
        let mut book = self.book();
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            let (promised, received) = (subscriber.promised, subscriber.received);
            if received < promised {
                return Err(wrong(format!("subscriber {number}: {promised} messages promised, {received} came")));
            }
            book.promised += promised;
            book.received += received;
        }
        Ok(book)
    }

    /// What pushers know.
    pub fn book(&self) -> Book {
        let sent = self.pushers.iter().map(|pusher| pusher.sent).sum();
        let answered = self.pushers.iter().map(|pusher| pusher.answered).sum();
        let refused = self.pushers.iter().filter(|pusher| pusher.is_refused).count();
        Book { sent, answered, refused, ..Book::default() }
    }
}
