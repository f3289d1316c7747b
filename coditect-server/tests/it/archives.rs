//! Archives with the real program: pipes, a tenant moved to another store, and refused imports.

use std::{
    fs,
    path::{Path, PathBuf},
};

use coditect_store::Store;
use tokio::time::timeout;

use crate::{
    client::PATIENCE,
    folder::{self, Folder},
    operator::{EMAIL, fails, filled, path, succeeds, verb},
};

#[tokio::test]
async fn archives_work_with_pipes() {
    let (folder, other) = (Folder::new(), Folder::new());
    let tenant = filled(folder.path(), 50).await;
    let mut export = verb("export", folder.path(), &["-"]);
    let archive = timeout(PATIENCE, export.output()).await.unwrap().unwrap().stdout;
    let file = other.path().join("archive");
    fs::write(&file, &archive).unwrap();
    let restored = other.path().join("data");
    let mut import = verb("import", &restored, &["-"]);
    import.stdin(fs::File::open(&file).unwrap());
    succeeds(import).await;
    let sessions = ["--space", "workspace_sessions", "--tenant", &tenant.to_string()];
    let (shown, _) = succeeds(verb("inspect", &restored, &sessions)).await;
    assert_eq!(shown.lines().count(), 50);
}

#[tokio::test]
async fn tenant_is_moved_to_another_store() {
    let (from, to) = (Folder::new(), Folder::new());
    let tenant = filled(from.path(), 30).await.to_string();
    filled_other(to.path()).await;
    let file = from.path().join("tenant.archive");
    succeeds(verb("export", from.path(), &[path(&file), "--tenant", &tenant])).await;
    succeeds(verb("import", to.path(), &[path(&file)])).await;
    let (found, _) = succeeds(verb("check", to.path(), &[])).await;
    assert_eq!(found, "");
    let (shown, _) = succeeds(verb("inspect", to.path(), &["--space", "users_by_email"])).await;
    assert!(shown.contains(EMAIL) && shown.contains(&tenant), "{shown}");
}

async fn filled_other(folder: &Path) {
    let store = Store::open(folder::database(folder)).await.unwrap();
    store.database().close().await;
}

#[tokio::test]
async fn import_with_a_taken_address_fails_and_can_be_rolled_back() {
    let (from, to) = (Folder::new(), Folder::new());
    let tenant = filled(from.path(), 3).await.to_string();
    filled(to.path(), 3).await;
    let file = from.path().join("tenant.archive");
    succeeds(verb("export", from.path(), &[path(&file), "--tenant", &tenant])).await;
    let said = fails(verb("import", to.path(), &[path(&file)])).await;
    assert!(said.contains("users_by_email"), "{said}");
    succeeds(verb("check", to.path(), &[])).await;
    // A pipe cannot be read twice, so the conflict is found during the import.
    let mut import = verb("import", to.path(), &["-"]);
    import.stdin(fs::File::open(&file).unwrap());
    assert!(fails(import).await.contains("users_by_email"));
    let said = fails(verb("check", to.path(), &[])).await;
    assert!(said.contains("run it again"), "{said}");
    succeeds(verb("import", to.path(), &["--rollback"])).await;
    let (found, _) = succeeds(verb("check", to.path(), &[])).await;
    assert_eq!(found, "");
}

#[tokio::test]
async fn existing_files_and_stores_are_not_overwritten() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    filled(folder.path(), 3).await;
    let file = folder.path().join("archive");
    fs::write(&file, "something else").unwrap();
    for name in ["export", "backup"] {
        let said = fails(verb(name, folder.path(), &[path(&file)])).await;
        assert!(said.contains("exists"), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "something else");
    let sound: PathBuf = folder.path().join("sound");
    succeeds(verb("export", folder.path(), &[path(&sound)])).await;
    let said = fails(verb("import", folder.path(), &[path(&sound)])).await;
    assert!(said.contains("the database is not empty"), "{said}");
}

#[tokio::test]
async fn damaged_archive_creates_nothing() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    filled(folder.path(), 3).await;
    let file = folder.path().join("archive");
    succeeds(verb("export", folder.path(), &[path(&file)])).await;
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let target = folder.path().join("data");
    let said = fails(verb("import", &target, &[path(&file)])).await;
    assert!(said.contains("the archive is damaged at byte"), "{said}");
    assert!(!target.exists());
}
