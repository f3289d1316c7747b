//! TLS: the server's certificate and key, and how a connection begins with them.
//!
//! The two files are read again each minute, and at SIGHUP: whoever renews a certificate writes the
//! files, and connections from then on have the new one. Files that don't fit each other, or are half
//! written, change nothing; the log tells of them. The key leaves this file only as a signature.

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

/// What is spoken over TLS, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How often the files are looked at.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(60);

/// Why there is no TLS.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// One of the two is not said.
    #[error("--tls-cert and --tls-key go together")]
    Half,
    /// A file cannot be read.
    #[error("{flag}: {} cannot be read", .path.display())]
    Unreadable {
        /// Which setting names it.
        flag: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it is to be.
    #[error("{flag}: there is no {wanted} in {}, as PEM", .path.display())]
    Empty {
        /// Which setting names it.
        flag: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What it is to hold.
        wanted: &'static str,
    },
    /// They are not of each other, or of a kind that isn't known.
    #[error("--tls-key: {} does not go with {}", .key.display(), .certificate.display())]
    Unfit {
        /// Where the key is.
        key: PathBuf,
        /// Where the certificate is.
        certificate: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No handshake can be made of it.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// TLS, as the settings have it.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    present: Arc<Present>,
}

/// The certificate that connections get now.
#[derive(Debug)]
struct Present {
    certificate: PathBuf,
    key: PathBuf,
    loaded: ArcSwap<Loaded>,
}

/// A certificate with its key, and the files' hash.
#[derive(Debug)]
struct Loaded {
    certified: Arc<CertifiedKey>,
    hash: [u8; 32],
}

impl Tls {
    /// That of these files, where they are given.
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

    /// Shakes hands over `stream`, until `deadline`.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        deadline: Instant,
    ) -> io::Result<TlsStream<TcpStream>> {
        timeout_at(deadline, self.acceptor.accept(stream)).await?
    }

    /// Looks at the files each minute, and when the process is told to, from this call on.
    pub(crate) fn keep(self) -> impl Future<Output = ()> {
        let hangup = Hangup::new();
        self.keep_until_dropped(hangup)
    }

    async fn keep_until_dropped(self, mut hangup: Hangup) {
        let mut due = interval(LOOKED_AT_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first comes at once.
        due.tick().await;
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = hangup.told() => {}
            }
            match self.present.renew() {
                Ok(true) => tracing::info!("another certificate is in use from now on"),
                Ok(false) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the certificate stays as it was");
                }
            }
        }
    }
}

impl Present {
    /// Takes what is in the files now; whether it is another.
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

/// SIGHUP, unless it cannot be caught.
struct Hangup {
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangup {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};

        Self { signal: signal(SignalKind::hangup()).ok() }
    }

    async fn told(&mut self) {
        let told = match &mut self.signal {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if told.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate for localhost, in two files of `folder`.
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
    fn what_is_wrong_with_a_file_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = written(folder.path());
        let missing = folder.path().join("missing.pem");
        assert!(refused(&missing, &key).contains("missing.pem cannot be read"));
        assert!(refused(&certificate, &missing).contains("--tls-key: "));
        assert!(refused(&key, &key).contains("no certificate in"));
        assert!(refused(&certificate, &certificate).contains("no private key in"));
        let other = tempfile::tempdir().unwrap();
        let (_, others) = written(other.path());
        assert!(refused(&certificate, &others).contains("does not go with"));
        assert!(matches!(Tls::open(Some(&certificate), None), Err(Error::Half)));
        assert!(Tls::open(None, None).unwrap().is_none());
    }

    #[test]
    fn another_pair_is_taken_and_half_of_one_is_not() {
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
