//! The server's settings, as flags and `CODITECT_*` variables.
//!
//! A flag is stronger than its variable, and that is stronger than the default; between these two is
//! the file of [`settings`](crate::cli::settings). What is read here
//! is within its bounds: nobody checks a setting again. Settings are data; nothing is opened,
//! bound or started here.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum, builder::FalseyValueParser};
use coditect_auth::MAX_LOGINS;
use coditect_store::model::{FilePolicy, StateQuota};
use hyper::header::HeaderValue;
use ipnet::IpNet;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    http::{
        CookieNames, ForwardedHeader, Origin, client::parse_network, cookies::DEFAULT_PREFIX,
        origin,
    },
    place::Place,
};

/// The limits on a tenant's files.
pub(crate) const FILE_POLICY: FilePolicy =
    FilePolicy::DEFAULT.versions(10).files(1_000_000).bytes(10 << 30);

/// What a page may do: load what is of this origin, and nothing that somebody has written into it.
const STRICT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; font-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Where it listens if nothing is said.
pub(crate) const LISTEN: &str = "127.0.0.1:8080";

/// What `coditect-server` runs with. Durations are written as `90s`, `15m` or `1h 30m`, and are
/// at most 24h where nothing else is said.
#[derive(Clone, Debug, Parser)]
pub struct Config {
    /// Address and port to listen on; port 0 lets the system choose one, and the first line on
    /// stdout tells which.
    #[arg(
        long,
        env = "CODITECT_LISTEN",
        value_name = "ADDR:PORT",
        default_value = LISTEN
    )]
    pub listen: SocketAddr,

    /// File with the certificate to speak TLS with, and those that vouch for it, as PEM. It is read
    /// again when it changes.
    #[arg(long, env = "CODITECT_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// File with the private key of that certificate, as PEM.
    #[arg(long, env = "CODITECT_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Where the store is.
    #[command(flatten)]
    pub place: Place,

    /// Keep everything in memory, or under a prefix of its own in the cluster, and nothing after the end.
    #[arg(
        long,
        env = "CODITECT_EPHEMERAL",
        value_parser = FalseyValueParser::new()
    )]
    pub ephemeral: bool,

    /// Shape of the log lines on stderr.
    #[arg(long, env = "CODITECT_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: `off`, `error`, `warn`, `info`, `debug` or `trace`, or directives for parts of
    /// the program such as `info,coditect_server=debug`.
    #[arg(long, env = "CODITECT_LOG_LEVEL", value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    pub log_level: String,

    /// Life of an access token, at most 24h.
    #[arg(long, env = "CODITECT_ACCESS_TTL", value_name = "DURATION", default_value = "15m", value_parser = timeout)]
    pub access_ttl: Duration,

    /// Time for which a replaced refresh token still returns its successor, from the first use of
    /// that successor; 0s for none. Before that use, as after a lost response, it always does.
    #[arg(long, env = "CODITECT_REFRESH_GRACE", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub refresh_grace: Duration,

    /// How long a key signs access tokens before the next does, from an hour, so that others who verify
    /// by /.well-known/jwks.json keep up, to 3650 days.
    #[arg(long, env = "CODITECT_KEY_ROTATION", value_name = "DURATION", default_value = "30days", value_parser = rotation)]
    pub key_rotation: Duration,

    /// Address or network of a proxy that is trusted to name its clients in the header of
    /// --forwarded-header. A client that it does not name is treated as unknown, as is every client of a
    /// proxy that is not trusted: it cannot read /metrics, the audit log has no address for it, and all
    /// such clients share one limit on failed logins. Repeat the flag or separate values with commas.
    #[arg(long, env = "CODITECT_TRUSTED_PROXY", value_name = "NETWORK", value_delimiter = ',', value_parser = parse_network)]
    pub trusted_proxy: Vec<IpNet>,

    /// Header in which trusted proxies name their clients. The other one is ignored.
    #[arg(
        long,
        env = "CODITECT_FORWARDED_HEADER",
        value_name = "HEADER",
        default_value = "x-forwarded-for"
    )]
    pub forwarded_header: ForwardedHeader,

    /// An origin whose pages may use the API from a browser, beside the server's own: scheme, host and
    /// port, exactly; may be given several times, or with commas between.
    #[arg(long, env = "CODITECT_ALLOWED_ORIGIN", value_name = "ORIGIN", value_delimiter = ',', value_parser = origin::parse)]
    pub allowed_origin: Vec<Origin>,

    /// Address or network of clients that may read /metrics. A scraper whose own address is within
    /// --trusted-proxy must name itself in the forwarding header. Repeat the flag or separate values with
    /// commas.
    #[arg(long, env = "CODITECT_METRICS_FROM", value_name = "NETWORK", value_delimiter = ',', default_values = ["127.0.0.0/8", "::1"], value_parser = parse_network)]
    pub metrics_from: Vec<IpNet>,

    /// Let clients keep their tokens in cookies, beside bearer tokens. Browsers take them over TLS only,
    /// and from localhost.
    #[arg(long, env = "CODITECT_COOKIES", value_parser = FalseyValueParser::new())]
    pub cookies: bool,

    /// Prefix of the cookies' names, __Host-PREFIX-access and __Host-PREFIX-refresh. Browsers do not keep
    /// cookies of different ports apart, so servers on one host need different prefixes. 1 to 64 letters,
    /// digits, `-` or `_`.
    #[arg(long, env = "CODITECT_COOKIE_PREFIX", value_name = "PREFIX", default_value = DEFAULT_PREFIX, value_parser = CookieNames::with_prefix)]
    pub cookie_prefix: CookieNames,

    /// Who may create an account: everyone, those with an invitation into a tenant, or nobody. The operator's
    /// `user create` works in each mode. Set `invited` or `closed` where strangers can reach the server.
    #[arg(long, env = "CODITECT_REGISTRATION", value_name = "MODE", default_value = "open")]
    pub registration: RegistrationMode,

    /// How what is for one address gets there: password resets and invitations. `none` sends nothing;
    /// `log` writes tokens to the log, and is for trying the server out.
    #[arg(long, env = "CODITECT_MAILER", value_name = "MAILER", default_value = "none")]
    pub mailer: MailerKind,

    /// Folder of a frontend to serve instead of the program's own; read once, at the start.
    #[arg(long, env = "CODITECT_FRONTEND", value_name = "FOLDER")]
    pub frontend: Option<PathBuf>,

    /// The `Content-Security-Policy` of the frontend, for one that cannot do with the strict one.
    #[arg(long, env = "CODITECT_CONTENT_SECURITY_POLICY", value_name = "POLICY", default_value = STRICT_POLICY)]
    pub content_security_policy: HeaderValue,

    /// Largest JSON body, in bytes, or with a unit: KiB or MiB.
    #[arg(long, env = "CODITECT_BODY_LIMIT", value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub body_limit: usize,

    /// Largest content of a file, in bytes, or with a unit: KiB or MiB.
    #[arg(long, env = "CODITECT_FILE_LIMIT", value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub file_limit: usize,

    /// How long a client may take for a request's header block, counted from connecting or from
    /// the block's first byte.
    #[arg(long, env = "CODITECT_HEADER_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub header_timeout: Duration,

    /// How long a body may stall, in either direction.
    #[arg(long, env = "CODITECT_BODY_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = timeout)]
    pub body_timeout: Duration,

    /// How long a kept-alive connection may idle between requests.
    #[arg(long, env = "CODITECT_IDLE_TIMEOUT", value_name = "DURATION", default_value = "75s", value_parser = timeout)]
    pub idle_timeout: Duration,

    /// How often a socket's client is asked whether it is still there; it is given up after three times
    /// that without a word.
    #[arg(long, env = "CODITECT_SOCKET_PING", value_name = "DURATION", default_value = "25s", value_parser = timeout)]
    pub socket_ping: Duration,

    /// Take a socket's access token from its URL (`?token=`), too, for clients that can neither send headers
    /// nor get tickets. URLs are written to the logs of whatever is in between.
    #[arg(long, env = "CODITECT_SOCKET_TOKEN_IN_QUERY", value_parser = FalseyValueParser::new())]
    pub socket_token_in_query: bool,

    /// How long running requests get to finish when the server stops.
    #[arg(long, env = "CODITECT_SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub shutdown_timeout: Duration,

    /// How often what is over is removed: ended logins, tickets, what was left of an upload.
    #[arg(long, env = "CODITECT_SWEEP_INTERVAL", value_name = "DURATION", default_value = "10m", value_parser = timeout)]
    pub sweep_interval: Duration,

    /// Most workspace sessions of a tenant.
    #[arg(long, env = "CODITECT_MAX_SESSIONS", value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub max_sessions: i64,

    /// Maximum size of a workspace session's memory as JSON, in bytes, or with a unit: KiB or MiB.
    /// It counts towards the tenant's bytes.
    #[arg(long, env = "CODITECT_SESSION_MEMORY_LIMIT", value_name = "SIZE", default_value = "8MiB", value_parser = size)]
    pub session_memory_limit: usize,

    /// Maximum size of a workspace session's client state, in bytes, or with a unit: KiB or MiB. All
    /// kept versions count, and towards the tenant's bytes, too.
    #[arg(long, env = "CODITECT_CLIENT_STATE_LIMIT", value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    pub client_state_limit: usize,

    /// Maximum size of all responses that their clients have not read yet, in bytes, or with a unit:
    /// KiB or MiB. One user may hold an eighth of it, and one connection; what exceeds that is refused
    /// with 429 or 503 after a second. Raise it with the memory of the machine.
    #[arg(long, env = "CODITECT_MAX_UNREAD_RESPONSES", value_name = "SIZE", default_value = "256MiB", value_parser = unread_responses)]
    pub max_unread_responses: u64,

    /// Maximum number of live logins of a user, 1 to 1000. A login beyond it ends the longest idle one.
    #[arg(long, env = "CODITECT_MAX_LOGINS", value_name = "COUNT", default_value_t = 100, value_parser = logins)]
    pub max_logins: usize,

    /// Maximum number of connections at once; the next ones wait in the system's queue. The limit on
    /// open files is raised for them as far as the system allows, and must allow 256 more for the store:
    /// otherwise fewer are accepted, which the log says at the start.
    #[arg(long, env = "CODITECT_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = 10_000, value_parser = connections)]
    pub max_connections: usize,
}

/// Who may create an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RegistrationMode {
    /// Everyone.
    Open,
    /// Those with an invitation.
    Invited,
    /// Nobody.
    Closed,
}

/// How tokens get to the addresses that they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum MailerKind {
    /// They don't.
    None,
    /// They are in the log.
    Log,
}

/// The shape of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The settings that `flags` give, over those of the environment. The program's name is not
    /// among the flags.
    ///
    /// # Errors
    ///
    /// An unknown flag, or a value out of its bounds, in words for a person.
    pub fn from_flags<I>(flags: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let name = OsString::from("coditect-server");
        Self::try_parse_from(std::iter::once(name).chain(flags.into_iter().map(Into::into)))
    }

    /// The number of bytes of unread responses that a user may hold at the least: the memory of a
    /// session, twice, as it is while it is read, and some more.
    pub(crate) fn least_unread_responses(&self) -> u64 {
        2 * self.session_memory_limit as u64 + (2 << 20)
    }

    /// The limits on the state of a session.
    pub(crate) fn state_quota(&self) -> StateQuota {
        StateQuota {
            memory_bytes: self.session_memory_limit as u64,
            client_bytes: i64::try_from(self.client_state_limit).unwrap_or(i64::MAX),
            tenant_bytes: FILE_POLICY.bytes,
        }
    }
}

/// No duration is longer than a day, so that none overflows when it is added to a time.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => Err("must be at most 24h".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        timeout => Ok(timeout),
    }
}

/// Shorter, and a key would sign before those who keep the published keys for a while know it.
const SHORTEST_ROTATION: Duration = Duration::from_secs(60 * 60);

fn rotation(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration < SHORTEST_ROTATION => Err("must be at least 1h".to_owned()),
        Ok(duration) if duration > LONGEST * 3650 => Err("must be at most 3650 days".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

fn logins(text: &str) -> Result<usize, String> {
    let count = text.parse().map_err(|_| "not a count".to_owned())?;
    if (1..=MAX_LOGINS).contains(&count) {
        return Ok(count);
    }
    Err(format!("must be 1 to {MAX_LOGINS}"))
}

fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(count) if count > tokio::sync::Semaphore::MAX_PERMITS => Err("too many".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err("not a count".to_owned()),
    }
}

/// Checks a filter of log lines. A word that is no level would be the name of a part of the program, of
/// which everything is logged and of all others nothing.
fn log_filter(text: &str) -> Result<String, String> {
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        let is_plain = !directive.contains(['=', '[', ']', '{', '}']);
        if is_plain && (directive.is_empty() || directive.parse::<LevelFilter>().is_err()) {
            let message = "is no level: use off, error, warn, info, debug or trace, or PART=LEVEL";
            return Err(format!("`{directive}` {message}"));
        }
    }
    let filter = directives.join(",");
    EnvFilter::try_new(&filter).map_err(|error| error.to_string())?;
    Ok(filter)
}

/// A smaller limit would refuse ordinary responses.
const MIN_UNREAD_RESPONSES: u64 = 16 << 20;

fn unread_responses(text: &str) -> Result<u64, String> {
    match size(text)? as u64 {
        bytes if bytes < MIN_UNREAD_RESPONSES => Err("must be at least 16MiB".to_owned()),
        bytes => Ok(bytes),
    }
}

fn size(text: &str) -> Result<usize, String> {
    let (number, unit_bytes) = if let Some(number) = text.strip_suffix("MiB") {
        (number, 1 << 20)
    } else if let Some(number) = text.strip_suffix("KiB") {
        (number, 1 << 10)
    } else {
        (text, 1)
    };
    number
        .trim()
        .parse::<usize>()
        .ok()
        .and_then(|count| count.checked_mul(unit_bytes))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "not a size such as 65536, 64KiB or 1MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn refused(flags: &[&str]) -> String {
        Config::from_flags(flags).unwrap_err().to_string()
    }

    #[test]
    fn without_flags_the_defaults_hold() {
        let config = Config::from_flags::<[&str; 0]>([]).unwrap();
        assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 8080)));
        assert_eq!(config.place.data, PathBuf::from("./coditect-data"));
        assert!(!config.ephemeral);
        assert_eq!(config.log_format, LogFormat::Text);
        assert_eq!(config.access_ttl, Duration::from_secs(15 * 60));
        assert_eq!(config.refresh_grace, Duration::from_secs(10));
        assert_eq!(config.body_limit, 1024 * 1024);
        assert_eq!(config.header_timeout, Duration::from_secs(10));
        assert_eq!(config.body_timeout, Duration::from_secs(30));
        assert_eq!(config.idle_timeout, Duration::from_secs(75));
    }

    #[test]
    fn log_level_that_is_none_is_refused() {
        for known in
            ["warn", "OFF", "info,coditect_server=debug", "warn, h2=info", "[request]=info"]
        {
            assert!(Config::from_flags(["--log-level", known]).is_ok(), "{known}");
        }
        for unknown in ["wran", "info,debgu", "coditect_server", "a=wran", "", "info,"] {
            let refusal = Config::from_flags(["--log-level", unknown]).err();
            let refusal = refusal.map(|refusal| refusal.to_string()).unwrap_or_default();
            assert!(refusal.contains("--log-level"), "{unknown}: {refusal}");
        }
    }

    #[test]
    fn durations_are_written_as_people_write_them() {
        let config =
            Config::from_flags(["--access-ttl=1h 30m", "--header-timeout", "250ms"]).unwrap();
        assert_eq!(config.access_ttl, Duration::from_secs(90 * 60));
        assert_eq!(config.header_timeout, Duration::from_millis(250));
    }

    #[test]
    fn an_access_token_lives_longer_than_zero_and_at_most_a_day() {
        assert!(Config::from_flags(["--access-ttl", "24h"]).is_ok());
        assert!(refused(&["--access-ttl", "24h 1s"]).contains("at most 24h"));
        assert!(refused(&["--access-ttl", "0s"]).contains("longer than zero"));
    }

    #[test]
    fn a_key_signs_for_an_hour_at_the_least() {
        assert!(Config::from_flags(["--key-rotation", "1h"]).is_ok());
        assert!(refused(&["--key-rotation", "59m"]).contains("at least 1h"));
        assert!(refused(&["--key-rotation", "3651days"]).contains("at most 3650 days"));
    }

    #[test]
    fn the_refresh_grace_may_be_zero_but_a_timeout_may_not() {
        let config = Config::from_flags(["--refresh-grace", "0s"]).unwrap();
        assert_eq!(config.refresh_grace, Duration::ZERO);
        refused(&["--idle-timeout", "0s"]);
        refused(&["--body-timeout", "soon"]);
        refused(&["--idle-timeout", "90000000000y"]);
    }

    #[test]
    fn a_size_is_a_count_of_bytes_with_an_optional_unit() {
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("2 MiB"), Ok(2 * 1024 * 1024));
        for wrong in ["", "0", "-1", "MiB", "1GB", "99999999999999999999", "17592186044416MiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_help_shows_every_setting_with_its_variable_and_default() {
        let help = Config::command().render_long_help().to_string();
        for argument in Config::command().get_arguments() {
            let Some(long) = argument.get_long() else {
                continue;
            };
            if matches!(long, "help" | "version") {
                continue;
            }
            // Its name is that of the tests' variable, which says whose file it is.
            let named = if long == "cluster-file" { "fdb-cluster-file" } else { long };
            let variable = format!("CODITECT_{}", named.replace('-', "_").to_uppercase());
            assert!(help.contains(&format!("--{long}")), "{long}");
            assert!(help.contains(&variable), "{variable}");
            let has_none = [
                "allowed-origin",
                "cluster-file",
                "cluster-trace",
                "cookies",
                "ephemeral",
                "frontend",
                "socket-token-in-query",
                "tls-cert",
                "tls-key",
                "trusted-proxy",
            ];
            if !has_none.contains(&long) {
                assert!(!argument.get_default_values().is_empty(), "{long}");
            }
        }
    }
}
