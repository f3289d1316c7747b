//! Examples of request and response bodies, by the name of their schema.
//!
//! Tests check that every body has an example, that every request example parses, and that every
//! response example matches its schema.

use serde_json::{Value, json};

const ID: &str = "0197c5d2-8d3a-7c41-9f0e-5b1d2a7c9e10";
const USER: &str = "0197c5d0-1f6b-7a3e-8c55-0d9e4b2f6a71";
const TENANT: &str = "0197c5d0-1f6b-7a3e-8c55-0d9e4b2f6a70";
const TIME: &str = "2026-03-02T09:15:00.000Z";
const LATER: &str = "2026-06-02T09:15:00.000Z";
const ETAG: &str = "\"5d41402abc4b2a76b9719d911017c592\"";
const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// Returns the example of the schema `name`.
pub(super) fn of(name: &str) -> Option<Value> {
    request(name).or_else(|| account(name)).or_else(|| workspace(name)).or_else(|| state(name))
}

fn request(name: &str) -> Option<Value> {
    Some(match name {
        "NewUser" => json!({
            "email": "ada@example.org", "password": "correct horse battery",
            "first_name": "Ada", "last_name": "Lovelace",
        }),
        "Login" => json!({"email": "ada@example.org", "password": "correct horse battery"}),
        "Refresh" => json!({"refresh_token": "crt_4mHq0vK…"}),
        "Logout" => json!({"refresh_token": "crt_4mHq0vK…", "everywhere": false}),
        "DeviceName" => json!({"name": "Work laptop"}),
        "FactorSetup" | "TenantDeletion" => json!({"password": "correct horse battery"}),
        "FactorCode" => json!({"code": "287082"}),
        "FactorRemoval" => json!({"password": "correct horse battery", "code": "287082"}),
        "PasswordChange" => json!({
            "current_password": "correct horse battery", "new_password": "staple river window",
        }),
        "ResetRequest" => json!({"email": "ada@example.org"}),
        "PasswordReset" => {
            json!({"token": "cpr_9sTb2xW…", "new_password": "staple river window"})
        }
        "TenantChange" => json!({"name": "Analytical Engines"}),
        "NewRole" => json!({"role": "admin"}),
        "InvitationRequest" => json!({"email": "grace@example.org", "role": "member"}),
        "InvitationAcceptance" => json!({"token": "cin_7dKf3yR…"}),
        "NewToken" => json!({"name": "CI", "scopes": ["read"], "expires_in_days": 30}),
        "NewSession" => json!({
            "name": "Engine", "type": "workspace", "workspace_path": "/workspace/engine",
            "settings": {"theme": "dark"},
        }),
        "SessionChange" => json!({"name": "Engine 2", "settings": {"theme": null}}),
        "NewConversation" => json!({"title": "Refactoring", "session_id": ID}),
        "ConversationChange" => json!({"title": "Refactoring the parser"}),
        "NewMessage" => json!({"content": "Split the parser into two files.", "metadata": {}}),
        "NewAgent" => json!({
            "name": "Reviewer", "description": "Reviews changes.", "settings": {"model": "large"},
        }),
        "AgentChange" => json!({"description": "Reviews changes and tests."}),
        "SettingValue" => json!({"value": {"tab_size": 4}}),
        "Transfer" => json!({"user_id": USER}),
        "Batch" => {
            json!({"put": [{"key": "layout", "content": "eyJ3IjozfQ=="}], "delete": ["old"]})
        }
        "Relocation" => json!({"from": "src/main.rs", "to": "src/bin/main.rs", "overwrite": false}),
        "NewDirectory" => json!({"path": "src/bin"}),
        "NewDraft" => json!({"content": "fn main() {}\n", "base_etag": SHA256}),
        _ => return None,
    })
}

fn account(name: &str) -> Option<Value> {
    let user = || {
        json!({
            "id": USER, "tenant_id": TENANT, "email": "ada@example.org", "first_name": "Ada",
            "last_name": "Lovelace", "created_at": TIME, "updated_at": TIME,
        })
    };
    let tenant = || {
        json!({
            "id": TENANT, "name": "Analytical Engines", "created_at": TIME, "updated_at": TIME,
        })
    };
    let tokens = || {
        json!({
            "token": "eyJhbGciOiJFZERTQSJ9…", "refresh_token": "crt_4mHq0vK…",
            "token_type": "Bearer", "expires_in": 900, "tenant_id": TENANT,
        })
    };
    let invitation = || {
        json!({
            "id": ID, "etag": ETAG, "email": "grace@example.org", "role": "member", "ide": true,
            "invited_by": USER, "created_at": TIME, "expires_at": LATER,
        })
    };
    let token = || {
        json!({
            "id": ID, "etag": ETAG, "name": "CI", "scopes": ["read"], "tenant_id": TENANT,
            "created_at": TIME, "last_used_at": TIME, "expires_at": LATER,
        })
    };
    Some(match name {
        "User" => user(),
        "Tenant" => tenant(),
        "Tokens" => tokens(),
        "SignedIn" => merged(tokens(), json!({"user": user()})),
        "VerificationSent" => json!({"verification": "sent"}),
        "RegistrationSettings" => json!({"mode": "invited", "verifies_email": false}),
        "SignedOut" => json!({"signed_out": true}),
        "Me" => json!({"user": user(), "tenant": tenant(), "role": "owner"}),
        "Device" => json!({
            "id": ID, "etag": ETAG, "name": "Work laptop", "current": true, "tenant_id": TENANT,
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "ip": "192.0.2.7",
            "created_at": TIME, "last_used_at": TIME, "expires_at": LATER,
        }),
        "EndedDevices" => json!({"ended": 2}),
        "FactorBegun" => json!({
            "secret": "JBSWY3DPEHPK3PXP",
            "url": concat!(
                "otpauth://totp/Coditect:ada%40example.org",
                "?secret=JBSWY3DPEHPK3PXP&issuer=Coditect",
            ),
        }),
        "FactorConfirmed" => json!({"recovery_codes": ["8f3k-2m9q", "t7wx-4c1z"]}),
        "PasswordChanged" => json!({"changed": true}),
        "ResetRequested" => json!({"requested": true}),
        "MyTenant" => merged(tenant(), json!({"role": "owner", "own": true})),
        "Member" => json!({
            "user_id": USER, "email": "ada@example.org", "first_name": "Ada",
            "last_name": "Lovelace", "role": "owner", "joined_at": TIME,
        }),
        "Joined" => json!({"tenant_id": TENANT, "role": "member"}),
        "Invitation" => invitation(),
        "NewInvitation" => merged(invitation(), json!({"token": "cin_7dKf3yR…", "mailed": true})),
        "PersonalToken" => token(),
        "NewPersonalToken" => merged(token(), json!({"token": "cpt_1bVn8aL…"})),
        "Ticket" => json!({"ticket": "ctk_6eGj5pD…", "expires_in": 30}),
        "AuditEntry" => json!({
            "actor": USER, "action": "session.created", "target": ID,
            "details": {"name": "Engine"}, "ip": "192.0.2.7", "at": TIME,
        }),
        _ => return None,
    })
}

fn workspace(name: &str) -> Option<Value> {
    let draft =
        || json!({"path": "src/main.rs", "base_etag": SHA256, "size": 13, "saved_at": TIME});
    Some(match name {
        "Session" => session(),
        "TenantSession" => json!({
            "id": ID, "name": "Engine", "type": "workspace", "user_id": USER, "orphaned": true,
            "workspace_path": "/workspace/engine", "created_at": TIME, "updated_at": TIME,
            "last_accessed_at": TIME,
        }),
        "Conversation" => json!({
            "id": ID, "title": "Refactoring", "session_id": null, "user_id": USER,
            "created_at": TIME, "updated_at": TIME,
        }),
        "TenantConversation" => json!({
            "id": ID, "title": "Refactoring", "session_id": null, "user_id": USER,
            "orphaned": true, "created_at": TIME, "updated_at": TIME,
        }),
        "Message" => json!({
            "id": ID, "conversation_id": ID, "author": {"type": "user", "id": USER},
            "content": "Split the parser into two files.", "metadata": {}, "created_at": TIME,
        }),
        "Agent" => json!({
            "id": ID, "name": "Reviewer", "description": "Reviews changes.",
            "settings": {"model": "large"}, "created_at": TIME, "updated_at": TIME,
        }),
        "Setting" => json!({
            "key": "editor", "value": {"tab_size": 4}, "scope": "user", "updated_at": TIME,
        }),
        "File" => json!({
            "path": "src/main.rs", "kind": "file", "size": 5, "sha256": SHA256, "mtime": TIME,
            "version": 3,
        }),
        "Draft" => draft(),
        "WholeDraft" => {
            merged(draft(), json!({"content": "fn main() {}\n", "current_etag": SHA256}))
        }
        "Health" => json!({
            "status": "ok", "version": "0.1.0", "engine": "embedded", "uptime_seconds": 86_400,
        }),
        "Status" => json!({"status": "ready"}),
        _ => return None,
    })
}

fn state(name: &str) -> Option<Value> {
    let editor = || {
        json!({
            "tabs": [{
                "path": "src/main.rs", "cursor": {"line": 2, "column": 4}, "selections": [],
                "pinned": false, "view_state": null,
            }],
            "active_tab": 0, "layout": {"sidebar": 240},
        })
    };
    let terminal = || {
        json!({
            "active": "main",
            "terminals": {"main": {
                "title": "zsh", "cwd": "/workspace/engine", "command_history": ["cargo check"],
                "environment_vars": {"RUST_LOG": "info"},
            }},
        })
    };
    let memory = || json!({"plan": ["read", "write"]});
    Some(match name {
        "EditorState" => editor(),
        "TerminalState" => terminal(),
        "Memory" => memory(),
        "ClientStateKey" => json!({"key": "layout", "version": 3}),
        "ClientStateVersion" => json!({"key": "layout", "version": 3, "size": 7, "saved_at": TIME}),
        "ClientStateBatchResult" => {
            json!({"saved": [{"key": "layout", "version": 3}], "deleted": ["old"]})
        }
        "Restoration" => json!({
            "session": session(), "editor_state": editor(), "terminal_state": terminal(),
            "active_files": ["src/main.rs"], "conversation_id": null,
            "client_state": [{"key": "layout", "version": 3}], "session_memory": memory(),
        }),
        _ => return None,
    })
}

fn session() -> Value {
    json!({
        "id": ID, "name": "Engine", "type": "workspace", "tenant_id": TENANT, "user_id": USER,
        "workspace_path": "/workspace/engine", "settings": {"theme": "dark"},
        "conversation_id": null, "created_at": TIME, "updated_at": TIME, "last_accessed_at": TIME,
    })
}

/// Adds the members of `more` to the object `value`.
fn merged(mut value: Value, more: Value) -> Value {
    if let (Value::Object(object), Value::Object(more)) = (&mut value, more) {
        object.extend(more);
    }
    value
}
