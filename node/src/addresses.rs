//! Which Pod has which loopback address.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// A block of loopback addresses, written as CIDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: u32,
    prefix: u32,
}

impl AddressRange {
    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// The address at `index`, counted around. The first and the last of the block are left out: some programs take them
    /// for network and broadcast.
    fn at(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 1 + index % (self.size() - 2))
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & !(self.size() - 1) == self.first
    }
}

impl Default for AddressRange {
    fn default() -> Self {
        Self { first: u32::from(Ipv4Addr::new(127, 64, 0, 0)), prefix: 10 }
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        format!("{}/{}", Ipv4Addr::from(range.first), range.prefix)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a range such as 127.64.0.0/10, of /8 to /29, within 127.0.0.0/8");
        let (first, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let first: Ipv4Addr = first.parse().map_err(|_| wrong())?;
        let prefix: u32 = prefix.parse().map_err(|_| wrong())?;
        if !first.is_loopback() || !(8..=29).contains(&prefix) {
            return Err(wrong());
        }
        let range = Self { first: u32::from(first), prefix };
        if u32::from(first) & (range.size() - 1) != 0 {
            return Err(wrong());
        }
        Ok(range)
    }
}

/// Hands out addresses: the same name asks for the same address first, and no address is held twice.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: AddressRange,
    salt: u32,
    holders: HashMap<Ipv4Addr, String>,
}

impl Addresses {
    /// `salt` keeps two nodes of one machine from asking for the same addresses.
    pub(crate) fn new(range: AddressRange, salt: &str) -> Self {
        Self { range, salt: hash(0, salt), holders: HashMap::new() }
    }

    /// Takes back an address that `name` held earlier; false when it is not in the range any more or somebody else's.
    pub(crate) fn restore(&mut self, name: &str, address: Ipv4Addr) -> bool {
        if !self.range.contains(address) {
            return false;
        }
        let holder = self.holders.entry(address).or_insert_with(|| name.to_owned());
        holder == name
    }

    /// A free address for `name`, or `None` when every one is held.
    pub(crate) fn claim(&mut self, name: &str) -> Option<Ipv4Addr> {
        let start = hash(self.salt, name);
        let size = self.range.size() - 2;
        let address = (0..size)
            .map(|step| self.range.at((start % size).wrapping_add(step)))
            .find(|address| self.holders.get(address).is_none_or(|holder| holder == name))?;
        self.holders.insert(address, name.to_owned());
        Some(address)
    }

    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.holders.remove(&address);
    }
}

/// FNV-1a: the standard hasher may change between releases, and an address must not.
fn hash(salt: u32, text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5 ^ salt, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        AddressRange::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_range_is_a_block_of_loopback() {
        for wrong in ["127.64.0.0", "10.0.0.0/10", "127.64.0.1/10", "127.64.0.0/30", "127.0.0.0/7", "x/10"] {
            assert!(AddressRange::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_eq!(String::from(range("127.64.0.0/10")), "127.64.0.0/10");
        assert_eq!(AddressRange::default(), range("127.64.0.0/10"));
    }

    #[test]
    fn a_name_gets_its_address_again_after_it_was_gone() {
        let mut addresses = Addresses::new(range("127.64.0.0/10"), "a");
        let first = addresses.claim("kube-system/genesis").unwrap();
        addresses.release(first);
        addresses.claim("default/other").unwrap();
        assert_eq!(addresses.claim("kube-system/genesis"), Some(first));
        assert_eq!(addresses.claim("kube-system/genesis"), Some(first));
    }

    #[test]
    fn no_two_names_share_an_address_until_there_is_none_left() {
        let mut addresses = Addresses::new(range("127.64.0.0/28"), "a");
        let mut seen: Vec<_> = (0..14).map(|n| addresses.claim(&format!("ns/pod-{n}")).unwrap()).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 14);
        assert_eq!(addresses.claim("ns/one-too-many"), None);
        addresses.release(seen[3]);
        assert_eq!(addresses.claim("ns/one-too-many"), Some(seen[3]));
    }

    #[test]
    fn an_address_from_before_is_restored_only_to_its_holder() {
        let mut addresses = Addresses::new(range("127.64.0.0/28"), "a");
        let address = Ipv4Addr::new(127, 64, 0, 5);
        assert!(addresses.restore("ns/a", address));
        assert!(!addresses.restore("ns/b", address));
        assert!(!addresses.restore("ns/c", Ipv4Addr::new(127, 0, 0, 5)));
    }

    #[test]
    fn two_nodes_ask_for_different_addresses() {
        let one = Addresses::new(AddressRange::default(), "/var/lib/one").claim("ns/a");
        let two = Addresses::new(AddressRange::default(), "/var/lib/two").claim("ns/a");
        assert_ne!(one, two);
    }
}
