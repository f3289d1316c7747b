//! Whose address a request comes from, where proxies stand between.
//!
//! The socket says who is at its other end. If that is a proxy that the operator trusts, the header that
//! they have named says whom it had at its own other end, and so on from the right to the left: the first
//! that is not trusted is the client. What stands left of that is whatever the client wrote. The header
//! that was not named is never read: a proxy that writes one lets the other through.

use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use hyper::{HeaderMap, header};
use ipnet::IpNet;

/// The header in which trusted proxies say for whom they ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, as most have it.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The address of the client that a request comes from, which came by the socket of `peer`.
pub(super) fn address(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &[IpNet],
    named: ForwardedHeader,
) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip.to_canonical()));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let name = match named {
        ForwardedHeader::XForwardedFor => "x-forwarded-for",
        ForwardedHeader::Forwarded => header::FORWARDED.as_str(),
    };
    // Several lines are one list (RFC 9110, section 5.3). A line that is not text says nothing.
    let lines: Vec<&str> =
        headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    for element in lines.iter().rev().flat_map(|line| elements(line).into_iter().rev()) {
        let said = match named {
            ForwardedHeader::XForwardedFor => node(element.trim()),
            ForwardedHeader::Forwarded => forwarded_for(element),
        };
        // What cannot be read hides whoever is behind it.
        let Some(said) = said else { break };
        client = said.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// Whether a request came by TLS to the proxy next to us, if that is trusted, as it says in the header
/// that goes with the named one: `X-Forwarded-Proto`, or `proto=` in `Forwarded`.
pub(super) fn is_secure(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &[IpNet],
    named: ForwardedHeader,
) -> bool {
    let peer = peer.to_canonical();
    if !trusted.iter().any(|net| net.contains(&peer)) {
        return false;
    }
    let last = |name| {
        let line = headers.get_all(name).iter().next_back()?.to_str().ok()?;
        elements(line).pop()
    };
    let proto = match named {
        ForwardedHeader::XForwardedFor => last("x-forwarded-proto"),
        ForwardedHeader::Forwarded => last("forwarded").and_then(|element| said(element, "proto")),
    };
    proto.is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"))
}

/// The elements of a list, whose quoted strings may have commas in them.
fn elements(line: &str) -> Vec<&str> {
    split(line, ',')
}

fn split(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (index, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            char if char == at && !quoted => {
                parts.push(&text[begin..index]);
                begin = index + char.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// The address of `for=` in an element of `Forwarded`; none if it hides itself, or is not said.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    node(said(element, "for")?)
}

/// What an element of `Forwarded` says as `wanted`, without its quotes.
fn said<'a>(element: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = split(element, ';').into_iter().filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// An address, with a port or without.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// A network, or one address, as an operator writes it.
pub(crate) fn parse_network(text: &str) -> Result<IpNet, String> {
    let one = text.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
    one.or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()))
        .map_err(|_| "not an address or a network such as 10.0.0.0/8".to_owned())
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    const X: ForwardedHeader = ForwardedHeader::XForwardedFor;
    const RFC: ForwardedHeader = ForwardedHeader::Forwarded;

    fn client(peer: &str, named: ForwardedHeader, lines: &[(&'static str, &str)]) -> String {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|net| parse_network(net).unwrap());
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let headers: HeaderMap = lines.iter().map(line).collect();
        address(peer.parse().unwrap(), &headers, &trusted, named).to_string()
    }

    #[test]
    fn who_is_no_proxy_is_the_client_whatever_they_say() {
        for header in [("x-forwarded-for", "192.0.2.9"), ("forwarded", "for=192.0.2.9")] {
            assert_eq!(client("198.51.100.7", X, &[header]), "198.51.100.7");
            assert_eq!(client("198.51.100.7", RFC, &[header]), "198.51.100.7");
        }
    }

    #[test]
    fn the_client_is_the_nearest_that_is_not_trusted() {
        for (said, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("1.1.1.1, 192.0.2.1", "192.0.2.1"),
            ("1.1.1.1, 192.0.2.1, 10.0.0.2,10.0.0.3", "192.0.2.1"),
            ("10.0.0.5", "10.0.0.5"),
            ("2001:db9::1, 2001:db8::2", "2001:db9::1"),
            ("[2001:db9::1]:4711", "2001:db9::1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(client("10.0.0.1", X, &[("x-forwarded-for", said)]), expected, "{said}");
        }
        assert_eq!(client("::ffff:10.0.0.1", X, &[("x-forwarded-for", "192.0.2.1")]), "192.0.2.1");
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [("x-forwarded-for", "1.1.1.1, 192.0.2.1"), ("x-forwarded-for", "10.0.0.9")];
        assert_eq!(client("10.0.0.1", X, &lines), "192.0.2.1");
    }

    #[test]
    fn what_cannot_be_read_is_not_looked_behind() {
        for (said, expected) in [
            ("192.0.2.1, nonsense", "10.0.0.1"),
            ("192.0.2.1, 10.0.0.8, , 10.0.0.9", "10.0.0.9"),
            ("", "10.0.0.1"),
            ("192.0.2.1 ,10.0.0.9 x", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", X, &[("x-forwarded-for", said)]), expected, "{said}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_has_it() {
        for (said, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("proto=https;For=\"192.0.2.1:80\";by=10.0.0.1", "192.0.2.1"),
            ("for=\"[2001:db9:cafe::17]:4711\"", "2001:db9:cafe::17"),
            ("for=1.1.1.1, for=192.0.2.1;by=\"a,b\", for=10.0.0.2", "192.0.2.1"),
            ("for=192.0.2.1, for=unknown", "10.0.0.1"),
            ("for=192.0.2.1, for=_hidden", "10.0.0.1"),
            ("for=192.0.2.1, proto=http", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", RFC, &[("forwarded", said)]), expected, "{said}");
        }
    }

    #[test]
    fn the_header_that_was_not_named_is_never_read() {
        let both = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.2")];
        assert_eq!(client("10.0.0.1", X, &both), "192.0.2.1");
        assert_eq!(client("10.0.0.1", RFC, &both), "192.0.2.2");
        assert_eq!(client("10.0.0.1", RFC, &both[..1]), "10.0.0.1");
    }

    #[test]
    fn a_network_is_written_with_its_length_or_as_one_address() {
        assert_eq!(parse_network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse_network("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(parse_network("::1").unwrap().to_string(), "::1/128");
        for wrong in ["", "10.0.0.0/33", "proxy", "10.0.0"] {
            assert!(parse_network(wrong).is_err(), "{wrong}");
        }
    }
}
