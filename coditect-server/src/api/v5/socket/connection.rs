//! One WebSocket, from the first frame to the close.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use coditect_auth::{Identity, Scope};
use coditect_store::{
    engine::Watch,
    model::{ClientSequence, TenantId, UserId},
};
use futures_util::{
    FutureExt as _, SinkExt as _, StreamExt as _,
    future::{pending, select_all},
};
use hyper::StatusCode;
use serde_json::{Map, Value};
use tokio::{
    io::AsyncWriteExt as _,
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{
        CloseFrame,
        frame::{
            Frame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};

use super::updates::{self, Applied, Author};
use crate::{
    api::v5::{memory, owned::load_owned_session, parts::Document, state::SessionSnapshot},
    extract::caller::{self, Caller},
    http::problem::Problem,
    state::App,
    websocket::{
        StateSection,
        frame::{self, ClientMessage, Credential, Update},
        handshake::{WebSocket, close_code},
        hub::{SessionHub, SessionVersions},
    },
};

/// Maximum number of updates per transaction.
const MAX_BATCH: usize = 64;
/// Size of messages at which a batch ends, in bytes.
const MAX_BATCH_BYTES: usize = 512 << 10;
/// Time before the expiry of a login at which the client is warned; a quarter of the lifetime if
/// that is shorter.
const EXPIRY_WARNING: TimeDelta = TimeDelta::seconds(60);
/// Interval between checks of the login, in addition to watches.
const LOGIN_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Number of unanswered pings after which a client is disconnected.
const MAX_UNANSWERED_PINGS: u32 = 2;
/// Maximum of a timer, which is then set again.
const MAX_TIMER: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum time for a client to read a frame.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum duration of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Size of a fragment of a long message, in bytes.
const FRAGMENT_BYTES: usize = 64 << 10;

/// Reason to close a socket.
#[derive(Debug)]
enum Disconnect {
    /// The client has closed it or has disconnected.
    ClientGone,
    /// The server closes it with this code and reason.
    Close(u16, &'static str),
}

/// The login has ended.
const SIGNED_OUT: u16 = 4401;
/// The session was deleted.
const GONE: u16 = 4404;
/// A newer connection of the same client has taken over.
const SUPERSEDED: u16 = 4409;

/// State of a connection.
pub(super) struct Connection {
    app: Arc<App>,
    hub: Arc<SessionHub>,
    seen: watch::Receiver<SessionVersions>,
    /// The caller, with the scope to read.
    caller: Caller,
    user: (TenantId, UserId),
    /// Origin of the page that opened the socket.
    page: Option<String>,
    author: Author,
    /// Versions sent to the client, in the order of [`StateSection::ALL`].
    known: [u64; StateSection::ALL.len()],
    life: TokenExpiry,
}

/// Expiry of the login.
struct TokenExpiry {
    expires_at: DateTime<Utc>,
    /// Time of the warning.
    notice_at: DateTime<Utc>,
    is_noticed: bool,
}

impl TokenExpiry {
    fn new(now: DateTime<Utc>, expires_at: DateTime<Utc>) -> Self {
        let left = (expires_at - now).max(TimeDelta::zero());
        Self { expires_at, notice_at: expires_at - EXPIRY_WARNING.min(left / 4), is_noticed: false }
    }

    /// Returns the time of the next event: the warning, then the expiry.
    fn next_at(&self) -> DateTime<Utc> {
        if self.is_noticed { self.expires_at } else { self.notice_at }
    }
}

impl Connection {
    pub(super) fn new(
        app: &Arc<App>,
        caller: Caller,
        (identity, page): (&Identity, Option<String>),
        hub: Arc<SessionHub>,
        sequence: ClientSequence,
    ) -> Self {
        let ClientSequence { session_id: session, client, connection, seq, .. } = sequence;
        let expires_at = caller.expires_at().unwrap_or_else(|| identity.expires_at());
        Self {
            app: Arc::clone(app),
            seen: hub.seen(),
            hub,
            caller,
            user: (identity.tenant_id, identity.user.id),
            page,
            author: Author { session, client, connection, seq },
            known: [0; StateSection::ALL.len()],
            life: TokenExpiry::new(app.clock.now(), expires_at),
        }
    }

    /// Serves the client until either side closes the socket.
    pub(super) async fn run(mut self, mut socket: WebSocket, restored: SessionSnapshot) {
        let end = match self.send_restore(&mut socket, &restored).await {
            Ok(()) => {
                drop(restored);
                self.serve(&mut socket).await
            }
            Err(end) => end,
        };
        // The connection ends here, whether or not the client reads the reason.
        let _gone = timeout(CLOSE_TIMEOUT, close(&mut socket, end)).await;
        drop(self.hub);
    }

    /// Sends the whole state to the client.
    async fn send_restore(
        &mut self,
        socket: &mut WebSocket,
        restored: &SessionSnapshot,
    ) -> Result<(), Disconnect> {
        let mut versions = Map::new();
        for (known, part) in self.known.iter_mut().zip(StateSection::ALL) {
            *known = restored.version(part);
            versions.insert(part.name().to_owned(), Value::from(*known));
        }
        let data = restored.pieces().map_err(|problem| failed(&problem))?;
        let versions = Value::Object(versions);
        let message = frame::restore(&self.author.client, self.author.seq, &versions, data);
        self.send_pieces(socket, message).await
    }

    async fn serve(&mut self, socket: &mut WebSocket) -> Disconnect {
        let stopping = self.app.stopping().clone();
        let ping_every = self.app.config.websocket_ping_interval;
        let (mut heard_at, mut pinged) = (Instant::now(), 0);
        let mut looked_at = Instant::now();
        let mut login = self.watch_login().await;
        // Finds changes since the socket was opened; the watch finds later ones.
        if let Err(end) = self.look_at_login().await {
            return end;
        }
        loop {
            let ping_at = heard_at + ping_every * (pinged + 1);
            let notice_at = self.next_notice_at();
            let step = tokio::select! {
                () = stopping.cancelled() => {
                Err(Disconnect::Close(1001, "server is shutting down"))
            }
                said = socket.next() => {
                    (heard_at, pinged) = (Instant::now(), 0);
                    self.on_message(socket, said).await
                }
                changed = self.seen.changed() => match changed {
                    Ok(()) => self.tell_changes(socket).await,
                    // Its task has ended because of a failure of the store.
                    Err(_) => Err(Disconnect::Close(1011, "internal error, try again")),
                },
                () = sleep_until(ping_at) => {
                    pinged += 1;
                    if pinged > MAX_UNANSWERED_PINGS {
                        return Disconnect::ClientGone;
                    }
                    send_message(socket, Message::Ping(Vec::new().into())).await
                }
                () = fired(&mut login) => {
                    (login, looked_at) = (self.watch_login().await, Instant::now());
                    self.look_at_login().await
                }
                () = sleep_until(looked_at + LOGIN_CHECK_INTERVAL) => {
                    (login, looked_at) = (self.watch_login().await, Instant::now());
                    self.look_at_login().await
                }
                () = sleep_until(notice_at) => self.warn_expiry(socket).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Handles a message together with all others that have already arrived, so that updates are
    /// batched.
    async fn on_message(
        &mut self,
        socket: &mut WebSocket,
        said: Option<Result<Message, Error>>,
    ) -> Result<(), Disconnect> {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        let mut next = Some(said);
        let mut other = Ok(None);
        while let Some(said) = next.take() {
            match &said {
                Some(Ok(Message::Text(_) | Message::Binary(_))) => socket.get_ref().complete(),
                Some(Ok(control)) => socket.get_ref().consume_control(control.len()),
                _ => {}
            }
            batch_bytes += said.as_ref().map_or(0, |said| said.as_ref().map_or(0, Message::len));
            match understood(said) {
                Ok(None) => {}
                Ok(Some(ClientMessage::Update(update))) => batch.push(update),
                Ok(Some(said)) => other = Ok(Some(said)),
                Err(end) => other = Err(end),
            }
            let is_full = batch.len() == MAX_BATCH || batch_bytes >= MAX_BATCH_BYTES;
            if matches!(other, Ok(None)) && !is_full {
                next = socket.next().now_or_never();
            }
        }
        // Updates before another message are applied first, even if that message ends the
        // connection.
        if !batch.is_empty() {
            self.update(socket, &batch).await?;
        }
        socket.get_ref().applied();
        match other {
            Ok(None | Some(ClientMessage::Update(_))) => Ok(()),
            Ok(Some(ClientMessage::Ping)) => send(socket, frame::pong()).await,
            Ok(Some(ClientMessage::Authenticate(shown))) => self.authenticate(socket, shown).await,
            Err(DecodeError::Ended(end)) => Err(end),
            Err(DecodeError::Bad(code, problem)) => {
                send(socket, frame::error(None, &problem)).await?;
                Err(Disconnect::Close(code, "invalid message"))
            }
        }
    }

    async fn update(&mut self, socket: &mut WebSocket, batch: &[Update]) -> Result<(), Disconnect> {
        let caller = self.caller.clone().with_scope(Scope::Write);
        let outcome = match updates::apply(&self.app, &caller, &self.author, batch).await {
            Ok(Applied::Done(outcome)) => outcome,
            Ok(Applied::Superseded) => {
                return Err(Disconnect::Close(
                    SUPERSEDED,
                    "superseded by another connection of this client",
                ));
            }
            Err(problem) => {
                send(socket, frame::error(None, &problem)).await?;
                return Err(failed(&problem));
            }
        };
        for (part, before, after) in outcome.written {
            let known = &mut self.known[part as usize];
            // If another client's change came in between, the client gets the whole state.
            if *known == before {
                *known = after;
            }
        }
        for (seq, answer) in outcome.answers {
            self.author.seq = self.author.seq.max(seq);
            let answer = match answer {
                Ok((part, version)) => frame::ack(seq, part, version),
                Err(problem) => frame::error(Some(seq), &problem),
            };
            socket.feed(Message::text(answer)).await.map_err(|_| Disconnect::ClientGone)?;
        }
        flush(socket).await?;
        self.tell_changes(socket).await
    }

    /// Sends the sections that differ from those known to the client.
    async fn tell_changes(&mut self, socket: &mut WebSocket) -> Result<(), Disconnect> {
        let seen = *self.seen.borrow_and_update();
        if seen.is_gone {
            return Err(Disconnect::Close(GONE, "session deleted"));
        }
        for (at, part) in StateSection::ALL.into_iter().enumerate() {
            if seen.versions[at] <= self.known[at] {
                continue;
            }
            let read = self.read(part).await;
            let (version, json) = read.map_err(|problem| failed(&problem))?;
            self.known[at] = version;
            self.send_pieces(socket, frame::changed(part, version, json)).await?;
        }
        Ok(())
    }

    /// Returns the version of `part` and its JSON.
    async fn read(&self, part: StateSection) -> Result<(u64, Bytes), Problem> {
        let (app, caller, id) = (&self.app, &self.caller, self.author.session);
        let Some(document) = Document::of(part) else {
            let memory = memory::run(app, caller, |tx, identity, reader| async move {
                let session = load_owned_session(&tx, &identity, id).await?;
                reader.read(&tx, &session, false).await
            });
            let memory = memory.await?;
            return Ok((memory.version(), memory.json()));
        };
        let stored = caller::transact(app, caller, |tx, identity| async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            Ok(document.read(&tx, &session).await?.0)
        });
        let stored = stored.await?;
        let json = serde_json::to_vec(&stored.json).map_err(Problem::internal)?;
        Ok((stored.version, json.into()))
    }

    /// Sends a message. A long one is sent in fragments (RFC 6455, section 5.4), which bounds the
    /// buffer of a socket.
    async fn send_pieces(
        &self,
        socket: &mut WebSocket,
        message: Vec<Bytes>,
    ) -> Result<(), Disconnect> {
        let length: usize = message.iter().map(Bytes::len).sum();
        let buffered = length.min(2 * FRAGMENT_BYTES) as u64;
        let accounts = [self.app.output.user(self.user.1)];
        let charge = self.app.output.charge(&accounts, buffered, SEND_TIMEOUT).await;
        let _charge = charge.map_err(|problem| failed(&problem))?;
        if length <= FRAGMENT_BYTES {
            let text = String::from_utf8(message.concat());
            return send(
                socket,
                text.map_err(|_| Disconnect::Close(1011, "internal error, try again"))?,
            )
            .await;
        }
        let (mut left, mut opcode) = (length, Data::Text);
        for mut piece in message {
            while !piece.is_empty() {
                let fragment = piece.split_to(piece.len().min(FRAGMENT_BYTES));
                left -= fragment.len();
                let frame = Frame::message(fragment, OpCode::Data(opcode), left == 0);
                send_message(socket, Message::Frame(frame)).await?;
                opcode = Data::Continue;
            }
        }
        Ok(())
    }

    /// Continues with a new credential of the same user and tenant.
    async fn authenticate(
        &mut self,
        socket: &mut WebSocket,
        shown: Credential,
    ) -> Result<(), Disconnect> {
        let credential = match shown {
            Credential::Token(token) => self.app.auth.verify_credential(&token).await,
            Credential::Ticket(ticket) => {
                self.app.auth.consume_ticket(&ticket, self.page.as_deref()).await
            }
        };
        let shown = async {
            let caller = Caller::by(credential?, Scope::Read);
            let identity = caller::identity(&self.app, &caller).await?;
            Ok::<_, Problem>((caller, identity))
        };
        match shown.await {
            Ok((caller, identity)) if (identity.tenant_id, identity.user.id) == self.user => {
                let expires_at = caller.expires_at().unwrap_or_else(|| identity.expires_at());
                self.life = TokenExpiry::new(self.app.clock.now(), expires_at);
                self.caller = caller;
                send(socket, frame::authenticated(expires_at)).await
            }
            Ok(_) => Err(Disconnect::Close(SIGNED_OUT, "credential of another user or tenant")),
            Err(problem) => {
                send(socket, frame::error(None, &problem)).await?;
                Err(failed(&problem))
            }
        }
    }

    /// Returns watches on the records behind the caller's identity: the login or personal token,
    /// the user, the membership. Returns none if they cannot be watched.
    async fn watch_login(&self) -> Vec<Watch> {
        let auth = &self.app.auth;
        let watches = caller::transact(&self.app, &self.caller, |tx, identity| async move {
            Ok(auth.watch(&tx, &identity).await?)
        });
        watches.await.unwrap_or_default()
    }

    /// Closes the socket if the login is no longer valid or the session is gone.
    async fn look_at_login(&mut self) -> Result<(), Disconnect> {
        let id = self.author.session;
        let looked = caller::transact(&self.app, &self.caller, |tx, identity| async move {
            load_owned_session(&tx, &identity, id).await?;
            Ok(identity)
        });
        match looked.await {
            Ok(identity) => {
                let expires_at = identity.expires_at();
                if self.caller.expires_at().is_none() && expires_at != self.life.expires_at {
                    self.life = TokenExpiry::new(self.app.clock.now(), expires_at);
                }
                Ok(())
            }
            // A failure of the server decides nothing; the login is checked again later.
            Err(problem) if problem.status().is_server_error() => Ok(()),
            Err(problem) => Err(failed(&problem)),
        }
    }

    /// Returns the time of the next warning or expiry.
    fn next_notice_at(&self) -> Instant {
        // A time in the past is due now.
        let left = (self.life.next_at() - self.app.clock.now()).to_std().unwrap_or_default();
        Instant::now() + left.min(MAX_TIMER)
    }

    /// Sends the warning or closes the socket, if it is time.
    async fn warn_expiry(&mut self, socket: &mut WebSocket) -> Result<(), Disconnect> {
        let now = self.app.clock.now();
        if now >= self.life.expires_at {
            return Err(Disconnect::Close(SIGNED_OUT, "login expired"));
        }
        if self.life.is_noticed || now < self.life.notice_at {
            return Ok(());
        }
        self.life.is_noticed = true;
        send(socket, frame::expiring(self.life.expires_at)).await
    }
}

/// Completes the closing handshake (RFC 6455, section 7.1): sends a Close frame or the reply to the
/// client's, waits for the client's own, and shuts the connection down so that unread bytes of the
/// client do not reset it before it has read ours.
async fn close(socket: &mut WebSocket, end: Disconnect) -> Result<(), Error> {
    match end {
        Disconnect::Close(code, reason) => {
            tracing::debug!(code, reason, "closing websocket");
            let close = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
            socket.close(Some(close)).await?;
        }
        // Reading a Close frame has queued the reply.
        Disconnect::ClientGone => socket.flush().await?,
    }
    while let Some(frame) = socket.next().await {
        frame?;
    }
    Ok(socket.get_mut().shutdown().await?)
}

/// A failure to read a message.
enum DecodeError {
    /// No more messages follow.
    Ended(Disconnect),
    /// The message is invalid; close with this code.
    Bad(u16, Problem),
}

/// Decodes a message; `None` for control frames.
fn understood(said: Option<Result<Message, Error>>) -> Result<Option<ClientMessage>, DecodeError> {
    let bad = |code, message: &str| {
        Err(DecodeError::Bad(code, Problem::bad_request("BAD_FRAME", message)))
    };
    match said {
        Some(Ok(Message::Text(text))) => match ClientMessage::parse(&text) {
            Ok(said) => Ok(Some(said)),
            Err(problem) => {
                let code = if problem.code() == "INVALID_JSON" { 1007 } else { 1008 };
                Err(DecodeError::Bad(code, problem))
            }
        },
        Some(Ok(Message::Binary(_))) => bad(1003, "Messages must be text."),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Err(error)) => match close_code(&error) {
            Some(code) => bad(code, "The frame is malformed, not UTF-8, or too long."),
            None => Err(DecodeError::Ended(Disconnect::ClientGone)),
        },
        None | Some(Ok(Message::Close(_))) => Err(DecodeError::Ended(Disconnect::ClientGone)),
    }
}

/// Returns the end of a connection for a problem.
fn failed(problem: &Problem) -> Disconnect {
    match problem.status() {
        _ if problem.code() == "NOT_A_MEMBER" => {
            Disconnect::Close(SIGNED_OUT, "no longer a member")
        }
        StatusCode::UNAUTHORIZED => Disconnect::Close(SIGNED_OUT, "signed out"),
        StatusCode::NOT_FOUND => Disconnect::Close(GONE, "session deleted"),
        StatusCode::FORBIDDEN => Disconnect::Close(1008, "not allowed"),
        StatusCode::TOO_MANY_REQUESTS => Disconnect::Close(1013, "client does not read"),
        _ => Disconnect::Close(1011, "internal error, try again"),
    }
}

/// Resolves when one of the watches does, or never without watches.
async fn fired(watches: &mut [Watch]) {
    if watches.is_empty() {
        pending::<()>().await;
    }
    // Whether it fired or failed, the login has to be checked.
    drop(select_all(watches).await);
}

async fn send(socket: &mut WebSocket, text: String) -> Result<(), Disconnect> {
    send_message(socket, Message::text(text)).await
}

async fn send_message(socket: &mut WebSocket, message: Message) -> Result<(), Disconnect> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Disconnect::ClientGone),
        Err(_elapsed) => Err(Disconnect::Close(1013, "client does not read")),
    }
}

async fn flush(socket: &mut WebSocket) -> Result<(), Disconnect> {
    match timeout(SEND_TIMEOUT, socket.flush()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Disconnect::ClientGone),
        Err(_elapsed) => Err(Disconnect::Close(1013, "client does not read")),
    }
}
