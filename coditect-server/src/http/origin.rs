//! Origins of pages (RFC 6454), and which of them are allowed.
//!
//! An origin is a scheme, a host and a port; patterns and partial matches are not supported, and a
//! page with the opaque origin `null` has no origin here.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use hyper::{HeaderMap, Uri, header, http::uri::Authority};

/// The origin of a web page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    is_secure: bool,
    host: String,
    port: u16,
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "not an origin such as https://ide.example.org".to_owned();
        let (scheme, authority) = text.split_once("://").ok_or_else(refused)?;
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(refused()),
        };
        let (host, port) = host_and_port(authority, is_secure).ok_or_else(refused)?;
        Ok(Self { is_secure, host, port })
    }
}

/// As a browser writes it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.is_secure { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Returns whether the page of `origin` may access `host`: it has the same origin, or the operator
/// allows it. Without a host, only the latter applies.
///
/// The scheme of the request is not compared, since only a proxy in front of this server may know
/// it.
pub(crate) fn is_allowed(allowed: &[Origin], host: Option<&str>, origin: &str) -> bool {
    let Ok(origin) = origin.parse::<Origin>() else { return false };
    let is_the_same = host
        .and_then(|host| host_and_port(host, origin.is_secure))
        .is_some_and(|(host, port)| host == origin.host && port == origin.port);
    is_the_same || allowed.contains(&origin)
}

/// Returns the host that a request names.
pub(crate) fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST)?.to_str().ok(),
    }
}

/// Returns whether `value`, of `Host` or `:authority`, is a host name or an address with an
/// optional port. Names consist of letters, digits, `-`, `.`, `_` and `~`: other characters of RFC
/// 3986 do not occur in practice and are interpreted differently by different parsers.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(value) else { return false };
    let (host, port) = match text.strip_prefix('[').map(|text| text.split_once(']')) {
        Some(None) => return false,
        Some(Some((address, port))) => {
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            ("ipv6", port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_port = |port: &str| {
        port.is_empty()
            || (port.bytes().all(|it| it.is_ascii_digit()) && port.parse::<u16>().is_ok())
    };
    !host.is_empty()
        && host.bytes().all(is_name)
        && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// Returns the host in lower case, and the port.
fn host_and_port(authority: &str, is_secure: bool) -> Option<(String, u16)> {
    if authority.contains(['@', '*']) || !authority.is_ascii() {
        return None;
    }
    let parsed: Authority = authority.parse().ok()?;
    let host = parsed.host().to_ascii_lowercase();
    let port = match authority.get(parsed.host().len()..)? {
        "" if is_secure => 443,
        "" => 80,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    (!host.is_empty()).then_some((host, port))
}

/// Parses an origin of a setting.
pub(crate) fn parse(text: &str) -> Result<Origin, String> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> [Origin; 2] {
        ["https://ide.example.org", "http://localhost:3000"].map(|origin| origin.parse().unwrap())
    }

    #[test]
    fn hosts_are_names_and_addresses_with_and_without_ports() {
        for host in
            ["a", "a.example", "a_b.example:80", "127.0.0.1:8080", "[::1]", "[::1]:80", "a:"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a b", "a/b", "a@b", "a,b", "a:b", "a:70000", "a:80:80", "a:+80", "[::1",
            "[x]", "[::1]x", "::1", "a%2fb", "a\\b", "a\"", "é", "<a>", "a?b", "a#b", "*",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(!is_host(b"a\xff"));
    }

    #[test]
    fn origin_is_displayed_like_in_browsers() {
        for (text, written) in [
            ("https://IDE.example.org", "https://ide.example.org"),
            ("https://ide.example.org:443", "https://ide.example.org"),
            ("http://ide.example.org:443", "http://ide.example.org:443"),
            ("HTTP://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), written);
        }
        for wrong in [
            "*",
            "null",
            "",
            "ide.example.org",
            "https://",
            "https://*.example.org",
            "https://ide.example.org/",
            "https://ide.example.org/path",
            "https://ide.example.org?x",
            "https://ada@ide.example.org",
            "https://ide.example.org:",
            "https://ide.example.org:x",
            "https://ide.example.org:70000",
            "ftp://ide.example.org",
            "file:///",
            "https://ide.example.org https://b",
        ] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_same_origin_and_listed_ones_are_allowed() {
        let listed = listed();
        let host = Some("coditect.example:8443");
        for allowed in [
            "https://coditect.example:8443",
            "http://Coditect.Example:8443",
            "https://ide.example.org",
            "http://localhost:3000",
        ] {
            assert!(is_allowed(&listed, host, allowed), "{allowed}");
        }
        for refused in [
            "https://coditect.example",
            "http://ide.example.org",
            "https://ide.example.org:8443",
            "https://evil.ide.example.org",
            "https://ide.example.org.evil.example",
            "http://localhost",
            "null",
            "",
        ] {
            assert!(!is_allowed(&listed, host, refused), "{refused}");
        }
        assert!(is_allowed(&listed, Some("a.example"), "https://a.example"));
        assert!(is_allowed(&listed, Some("a.example:443"), "https://a.example"));
        assert!(!is_allowed(&listed, Some("a.example:80"), "https://a.example"));
        assert!(!is_allowed(&listed, None, "https://a.example"));
    }

    #[test]
    fn authority_takes_precedence_over_the_host_header() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "b.example".parse().unwrap());
        assert_eq!(host(&headers, &"/x".parse().unwrap()), Some("b.example"));
        assert_eq!(host(&headers, &"http://a.example/x".parse().unwrap()), Some("a.example"));
        assert_eq!(host(&HeaderMap::new(), &"/x".parse().unwrap()), None);
    }
}
