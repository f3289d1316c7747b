//! Checks find every kind of fault, and no fault hides another.

use coditect_store::{
    Store,
    check::{Event, Fault, Finding, Report},
    engine::{Database, FileState},
    keyspace::{KeyPart, Subspace},
    model::{IdempotencyEntry, Membership, Tenant, TenantId, Ticket},
    records::{Counter, Fault as EntryFault},
};

use crate::{archives::damage, planner::Task, samples, verify::write};

/// A store with a tenant and one record of every kind.
async fn sound() -> Store {
    let store = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<Task>()
        .open(Database::temporary().unwrap())
        .await
        .unwrap();
    fill(&store).await;
    store
}

pub(crate) async fn fill(store: &Store) {
    let tx = store.begin();
    samples::write(&tx).await;
    tx.insert(&samples::session_memory()).await.unwrap();
    samples::agent().set_up(&tx, 9).await.unwrap();
    for file in samples::files() {
        tx.insert(&file).await.unwrap();
    }
    tx.charge(samples::tenant().id, Counter::FILES, 2, 100).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn checked(store: &Store) -> (Report, Vec<Finding>) {
    run(store.check()).await
}

async fn run(check: coditect_store::check::Check) -> (Report, Vec<Finding>) {
    let mut findings = Vec::new();
    let report = check
        .run(|event| {
            if let Event::Found(finding) = event {
                findings.push(finding.clone());
            }
        })
        .await
        .unwrap();
    assert_eq!(report.faults, findings.len() as u64);
    (report, findings)
}

pub(crate) async fn faults(store: &Store) -> Vec<Fault> {
    checked(store).await.1.iter().map(|finding| finding.fault).collect()
}

pub(crate) async fn value(store: &Store, key: &[u8]) -> Vec<u8> {
    store.begin().engine().get(key).await.unwrap().unwrap()
}

/// Returns a key of the samples' tenant.
pub(crate) fn key(store: &Store, name: &str, rest: &impl KeyPart) -> Vec<u8> {
    let mut key = store.root().key(&(samples::tenant().id, name.to_owned()));
    rest.pack(&mut key);
    key
}

#[tokio::test]
async fn a_sound_store_has_no_faults() {
    let store = sound().await;
    let (report, findings) = checked(&store).await;
    assert_eq!(findings, []);
    assert!(report.is_sound() && report.pending_indexes.is_empty());
    assert!(report.rows > 60, "{}", report.rows);
}

#[tokio::test]
async fn a_key_of_no_space_is_found() {
    let store = sound().await;
    let mut long = key(&store, "counters", &"files".to_owned());
    7_u64.pack(&mut long);
    let unknown = [
        b"\x00nothing".to_vec(),
        store.root().key(&("sketches".to_owned(), 7_u64)),
        key(&store, "sketches", &7_u64),
        // Declared, but in another scope: a global index, and records.
        key(&store, "users_by_email", &"ada".to_owned()),
        store.root().key(&("users".to_owned(), samples::user().id)),
        long,
    ];
    for key in unknown {
        write(&store, &key, Some(b"x")).await;
        let (_, found) = checked(&store).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].fault, &found[0].key), (Fault::UnknownKey, &key));
        write(&store, &key, None).await;
    }
    assert_eq!(faults(&store).await, []);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_found_and_hides_nothing_else() {
    let store = sound().await;
    let agent = key(&store, "agents", &samples::agent().id);
    let user = key(&store, "users", &samples::user().id);
    let other = key(&store, "agents", &coditect_store::model::AgentId::new());
    write(&store, &other, Some(&value(&store, &agent).await)).await;
    write(&store, &user, Some(b"\x09newer")).await;
    let (report, found) = checked(&store).await;
    let at = |key: &[u8]| {
        let of_key: Vec<Fault> =
            found.iter().filter(|found| found.key == key).map(|found| found.fault).collect();
        of_key
    };
    assert_eq!(at(&other), [Fault::UnreadableRecord]);
    assert_eq!(at(&user), [Fault::UnreadableRecord]);
    let whys: Vec<&str> = found.iter().map(|found| found.why.as_str()).collect();
    assert!(whys.iter().any(|why| why.contains("under another key")), "{whys:?}");
    assert!(whys.iter().any(|why| why.contains("version 9")), "{whys:?}");
    // The indexes of both cannot be verified; others can.
    let unverified: Vec<Fault> = found
        .iter()
        .map(|found| found.fault)
        .filter(|fault| matches!(fault, Fault::Unverified(_)))
        .collect();
    let expected = [Fault::Unverified("users_by_email"), Fault::Unverified("agents_by_name")];
    assert_eq!(unverified, expected);
    // The agent's row has no count.
    assert_eq!(report.faults, 5);
}

#[tokio::test]
async fn every_fault_of_an_index_is_found_and_repaired() {
    let store = sound().await;
    let by_name = key(&store, "agents_by_name", &samples::agent().name);
    let by_user = key(&store, "workspace_sessions_by_user", &(samples::user().id, 7_u64));
    let by_email = store.root().key(&("users_by_email".to_owned(), "ada@example.org".to_owned()));
    write(&store, &by_name, None).await;
    write(&store, &by_user, Some(b"")).await;
    write(&store, &by_email, Some(b"\x00")).await;
    let all = [
        Fault::Index("users_by_email", EntryFault::Wrong),
        Fault::Index("users_by_email", EntryFault::Dangling),
        Fault::Index("workspace_sessions_by_user", EntryFault::Dangling),
        Fault::Index("agents_by_name", EntryFault::Missing),
    ];
    assert_eq!(faults(&store).await, all);
    let (report, _) = run(store.check().repairing()).await;
    // The entry that was wrong is repaired before its turn as a dangling one.
    assert_eq!((report.faults, report.repaired), (3, 3));
    assert_eq!(faults(&store).await, []);
}

#[tokio::test]
async fn entries_of_a_log_are_compared_with_its_records() {
    let store = sound().await;
    let by_id = key(&store, "messages_by_id", &samples::message().id);
    let right = value(&store, &by_id).await;
    let faults_of = |kinds: &[EntryFault]| -> Vec<Fault> {
        kinds.iter().map(|kind| Fault::Index("messages_by_id", *kind)).collect()
    };
    write(&store, &by_id, None).await;
    let (_, found) = checked(&store).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].fault, faults_of(&[EntryFault::Missing])[0]);
    assert_eq!((&found[0].stored, &found[0].expected), (&None, &Some(right.clone())));
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    write(&store, &by_id, Some(&wrong)).await;
    assert_eq!(faults(&store).await, faults_of(&[EntryFault::Wrong, EntryFault::Dangling]));
    write(&store, &by_id, Some(&right)).await;

    let dangling = key(&store, "audit_by_action", &("session.delete".to_owned(), 7_u64));
    write(&store, &dangling, Some(b"")).await;
    let expected = [Fault::Index("audit_by_action", EntryFault::Dangling)];
    assert_eq!(faults(&store).await, expected);
}

#[tokio::test]
async fn malformed_counter_is_found() {
    let store = sound().await;
    write(&store, &key(&store, "counters", &"files".to_owned()), Some(b"two")).await;
    assert_eq!(faults(&store).await, [Fault::UnreadableNumber]);
}

#[tokio::test]
async fn metadata_is_checked() {
    let store = sound().await;
    let meta = |kind: &str, name: &str| {
        store.root().key(&("meta".to_owned(), kind.to_owned(), name.to_owned()))
    };
    let of = |kind: &str| store.root().key(&("meta".to_owned(), kind.to_owned()));
    let table: [(Vec<u8>, &[u8]); 10] = [
        (of("format"), b"\x02another\0\x15\x01"),
        (of("epoch"), b"many"),
        (of("import"), b"\xff"),
        (of("last_append"), b"\x33 late"),
        (of("sketches"), b""),
        (meta("schema", "users"), b"\x02log\0\x02tenant\0\x02user\0\x02users\0"),
        (meta("schema", "users_by_day"), b"\x02multi\0\x02tenant\0\x02day\0\x02users\0"),
        (meta("index", "agents_by_name"), b"\x02half-built\0\x01\x00\x14"),
        (meta("index", "agents_by_day"), b"\x02readable\0\x01\x00\x14"),
        (meta("recount", "agents_by_day"), b""),
    ];
    for (key, bad) in table {
        let before = store.begin().engine().get(&key).await.unwrap();
        write(&store, &key, Some(bad)).await;
        let found = faults(&store).await;
        let shown = key.escape_ascii();
        assert_eq!(found.first(), Some(&Fault::Meta), "{shown}: {found:?}");
        // An index whose state cannot be decoded cannot be verified.
        assert!(found[1..].iter().all(|fault| matches!(fault, Fault::Unverified(_))), "{found:?}");
        write(&store, &key, before.as_deref()).await;
    }
    assert_eq!(faults(&store).await, []);
}

#[tokio::test]
async fn dangling_references_are_found() {
    let store = sound().await;
    let session = key(&store, "workspace_sessions", &samples::session().id);
    let record = value(&store, &session).await;
    write(&store, &session, None).await;
    let (_, found) = checked(&store).await;
    let hanging: Vec<String> = found
        .iter()
        .filter(|found| found.fault == Fault::DanglingReference)
        .map(|found| found.shown.to_string())
        .collect();
    // Four parts of its state, its memory, a client's state, a file, a conversation.
    assert_eq!(hanging.len(), 8, "{hanging:?}");
    write(&store, &session, Some(&record)).await;
    assert_eq!(faults(&store).await, []);

    let tenant = store.root().key(&(samples::tenant().id, "tenant".to_owned()));
    write(&store, &tenant, None).await;
    let (_, found) = checked(&store).await;
    assert_eq!(found.len(), 1, "once for all that it has");
    assert_eq!(found[0].fault, Fault::DanglingReference);
    assert!(found[0].why.contains(&samples::tenant().id.to_string()), "{}", found[0].why);
}

#[tokio::test]
async fn records_of_a_former_member_are_no_faults() {
    let store = sound().await;
    let guest = samples::membership();
    let entry = &IdempotencyEntry { user_id: guest.user_id, ..samples::idempotency_entry() };
    let ticket = &Ticket { user_id: guest.user_id, ..samples::ticket() };
    let write = |tx: coditect_store::Transaction| async move {
        entry.keep(&tx, 1_000_000).await?;
        tx.insert(ticket).await
    };
    store.run(write).await.unwrap();
    assert_eq!(faults(&store).await, [Fault::DanglingReference; 2], "there is no such member");
    for ended in [false, true] {
        let member = &Membership { ended, ..guest.clone() };
        store.run(|tx| async move { tx.upsert(member).await }).await.unwrap();
        assert_eq!(faults(&store).await, []);
    }
}

#[tokio::test]
async fn values_that_are_damaged_are_found_each_by_its_key_and_the_others_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Database::open(folder.path()).unwrap()).await.unwrap();
    fill(&store).await;
    let names = ["a name that is found in the file", "another name that is found"];
    let mut keys = Vec::new();
    for name in names {
        let record = &Tenant { id: TenantId::new(), name: name.into(), ..samples::tenant() };
        store.run(|tx| async move { tx.insert(record).await }).await.unwrap();
        keys.push(store.root().key(&(record.id, "tenant".to_owned())));
    }
    let missing = key(&store, "messages_by_id", &samples::message().id);
    write(&store, &missing, None).await;
    store.database().close().await;
    drop(store);
    assert_eq!(Database::check_file(folder.path()).unwrap(), FileState::Sound);
    for name in names {
        damage(folder.path(), name);
    }
    let store = Store::open(Database::open(folder.path()).unwrap()).await.unwrap();
    let (_, found) = checked(&store).await;
    let damaged: Vec<&Vec<u8>> = found
        .iter()
        .filter(|found| found.fault == Fault::Damaged)
        .map(|found| &found.key)
        .collect();
    assert_eq!(damaged, [&keys[0], &keys[1]]);
    assert!(found.iter().any(|found| found.key == missing), "{found:?}");
    store.database().close().await;
    drop(store);
    let error = Database::check_file(folder.path()).unwrap_err();
    assert_eq!(error.kind(), coditect_store::ErrorKind::Corrupt, "the file's own sums tell too");
}

#[tokio::test]
async fn index_that_is_not_built_is_reported_without_a_fault() {
    use crate::builds::{INDEXES, newer, written};

    let store = newer(&written().await.0).await;
    let (report, _) = checked(&store).await;
    assert_eq!(report.pending_indexes, INDEXES);
}

#[tokio::test]
async fn findings_are_displayed_without_values() {
    let store = sound().await;
    let by_name = key(&store, "agents_by_name", &samples::agent().name);
    write(&store, &by_name, Some(b"something secret")).await;
    let (_, found) = checked(&store).await;
    let told = found[0].to_string();
    let said = format!(
        "({}, \"agents_by_name\", \"reviewer\"): an entry of index agents_by_name differs from its \
         record (stored: 16 bytes; expected: 17 bytes)",
        samples::tenant().id
    );
    assert_eq!(told, said);
}

#[tokio::test]
async fn a_store_is_inspected_by_tenant_space_and_key() {
    let store = sound().await;
    let other = &Tenant { id: TenantId::new(), ..samples::tenant() };
    store.run(|tx| async move { tx.insert(other).await }).await.unwrap();
    let keys = async |inspect: coditect_store::inspect::Inspect, limit| -> Vec<String> {
        let mut keys = Vec::new();
        inspect.rows(limit, |row| keys.push(row.key.to_string())).await.unwrap();
        keys
    };
    let (tenant, session) = (samples::tenant().id, samples::session().id);
    let both = [format!("({tenant}, \"tenant\")"), format!("({}, \"tenant\")", other.id)];
    assert_eq!(keys(store.inspect().space("tenant"), 9).await, both);
    assert_eq!(keys(store.inspect().space("tenant"), 1).await, both[..1]);
    assert_eq!(keys(store.inspect().space("tenant").tenant(other.id), 9).await, both[1..]);
    assert_eq!(keys(store.inspect().tenant(other.id), 9).await, both[1..]);
    let states = store.inspect().space("session_state");
    assert_eq!(keys(states.clone(), 9).await.len(), 4);
    let elements = coditect_store::keyspace::parse_elements(&format!("{session}, editor"));
    let editor = format!("({tenant}, \"session_state\", {session}, \"editor\")");
    assert_eq!(keys(states.key(elements), 9).await, [editor]);
    let by_email = "(\"users_by_email\", \"ada@example.org\")";
    assert_eq!(keys(store.inspect().space("users_by_email"), 9).await, [by_email]);
    assert!(store.inspect().space("sketches").rows(9, |_| ()).await.is_err());
    let all = keys(store.inspect(), u64::MAX).await;
    assert_eq!(all.len() as u64, checked(&store).await.0.rows);
}

#[tokio::test]
async fn an_overview_counts_all_rows() {
    let store = sound().await;
    write(&store, &key(&store, "sketches", &7_u64), Some(b"1234")).await;
    let overview = store.inspect().overview().await.unwrap();
    let rows = |name: &str| {
        let mut sizes = overview.spaces.iter().filter(|size| size.name == name);
        sizes.next().map(|size| size.rows)
    };
    assert_eq!(rows("session_state"), Some(4));
    assert_eq!(rows("messages"), Some(1));
    assert_eq!(rows("counters"), Some(4));
    assert_eq!(rows("planner_tasks"), Some(0));
    assert_eq!((overview.unknown.rows, overview.unknown.value_bytes), (1, 4));
    assert_eq!((overview.tenants, overview.engine), (1, store.database().engine()));
    assert!(overview.indexes.iter().all(|(_, state)| state == "readable"));
    let all: u64 = overview.spaces.iter().map(|size| size.rows).sum();
    assert_eq!(all + 1, checked(&store).await.0.rows);
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let store = sound().await;
    let unknown =
        Subspace::global("sketches").key(store.root(), coditect_store::keyspace::Global, &7_u64);
    write(&store, &unknown, Some(b"sealed")).await;
    let mut told = String::new();
    let add = |row: coditect_store::inspect::Row| {
        use std::fmt::Write as _;
        writeln!(told, "{} {}", row.key, row.value).unwrap();
    };
    store.inspect().rows(u64::MAX, add).await.unwrap();
    let login = samples::auth_session();
    let hex = |bytes: &[u8; 32]| {
        bytes.iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
    };
    let previous = login.previous_secret_hash.unwrap();
    let secrets = [hex(&login.secret_hash), hex(&previous), hex(&login.salt)];
    for secret in
        secrets.iter().map(String::as_str).chain(["argon2", "c2FsdA", "170,170", "sealed"])
    {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    for shown in ["\"password_hash\":\"(secret)\"", "ada@example.org", "It waits for the disk."] {
        assert!(told.contains(shown), "{shown} is not in {told}");
    }
}
