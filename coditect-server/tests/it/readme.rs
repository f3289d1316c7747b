//! The walk-through of the README, literally, with the real program; only the address differs.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::{
    folder::Folder,
    process::{Process, on},
};

/// Returns the shell blocks below the heading `## A walk through` of the README.
fn blocks() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (_, section) = readme.split_once("## A walk through\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

fn shell(script: &str) -> Output {
    Command::new("sh").args(["-eu", "-c", script]).output().unwrap()
}

#[tokio::test]
async fn walk_through_of_the_readme_works_and_survives_a_restart() {
    if !shell("command -v curl && command -v sed").status.success() {
        eprintln!("skipped: there is no curl or no sed on this machine");
        return;
    }
    let blocks = blocks();
    assert_eq!(blocks.len(), 2, "what to do before the restart, and after it");
    let base = |program: &Process| format!("BASE=http://{}/api/v5", program.address);
    let folder = Folder::new();

    let before = Process::start(on(folder.path(), &[])).await;
    let (address, commands) = blocks[0].split_once('\n').unwrap();
    assert_eq!(address, "BASE=http://127.0.0.1:8080/api/v5");
    let script = format!("{}\n{commands}\necho\necho \"$TOKEN\"", base(&before));
    let output = tokio::task::spawn_blocking(move || shell(&script)).await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains(r#""email":"test@example.com""#), "{told}");
    assert_eq!(told.matches(r#""workspace_path":"/workspace/test-project""#).count(), 2, "{told}");
    assert!(!told.contains(r#""success":false"#), "{told}");
    let token = told.lines().last().unwrap().to_owned();
    before.kill().await;

    let after = Process::start(on(folder.path(), &[])).await;
    let script = format!("{}\nTOKEN={token}\n{}", base(&after), blocks[1]);
    let output = tokio::task::spawn_blocking(move || shell(&script)).await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains(r#""name":"Test Project""#), "{told}");
}
