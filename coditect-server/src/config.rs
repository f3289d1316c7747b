//! Settings of the server, as flags and `CODITECT_*` variables.
//!
//! A flag overrides its variable, which overrides the settings file
//! ([`settings`](crate::cli::settings)), which overrides the default. Every value is validated
//! while it is parsed. Settings are data; nothing is opened, bound or started here.

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
    place::StoreLocation,
};

/// The limits on a tenant's files.
pub(crate) const FILE_POLICY: FilePolicy =
    FilePolicy::DEFAULT.versions(10).files(1_000_000).bytes(10 << 30);

/// The content security policy of pages: only resources of this origin, and no trusted HTML from
/// data.
const STRICT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; font-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Default address to listen on.
pub(crate) const LISTEN: &str = "127.0.0.1:8080";

/// Settings of `coditect-server`. Durations are written as `90s`, `15m` or `1h 30m`; the maximum is
/// 24h unless stated otherwise.
#[derive(Clone, Debug, Parser)]
pub struct Config {
    /// Address and port to listen on. With port 0 the system picks a free port; the first line on
    /// stdout is the URL.
    #[arg(
        long,
        env = "CODITECT_LISTEN",
        value_name = "ADDR:PORT",
        default_value = LISTEN
    )]
    pub listen: SocketAddr,

    /// PEM file with the TLS certificate and its intermediate certificates. Reloaded when it
    /// changes. Without it the server speaks plain HTTP.
    #[arg(long, env = "CODITECT_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file with the private key of the TLS certificate.
    #[arg(long, env = "CODITECT_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Location of the store.
    #[command(flatten)]
    pub place: StoreLocation,

    /// Keep all data in memory, or under a temporary prefix of the cluster, and discard it on exit.
    #[arg(
        long,
        env = "CODITECT_EPHEMERAL",
        value_parser = FalseyValueParser::new()
    )]
    pub ephemeral: bool,

    /// Format of the log lines on stderr.
    #[arg(long, env = "CODITECT_LOG_FORMAT", value_name = "FORMAT")]
    #[arg(default_value = "text")]
    pub log_format: LogFormat,

    /// Log level: `off`, `error`, `warn`, `info`, `debug` or `trace`, or a filter with levels per
    /// module, such as `info,coditect_server=debug`.
    #[arg(long, env = "CODITECT_LOG_LEVEL", value_name = "FILTER")]
    #[arg(default_value = "info", value_parser = log_filter)]
    pub log_level: String,

    /// Lifetime of an access token, at most 24h. A shorter one limits the use of a stolen token and
    /// costs more refreshes.
    #[arg(long, env = "CODITECT_ACCESS_TOKEN_TTL", value_name = "DURATION")]
    #[arg(default_value = "15m", value_parser = timeout)]
    pub access_token_ttl: Duration,

    /// Time after the first use of a rotated refresh token in which its predecessor still returns
    /// the same successor; 0s disables it. Until that first use, for example after a lost response,
    /// the predecessor always works.
    #[arg(long, env = "CODITECT_REFRESH_GRACE", value_name = "DURATION")]
    #[arg(default_value = "10s", value_parser = duration)]
    pub refresh_grace: Duration,

    /// Time until the next key signs access tokens, 1h to 3650 days. The next key is published in
    /// /.well-known/jwks.json before it signs.
    #[arg(long, env = "CODITECT_KEY_ROTATION", value_name = "DURATION")]
    #[arg(default_value = "30days", value_parser = rotation)]
    pub key_rotation: Duration,

    /// Address or network of a trusted reverse proxy, which names the client in the header of
    /// --forwarded-header. Clients without a known address cannot read /metrics, have no address in
    /// the audit log and share one login rate limit; so do all clients of an untrusted proxy.
    /// Repeat the flag or separate values with commas.
    #[arg(long, env = "CODITECT_TRUSTED_PROXY", value_name = "NETWORK")]
    #[arg(value_delimiter = ',', value_parser = parse_network)]
    pub trusted_proxy: Vec<IpNet>,

    /// Header in which trusted proxies name the client. The other header is ignored.
    #[arg(
        long,
        env = "CODITECT_FORWARDED_HEADER",
        value_name = "HEADER",
        default_value = "x-forwarded-for"
    )]
    pub forwarded_header: ForwardedHeader,

    /// Origin of web pages that may call the API with CORS, in addition to the server's own:
    /// scheme, host and port. Repeat the flag or separate values with commas.
    #[arg(long, env = "CODITECT_ALLOWED_ORIGIN", value_name = "ORIGIN")]
    #[arg(value_delimiter = ',', value_parser = origin::parse)]
    pub allowed_origin: Vec<Origin>,

    /// Address or network of clients that may read /metrics. A scraper whose own address is within
    /// --trusted-proxy must name itself in the forwarding header, or use
    /// --metrics-listen. Repeat the flag or separate values with commas.
    #[arg(long, env = "CODITECT_METRICS_ALLOW", value_name = "NETWORK")]
    #[arg(value_delimiter = ',', default_values = ["127.0.0.0/8", "::1"])]
    #[arg(value_parser = parse_network)]
    pub metrics_allow: Vec<IpNet>,

    /// Address and port of a second listener, without TLS, that serves only /metrics, /healthz and
    /// /readyz. Its clients are known by the address of their connection, even within
    /// --trusted-proxy; --metrics-allow applies. /metrics is then not served at --listen.
    #[arg(long, env = "CODITECT_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,

    /// Allow clients to hold their tokens in cookies as well as in bearer tokens. Browsers accept
    /// these cookies only over TLS or from localhost.
    #[arg(long, env = "CODITECT_COOKIES", value_parser = FalseyValueParser::new())]
    pub cookies: bool,

    /// Prefix of the cookie names __Host-PREFIX-access and __Host-PREFIX-refresh: 1 to 64 letters,
    /// digits, `-` or `_`. Browsers share cookies between all ports of a host, so servers on one
    /// host need different prefixes.
    #[arg(long, env = "CODITECT_COOKIE_PREFIX", value_name = "PREFIX")]
    #[arg(default_value = DEFAULT_PREFIX, value_parser = CookieNames::with_prefix)]
    pub cookie_prefix: CookieNames,

    /// Who may create an account: anyone, holders of an invitation to a tenant, or no one. `user
    /// create` works in every mode. Set `invited` or `closed` on a server that is reachable from
    /// the internet.
    #[arg(long, env = "CODITECT_REGISTRATION", value_name = "MODE")]
    #[arg(default_value = "open")]
    pub registration: RegistrationMode,

    /// Delivery of password-reset and invitation tokens. `none` does not deliver them; `log` writes
    /// them to the log and is meant for trying out the server.
    #[arg(long, env = "CODITECT_MAILER", value_name = "MAILER")]
    #[arg(default_value = "none")]
    pub mailer: MailerKind,

    /// Directory of a frontend to serve instead of the built-in one. Read once at startup.
    #[arg(long, env = "CODITECT_FRONTEND", value_name = "FOLDER")]
    pub frontend: Option<PathBuf>,

    /// `Content-Security-Policy` header of the frontend. Change it for a frontend that cannot work
    /// with the strict default.
    #[arg(long, env = "CODITECT_CONTENT_SECURITY_POLICY", value_name = "POLICY")]
    #[arg(default_value = STRICT_POLICY)]
    pub content_security_policy: HeaderValue,

    /// Maximum size of a JSON body: bytes, or a number with the unit KiB or MiB.
    #[arg(long, env = "CODITECT_BODY_LIMIT", value_name = "SIZE")]
    #[arg(default_value = "1MiB", value_parser = size)]
    pub body_limit: usize,

    /// Maximum size of an uploaded file: bytes, or a number with the unit KiB or MiB.
    #[arg(long, env = "CODITECT_FILE_LIMIT", value_name = "SIZE")]
    #[arg(default_value = "64MiB", value_parser = size)]
    pub file_limit: usize,

    /// Time within which a client must send the header block of a request, from the connection or
    /// from the first byte of the block.
    #[arg(long, env = "CODITECT_HEADER_TIMEOUT", value_name = "DURATION")]
    #[arg(default_value = "10s", value_parser = timeout)]
    pub header_timeout: Duration,

    /// Time without progress after which a request or response body is cut off.
    #[arg(long, env = "CODITECT_BODY_TIMEOUT", value_name = "DURATION")]
    #[arg(default_value = "30s", value_parser = timeout)]
    pub body_timeout: Duration,

    /// Time after which a connection without requests is closed.
    #[arg(long, env = "CODITECT_IDLE_TIMEOUT", value_name = "DURATION")]
    #[arg(default_value = "75s", value_parser = timeout)]
    pub idle_timeout: Duration,

    /// Interval between pings to WebSocket clients. A client that is silent for three intervals is
    /// disconnected.
    #[arg(long, env = "CODITECT_WEBSOCKET_PING_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "25s", value_parser = timeout)]
    pub websocket_ping_interval: Duration,

    /// Accept the access token of a WebSocket in its URL (`?token=`). For clients that can neither
    /// send headers nor fetch a ticket; proxies and other intermediaries may log URLs.
    #[arg(long, env = "CODITECT_WEBSOCKET_TOKEN_IN_QUERY", value_parser = FalseyValueParser::new())]
    pub websocket_token_in_query: bool,

    /// Time that running requests have to complete during shutdown.
    #[arg(long, env = "CODITECT_SHUTDOWN_TIMEOUT", value_name = "DURATION")]
    #[arg(default_value = "20s", value_parser = duration)]
    pub shutdown_timeout: Duration,

    /// Interval between purges of expired logins, tickets, idempotency records and unfinished
    /// uploads.
    #[arg(long, env = "CODITECT_SWEEP_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "10m", value_parser = timeout)]
    pub sweep_interval: Duration,

    /// Maximum number of workspace sessions per tenant.
    #[arg(long, env = "CODITECT_MAX_SESSIONS", value_name = "COUNT")]
    #[arg(default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub max_sessions: i64,

    /// Maximum size of a workspace session's memory as JSON: bytes, or a number with the unit KiB
    /// or MiB. It counts towards the tenant's storage quota.
    #[arg(long, env = "CODITECT_SESSION_MEMORY_LIMIT", value_name = "SIZE")]
    #[arg(default_value = "8MiB", value_parser = size)]
    pub session_memory_limit: usize,

    /// Maximum size of a workspace session's client state: bytes, or a number with the unit KiB or
    /// MiB. All retained versions count, and they count towards the tenant's storage quota.
    #[arg(long, env = "CODITECT_CLIENT_STATE_LIMIT", value_name = "SIZE")]
    #[arg(default_value = "16MiB", value_parser = size)]
    pub client_state_limit: usize,

    /// Maximum memory for responses that clients have not read yet: bytes, or a number with the
    /// unit KiB or MiB; at least 16MiB. A user and a connection may each use an eighth of it;
    /// requests beyond that wait for a second and are then refused with 429 or 503. Raise it on
    /// machines with more memory.
    #[arg(long, env = "CODITECT_MAX_UNREAD_RESPONSES", value_name = "SIZE")]
    #[arg(default_value = "256MiB", value_parser = budget)]
    pub max_unread_responses: u64,

    /// Maximum memory for request bodies and their parsed values: bytes, or a number with the unit
    /// KiB or MiB; at least 16MiB. A user, a connection, and all clients without a login together
    /// may each use an eighth of it; requests beyond that wait for a second and are then refused
    /// with 429 or 503. Raise it on machines with more memory.
    #[arg(long, env = "CODITECT_MAX_REQUEST_BODIES", value_name = "SIZE")]
    #[arg(default_value = "256MiB", value_parser = budget)]
    pub max_request_bodies: u64,

    /// Maximum number of logins per user, 1 to 1000. One more login ends the one that was idle
    /// longest.
    #[arg(long, env = "CODITECT_MAX_LOGINS", value_name = "COUNT")]
    #[arg(default_value_t = 100, value_parser = logins)]
    pub max_logins: usize,

    /// Time for which entries of audit logs are kept, from 30 to 3650 days.
    #[arg(long, env = "CODITECT_AUDIT_RETENTION", value_name = "DURATION")]
    #[arg(default_value = "400days", value_parser = retention)]
    pub audit_retention: Duration,

    /// Maximum number of entries in the audit log of a tenant, at least 1000. Beyond it the oldest
    /// are removed by the next sweep.
    #[arg(long, env = "CODITECT_MAX_AUDIT_ENTRIES", value_name = "COUNT")]
    #[arg(default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub max_audit_entries: u64,

    /// Maximum number of open connections; further ones wait in the listen queue. The server raises
    /// its limit on open files as far as the system allows. If that limit has no room for the
    /// connections and 256 files of the store, the server accepts fewer connections and logs a
    /// warning at startup.
    #[arg(long, env = "CODITECT_MAX_CONNECTIONS", value_name = "COUNT")]
    #[arg(default_value_t = 10_000, value_parser = connections)]
    pub max_connections: usize,
}

/// Who may create an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RegistrationMode {
    /// Anyone.
    Open,
    /// Holders of an invitation to a tenant.
    Invited,
    /// No one.
    Closed,
}

/// Delivery of tokens that are meant for one e-mail address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum MailerKind {
    /// No delivery.
    None,
    /// A line in the log.
    Log,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum LogFormat {
    /// Human-readable lines.
    Text,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// Parses `flags`, without the name of the program, on top of the environment.
    ///
    /// # Errors
    ///
    /// An unknown flag, or a value outside of its bounds.
    pub fn from_flags<I>(flags: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let name = OsString::from("coditect-server");
        Self::try_parse_from(std::iter::once(name).chain(flags.into_iter().map(Into::into)))
    }

    /// Returns the minimum of [`max_unread_responses`](Self::max_unread_responses) per user, in
    /// bytes: room for the memory of a session twice, since reading it needs two copies, and for
    /// small responses.
    pub(crate) fn least_unread_responses(&self) -> u64 {
        2 * self.session_memory_limit as u64 + (2 << 20)
    }

    /// Returns the number of bytes of request bodies that a user may have at the least: the largest
    /// JSON body, with its values, or two batches of an upload.
    pub(crate) fn least_request_bodies(&self) -> u64 {
        (2 * self.body_limit as u64).max(2 << 20)
    }

    /// Returns the limits on the state of a session.
    pub(crate) fn state_quota(&self) -> StateQuota {
        StateQuota {
            memory_bytes: self.session_memory_limit as u64,
            client_bytes: i64::try_from(self.client_state_limit).unwrap_or(i64::MAX),
            tenant_bytes: FILE_POLICY.bytes,
        }
    }
}

/// Maximum of a duration, so that adding it to a time cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > MAX_DURATION => Err("must be at most 24h".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be greater than 0s".to_owned()),
        timeout => Ok(timeout),
    }
}

/// Minimum rotation period: verifiers cache the published keys, and must see a key before it signs.
const MIN_KEY_ROTATION: Duration = Duration::from_secs(60 * 60);

fn rotation(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration < MIN_KEY_ROTATION => Err("must be at least 1h".to_owned()),
        Ok(duration) if duration > MAX_DURATION * 3650 => {
            Err("must be at most 3650 days".to_owned())
        }
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

fn retention(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration < MAX_DURATION * 30 => Err("must be at least 30 days".to_owned()),
        Ok(duration) if duration > MAX_DURATION * 3650 => {
            Err("must be at most 3650 days".to_owned())
        }
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

fn logins(text: &str) -> Result<usize, String> {
    let count = text.parse().map_err(|_| "not a number".to_owned())?;
    if (1..=MAX_LOGINS).contains(&count) {
        return Ok(count);
    }
    Err(format!("must be 1 to {MAX_LOGINS}"))
}

fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(count) if count > tokio::sync::Semaphore::MAX_PERMITS => Err("too large".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err("not a number".to_owned()),
    }
}

/// Parses a log filter. [`EnvFilter`] would take an unknown level as the name of a module, log
/// everything of that module and nothing of the others.
fn log_filter(text: &str) -> Result<String, String> {
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        let is_plain = !directive.contains(['=', '[', ']', '{', '}']);
        if is_plain && (directive.is_empty() || directive.parse::<LevelFilter>().is_err()) {
            let message =
                "is not a level: use off, error, warn, info, debug, trace or MODULE=LEVEL";
            return Err(format!("`{directive}` {message}"));
        }
    }
    let filter = directives.join(",");
    EnvFilter::try_new(&filter).map_err(|error| error.to_string())?;
    Ok(filter)
}

/// Minimum of `--max-unread-responses` and `--max-request-bodies`; a smaller limit would refuse
/// ordinary requests and responses.
const MIN_BUDGET: u64 = 16 << 20;

fn budget(text: &str) -> Result<u64, String> {
    match size(text)? as u64 {
        bytes if bytes < MIN_BUDGET => Err("must be at least 16MiB".to_owned()),
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
    fn no_flags_give_the_defaults() {
        let config = Config::from_flags::<[&str; 0]>([]).unwrap();
        assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 8080)));
        assert_eq!(config.place.data, PathBuf::from("./coditect-data"));
        assert!(!config.ephemeral);
        assert_eq!(config.log_format, LogFormat::Text);
        assert_eq!(config.access_token_ttl, Duration::from_secs(15 * 60));
        assert_eq!(config.refresh_grace, Duration::from_secs(10));
        assert_eq!(config.body_limit, 1024 * 1024);
        assert_eq!(config.header_timeout, Duration::from_secs(10));
        assert_eq!(config.body_timeout, Duration::from_secs(30));
        assert_eq!(config.idle_timeout, Duration::from_secs(75));
    }

    #[test]
    fn unknown_log_level_is_refused() {
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
    fn durations_have_units() {
        let config =
            Config::from_flags(["--access-token-ttl=1h 30m", "--header-timeout", "250ms"]).unwrap();
        assert_eq!(config.access_token_ttl, Duration::from_secs(90 * 60));
        assert_eq!(config.header_timeout, Duration::from_millis(250));
    }

    #[test]
    fn access_token_ttl_is_above_zero_and_at_most_a_day() {
        assert!(Config::from_flags(["--access-token-ttl", "24h"]).is_ok());
        assert!(refused(&["--access-token-ttl", "24h 1s"]).contains("at most 24h"));
        assert!(refused(&["--access-token-ttl", "0s"]).contains("greater than 0s"));
    }

    #[test]
    fn key_rotation_is_at_least_an_hour() {
        assert!(Config::from_flags(["--key-rotation", "1h"]).is_ok());
        assert!(refused(&["--key-rotation", "59m"]).contains("at least 1h"));
        assert!(refused(&["--key-rotation", "3651days"]).contains("at most 3650 days"));
    }

    #[test]
    fn refresh_grace_may_be_zero_but_a_timeout_may_not() {
        let config = Config::from_flags(["--refresh-grace", "0s"]).unwrap();
        assert_eq!(config.refresh_grace, Duration::ZERO);
        refused(&["--idle-timeout", "0s"]);
        refused(&["--body-timeout", "soon"]);
        refused(&["--idle-timeout", "90000000000y"]);
    }

    #[test]
    fn size_is_bytes_with_an_optional_unit() {
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("2 MiB"), Ok(2 * 1024 * 1024));
        for wrong in ["", "0", "-1", "MiB", "1GB", "99999999999999999999", "17592186044416MiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn help_shows_the_variable_and_default_of_every_setting() {
        let help = Config::command().render_long_help().to_string();
        for argument in Config::command().get_arguments() {
            let Some(long) = argument.get_long() else {
                continue;
            };
            if matches!(long, "help" | "version") {
                continue;
            }
            let variable = format!("CODITECT_{}", long.replace('-', "_").to_uppercase());
            assert!(help.contains(&format!("--{long}")), "{long}");
            assert!(help.contains(&variable), "{variable}");
            let has_none = [
                "allowed-origin",
                "cluster-file",
                "cluster-trace",
                "cookies",
                "ephemeral",
                "frontend",
                "metrics-listen",
                "websocket-token-in-query",
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
