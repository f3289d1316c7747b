//! Workspace sessions: creation, lists, changes, deletion, ownership.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    account::Device,
    client::{Answer, Call, call},
    folder::Folder,
    server::Running,
};

const SESSIONS: &str = "/api/v5/sessions";

/// A user with sessions.
struct Owner {
    server: SocketAddr,
    token: String,
}

impl Owner {
    async fn new(server: &Running, email: &str) -> Self {
        let device = Device::register(server.address, email).await;
        Self { server: server.address, token: device.token }
    }

    async fn call(&self, wanted: Call) -> Answer {
        call(self.server, wanted.bearer(&self.token)).await
    }

    async fn create(&self, body: Value) -> Value {
        let answer = self.call(Call::post(SESSIONS).value(&body)).await;
        assert_eq!(answer.status, 201, "{}", answer.json());
        answer.data()
    }

    /// Creates sessions with these names, in order, and returns their ids.
    async fn create_named(&self, names: &[&str]) -> Vec<Value> {
        let mut ids = Vec::new();
        for name in names {
            ids.push(self.create(json!({"name": name})).await["id"].take());
        }
        ids
    }

    async fn show(&self, id: &Value) -> Answer {
        self.call(Call::get(&path(id))).await
    }

    /// Returns the names on the page for `query`, and the next cursor.
    async fn page(&self, query: &str) -> (Vec<String>, Option<String>) {
        let answer = self.call(Call::get(&format!("{SESSIONS}{query}"))).await;
        assert_eq!(answer.status, 200, "{query} {}", answer.json());
        let body = answer.json();
        let names = body["data"].as_array().unwrap().iter();
        let names = names.map(|it| it["name"].as_str().unwrap().to_owned()).collect();
        (names, body["next_cursor"].as_str().map(str::to_owned))
    }

    /// Returns the names on all pages for `query`.
    async fn pages(&self, query: &str) -> Vec<Vec<String>> {
        let (names, mut next) = self.page(query).await;
        let mut pages = vec![names];
        while let Some(cursor) = next {
            let (names, after) = self.page(&format!("{query}&cursor={cursor}")).await;
            pages.push(names);
            next = after;
        }
        pages
    }
}

fn path(id: &Value) -> String {
    format!("{SESSIONS}/{}", id.as_str().unwrap())
}

#[tokio::test]
async fn session_is_created_on_either_route_with_defaults() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let me = owner.call(Call::get("/api/v5/auth/me")).await.data();
    for route in [SESSIONS, "/api/v5/sessions/create"] {
        let answer = owner.call(Call::post(route).value(&json!({"name": " My work "}))).await;
        assert_eq!(answer.status, 201);
        let made = answer.data();
        let location = format!("{SESSIONS}/{}", made["id"].as_str().unwrap());
        assert_eq!(answer.header("location"), Some(location.as_str()));
        assert_eq!(
            made,
            json!({
                "id": made["id"], "name": "My work", "type": "workspace",
                "tenant_id": me["tenant"]["id"], "user_id": me["user"]["id"],
                "workspace_path": null, "settings": {}, "conversation_id": null,
                "created_at": made["created_at"], "updated_at": made["created_at"],
                "last_accessed_at": made["created_at"],
            })
        );
        let id: uuid::Uuid = made["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(owner.show(&made["id"]).await.data(), made);
    }
}

#[tokio::test]
async fn given_fields_are_kept_in_both_spellings() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let settings =
        json!({"theme": "dark", "deep": {"list": [1, -2.5, null, "é\u{0}\n"]}, "": true});
    for spelling in ["workspacePath", "workspace_path"] {
        for kind in ["workspace", "ai-studio", "theia"] {
            let body = json!({"name": "n", "type": kind, spelling: "/w/é p", "settings": settings});
            let made = owner.create(body).await;
            let found = owner.show(&made["id"]).await.data();
            assert_eq!(found["type"], kind);
            assert_eq!(found["workspace_path"], "/w/é p");
            assert_eq!(found["settings"], settings);
        }
    }
    let both = json!({"name": "n", "workspacePath": "/a", "workspace_path": "/b"});
    let answer = owner.call(Call::post(SESSIONS).value(&both)).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "DUPLICATE_FIELD"));
}

#[tokio::test]
async fn owner_of_a_session_cannot_be_chosen_by_the_request() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let other = Owner::new(&server, "eve@example.org").await;
    let theirs = other.create(json!({"name": "theirs"})).await;
    let claim = json!({
        "name": "mine", "id": theirs["id"], "user_id": theirs["user_id"],
        "userId": theirs["user_id"], "tenant_id": theirs["tenant_id"],
        "tenantId": theirs["tenant_id"], "created_at": "1970-01-01T00:00:00.000Z",
    });
    let tenant = theirs["tenant_id"].as_str().unwrap();
    let spoofed = |call: Call| {
        call.header("X-Tenant-Id", tenant)
            .header("X-Auth-Tenant", tenant)
            .header("X-Auth-User", theirs["user_id"].as_str().unwrap())
    };
    let name = json!({"name": "mine"});
    let made = owner.call(spoofed(Call::post(SESSIONS)).value(&name)).await.data();
    let changed = owner.call(spoofed(Call::patch(&path(&made["id"]))).value(&name)).await.data();
    for session in [&made, &changed] {
        for field in ["id", "user_id", "tenant_id", "created_at"] {
            assert_ne!(session[field], claim[field], "{field}");
        }
    }
    for (field, value) in claim.as_object().unwrap().iter().filter(|(field, _)| *field != "name") {
        let claim = json!({"name": "mine", field: value});
        for call in [Call::post(SESSIONS), Call::patch(&path(&made["id"]))] {
            assert_eq!(owner.call(call.value(&claim)).await.code(), "UNKNOWN_FIELD", "{field}");
        }
    }
    assert_eq!(made["id"], changed["id"]);
    assert_eq!(owner.page("").await.0, ["mine"]);
    assert_eq!(other.page("").await.0, ["theirs"]);
}

#[tokio::test]
async fn sessions_are_listed_newest_first_in_contiguous_pages() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    assert_eq!(owner.page("").await, (vec![], None));
    let ids = owner.create_named(&["a", "b", "c", "d", "e"]).await;
    let all = ["e", "d", "c", "b", "a"];
    assert_eq!(owner.pages("?limit=200").await, [all]);
    for (limit, lengths) in
        [(1, vec![1, 1, 1, 1, 1]), (2, vec![2, 2, 1]), (3, vec![3, 2]), (5, vec![5])]
    {
        let pages = owner.pages(&format!("?limit={limit}")).await;
        let mut found: Vec<usize> = pages.iter().map(Vec::len).collect();
        found.retain(|length| *length > 0);
        assert_eq!(found, lengths);
        assert_eq!(pages.concat(), all);
    }
    // Insertions and deletions between pages do not move other items.
    let (first, cursor) = owner.page("?limit=2").await;
    assert_eq!(first, ["e", "d"]);
    owner.create_named(&["f"]).await;
    for gone in [&ids[3], &ids[1]] {
        assert_eq!(owner.call(Call::delete(&path(gone))).await.status, 204);
    }
    let next = format!("?limit=2&cursor={}", cursor.unwrap());
    assert_eq!(owner.page(&next).await.0, ["c", "a"]);
}

#[tokio::test]
async fn sessions_are_found_by_type_and_path_on_pages_too() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    for (name, kind, path) in [
        ("a", "theia", Some("/one")),
        ("b", "workspace", Some("/one")),
        ("c", "theia", Some("/one/sub")),
        ("d", "theia", None),
        ("e", "ai-studio", Some("/with space")),
        ("f", "theia", Some("/one")),
    ] {
        owner.create(json!({"name": name, "type": kind, "workspacePath": path})).await;
    }
    #[rustfmt::skip]
    let table = [
        ("?type=theia",                               vec!["f", "d", "c", "a"]),
        ("?type=workspace",                           vec!["b"]),
        ("?type=ai-studio",                           vec!["e"]),
        ("?workspace_path=/one",                      vec!["f", "b", "a"]),
        ("?workspacePath=/one",                       vec!["f", "b", "a"]),
        ("?workspace_path=%2Fwith%20space",           vec!["e"]),
        ("?workspace_path=/with+space",               vec!["e"]),
        ("?type=theia&workspace_path=/one",           vec!["f", "a"]),
        ("?type=ai-studio&workspace_path=/one",       vec![]),
        ("?workspace_path=",                          vec![]),
        ("?workspacePath=/one&type=workspace",        vec!["b"]),
    ];
    for (query, expected) in table {
        assert_eq!(owner.page(query).await, (names(&expected), None), "{query}");
        let small = format!("{query}&limit=1");
        assert_eq!(owner.pages(&small).await.concat(), names(&expected), "{query}");
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn cursor_of_another_list_is_refused() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let other = Owner::new(&server, "eve@example.org").await;
    for somebody in [&owner, &other] {
        somebody.create_named(&["a", "b", "c"]).await;
    }
    let of_all = owner.page("?limit=1").await.1.unwrap();
    let of_type = owner.page("?limit=1&type=workspace").await.1.unwrap();
    let of_other = other.page("?limit=1").await.1.unwrap();
    #[rustfmt::skip]
    let table = [
        format!("?type=workspace&cursor={of_all}"),
        format!("?type=theia&cursor={of_type}"),
        format!("?workspace_path=/&cursor={of_type}"),
        format!("?cursor={of_type}"),
        format!("?cursor={of_other}"),
        format!("?cursor={}", &of_all[1..]),
        format!("?cursor={}", "A".repeat(8_000)),
        "?cursor=".to_owned(),
        "?cursor=x".to_owned(),
        "?cursor=%00".to_owned(),
        "?cursor=null".to_owned(),
    ];
    for query in table {
        let answer = owner.call(Call::get(&format!("{SESSIONS}{query}"))).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "INVALID_CURSOR"), "{query}");
    }
}

#[tokio::test]
async fn ambiguous_query_is_refused_by_name() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    for (query, field) in [
        ("?limit=0", "limit"),
        ("?limit=201", "limit"),
        ("?limit=x", "limit"),
        ("?limit=-1", "limit"),
        ("?limit=", "limit"),
        ("?limit=1&limit=2", "limit"),
        ("?type=Workspace", "type"),
        ("?type=", "type"),
    ] {
        let answer = owner.call(Call::get(&format!("{SESSIONS}{query}"))).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "INVALID_QUERY"), "{query}");
        assert_eq!(answer.json()["error"]["fields"][0]["field"], field, "{query}");
    }
}

#[tokio::test]
async fn put_and_patch_change_only_named_members() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let begun = Call::post("/api/v5/conversations").value(&json!({}));
    let conversation = owner.call(begun).await.data()["id"].as_str().unwrap().to_owned();
    let settings = json!({"theme": "dark", "editor": {"tabs": 4, "wrap": true}});
    let body = json!({"name": "old", "type": "theia", "workspacePath": "/w", "settings": settings});
    // Each row: the request, and the resulting difference.
    #[rustfmt::skip]
    let table = [
        (json!({}),                                   json!({})),
        (json!({"name": "new"}),                      json!({"name": "new"})),
        (json!({"type": "ai-studio"}),                json!({"type": "ai-studio"})),
        (json!({"workspacePath": "/x"}),              json!({"workspace_path": "/x"})),
        (json!({"workspace_path": "/x"}),             json!({"workspace_path": "/x"})),
        (json!({"workspace_path": null}),             json!({"workspace_path": null})),
        (json!({"conversation_id": conversation}),    json!({"conversation_id": conversation})),
        (json!({"conversationId": conversation}),     json!({"conversation_id": conversation})),
        (json!({"conversation_id": null}),            json!({})),
        (json!({"settings": {}}),                     json!({})),
        (json!({"settings": null}),                   json!({"settings": {}})),
        (json!({"settings": {"theme": null}}),
         json!({"settings": {"editor": {"tabs": 4, "wrap": true}}})),
        (json!({"settings": {"editor": {"tabs": 2, "wrap": null, "font": "mono"}}}),
         json!({"settings": {"theme": "dark", "editor": {"tabs": 2, "font": "mono"}}})),
        (json!({"settings": {"editor": [1, null]}}),
         json!({"settings": {"theme": "dark", "editor": [1, null]}})),
    ];
    for method in ["PUT", "PATCH"] {
        for (patch, differs) in &table {
            let made = owner.create(body.clone()).await;
            let call = Call::new(method, &path(&made["id"])).value(patch);
            let answer = owner.call(call).await;
            assert_eq!(answer.status, 200, "{method} {patch}");
            let changed = answer.data();
            let mut expected = made.clone();
            for (name, value) in differs.as_object().unwrap() {
                expected[name] = value.clone();
            }
            expected["updated_at"] = changed["updated_at"].clone();
            assert_eq!(changed, expected, "{method} {patch}");
            assert!(changed["updated_at"].as_str() >= made["updated_at"].as_str());
            assert_eq!(owner.show(&made["id"]).await.data(), expected, "{method} {patch}");
        }
    }
    let made = owner.create(body).await;
    let stranger = Owner::new(&server, "eve@example.org").await;
    let theirs = Call::post("/api/v5/conversations").value(&json!({}));
    let theirs = stranger.call(theirs).await.data()["id"].clone();
    for foreign in [theirs, json!(uuid::Uuid::now_v7())] {
        let patch = Call::patch(&path(&made["id"])).value(&json!({"conversation_id": foreign}));
        let refused = owner.call(patch).await;
        assert_eq!(refused.status, 422);
        assert_eq!(refused.json()["error"]["fields"][0]["field"], "conversation_id");
    }
    let merge = Call::patch(&path(&made["id"]))
        .header("Content-Type", "application/merge-patch+json")
        .body(r#"{"name":"merged"}"#);
    assert_eq!(owner.call(merge).await.data()["name"], "merged");
}

#[tokio::test]
async fn changed_types_and_paths_are_found_by_their_new_values() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let made = owner.create(json!({"name": "n", "workspacePath": "/old"})).await;
    let change = json!({"type": "theia", "workspacePath": "/new"});
    owner.call(Call::put(&path(&made["id"])).value(&change)).await;
    assert_eq!(owner.page("?type=theia&workspace_path=/new").await.0, ["n"]);
    assert!(owner.page("?type=workspace").await.0.is_empty());
    assert!(owner.page("?workspace_path=/old").await.0.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_changes_of_several_members_all_apply() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let made = owner.create(json!({"name": "n"})).await;
    let changes = (0..20).map(|index| {
        let patch = json!({"settings": {format!("member-{index}"): index}});
        owner.call(Call::patch(&path(&made["id"])).value(&patch))
    });
    for answer in futures_util::future::join_all(changes).await {
        assert_eq!(answer.status, 200);
    }
    let settings = owner.show(&made["id"]).await.data()["settings"].take();
    assert_eq!(settings.as_object().unwrap().len(), 20);
}

#[tokio::test]
async fn deleted_session_is_not_found() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let ids = owner.create_named(&["kept", "gone"]).await;
    let gone = path(&ids[1]);
    let answer = owner.call(Call::delete(&gone)).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    for (method, body) in
        [("GET", None), ("PUT", Some("{}")), ("PATCH", Some("{}")), ("DELETE", None)]
    {
        let call = Call::new(method, &gone);
        let call = if let Some(body) = body { call.json(body) } else { call };
        let answer = owner.call(call).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"), "{method}");
    }
    assert_eq!(owner.page("").await.0, ["kept"]);
}

#[tokio::test]
async fn foreign_unknown_and_malformed_ids_get_the_same_404() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let other = Owner::new(&server, "eve@example.org").await;
    let theirs = other.create(json!({"name": "theirs"})).await;
    let id = theirs["id"].as_str().unwrap();
    let unknown = uuid::Uuid::now_v7().to_string();
    let longer = format!("{id}0");
    let ids = [id, &unknown, &longer, "x", "%00", "..%2Fsessions", "null", "%F0%9F%98%80"];
    for id in ids {
        let mut answers = Vec::new();
        for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE"] {
            let call = Call::new(method, &format!("{SESSIONS}/{id}"));
            let takes_body = matches!(method, "PUT" | "PATCH");
            let call = if takes_body { call.value(&json!({"name": "stolen"})) } else { call };
            let answer = owner.call(call).await;
            assert_eq!(answer.status, 404, "{method} {id}");
            if method != "HEAD" {
                assert_eq!(answer.code(), "NOT_FOUND", "{method} {id}");
                answers.push(answer.json()["error"]["message"].take());
            }
        }
        assert!(answers.iter().all(|message| *message == answers[0]), "{answers:?}");
    }
    assert!(owner.page("").await.0.is_empty());
    assert_eq!(other.show(&theirs["id"]).await.data(), theirs);
}

#[tokio::test]
async fn every_route_requires_a_token_first() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let made = owner.create(json!({"name": "n"})).await;
    let own = path(&made["id"]);
    let bad_id = format!("{SESSIONS}/x");
    let dead = Device::register(server.address, "gone@example.org").await;
    crate::account::logout(server.address, Some(&dead.token), &json!({})).await;
    let dead = format!("Bearer {}", dead.token);
    for (method, path, body) in [
        ("GET", "/api/v5/auth/me", None),
        ("POST", SESSIONS, Some(r#"{"name":"n"}"#)),
        ("POST", SESSIONS, Some(r#"{"name":"#)),
        ("POST", "/api/v5/sessions/create", Some(r#"{"name":"n"}"#)),
        ("GET", SESSIONS, None),
        ("GET", "/api/v5/sessions?limit=x", None),
        ("GET", &own, None),
        ("PUT", &own, Some(r#"{"name":"x"}"#)),
        ("PATCH", &own, Some(r#"{"name":7}"#)),
        ("DELETE", &own, None),
        ("GET", &bad_id, None),
        ("PUT", &bad_id, Some("{}")),
        ("DELETE", &bad_id, None),
    ] {
        for (authorization, challenge) in [
            (None, "Bearer"),
            (Some("Basic YTpi"), "Bearer"),
            (Some("Bearer"), r#"Bearer error="invalid_token""#),
            (Some("Bearer x.y.z"), r#"Bearer error="invalid_token""#),
            (Some(dead.as_str()), r#"Bearer error="invalid_token""#),
        ] {
            let wanted = Call::new(method, path);
            let wanted = if let Some(body) = body { wanted.json(body) } else { wanted };
            let wanted = match authorization {
                Some(value) => wanted.header("Authorization", value),
                None => wanted,
            };
            let answer = call(server.address, wanted).await;
            // Revocation is checked in the transaction of the work, so last.
            if answer.status != 401 && authorization == Some(dead.as_str()) {
                assert!(matches!(answer.status, 400 | 404 | 422), "{method} {path}");
                continue;
            }
            assert_eq!(answer.status, 401, "{method} {path} {authorization:?}");
            answer.code();
            assert_eq!(answer.header("www-authenticate"), Some(challenge));
        }
    }
    assert_eq!(owner.show(&made["id"]).await.data(), made);
    assert_eq!(owner.page("").await.0, ["n"]);
}

#[tokio::test]
async fn repeated_read_of_a_session_writes_nothing() {
    let server = Running::start(&[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let made = owner.create(json!({"name": "n"})).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    for _ in 0..3 {
        let shown = owner.show(&made["id"]).await.data();
        assert_eq!(shown["last_accessed_at"], made["last_accessed_at"]);
    }
}

#[tokio::test]
async fn sessions_survive_a_restart() {
    let folder = Folder::new();
    let server = Running::start_in(folder.path(), &[]).await;
    let owner = Owner::new(&server, "ada@example.org").await;
    let made = owner.create(json!({"name": "n", "settings": {"theme": "dark"}})).await;
    server.stopped().await;

    let server = Running::start_in(folder.path(), &[]).await;
    let owner = Owner { server: server.address, ..owner };
    assert_eq!(owner.show(&made["id"]).await.data(), made);
    assert_eq!(owner.page("").await.0, ["n"]);
    server.stopped().await;
}
