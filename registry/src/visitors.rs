//! Who is connected, by address, so that no one address takes a server from the others.
//!
//! A client is known by its network: an IPv4 address, or the /64 of an IPv6 address, which is
//! what one customer has. What is counted, connections, requests and bytes in memory, follows
//! one rule: nobody may have more than what is left for the others. Alone one may take half,
//! two a third each, and so on: there is always room for one more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::meter::{Meter, Rate};
use crate::serve::ServeLimits;

/// Networks that are remembered at once. One takes about 150 bytes, and is forgotten when its
/// connections have ended and its meters are at rest, which takes seconds.
const MOST: usize = 65_536;

/// Between two searches for networks that can be forgotten.
const SWEEP: Duration = Duration::from_secs(1);

/// When to try again where only another's leaving makes room.
const LATER: Duration = Duration::from_secs(1);

/// Seconds of new connections and of requests that may come at once.
const BURST: u32 = 5;

/// Whether one who has `own` of a `total`, of which `used` are taken, may have `more`: then no
/// more is its own than is left.
pub fn leaves_room(own: usize, more: usize, used: usize, total: usize) -> bool {
    own.saturating_add(more) <= total.saturating_sub(used.saturating_add(more))
}

/// Where a client is: an IPv4 address or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Network {
        Network(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let front = v6.to_bits() >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from_bits(front))
            }
            v4 => v4,
        })
    }
}

/// Why somebody is not let in, and how long that will last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded {
    /// Whether the client itself is what there is too much of.
    pub own: bool,
    /// When to try again.
    pub pause: Duration,
}

/// The clients of one server.
pub struct Visitors {
    limits: Limits,
    table: Mutex<Table>,
}

struct Limits {
    connections: usize,
    each: usize,
    arrivals: Rate,
    requests: usize,
    asking: Rate,
    memory: usize,
}

#[derive(Default)]
struct Table {
    present: HashMap<Network, Present>,
    sum: Counts,
    swept: Option<Instant>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    connections: usize,
    requests: usize,
    bytes: usize,
}

struct Present {
    counts: Counts,
    arrivals: Meter,
    asking: Meter,
}

impl Visitors {
    /// Nobody is there yet.
    pub fn new(limits: &ServeLimits) -> Arc<Visitors> {
        Arc::new(Visitors {
            limits: Limits {
                connections: limits.connections,
                each: limits.connections_each,
                arrivals: Rate::per_second(limits.arrivals_each, BURST),
                requests: limits.requests,
                asking: Rate::per_second(limits.requests_each, BURST),
                memory: limits.memory,
            },
            table: Mutex::default(),
        })
    }

    /// Lets a connection in, or says why not.
    pub fn arrive(self: &Arc<Self>, from: Network, now: Instant) -> Result<Visit, Crowded> {
        let mut table = self.lock();
        table.sweep(now);
        let sum = table.sum;
        let full = table.present.len() >= MOST && !table.present.contains_key(&from);
        if sum.connections >= self.limits.connections || full {
            return Err(crowd(LATER));
        }
        let present = table.present.entry(from).or_insert_with(|| Present {
            counts: Counts::default(),
            arrivals: Meter::new(now),
            asking: Meter::new(now),
        });
        let own = present.counts.connections;
        if own >= self.limits.each || !leaves_room(own, 1, sum.connections, self.limits.connections)
        {
            return Err(too_many(LATER));
        }
        present
            .arrivals
            .take(&self.limits.arrivals, 1, now)
            .map_err(too_many)?;
        present.counts.connections += 1;
        table.sum.connections += 1;
        Ok(Visit {
            visitors: self.clone(),
            from,
        })
    }

    fn change(&self, from: Network, change: impl Fn(&mut Counts)) {
        let mut table = self.lock();
        change(&mut table.sum);
        if let Some(present) = table.present.get_mut(&from) {
            change(&mut present.counts);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Counts are right after every single step, whoever panicked between two.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn crowd(pause: Duration) -> Crowded {
    Crowded { own: false, pause }
}

fn too_many(pause: Duration) -> Crowded {
    Crowded { own: true, pause }
}

impl Table {
    fn sweep(&mut self, now: Instant) {
        let early = self
            .swept
            .is_some_and(|then| now.saturating_duration_since(then) < SWEEP);
        if early {
            return;
        }
        self.swept = Some(now);
        self.present.retain(|_, present| {
            present.counts != Counts::default()
                || !present.arrivals.is_at_rest(now)
                || !present.asking.is_at_rest(now)
        });
    }
}

/// One connection of a client, until it is dropped.
pub struct Visit {
    visitors: Arc<Visitors>,
    from: Network,
}

impl Visit {
    /// Where the client is.
    pub fn from(&self) -> Network {
        self.from
    }

    /// Lets a request begin, or says why not.
    pub fn ask(self: &Arc<Self>, now: Instant) -> Result<Asking, Crowded> {
        let limits = &self.visitors.limits;
        let mut table = self.visitors.lock();
        let sum = table.sum;
        if sum.requests >= limits.requests {
            return Err(crowd(LATER));
        }
        if let Some(present) = table.present.get_mut(&self.from) {
            let own = present.counts.requests;
            if !leaves_room(own, 1, sum.requests, limits.requests) {
                return Err(too_many(LATER));
            }
            present
                .asking
                .take(&limits.asking, 1, now)
                .map_err(too_many)?;
            present.counts.requests += 1;
        }
        table.sum.requests += 1;
        Ok(Asking(self.clone()))
    }

    /// Takes bytes of the server's memory for this client, or says that there are none left.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Result<Held, Crowded> {
        let total = self.visitors.limits.memory;
        let mut table = self.visitors.lock();
        let used = table.sum.bytes;
        if let Some(present) = table.present.get_mut(&self.from) {
            if !leaves_room(present.counts.bytes, bytes, used, total) {
                return Err(too_many(LATER));
            }
            present.counts.bytes += bytes;
        }
        table.sum.bytes += bytes;
        Ok(Held {
            visit: self.clone(),
            bytes,
        })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visitors
            .change(self.from, |counts| counts.connections -= 1);
    }
}

/// A request under way, until it is dropped.
pub struct Asking(Arc<Visit>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0
            .visitors
            .change(self.0.from, |counts| counts.requests -= 1);
    }
}

/// Bytes of the server's memory, until it is dropped.
pub struct Held {
    visit: Arc<Visit>,
    bytes: usize,
}

impl Held {
    /// Takes more.
    pub fn more(&mut self, bytes: usize) -> Result<(), Crowded> {
        let mut more = self.visit.hold(bytes)?;
        self.bytes += std::mem::take(&mut more.bytes);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = self.bytes;
        self.visit
            .visitors
            .change(self.visit.from, |counts| counts.bytes -= bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::from(text.parse::<IpAddr>().unwrap())
    }

    fn visitors(limits: ServeLimits) -> Arc<Visitors> {
        Visitors::new(&limits)
    }

    fn limits() -> ServeLimits {
        ServeLimits {
            connections: 12,
            requests: 12,
            memory: 12,
            ..ServeLimits::default()
        }
    }

    #[test]
    fn a_network_is_an_address_or_a_64() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn nobody_takes_what_is_left_for_the_others() {
        let (visitors, now) = (visitors(limits()), Instant::now());
        let enter = |from: &str| {
            std::iter::from_fn(|| visitors.arrive(network(from), now).ok()).collect::<Vec<_>>()
        };
        let greedy = enter("192.0.2.1");
        assert_eq!(greedy.len(), 6);
        assert_eq!(enter("192.0.2.2").len(), 3, "and its connections end here");
        let second = enter("192.0.2.2");
        let third = enter("192.0.2.3");
        assert_eq!((second.len(), third.len()), (3, 1));
        let refused = visitors.arrive(network("192.0.2.1"), now).err().unwrap();
        assert!(refused.own && !refused.pause.is_zero());
        drop((greedy, second));
        assert_eq!(enter("192.0.2.4").len(), 5);
    }

    #[test]
    fn requests_and_bytes_are_shared_in_the_same_way() {
        let (visitors, now) = (visitors(limits()), Instant::now());
        let one = Arc::new(visitors.arrive(network("192.0.2.1"), now).unwrap());
        let other = Arc::new(visitors.arrive(network("192.0.2.2"), now).unwrap());
        let asking: Vec<_> = std::iter::from_fn(|| one.ask(now).ok()).collect();
        assert_eq!(asking.len(), 6);
        let mut held = one.hold(5).unwrap();
        assert!(held.more(2).is_err());
        held.more(1).unwrap();
        assert!(one.hold(1).is_err());
        let others = (other.ask(now).unwrap(), other.hold(3).unwrap());
        assert!(other.hold(1).is_err());
        drop((asking, held, others, one, other));
        assert!(visitors.lock().sum == Counts::default());
    }

    #[test]
    fn rates_are_by_network_and_forgotten_at_rest() {
        let limits = ServeLimits {
            arrivals_each: 2,
            requests_each: 1,
            ..ServeLimits::default()
        };
        let (visitors, start) = (visitors(limits), Instant::now());
        let here = network("192.0.2.1");
        for _ in 0..2 * BURST {
            drop(visitors.arrive(here, start).unwrap());
        }
        let crowded = visitors.arrive(here, start).err().unwrap();
        assert_eq!(crowded.pause, Duration::from_millis(500));
        let other = Arc::new(visitors.arrive(network("192.0.2.2"), start).unwrap());
        let asked = (0..100).filter(|_| other.ask(start).is_ok()).count();
        assert_eq!(asked, BURST as usize);
        drop(other);
        let later = start + Duration::from_secs(60);
        drop(visitors.arrive(here, later).unwrap());
        assert_eq!(visitors.lock().present.len(), 1, "the other is forgotten");
    }
}
