//! Data on which the program refuses to start, without changing it.

use std::{fs, path::Path};

use crate::{
    account::{Device, LOGIN, PASSWORD, credentials},
    client::call,
    folder::{self, Folder},
    process::{Process, on, program, refused},
};

const EMAIL: &str = "ada@example.org";
const STORE: &str = "store.redb";

/// Creates a store with one account in `folder` and stops the program.
async fn filled(folder: &Path) -> Device {
    let server = Process::start(on(folder, &[])).await;
    let device = Device::register(server.address, EMAIL).await;
    assert_eq!(server.terminate().await.status.code(), Some(0));
    device
}

#[tokio::test]
async fn second_server_on_a_directory_is_refused() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    let first = Process::start(on(folder.path(), &[])).await;
    let device = Device::register(first.address, EMAIL).await;
    for _ in 0..2 {
        let second = refused(on(folder.path(), &[])).await;
        assert_eq!(second.status.code(), Some(1));
        assert!(second.stderr.contains("in use by another process"), "{}", second.stderr);
    }
    device.refreshed(first.address).await.expect_alive(first.address).await;
    Device::register(first.address, "eve@example.org").await;
    first.kill().await;

    let next = Process::start(on(folder.path(), &[])).await;
    device.expect_alive(next.address).await;
}

#[tokio::test]
async fn damaged_file_is_refused_and_unchanged() {
    if folder::is_about_the_folder() {
        return;
    }
    let sound = Folder::new();
    filled(sound.path()).await;
    let bytes = fs::read(sound.path().join(STORE)).unwrap();
    let key = fs::read(sound.path().join("master.key")).unwrap();
    let with = |range: std::ops::Range<usize>, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[range].fill(byte);
        bytes
    };
    #[rustfmt::skip]
    let table = [
        ("garbage",                b"this is no store".repeat(4_096)),
        ("a few bytes",            b"x".to_vec()),
        ("all zeros",              vec![0; bytes.len()]),
        ("its header zeroed",      with(0..512, 0)),
        ("its header overwritten", with(0..512, 0xa5)),
        ("its end cut off",        bytes[..bytes.len() / 2].to_vec()),
        ("only its header left",   bytes[..512].to_vec()),
    ];
    for (damage, damaged) in table {
        let folder = Folder::new();
        let file = folder.path().join(STORE);
        fs::write(&file, &damaged).unwrap();
        let kept = folder.path().join("master.key");
        fs::copy(sound.path().join("master.key"), &kept).unwrap();
        let ended = refused(on(folder.path(), &[])).await;
        assert_eq!(ended.status.code(), Some(1), "{damage}: {}", ended.stderr);
        let told = ended.stderr.lines().last().unwrap_or_default();
        assert!(told.contains("damaged") && told.contains(STORE), "{damage}: {}", ended.stderr);
        assert!(fs::read(&file).unwrap() == damaged, "{damage}: the file was changed");
        assert!(fs::read(&kept).unwrap() == key);
    }
}

#[tokio::test]
async fn lost_store_beside_its_master_key_is_refused() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    let device = filled(folder.path()).await;
    let archive = Folder::new();
    let archive = archive.path().join("archive");
    let archive = archive.to_str().unwrap();
    let verb = |subcommand: &[&str], folder: &Path, arguments: &[&str]| {
        let mut command = program(subcommand, folder);
        command.args(arguments);
        command
    };
    let backed_up = verb(&["backup"], folder.path(), &[archive]).output().await.unwrap();
    assert!(backed_up.status.success(), "{backed_up:?}");
    let names = || {
        let entries = fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    for name in names().iter().filter(|name| *name != "master.key") {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let unwritten = folder.path().join("unwritten.archive");
    let refusal = "and no store: put store.redb and the files of its log back";
    let ended = refused(on(folder.path(), &[])).await;
    assert!(ended.stderr.contains(refusal), "{}", ended.stderr);
    let subcommands = [
        (&["check"][..], &[][..]),
        (&["check"], &["--repair", "--accept-data-loss"]),
        (&["inspect"], &[]),
        (&["export"], &["-"]),
        (&["backup"], &[unwritten.to_str().unwrap()]),
        (&["user", "list"], &[]),
        (&["keys", "list"], &[]),
        (&["import"], &["--rollback"]),
    ];
    for (subcommand, arguments) in subcommands {
        let ended = verb(subcommand, folder.path(), arguments).output().await.unwrap();
        // A check prints it as a finding.
        let told = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
        let code = if subcommand == ["check"] { 3 } else { 1 };
        assert_eq!(ended.status.code(), Some(code), "{subcommand:?}: {told}");
        assert!(told.contains(refusal), "{subcommand:?}: {told}");
    }
    assert_eq!(names(), ["master.key"], "nothing was created");

    let restored = verb(&["import"], folder.path(), &[archive]).output().await.unwrap();
    assert!(restored.status.success(), "{restored:?}");
    let server = Process::start(on(folder.path(), &[])).await;
    device.refreshed(server.address).await;
    server.kill().await;
    // A new folder has no key.
    let new = Folder::new();
    Process::start(on(new.path(), &[])).await.kill().await;
}

#[tokio::test]
async fn wrong_master_key_is_refused() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let folder = Folder::new();
    let device = filled(folder.path()).await;
    let right = fs::read_to_string(folder.path().join("master.key")).unwrap();
    let other = "ab".repeat(32);
    for wrong in [other.as_str(), "", "short", "not a key at all, whatever one does"] {
        let mut command = on(folder.path(), &[]);
        command.env("CODITECT_MASTER_KEY", wrong);
        let ended = refused(command).await;
        assert_eq!(ended.status.code(), Some(1), "{wrong}: {}", ended.stderr);
        assert!(ended.stderr.contains("master key"), "{wrong}: {}", ended.stderr);
        assert!(wrong.is_empty() || !ended.stderr.contains(wrong));
    }
    let mut command = on(folder.path(), &[]);
    command.env("CODITECT_MASTER_KEY", OsStr::from_bytes(b"\xff"));
    let ended = refused(command).await;
    assert!(ended.stderr.contains("master key"), "{}", ended.stderr);

    let mut command = on(folder.path(), &[]);
    command.env("CODITECT_MASTER_KEY", right.trim());
    let server = Process::start(command).await;
    device.expect_alive(server.address).await;
    server.kill().await;

    let (file, elsewhere) = (folder.path().join("master.key"), folder.path().join("elsewhere"));
    fs::rename(&file, &elsewhere).unwrap();
    let lost = refused(on(folder.path(), &[])).await;
    assert!(lost.stderr.contains("master key"), "{}", lost.stderr);
    fs::rename(&elsewhere, &file).unwrap();
    let server = Process::start(on(folder.path(), &[])).await;
    device.refreshed(server.address).await;
    assert_eq!(call(server.address, credentials(LOGIN, EMAIL, PASSWORD)).await.status, 200);
}

#[tokio::test]
async fn readable_master_key_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    filled(folder.path()).await;
    let file = folder.path().join("master.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = refused(on(folder.path(), &[])).await;
    assert!(ended.stderr.contains("mode 644; make it 600"), "{}", ended.stderr);
}
