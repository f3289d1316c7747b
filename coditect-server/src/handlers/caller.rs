//! Who calls, and work done for them: one transaction holds both, so what was ended holds at once.
//!
//! A handler asks for the [`claims`] of the token first of all, so that whoever has none is told so
//! whatever else is wrong, and has no body read.

use coditect_auth::{Claims, Identity};
use coditect_store::Transaction;

use crate::{
    app::App,
    http::{Request, bearer},
    problem::Problem,
};

/// What the request's access token says, if it is one of ours. Whether its session still holds is
/// for [`run`] to find out.
pub(crate) async fn claims(app: &App, request: &Request) -> Result<Claims, Problem> {
    let token = bearer::token(request.headers())?;
    Ok(app.auth.verify(token.expose()).await?)
}

/// Does `work` for whoever `claims` are of, in the transaction that also reads their session and
/// user. It may run several times before it commits.
pub(crate) async fn run<T, F, Fut>(app: &App, claims: &Claims, work: F) -> Result<T, Problem>
where
    T: Send,
    F: Fn(Transaction, Identity) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, Problem>> + Send,
{
    app.store
        .run(|tx| {
            let work = &work;
            async move {
                let caller = app.auth.authenticate(&tx, claims).await?;
                work(tx, caller).await
            }
        })
        .await
}
