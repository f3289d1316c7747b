//! A service with its own records: declare, open, write, query.
//!
//! `cargo run -p coditect-examples --bin quickstart`

use coditect_store::{Entity, Error, ErrorKind, Store, engine::Database, model::TenantId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A code snippet of a tenant. Names in quotes are persisted: never change them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Entity)]
#[entity(subspace = "snippets", version = 1)]
struct Snippet {
    #[entity(key)]
    id: Uuid,
    #[entity(scope)]
    tenant_id: TenantId,
    /// Unique in a tenant.
    #[index(unique, name = "snippets_by_title")]
    title: String,
    /// Oldest first: ids are UUIDs of version 7.
    #[index(multi, name = "snippets_by_language")]
    language: String,
    body: String,
}

impl Snippet {
    fn new(tenant_id: TenantId, title: &str, language: &str, body: &str) -> Self {
        Self {
            id: Uuid::now_v7(),
            tenant_id,
            title: title.to_owned(),
            language: language.to_owned(),
            body: body.to_owned(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    // `Database::open("./data")` stores it on disk; nothing else changes.
    let store = Store::options().entity::<Snippet>().open(Database::temporary()?).await?;
    let tenant = TenantId::new();

    // Three records with their index entries, atomically.
    let snippets = [
        Snippet::new(tenant, "hello", "rust", "println!(\"hello\");"),
        Snippet::new(tenant, "greet", "python", "print('hello')"),
        Snippet::new(tenant, "sum", "rust", "values.iter().sum::<u64>()"),
    ];
    store
        .run(|tx| {
            let snippets = &snippets;
            async move {
                for snippet in snippets {
                    tx.insert(snippet).await?;
                }
                Ok::<_, Error>(())
            }
        })
        .await?;

    // One page, newest first; its cursor continues the list.
    let page = store
        .run(|tx| async move {
            let rust = tx.scan(&Snippet::BY_LANGUAGE, tenant, "rust".to_owned());
            rust.rev().page(10, None).await
        })
        .await?;
    assert_eq!(page.items, [snippets[2].clone(), snippets[0].clone()]);
    assert!(page.next.is_none());

    // Read and write in one transaction, without interference.
    let renamed = store
        .run(|tx| async move {
            let found = tx.find(&Snippet::BY_TITLE, tenant, "greet".to_owned()).await?;
            let Some(snippet) = found else { return Ok(None) };
            let snippet = Snippet { title: "salute".to_owned(), ..snippet };
            tx.update(&snippet).await?;
            Ok::<_, Error>(Some(snippet))
        })
        .await?;
    assert_eq!(renamed.map(|snippet| snippet.id), Some(snippets[1].id));

    // A duplicate title is refused with the name of the index, and nothing is written.
    let twice = Snippet::new(tenant, "salute", "go", "fmt.Println(\"hello\")");
    let refused = store.run(|tx| {
        let twice = &twice;
        async move { tx.insert(twice).await }
    });
    let error = refused.await.err();
    let kind = error.map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::UniqueViolation(Snippet::BY_TITLE.name())));

    // Another tenant sees none of them.
    let (other, id) = (TenantId::new(), snippets[0].id);
    let stranger = store.run(|tx| async move { tx.get::<Snippet>(other, id).await });
    assert_eq!(stranger.await?, None);

    #[expect(clippy::print_stdout, reason = "an example says what it did")]
    {
        println!("{} Rust snippets, newest first:", page.items.len());
        for snippet in &page.items {
            println!("  {}: {}", snippet.title, snippet.body);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().unwrap();
    }
}
