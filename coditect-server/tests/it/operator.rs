//! Operators' subcommands with the real program: beside a server under load, on a stopped store,
//! and killed in the middle.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::Path,
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::DateTime;
use coditect_store::{
    Error, Store,
    archive::{self, Summary},
    model::{Json, Session, SessionId, SessionType, Tenant, TenantId, User, UserId, UserStatus},
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    account::{Device, LOGIN, PASSWORD, credentials},
    client::{Call, Client, PATIENCE, call},
    folder::{self, Folder},
    process::{Process, on, program, refused},
};

const SESSIONS: &str = "/api/v5/sessions";
pub(crate) const EMAIL: &str = "ada@example.org";

/// Returns a command of the program on `folder`.
pub(crate) fn verb(verb: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = program(&[verb], folder);
    command.args(arguments);
    command
}

pub(crate) async fn ended(mut command: Command) -> (i32, String, String) {
    let output = timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
    told(output)
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    // A signal has no exit code.
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

pub(crate) async fn succeeds(command: Command) -> (String, String) {
    let (code, stdout, stderr) = ended(command).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    (stdout, stderr)
}

pub(crate) async fn fails(command: Command) -> String {
    let (code, stdout, stderr) = ended(command).await;
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    stderr
}

pub(crate) fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

async fn summary(file: &Path) -> Summary {
    archive::verify(fs::read(file).unwrap().as_slice(), |_| ()).await.unwrap()
}

/// Returns the names of all files in `folder`.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Creates a store with a tenant, its user, and `sessions`, and closes it.
pub(crate) async fn filled(folder: &Path, sessions: usize) -> TenantId {
    let store = Store::open(folder::database(folder)).await.unwrap();
    let at = DateTime::UNIX_EPOCH;
    let tenant =
        Tenant { id: TenantId::new(), name: "Ada's".into(), created_at: at, updated_at: at };
    let user = User {
        id: UserId::new(),
        tenant_id: tenant.id,
        email: EMAIL.into(),
        email_normalized: EMAIL.into(),
        password_hash: "$argon2id$secret".into(),
        first_name: None,
        last_name: None,
        status: UserStatus::Enabled,
        login_epoch: 0,
        created_at: at,
        updated_at: at,
    };
    let (tenant, user) = (&tenant, &user);
    let begin = |tx: coditect_store::Transaction| async move {
        tx.insert(tenant).await?;
        tx.insert(user).await
    };
    store.run(begin).await.unwrap();
    for first in (0..sessions).step_by(500) {
        let fill = |tx: coditect_store::Transaction| async move {
            for number in first..(first + 500).min(sessions) {
                let session = Session {
                    id: SessionId::new(),
                    tenant_id: tenant.id,
                    user_id: user.id,
                    name: format!("session {number}"),
                    session_type: SessionType::Theia,
                    workspace_path: Some(format!("/workspace/{number}")),
                    settings: Json(json!({"filling": "x".repeat(300)})),
                    conversation_id: None,
                    created_at: at,
                    updated_at: at,
                    last_accessed_at: at,
                };
                session.insert(&tx, i64::MAX).await?;
            }
            Ok::<_, Error>(())
        };
        store.run(fill).await.unwrap();
    }
    store.database().close().await;
    tenant.id
}

#[tokio::test]
async fn backup_of_a_stopped_server_is_restored() {
    if folder::is_about_the_folder() {
        return;
    }
    let (folder, other) = (Folder::new(), Folder::new());
    let server = Process::start(on(folder.path(), &[])).await;
    let device = Device::register(server.address, EMAIL).await;
    server.terminate().await;
    let file = other.path().join("store.archive");
    let (_, said) = succeeds(verb("backup", folder.path(), &[path(&file)])).await;
    assert!(said.contains("as of version"), "{said}");
    assert_eq!(names(other.path()), ["store.archive"]);
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    let restored = other.path().join("data");
    let (_, said) = succeeds(verb("import", &restored, &[path(&file)])).await;
    assert!(said.contains("master key"), "{said}");
    fs::copy(folder.path().join("master.key"), restored.join("master.key")).unwrap();
    let (found, _) = succeeds(verb("check", &restored, &[])).await;
    assert_eq!(found, "");
    let server = Process::start(on(&restored, &[])).await;
    device.expect_alive(server.address).await;
    assert_eq!(call(server.address, credentials(LOGIN, EMAIL, PASSWORD)).await.status, 200);
}

/// Creates sessions one after the other and counts the acknowledged ones, until it is stopped.
async fn create_sessions(server: SocketAddr, writer: usize, acknowledged: Arc<AtomicU64>) {
    let device = Device::register(server, &format!("writer-{writer}@example.org")).await;
    let mut client = Client::connect(server).await;
    for number in 0_u64.. {
        let body = json!({"name": format!("{number}"), "settings": {"writer": writer}});
        let create = Call::post(SESSIONS).value(&body).bearer(&device.token);
        let Some(answer) = client.try_call(create).await else { return };
        assert_eq!(answer.status, 201, "{}", answer.json());
        acknowledged.store(number + 1, Ordering::SeqCst);
    }
}

/// Returns the numbers of the sessions in a restored directory, by writer.
async fn restored_sessions(folder: &Path) -> BTreeMap<u64, Vec<u64>> {
    let rows = ["--space", "workspace_sessions", "--limit", "1000000", "--json"];
    let (shown, _) = succeeds(verb("inspect", folder, &rows)).await;
    let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in shown.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let session = &row["value"];
        let writer = session["settings"]["writer"].as_u64().unwrap();
        found.entry(writer).or_default().push(session["name"].as_str().unwrap().parse().unwrap());
    }
    for numbers in found.values_mut() {
        numbers.sort_unstable();
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn backup_under_load_is_a_consistent_snapshot() {
    const WRITERS: usize = 4;

    if folder::is_about_the_folder() {
        return;
    }

    let (folder, other) = (Folder::new(), Folder::new());
    let server = Process::start(on(folder.path(), &["--log-level", "warn"])).await;
    let counters: Vec<Arc<AtomicU64>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let mut writing = JoinSet::new();
    for (writer, counter) in counters.iter().enumerate() {
        writing.spawn(create_sessions(server.address, writer, Arc::clone(counter)));
    }
    let all = |least: u64| counters.iter().all(|counter| counter.load(Ordering::SeqCst) >= least);
    let mut taken = Vec::new();
    for round in 1..=4_u64 {
        while !all(round * 20) {
            sleep(Duration::from_millis(5)).await;
        }
        let before: Vec<u64> =
            counters.iter().map(|counter| counter.load(Ordering::SeqCst)).collect();
        let file = other.path().join(format!("{round}.archive"));
        let name = if round % 2 == 0 { "export" } else { "backup" };
        succeeds(verb(name, folder.path(), &[path(&file)])).await;
        taken.push((before, file));
    }
    // The other subcommands report that the store is in use.
    for name in ["check", "inspect"] {
        let said = fails(verb(name, folder.path(), &[])).await;
        assert!(said.contains("in use by another process"), "{said}");
    }
    assert!(server.kill().await.status.code().is_none());
    writing.join_all().await;

    for (round, (before, file)) in taken.iter().enumerate() {
        let restored = other.path().join(format!("restored {round}"));
        succeeds(verb("import", &restored, &[path(file)])).await;
        let (found, _) = succeeds(verb("check", &restored, &[])).await;
        assert_eq!(found, "");
        let sessions = restored_sessions(&restored).await;
        for (writer, acknowledged) in (0_u64..).zip(before) {
            // Each writer waits for its responses, so its sessions are a prefix of its writes.
            let numbers = &sessions[&writer];
            let there = numbers.len() as u64;
            assert_eq!(*numbers, (0..there).collect::<Vec<u64>>(), "writer {writer}");
            assert!(there >= *acknowledged, "{there} of {acknowledged} of writer {writer}");
        }
    }
}

#[tokio::test]
async fn admin_socket_is_private_and_removed_on_exit() {
    use std::os::unix::fs::PermissionsExt;

    if folder::is_about_the_folder() {
        return;
    }

    let folder = Folder::new();
    let door = folder.path().join("control.sock");
    let server = Process::start(on(folder.path(), &[])).await;
    assert_eq!(fs::metadata(&door).unwrap().permissions().mode() & 0o777, 0o600);
    // An invalid request is refused, and the next one is served.
    let refusal = tokio::task::spawn_blocking({
        let door = door.clone();
        move || {
            use std::io::{Read, Write};
            let mut stream = std::os::unix::net::UnixStream::connect(door).unwrap();
            stream.write_all(b"erase all\n").unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            reply
        }
    });
    assert_eq!(refusal.await.unwrap(), "error invalid request\n");
    let nobody = TenantId::new().to_string();
    let said = fails(verb("export", folder.path(), &["-", "--tenant", &nobody])).await;
    assert!(said.contains("the tenant does not exist"), "{said}");
    server.terminate().await;
    assert!(!door.exists());

    // A killed server leaves the socket behind, which does not matter.
    Process::start(on(folder.path(), &[])).await.kill().await;
    assert!(door.exists());
    let file = folder.path().join("archive");
    succeeds(verb("export", folder.path(), &[path(&file)])).await;
    let server = Process::start(on(folder.path(), &[])).await;
    let again = folder.path().join("again");
    succeeds(verb("export", folder.path(), &[path(&again)])).await;
    server.terminate().await;
}

#[tokio::test]
async fn shutdown_during_an_export_leaves_no_archive() {
    if folder::is_about_the_folder() {
        return;
    }
    let (folder, other) = (Folder::new(), Folder::new());
    filled(folder.path(), 3_000).await;
    let server = Process::start(on(folder.path(), &[])).await;
    // A client that does not read blocks the export, since more is written than a socket buffers.
    let mut slow =
        std::os::unix::net::UnixStream::connect(folder.path().join("control.sock")).unwrap();
    io::Write::write_all(&mut slow, b"export\n").unwrap();
    let mut begun = [0; 27];
    io::Read::read_exact(&mut slow, &mut begun).unwrap();
    let file = other.path().join("archive");
    // The next request waits and is then refused.
    let waiting = tokio::spawn(ended(verb("backup", folder.path(), &[path(&file)])));
    sleep(Duration::from_millis(300)).await;
    assert_eq!(server.terminate().await.status.code(), Some(0), "it does not wait for them");
    let (code, _, said) = waiting.await.unwrap();
    assert_eq!(code, 1, "{said}");
    assert_eq!(names(other.path()), [] as [&str; 0]);
    let mut rest = Vec::new();
    io::Read::read_to_end(&mut slow, &mut rest).ok();
    let cut = [&begun[3..], &rest].concat();
    let error = archive::verify(cut.as_slice(), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
}

/// Returns the duration of an undisturbed run.
async fn time_of(command: Command) -> Duration {
    let begun = Instant::now();
    succeeds(command).await;
    begun.elapsed()
}

/// Kills the command after `time`; returns whether it completed before.
async fn killed(mut command: Command, time: Duration) -> bool {
    let mut child = command.spawn().unwrap();
    if let Ok(ended) = timeout(time, child.wait()).await {
        assert!(ended.unwrap().success());
        return true;
    }
    child.start_kill().unwrap();
    child.wait().await.unwrap();
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_export_leaves_no_archive_and_can_be_repeated() {
    if folder::is_about_the_folder() {
        return;
    }
    let (folder, other) = (Folder::new(), Folder::new());
    filled(folder.path(), 6_000).await;
    let whole = other.path().join("whole");
    let time = time_of(verb("export", folder.path(), &[path(&whole)])).await;
    let rows = summary(&whole).await.rows;
    let file = other.path().join("archive");
    for part in 1..=6 {
        let _ = fs::remove_file(&file);
        let faster = killed(verb("export", folder.path(), &[path(&file)]), time * part / 7).await;
        assert!(file.exists() || !faster);
        if file.exists() {
            assert_eq!(summary(&file).await.rows, rows, "it was whole when it got its name");
            fs::remove_file(&file).unwrap();
        }
        let left: Vec<String> =
            names(other.path()).into_iter().filter(|name| name != "whole").collect();
        let is_part = |name: &String| name.starts_with(".archive.") && name.contains(".part");
        assert!(left.iter().all(is_part), "{left:?}");
        succeeds(verb("export", folder.path(), &[path(&file)])).await;
        assert_eq!(summary(&file).await.rows, rows);
    }
    let (found, _) = succeeds(verb("check", folder.path(), &[])).await;
    assert_eq!(found, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_import_blocks_the_store_and_can_be_resumed() {
    let (folder, other) = (Folder::new(), Folder::new());
    filled(folder.path(), 12_000).await;
    let file = other.path().join("archive");
    succeeds(verb("export", folder.path(), &[path(&file)])).await;
    let first = other.path().join("first");
    let time = time_of(verb("import", &first, &[path(&file)])).await;
    // An import adds the high-water mark of versionstamps if no event was appended before.
    let copy = other.path().join("copy");
    succeeds(verb("export", &first, &[path(&copy)])).await;
    let rows = summary(&copy).await.rows;
    let mut unfinished = 0;
    for part in 1..=7 {
        let target = other.path().join(format!("data {part}"));
        killed(verb("import", &target, &[path(&file)]), time * part / 8).await;
        let (code, found, said) = ended(verb("check", &target, &[])).await;
        let whole = code == 0;
        if !whole && !said.contains("no store in") {
            assert_eq!(code, 1, "{found}{said}");
            assert!(said.contains("run it again with the same archive"), "{said}");
            let server = refused(on(&target, &[])).await;
            assert!(server.stderr.contains("run it again"), "{}", server.stderr);
            unfinished += 1;
        }
        let again = verb("import", &target, &[path(&file)]);
        if whole {
            assert!(fails(again).await.contains("the database is not empty"));
        } else {
            succeeds(again).await;
        }
        let again = other.path().join(format!("again {part}"));
        succeeds(verb("export", &target, &[path(&again)])).await;
        assert_eq!(summary(&again).await.rows, rows);
        let (found, _) = succeeds(verb("check", &target, &[])).await;
        assert_eq!(found, "");
    }
    assert!(unfinished > 0, "none was killed on its way");
}

#[tokio::test]
async fn signal_stops_a_subcommand_with_a_hint() {
    if folder::is_about_the_folder() {
        return;
    }
    for signal in ["-INT", "-TERM"] {
        let folder = Folder::new();
        let mut command = verb("import", &folder.path().join("data"), &["-"]);
        // Stdin stays open without input.
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let _open = child.stdin.take();
        while !folder.path().join("data/store.redb").exists() {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(100)).await;
        let id = child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
        let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
        let (code, _, said) = told(output);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("run the import again"), "{said}");
    }
}

#[tokio::test]
async fn check_with_faults_lists_them_and_exits_with_three() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    let tenant = filled(folder.path(), 20).await;
    let store = Store::open(folder::database(folder.path())).await.unwrap();
    let tx = store.begin();
    let unknown = store.root().key(&(tenant, "sketches".to_owned()));
    tx.engine().set(&unknown, b"x");
    let by_email = store.root().key(&("users_by_email".to_owned(), EMAIL.to_owned()));
    tx.engine().clear(&by_email);
    tx.commit().await.unwrap();
    store.database().close().await;
    drop((tx, store));
    let (code, found, said) = ended(verb("check", folder.path(), &[])).await;
    assert_eq!(code, 3, "{said}");
    assert!(found.contains(&format!("({tenant}, \"sketches\"): ")), "{found}");
    assert!(found.contains("index users_by_email"), "{found}");
    assert_eq!(found.lines().count(), 2, "{found}");

    let (code, found, said) = ended(verb("check", folder.path(), &["--repair"])).await;
    assert_eq!((code, found.lines().count()), (3, 2), "{said}");
    assert!(said.contains("1 repaired"), "{said}");
    let (code, found, _) = ended(verb("check", folder.path(), &[])).await;
    assert_eq!((code, found.lines().count()), (3, 1), "what no record says is left: {found}");
}

#[tokio::test]
async fn damaged_high_water_mark_is_refused_until_it_is_repaired() {
    let folder = Folder::new();
    filled(folder.path(), 20).await;
    let store = Store::open(folder::database(folder.path())).await.unwrap();
    let mark = store.root().key(&("meta".to_owned(), "last_append".to_owned()));
    let tx = store.begin();
    tx.engine().set(&mark, b"\x33\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0");
    tx.commit().await.unwrap();
    store.database().close().await;
    drop((tx, store));
    let error = refused(program(&["--listen", "127.0.0.1:0"], folder.path())).await.stderr;
    assert!(error.contains("check --repair"), "{error}");
    let (code, found, said) = ended(verb("check", folder.path(), &[])).await;
    assert_eq!((code, found.lines().count()), (3, 1), "{said}");
    assert!(found.contains("(\"meta\", \"last_append\")"), "{found}");
    let (code, _, said) = ended(verb("check", folder.path(), &["--repair"])).await;
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("1 faults, 1 repaired"), "{said}");
    succeeds(verb("check", folder.path(), &[])).await;
}

#[tokio::test]
async fn store_without_its_log_is_refused_until_the_loss_is_accepted() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    filled(folder.path(), 20).await;
    let store = Store::open(folder::database(folder.path())).await.unwrap();
    let tx = store.begin();
    tx.engine().set(&store.root().key(&("after".to_owned(),)), b"x");
    tx.commit().await.unwrap();
    // The folder as a kill leaves it.
    let killed = Folder::new();
    let is_log = |name: &str| name.starts_with("log-");
    for name in names(folder.path()) {
        fs::copy(folder.path().join(&name), killed.path().join(&name)).unwrap();
    }
    store.database().close().await;
    let logs = names(killed.path()).into_iter().filter(|name| is_log(name));
    logs.for_each(|name| fs::remove_file(killed.path().join(name)).unwrap());

    let error = refused(program(&["--listen", "127.0.0.1:0"], killed.path())).await.stderr;
    assert!(error.contains("of the WAL is missing"), "{error}");
    for arguments in [&[][..], &["--repair"]] {
        let (code, found, errors) = ended(verb("check", killed.path(), arguments)).await;
        assert_eq!(code, 3, "{errors}");
        assert!(found.contains("of the WAL is missing"), "{found}");
        assert!(found.contains("check --repair --accept-data-loss"), "{found}");
    }
    assert!(!names(killed.path()).iter().any(|name| is_log(name)), "a log was made");
    let accepted = ["--repair", "--accept-data-loss"];
    let (code, _, errors) = ended(verb("check", killed.path(), &accepted)).await;
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("is missing"), "{errors}");
    succeeds(verb("check", killed.path(), &[])).await;

    fs::remove_file(folder.path().join("store.redb")).unwrap();
    let (code, found, errors) = ended(verb("check", folder.path(), &[])).await;
    assert_eq!(code, 3, "{errors}");
    assert!(found.contains("store.redb is missing"), "{found}");
}

#[tokio::test]
async fn inspection_shows_rows_without_secrets() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    let tenant = filled(folder.path(), 20).await.to_string();
    let (table, _) = succeeds(verb("inspect", folder.path(), &[])).await;
    let sessions = table.lines().find(|line| line.starts_with("workspace_sessions ")).unwrap();
    assert_eq!(sessions.split_ascii_whitespace().nth(1), Some("20"));
    let (overview, _) = succeeds(verb("inspect", folder.path(), &["--json"])).await;
    let overview: Value = serde_json::from_str(&overview).unwrap();
    assert_eq!((&overview["tenants"], &overview["engine"]), (&json!(1), &json!("embedded")));
    assert_eq!(overview["indexes"]["users_by_email"], "readable");

    let (all, _) = succeeds(verb("inspect", folder.path(), &["--tenant", &tenant])).await;
    assert!(all.contains(EMAIL) && all.contains("\"password_hash\":\"(secret)\""), "{all}");
    assert!(!all.contains("argon2id"), "{all}");
    let few = ["--space", "workspace_sessions", "--limit", "3"];
    let (few, _) = succeeds(verb("inspect", folder.path(), &few)).await;
    assert_eq!(few.lines().count(), 3);
    // Names of users must not control the terminal.
    let hidden = "\u{202e}evil\u{9b}2J\u{e0041}";
    let store = Store::open(folder::database(folder.path())).await.unwrap();
    let id: TenantId = tenant.parse().unwrap();
    let name = |tx: coditect_store::Transaction| async move {
        tx.modify::<Tenant>(id, (), |tenant| hidden.clone_into(&mut tenant.name)).await
    };
    store.run(name).await.unwrap();
    store.database().close().await;
    drop(store);
    for flags in [&["--space", "tenant"][..], &["--space", "tenant", "--json"]] {
        let (rows, _) = succeeds(verb("inspect", folder.path(), flags)).await;
        assert!(rows.contains(r"\u202eevil\u009b2J\udb40\udc41"), "{rows}");
        assert!(!rows.contains(['\u{202e}', '\u{9b}', '\u{e0041}']), "{rows}");
    }
    let said = fails(verb("inspect", folder.path(), &["--space", "sketches"])).await;
    assert!(said.contains("sketches"), "{said}");
}
