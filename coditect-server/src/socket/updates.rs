//! Applying updates: a batch of them in one transaction, each part written once.

use std::collections::BTreeMap;

use coditect_auth::Identity;
use coditect_store::{
    Transaction,
    model::{ClientSequence, SessionId},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::frame::Update;
use crate::{
    app::App,
    handlers::{
        caller::{self, Caller},
        parts::{How, Part, Stored},
        sessions::mine,
    },
    problem::Problem,
};

/// Whose updates they are.
#[derive(Clone, Debug)]
pub(super) struct Author {
    pub(super) session: SessionId,
    pub(super) client: String,
    pub(super) connection: Uuid,
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

/// A part, as it was and as it becomes.
struct Draft {
    before: Stored,
    after: Map<String, Value>,
    is_changed: bool,
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
    matches!(problem.status().as_u16(), 400 | 413 | 422)
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
    let session = mine(tx, identity, id).await?;
    let of = (session.tenant_id, id);
    let by = (author.client.as_str(), author.connection);
    let last = batch.iter().map(|update| update.seq).max().unwrap_or_default();
    let Some(mut done) = ClientSequence::advance(tx, of, by, last, now).await? else {
        return Ok(Applied::Superseded);
    };
    let mut drafts: BTreeMap<Part, Draft> = BTreeMap::new();
    let mut answers = Vec::with_capacity(batch.len());
    for Update { seq, part, patch } in batch {
        if !drafts.contains_key(part) {
            let before = part.read(tx, &session).await?;
            let after = before.json.clone();
            drafts.insert(*part, Draft { before, after, is_changed: false });
        }
        let Some(draft) = drafts.get_mut(part) else { continue };
        if *seq <= done {
            answers.push((*seq, Ok(*part)));
            continue;
        }
        done = *seq;
        let so_far = Stored { json: std::mem::take(&mut draft.after), version: 0 };
        match part.parse(so_far.changed(How::Merge, patch), &session) {
            Ok(after) => {
                draft.after = after;
                draft.is_changed = true;
                answers.push((*seq, Ok(*part)));
            }
            Err(problem) => {
                draft.after = so_far.json;
                answers.push((*seq, Err(problem)));
            }
        }
    }
    let (mut written, mut versions) = (Vec::new(), BTreeMap::new());
    for (part, Draft { before, after, is_changed }) in drafts {
        let mut version = before.version;
        if is_changed {
            version = part.write(tx, &session, (&before, after), now).await?.version;
            written.push((part, before.version, version));
        }
        versions.insert(part, version);
    }
    let version_of = |part: Part| (part, versions.get(&part).copied().unwrap_or_default());
    let answers = answers.into_iter().map(|(seq, answer)| (seq, answer.map(version_of))).collect();
    Ok(Applied::Done(Outcome { answers, written }))
}
