//! TLS: the server's certificate and key, and the handshake.
//!
//! The two files are reloaded every minute and on SIGHUP, so that new connections use a renewed
//! certificate. Files that do not match or are incomplete change nothing and are reported in the
//! log. The private key never leaves this module.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::{
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use zeroize::Zeroizing;

/// ALPN protocols in order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Interval between checks of the files.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// A failure to set up TLS.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// One of the two settings is missing.
    #[error("--tls-cert and --tls-key must be set together")]
    Half,
    /// A file cannot be read.
    #[error("{flag}: cannot read {}", .path.display())]
    Unreadable {
        /// Setting with the path.
        flag: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A file does not have the expected content.
    #[error("{flag}: no PEM {wanted} in {}", .path.display())]
    Empty {
        /// Setting with the path.
        flag: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Expected content.
        wanted: &'static str,
    },
    /// Certificate and key do not match, or are of an unsupported type.
    #[error("--tls-key: {} does not match {}", .key.display(), .certificate.display())]
    Unfit {
        /// Path of the key.
        key: PathBuf,
        /// Path of the certificate.
        certificate: PathBuf,
        /// Cause.
        source: rustls::Error,
    },
    /// rustls refuses the configuration.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

/// TLS as configured.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    present: Arc<Present>,
}

/// The certificate for new connections.
#[derive(Debug)]
struct Present {
    certificate: PathBuf,
    key: PathBuf,
    loaded: ArcSwap<Loaded>,
}

/// A certificate with its key, and a hash of the files.
#[derive(Debug)]
struct Loaded {
    certified: Arc<CertifiedKey>,
    hash: [u8; 32],
}

impl Tls {
    /// Loads these files, if they are given.
    ///
    /// # Errors
    ///
    /// [`enum@Error`].
    pub(crate) fn open(
        certificate: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Option<Self>, Error> {
        let (certificate, key) = match (certificate, key) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => (certificate.to_owned(), key.to_owned()),
            _ => return Err(Error::Half),
        };
        let provider = Arc::new(ring::default_provider());
        let loaded = load(&certificate, &key, &provider)?;
        let present = Arc::new(Present { certificate, key, loaded: ArcSwap::from_pointee(loaded) });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&present) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Some(Self { acceptor: Arc::new(config).into(), present }))
    }

    /// Does the handshake on `stream`, until `deadline`.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        deadline: Instant,
    ) -> io::Result<TlsStream<TcpStream>> {
        timeout_at(deadline, self.acceptor.accept(stream)).await?
    }

    /// Reloads the files every minute and on SIGHUP, starting with this call.
    pub(crate) fn keep(self) -> impl Future<Output = ()> {
        let hangup = Hangup::new();
        self.keep_until_dropped(hangup)
    }

    async fn keep_until_dropped(self, mut hangup: Hangup) {
        let mut due = interval(RELOAD_INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is immediate.
        due.tick().await;
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = hangup.received() => {}
            }
            match self.present.renew() {
                Ok(true) => tracing::info!("TLS certificate reloaded"),
                Ok(false) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "cannot reload the TLS certificate");
                }
            }
        }
    }
}

impl Present {
    /// Reloads the files and returns whether they have changed.
    fn renew(&self) -> Result<bool, Error> {
        let loaded = load(&self.certificate, &self.key, &Arc::new(ring::default_provider()))?;
        let is_another = loaded.hash != self.loaded.load().hash;
        if is_another {
            self.loaded.store(Arc::new(loaded));
        }
        Ok(is_another)
    }
}

impl ResolvesServerCert for Present {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.loaded.load().certified))
    }
}

fn load(certificate: &Path, key: &Path, provider: &Arc<CryptoProvider>) -> Result<Loaded, Error> {
    let read = |flag, path: &Path| {
        let unreadable = |source| Error::Unreadable { flag, path: path.to_owned(), source };
        fs::read(path).map(Zeroizing::new).map_err(unreadable)
    };
    let empty = |flag, path: &Path, wanted| Error::Empty { flag, path: path.to_owned(), wanted };
    let chain_pem = read("--tls-cert", certificate)?;
    let key_pem = read("--tls-key", key)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain_pem)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|chain: &Vec<_>| !chain.is_empty())
        .ok_or_else(|| empty("--tls-cert", certificate, "certificate"))?;
    let private = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| empty("--tls-key", key, "private key"))?;
    let certified = CertifiedKey::from_der(chain, private, provider).map_err(|source| {
        Error::Unfit { key: key.to_owned(), certificate: certificate.to_owned(), source }
    })?;
    let hash = Sha256::new().chain_update(&*chain_pem).chain_update(&*key_pem).finalize();
    Ok(Loaded { certified: Arc::new(certified), hash: hash.into() })
}

/// SIGHUP, where available.
struct Hangup {
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangup {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};

        Self { signal: signal(SignalKind::hangup()).ok() }
    }

    async fn received(&mut self) {
        let received = match &mut self.signal {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if received.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a certificate for localhost to two files of `folder`.
    fn written(folder: &Path) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    fn refused(certificate: &Path, key: &Path) -> String {
        Tls::open(Some(certificate), Some(key)).err().unwrap().to_string()
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = written(folder.path());
        let missing = folder.path().join("missing.pem");
        assert!(refused(&missing, &key).contains("cannot read"));
        assert!(refused(&certificate, &missing).contains("--tls-key: "));
        assert!(refused(&key, &key).contains("no PEM certificate in"));
        assert!(refused(&certificate, &certificate).contains("no PEM private key in"));
        let other = tempfile::tempdir().unwrap();
        let (_, others) = written(other.path());
        assert!(refused(&certificate, &others).contains("does not match"));
        assert!(matches!(Tls::open(Some(&certificate), None), Err(Error::Half)));
        assert!(Tls::open(None, None).unwrap().is_none());
    }

    #[test]
    fn matching_files_are_reloaded_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = written(folder.path());
        let tls = Tls::open(Some(&certificate), Some(&key)).unwrap().unwrap();
        assert!(!tls.present.renew().unwrap());
        let before = tls.present.loaded.load().hash;

        let other = tempfile::tempdir().unwrap();
        let (others_certificate, others_key) = written(other.path());
        fs::copy(others_certificate, &certificate).unwrap();
        assert!(matches!(tls.present.renew(), Err(Error::Unfit { .. })));
        assert_eq!(tls.present.loaded.load().hash, before);
        fs::copy(others_key, &key).unwrap();
        assert!(tls.present.renew().unwrap());
        assert!(tls.present.loaded.load().hash != before);
    }
}
