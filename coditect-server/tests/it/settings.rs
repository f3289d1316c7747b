//! The settings file of the program.

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

/// Returns a command of the program in `folder`, which may have a `coditect.toml`.
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
fn flag_overrides_variable_overrides_file_overrides_default() {
    let folder = Folder::new();
    let file = "access-token-ttl = \"1m\"\nrefresh-grace = \"2s\"\n\
        listen = \"127.0.0.1:1\"\ncookies = true\n";
    fs::write(folder.path().join("coditect.toml"), file).unwrap();
    let mut command = program(folder.path(), &["config", "--access-token-ttl", "3m"]);
    command.env("CODITECT_ACCESS_TOKEN_TTL", "2m").env("CODITECT_REFRESH_GRACE", "4s");
    let effective = effective(command);
    for line in [
        "access-token-ttl = \"3m\" # --access-token-ttl",
        "refresh-grace = \"4s\" # CODITECT_REFRESH_GRACE",
        "listen = \"127.0.0.1:1\" # coditect.toml:3",
        "cookies = true # coditect.toml:4",
        "ephemeral = false # default",
        "max-sessions = 10000 # default",
        "metrics-allow = [\"127.0.0.0/8\", \"::1\"] # default",
        "# frontend is not set",
    ] {
        assert!(effective.lines().any(|it| it == line), "{line} is not in {effective}");
    }
}

#[test]
fn variable_turns_off_a_switch_of_the_file() {
    let folder = Folder::new();
    fs::write(folder.path().join("coditect.toml"), "cookies = true").unwrap();
    let mut command = program(folder.path(), &["config"]);
    command.env("CODITECT_COOKIES", "false");
    assert!(effective(command).contains("cookies = false # CODITECT_COOKIES"));
}

#[test]
fn effective_settings_are_an_equivalent_file() {
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
    assert!(effective.contains("# CODITECT_MASTER_KEY is set (value hidden)"), "{effective}");
}

#[test]
fn invalid_file_is_refused_with_its_line_by_every_subcommand() {
    let folder = Folder::new();
    fs::write(folder.path().join("coditect.toml"), "\nacces-ttl = \"1m\"").unwrap();
    for verb in [&[][..], &["serve"], &["config"], &["check"], &["user", "list"]] {
        let (stdout, stderr, code) = told(&program(folder.path(), verb).output().unwrap());
        let refusal = "coditect-server: coditect.toml:2: unknown setting acces-ttl\n";
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (2, "", refusal), "{verb:?}");
    }
    let missing = ["serve", "--config", "nowhere.toml"];
    let (_, stderr, code) = told(&program(folder.path(), &missing).output().unwrap());
    assert_eq!(code, 2);
    assert!(stderr.contains("--config: cannot read nowhere.toml"), "{stderr}");
}

#[test]
fn data_directory_of_the_file_applies_to_every_subcommand() {
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
async fn server_uses_its_settings_file() {
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

/// Returns the error of the program for invalid arguments or variables.
fn refusal(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = program(folder, arguments);
    command.envs(variables.iter().copied());
    let (stdout, stderr, code) = told(&command.output().unwrap());
    assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?} {variables:?}: {stderr}");
    stderr
}

#[test]
fn settings_without_effect_are_refused() {
    let folder = Folder::new();
    for (arguments, variables, named) in [
        (&["--ephemeral", "--data", "d"][..], &[][..], "--data has no effect with --ephemeral"),
        (&["serve", "--ephemeral", "--data", "d"], &[], "--data has no effect"),
        (&[], &[("CODITECT_EPHEMERAL", "1"), ("CODITECT_DATA", "d")], "--data has no effect"),
        (&["--data", "d"], &[("CODITECT_EPHEMERAL", "1")], "--data has no effect"),
        (&["--cookie-prefix", "x"], &[], "--cookie-prefix has no effect without --cookies"),
        (
            &["--forwarded-header", "forwarded"],
            &[],
            "--forwarded-header has no effect without --trusted-proxy",
        ),
        (&["inspect", "--limit", "7"], &[], "--limit applies to rows"),
        (&["inspect", "--limit", "0", "--space", "users"], &[], "--limit"),
        (
            &["health", "--url", "http://a", "--listen", "127.0.0.1:1"],
            &[],
            "--listen has no effect with --url",
        ),
        (&["health", "--url", "http://a", "--tls-cert", "c"], &[], "--tls-cert has no effect"),
    ] {
        let refusal = refusal(folder.path(), arguments, variables);
        assert!(refusal.contains(named), "{refusal}");
    }
    fs::write(folder.path().join("coditect.toml"), "data = \"d\"\nephemeral = true").unwrap();
    let refusal = refusal(folder.path(), &[], &[]);
    assert!(refusal.contains("--data has no effect with --ephemeral"), "{refusal}");
}

#[test]
fn ephemeral_flag_overrides_the_configured_directory() {
    let folder = Folder::new();
    fs::write(folder.path().join("coditect.toml"), "data = \"d\"").unwrap();
    let effective = effective(program(folder.path(), &["config", "--ephemeral"]));
    assert!(effective.contains("ephemeral = true # --ephemeral"), "{effective}");
}

#[test]
fn cluster_settings_are_refused_without_a_cluster() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    for command in [&[][..], &["serve"], &["config"], &["check"], &["user", "list"]] {
        for (flag, value) in [("--cluster-prefix", "x/"), ("--cluster-trace", "t")] {
            let arguments = [command, &[flag, value]].concat();
            let refusal = refusal(folder.path(), &arguments, &[]);
            let expected = format!("{flag} has no effect without --cluster-file");
            assert!(refusal.contains(&expected), "{refusal}");
        }
    }
}

#[cfg(not(feature = "fdb"))]
#[test]
fn cluster_is_refused_by_a_build_without_foundationdb() {
    let folder = Folder::new();
    for command in [&[][..], &["serve"], &["check"], &["backup", "b.archive"], &["keys", "list"]] {
        let arguments = [command, &["--cluster-file", "fdb.cluster"]].concat();
        let refused = refusal(folder.path(), &arguments, &[]);
        assert!(refused.contains("--features fdb"), "{refused}");
        let variable = [("CODITECT_CLUSTER_FILE", "fdb.cluster")];
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
            refusal.contains("--log-level") && refusal.contains("`wran` is not a level"),
            "{refusal}"
        );
    }
}
