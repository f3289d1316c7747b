//! The end of WebSockets: the closing handshake, and revocation.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

use crate::{
    account::{Device, LOGIN, ME, PASSWORD, REFRESH},
    client::{Call, PATIENCE, call},
    server::Running,
    signed_in_session::SignedInSession,
    socket::{Asking, Socket},
};

#[tokio::test]
async fn close_frame_of_a_client_is_answered() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    for close in [None, Some((1000, "bye")), Some((4000, "")), Some((1001, "a page that leaves"))] {
        let (mut socket, _) = Socket::open(&signed_in, "tab").await;
        socket.update("memory", 1, json!({"k": 1})).await;
        socket.expect("ack").await;
        let frame = close.map(|(code, reason): (u16, &str)| CloseFrame {
            code: code.into(),
            reason: reason.into(),
        });
        socket.0.send(Message::Close(frame.clone())).await.unwrap();
        let reply = timeout(PATIENCE, socket.0.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(reply, Message::Close(frame));
        assert!(timeout(PATIENCE, socket.0.next()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn close_frame_after_an_update_is_answered_when_the_update_is_done() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut socket, _) = Socket::open(&signed_in, "tab").await;
    let update = json!({"type": "memory.update", "seq": 1, "data": {"k": 1}});
    socket.0.feed(Message::text(update.to_string())).await.unwrap();
    socket.0.send(Message::Close(None)).await.unwrap();
    let reply = loop {
        match timeout(PATIENCE, socket.0.next()).await.unwrap().unwrap().unwrap() {
            Message::Text(_) => {}
            other => break other,
        }
    };
    assert_eq!(reply, Message::Close(None));
    assert_eq!(signed_in.get("memory").await.data(), json!({"k": 1}));
}

#[tokio::test]
async fn close_reaches_a_client_that_is_still_sending() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut socket, _) = Socket::open(&signed_in, "tab").await;
    let sending = socket.0.send(Message::text("x".repeat(900_000)));
    // It may be closed before everything was sent.
    let _sent = timeout(PATIENCE, sending).await.unwrap();
    assert_eq!(socket.closed().await, 1009);
    assert!(timeout(PATIENCE, socket.0.next()).await.unwrap().is_none());
}

/// Makes `guest` a member of the tenant of `owner`, with an invitation accepted with `guest`'s
/// token.
async fn join(server: SocketAddr, owner: &str, guest: &str, email: &str) {
    let invitation = json!({"email": email, "role": "admin"});
    let invite = Call::post("/api/v5/tenant/invitations").bearer(owner).value(&invitation);
    let token = call(server, invite).await.data()["token"].clone();
    let accept = Call::post("/api/v5/auth/invitations/accept").bearer(guest);
    assert_eq!(call(server, accept.value(&json!({"token": token}))).await.status, 200);
}

async fn by_ticket(signed_in: &SignedInSession) -> Socket {
    let ticket = signed_in.call(Call::post("/api/v5/auth/tickets")).await.data();
    let protocols = format!("coditect.v1, ticket.{}", ticket["ticket"].as_str().unwrap());
    let mut socket =
        Asking::of(signed_in).header("sec-websocket-protocol", &protocols).open().await;
    socket.expect("restore").await;
    socket
}

#[tokio::test]
async fn socket_by_ticket_stays_in_the_tenant_of_its_token() {
    let server = Running::start(&[]).await;
    let address = server.address;
    let owner = Device::register(address, "owner@example.org").await;
    let mut signed_in = SignedInSession::new(&server, "guest@example.org").await;
    let device = Device::login(address, "guest@example.org").await;
    signed_in.token.clone_from(&device.token);
    join(address, &owner.token, &device.token, "guest@example.org").await;
    let mut socket = by_ticket(&signed_in).await;
    let tenant =
        call(address, Call::get(ME).bearer(&owner.token)).await.data()["tenant"]["id"].clone();
    // Another tab of the same login changes the active tenant.
    let body = json!({"refresh_token": device.refresh_token, "active_tenant": tenant});
    assert_eq!(call(address, Call::post(REFRESH).value(&body)).await.status, 200);
    socket.update("memory", 1, json!({"k": 1})).await;
    assert_eq!(socket.expect("ack").await["seq"], 1);
    let mut again = by_ticket(&signed_in).await;
    again.update("memory", 1, json!({"k": 2})).await;
    again.expect("ack").await;
    assert_eq!(signed_in.get("memory").await.data(), json!({"k": 2}));
}

#[tokio::test]
async fn sockets_of_a_removed_member_are_closed_at_once() {
    let server = Running::start(&[]).await;
    let address = server.address;
    let owner = Device::register(address, "owner@example.org").await;
    let member = Device::register(address, "member@example.org").await;
    join(address, &owner.token, &member.token, "member@example.org").await;
    let tenant =
        call(address, Call::get(ME).bearer(&owner.token)).await.data()["tenant"]["id"].clone();
    let login =
        json!({"email": "member@example.org", "password": PASSWORD, "active_tenant": tenant});
    let there = call(address, Call::post(LOGIN).value(&login)).await.data();
    let token = there["token"].as_str().unwrap().to_owned();
    let made = Call::post("/api/v5/sessions").bearer(&token).value(&json!({"name": "there"}));
    let path =
        format!("/api/v5/sessions/{}", call(address, made).await.data()["id"].as_str().unwrap());
    let signed_in = SignedInSession { server: address, token, path };
    let program = json!({"name": "ci", "scopes": ["read", "write"]});
    let program = signed_in.call(Call::post("/api/v5/auth/tokens").value(&program)).await.data();
    let program = program["token"].as_str().unwrap().to_owned();

    let (mut by_token, _) = Socket::open(&signed_in, "token").await;
    let mut by_ticket = by_ticket(&signed_in).await;
    let mut by_program = Asking::of(&signed_in).bearer(&program).open().await;
    by_program.expect("restore").await;
    let (mut writes, _) = Socket::open(&signed_in, "writes").await;
    let id = there["user"]["id"].as_str().unwrap();
    let remove = Call::delete(&format!("/api/v5/tenant/members/{id}")).bearer(&owner.token);
    let removed_at = std::time::Instant::now();
    assert_eq!(call(address, remove).await.status, 204);
    writes.update("memory", 1, json!({"k": 1})).await;
    for socket in [&mut writes, &mut by_token, &mut by_ticket, &mut by_program] {
        assert_eq!(socket.closed().await, 4401);
    }
    assert!(removed_at.elapsed() < Duration::from_secs(10), "{:?}", removed_at.elapsed());
}

#[tokio::test]
async fn socket_of_a_revoked_personal_token_is_closed_at_once() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let program = json!({"name": "ci", "scopes": ["read", "write"]});
    let program = signed_in.call(Call::post("/api/v5/auth/tokens").value(&program)).await.data();
    let mut socket = Asking::of(&signed_in).bearer(program["token"].as_str().unwrap()).open().await;
    socket.expect("restore").await;
    let revoked_at = std::time::Instant::now();
    let path = format!("/api/v5/auth/tokens/{}", program["id"].as_str().unwrap());
    assert_eq!(signed_in.call(Call::delete(&path)).await.status, 204);
    assert_eq!(socket.closed().await, 4401);
    assert!(revoked_at.elapsed() < Duration::from_secs(10), "{:?}", revoked_at.elapsed());
}

#[tokio::test]
async fn sockets_of_other_logins_are_closed_at_once_when_all_are_revoked() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let other = Device::login(server.address, "ada@example.org").await;
    let elsewhere =
        SignedInSession { token: other.token, path: signed_in.path.clone(), ..signed_in };
    let (mut stays, _) = Socket::open(&signed_in, "stays").await;
    let (mut by_token, _) = Socket::open(&elsewhere, "token").await;
    let mut by_ticket = by_ticket(&elsewhere).await;
    let revoked_at = std::time::Instant::now();
    let ended = signed_in.call(Call::delete("/api/v5/auth/sessions")).await.data();
    assert_eq!(ended["ended"], 1);
    for socket in [&mut by_token, &mut by_ticket] {
        assert_eq!(socket.closed().await, 4401);
    }
    assert!(revoked_at.elapsed() < Duration::from_secs(10), "{:?}", revoked_at.elapsed());
    stays.update("memory", 1, json!({"k": 1})).await;
    stays.expect("ack").await;
}
