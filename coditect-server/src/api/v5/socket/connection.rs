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
    api::v5::{memory, owned::load_owned_session, parts::Document, state::Restoration},
    extract::caller::{self, Caller},
    http::problem::Problem,
    state::App,
    websocket::{
        Part,
        frame::{self, Said, Shown, Update},
        handshake::{WebSocket, close_code},
        hub::{Room, Seen},
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
enum End {
    /// The client has closed it or has disconnected.
    Left,
    /// The server closes it with this code and reason.
    Told(u16, &'static str),
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
    room: Arc<Room>,
    seen: watch::Receiver<Seen>,
    /// The caller, with the scope to read.
    caller: Caller,
    user: (TenantId, UserId),
    /// Origin of the page that opened the socket.
    page: Option<String>,
    author: Author,
    /// Versions sent to the client, in the order of [`Part::ALL`].
    known: [u64; Part::ALL.len()],
    life: Life,
}

/// Expiry of the login.
struct Life {
    expires_at: DateTime<Utc>,
    /// Time of the warning.
    notice_at: DateTime<Utc>,
    is_noticed: bool,
}

impl Life {
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
        room: Arc<Room>,
        sequence: ClientSequence,
    ) -> Self {
        let ClientSequence { session_id: session, client, connection, seq, .. } = sequence;
        let expires_at = caller.expires_at().unwrap_or_else(|| identity.expires_at());
        Self {
            app: Arc::clone(app),
            seen: room.seen(),
            room,
            caller,
            user: (identity.tenant_id, identity.user.id),
            page,
            author: Author { session, client, connection, seq },
            known: [0; Part::ALL.len()],
            life: Life::new(app.clock.now(), expires_at),
        }
    }

    /// Serves the client until either side closes the socket.
    pub(super) async fn run(mut self, mut socket: WebSocket, restored: Restoration) {
        let end = match self.welcome(&mut socket, &restored).await {
            Ok(()) => {
                drop(restored);
                self.serve(&mut socket).await
            }
            Err(end) => end,
        };
        // The connection ends here, whether or not the client reads the reason.
        let _gone = timeout(CLOSE_TIMEOUT, close(&mut socket, end)).await;
        drop(self.room);
    }

    /// Sends the whole state to the client.
    async fn welcome(&mut self, socket: &mut WebSocket, restored: &Restoration) -> Result<(), End> {
        let mut versions = Map::new();
        for (known, part) in self.known.iter_mut().zip(Part::ALL) {
            *known = restored.version(part);
            versions.insert(part.name().to_owned(), Value::from(*known));
        }
        let data = restored.pieces().map_err(|problem| failed(&problem))?;
        let versions = Value::Object(versions);
        let message = frame::restore(&self.author.client, self.author.seq, &versions, data);
        self.send_pieces(socket, message).await
    }

    async fn serve(&mut self, socket: &mut WebSocket) -> End {
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
                () = stopping.cancelled() => Err(End::Told(1001, "server is shutting down")),
                said = socket.next() => {
                    (heard_at, pinged) = (Instant::now(), 0);
                    self.hear(socket, said).await
                }
                changed = self.seen.changed() => match changed {
                    Ok(()) => self.tell_changes(socket).await,
                    // Its task has ended because of a failure of the store.
                    Err(_) => Err(End::Told(1011, "internal error, try again")),
                },
                () = sleep_until(ping_at) => {
                    pinged += 1;
                    if pinged > MAX_UNANSWERED_PINGS {
                        return End::Left;
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
                () = sleep_until(notice_at) => self.notice(socket).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Handles a message together with all others that have already arrived, so that updates are
    /// batched.
    async fn hear(
        &mut self,
        socket: &mut WebSocket,
        said: Option<Result<Message, Error>>,
    ) -> Result<(), End> {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        let mut next = Some(said);
        let mut other = Ok(None);
        while let Some(said) = next.take() {
            batch_bytes += said.as_ref().map_or(0, |said| said.as_ref().map_or(0, Message::len));
            match understood(said) {
                Ok(None) => {}
                Ok(Some(Said::Update(update))) => batch.push(update),
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
        match other {
            Ok(None | Some(Said::Update(_))) => Ok(()),
            Ok(Some(Said::Ping)) => send(socket, frame::pong()).await,
            Ok(Some(Said::Authenticate(shown))) => self.authenticate(socket, shown).await,
            Err(Unheard::Ended(end)) => Err(end),
            Err(Unheard::Bad(code, problem)) => {
                send(socket, frame::error(None, &problem)).await?;
                Err(End::Told(code, "invalid message"))
            }
        }
    }

    async fn update(&mut self, socket: &mut WebSocket, batch: &[Update]) -> Result<(), End> {
        let caller = self.caller.clone().with_scope(Scope::Write);
        let outcome = match updates::apply(&self.app, &caller, &self.author, batch).await {
            Ok(Applied::Done(outcome)) => outcome,
            Ok(Applied::Superseded) => {
                return Err(End::Told(
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
            socket.feed(Message::text(answer)).await.map_err(|_| End::Left)?;
        }
        flush(socket).await?;
        self.tell_changes(socket).await
    }

    /// Sends the sections that differ from those known to the client.
    async fn tell_changes(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let seen = *self.seen.borrow_and_update();
        if seen.is_gone {
            return Err(End::Told(GONE, "session deleted"));
        }
        for (at, part) in Part::ALL.into_iter().enumerate() {
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
    async fn read(&self, part: Part) -> Result<(u64, Bytes), Problem> {
        let (app, caller, id) = (&self.app, &self.caller, self.author.session);
        let Some(document) = Document::of(part) else {
            let memory = memory::run(app, caller, |tx, identity, reader| async move {
                let session = load_owned_session(&tx, &identity, id).await?;
                reader.read(&tx, &session, false).await
            });
            let memory = memory.await?;
            return Ok((memory.version(), memory.json()));
        };
        let stored = caller::run(app, caller, |tx, identity| async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            document.read(&tx, &session).await
        });
        let stored = stored.await?;
        let json = serde_json::to_vec(&stored.json).map_err(Problem::internal)?;
        Ok((stored.version, json.into()))
    }

    /// Sends a message. A long one is sent in fragments (RFC 6455, section 5.4), which bounds the
    /// buffer of a socket.
    async fn send_pieces(&self, socket: &mut WebSocket, message: Vec<Bytes>) -> Result<(), End> {
        let length: usize = message.iter().map(Bytes::len).sum();
        let buffered = length.min(2 * FRAGMENT_BYTES) as u64;
        let accounts = [self.app.output.user(self.user.1)];
        let charge = self.app.output.charge(&accounts, buffered, SEND_TIMEOUT).await;
        let _charge = charge.map_err(|problem| failed(&problem))?;
        if length <= FRAGMENT_BYTES {
            let text = String::from_utf8(message.concat());
            return send(socket, text.map_err(|_| End::Told(1011, "internal error, try again"))?)
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
    async fn authenticate(&mut self, socket: &mut WebSocket, shown: Shown) -> Result<(), End> {
        let credential = match shown {
            Shown::Token(token) => self.app.auth.verify_credential(&token).await,
            Shown::Ticket(ticket) => {
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
                self.life = Life::new(self.app.clock.now(), expires_at);
                self.caller = caller;
                send(socket, frame::authenticated(expires_at)).await
            }
            Ok(_) => Err(End::Told(SIGNED_OUT, "credential of another user or tenant")),
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
        let watches = caller::run(&self.app, &self.caller, |tx, identity| async move {
            Ok(auth.watch(&tx, &identity).await?)
        });
        watches.await.unwrap_or_default()
    }

    /// Closes the socket if the login is no longer valid or the session is gone.
    async fn look_at_login(&mut self) -> Result<(), End> {
        let id = self.author.session;
        let looked = caller::run(&self.app, &self.caller, |tx, identity| async move {
            load_owned_session(&tx, &identity, id).await?;
            Ok(identity)
        });
        match looked.await {
            Ok(identity) => {
                let expires_at = identity.expires_at();
                if self.caller.expires_at().is_none() && expires_at != self.life.expires_at {
                    self.life = Life::new(self.app.clock.now(), expires_at);
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
    async fn notice(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let now = self.app.clock.now();
        if now >= self.life.expires_at {
            return Err(End::Told(SIGNED_OUT, "login expired"));
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
async fn close(socket: &mut WebSocket, end: End) -> Result<(), Error> {
    match end {
        End::Told(code, reason) => {
            tracing::debug!(code, reason, "closing websocket");
            let close = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
            socket.close(Some(close)).await?;
        }
        // Reading a Close frame has queued the reply.
        End::Left => socket.flush().await?,
    }
    while let Some(frame) = socket.next().await {
        frame?;
    }
    Ok(socket.get_mut().shutdown().await?)
}

/// A failure to read a message.
enum Unheard {
    /// No more messages follow.
    Ended(End),
    /// The message is invalid; close with this code.
    Bad(u16, Problem),
}

/// Decodes a message; `None` for control frames.
fn understood(said: Option<Result<Message, Error>>) -> Result<Option<Said>, Unheard> {
    let bad =
        |code, message: &str| Err(Unheard::Bad(code, Problem::bad_request("BAD_FRAME", message)));
    match said {
        Some(Ok(Message::Text(text))) => match Said::parse(&text) {
            Ok(said) => Ok(Some(said)),
            Err(problem) => {
                let code = if problem.code() == "INVALID_JSON" { 1007 } else { 1008 };
                Err(Unheard::Bad(code, problem))
            }
        },
        Some(Ok(Message::Binary(_))) => bad(1003, "Messages must be text."),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Err(error)) => match close_code(&error) {
            Some(code) => bad(code, "The frame is malformed, not UTF-8, or too long."),
            None => Err(Unheard::Ended(End::Left)),
        },
        None | Some(Ok(Message::Close(_))) => Err(Unheard::Ended(End::Left)),
    }
}

/// Returns the end of a connection for a problem.
fn failed(problem: &Problem) -> End {
    match problem.status() {
        _ if problem.code() == "NOT_A_MEMBER" => End::Told(SIGNED_OUT, "no longer a member"),
        StatusCode::UNAUTHORIZED => End::Told(SIGNED_OUT, "signed out"),
        StatusCode::NOT_FOUND => End::Told(GONE, "session deleted"),
        StatusCode::FORBIDDEN => End::Told(1008, "not allowed"),
        StatusCode::TOO_MANY_REQUESTS => End::Told(1013, "client does not read"),
        _ => End::Told(1011, "internal error, try again"),
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

async fn send(socket: &mut WebSocket, text: String) -> Result<(), End> {
    send_message(socket, Message::text(text)).await
}

async fn send_message(socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Left),
        Err(_elapsed) => Err(End::Told(1013, "client does not read")),
    }
}

async fn flush(socket: &mut WebSocket) -> Result<(), End> {
    match timeout(SEND_TIMEOUT, socket.flush()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Left),
        Err(_elapsed) => Err(End::Told(1013, "client does not read")),
    }
}
