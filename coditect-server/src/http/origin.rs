//! Which pages may use this server from a browser: its own.

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};

use crate::config::Config;

/// Whether `page`, the `Origin` of a request with these headers, may: it is this server's own.
pub(crate) fn is_allowed(_config: &Config, headers: &HeaderMap, page: &HeaderValue) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let page = page.to_str().ok().and_then(|page| page.split_once("://"));
    matches!((host, page), (Some(host), Some((_, page))) if page.eq_ignore_ascii_case(host))
}
