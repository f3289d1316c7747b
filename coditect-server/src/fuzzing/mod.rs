//! What is tried with any bytes at all: on the wire, on an open socket, as a body. See the store's module of
//! this name for how.

#![expect(clippy::unwrap_used, reason = "to fail is what it is for")]

mod bodies;
mod requests;
mod sockets;
#[cfg(test)]
#[path = "../../../.ci/fuzz/stable.rs"]
mod stable;
mod world;

pub use bodies::json_body;
pub use requests::http_request;
pub use sockets::websocket_frames;

#[cfg(test)]
mod tests {
    use super::stable::run;

    #[test]
    fn whatever_is_on_the_wire_is_answered_or_left() {
        run("http_request", 250, super::http_request);
    }

    #[test]
    fn whatever_is_on_a_socket_is_answered_or_closed() {
        run("websocket_frames", 250, super::websocket_frames);
    }

    #[test]
    fn a_body_is_what_a_route_takes_or_refused() {
        run("json_body", 2_000, super::json_body);
    }
}
