//! What each user may have: places for connections, and how often.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use jiff::SignedDuration;

/// Buckets of so many users are kept; fuller ones are forgotten first.
const MOST_BUCKETS: usize = 1_000;

/// Places for connections. A share of them is the agent's own user's whatever others do.
pub struct Places {
    root: u32,
    all: usize,
    each: usize,
    taken: RefCell<HashMap<u32, usize>>,
}

impl Places {
    pub fn new(root: u32, all: usize, each: usize) -> Rc<Self> {
        Rc::new(Self {
            root,
            all,
            each,
            taken: RefCell::default(),
        })
    }

    /// A place for a connection of `uid`, while it is held.
    pub fn take(self: &Rc<Self>, uid: u32) -> Option<Place> {
        let mut taken = self.taken.borrow_mut();
        let own = taken.get(&uid).copied().unwrap_or(0);
        let others: usize = taken
            .iter()
            .filter(|(user, _)| **user != self.root)
            .map(|(_, count)| count)
            .sum();
        let is_full = uid != self.root && others >= self.all;
        if own >= self.each || is_full {
            return None;
        }
        *taken.entry(uid).or_default() += 1;
        Some(Place {
            places: self.clone(),
            uid,
        })
    }
}

pub struct Place {
    places: Rc<Places>,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.borrow_mut();
        if let Some(count) = taken.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

/// So much at once, and one more after each while, for each user.
pub struct Buckets {
    most: f64,
    every: f64,
    /// What is left, and when that was so.
    left: HashMap<u32, (f64, SignedDuration)>,
}

impl Buckets {
    pub fn new(most: u32, every: Duration) -> Self {
        Self {
            most: f64::from(most),
            every: every.as_secs_f64(),
            left: HashMap::new(),
        }
    }

    /// `now` is a count that nobody sets back.
    pub fn take(&mut self, uid: u32, now: SignedDuration) -> bool {
        let (most, every) = (self.most, self.every);
        let filled = |(left, at): (f64, SignedDuration)| {
            let since = (now - at).as_secs_f64().max(0.0);
            (left + since / every).min(most)
        };
        if self.left.len() >= MOST_BUCKETS {
            self.left.retain(|_, bucket| filled(*bucket) < most);
        }
        let left = self.left.get(&uid).map_or(most, |bucket| filled(*bucket));
        let enough = left >= 1.0;
        let left = if enough { left - 1.0 } else { left };
        self.left.insert(uid, (left, now));
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_others() {
        let places = Places::new(0, 4, 2);
        let held: Vec<_> = [1, 1, 2, 2]
            .into_iter()
            .map(|uid| places.take(uid))
            .collect();
        assert!(held.iter().all(Option::is_some));
        for (uid, is_free) in [(1, false), (3, false), (0, true)] {
            assert_eq!(places.take(uid).is_some(), is_free, "{uid}");
        }
        drop(held);
        let one = places.take(1);
        assert!(one.is_some() && places.take(3).is_some());
        assert_eq!(places.taken.borrow().len(), 1);
    }

    #[test]
    fn a_few_at_once_and_then_one_after_each_while() {
        let mut buckets = Buckets::new(3, Duration::from_secs(30));
        let at = SignedDuration::from_secs;
        for (uid, second, may) in [
            (1, 0, true),
            (1, 0, true),
            (1, 1, true),
            (1, 2, false),
            (2, 2, true),
            (1, 29, false),
            (1, 31, true),
            (1, 32, false),
            (1, 3600, true),
            (1, 3600, true),
            (1, 3600, true),
            (1, 3600, false),
        ] {
            assert_eq!(buckets.take(uid, at(second)), may, "{uid} at {second}");
        }
    }

    #[test]
    fn a_million_users_are_not_remembered() {
        let mut buckets = Buckets::new(3, Duration::from_secs(1));
        for uid in 0..100_000 {
            buckets.take(uid, SignedDuration::from_millis(i64::from(uid) * 10));
        }
        assert!(buckets.left.len() <= MOST_BUCKETS);
    }
}
