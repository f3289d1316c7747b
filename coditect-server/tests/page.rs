//! The page and its client in headless Chromium with the real program: `npm test` in `frontend/`.
//!
//! A separate binary, so that a browser does not compete with all other tests. Needs node, Chromium
//! and the packages of `npm ci`; without them it is reported as skipped, unless
//! `CODITECT_ALL_TOOLS` is set, as in CI.

use std::{env, path::Path, process::Command};

#[test]
fn page_and_client_pass_their_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("frontend");
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let missing = [
        ("node", has("node")),
        ("npm", has("npm")),
        ("Chromium at /usr/bin/chromium", Path::new("/usr/bin/chromium").exists()),
        ("what `npm ci` installs", folder.join("node_modules").exists()),
    ]
    .into_iter()
    .find_map(|(name, is_there)| (!is_there).then_some(name));
    if let Some(missing) = missing {
        assert!(env::var_os("CODITECT_ALL_TOOLS").is_none(), "there is no {missing}");
        println!("skipped: the page is not tested, there is no {missing}");
        return;
    }
    for script in ["check", "test"] {
        let ran = Command::new("npm")
            .args(["run", "--silent", script])
            .current_dir(&folder)
            .env("CODITECT_SERVER", env!("CARGO_BIN_EXE_coditect-server"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    }
}
