//! nginx with the shipped configuration in a temporary directory; only ports, addresses and paths
//! are changed.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::{Child, Command},
};

use crate::{client::PATIENCE, folder::Folder};

/// Runs until dropped.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    folder: Folder,
    child: Child,
}

/// The configuration before nginx starts.
pub(super) struct Setup {
    /// `coditect.conf`, which a test may change.
    pub(super) text: String,
    pub(super) folder: Folder,
}

/// Placeholder for the address, until a free port is known.
const ADDRESS: &str = "ADDRESS";

/// Returns the path of nginx; `None`, with a message, without it.
#[expect(clippy::print_stderr, reason = "reports skipped tests")]
fn program() -> Option<PathBuf> {
    let folders = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let folders = folders.into_iter().chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join("nginx")).find(|path| path.exists());
    if found.is_none() {
        assert!(env::var_os("CODITECT_ALL_TOOLS").is_none(), "there is no nginx");
        eprintln!("skipped: nginx is not installed on this machine");
    }
    found
}

impl Setup {
    /// Prepares the configuration for these back ends; `None` without nginx.
    pub(super) fn before(server: SocketAddr, ide: SocketAddr) -> Option<Self> {
        program()?;
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nginx");
        let folder = Folder::new();
        let at = folder.path();
        fs::create_dir(at.join("coditect")).unwrap();
        for file in fs::read_dir(shipped.join("coditect")).unwrap() {
            let file = file.unwrap();
            let text = fs::read_to_string(file.path()).unwrap();
            let text = text.replace("/var/log/nginx", at.to_str().unwrap());
            fs::write(at.join("coditect").join(file.file_name()), text).unwrap();
        }
        let text = fs::read_to_string(shipped.join("coditect.conf")).unwrap();
        let mut setup = Self { text, folder };
        setup.replace("server 127.0.0.1:8080;", &format!("server {server};"));
        setup.replace("server 127.0.0.1:3000;", &format!("server {ide};"));
        setup.replace("listen [::]:80;", "");
        setup.replace("    listen 80;", &format!("    listen {ADDRESS};"));
        Some(setup)
    }

    /// Replaces `shipped`, which must occur, by `with`.
    pub(super) fn replace(&mut self, shipped: &str, with: &str) {
        assert!(self.text.contains(shipped), "{shipped} is not in coditect.conf");
        self.text = self.text.replace(shipped, with);
    }

    /// Switches to the server with TLS by the command of the README, with the certificate and key
    /// in the directory.
    pub(super) fn with_tls(&mut self) {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/README.md");
        let readme = fs::read_to_string(readme).unwrap().replace("\\\n    ", "");
        let command = readme.lines().find(|line| line.starts_with("sed ")).unwrap();
        let path = self.folder.path().join("coditect.conf");
        fs::write(&path, &self.text).unwrap();
        let command = command.replace("/etc/nginx/conf.d/coditect.conf", path.to_str().unwrap());
        assert!(
            std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success()
        );
        self.text = fs::read_to_string(&path).unwrap();
        let plain = format!("unix:{}", self.path("plain.sock"));
        self.replace(&format!("listen {ADDRESS};"), &format!("listen {plain};"));
        self.replace("listen [::]:443 ssl http2;", "");
        self.replace("listen 443 ssl", &format!("listen {ADDRESS} ssl"));
        let folder = self.folder.path().to_str().unwrap().to_owned();
        self.replace("/etc/nginx/coditect/", &format!("{folder}/"));
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes the configuration and returns the command, and the address with a port that was just
    /// free.
    fn command(&self) -> (Command, SocketAddr) {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = self.text.replace(ADDRESS, &free.to_string());
        fs::write(self.folder.path().join("coditect.conf"), text).unwrap();
        let folder = self.folder.path().display();
        let main = format!(
            "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log info;\n\
             events {{}}\n\
             http {{\n\
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxied;\n\
             fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
             include coditect.conf;\n\
             }}\n"
        );
        fs::write(self.folder.path().join("nginx.conf"), main).unwrap();
        let mut command = Command::new(program().unwrap());
        command
            .args(["-e", "stderr", "-p", &self.path(""), "-c", &self.path("nginx.conf")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        (command, free)
    }

    /// Returns the output of `nginx -t`, and whether it accepts the configuration.
    pub(super) async fn checked(self) -> (bool, String) {
        let (mut command, _) = self.command();
        let output = command.arg("-t").output().await.unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    /// Starts nginx; retries with another port if that was taken meanwhile.
    pub(super) async fn start(self) -> Proxy {
        loop {
            let (mut command, address) = self.command();
            let mut child = command.spawn().unwrap();
            let begun_at = Instant::now();
            // The pid file is written after the port is bound.
            while !self.folder.path().join("pid").exists() && child.try_wait().unwrap().is_none() {
                assert!(begun_at.elapsed() < PATIENCE, "nginx does not start");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let Some(status) = child.try_wait().unwrap() else {
                return Proxy { address, folder: self.folder, child };
            };
            let output = child.wait_with_output().await.unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(told.contains("Address already in use"), "{status}: {told}");
        }
    }
}

impl Proxy {
    /// Returns the paths of temporary files.
    pub(super) fn temporary_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.path().join("body"), self.folder.path().join("proxied")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }

    /// Sends `request` to the plain port of a server with TLS.
    pub(super) async fn plain(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.folder.path().join("plain.sock")).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut said = vec![0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut said)).await.unwrap().unwrap();
        String::from_utf8_lossy(&said[..read]).into_owned()
    }

    /// Returns the peak memory, in bytes.
    #[cfg(target_os = "linux")]
    pub(super) fn peak_memory(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id().unwrap());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }

    /// Stops nginx, so that all lines are written, and returns the access log.
    pub(super) async fn logged(mut self) -> String {
        let id = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-QUIT", &id]).status().await;
        assert!(sent.unwrap().success());
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        fs::read_to_string(self.folder.path().join("coditect.log")).unwrap()
    }
}
