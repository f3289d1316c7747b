//! Applying updates: a batch of them in one transaction, each part written once.

use std::collections::BTreeMap;

use coditect_auth::Identity;
use coditect_store::{
    Transaction,
    model::{ClientSequence, Session, SessionId, StateQuota},
};
use futures_util::future::try_join;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    api::v5::{
        memory,
        owned::load_owned_session,
        parts::{Document, How, SecretFilter, Stored},
    },
    extract::{
        caller::{self, Caller},
        merge_patch,
    },
    http::problem::Problem,
    state::App,
    websocket::{Part, frame::Update},
};

/// Whose updates they are.
#[derive(Clone, Debug)]
pub(super) struct Author {
    pub(super) session: SessionId,
    pub(super) client: String,
    pub(super) connection: Uuid,
    /// The number of its last update that is known to be done.
    pub(super) seq: u64,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Applied {
    /// It is durable.
    Done(Outcome),
    /// Another connection speaks for the client.
    Superseded,
}

/// The part's version by now, or why the update was refused.
type Answer = Result<(Part, u64), Problem>;

/// What became of each update, and of each part.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// In the order of the updates, by their numbers.
    pub(super) answers: Vec<(u64, Answer)>,
    /// The parts that were written: their versions before and after.
    pub(super) written: Vec<(Part, u64, u64)>,
}

/// A part with the changes of a batch.
struct Draft {
    /// The version that is stored.
    before: u64,
    change: Change,
    is_changed: bool,
}

enum Change {
    /// The document after the changes, and the secrets that are removed from it.
    Document(Document, Map<String, Value>, Box<SecretFilter>),
    Memory(memory::Draft),
}

impl Draft {
    async fn of(tx: &Transaction, session: &Session, part: Part) -> Result<Self, Problem> {
        let (before, change) = if let Some(document) = Document::of(part) {
            let (stored, filter) =
                try_join(document.read(tx, session), document.secret_filter(tx, session)).await?;
            let Stored { json, version } = stored;
            (version, Change::Document(document, json, Box::new(filter)))
        } else {
            let draft = memory::Draft::of(tx, session).await?;
            (draft.version(), Change::Memory(draft))
        };
        Ok(Self { before, change, is_changed: false })
    }

    /// Applies `patch`, or changes nothing.
    async fn apply(
        &mut self,
        (tx, session): (&Transaction, &Session),
        patch: &Map<String, Value>,
        quota: &StateQuota,
    ) -> Result<(), Problem> {
        match &mut self.change {
            Change::Document(document, after, filter) => {
                let mut patched = after.clone();
                merge_patch::merge(&mut patched, patch);
                *after = document.parse(patched, filter)?;
                Ok(())
            }
            Change::Memory(draft) => draft.apply((tx, session), (How::Merge, patch), quota).await,
        }
    }
}

/// Applies `batch`, in its order. What was applied before is not again. If the batch is refused as a whole
/// for what is in it, each update is tried by itself.
///
/// # Errors
///
/// It cannot be told what became of it, or the caller may not go on.
pub(super) async fn apply(
    app: &App,
    caller: &Caller,
    author: &Author,
    batch: &[Update],
) -> Result<Applied, Problem> {
    match apply_together(app, caller, author, batch).await {
        Err(problem) if is_about_content(&problem) => {}
        outcome => return outcome,
    }
    let mut all = Outcome::default();
    for update in batch {
        match apply_together(app, caller, author, std::slice::from_ref(update)).await {
            Ok(Applied::Done(outcome)) => {
                all.answers.extend(outcome.answers);
                all.written.extend(outcome.written);
            }
            Err(problem) if is_about_content(&problem) => {
                all.answers.push((update.seq, Err(problem)));
            }
            other => return other,
        }
    }
    Ok(Applied::Done(all))
}

/// Whether what is refused is what was said, and not who said it, or where.
fn is_about_content(problem: &Problem) -> bool {
    matches!(problem.status().as_u16(), 400 | 413 | 422) || problem.code() == "QUOTA_EXCEEDED"
}

async fn apply_together(
    app: &App,
    caller: &Caller,
    author: &Author,
    batch: &[Update],
) -> Result<Applied, Problem> {
    caller::run(app, caller, |tx, identity| async move {
        transact(app, &tx, &identity, author, batch).await
    })
    .await
}

async fn transact(
    app: &App,
    tx: &Transaction,
    identity: &Identity,
    author: &Author,
    batch: &[Update],
) -> Result<Applied, Problem> {
    let (now, id) = (app.clock.now(), author.session);
    let session = load_owned_session(tx, identity, id).await?;
    let of = (session.tenant_id, id);
    let by = (author.client.as_str(), author.connection);
    let last = batch.iter().map(|update| update.seq).max().unwrap_or_default();
    let Some(mut done) = ClientSequence::advance(tx, of, by, (author.seq, last), now).await? else {
        return Ok(Applied::Superseded);
    };
    let quota = app.config.state_quota();
    let mut drafts: BTreeMap<Part, Draft> = BTreeMap::new();
    let mut answers = Vec::with_capacity(batch.len());
    for Update { seq, part, patch } in batch {
        if !drafts.contains_key(part) {
            drafts.insert(*part, Draft::of(tx, &session, *part).await?);
        }
        let Some(draft) = drafts.get_mut(part) else { continue };
        if *seq <= done {
            answers.push((*seq, Ok(*part)));
            continue;
        }
        done = *seq;
        match draft.apply((tx, &session), patch, &quota).await {
            Ok(()) => {
                draft.is_changed = true;
                answers.push((*seq, Ok(*part)));
            }
            Err(problem) if is_about_content(&problem) => answers.push((*seq, Err(problem))),
            Err(problem) => return Err(problem),
        }
    }
    let (mut written, mut versions) = (Vec::new(), BTreeMap::new());
    for (part, Draft { before, change, is_changed }) in drafts {
        let mut version = before;
        if is_changed {
            version = match change {
                Change::Document(document, after, filter) => {
                    document.write(tx, &session, (after, &filter), now).await?.version
                }
                Change::Memory(draft) => draft.write(tx, &session, &quota, now).await?,
            };
            written.push((part, before, version));
        }
        versions.insert(part, version);
    }
    let version_of = |part: Part| (part, versions.get(&part).copied().unwrap_or_default());
    let answers = answers.into_iter().map(|(seq, answer)| (seq, answer.map(version_of))).collect();
    Ok(Applied::Done(Outcome { answers, written }))
}
