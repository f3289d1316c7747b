//! Parsers of the forwarding headers `X-Forwarded-For` and `Forwarded` (RFC 7239), from the right.
//!
//! Each proxy appends one element, so the rightmost elements come from the nearest proxies, and
//! the text to their left may be anything sent by the client.
//!
//! **Invariants**
//!
//! - An element is delimited by its own bytes only: text on its left changes neither its bounds nor
//!   its meaning. A quote opened by the client never hides an element appended by a proxy.
//! - Input is bytes. A non-ASCII byte makes only its own element unreadable.
//! - `X-Forwarded-For` has no quoting.
//! - An empty or malformed element is reported, not skipped. Skipping it would expose the client's
//!   own text to its left.
//! - Parsing takes time linear in the size of the header.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;

/// The `for` or `proto` of a `Forwarded` element, without quotes and escapes.
type Value = Vec<u8>;

/// Returns all lines of the header `name` as one list (RFC 9110, section 5.3); `None` if it is
/// absent.
pub(super) fn joined(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(name).iter();
    let mut list = lines.next()?.as_bytes().to_vec();
    for line in lines {
        list.extend_from_slice(b", ");
        list.extend_from_slice(line.as_bytes());
    }
    Some(list)
}

/// Returns the elements of an `X-Forwarded-…` list, from right to left.
pub(super) fn plain_elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The elements of a `Forwarded` list, from right to left. The first malformed one, reported as
/// `None`, ends the iteration, since its left bound is unknown.
pub(super) struct Elements<'a> {
    /// Unparsed rest on the left; `None` at the end.
    rest: Option<&'a [u8]>,
}

/// A well-formed element of a `Forwarded` list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) node: Option<Value>,
    pub(super) proto: Option<Value>,
}

impl<'a> Elements<'a> {
    pub(super) fn new(list: &'a [u8]) -> Self {
        Self { rest: Some(list) }
    }
}

impl Iterator for Elements<'_> {
    type Item = Option<Element>;

    fn next(&mut self) -> Option<Self::Item> {
        let list = self.rest.take()?;
        let Some((element, rest)) = last_element(list) else { return Some(None) };
        self.rest = rest;
        Some(Some(element))
    }
}

/// Splits the last element off `list`. The rest is `None` for the only element.
fn last_element(list: &[u8]) -> Option<(Element, Option<&[u8]>)> {
    let mut element = Element::default();
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut rest = list.trim_ascii_end();
    loop {
        let (value, before) = last_value(rest)?;
        let (name, before) = last_token(before.strip_suffix(b"=")?)?;
        let name = name.to_ascii_lowercase();
        // A parameter occurs once per element (RFC 7239, section 4).
        if names.contains(&name) {
            return None;
        }
        match name.as_slice() {
            b"for" => element.node = Some(value),
            b"proto" => element.proto = Some(value),
            _ => {}
        }
        names.push(name);
        rest = before.trim_ascii_end();
        match rest.split_last() {
            None => return Some((element, None)),
            Some((b',', before)) => return Some((element, Some(before))),
            Some((b';', before)) => rest = before.trim_ascii_end(),
            Some(_) => return None,
        }
        if names.len() > MAX_PARAMETERS {
            return None;
        }
    }
}

/// Maximum number of parameters in an element; RFC 7239 defines four.
const MAX_PARAMETERS: usize = 16;

/// Splits a quoted string or a bare value off the end of `text`.
fn last_value(text: &[u8]) -> Option<(Value, &[u8])> {
    let Some(quoted) = text.strip_suffix(b"\"") else {
        // More than a token: some proxies write addresses with a port or in brackets without
        // quotes.
        return split_end(text, |byte| byte.is_ascii_graphic() && !b"\",;=\\".contains(&byte))
            .map(|(value, before)| (value.to_vec(), before));
    };
    let mut end = quoted.len();
    // An escaped quote follows an odd number of backslashes. The closing quote must not be escaped.
    if !trailing_backslashes(quoted).is_multiple_of(2) {
        return None;
    }
    let opening = loop {
        let at = quoted.get(..end)?.iter().rposition(|byte| *byte == b'"')?;
        if trailing_backslashes(quoted.get(..at)?).is_multiple_of(2) {
            break at;
        }
        end = at;
    };
    let mut value = Vec::new();
    let mut bytes = quoted.get(opening + 1..)?.iter();
    while let Some(byte) = bytes.next() {
        value.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
    }
    Some((value, quoted.get(..opening)?))
}

fn trailing_backslashes(text: &[u8]) -> usize {
    text.iter().rev().take_while(|byte| **byte == b'\\').count()
}

fn last_token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    split_end(text, |byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Splits the longest non-empty run of matching bytes off the end of `text`.
fn split_end(text: &[u8], matches: impl Fn(u8) -> bool) -> Option<(&[u8], &[u8])> {
    let begin = text.iter().rposition(|byte| !matches(*byte)).map_or(0, |at| at + 1);
    let (before, run) = text.split_at_checked(begin)?;
    (!run.is_empty()).then_some((run, before))
}

/// Parses the address of a proxy's client, with or without a port; `None` for `unknown`, an
/// obfuscated identifier (`_hidden`) and anything else.
pub(super) fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|it| it.ip()));
    // RFC 7239 lets a proxy obfuscate only the port.
    let ip = ip.or_else(|| {
        let (host, _port) = text.rsplit_once(":_")?;
        match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']')?.parse().ok(),
            None => host.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4),
        }
    });
    ip.map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns `for` of the readable elements, from right to left.
    fn nodes(list: &str) -> Vec<String> {
        let text = |value: Value| String::from_utf8(value).unwrap();
        let node = |element: Option<Element>| match element {
            None => "malformed".to_owned(),
            Some(element) => element.node.map_or_else(|| "absent".to_owned(), text),
        };
        Elements::new(list.as_bytes()).map(node).collect()
    }

    #[test]
    fn elements_are_read_from_the_right() {
        assert_eq!(nodes("for=a, for=\"b\";by=c ,proto=x;FOR=d"), ["d", "b", "a"]);
        assert_eq!(nodes("for=\"a,b;c=\\\"d\\\"\\\\\""), ["a,b;c=\"d\"\\"]);
        assert_eq!(nodes("for=192.0.2.1:80;by=\"[::1]\""), ["192.0.2.1:80"]);
        assert_eq!(nodes("for=a;proto=http, by=b"), ["absent", "a"]);
    }

    #[test]
    fn malformed_element_ends_the_list() {
        for list in [
            "",
            " , ",
            "for=a,",
            "for=a, nonsense",
            "for=a, for=",
            "for=a, =b",
            "for=a, for=b;",
            "for=a, for=\"b",
            "for=a, for=b\"",
            "for=a, for=\"b\\\"",
            "for=a, for=\"b\"c",
            "for=a, for=\"b\"c\"",
            "for=a, for=b;for=c",
            "for=a, for = b",
            "for=a, for=b c",
        ] {
            assert_eq!(nodes(list), ["malformed"], "{list}");
        }
    }

    #[test]
    fn nodes_are_addresses_with_and_without_ports() {
        for (text, ip) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("192.0.2.1:_a", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]:_a", "2001:db8::1"),
        ] {
            assert_eq!(node(text.as_bytes()), Some(ip.parse().unwrap()), "{text}");
        }
        for text in ["", "unknown", "_hidden", "unknown:80", "192.0.2.1:", "[192.0.2.1", "1", "a.b"]
        {
            assert_eq!(node(text.as_bytes()), None, "{text}");
        }
        assert_eq!(node(b"192.0.2.1\xe9"), None);
    }

    /// A value as a correct proxy writes it: a token, or a quoted string of any text.
    fn value() -> impl Strategy<Value = (String, Vec<u8>)> {
        let token = "[A-Za-z0-9._-]{1,12}".prop_map(|text| (text.clone(), text.into_bytes()));
        let quoted = "[ -~]{0,16}".prop_map(|text| {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            (format!("\"{escaped}\""), text.into_bytes())
        });
        prop_oneof![token, quoted]
    }

    proptest! {
        #[test]
        fn text_on_the_left_never_changes_an_appended_element(
            left in proptest::collection::vec(any::<u8>(), 0..64),
            (node, expected) in value(),
            (by, _) in value(),
            node_first in any::<bool>(),
        ) {
            let appended = if node_first {
                format!("for={node};by={by}")
            } else {
                format!("by={by};proto=https;for={node}")
            };
            let list = [left.as_slice(), b", ", appended.as_bytes()].concat();
            let last = Elements::new(&list).next().flatten().unwrap();
            prop_assert_eq!(last.node, Some(expected));
        }

        #[test]
        fn damage_on_the_left_never_hides_an_appended_address(
            left in "[\",;=\\\\ a-z0-9\u{e9}.]{0,40}",
            address in any::<IpAddr>(),
        ) {
            let list = format!("{left}, {address}");
            let last = plain_elements(list.as_bytes()).next().unwrap();
            prop_assert_eq!(super::node(last), Some(address.to_canonical()));
        }

        #[test]
        fn any_bytes_are_parsed_and_the_iteration_ends(
            list in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            prop_assert!(Elements::new(&list).count() <= list.len() + 1);
            prop_assert!(plain_elements(&list).map(super::node).count() <= list.len() + 1);
        }

        #[test]
        fn every_list_of_honest_elements_is_read_whole(
            values in proptest::collection::vec(value(), 1..8),
        ) {
            let list: Vec<_> = values.iter().map(|(text, _)| format!("for={text}")).collect();
            let list = list.join(",");
            let read: Vec<_> =
                Elements::new(list.as_bytes()).map(|it| it.unwrap().node.unwrap()).collect();
            let expected: Vec<_> = values.into_iter().rev().map(|(_, value)| value).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
