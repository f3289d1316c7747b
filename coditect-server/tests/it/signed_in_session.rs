//! A signed-in user with a session.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    account::Device,
    client::{Answer, Call, call},
    server::Running,
};

/// A session and its user.
pub(crate) struct SignedInSession {
    pub(crate) server: SocketAddr,
    pub(crate) token: String,
    pub(crate) path: String,
}

impl SignedInSession {
    pub(crate) async fn new(server: &Running, email: &str) -> Self {
        Self::at(server.address, email).await
    }

    /// Registers a user at a server, and creates a session.
    pub(crate) async fn at(server: SocketAddr, email: &str) -> Self {
        Self::make(server, email, json!({})).await
    }

    pub(crate) async fn with_settings(server: &Running, email: &str, settings: Value) -> Self {
        Self::make(server.address, email, settings).await
    }

    async fn make(server: SocketAddr, email: &str, settings: Value) -> Self {
        let token = Device::register(server, email).await.token;
        let mut signed_in = Self { server, token, path: String::new() };
        let body = json!({"name": "work", "settings": settings});
        let made = signed_in.call(Call::post("/api/v5/sessions").value(&body)).await.data();
        signed_in.path = format!("/api/v5/sessions/{}", made["id"].as_str().unwrap());
        signed_in
    }

    pub(crate) async fn call(&self, wanted: Call) -> Answer {
        call(self.server, wanted.bearer(&self.token)).await
    }

    /// Returns the path of `part` of the session, or of the session for an empty `part`.
    pub(crate) fn part(&self, part: &str) -> String {
        format!("{}/{part}", self.path).trim_end_matches('/').to_owned()
    }

    pub(crate) async fn get(&self, part: &str) -> Answer {
        self.call(Call::get(&self.part(part))).await
    }

    pub(crate) async fn put(&self, part: &str, body: &Value) -> Answer {
        self.call(Call::put(&self.part(part)).value(body)).await
    }

    pub(crate) async fn patch(&self, part: &str, body: &Value) -> Answer {
        self.call(Call::patch(&self.part(part)).value(body)).await
    }

    pub(crate) async fn keep(&self, key: &str, content: &[u8]) -> Answer {
        self.call(Call::put(&self.part(&format!("state/{key}"))).body(content)).await
    }
}
