//! Who calls, and work done for them: one transaction holds both, so what was ended holds at once.

use coditect_auth::Identity;
use coditect_store::Transaction;

use crate::{
    app::App,
    http::{Request, bearer},
    problem::Problem,
};

/// Does `work` for whoever the request's access token is of, in the transaction that also reads
/// their session and user. It may run several times before it commits.
pub(crate) async fn run<T, F, Fut>(app: &App, request: &Request, work: F) -> Result<T, Problem>
where
    T: Send,
    F: Fn(Transaction, Identity) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, Problem>> + Send,
{
    let token = bearer::token(request.headers())?;
    let claims = app.auth.verify(token.expose()).await?;
    app.store
        .run(|tx| {
            let (claims, work) = (&claims, &work);
            async move {
                let caller = app.auth.authenticate(&tx, claims).await?;
                work(tx, caller).await
            }
        })
        .await
}
