//! `health`: checks whether a server is ready.
//!
//! For images without a shell or other programs. It does not open the store: `/readyz` does. The
//! server's certificate is not verified, as in kubelet probes: the request has no secret, and the
//! response must be that of a coditect-server.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper::{
    Request, StatusCode, Uri,
    client::conn::http1,
    header,
    http::uri::{Parts, PathAndQuery, Scheme},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Error, Outcome};
use crate::cli::args::Health;

/// Time limit; longer than the server waits for its store.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Default path.
const READY: PathAndQuery = PathAndQuery::from_static("/readyz");

/// States of a healthy server in the responses of the health routes.
const HEALTHY: [&str; 3] = ["ready", "alive", "ok"];

/// Maximum size of a response, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Checks whether a server is ready.
pub(super) async fn run(arguments: &Health) -> Result<Outcome, Error> {
    let url = url(arguments);
    let not_ready = |why: String| Error::NotReady { url: url.clone(), why };
    match timeout(TIMEOUT, ask(&url)).await {
        Ok(Ok((status, _))) if !status.is_success() => Err(not_ready(format!("status {status}"))),
        Ok(Ok((_, body))) if is_ours(&body) => Ok(Outcome::Done),
        Ok(Ok(_)) => Err(not_ready("the response is not that of a coditect-server".to_owned())),
        Ok(Err(error)) => Err(not_ready(error.to_string())),
        Err(_) => Err(not_ready("timeout".to_owned())),
    }
}

/// Returns the URL to request.
fn url(arguments: &Health) -> Uri {
    let mut parts = arguments.url.clone().map_or_else(Parts::default, Uri::into_parts);
    if arguments.url.is_none() {
        let is_secure = arguments.tls_cert.is_some();
        parts.scheme = Some(if is_secure { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = nearby(arguments.listen).to_string().parse().ok();
    }
    if parts.path_and_query.as_ref().is_none_or(|path| path == "/") {
        parts.path_and_query = Some(READY);
    }
    // Parts that do not form a URL come from one without a scheme; `ask` reports that URL.
    Uri::from_parts(parts).unwrap_or_else(|_| arguments.url.clone().unwrap_or_default())
}

/// Returns the address to connect to; loopback for a server that listens on all addresses.
fn nearby(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Returns whether `body` is the response of a health route.
fn is_ours(body: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let status = answer["data"]["status"].as_str();
    answer["success"] == true && status.is_some_and(|status| HEALTHY.contains(&status))
}

async fn ask(url: &Uri) -> Result<(StatusCode, Bytes), Failure> {
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err("not a URL such as http://127.0.0.1:8080".into());
    };
    let (is_secure, usual_port) = match scheme {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return Err("the URL must begin with http:// or https://".into()),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(usual_port);
    let request = Request::get(url.path_and_query().unwrap_or(&READY).as_str())
        .header(header::HOST, authority.as_str())
        .body(Empty::<Bytes>::new())?;
    let stream = TcpStream::connect((host, port)).await?;
    if is_secure {
        let name = ServerName::try_from(host.to_owned())?;
        answer(TlsConnector::from(trusting()?).connect(name, stream).await?, request).await
    } else {
        answer(stream, request).await
    }
}

/// Sends `request` and returns the status and the body of the response.
async fn answer<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection ends when `sender` is dropped, at the end of this function.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
    // A longer body is not that of a health route.
    Ok((status, body.map(Collected::to_bytes).unwrap_or_default()))
}

/// Returns a TLS configuration that accepts every certificate.
fn trusting() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AcceptAny(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Verifier that accepts every certificate.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: Option<&str>, listen: &str, tls_cert: Option<&str>) -> String {
        let arguments = Health {
            url: url.map(|url| url.parse().unwrap()),
            listen: listen.parse().unwrap(),
            tls_cert: tls_cert.map(Into::into),
        };
        super::url(&arguments).to_string()
    }

    #[test]
    fn url_follows_the_listen_address_and_tls_settings() {
        for (listen, tls_cert, url) in [
            ("127.0.0.1:8080", None, "http://127.0.0.1:8080/readyz"),
            ("0.0.0.0:8080", None, "http://127.0.0.1:8080/readyz"),
            ("[::]:8443", Some("cert.pem"), "https://[::1]:8443/readyz"),
            ("192.0.2.7:80", None, "http://192.0.2.7:80/readyz"),
        ] {
            assert_eq!(asked(None, listen, tls_cert), url);
        }
    }

    #[test]
    fn given_url_is_kept_with_a_default_path() {
        for (given, url) in [
            ("http://coditect:8080", "http://coditect:8080/readyz"),
            ("https://coditect/", "https://coditect/readyz"),
            ("http://coditect/healthz", "http://coditect/healthz"),
            ("coditect:8080", "coditect:8080"),
        ] {
            assert_eq!(asked(Some(given), "127.0.0.1:1", None), url);
        }
    }
}
