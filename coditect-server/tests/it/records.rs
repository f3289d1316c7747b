//! Conversations, agents, settings and the audit log: ownership and permissions.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    account::{Device, ME, REFRESH},
    client::{Answer, Call, call},
    server::Running,
    signed_in_session::SignedInSession,
};

const AGENTS: &str = "/api/v5/agents";
const AUDIT: &str = "/api/v5/audit";
const CONVERSATIONS: &str = "/api/v5/conversations";
const SETTINGS: &str = "/api/v5/settings";

/// A signed-in user.
pub(crate) struct Person {
    server: SocketAddr,
    device: Device,
}

impl Person {
    pub(crate) async fn new(server: &Running, email: &str) -> Self {
        let device = Device::register(server.address, email).await;
        Self { server: server.address, device }
    }

    /// Creates another user who is a member of this one's tenant.
    pub(crate) async fn member(&self, server: &Running, email: &str) -> Self {
        let other = Self::new(server, email).await;
        let body = json!({"email": email, "role": "member"});
        let invited = self.post("/api/v5/tenant/invitations", &body).await.data();
        let accept = json!({"token": invited["token"]});
        let joined = other.post("/api/v5/auth/invitations/accept", &accept).await.data();
        let there =
            json!({"refresh_token": other.device.refresh_token, "actIn": joined["tenant_id"]});
        let answer = call(server.address, Call::post(REFRESH).value(&there)).await;
        Self { device: Device::of(&answer), ..other }
    }

    pub(crate) async fn ask(&self, wanted: Call) -> Answer {
        call(self.server, wanted.bearer(&self.device.token)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Call::get(path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Call::post(path).value(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(Call::put(path).value(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Call::delete(path)).await
    }

    pub(crate) async fn id(&self) -> Value {
        self.get(ME).await.data()["user"]["id"].take()
    }

    /// Returns `field` of each item of a list, over all its pages of two.
    pub(crate) async fn all(&self, path: &str, field: &str) -> Vec<Value> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let answer = self.get(&format!("{path}{sign}limit=2{cursor}")).await;
            assert_eq!(answer.status, 200, "{path} {}", answer.json());
            let body = answer.json();
            found.extend(body["data"].as_array().unwrap().iter().map(|it| it[field].clone()));
            match body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    }
}

fn path(of: &str, made: &Value) -> String {
    format!("{of}/{}", made["id"].as_str().unwrap())
}

#[tokio::test]
async fn messages_are_listed_in_both_orders_during_writes() {
    let server = Running::start(&[]).await;
    let ada = Person::new(&server, "ada@example.org").await;
    let agent = ada.post(AGENTS, &json!({"name": "Helper"})).await.data();
    let begun = ada.post(CONVERSATIONS, &json!({"title": " Plans "})).await;
    assert_eq!((begun.status, begun.data()["title"].take()), (201, json!("Plans")));
    let messages = format!("{}/messages", path(CONVERSATIONS, &begun.data()));
    assert_eq!(ada.all(&messages, "content").await, Vec::<Value>::new());
    for n in 0..5 {
        let by = if n % 2 == 0 { Value::Null } else { agent["id"].clone() };
        let body = json!({"content": format!("m{n}"), "agentId": by, "metadata": {"n": n}});
        let said = ada.post(&messages, &body).await;
        assert_eq!(said.status, 201, "{}", said.json());
        let (kind, id) = if n % 2 == 0 { ("user", ada.id().await) } else { ("agent", by) };
        assert_eq!(said.data()["author"], json!({"type": kind, "id": id}));
        assert_eq!(said.data()["metadata"], json!({"n": n}));
    }
    assert_eq!(ada.all(&messages, "content").await, ["m0", "m1", "m2", "m3", "m4"]);
    let rev = format!("{messages}?order=desc");
    assert_eq!(ada.all(&rev, "content").await, ["m4", "m3", "m2", "m1", "m0"]);

    let back = ada.get(&format!("{rev}&limit=3")).await.json();
    let on = ada.get(&format!("{messages}?limit=4")).await.json();
    let speaking = (0..20).map(|n| {
        let (ada, messages) = (&ada, &messages);
        async move { ada.post(messages, &json!({"content": format!("late {n}")})).await.status }
    });
    let statuses = futures_util::future::join_all(speaking).await;
    assert!(statuses.iter().all(|status| *status == 201), "{statuses:?}");
    let next = |page: &Value| page["next_cursor"].as_str().unwrap().to_owned();
    let rest = ada.get(&format!("{rev}&cursor={}", next(&back))).await.data();
    assert_eq!(rest.as_array().unwrap().len(), 2);
    let rest = ada.get(&format!("{messages}?limit=200&cursor={}", next(&on))).await.data();
    assert_eq!((rest.as_array().unwrap().len(), &rest[0]["content"]), (21, &json!("m4")));

    assert_eq!(ada.delete(&path(AGENTS, &agent)).await.status, 204);
    let kept = ada.get(&format!("{messages}?limit=2")).await.data();
    assert_eq!(kept[1]["author"]["id"], agent["id"], "what it has said stays");
    assert_eq!(ada.delete(&path(CONVERSATIONS, &begun.data())).await.status, 204);
    assert_eq!(ada.get(&messages).await.status, 404);
    assert_eq!(ada.post(&messages, &json!({"content": "x"})).await.status, 404);
}

#[tokio::test]
async fn conversations_are_listed_by_session_and_renamed() {
    let server = Running::start(&[]).await;
    let ada = Person::new(&server, "ada@example.org").await;
    let session = ada.post("/api/v5/sessions", &json!({"name": "work"})).await.data();
    let session = session["id"].as_str().unwrap();
    for body in [
        json!({"title": "a"}),
        json!({"title": "b", "sessionId": session}),
        json!({"title": "c", "session_id": session}),
        json!({}),
    ] {
        assert_eq!(ada.post(CONVERSATIONS, &body).await.status, 201, "{body}");
    }
    assert_eq!(ada.all(CONVERSATIONS, "title").await, ["", "c", "b", "a"]);
    let of_session = format!("{CONVERSATIONS}?session_id={session}");
    assert_eq!(ada.all(&of_session, "title").await, ["c", "b"]);

    let newest = ada.get(CONVERSATIONS).await.data()[0].take();
    let one = path(CONVERSATIONS, &newest);
    let tag = ada.get(&one).await.header("etag").unwrap().to_owned();
    let rename = |tag: &str, title| {
        Call::patch(&one).header("If-Match", tag).value(&json!({"title": title}))
    };
    let renamed = ada.ask(rename(&tag, "new")).await;
    assert_eq!((renamed.status, renamed.data()["title"].take()), (200, json!("new")));
    assert_eq!(ada.ask(rename(&tag, "newer")).await.code(), "PRECONDITION_FAILED");
    let seen = Call::get(&one).header("If-None-Match", renamed.header("etag").unwrap());
    assert_eq!(ada.ask(seen).await.status, 304);
    assert_eq!(ada.put(&one, &json!({"title": null})).await.data()["title"], "");
}

#[tokio::test]
async fn conversation_of_another_user_is_not_found() {
    let server = Running::start(&[]).await;
    let ada = Person::new(&server, "ada@example.org").await;
    let stranger = Person::new(&server, "eve@example.org").await;
    let member = ada.member(&server, "bob@example.org").await;
    let session = ada.post("/api/v5/sessions", &json!({"name": "work"})).await.data();
    let begun = json!({"title": "mine", "session_id": session["id"]});
    let one = path(CONVERSATIONS, &ada.post(CONVERSATIONS, &begun).await.data());
    let messages = format!("{one}/messages");
    ada.post(&messages, &json!({"content": "hush"})).await;
    for other in [&stranger, &member] {
        for answer in [
            other.get(&one).await,
            other.put(&one, &json!({"title": "x"})).await,
            other.delete(&one).await,
            other.get(&messages).await,
            other.post(&messages, &json!({"content": "x"})).await,
        ] {
            assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"));
        }
        let refused = other.post(CONVERSATIONS, &begun).await;
        assert_eq!(refused.status, 422);
        assert_eq!(refused.json()["error"]["fields"][0]["field"], "session_id");
        let of_session = format!("{CONVERSATIONS}?session_id={}", session["id"].as_str().unwrap());
        assert_eq!(other.all(&of_session, "title").await, Vec::<Value>::new());
    }
    assert_eq!(ada.all(&messages, "content").await, ["hush"]);
}

#[tokio::test]
async fn agents_belong_to_the_tenant_and_are_managed_by_admins() {
    let server = Running::start(&[]).await;
    let ada = Person::new(&server, "ada@example.org").await;
    let member = ada.member(&server, "bob@example.org").await;
    let stranger = Person::new(&server, "eve@example.org").await;
    let new = json!({"name": "Helper", "description": "helps\nall", "settings": {"a": {"b": 1}}});
    let made = ada.post(AGENTS, &new).await;
    assert_eq!(made.status, 201);
    let (one, tag) = (path(AGENTS, &made.data()), made.header("etag").unwrap().to_owned());
    assert_eq!(made.header("location"), Some(one.as_str()));
    assert_eq!(ada.post(AGENTS, &json!({"name": " Helper "})).await.status, 409);
    for name in ["b", "c"] {
        assert_eq!(ada.post(AGENTS, &json!({"name": name})).await.status, 201);
    }
    assert_eq!(member.all(AGENTS, "name").await, ["Helper", "b", "c"]);
    assert_eq!(member.get(&one).await.data(), made.data());
    for refused in [
        member.post(AGENTS, &json!({"name": "d"})).await,
        member.put(&one, &json!({"name": "d"})).await,
        member.delete(&one).await,
    ] {
        assert_eq!((refused.status, refused.code().as_str()), (403, "FORBIDDEN"));
    }
    assert_eq!(stranger.all(AGENTS, "name").await, Vec::<Value>::new());
    for refused in [
        stranger.get(&one).await,
        stranger.put(&one, &json!({"name": "d"})).await,
        stranger.delete(&one).await,
    ] {
        assert_eq!(refused.code(), "NOT_FOUND");
    }
    let merge = json!({"description": null, "settings": {"a": {"b": null, "c": 2}}});
    let changed = ada.ask(Call::patch(&one).header("If-Match", &tag).value(&merge)).await.data();
    assert_eq!(changed["settings"], json!({"a": {"c": 2}}));
    assert_eq!((&changed["name"], &changed["description"]), (&json!("Helper"), &json!("")));
    assert_eq!(ada.put(&one, &json!({"name": "b"})).await.status, 409);
    assert_eq!(ada.ask(Call::delete(&one).header("If-Match", &tag)).await.status, 412);
    assert_eq!(ada.delete(&one).await.status, 204);
    assert_eq!(ada.delete(&one).await.status, 404);
}

#[tokio::test]
async fn settings_of_a_user_override_those_of_the_tenant() {
    let server = Running::start(&[]).await;
    let ada = Person::new(&server, "ada@example.org").await;
    let member = ada.member(&server, "bob@example.org").await;
    let stranger = Person::new(&server, "eve@example.org").await;
    let theme = format!("{SETTINGS}/theme");
    let of_all = format!("{theme}?scope=tenant");
    assert_eq!(member.put(&of_all, &json!({"value": "x"})).await.code(), "FORBIDDEN");
    assert_eq!(ada.put(&of_all, &json!({"value": "dark"})).await.status, 200);
    let shown = member.get(&theme).await;
    assert_eq!(
        (&shown.data()["value"], &shown.data()["scope"]),
        (&json!("dark"), &json!("tenant"))
    );
    let own = member.put(&theme, &json!({"value": {"deep": [null]}})).await.data();
    assert_eq!((&own["value"], &own["scope"]), (&json!({"deep": [null]}), &json!("user")));
    assert_eq!(member.get(&theme).await.data(), own);
    assert_eq!(member.get(&of_all).await.data()["value"], "dark");
    assert_eq!(ada.get(&theme).await.data()["value"], "dark");
    assert_eq!(member.put(&format!("{SETTINGS}/a%2Fb"), &json!({"value": null})).await.status, 200);
    let all = member.get(SETTINGS).await.data();
    let keys: Vec<_> = all.as_array().unwrap().iter().map(|it| &it["key"]).collect();
    assert_eq!(keys, ["a/b", "theme"]);
    assert_eq!(all[1], own);

    let tag = shown.header("etag").unwrap();
    let guarded = |name, tag| Call::put(&theme).header(name, tag).value(&json!({"value": 1}));
    assert_eq!(member.ask(guarded("If-Match", tag)).await.status, 412);
    assert_eq!(member.ask(guarded("If-None-Match", "*")).await.status, 412);
    assert_eq!(ada.ask(guarded("If-None-Match", "*")).await.status, 200);
    assert_eq!(member.delete(&of_all).await.code(), "FORBIDDEN");
    assert_eq!(member.delete(&theme).await.status, 204);
    assert_eq!(member.delete(&theme).await.status, 404);
    assert_eq!(member.get(&theme).await.data()["value"], "dark");
    assert_eq!(stranger.get(&theme).await.status, 404);
    assert_eq!(stranger.get(SETTINGS).await.data(), json!([]));

    for n in 0..198 {
        let set = member.put(&format!("{SETTINGS}/k{n}"), &json!({"value": n})).await;
        assert_eq!(set.status, 200, "{n}");
    }
    let last = member.put(&theme, &json!({"value": 1})).await;
    assert_eq!(
        (last.status, member.get(SETTINGS).await.data().as_array().unwrap().len()),
        (200, 200)
    );
    assert_eq!(member.put(&format!("{SETTINGS}/more"), &json!({"value": 1})).await.status, 422);
    assert_eq!(member.put(&theme, &json!({"value": 2})).await.status, 200);
}

#[tokio::test]
async fn tenant_is_renamed_by_owners_and_admins() {
    const TENANT: &str = "/api/v5/tenant";
    let server = Running::start(&[]).await;
    let ada = Person::new(&server, "ada@example.org").await;
    let member = ada.member(&server, "bob@example.org").await;
    let stranger = Person::new(&server, "eve@example.org").await;
    let before = ada.get(TENANT).await;
    let tag = before.header("etag").unwrap();
    assert_eq!(before.data(), ada.get(ME).await.data()["tenant"]);
    assert_eq!(member.get(TENANT).await.data(), before.data());
    let rename = |name: Value| Call::patch(TENANT).value(&json!({"name": name}));
    assert_eq!(member.ask(rename(json!("x"))).await.code(), "FORBIDDEN");
    for wrong in [json!(""), json!("a\nb"), json!("x".repeat(201)), json!(null), json!(7)] {
        let refused = ada.ask(rename(wrong)).await;
        assert_eq!(refused.status, 422);
        assert_eq!(refused.json()["error"]["fields"][0]["field"], "name");
    }
    assert_eq!(ada.ask(rename(json!("x")).header("If-Match", "\"x\"")).await.status, 412);
    assert_eq!(ada.get(TENANT).await.data(), before.data());
    let renamed = ada.ask(rename(json!(" Ours ")).header("If-Match", tag)).await.data();
    assert_eq!((&renamed["name"], &renamed["id"]), (&json!("Ours"), &before.data()["id"]));
    assert_eq!(member.get(TENANT).await.data(), renamed);
    assert_ne!(stranger.get(TENANT).await.data()["id"], renamed["id"]);
    assert_eq!(ada.ask(Call::get(TENANT).header("If-None-Match", tag)).await.status, 200);
}

#[tokio::test]
async fn audit_log_is_for_owners_newest_first() {
    let server = Running::start(&[]).await;
    let ada = Person::new(&server, "ada@example.org").await;
    let member = ada.member(&server, "bob@example.org").await;
    let stranger = Person::new(&server, "eve@example.org").await;
    assert_eq!(member.get(AUDIT).await.code(), "FORBIDDEN");
    let all = ada.get(&format!("{AUDIT}?limit=200")).await.data();
    let all = all.as_array().unwrap();
    assert!(all.len() >= 3, "{all:?}");
    let mut times: Vec<_> = all.iter().map(|entry| entry["at"].as_str().unwrap()).collect();
    times.reverse();
    assert!(times.is_sorted(), "{times:?}");
    let actions: Vec<_> = all.iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(ada.all(AUDIT, "action").await, actions);
    for wanted in &actions {
        let wanted = wanted.as_str().unwrap();
        let found = ada.all(&format!("{AUDIT}?action={wanted}"), "action").await;
        let expected = actions.iter().filter(|action| **action == *wanted).count();
        assert_eq!(
            (found.len(), found.iter().all(|it| it == wanted)),
            (expected, true),
            "{wanted}"
        );
    }
    let ada_id = ada.id().await;
    for actor in [&ada_id, &member.id().await] {
        let found = ada.all(&format!("{AUDIT}?actor={}", actor.as_str().unwrap()), "actor").await;
        let expected = all.iter().filter(|entry| entry["actor"] == *actor).count();
        assert_eq!((found.len(), found.iter().all(|it| it == actor)), (expected, true));
        assert!(expected > 0, "{actor} has done something");
    }
    let oldest = times[0];
    assert_eq!(ada.all(&format!("{AUDIT}?until={oldest}"), "at").await, Vec::<Value>::new());
    assert_eq!(ada.all(&format!("{AUDIT}?since={oldest}"), "at").await.len(), all.len());
    let elsewhere = stranger.get(&format!("{AUDIT}?actor={}", ada_id.as_str().unwrap())).await;
    assert_eq!(elsewhere.data(), json!([]));
}

#[tokio::test]
async fn invalid_records_are_refused_by_field() {
    let server = Running::start(&[]).await;
    let ada = Person::new(&server, "ada@example.org").await;
    let conversation = path(CONVERSATIONS, &ada.post(CONVERSATIONS, &json!({})).await.data());
    let messages = &format!("{conversation}/messages");
    let agent = &path(AGENTS, &ada.post(AGENTS, &json!({"name": "a"})).await.data());
    let setting = &format!("{SETTINGS}/k");
    let nobody = uuid::Uuid::now_v7().to_string();
    let long = |bytes| "x".repeat(bytes);
    #[rustfmt::skip]
    let table = [
        ("POST", CONVERSATIONS, json!({"title": long(201)}), "title"),
        ("POST", CONVERSATIONS, json!({"title": "a\nb"}), "title"),
        ("POST", CONVERSATIONS, json!({"session_id": nobody}), "session_id"),
        ("POST", CONVERSATIONS, json!({"session_id": 7}), "session_id"),
        ("PUT",  &conversation, json!({"title": 7}), "title"),
        ("POST", messages,      json!({}), "content"),
        ("POST", messages,      json!({"content": ""}), "content"),
        ("POST", messages,      json!({"content": long(65_537)}), "content"),
        ("POST", messages,      json!({"content": "x", "agent_id": nobody}), "agent_id"),
        ("POST", messages,      json!({"content": "x", "metadata": [1]}), "metadata"),
        ("POST", messages,      json!({
            "content": "x",
            "metadata": {"a": long(16_384)},
        }), "metadata"),
        ("POST", AGENTS,        json!({}), "name"),
        ("POST", AGENTS,        json!({"name": " "}), "name"),
        ("POST", AGENTS,        json!({"name": "x", "description": long(2_001)}), "description"),
        ("POST", AGENTS,        json!({"name": "x", "settings": {"a": long(65_536)}}), "settings"),
        ("PUT",  agent,         json!({"name": null}), "name"),
        ("PUT",  agent,         json!({"settings": {"a": long(65_536)}}), "settings"),
        ("PUT",  setting,       json!({}), "value"),
        ("PUT",  setting,       json!({"value": long(8_192)}), "value"),
    ];
    for (method, path, body, field) in table {
        let answer = ada.ask(Call::new(method, path).value(&body)).await;
        assert_eq!(answer.status, 422, "{method} {path} {}", answer.json());
        answer.code();
        assert_eq!(answer.json()["error"]["fields"][0]["field"], field, "{method} {path}");
    }
    for (query, field) in [
        (format!("{AUDIT}?actor=x"), "actor"),
        (format!("{AUDIT}?since=yesterday"), "since"),
        (format!("{AUDIT}?until="), "until"),
        (format!("{messages}?order=up"), "order"),
        (format!("{CONVERSATIONS}?session_id=x"), "session_id"),
        (format!("{setting}?scope=all"), "scope"),
    ] {
        let answer = ada.get(&query).await;
        assert_eq!(answer.code(), "INVALID_QUERY", "{query}");
        assert_eq!(answer.json()["error"]["fields"][0]["field"], field, "{query}");
    }
    assert_eq!(ada.all(messages, "id").await, Vec::<Value>::new());
    assert_eq!(ada.all(AGENTS, "name").await, ["a"]);
    assert_eq!(ada.get(SETTINGS).await.data(), json!([]));
    let most = json!({"content": long(65_536), "metadata": {"a": long(16_000)}});
    assert_eq!(ada.post(messages, &most).await.status, 201);
    for at in [CONVERSATIONS, AGENTS, SETTINGS, AUDIT, messages] {
        assert_eq!(call(server.address, Call::get(at)).await.status, 401, "{at}");
    }
}

#[tokio::test]
async fn settings_are_limited_in_total_size() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let value = json!({"value": "x".repeat(8_000)});
    let mut refused = None;
    for number in 0..100 {
        let path = format!("/api/v5/settings/s{number}");
        let set = signed_in.call(Call::put(&path).value(&value)).await;
        if set.status != 200 {
            refused = Some(set);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (422, "TOO_LARGE"));
    let all = signed_in.call(Call::get("/api/v5/settings")).await;
    assert!(all.body.len() < 600_000, "{}", all.body.len());
    let smaller =
        signed_in.call(Call::put("/api/v5/settings/s1").value(&json!({"value": 1}))).await;
    assert_eq!(smaller.status, 200);
}

#[tokio::test]
async fn deleted_conversation_is_removed_from_its_session() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let begun = signed_in.call(Call::post("/api/v5/conversations").value(&json!({}))).await.data();
    let linked = signed_in.patch("", &json!({"conversation_id": begun["id"]})).await;
    assert_eq!((linked.status, &linked.data()["conversation_id"]), (200, &begun["id"]));
    let tag = linked.header("etag").unwrap().to_owned();
    let path = format!("/api/v5/conversations/{}", begun["id"].as_str().unwrap());
    assert_eq!(signed_in.call(Call::delete(&path)).await.status, 204);
    let session = signed_in.get("").await;
    assert_eq!(session.data()["conversation_id"], Value::Null);
    assert_ne!(session.header("etag"), Some(tag.as_str()));
}
