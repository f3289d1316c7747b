//! Session state over HTTP.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    client::{Call, call},
    folder::Folder,
    server::Running,
    signed_in_session::SignedInSession,
};

fn tab(path: &str, line: u32) -> Value {
    json!({
        "path": path, "cursor": {"line": line, "column": 6}, "pinned": false, "view_state": null,
        "selections": [{"anchor": {"line": 1, "column": 2}, "active": {"line": 1, "column": 9}}],
    })
}

fn editor() -> Value {
    json!({
        "tabs": [tab("src/main.rs", 120), tab("é b.txt", 0)], "active_tab": 1,
        "layout": {"split": [0.5, null]},
    })
}

fn terminal() -> Value {
    json!({"active": "main", "terminals": {"main": {
        "title": "zsh", "cwd": "/workspace/p/src", "command_history": ["npm install", "ls"],
        "environment_vars": {"LANG": "C.UTF-8"},
    }}})
}

#[tokio::test]
async fn restore_returns_the_saved_state() {
    let folder = Folder::new();
    let server = Running::start_in(folder.path(), &[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let empty = signed_in.get("restore").await.data();
    assert_eq!(empty["editor_state"], json!({"tabs": [], "active_tab": null, "layout": null}));
    assert_eq!(empty["terminal_state"], json!({"active": null, "terminals": {}}));
    assert_eq!((&empty["active_files"], &empty["client_state"]), (&json!([]), &json!([])));
    assert_eq!(empty["session_memory"], json!({}));

    let memory = json!({"goal": {"step": 3, "why": null}, "nothing": null, "é": "\n"});
    for (part, state) in [("editor", editor()), ("terminal", terminal())] {
        let saved = signed_in.put(part, &state).await;
        assert_eq!((saved.status, saved.data()), (200, state));
    }
    assert_eq!(signed_in.put("memory", &memory).await.data(), memory);
    assert_eq!(signed_in.keep("layout", b"\x00\xff theia").await.status, 200);
    server.stop().await.unwrap();

    let server = Running::start_in(folder.path(), &[]).await;
    let signed_in = SignedInSession { server: server.address, ..signed_in };
    let found = signed_in.get("restore").await.data();
    assert_eq!(found["session"], signed_in.get("").await.data());
    assert_eq!(found["editor_state"], editor());
    assert_eq!(found["terminal_state"], terminal());
    assert_eq!(found["active_files"], json!(["src/main.rs", "é b.txt"]));
    assert_eq!(found["session_memory"], memory);
    assert_eq!(found["client_state"], json!([{"key": "layout", "version": 1}]));
    assert_eq!(found["conversation_id"], Value::Null);
    assert_eq!(signed_in.get("state/layout").await.body, b"\x00\xff theia");
}

#[tokio::test]
async fn patch_merges_and_put_replaces() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    signed_in.put("terminal", &terminal()).await;
    let change = json!({"terminals": {"main": {"cwd": "/tmp"}, "second": {"title": "b"}}});
    let changed = signed_in.patch("terminal", &change).await.data();
    let mut expected = terminal();
    expected["terminals"]["main"]["cwd"] = json!("/tmp");
    expected["terminals"]["second"] =
        json!({"title": "b", "cwd": "", "command_history": [], "environment_vars": {}});
    assert_eq!(changed, expected);
    let removed = signed_in.patch("terminal", &json!({"terminals": {"main": null}})).await.data();
    assert_eq!(removed["terminals"].as_object().unwrap().len(), 1);
    assert_eq!(signed_in.get("terminal").await.data(), removed);

    signed_in.put("editor", &editor()).await;
    let kept = signed_in.patch("editor", &json!({"active_tab": null})).await.data();
    assert_eq!((&kept["tabs"], &kept["active_tab"]), (&editor()["tabs"], &Value::Null));
    let replaced = signed_in.put("editor", &json!({"tabs": [{"path": "a"}]})).await.data();
    assert_eq!(replaced["layout"], Value::Null, "a PUT keeps nothing");

    signed_in.put("memory", &json!({"a": 1, "b": {"c": 2}})).await;
    let merged = signed_in.patch("memory", &json!({"a": null, "b": {"d": [null]}})).await.data();
    assert_eq!(merged, json!({"b": {"c": 2, "d": [null]}}));
    assert_eq!(signed_in.put("memory", &json!({"z": null})).await.data(), json!({"z": null}));
    assert_eq!(signed_in.get("memory").await.data(), json!({"z": null}));
}

#[tokio::test]
async fn histories_are_limited_and_secrets_dropped_unless_listed() {
    let server = Running::start(&[]).await;
    let settings = json!({"kept_environment_vars": ["API_TOKEN"]});
    for (email, settings, kept) in [
        ("ada@example.org", json!({}), json!({"LANG": "C"})),
        ("eve@example.org", settings, json!({"LANG": "C", "API_TOKEN": "x"})),
        ("tim@example.org", json!({"kept_environment_vars": 7}), json!({"LANG": "C"})),
    ] {
        let signed_in = SignedInSession::with_settings(&server, email, settings).await;
        let vars = json!({"LANG": "C", "API_TOKEN": "x", "my_key": "y", "DB_PASSWORD_2": "z"});
        let history: Vec<_> = (0..1_100).map(|n| n.to_string()).collect();
        let main = json!({"environment_vars": vars, "command_history": history});
        let state = signed_in.put("terminal", &json!({"terminals": {"main": main}})).await.data();
        let main = &state["terminals"]["main"];
        assert_eq!(main["environment_vars"], kept, "{email}");
        assert_eq!(main["command_history"], json!(history[100..]));
        // Members missing from a later merge are unchanged.
        let merge = json!({"terminals": {"main": {"cwd": "/"}}});
        let merged = signed_in.patch("terminal", &merge).await.data();
        assert_eq!(merged["terminals"]["main"]["environment_vars"], kept, "{email}");
    }
}

#[tokio::test]
async fn terminal_secrets_are_not_stored_by_put_or_patch() {
    let server = Running::start(&[]).await;
    let settings = json!({"kept_environment_vars": ["GH_PAT"]});
    let signed_in = SignedInSession::with_settings(&server, "ada@example.org", settings).await;
    let main = json!({
        "title": "curl -u a:b e.org",
        "command_history": ["export GH_PAT=x", "git commit -m \"token: fix\"", "acme-0123"],
        "environment_vars": {
            "AWS_ACCESS_KEY_ID": "x", "DATABASE_URL": "x", "PGPASS": "x", "GH_PAT": "kept",
            "MY_CREDENTIALS": "x", "APIKEY": "x", "REPLICA": "postgres://a:b@db/x", "ACME": "x",
            "PATH": "/bin", "HOME": "/home/ada", "PGHOST": "db",
        },
    });
    let state = json!({"terminals": {"main": main}});
    let stored = |acme: &str, vars: Value| {
        json!({"title": "curl -u a:*** e.org", "cwd": "", "environment_vars": vars,
            "command_history": ["export GH_PAT=***", "git commit -m \"token: fix\"", acme]})
    };
    let kept =
        json!({"ACME": "x", "GH_PAT": "kept", "HOME": "/home/ada", "PATH": "/bin", "PGHOST": "db"});
    let expected = stored("acme-0123", kept);
    assert_eq!(signed_in.put("terminal", &state).await.data()["terminals"]["main"], expected);
    assert_eq!(signed_in.get("terminal").await.data()["terminals"]["main"], expected);
    signed_in.put("terminal", &json!({})).await;
    assert_eq!(signed_in.patch("terminal", &state).await.data()["terminals"]["main"], expected);

    let path = "/api/v5/settings/secret_patterns";
    let of_tenant = format!("{path}?scope=tenant");
    let set = |path: &str, value: Value| {
        signed_in.call(Call::put(path).value(&json!({ "value": value })))
    };
    for (path, value, field) in [
        (&*of_tenant, json!({"values": ["("]}), "value.values[0]"),
        (&of_tenant, json!({"variable_names": vec!["a"; 17]}), "value.variable_names"),
        (&of_tenant, json!([]), "value"),
        (path, json!({}), "key"),
    ] {
        let refused = set(path, value).await;
        assert_eq!((refused.status, refused.code()), (422, "VALIDATION_FAILED".into()), "{field}");
        assert!(
            String::from_utf8_lossy(&refused.body).contains(&format!("\"{field}\"")),
            "{field}"
        );
    }
    assert_eq!(
        signed_in.call(Call::get(path)).await.status,
        404,
        "refused patterns change nothing"
    );
    let patterns = json!({"variable_names": ["^ACME$"], "values": ["acme-[0-9]+"]});
    assert_eq!(set(&of_tenant, patterns).await.status, 200);
    let kept = json!({"GH_PAT": "kept", "HOME": "/home/ada", "PATH": "/bin", "PGHOST": "db"});
    let expected = stored("***", kept);
    let touched = signed_in.patch("terminal", &json!({"active": "main"})).await.data();
    assert_eq!(touched["terminals"]["main"], expected);
    assert_eq!(signed_in.put("terminal", &state).await.data()["terminals"]["main"], expected);
    assert_eq!(
        signed_in.get("restore").await.data()["terminal_state"]["terminals"]["main"],
        expected
    );
}

#[tokio::test]
async fn edit_over_an_unseen_one_is_refused() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let bodies = [
        ("editor", editor(), json!({"tabs": []})),
        ("terminal", terminal(), json!({"active": "other"})),
        ("memory", json!({"a": 1}), json!({"a": 2})),
        ("", json!({"name": "one"}), json!({"name": "two"})),
    ];
    for (part, first, second) in bodies {
        let path = signed_in.part(part);
        let seen = signed_in.get(part).await.header("etag").unwrap().to_owned();
        let guarded = |method, tag: &str, body: &Value| {
            signed_in.call(Call::new(method, &path).header("If-Match", tag).value(body))
        };
        let saved = guarded("PUT", &seen, &first).await;
        assert_eq!(saved.status, 200, "{part}");
        let now = saved.header("etag").unwrap().to_owned();
        assert_ne!(now, seen, "{part}");
        for method in ["PUT", "PATCH"] {
            let refused = guarded(method, &seen, &second).await;
            assert_eq!(refused.status, 412, "{method} {part}");
            assert_eq!(refused.code(), "PRECONDITION_FAILED");
        }
        let cached = signed_in.call(Call::get(&path).header("If-None-Match", &now)).await;
        assert_eq!((cached.status, cached.header("etag")), (304, Some(now.as_str())), "{part}");
        assert_eq!(cached.body, b"");
        assert_eq!(guarded("PATCH", &format!("\"x\", {now}"), &second).await.status, 200);
        assert_eq!(guarded("PUT", "*", &first).await.status, 200);
        let cached = signed_in.call(Call::get(&path).header("If-None-Match", &now)).await;
        assert_eq!(cached.status, 200, "{part}: it is another version, though it is the same");
        assert_eq!(guarded("PUT", "x", &first).await.status, 400);
    }
    let gone = signed_in.call(Call::delete(&signed_in.path).header("If-Match", "\"x\"")).await;
    assert_eq!(gone.status, 412);
    assert_eq!(signed_in.get("restore").await.status, 200);
}

#[tokio::test]
async fn concurrent_merges_all_apply() {
    let server = Running::start(&[]).await;
    let signed_in = &SignedInSession::new(&server, "ada@example.org").await;
    let merges = (0..24).map(|n| async move {
        let memory = signed_in.patch("memory", &json!({format!("k{n}"): n})).await.status;
        let name = format!("t{n}");
        let terminal = json!({"terminals": {name: {"cwd": "/"}}});
        (memory, signed_in.patch("terminal", &terminal).await.status)
    });
    for statuses in futures_util::future::join_all(merges).await {
        assert_eq!(statuses, (200, 200));
    }
    assert_eq!(signed_in.get("memory").await.data().as_object().unwrap().len(), 24);
    let terminals = signed_in.get("terminal").await.data()["terminals"].take();
    assert_eq!(terminals.as_object().unwrap().len(), 24);
}

#[tokio::test]
async fn client_state_keeps_five_versions() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    for version in 1..=7 {
        let saved = signed_in.keep("layout", format!("v{version}").as_bytes()).await.data();
        assert_eq!((&saved["version"], &saved["size"]), (&json!(version), &json!(2)));
    }
    for (version, found) in [("7", true), ("3", true), ("2", false), ("8", false), ("x", false)] {
        let answer = signed_in.get(&format!("state/layout?version={version}")).await;
        assert_eq!(answer.status, if found { 200 } else { 404 }, "{version}");
        if found {
            assert_eq!(answer.body, format!("v{version}").as_bytes());
        }
    }
    let newest = signed_in.get("state/layout").await;
    assert_eq!(newest.body, b"v7");
    assert_eq!(newest.header("content-type"), Some("application/octet-stream"));
    let tag = newest.header("etag").unwrap();
    let path = signed_in.part("state/layout");
    let guarded = |name, tag| signed_in.call(Call::put(&path).header(name, tag).body("x"));
    assert_eq!(guarded("If-None-Match", "*").await.status, 412);
    assert_eq!(guarded("If-Match", "\"7\"").await.status, 412);
    assert_eq!(signed_in.call(Call::delete(&path).header("If-Match", "\"7\"")).await.status, 412);
    assert_eq!(signed_in.call(Call::delete(&path).header("If-Match", tag)).await.status, 204);
    assert_eq!(signed_in.call(Call::delete(&path)).await.status, 404);
    assert_eq!(signed_in.get("state/layout").await.status, 404);
    assert_eq!(guarded("If-None-Match", "*").await.status, 200);
    assert_eq!(guarded("If-Match", tag).await.status, 412, "another's first version");
    let odd = signed_in.keep("a%2Fb%20%C3%A9", b"").await;
    assert_eq!((odd.status, odd.data()["key"].take()), (200, json!("a/b é")));
    let keys = json!([{"key": "a/b é", "version": 1}, {"key": "layout", "version": 1}]);
    assert_eq!(signed_in.get("state").await.json()["data"], keys);
}

#[tokio::test]
async fn batch_is_atomic() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    signed_in.keep("old", b"1").await;
    let path = signed_in.part("state:batch");
    let batch = |body: Value| {
        let wanted = Call::post(&path).value(&body);
        async { signed_in.call(wanted).await }
    };
    let put =
        |key: &str, content: &[u8]| json!({"key": key, "content": BASE64_STANDARD.encode(content)});
    let done =
        batch(json!({"put": [put("a", b"\xff"), put("old", b"2")], "delete": ["none"]})).await;
    let saved = json!([{"key": "a", "version": 1}, {"key": "old", "version": 2}]);
    assert_eq!(done.data(), json!({"saved": saved, "deleted": []}));
    let before = signed_in.get("state").await.json();
    let many: Vec<_> = (0..51).map(|n| put(&n.to_string(), b"")).collect();
    for wrong in [
        json!({"put": [put("b", b"1"), {"key": "c", "content": "%"}]}),
        json!({"put": [put("b", b"1"), put("", b"1")]}),
        json!({"put": [put("b", b"1"), put("c", &vec![7; 100_000])]}),
        json!({"put": many}),
        json!({"put": [{"key": "b"}]}),
        json!({"put": {}}),
    ] {
        let refused = batch(wrong).await;
        assert_eq!(refused.status, 422, "{}", refused.json());
        refused.code();
        assert_eq!(signed_in.get("state").await.json(), before);
    }
    let done = batch(json!({"delete": ["a", "old"]})).await;
    assert_eq!(done.data(), json!({"saved": [], "deleted": ["a", "old"]}));
    assert_eq!(signed_in.get("state").await.json()["data"], json!([]));
}

#[tokio::test]
async fn oversized_state_is_refused() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    signed_in.put("editor", &editor()).await;
    signed_in.put("memory", &json!({"a": 1})).await;
    let long = "x".repeat(120_000);
    let keys =
        |count: usize| Value::Object((0..count).map(|n| (format!("k{n}"), json!(n))).collect());
    for (part, body, status) in [
        ("editor", json!({"tabs": [], "layout": long}), 422),
        ("editor", json!({"tabs": "x"}), 422),
        ("editor", json!({"tabs": [{"path": "a", "cursor": {"line": -1, "column": 0}}]}), 422),
        ("editor", json!({"tabs": [{}]}), 422),
        ("editor", json!({"active_tab": 1.5}), 422),
        ("terminal", json!({"terminals": {"a": {"command_history": [7]}}}), 422),
        ("terminal", json!({"terminals": {"a": {"environment_vars": {"A": null}}}}), 422),
        ("terminal", json!({"terminals": [1]}), 422),
        ("terminal", json!({"terminals": {"a": {"cwd": long}}}), 422),
        ("memory", json!({"a": long}), 422),
        ("memory", json!({"": 1}), 422),
        ("memory", json!({"k".repeat(201): 1}), 422),
        ("memory", json!({"a\u{0}": 1}), 422),
        ("memory", keys(1_001), 422),
        ("memory", json!([1]), 400),
    ] {
        let before = signed_in.get("restore").await.data();
        let refused = signed_in.put(part, &body).await;
        assert_eq!(refused.status, status, "{part} {}", refused.json());
        refused.code();
        assert_eq!(signed_in.get("restore").await.data(), before, "{part}");
    }
    let where_wrong = signed_in.put("editor", &json!({"tabs": [{"path": "a", "pinned": 7}]})).await;
    assert_eq!(where_wrong.json()["error"]["fields"][0]["field"], "tabs[0].pinned");
    assert_eq!(signed_in.keep("big", &vec![7; 99_000]).await.status, 200);
    assert_eq!(signed_in.keep("big", &vec![7; 100_000]).await.status, 422);
    assert_eq!(signed_in.keep("big", &vec![7; 100_001]).await.status, 413);
    assert_eq!(signed_in.keep(&"k".repeat(201), b"").await.status, 422);
    assert_eq!(signed_in.put("memory", &keys(1_000)).await.status, 200);
    assert_eq!(signed_in.patch("memory", &json!({"one more": 1})).await.status, 422);
    for n in 1..100 {
        assert_eq!(signed_in.keep(&format!("k{n}"), b"").await.status, 200);
    }
    assert_eq!(signed_in.keep("one-more", b"").await.status, 422);
    assert_eq!(signed_in.keep("k1", b"again").await.status, 200);
}

#[tokio::test]
async fn state_of_another_user_is_not_found() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    signed_in.put("editor", &editor()).await;
    signed_in.keep("layout", b"mine").await;
    let before = signed_in.get("restore").await.data();
    let other = SignedInSession::new(&server, "eve@example.org").await;
    let thief = SignedInSession { path: signed_in.path.clone(), ..other };
    let body = &json!({"tabs": []});
    for part in ["editor", "terminal", "memory"] {
        for answer in
            [thief.get(part).await, thief.put(part, body).await, thief.patch(part, body).await]
        {
            assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"), "{part}");
        }
    }
    let layout = thief.part("state/layout");
    let batch = Call::post(&thief.part("state:batch")).value(&json!({"delete": ["layout"]}));
    for wanted in [
        Call::get(&thief.part("restore")),
        Call::get(&thief.part("state")),
        Call::get(&layout),
        Call::put(&layout).body("theirs"),
        Call::delete(&layout),
        batch,
    ] {
        assert_eq!(thief.call(wanted.clone()).await.code(), "NOT_FOUND", "{wanted:?}");
        assert_eq!(call(server.address, wanted).await.status, 401);
    }
    assert_eq!(signed_in.get("restore").await.data(), before);
    assert_eq!(signed_in.call(Call::delete(&signed_in.path)).await.status, 204);
    for part in ["restore", "editor", "terminal", "memory", "state", "state/layout"] {
        assert_eq!(signed_in.get(part).await.status, 404, "{part}");
    }
    for part in ["editor", "memory"] {
        assert_eq!(signed_in.put(part, body).await.status, 404, "{part}");
    }
    assert_eq!(signed_in.keep("layout", b"again").await.status, 404);
}

#[tokio::test]
async fn memory_above_its_limit_is_refused_and_unchanged() {
    let server = Running::start(&["--session-memory-limit", "64KiB"]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let half = "x".repeat(40 << 10);
    let first = signed_in.patch("memory", &json!({"a": half})).await;
    assert_eq!(first.status, 200);
    for refused in [
        signed_in.patch("memory", &json!({"b": half})).await,
        signed_in.patch("memory", &json!({"c": {"d": half}})).await,
        signed_in.put("memory", &json!({"a": half, "b": half})).await,
    ] {
        assert_eq!((refused.status, refused.code().as_str()), (422, "TOO_LARGE"));
    }
    let kept = signed_in.get("memory").await;
    assert_eq!((kept.data(), kept.header("etag")), (json!({"a": half}), first.header("etag")));
    // Removed entries make room.
    assert_eq!(signed_in.patch("memory", &json!({"a": null, "b": half})).await.status, 200);
    assert_eq!(signed_in.put("memory", &json!({"c": half})).await.data(), json!({"c": half}));
    assert_eq!(signed_in.put("memory", &json!({})).await.data(), json!({}));
    assert_eq!(signed_in.patch("memory", &json!({"d": half})).await.data(), json!({"d": half}));
}

#[tokio::test]
async fn client_state_above_its_limit_is_refused_and_unchanged() {
    let server = Running::start(&["--client-state-limit", "100KiB"]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let content = vec![7; 40 << 10];
    assert_eq!(signed_in.keep("a", &content).await.status, 200);
    assert_eq!(signed_in.keep("b", &content).await.status, 200);
    for key in ["a", "c"] {
        let refused = signed_in.keep(key, &content).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "QUOTA_EXCEEDED"));
    }
    let keys = signed_in.get("state").await.data();
    assert_eq!(keys, json!([{"key": "a", "version": 1}, {"key": "b", "version": 1}]));
    assert_eq!(signed_in.call(Call::new("DELETE", &signed_in.part("state/a"))).await.status, 204);
    assert_eq!(signed_in.keep("c", &content).await.status, 200);
}

#[tokio::test]
async fn nested_patch_changes_one_entry_of_a_memory() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let whole = json!({"\"q\\": 1, "list": [1], "plan": {"a": {"b": 1, "c": 2}, "n": null}});
    assert_eq!(signed_in.put("memory", &whole).await.data(), whole);
    let patch =
        json!({"plan": {"a": {"b": null, "d": [3]}, "n": 7}, "list": null, "new": {"x": null}});
    let expected = json!({"\"q\\": 1, "plan": {"a": {"c": 2, "d": [3]}, "n": 7}, "new": {}});
    assert_eq!(signed_in.patch("memory", &patch).await.data(), expected);
    assert_eq!(signed_in.get("memory").await.data(), expected);
    assert_eq!(signed_in.get("restore").await.data()["session_memory"], expected);
}
