//! Networks in CIDR notation, and versions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Args, Outcome, semver};
use crate::bake::{convert, error::Problem, value::Value};

pub(super) fn call(args: &Args<'_>) -> Option<Outcome> {
    Some(match args.name {
        "cidrhost" => host(args),
        "cidrnetmask" => netmask(args),
        "cidrsubnet" => subnet(args),
        "cidrsubnets" => subnets(args),
        "semvercmp" => args.texts().and_then(|[version, constraint]| {
            let result = semver::satisfies(&version, &constraint);
            result
                .map(Value::Bool)
                .map_err(|message| args.fail(message))
        }),
        _ => return None,
    })
}

/// A network: address, length of the prefix, bits of an address.
struct Network {
    address: u128,
    prefix: u32,
    bits: u32,
}

impl Network {
    fn parse(args: &Args<'_>, value: &Value) -> Result<Self, Problem> {
        let text = convert::string(value)?;
        let wrong = || args.fail(format!("`{text}` is not a network like `10.0.0.0/16`"));
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let (address, bits) = match address.parse::<IpAddr>().map_err(|_| wrong())? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        let prefix: u32 = prefix.parse().map_err(|_| wrong())?;
        if prefix > bits {
            return Err(wrong());
        }
        let mut network = Self {
            address,
            prefix,
            bits,
        };
        network.address &= network.mask();
        Ok(network)
    }

    fn mask(&self) -> u128 {
        let ones = match self.bits {
            128 => u128::MAX,
            bits => (1 << bits) - 1,
        };
        ones & !self.hosts()
    }

    /// The bits that count hosts, all set.
    fn hosts(&self) -> u128 {
        match self.bits - self.prefix {
            128 => u128::MAX,
            bits => (1 << bits) - 1,
        }
    }

    fn show(&self, address: u128) -> String {
        #[expect(clippy::cast_possible_truncation, reason = "an address of 32 bits")]
        match self.bits {
            32 => Ipv4Addr::from(address as u32).to_string(),
            _ => Ipv6Addr::from(address).to_string(),
        }
    }

    /// The network number `number` of those with `more` bits more.
    fn part(&self, args: &Args<'_>, more: u32, number: u128) -> Result<Self, Problem> {
        let prefix = self.prefix + more;
        if prefix > self.bits {
            return Err(args.fail(format!("the network has no {more} bits left")));
        }
        if more < 128 && number >> more != 0 {
            return Err(args.fail(format!("there is no network number {number}")));
        }
        let shifted = number.checked_shl(self.bits - prefix).unwrap_or(0);
        Ok(Self {
            address: self.address | shifted,
            prefix,
            bits: self.bits,
        })
    }
}

fn host(args: &Args<'_>) -> Outcome {
    let [network, number] = args.exactly()?;
    let network = Network::parse(args, network)?;
    let number = args.int(number)?;
    let last = network.hosts();
    let offset = u128::from(number.unsigned_abs());
    let wrong = || args.fail(format!("the network has no host {number}"));
    let offset = match number < 0 {
        // Negative numbers count from the end.
        true => last.checked_sub(offset - 1).ok_or_else(wrong)?,
        false => offset,
    };
    if offset > last {
        return Err(wrong());
    }
    Ok(Value::String(network.show(network.address | offset)))
}

fn netmask(args: &Args<'_>) -> Outcome {
    let [network] = args.exactly()?;
    let network = Network::parse(args, network)?;
    Ok(Value::String(network.show(network.mask())))
}

fn subnet(args: &Args<'_>) -> Outcome {
    let [network, more, number] = args.exactly()?;
    let network = Network::parse(args, network)?;
    let more = u32::try_from(args.size(more)?).unwrap_or(u32::MAX / 2);
    let part = network.part(args, more, args.size(number)? as u128)?;
    Ok(Value::String(format!(
        "{}/{}",
        part.show(part.address),
        part.prefix
    )))
}

/// Consecutive networks of the given sizes.
fn subnets(args: &Args<'_>) -> Outcome {
    args.count(1, usize::MAX)?;
    let network = Network::parse(args, &args.values[0])?;
    let mut next = network.address;
    let mut out = Vec::new();
    for more in &args.values[1..] {
        let more = u32::try_from(args.size(more)?).unwrap_or(u32::MAX / 2);
        let size = network.part(args, more, 0)?;
        // The first address after the last network at which one of this size can start.
        let step = size.hosts();
        let start = next.checked_add(step).map_or(u128::MAX, |a| a & !step);
        if start & network.mask() != network.address {
            return Err(args.fail("the network has no room for all of them"));
        }
        out.push(format!("{}/{}", network.show(start), size.prefix));
        next = start.saturating_add(step).saturating_add(1);
    }
    Ok(Value::texts(out))
}
