//! The address of the client behind proxies.
//!
//! A trusted peer's forwarding header lists the hops before it, nearest last. From the right, the
//! first hop that is not a trusted proxy is the client; text to its left was sent by the client.
//!
//! **Invariants**
//!
//! - A proxy's address is never reported as that of its client. A trusted proxy that names no
//!   client, or one that cannot be parsed, and an untrusted peer that shows signs of being a proxy
//!   have an [unknown](ClientAddress::Unknown) client.
//! - Only the configured header is parsed: a proxy that writes one forwards the other unchanged.
//! - An unknown client has no rights that depend on an address, and its failed logins count against
//!   the nearest known hop, so that no header moves a client to a rate-limit bucket of its choice.

use std::net::{IpAddr, Ipv4Addr};

use clap::ValueEnum;
use hyper::{HeaderMap, header};
use ipnet::{IpNet, Ipv4Net};

use super::forwarded::{self, Elements};

/// Headers by which a proxy identifies itself or its client. From an untrusted peer they make the
/// client's address unknown.
const FORWARDING_HEADERS: [&str; 8] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "true-client-ip",
    "cf-connecting-ip",
];

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Number of bits of an IPv6 address before an IPv4 address mapped into it.
const MAPPED_PREFIX_BITS: u8 = 96;

/// The header in which trusted proxies name their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The address of a request's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAddress {
    /// The client's own address, with IPv4-mapped addresses as IPv4.
    Known(IpAddr),
    /// The client is behind a proxy that does not name it, or that is not trusted.
    Unknown {
        /// The nearest known hop: the peer, or the last trusted proxy before the unreadable
        /// element.
        nearest_hop: IpAddr,
    },
}

impl ClientAddress {
    /// Returns the client's own address, if it is known.
    pub fn known(self) -> Option<IpAddr> {
        match self {
            Self::Known(ip) => Some(ip),
            Self::Unknown { .. } => None,
        }
    }

    /// Returns whether the client is known to be in one of `networks`.
    pub(crate) fn is_in(self, networks: &[IpNet]) -> bool {
        self.known().is_some_and(|ip| contains(networks, ip))
    }
}

/// Returns the client of a request with `headers` over the connection of `peer`.
pub(crate) fn address(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &[IpNet],
    configured: ForwardedHeader,
) -> ClientAddress {
    let peer = peer.to_canonical();
    if !contains(trusted, peer) {
        return if FORWARDING_HEADERS.iter().any(|name| headers.contains_key(*name)) {
            ClientAddress::Unknown { nearest_hop: peer }
        } else {
            ClientAddress::Known(peer)
        };
    }
    match configured {
        ForwardedHeader::XForwardedFor => {
            let list = forwarded::joined(headers, X_FORWARDED_FOR);
            let nodes = list.as_deref().into_iter().flat_map(forwarded::plain_elements);
            nearest_untrusted(peer, nodes.map(forwarded::node), trusted)
        }
        ForwardedHeader::Forwarded => {
            let list = forwarded::joined(headers, header::FORWARDED.as_str());
            let nodes = list.as_deref().into_iter().flat_map(Elements::new);
            let nodes = nodes.map(|element| forwarded::node(&element?.node?));
            nearest_untrusted(peer, nodes, trusted)
        }
    }
}

/// Walks `hops`, nearest first, to the first untrusted one, or to the last one.
fn nearest_untrusted(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    trusted: &[IpNet],
) -> ClientAddress {
    let mut client = ClientAddress::Unknown { nearest_hop: peer };
    let mut nearest_hop = peer;
    for hop in hops {
        let Some(ip) = hop else { return ClientAddress::Unknown { nearest_hop } };
        client = ClientAddress::Known(ip);
        if !contains(trusted, ip) {
            break;
        }
        nearest_hop = ip;
    }
    client
}

/// Returns whether the client's connection to the nearest proxy is over TLS, if that proxy is
/// trusted: from `X-Forwarded-Proto` or `proto=` in `Forwarded`, whichever belongs to the
/// configured header.
pub(crate) fn is_secure(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &[IpNet],
    configured: ForwardedHeader,
) -> bool {
    if !contains(trusted, peer.to_canonical()) {
        return false;
    }
    let proto = match configured {
        ForwardedHeader::XForwardedFor => {
            let list = forwarded::joined(headers, X_FORWARDED_PROTO);
            list.and_then(|list| forwarded::plain_elements(&list).next().map(<[u8]>::to_vec))
        }
        ForwardedHeader::Forwarded => {
            let list = forwarded::joined(headers, header::FORWARDED.as_str());
            list.and_then(|list| Elements::new(&list).next()??.proto)
        }
    };
    proto.is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"))
}

fn contains(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

/// Parses a network or a single address of a setting. An IPv4-mapped IPv6 network becomes the IPv4
/// network, since addresses are compared in that form.
pub(crate) fn parse_network(text: &str) -> Result<IpNet, String> {
    let one = text.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
    one.or_else(|_| text.parse::<IpNet>().map(|network| canonical(network.trunc())))
        .map_err(|_| "not an address or a network such as 10.0.0.0/8".to_owned())
}

fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let ip: Option<Ipv4Addr> = mapped.addr().to_ipv4_mapped();
    let prefix = mapped.prefix_len().checked_sub(MAPPED_PREFIX_BITS);
    match ip.zip(prefix).and_then(|(ip, prefix)| Ipv4Net::new(ip, prefix).ok()) {
        Some(network) => IpNet::V4(network),
        None => network,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const X: ForwardedHeader = ForwardedHeader::XForwardedFor;
    const RFC: ForwardedHeader = ForwardedHeader::Forwarded;

    fn trusted() -> [IpNet; 2] {
        ["10.0.0.0/8", "2001:db8::/32"].map(|net| parse_network(net).unwrap())
    }

    /// Returns the client, or `unknown behind` the nearest hop.
    fn client(peer: &str, configured: ForwardedHeader, lines: &[(&'static str, &[u8])]) -> String {
        let line = |(name, value): &(&'static str, &[u8])| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
        };
        let headers: HeaderMap = lines.iter().map(line).collect();
        match address(peer.parse().unwrap(), &headers, &trusted(), configured) {
            ClientAddress::Known(ip) => ip.to_string(),
            ClientAddress::Unknown { nearest_hop } => format!("unknown behind {nearest_hop}"),
        }
    }

    fn by_x(list: impl AsRef<[u8]>) -> String {
        client("10.0.0.1", X, &[("x-forwarded-for", list.as_ref())])
    }

    fn by_rfc(list: impl AsRef<[u8]>) -> String {
        client("10.0.0.1", RFC, &[("forwarded", list.as_ref())])
    }

    #[test]
    fn untrusted_peer_without_forwarding_headers_is_the_client() {
        assert_eq!(client("198.51.100.7", X, &[]), "198.51.100.7");
        assert_eq!(client("::ffff:198.51.100.7", RFC, &[]), "198.51.100.7");
        assert_eq!(client("198.51.100.7", X, &[("x-request-id", b"1")]), "198.51.100.7");
    }

    #[test]
    fn forwarding_header_of_an_untrusted_peer_makes_the_client_unknown() {
        for name in FORWARDING_HEADERS {
            for configured in [X, RFC] {
                let seen = client("198.51.100.7", configured, &[(name, b"for=192.0.2.9")]);
                assert_eq!(seen, "unknown behind 198.51.100.7", "{name}");
            }
        }
    }

    #[test]
    fn client_is_the_nearest_hop_that_is_not_trusted() {
        for (list, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("1.1.1.1, 192.0.2.1", "192.0.2.1"),
            ("1.1.1.1, 192.0.2.1, 10.0.0.2,10.0.0.3", "192.0.2.1"),
            ("10.0.0.5", "10.0.0.5"),
            ("2001:db9::1, 2001:db8::2", "2001:db9::1"),
            ("[2001:db9::1]:4711", "2001:db9::1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(by_x(list), expected, "{list}");
        }
        let seen = client("::ffff:10.0.0.1", X, &[("x-forwarded-for", b"192.0.2.1")]);
        assert_eq!(seen, "192.0.2.1");
    }

    #[test]
    fn several_header_lines_form_one_list() {
        let lines: [(_, &[u8]); 2] =
            [("x-forwarded-for", b"1.1.1.1, 192.0.2.1"), ("x-forwarded-for", b"10.0.0.9")];
        assert_eq!(client("10.0.0.1", X, &lines), "192.0.2.1");
        let lines: [(_, &[u8]); 2] =
            [("forwarded", b"for=1.1.1.1;by=\""), ("forwarded", b"for=192.0.2.1")];
        assert_eq!(client("10.0.0.1", RFC, &lines), "192.0.2.1");
    }

    #[test]
    fn damage_on_the_left_does_not_hide_the_appended_element() {
        for left in ["\"", "\\", "\"\\", ";by=\"", "for=\"", "=", ","] {
            assert_eq!(by_x(format!("{left}, 203.0.113.9")), "203.0.113.9", "{left}");
            let seen = by_rfc(format!("for=198.51.100.77{left}, for=203.0.113.9"));
            assert_eq!(seen, "203.0.113.9", "{left}");
            let seen = by_rfc(format!("for=1.1.1.1{left}, for=\"[2001:db9::9]:1\";by=\"a,b\""));
            assert_eq!(seen, "2001:db9::9", "{left}");
        }
        assert_eq!(by_x(b"\xe9, 203.0.113.9"), "203.0.113.9");
        assert_eq!(by_rfc(b"for=\xe9, for=203.0.113.9"), "203.0.113.9");
    }

    #[test]
    fn unreadable_element_makes_the_client_unknown_behind_the_hop_that_wrote_it() {
        for (list, hop) in [
            ("192.0.2.1, nonsense", "10.0.0.1"),
            ("192.0.2.1, 10.0.0.8, , 10.0.0.9", "10.0.0.9"),
            ("192.0.2.1, ", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("unknown", "10.0.0.1"),
            ("192.0.2.1, unknown, 10.0.0.7", "10.0.0.7"),
            ("192.0.2.1 ,10.0.0.9 x", "10.0.0.1"),
            ("192.0.2.1, \"10.0.0.9\"", "10.0.0.1"),
        ] {
            assert_eq!(by_x(list), format!("unknown behind {hop}"), "{list}");
        }
        assert_eq!(by_x(b"192.0.2.1, 10.0.0.9\xe9"), "unknown behind 10.0.0.1");
        for (list, hop) in [
            ("for=192.0.2.1, for=unknown", "10.0.0.1"),
            ("for=192.0.2.1, for=_hidden;proto=https", "10.0.0.1"),
            ("for=192.0.2.1, proto=http", "10.0.0.1"),
            ("for=192.0.2.1, for=_x, for=10.0.0.4", "10.0.0.4"),
            ("for=192.0.2.1, for=127.0.0.1;by=\"", "10.0.0.1"),
        ] {
            assert_eq!(by_rfc(list), format!("unknown behind {hop}"), "{list}");
        }
    }

    #[test]
    fn trusted_peer_without_the_configured_header_has_an_unknown_client() {
        let unknown = "unknown behind 10.0.0.1";
        assert_eq!(client("10.0.0.1", X, &[]), unknown);
        assert_eq!(client("10.0.0.1", X, &[("forwarded", b"for=192.0.2.1")]), unknown);
        assert_eq!(client("10.0.0.1", RFC, &[("x-forwarded-for", b"192.0.2.1")]), unknown);
        let both: [(_, &[u8]); 2] =
            [("x-forwarded-for", b"192.0.2.1"), ("forwarded", b"for=192.0.2.2")];
        assert_eq!(client("10.0.0.1", X, &both), "192.0.2.1");
        assert_eq!(client("10.0.0.1", RFC, &both), "192.0.2.2");
    }

    #[test]
    fn forwarded_parameters_are_read_in_any_order_and_case() {
        for (list, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("proto=https;For=\"192.0.2.1:80\";by=10.0.0.1", "192.0.2.1"),
            ("for=\"[2001:db9:cafe::17]:4711\"", "2001:db9:cafe::17"),
            ("for=1.1.1.1, for=192.0.2.1;by=\"a,b\", for=10.0.0.2", "192.0.2.1"),
        ] {
            assert_eq!(by_rfc(list), expected, "{list}");
        }
    }

    #[test]
    fn only_the_nearest_proxy_declares_tls() {
        let secure = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            let headers = HeaderMap::from_iter([(header::FORWARDED, value)]);
            is_secure("10.0.0.1".parse().unwrap(), &headers, &trusted(), RFC)
        };
        assert!(secure("for=192.0.2.1;Proto=\"https\""));
        assert!(secure("for=\";proto=http, for=192.0.2.1;proto=https"));
        assert!(!secure("for=192.0.2.1;proto=https, for=192.0.2.1;proto=http"));
        assert!(!secure("for=192.0.2.1;proto=https, \""));
    }

    #[test]
    fn network_is_written_with_its_length_or_as_one_address() {
        assert_eq!(parse_network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse_network("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(parse_network("::1").unwrap().to_string(), "::1/128");
        for wrong in ["", "10.0.0.0/33", "proxy", "10.0.0"] {
            assert!(parse_network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mapped_network_matches_mapped_and_plain_addresses() {
        let network = parse_network("::ffff:10.1.0.0/104").unwrap();
        assert_eq!(network.to_string(), "10.0.0.0/8");
        for peer in ["10.2.3.4", "::ffff:10.2.3.4"] {
            let client = address(peer.parse().unwrap(), &HeaderMap::new(), &[], X);
            assert!(client.is_in(&[network]), "{peer}");
        }
        assert_eq!(parse_network("::ffff:0:0/96").unwrap().to_string(), "0.0.0.0/0");
        assert_eq!(parse_network("::/0").unwrap().to_string(), "::/0");
        assert_eq!(parse_network("::ffff:10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
    }

    proptest! {
        #[test]
        fn client_text_never_changes_the_address_that_a_trusted_proxy_appends(
            left in "[\",;=\\\\ a-z0-9._:\\[\\]]{0,60}",
            ip in any::<std::net::Ipv4Addr>(),
        ) {
            prop_assume!(!contains(&trusted(), ip.into()));
            prop_assert_eq!(by_x(format!("{left}, {ip}")), ip.to_string());
            prop_assert_eq!(by_rfc(format!("{left}, for=\"{ip}\";by=_p")), ip.to_string());
        }
    }
}
