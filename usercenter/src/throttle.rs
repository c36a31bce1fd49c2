//! How often somebody may try: guesses of passwords, and registrations.
//!
//! Tries are counted by a hash of whoever is meant, so that no name is kept, and so that those who try names that there are
//! not are treated the same.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How often somebody may try to log in, or to register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Wrong passwords for one user from one address, before the two are locked out.
    pub per_user_and_address: u32,
    /// Wrong passwords for one user, before that user is locked out.
    pub per_user: u32,
    /// Wrong passwords from one address, before that address is locked out.
    pub per_address: u32,
    /// Registrations from one address, before it is locked out.
    pub registrations_per_address: u32,
    /// The first lock-out takes so many seconds; each further one twice as long.
    pub lock_seconds: u32,
    /// The longest lock-out, in seconds. After as long without a try all is forgotten.
    pub longest_lock_seconds: u32,
    /// How many tries are remembered.
    pub remembered: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            per_user_and_address: 5,
            per_user: 50,
            per_address: 100,
            registrations_per_address: 100,
            lock_seconds: 30,
            longest_lock_seconds: 900,
            remembered: 100_000,
        }
    }
}

/// Counts tries.
#[derive(Debug)]
pub struct Throttle {
    settings: Settings,
    hasher: RandomState,
    tries: Mutex<HashMap<u64, Tries>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    count: u32,
    /// How often it was locked out.
    locks: u32,
    locked_until: i64,
    forgotten_at: i64,
}

/// One try, counted already. It is taken back when it was right.
#[derive(Debug)]
pub struct Try(Vec<u64>);

impl Throttle {
    /// Counts as `settings` say.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, hasher: RandomState::new(), tries: Mutex::default() }
    }

    /// A guess of the password of `user` from `address` at `now`, in seconds.
    ///
    /// # Errors
    /// With the seconds to wait, when there were too many.
    pub fn guess(&self, user: &str, address: &str, now: i64) -> Result<Try, i64> {
        let Settings { per_user_and_address, per_user, per_address, .. } = self.settings;
        self.count(
            &[
                (("guess", user, address), per_user_and_address),
                (("guess", user, ""), per_user),
                (("guess", "", address), per_address),
            ],
            now,
        )
    }

    /// A registration from `address` at `now`, in seconds.
    ///
    /// # Errors
    /// With the seconds to wait, when there were too many.
    pub fn registration(&self, address: &str, now: i64) -> Result<Try, i64> {
        self.count(&[(("register", "", address), self.settings.registrations_per_address)], now)
    }

    /// The try was no guess: whoever made it knew.
    pub fn was_right(&self, right: Try) {
        let mut tries = self.tries.lock();
        // Only of this user from this address all is forgiven; others may go on guessing the rest.
        let mut keys = right.0.into_iter();
        if let Some(key) = keys.next() {
            tries.remove(&key);
        }
        for key in keys {
            if let Some(other) = tries.get_mut(&key) {
                other.count = other.count.saturating_sub(1);
            }
        }
    }

    /// Counted before it is known whether it is right: many at once are as many.
    fn count(&self, who: &[((&str, &str, &str), u32)], now: i64) -> Result<Try, i64> {
        let keys: Vec<u64> = who.iter().map(|(key, _)| self.hasher.hash_one(key)).collect();
        let mut tries = self.tries.lock();
        let locked = keys.iter().filter_map(|key| tries.get(key)).map(|tries| tries.locked_until - now).max();
        if let Some(wait) = locked.filter(|wait| *wait > 0) {
            return Err(wait);
        }
        self.make_room(&mut tries, now);
        for (key, (_, most)) in keys.iter().zip(who) {
            let tries = tries.entry(*key).or_default();
            if tries.forgotten_at <= now {
                *tries = Tries::default();
            }
            tries.count += 1;
            tries.forgotten_at = now + i64::from(self.settings.longest_lock_seconds);
            if tries.count >= *most {
                let seconds = i64::from(self.settings.lock_seconds) << tries.locks.min(20);
                tries.locked_until = now + seconds.min(self.settings.longest_lock_seconds.into());
                tries.forgotten_at = tries.locked_until + i64::from(self.settings.longest_lock_seconds);
                tries.locks += 1;
                tries.count = 0;
            }
        }
        Ok(Try(keys))
    }

    fn make_room(&self, tries: &mut HashMap<u64, Tries>, now: i64) {
        let most = self.settings.remembered.max(16) as usize;
        if tries.len() < most {
            return;
        }
        tries.retain(|_, tries| tries.forgotten_at > now);
        if tries.len() >= most {
            // Whoever fills it must not thereby open what is locked.
            tries.retain(|_, tries| tries.locked_until > now);
        }
        if tries.len() >= most {
            tries.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(settings: Settings) -> Throttle {
        Throttle::new(Settings { per_user_and_address: 3, lock_seconds: 10, longest_lock_seconds: 40, ..settings })
    }

    #[test]
    fn the_third_wrong_guess_locks_out_and_each_time_for_longer() {
        let throttle = throttle(Settings::default());
        let mut now = 100;
        for expected in [10, 20, 40, 40] {
            for _ in 0..3 {
                assert!(throttle.guess("a", "x", now).is_ok());
            }
            assert_eq!(throttle.guess("a", "x", now).unwrap_err(), expected);
            assert!(throttle.guess("b", "x", now).is_ok() && throttle.guess("a", "y", now).is_ok());
            now += expected;
        }
    }

    #[test]
    fn a_right_guess_is_forgiven_and_so_is_time() {
        let throttle = throttle(Settings::default());
        for _ in 0..20 {
            throttle.guess("a", "x", 0).unwrap();
            let right = throttle.guess("a", "x", 0).unwrap();
            throttle.was_right(right);
        }
        throttle.guess("a", "z", 0).unwrap();
        throttle.guess("a", "z", 0).unwrap();
        assert!(throttle.guess("a", "z", 41).is_ok() && throttle.guess("a", "z", 41).is_ok());
    }

    #[test]
    fn a_user_and_an_address_are_locked_out_by_many_and_only_so_much_is_remembered() {
        let throttle = throttle(Settings { per_user: 5, per_address: 1000, remembered: 64, ..Settings::default() });
        for address in 0..5 {
            throttle.guess("a", &address.to_string(), 0).unwrap();
        }
        assert!(throttle.guess("a", "new", 0).is_err());
        for user in 0..1000 {
            throttle.guess(&user.to_string(), "bot", 1).unwrap_or(Try(Vec::new()));
        }
        assert!(throttle.tries.lock().len() <= 64 + 3);
        assert!(throttle.guess("a", "new", 1).is_err(), "filling the memory opens no lock");
    }
}
