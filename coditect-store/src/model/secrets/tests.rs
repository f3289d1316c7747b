use proptest::prelude::*;
use serde_json::json;

use super::*;

fn redacted(command: &str) -> String {
    let rules = SecretRules::default();
    let redacted = rules.redact(command).unwrap_or_else(|| command.to_owned());
    let again = rules.redact(&redacted).unwrap_or_else(|| redacted.clone());
    assert_eq!(again, redacted, "a second time");
    redacted
}

/// Tokens in their formats, assembled here so that scanners of this repository ignore them.
fn tokens() -> Vec<String> {
    let a = |n| "a1B2".repeat(n);
    vec![
        format!("AKIA{}", "ABCDEFGH".repeat(2)),
        format!("ghp_{}", a(9)),
        format!("github_pat_{}", a(20)),
        format!("glpat-{}", a(5)),
        format!("xoxb-{}", a(5)),
        format!("https://hooks.slack.com/services/{}", a(8)),
        format!("sk_live_{}", a(6)),
        format!("AIza{}x-_", a(8)),
        format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----", a(8)),
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}", a(8)),
        format!("eyJ{}.eyJ{}.{}", a(5), a(5), a(5)),
        format!("npm_{}", a(9)),
        format!("sk-proj-{}", a(6)),
        format!("hvs.{}", a(6)),
        format!("cpt_{}", a(10)),
        "postgres://ada:pw@db.example.org/x".to_owned(),
        "redis://:pw@cache:6379".to_owned(),
    ]
}

#[test]
fn secret_variables_are_detected_by_name() {
    let rules = SecretRules::default();
    for name in "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY DATABASE_URL PGPASS GH_PAT APIKEY \
                 API_KEY apiKey GOOGLE_APPLICATION_CREDENTIALS MY_CREDENTIALS TOKEN \
                 GITHUB_TOKEN_2 MySecret pgpassword AWS_ACCESS_KEY _key MYSQL_PWD SSHPASS \
                 DB_PASS SENTRY_DSN NPM_AUTH DOCKER_AUTH_CONFIG SESSION_COOKIE DB_URL \
                 STORAGE_CONNECTION_STRING SLACK_WEBHOOK_URL GPG_PASSPHRASE PAT"
        .split_whitespace()
    {
        assert!(rules.is_secret_variable(name, "x"), "{name}");
    }
    for name in "LANG KEY KEYBOARD MONKEY A_KEYS PATH HOME PWD OLDPWD PGHOST PGUSER PGDATABASE \
                 PGPASSFILE SSH_AUTH_SOCK SSH_ASKPASS GIT_ASKPASS XAUTHORITY TERM COMPASS \
                 EDITOR BASE_URL TOKENIZERS_PARALLELISM MAX_TOKENS MAX_OUTPUT_TOKENS \
                 AWS_WEB_IDENTITY_TOKEN_FILE AUTHOR PATTERN AWS_REGION"
        .split_whitespace()
    {
        assert!(!rules.is_secret_variable(name, "/usr/bin:/bin"), "{name}");
    }
    assert!(!rules.is_secret_variable("", ""));
}

#[test]
fn secret_variables_are_detected_by_value() {
    let rules = SecretRules::default();
    for token in tokens() {
        assert!(rules.is_secret_variable("X", &token), "{token}");
    }
    assert!(rules.is_secret_variable("JAVA_OPTS", "-Xmx1g -Djavax.net.ssl.keyStorePassword=pw"));
    for value in [
        "/usr/local/bin:/usr/bin",
        "C.UTF-8",
        "https://example.org:8080/a@b?x=1",
        "ssh://git@host/r",
        "di=01;34:ln=01;36",
        r"\u@\h:\w\$ ",
        "akia",
        "3f786850e387550fdab836ed7e6dc881de23001b",
    ] {
        assert!(!rules.is_secret_variable("X", value), "{value}");
    }
}

#[test]
fn secrets_in_commands_are_redacted() {
    for (command, expected) in [
        ("export API_KEY=hunter2", "export API_KEY=***"),
        ("export AWS_ACCESS_KEY_ID='a b' && make", "export AWS_ACCESS_KEY_ID='***' && make"),
        ("PGPASS=\"a \\\" b\" GH_PAT=x psql -h db", "PGPASS=\"***\" GH_PAT=*** psql -h db"),
        ("DATABASE_URL=x npm start; ls", "DATABASE_URL=*** npm start; ls"),
        ("export TOKEN='$literal'", "export TOKEN=***"),
        ("export TOKEN=\"open\nline", "export TOKEN=***"),
        ("set -gx GH_TOKEN hunter2", "set -gx GH_TOKEN ***"),
        ("setenv APIKEY hunter2", "setenv APIKEY ***"),
        ("$env:API_KEY = \"hunter2\"", "$env:API_KEY = \"***\""),
        (
            "docker run --env=API_KEY=x -e \"TOKEN=a b\" img",
            "docker run --env=API_KEY=*** -e \"TOKEN=***\" img",
        ),
        ("sh -c 'export TOKEN=abc; ls' && pwd", "sh -c 'export TOKEN=***; ls' && pwd"),
        ("sh -c \"TOKEN='a b' run\" x", "sh -c \"TOKEN='***' run\" x"),
        ("curl -u user:pass https://example.org", "curl -u user:*** https://example.org"),
        ("curl -sSu 'user:pa ss' https://e.org", "curl -sSu 'user:***' https://e.org"),
        ("curl --user user:pass -U p:q e.org", "curl --user user:*** -U p:*** e.org"),
        ("curl -uuser:pass e.org", "curl -uuser:*** e.org"),
        ("http -a user:pass e.org", "http -a user:*** e.org"),
        (
            "curl -H \"Authorization: Bearer abc\" e.org",
            "curl -H \"Authorization: Bearer ***\" e.org",
        ),
        ("curl -H 'Authorization: Basic dTpw' e.org", "curl -H 'Authorization: Basic ***' e.org"),
        ("curl -H 'X-Api-Key: abc' e.org", "curl -H 'X-Api-Key: ***' e.org"),
        ("curl -H X-Api-Key:abc e.org", "curl -H X-Api-Key:*** e.org"),
        ("curl --header 'Cookie: a=b; c=d' e.org", "curl --header 'Cookie: ***' e.org"),
        ("http e.org Authorization:'Bearer abc'", "http e.org Authorization:'Bearer ***'"),
        ("curl -d '{\"password\": \"abc\"}' e.org", "curl -d '{\"password\": \"***\"}' e.org"),
        ("curl -d \"{\\\"token\\\":\\\"abc\\\"}\" e", "curl -d \"{\\\"token\\\":\\\"***\\\"}\" e"),
        ("curl 'https://e.org/?a=1&api_key=x&b=2'", "curl 'https://e.org/?a=1&api_key=***&b=2'"),
        ("git clone https://ada:pw@e.org/r.git", "git clone https://ada:***@e.org/r.git"),
        ("git clone https://abcdefghij0123456789@e.org/r", "git clone https://***@e.org/r"),
        ("psql postgres://ada:p@w@db/x", "psql postgres://ada:***@db/x"),
        ("mysql -h db -uroot -phunter2 x", "mysql -h db -uroot -p*** x"),
        ("sshpass -p hunter2 ssh host", "sshpass -p *** ssh host"),
        ("docker login -u a -p hunter2 e.org", "docker login -u a -p *** e.org"),
        ("redis-cli -a hunter2 ping", "redis-cli -a *** ping"),
        ("tool --password hunter2 --token=abc x", "tool --password *** --token=*** x"),
        ("tool --api-key 'a b' x", "tool --api-key '***' x"),
        ("openssl rsa -in k -passin pass:abc", "openssl rsa -in k -passin pass:***"),
        ("psql 'host=db password=abc'", "psql 'host=db password=***'"),
    ] {
        assert_eq!(redacted(command), expected);
    }
    for token in tokens() {
        let kept = redacted(&format!("echo {token} > file"));
        assert!(kept.starts_with("echo ") && kept.contains(REDACTED), "{token}: {kept}");
        assert!(!kept.contains("a1B2") && !kept.contains("pw"), "{token}: {kept}");
    }
}

#[test]
fn ordinary_commands_are_kept() {
    for command in [
        "",
        "ls -la",
        "git commit -m \"fix token: handle expiry\"",
        "cargo test -p store -- secrets",
        "git commit -m \"Don't set the password header; bearer authentication\"",
        "export PATH=$PATH:/opt/bin",
        "export LANG=C.UTF-8",
        "PGHOST=db psql",
        "cd ~/secret/token",
        "export TOKEN=$(gh auth token)",
        "export TOKEN=\"$(cat \"a b\")\"",
        "TOKEN=$OTHER make",
        "export TOKEN=`cat t`",
        "curl -u \"$USER:$PASS\" e.org",
        "curl -H \"X-Api-Key: $KEY\" e.org",
        "curl -H \"Authorization: Bearer $TOKEN\" e.org",
        "docker run -u 1000:1000 -e U=http://x img",
        "docker login --password-stdin e.org",
        "tool --token-file t.txt",
        "tool --password --user u",
        "curl http://localhost:8080/x@y",
        "git clone git@github.com:a/b.git",
        "ssh -p 22 host",
        "git clone ssh://git@example.org/a.git",
        "mkdir -p src",
        "mysql -P3306 -u root -p",
        "llm --max-tokens 4096",
        "chown 1000:1000 x",
        "echo *** é",
        "password=",
        "unset TOKEN",
        "curl -A 'a:b' -o out:put -H 'Accept: application/json' e.org",
    ] {
        assert_eq!(redacted(command), command);
    }
}

#[test]
fn a_tenant_adds_patterns() {
    let patterns =
        json!({"variable_names": ["^ACME_"], "values": ["acme-[0-9a-f]{8}", "pin=([0-9]+)"]});
    let rules = SecretRules::with_patterns(&patterns).unwrap();
    assert!(rules.is_secret_variable("ACME_ID", "x") && rules.is_secret_variable("TOKEN", "x"));
    assert!(rules.is_secret_variable("X", "acme-0123abcd"));
    assert!(!rules.is_secret_variable("PATH", "/bin"));
    let redacted = rules.redact("ACME_ID=5 run acme-0123abcd pin=77 x").unwrap();
    assert_eq!(redacted, "ACME_ID=*** run *** pin=*** x");
    assert!(SecretRules::with_patterns(&json!({})).is_ok());
}

#[test]
fn redaction_by_a_pattern_for_asterisks_ends() {
    let rules = SecretRules::with_patterns(&json!({"values": [".", r"(\*)$"]})).unwrap();
    let once = rules.redact("abc").unwrap();
    assert_eq!((once.as_str(), rules.redact(&once).as_deref()), (REDACTED, Some(REDACTED)));
}

#[test]
fn invalid_patterns_are_refused() {
    let many = vec!["a"; MAX_SECRET_PATTERNS + 1];
    let long = "a".repeat(MAX_SECRET_PATTERN_BYTES + 1);
    for (patterns, expected) in [
        (json!(7), "must be an object"),
        (json!({"names": []}), "unknown field `names`"),
        (json!({"values": "a"}), "invalid type"),
        (json!({"values": many}), "values: has 17 patterns; at most 16"),
        (json!({"values": ["a", long]}), "values[1]: must be at most 256 bytes long"),
        (
            json!({"variable_names": ["("]}),
            "variable_names[0]: is not a valid regular expression: ",
        ),
        (json!({"values": ["a*"]}), "values[0]: must not match the empty string"),
        (json!({"values": [r"(\w{200}){200}"]}), "values[0]: is not a valid regular expression: "),
    ] {
        let error = SecretRules::with_patterns(&patterns).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
}

proptest! {
    #[test]
    fn redaction_never_fails_and_settles(
        parts in prop::collection::vec(
            prop_oneof![
                "\\PC{0,6}",
                prop::sample::select(vec![
                    "TOKEN=", "export ", "'", "\"", "\\", " ", "curl ", "-u ", "a:b",
                    "--password ", "$X",
                    "https://u:", "p@h", "-H 'X-Api-Key: ", "*", "***",
                    "{\"secret\": \"", ";", "é", "\n",
                ]).prop_map(str::to_owned),
            ],
            0..12,
        )
    ) {
        let (rules, command) = (SecretRules::default(), parts.concat());
        let mut redacted = command;
        let mut rounds = 0;
        while let Some(next) = rules.redact(&redacted).filter(|next| *next != redacted) {
            redacted = next;
            rounds += 1;
            prop_assert!(rounds < 8, "{redacted}");
        }
    }
}

#[test]
fn compiled_patterns_are_kept_and_bounded() {
    for round in 0..2 {
        for number in 0..MAX_CACHED_PATTERNS {
            let json = json!({ "values": [format!("corp-{number}-[0-9]+"), "x-[0-9]+"] });
            let rules = SecretRules::with_patterns(&json).unwrap();
            assert!(rules.is_secret_variable("A", &format!("corp-{number}-7")), "{round}");
            assert!(!rules.is_secret_variable("A", "corp-9999-7"), "{round}");
        }
        let cache = CACHE.lock().unwrap();
        let patterns: usize = cache.values().map(SecretRules::patterns).sum();
        assert!(patterns <= MAX_CACHED_PATTERNS && !cache.is_empty(), "{patterns}");
    }
    assert!(SecretRules::with_patterns(&json!({ "values": ["("] })).is_err());
}
