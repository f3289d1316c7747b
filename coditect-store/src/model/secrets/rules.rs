//! The built-in rules.
//!
//! Names and formats of tokens follow the default configuration of gitleaks 8.30.1
//! (<https://github.com/gitleaks/gitleaks>, `config/gitleaks.toml`); each rule names the entry it
//! follows. Options of programs follow their manuals; URLs follow RFC 3986, 3.2.1.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

/// Names of variables, options and headers that contain secrets.
pub(super) static NAME: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?ix)
        token | secret | password | passwd | passphrase | credential
        | (api|access|private|account|signing|encryption)[_.-]?key | [_-]key$
        | pass$ | [_.-]pwd$ | (^|[_.-])(pat|jwt|auth|dsn|cookie|authorization)$
        | ^proxy-authorization$
        | (^|[_.-])auth[_.-]config$ | ((^|[_.-])database|[_.-]db|^db)[_.-]?ur[il]$
        | connection[_.-]?string | webhook[_.-]?url$",
    )
});

/// Names that [`NAME`] matches, but that contain a path, a program or a number.
pub(super) static NOT_SECRET_NAME: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?ix)
        [_.-](file|path|dir|sock|stdin|endpoint)$ | askpass$ | bypass$ | compass$
        | tokenizer | (^|[_.-])(max|min|num)([_.-]\w+)?[_.-]tokens?$",
    )
});

/// Secrets with a recognizable format. The secret is the first group that matched, or else the
/// whole match.
const FORMATS: &[&str] = &[
    // aws-access-token
    r"\b(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
    // github-pat, github-oauth, github-app-token, github-refresh-token, github-fine-grained-pat
    r"\b(?:gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[[:word:]]{22,})",
    // gitlab-pat and related tokens
    r"\bgl(?:pat|dt|rt|ptt|cbt|soat|ft|imt|agent|oas|ffct)-[0-9A-Za-z_.-]{20,}",
    // slack-bot-token, slack-user-token, slack-app-token, slack-webhook-url
    r"\b(?:xox[abeoprs][.-][0-9A-Za-z.-]{10,}|xapp-\d-[0-9A-Za-z-]{10,})",
    r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/]{20,})",
    // stripe-access-token
    r"\b(?:sk|rk)_(?:test|live|prod)_[0-9A-Za-z]{10,}",
    // gcp-api-key, and tokens of Google's OAuth 2.0
    r"\bAIza[[:word:]-]{35}",
    r"\b(?:ya29\.[[:word:]-]{20,}|GOCSPX-[[:word:]-]{20,})",
    // private-key; an incomplete one extends to the end of the text
    concat!(
        r"(?s)-----BEGIN[ A-Z0-9_-]{0,100}PRIVATE KEY(?: BLOCK)?-----.*?",
        r"(?:-----END[ A-Z0-9_-]{0,100}PRIVATE KEY(?: BLOCK)?-----|\z)"
    ),
    // jwt
    r"\beyJ[0-9A-Za-z_-]{14,}\.eyJ[0-9A-Za-z_-]{14,}\.[0-9A-Za-z_-]*={0,2}",
    // npm-access-token, pypi-upload-token, and Docker Hub's personal tokens
    r"\b(?:npm_[0-9A-Za-z]{36,}|pypi-AgE[[:word:]-]{50,}|dckr_pat_[[:word:]-]{20,})",
    // anthropic-api-key, openai-api-key, huggingface-access-token
    r"\b(?:sk-(?:ant|proj|svcacct|admin)-[[:word:]-]{20,}|sk-[0-9A-Za-z]{32,}|hf_[A-Za-z]{34,})",
    // vault-service-token, digitalocean-pat, sendgrid-api-token, shopify-access-token,
    // age-secret-key
    concat!(
        r"\b(?:hvs\.[[:word:]-]{24,}|do[opr]_v1_[a-f0-9]{64}",
        r"|SG\.[[:word:]-]{20,}\.[[:word:]-]{40,}",
        r"|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|AGE-SECRET-KEY-1[0-9A-Z]{58})"
    ),
    // Personal tokens of this server.
    r"\bcpt_[[:word:]-]{20,}",
    // The password of a URL, and a user name long enough to be a token.
    r#"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#"'@:]*:([^\s/?#"'<>]+)@"#,
    r"https?://([[:word:].~%-]{20,})@",
    // Credentials of an Authorization field anywhere.
    concat!(
        r#"(?i)\bauthorization["']?\s*[:=]\s*\\?["']?"#,
        r#"(?:(?:bearer|basic|token|digest|negotiate|apikey)\s+)?([^\s"'\\]+)"#
    ),
    r"(?i)\bbearer\s+([0-9A-Za-z._~+/-]{20,}=*)",
    // OpenSSL's pass phrase arguments.
    r"(?:^|\s)(?:-\w+\s+)?pass:([^\s;|&]+)",
];

/// Options whose argument is a secret although their name does not show it, by command.
const OPTIONS: &[(&str, &str)] = &[
    // curl-auth-user
    (
        r"(?:^|[\s;&|(])(?:curl|https?|xh|xhs|wget)\s",
        concat!(
            r"\s(?:-[0-9A-Za-z#]*[uU]\s*|--(?:proxy-)?user[=\s]\s*|-a\s*|--auth[=\s]\s*)",
            r#"(?:"[^":]*:([^"]*)"?|'[^':]*:([^']*)'?|[^\s:"'-][^\s:"']*:(\S+))"#
        ),
    ),
    (r"\bsshpass\b", r#"\s-p\s*(?:"([^"]*)"?|'([^']*)'?|(\S+))"#),
    (
        r"\b(?:mysql|mysqldump|mysqladmin|mysqlimport|mariadb|mariadb-dump|mariadb-admin)\b",
        r#"\s-p(?:"([^"]*)"?|'([^']*)'?|([^\s"';|&]+))"#,
    ),
    (
        concat!(
            r"\b(?:docker|podman|nerdctl|buildah|helm|oc|az)\b.*\blogin\b",
            r"|\bmongo(?:sh|dump|restore)?\b"
        ),
        r#"\s-p\s*(?:"([^"]*)"?|'([^']*)'?|([^\s"';|&]+))"#,
    ),
    (r"\bredis-cli\b", r#"\s-a\s+(?:"([^"]*)"?|'([^']*)'?|(\S+))"#),
];

/// Matches the built-in rules that apply to a text, in the order of [`RULES`].
pub(super) static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    let patterns = FORMATS.iter().chain(OPTIONS.iter().map(|(_, option)| option));
    set(patterns.copied())
});

/// [`FORMATS`], then [`OPTIONS`] with the commands they apply to.
pub(super) static RULES: LazyLock<Vec<(Option<Regex>, Regex)>> = LazyLock::new(|| {
    let formats = FORMATS.iter().map(|format| (None, regex(format)));
    let options = OPTIONS.iter().map(|(command, option)| (Some(regex(command)), regex(option)));
    formats.chain(options).collect()
});

/// Compiles a rule.
#[expect(clippy::expect_used, reason = "the rules are constants, which a test compiles")]
pub(super) fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a built-in rule compiles")
}

#[expect(clippy::expect_used, reason = "the rules are constants, which a test compiles")]
fn set<'a>(patterns: impl Iterator<Item = &'a str>) -> RegexSet {
    RegexSet::new(patterns).expect("the built-in rules compile")
}
