//! Fuzz targets with arbitrary bytes: on a connection, on an open WebSocket, as a body. See the
//! module of this name in the store.

#![expect(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

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
    fn arbitrary_bytes_get_a_response_or_a_close() {
        run("http_request", 250, super::http_request);
    }

    #[test]
    fn arbitrary_frames_get_a_message_or_a_close() {
        run("websocket_frames", 250, super::websocket_frames);
    }

    #[test]
    fn arbitrary_bodies_are_parsed_or_refused() {
        run("json_body", 2_000, super::json_body);
    }
}
