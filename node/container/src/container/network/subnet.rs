//! The addresses of one node's containers.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::super::error::{Error, Result};

/// An IPv4 network such as `10.88.1.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// A network of 4 to 65,536 addresses (prefix 16 to 30) without host bits.
    pub fn new(network: Ipv4Addr, prefix: u8) -> Result<Self> {
        let invalid = |reason: &str| Error::Invalid {
            what: format!("subnet {network}/{prefix}"),
            reason: reason.to_owned(),
        };
        if !(16..=30).contains(&prefix) {
            return Err(invalid("its prefix is not of 16 to 30"));
        }
        let subnet = Self { network, prefix };
        if network.to_bits() & (subnet.addresses() - 1) != 0 {
            return Err(invalid("it has bits behind its prefix"));
        }
        Ok(subnet)
    }

    fn addresses(self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The network's length in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The network's own address, its first.
    pub fn first(self) -> Ipv4Addr {
        self.network
    }

    /// Its last address.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + (self.addresses() - 1))
    }

    /// The node's address towards its containers, the second of the network.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// How many containers it has addresses for: all but network, gateway and broadcast.
    pub(in super::super) fn slots(self) -> u32 {
        self.addresses() - 3
    }

    /// The address of a slot below [`Self::slots`].
    pub(in super::super) fn address(self, slot: u32) -> Ipv4Addr {
        assert!(slot < self.slots(), "slot {slot} is outside {self}");
        Ipv4Addr::from_bits(self.network.to_bits() + 2 + slot)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid {
            what: format!("subnet {text:?}"),
            reason: "it is not of the form 10.88.1.0/24".to_owned(),
        };
        let (network, prefix) = text.split_once('/').ok_or_else(invalid)?;
        Self::new(network.parse().map_err(|_| invalid())?, prefix.parse().map_err(|_| invalid())?)
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_all_but_three_addresses_for_containers() {
        let subnet: Subnet = "10.88.1.0/24".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 88, 1, 1));
        assert_eq!(subnet.slots(), 253);
        assert_eq!(subnet.address(0), Ipv4Addr::new(10, 88, 1, 2));
        assert_eq!(subnet.address(252), Ipv4Addr::new(10, 88, 1, 254));
        assert_eq!(subnet.last(), Ipv4Addr::new(10, 88, 1, 255));
        assert_eq!("10.0.0.0/30".parse::<Subnet>().unwrap().slots(), 1);
        assert_eq!(subnet.to_string(), "10.88.1.0/24");
        assert_eq!("255.255.0.0/16".parse::<Subnet>().unwrap().last(), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn a_bad_subnet_is_named() {
        for bad in ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/31", "10.0.0.0/8", "x/24", "::/24"] {
            let error = bad.parse::<Subnet>().unwrap_err().to_string();
            assert!(error.contains("subnet"), "{bad}: {error}");
        }
    }
}
