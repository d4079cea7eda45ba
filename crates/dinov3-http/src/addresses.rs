//! Which addresses belong to the public internet, and a resolver that gives only those.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Whether an address may be given to anyone on the internet: none of the special ranges of RFC 6890 that lead to
/// this machine, its networks or to nobody. Addresses of IPv6 that stand for one of IPv4 count as that one.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(matches!(a, 0 | 10 | 127 | 224..)
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && matches!(c, 0 | 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        // ::ffff:a.b.c.d, and the deprecated ::a.b.c.d with :: and ::1 among them.
        (0, 0, 0, 0, 0, 0xffff | 0) => v4(g, h),
        // ::ffff:0:a.b.c.d, RFC 2765.
        (0, 0, 0, 0, 0xffff, 0) => v4(g, h),
        // NAT64; its local prefix 64:ff9b:1::/48 is nobody's from outside.
        (0x64, 0xff9b, 0, 0, 0, 0) => v4(g, h),
        (0x64, 0xff9b, 1, ..) => false,
        // 6to4.
        (0x2002, high, low, ..) => v4(high, low),
        // Teredo and other special uses, documentation, discard.
        (0x2001, 0..0x200 | 0xdb8, ..) | (0x100, 0, 0, 0, ..) | (0x3fff, 0..0x1000, ..) => false,
        // 2000::/3 is what is handed out; fc00::/7, fe80::/10, fec0::/10 and ff00::/8 are outside of it.
        _ => a & 0xe000 == 0x2000,
    }
}

/// Carries the refused address through the client's own error type.
#[derive(Debug, thiserror::Error)]
#[error("local address {0}")]
pub(crate) struct Refused(pub(crate) IpAddr);

/// Gives public addresses only. The client connects to exactly what it is given here, without asking again.
#[derive(Debug)]
pub(crate) struct PublicOnly<R>(pub(crate) R);

impl<R: Resolver> Resolver for PublicOnly<R> {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.0.resolve(uri, config, timeout)?;
        // The proxy itself may be local: the user chose it.
        if config.proxy().is_some_and(|proxy| proxy.uri().authority() == uri.authority()) {
            return Ok(found);
        }
        let mut public = self.empty();
        let mut refused = None;
        for address in found.iter() {
            match is_public(address.ip()) {
                true => public.push(*address),
                false => refused = Some(address.ip()),
            }
        }
        match refused {
            Some(address) if public.is_empty() => Err(Error::Other(Box::new(Refused(address)))),
            _ => Ok(public),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn private_and_special_addresses_are_not_public() {
        for local in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::808:808",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(local.parse().unwrap()), "{local}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.1.1",
            "223.1.1.1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    /// Names that point where an attacker likes.
    #[derive(Debug)]
    struct Names(Vec<SocketAddr>);

    impl Resolver for Names {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
            let mut all = self.empty();
            self.0.iter().for_each(|address| all.push(*address));
            Ok(all)
        }
    }

    fn resolve(addresses: &[&str], config: &Config) -> Result<Vec<String>, String> {
        let names = Names(addresses.iter().map(|address| address.parse().unwrap()).collect());
        let uri = Uri::from_static("http://innocent.example/");
        let found = PublicOnly(names).resolve(&uri, config, NextTimeout::default());
        found.map(|all| all.iter().map(ToString::to_string).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_resolver_drops_local_addresses_and_fails_if_none_is_left() {
        let config = Config::default();
        assert_eq!(resolve(&["8.8.8.8:80", "127.0.0.1:80"], &config).unwrap(), ["8.8.8.8:80"]);
        assert!(resolve(&["[::1]:80", "10.0.0.1:80"], &config).unwrap_err().contains("10.0.0.1"));
        let proxy = ureq::Proxy::new("http://innocent.example").unwrap();
        let config = Config::builder().proxy(Some(proxy)).build();
        assert_eq!(resolve(&["10.0.0.1:80"], &config).unwrap(), ["10.0.0.1:80"]);
    }
}
