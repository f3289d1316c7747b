//! Waits for a record to change, without polling.
//!
//! `cargo run -p coditect-examples --bin watch`

use coditect_store::{
    Clock, Error, Store,
    engine::Database,
    model::{
        Json, Session, SessionId, SessionState, SessionType, StatePart, TenantId, TerminalState,
        UserId,
    },
};

/// Returns the versions of a session's terminal after `seen` up to `last`, as they appear. Versions
/// that are overwritten before they are read are skipped, but never the newest.
async fn follow(
    store: Store,
    (tenant, session): (TenantId, SessionId),
    last: u64,
) -> Result<Vec<u64>, Error> {
    let mut heard = Vec::new();
    loop {
        // Reading and watching in one transaction misses no change.
        let (state, changed) = store
            .run(|tx| async move {
                let key = (session, StatePart::Terminal);
                let state = tx.get::<SessionState>(tenant, key).await?;
                Ok::<_, Error>((state, tx.watch::<SessionState>(tenant, key).await?))
            })
            .await?;
        let version = state.map_or(0, |state| state.version);
        if heard.last() != Some(&version) {
            heard.push(version);
        }
        if version == last {
            return Ok(heard);
        }
        // The watch reports a change, not its content: the next iteration reads it.
        changed.await?;
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    const SAVED: u64 = 20;
    let store = Store::open(Database::temporary()?).await?;
    let (tenant, session) = (TenantId::new(), SessionId::new());
    let clock = Clock::system();
    let now = clock.now();
    let opened = &Session {
        id: session,
        tenant_id: tenant,
        user_id: UserId::new(),
        name: "Watched".to_owned(),
        session_type: SessionType::Workspace,
        workspace_path: None,
        settings: Json::default(),
        conversation_id: None,
        created_at: now,
        updated_at: now,
        last_accessed_at: now,
    };
    store.run(|tx| async move { opened.insert(&tx, 100).await }).await?;
    let follower = tokio::spawn(follow(store.clone(), (tenant, session), SAVED));

    for _ in 0..SAVED {
        let now = clock.now();
        let state = TerminalState::default();
        let save = |tx| {
            let state = state.clone();
            async move { SessionState::save(&tx, tenant, session, state, now).await }
        };
        store.run(save).await?;
    }

    let heard = match follower.await {
        Ok(heard) => heard?,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    assert!(heard.is_sorted(), "never an older one after a newer one: {heard:?}");
    assert_eq!(heard.last(), Some(&SAVED), "and the newest without asking again");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().unwrap();
    }
}
