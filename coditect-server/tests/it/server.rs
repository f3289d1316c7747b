//! A server in this process, with routes that expose the HTTP layer to tests.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use coditect_server::{
    App, Config, Server,
    api::router::{Routes, route},
    http::{HandlerResult, Request, respond},
};
use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    client::PATIENCE,
    folder::{is_on_cluster, prefix_of},
};

/// A server that runs until it is stopped or the runtime of its test ends.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts with the routes of the product.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::over(Server::bind(config(flags)).await.unwrap())
    }

    /// Starts with the routes of the product and data in `folder`.
    pub(crate) async fn start_in(folder: &Path, flags: &[&str]) -> Self {
        let prefix = prefix_of(folder);
        let mut data = vec!["--listen", "127.0.0.1:0", "--data", folder.to_str().unwrap()];
        if is_on_cluster() {
            data.extend(["--cluster-prefix", &prefix]);
        }
        let data = data.iter();
        let config = Config::from_flags(data.chain(flags)).unwrap();
        Self::over(Server::bind(config).await.unwrap())
    }

    /// Starts with the routes of this module.
    pub(crate) async fn start_sample(flags: &[&str]) -> Self {
        Self::over(Server::bind_with(config(flags), sample()).await.unwrap())
    }

    fn over(server: Server) -> Self {
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _dropped = stopped.await;
        }));
        Self { address, stop, task }
    }

    /// Stops it and returns when its data directory is free.
    pub(crate) async fn stopped(self) {
        timeout(PATIENCE, self.stop()).await.unwrap().unwrap();
    }

    /// Stops the server; the handle resolves when it has stopped.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.stop.send(()).unwrap();
        self.task
    }
}

fn config(flags: &[&str]) -> Config {
    let flags = ["--listen", "127.0.0.1:0", "--ephemeral"].iter().chain(flags);
    Config::from_flags(flags).unwrap()
}

fn sample() -> Routes {
    Routes::of(vec![
        route(Method::GET, "/empty", empty),
        route(Method::GET, "/large", large),
        route(Method::GET, "/panics", panics),
        route(Method::GET, "/slow/{ms}", slow),
        route(Method::POST, "/slow/{ms}", slow),
        route(Method::POST, "/echo/{name}", echo),
    ])
    .unwrap()
}

async fn empty(_: Arc<App>, _: Request) -> HandlerResult {
    Ok(respond::no_content())
}

/// More than the socket buffers of both sides.
async fn large(_: Arc<App>, _: Request) -> HandlerResult {
    respond::ok(&"x".repeat(32 << 20))
}

async fn panics(_: Arc<App>, _: Request) -> HandlerResult {
    panic!("as it should");
}

async fn slow(_: Arc<App>, request: Request) -> HandlerResult {
    sleep(Duration::from_millis(request.parse_param("ms")?)).await;
    respond::ok(&"done")
}

#[derive(Deserialize)]
struct Echo {
    #[serde(alias = "firstName")]
    first_name: String,
}

async fn echo(_: Arc<App>, mut request: Request) -> HandlerResult {
    let echo: Echo = request.json().await?;
    respond::ok(&json!({"name": request.param("name")?, "first_name": echo.first_name}))
}
