//! Application of updates: a batch in one transaction, with one write per section.

use std::collections::BTreeMap;

use coditect_auth::Identity;
use coditect_store::{
    Transaction,
    model::{ClientSequence, LoadedPart, Session, SessionId, StateQuota},
};
use futures_util::future::try_join;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    api::v5::{
        memory,
        owned::load_owned_session,
        parts::{Document, SecretFilter, Stored, UpdateMode},
    },
    extract::{
        caller::{self, Caller},
        merge_patch,
    },
    http::problem::Problem,
    state::App,
    websocket::{StateSection, frame::Update},
};

/// The client that sent the updates.
#[derive(Clone, Debug)]
pub(super) struct Author {
    pub(super) session: SessionId,
    pub(super) client: String,
    pub(super) connection: Uuid,
    /// Sequence number of its last update known to be applied.
    pub(super) seq: u64,
}

/// Result of a batch.
#[derive(Debug)]
pub(super) enum Applied {
    /// The batch is durable.
    Done(Outcome),
    /// A newer connection of the client has taken over.
    Superseded,
}

/// The section with its new version, or the refusal of the update.
type Answer = Result<(StateSection, u64), Problem>;

/// Results of the updates and sections of a batch.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Sequence numbers with results, in the order of the updates.
    pub(super) answers: Vec<(u64, Answer)>,
    /// Written sections with their versions before and after.
    pub(super) written: Vec<(StateSection, u64, u64)>,
}

/// A section with the changes of a batch.
struct Draft {
    /// Stored version.
    before: u64,
    change: Change,
    is_changed: bool,
}

enum Change {
    /// The stored version, the document after the changes, and the filter for secrets.
    Document(Document, LoadedPart, Map<String, Value>, Box<SecretFilter>),
    Memory(memory::Draft),
}

impl Draft {
    async fn of(tx: &Transaction, session: &Session, part: StateSection) -> Result<Self, Problem> {
        let (before, change) = if let Some(document) = Document::of(part) {
            let ((stored, loaded), filter) =
                try_join(document.read(tx, session), document.secret_filter(tx, session)).await?;
            let Stored { json, version } = stored;
            (version, Change::Document(document, loaded, json, Box::new(filter)))
        } else {
            let draft = memory::Draft::of(tx, session).await?;
            (draft.version(), Change::Memory(draft))
        };
        Ok(Self { before, change, is_changed: false })
    }

    /// Applies `patch`, or leaves the draft unchanged on an error.
    async fn apply(
        &mut self,
        (tx, session): (&Transaction, &Session),
        patch: &Map<String, Value>,
        quota: &StateQuota,
    ) -> Result<(), Problem> {
        match &mut self.change {
            Change::Document(document, _, after, filter) => {
                let mut patched = after.clone();
                merge_patch::merge(&mut patched, patch);
                *after = document.parse(patched, filter)?;
                Ok(())
            }
            Change::Memory(draft) => {
                draft.apply((tx, session), (UpdateMode::Merge, patch), quota).await
            }
        }
    }
}

/// Applies `batch` in order, without updates that were applied before. If the content of the batch
/// is refused, applies each update separately.
///
/// # Errors
///
/// The outcome is unknown, or the caller may not continue.
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

/// Returns whether a problem is about the content of an update, not about the caller or the
/// session.
fn is_about_content(problem: &Problem) -> bool {
    matches!(problem.status().as_u16(), 400 | 413 | 422) || problem.code() == "QUOTA_EXCEEDED"
}

async fn apply_together(
    app: &App,
    caller: &Caller,
    author: &Author,
    batch: &[Update],
) -> Result<Applied, Problem> {
    caller::transact(app, caller, |tx, identity| async move {
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
    let mut drafts: BTreeMap<StateSection, Draft> = BTreeMap::new();
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
                Change::Document(document, loaded, after, filter) => {
                    document.write(tx, &loaded, (after, &filter), now).await?.version
                }
                Change::Memory(draft) => draft.write(tx, &quota, now).await?,
            };
            written.push((part, before, version));
        }
        versions.insert(part, version);
    }
    let version_of = |part: StateSection| (part, versions.get(&part).copied().unwrap_or_default());
    let answers = answers.into_iter().map(|(seq, answer)| (seq, answer.map(version_of))).collect();
    Ok(Applied::Done(Outcome { answers, written }))
}
