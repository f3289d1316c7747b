//! The file of settings, as the program heeds it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::{
    client::{Call, call},
    folder::{self, Folder},
    process::Process,
};

/// The program in `folder`, which may have a `coditect.toml`.
fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coditect-server"));
    command.args(arguments).current_dir(folder).env_remove("CODITECT_MASTER_KEY");
    command
}

fn told(output: &Output) -> (String, String, i32) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

fn effective(mut command: Command) -> String {
    let (stdout, stderr, code) = told(&command.output().unwrap());
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    stdout
}

#[test]
fn a_flag_is_stronger_than_its_variable_than_the_file_than_the_default() {
    let folder = Folder::new();
    let file =
        "access-ttl = \"1m\"\nrefresh-grace = \"2s\"\nlisten = \"127.0.0.1:1\"\ncookies = true\n";
    fs::write(folder.path().join("coditect.toml"), file).unwrap();
    let mut command = program(folder.path(), &["config", "--access-ttl", "3m"]);
    command.env("CODITECT_ACCESS_TTL", "2m").env("CODITECT_REFRESH_GRACE", "4s");
    let effective = effective(command);
    for line in [
        "access-ttl = \"3m\" # --access-ttl",
        "refresh-grace = \"4s\" # CODITECT_REFRESH_GRACE",
        "listen = \"127.0.0.1:1\" # coditect.toml:3",
        "cookies = true # coditect.toml:4",
        "ephemeral = false # default",
        "max-sessions = 10000 # default",
        "metrics-from = [\"127.0.0.0/8\", \"::1\"] # default",
        "# frontend is not set",
    ] {
        assert!(effective.lines().any(|it| it == line), "{line} is not in {effective}");
    }
}

#[test]
fn a_switch_of_the_file_is_turned_off_by_its_variable() {
    let folder = Folder::new();
    fs::write(folder.path().join("coditect.toml"), "cookies = true").unwrap();
    let mut command = program(folder.path(), &["config"]);
    command.env("CODITECT_COOKIES", "false");
    assert!(effective(command).contains("cookies = false # CODITECT_COOKIES"));
}

#[test]
fn the_effective_settings_are_a_file_that_says_the_same() {
    let folder = Folder::new();
    let flags = ["config", "--allowed-origin", "https://a.example,http://b.example:1", "--cookies"];
    let first = effective(program(folder.path(), &flags));
    fs::write(folder.path().join("other.toml"), &first).unwrap();
    let second = effective(program(folder.path(), &["config", "--config", "other.toml"]));
    let values = |text: &str| {
        let values = text.lines().map(|line| line.rsplit_once(" # ").map_or(line, |it| it.0));
        values.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(values(&first), values(&second));
    assert!(second.contains("allowed-origin = [\"https://a.example\", \"http://b.example:1\"]"));
}

#[test]
fn secrets_are_not_shown() {
    let folder = Folder::new();
    let mut command = program(folder.path(), &["config"]);
    command.env("CODITECT_MASTER_KEY", "very-secret").env("CODITECT_PEPPER", "very-secret");
    let effective = effective(command);
    assert!(!effective.contains("very-secret"), "{effective}");
    assert!(effective.contains("# CODITECT_MASTER_KEY is set, and not shown"), "{effective}");
}

#[test]
fn a_wrong_file_is_refused_with_its_line_by_every_verb() {
    let folder = Folder::new();
    fs::write(folder.path().join("coditect.toml"), "\nacces-ttl = \"1m\"").unwrap();
    for verb in [&[][..], &["serve"], &["config"], &["check"], &["user", "list"]] {
        let (stdout, stderr, code) = told(&program(folder.path(), verb).output().unwrap());
        let refusal = "coditect-server: coditect.toml:2: there is no setting acces-ttl\n";
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (2, "", refusal), "{verb:?}");
    }
    let missing = ["serve", "--config", "nowhere.toml"];
    let (_, stderr, code) = told(&program(folder.path(), &missing).output().unwrap());
    assert_eq!(code, 2);
    assert!(stderr.contains("--config: nowhere.toml cannot be read"), "{stderr}");
}

#[test]
fn the_folder_of_the_file_is_every_verbs() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    fs::write(folder.path().join("coditect.toml"), "data = \"./elsewhere\"").unwrap();
    for verb in [&["check"][..], &["user", "list"], &["backup", "b.archive"]] {
        let (_, stderr, code) = told(&program(folder.path(), verb).output().unwrap());
        assert_eq!(code, 1);
        assert!(stderr.contains("no store in ./elsewhere"), "{verb:?}: {stderr}");
    }
    let flag = ["check", "--data", "./third"];
    let (_, stderr, _) = told(&program(folder.path(), &flag).output().unwrap());
    assert!(stderr.contains("no store in ./third"), "{stderr}");
}

#[tokio::test]
async fn the_program_serves_as_its_file_says() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    let file =
        "listen = \"127.0.0.1:0\"\nephemeral = true\nallowed-origin = [\"https://a.example\"]\n";
    fs::write(folder.path().join("settings.toml"), file).unwrap();
    let command = program(folder.path(), &["--config", "settings.toml"]);
    let mut command = tokio::process::Command::from(command);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command.kill_on_drop(true);
    let process = Process::start(command).await;
    let health = Call::get("/api/v5/health").header("Origin", "https://a.example");
    let answer = call(process.address, health).await;
    assert_eq!(answer.data()["engine"], "memory");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    process.kill().await;
}

/// What the program says of arguments and variables that it refuses.
fn refusal(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = program(folder, arguments);
    command.envs(variables.iter().copied());
    let (stdout, stderr, code) = told(&command.output().unwrap());
    assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?} {variables:?}: {stderr}");
    stderr
}

#[test]
fn settings_that_would_be_ignored_are_refused() {
    let folder = Folder::new();
    for (arguments, variables, named) in [
        (&["--ephemeral", "--data", "d"][..], &[][..], "--data means nothing with --ephemeral"),
        (&["serve", "--ephemeral", "--data", "d"], &[], "--data means nothing"),
        (&[], &[("CODITECT_EPHEMERAL", "1"), ("CODITECT_DATA", "d")], "--data means nothing"),
        (&["--data", "d"], &[("CODITECT_EPHEMERAL", "1")], "--data means nothing"),
        (&["--cookie-prefix", "x"], &[], "--cookie-prefix means nothing without --cookies"),
        (
            &["--forwarded-header", "forwarded"],
            &[],
            "--forwarded-header means nothing without --trusted-proxy",
        ),
        (&["inspect", "--limit", "7"], &[], "--limit is for rows"),
        (&["inspect", "--limit", "0", "--space", "users"], &[], "--limit"),
        (
            &["health", "--url", "http://a", "--listen", "127.0.0.1:1"],
            &[],
            "--listen means nothing with --url",
        ),
        (&["health", "--url", "http://a", "--tls-cert", "c"], &[], "--tls-cert means nothing"),
    ] {
        let refusal = refusal(folder.path(), arguments, variables);
        assert!(refusal.contains(named), "{refusal}");
    }
    fs::write(folder.path().join("coditect.toml"), "data = \"d\"\nephemeral = true").unwrap();
    let refusal = refusal(folder.path(), &[], &[]);
    assert!(refusal.contains("--data means nothing with --ephemeral"), "{refusal}");
}

#[test]
fn switch_for_the_time_being_goes_over_what_is_set_up() {
    let folder = Folder::new();
    fs::write(folder.path().join("coditect.toml"), "data = \"d\"").unwrap();
    let effective = effective(program(folder.path(), &["config", "--ephemeral"]));
    assert!(effective.contains("ephemeral = true # --ephemeral"), "{effective}");
}

#[test]
fn settings_of_a_cluster_are_refused_without_one() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    for command in [&[][..], &["serve"], &["config"], &["check"], &["user", "list"]] {
        for (flag, value) in [("--cluster-prefix", "x/"), ("--cluster-trace", "t")] {
            let arguments = [command, &[flag, value]].concat();
            let refusal = refusal(folder.path(), &arguments, &[]);
            let expected = format!("{flag} means nothing without --cluster-file");
            assert!(refusal.contains(&expected), "{refusal}");
        }
    }
}

#[cfg(not(feature = "fdb"))]
#[test]
fn cluster_is_refused_by_a_program_that_was_built_without_it() {
    let folder = Folder::new();
    for command in [&[][..], &["serve"], &["check"], &["backup", "b.archive"], &["keys", "list"]] {
        let arguments = [command, &["--cluster-file", "fdb.cluster"]].concat();
        let refused = refusal(folder.path(), &arguments, &[]);
        assert!(refused.contains("--features fdb"), "{refused}");
        let variable = [("CODITECT_FDB_CLUSTER_FILE", "fdb.cluster")];
        assert!(refusal(folder.path(), command, &variable).contains("--features fdb"));
    }
}

#[test]
fn misspelt_log_level_is_refused_by_name() {
    let folder = Folder::new();
    for (arguments, variables) in [
        (&["--log-level", "wran"][..], &[][..]),
        (&["serve", "--log-level", "info,wran"], &[]),
        (&[], &[("CODITECT_LOG_LEVEL", "wran")]),
    ] {
        let refusal = refusal(folder.path(), arguments, variables);
        assert!(
            refusal.contains("--log-level") && refusal.contains("`wran` is no level"),
            "{refusal}"
        );
    }
}
