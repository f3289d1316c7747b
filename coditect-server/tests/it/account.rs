//! Accounts and tokens for tests.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::client::{Answer, Call, call};

/// Default password of test accounts.
pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) const REGISTER: &str = "/api/v5/auth/register";
pub(crate) const LOGIN: &str = "/api/v5/auth/login";
pub(crate) const REFRESH: &str = "/api/v5/auth/refresh";
pub(crate) const LOGOUT: &str = "/api/v5/auth/logout";
pub(crate) const ME: &str = "/api/v5/auth/me";

/// A signed-in device.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) token: String,
    pub(crate) refresh_token: String,
}

impl Device {
    /// Reads the tokens from the response to a registration, login or refresh.
    pub(crate) fn of(answer: &Answer) -> Self {
        assert!(matches!(answer.status, 200 | 201), "{}", answer.json());
        let data = answer.data();
        let text = |name: &str| data[name].as_str().unwrap().to_owned();
        Self { token: text("token"), refresh_token: text("refresh_token") }
    }

    pub(crate) async fn register(server: SocketAddr, email: &str) -> Self {
        Self::of(&call(server, credentials(REGISTER, email, PASSWORD)).await)
    }

    pub(crate) async fn login(server: SocketAddr, email: &str) -> Self {
        Self::of(&call(server, credentials(LOGIN, email, PASSWORD)).await)
    }

    /// Returns the device after a refresh.
    pub(crate) async fn refreshed(&self, server: SocketAddr) -> Self {
        Self::of(&refresh(server, &self.refresh_token).await)
    }

    /// Returns the active tenant.
    pub(crate) async fn tenant(&self, server: SocketAddr) -> Value {
        me(server, &self.token).await.data()["tenant"]["id"].clone()
    }

    /// Asserts that the access token, and so the session, is valid.
    pub(crate) async fn expect_alive(&self, server: SocketAddr) {
        assert_eq!(me(server, &self.token).await.status, 200);
    }

    /// Asserts that both tokens are refused with `code`.
    pub(crate) async fn expect_dead(&self, server: SocketAddr, code: &str) {
        for refused in [me(server, &self.token).await, refresh(server, &self.refresh_token).await] {
            assert_eq!((refused.status, refused.code().as_str()), (401, code));
            assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"));
        }
    }
}

/// Returns a registration or login request.
pub(crate) fn credentials(path: &str, email: &str, password: &str) -> Call {
    Call::post(path).value(&json!({"email": email, "password": password}))
}

pub(crate) async fn refresh(server: SocketAddr, token: &str) -> Answer {
    call(server, Call::post(REFRESH).value(&json!({"refresh_token": token}))).await
}

pub(crate) async fn me(server: SocketAddr, token: &str) -> Answer {
    call(server, Call::get(ME).bearer(token)).await
}

/// Signs out with an access token, or with a refresh token in the body.
pub(crate) async fn logout(server: SocketAddr, token: Option<&str>, body: &Value) -> Answer {
    let logout = Call::post(LOGOUT).value(body);
    call(server, if let Some(token) = token { logout.bearer(token) } else { logout }).await
}
