//! The persisted keyspace: a changed key is a red diff here.

use std::{fmt::Write as _, fs, path::Path};

use coditect_store::{
    AppendHandle,
    engine::{KeyValue, RangeQuery},
    keyspace::{Global, Subspace, table},
    model::UserId,
};

use crate::{planner::store, samples};

/// Every key of the samples, in order, with its value. Bytes that are not text are escaped; a name
/// in braces stands for the sixteen bytes of an id, or the twelve of a position.
const KEYS: &str = r"
\x02auth_sessions_by_expiry\x00\x17\x07j\xdf0{T}0{login} => ∅
\x02client_sequences_by_expiry\x00\x17\x07j\xdf0{T}0{session}\x02tab-7f\x00 => ∅
\x02meta\x00\x02epoch\x00 => \x15\x01
\x02meta\x00\x02format\x00 => \x02coditect-store\x00\x15\x01
\x02meta\x00\x02last_append\x00 => 3{message's position}
\x02token_families\x000{family} => 0{T}0{login}
\x02users_by_email\x00\x02ada@example.org\x00 => 0{T}0{user}
0{T}\x02agents\x000{agent} => record
0{T}\x02agents_by_name\x00\x02reviewer\x00 => 0{agent}
0{T}\x02audit\x003{entry's position} => record
0{T}\x02audit_by_action\x00\x02session.delete\x003{entry's position} => ∅
0{T}\x02audit_by_actor\x000{user}3{entry's position} => ∅
0{T}\x02auth_sessions\x000{login} => record
0{T}\x02client_sequences\x000{session}\x02tab-7f\x00 => record
0{T}\x02client_state\x000{session}\x02theia.layout\x00\x15\x03 => record
0{T}\x02conversations\x000{conversation} => record
0{T}\x02conversations_by_session\x000{session}0{conversation} => ∅
0{T}\x02conversations_by_user\x000{user}0{conversation} => ∅
0{T}\x02drafts\x000{session}\x02src/main.rs\x00 => record
0{T}\x02files\x000{file} => record
0{T}\x02files\x000{directory} => record
0{T}\x02files_by_directory\x00\x02/workspace/p\x00\x02\x00\x02src\x00 => 0{directory}
0{T}\x02files_by_directory\x000{session}\x02src\x00\x02main.rs\x00 => 0{file}
0{T}\x02files_by_path\x00\x02/workspace/p\x00\x02src\x00 => 0{directory}
0{T}\x02files_by_path\x000{session}\x02src/main.rs\x00 => 0{file}
0{T}\x02files_by_session\x000{session}0{file} => ∅
0{T}\x02messages\x000{conversation}3{message's position} => record
0{T}\x02messages_by_id\x000{message} => 0{conversation}3{message's position}
0{T}\x02session_memory\x000{session}\x02plan\x00 => record
0{T}\x02session_state\x000{session}\x02active_files\x00 => record
0{T}\x02session_state\x000{session}\x02editor\x00 => record
0{T}\x02session_state\x000{session}\x02memory\x00 => record
0{T}\x02session_state\x000{session}\x02terminal\x00 => record
0{T}\x02sessions_by_conversation\x000{conversation}0{session} => ∅
0{T}\x02sessions_by_workspace\x00\x02/workspace/p\x000{session} => ∅
0{T}\x02settings\x00\x02tenant\x00\x02editor.tab_size\x00 => record
0{T}\x02settings\x000{user}\x02editor.tab_size\x00 => record
0{T}\x02tenant\x00 => record
0{T}\x02users\x000{user} => record
0{T}\x02workspace_sessions\x000{session} => record
0{T}\x02workspace_sessions_by_user\x000{user}0{session} => ∅
";

#[tokio::test]
async fn keys_of_every_entity_are_unchanged() {
    let (tenant, user) = (samples::tenant(), samples::user());
    let (login, session) = (samples::auth_session(), samples::session());
    let (conversation, agent) = (samples::conversation(), samples::agent());
    let [file, directory] = samples::files();
    let store = store().await;
    let tx = store.begin();
    tx.insert(&tenant).await.unwrap();
    tx.insert(&user).await.unwrap();
    tx.insert(&login).await.unwrap();
    tx.insert(&session).await.unwrap();
    for state in samples::session_states() {
        tx.insert(&state).await.unwrap();
    }
    tx.insert(&samples::session_memory()).await.unwrap();
    tx.insert(&samples::client_state()).await.unwrap();
    tx.insert(&samples::client_sequence()).await.unwrap();
    tx.insert(&samples::draft()).await.unwrap();
    tx.insert(&file).await.unwrap();
    tx.insert(&directory).await.unwrap();
    tx.insert(&conversation).await.unwrap();
    tx.insert(&agent).await.unwrap();
    for setting in samples::settings() {
        tx.insert(&setting).await.unwrap();
    }
    let message = tx.append(&samples::message()).await.unwrap();
    let entry = tx.append(&samples::audit_entry()).await.unwrap();
    tx.commit().await.unwrap();
    let position = |appended: &AppendHandle| {
        let position = appended.position().unwrap();
        let stamp = position.versionstamp();
        [stamp.as_bytes().as_slice(), &position.order().to_be_bytes()].concat()
    };
    let positions =
        [("{message's position}", position(&message)), ("{entry's position}", position(&entry))];

    let ids = [
        ("{T}", tenant.id.0),
        ("{user}", user.id.0),
        ("{login}", login.id.0),
        ("{family}", login.token_family.0),
        ("{session}", session.id.0),
        ("{conversation}", conversation.id.0),
        ("{agent}", agent.id.0),
        ("{file}", file.id.0),
        ("{directory}", directory.id.0),
        ("{message}", samples::message().id.0),
    ];
    let ids = ids.map(|(name, id)| (name, id.as_bytes().to_vec()));
    let readable = |bytes: &[u8]| {
        let names = ids.iter().chain(&positions);
        names.fold(bytes.escape_ascii().to_string(), |text, (name, id)| {
            text.replace(&id.escape_ascii().to_string(), name)
        })
    };
    let tx = store.begin();
    let all = store.root().range();
    let rows = tx.engine().get_range(&RangeQuery::new(all.begin, all.end)).await.unwrap().rows;
    let mut keys = String::from("\n");
    let declared = |row: &KeyValue| {
        let meta = |name: &str| store.root().key(&("meta".to_owned(), name.to_owned()));
        [meta("schema"), meta("index")].iter().any(|prefix| row.key.starts_with(prefix))
    };
    for row in rows.iter().filter(|row| !declared(row)) {
        let record = row.value.len() >= 40;
        let value = match row.value.as_slice() {
            b"" => "∅".to_owned(),
            _ if record => "record".to_owned(),
            pointer => readable(pointer),
        };
        writeln!(keys, "{} => {value}", readable(&row.key)).unwrap();
    }
    assert_eq!(keys, KEYS, "{keys}");
}

/// The metadata of two names.
#[tokio::test]
async fn stored_declarations_are_unchanged() {
    let store = store().await;
    let tx = store.begin();
    let kept = async |kind: &str, name: &str| {
        let key = store.root().key(&("meta".to_owned(), kind.to_owned(), name.to_owned()));
        tx.engine().get(&key).await.unwrap().unwrap().escape_ascii().to_string()
    };
    let users = r"\x02records\x00\x02tenant\x00\x02user:uuid\x00\x02users\x00";
    assert_eq!(kept("schema", "users").await, users);
    let by_email = r"\x02unique\x00\x02global\x00\x02email:string\x00\x02users\x00";
    assert_eq!(kept("schema", "users_by_email").await, by_email);
    assert_eq!(kept("index", "users_by_email").await, r"\x02readable\x00\x01\x00\x14");
}

#[test]
fn a_key_is_its_scope_its_space_and_its_own_elements() {
    let root = coditect_store::keyspace::Root::new(&"coditect".to_owned());
    let global = Subspace::global("countries").key(&root, Global, &"SE".to_owned());
    assert_eq!(global, b"\x02coditect\0\x02countries\0\x02SE\0");
    let tenant = samples::tenant().id;
    let user = UserId(samples::user().id.0);
    let key = Subspace::tenant("users").key(&root, tenant, &user);
    let parts: [&[u8]; 5] =
        [b"\x02coditect\0\x30", tenant.0.as_bytes(), b"\x02users\0", b"\x30", user.0.as_bytes()];
    assert_eq!(key, parts.concat());
}

const BEGIN: &str = "<!-- keyspace:begin -->\n";
const END: &str = "<!-- keyspace:end -->";

/// Run with `UPDATE_GOLDEN=1` after an intended change.
#[test]
fn the_keyspace_table_is_generated_from_the_declarations() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("a marker where the table begins");
    let (written, after) = rest.split_once(END).expect("a marker where the table ends");
    let declared = table(coditect_store::model::schema().layouts());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{declared}{END}{after}")).unwrap();
    } else {
        assert_eq!(written, declared, "UPDATE_GOLDEN=1 writes it anew");
    }
}
