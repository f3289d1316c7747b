//! A service with its own records: declare, open, write, query.
//!
//! `cargo run -p coditect-examples --bin quickstart`

use coditect_store::{Entity, Error, Store, engine::Database, model::TenantId, transact};
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
    transact!(store, |tx| {
        for snippet in &snippets {
            tx.insert(snippet).await?;
        }
        Ok(())
    })?;

    // One page, newest first; its cursor continues the list.
    let page = transact!(store, |tx| {
        tx.scan(&Snippet::BY_LANGUAGE, tenant, "rust").rev().page(10, None).await
    })?;
    assert_eq!(page.items, [snippets[2].clone(), snippets[0].clone()]);
    assert!(page.next.is_none());

    // Read and write in one transaction, without interference.
    let renamed = transact!(store, |tx| {
        let found = tx.find(&Snippet::BY_TITLE, tenant, "greet").await?;
        let Some(snippet) = found else { return Ok(None) };
        let snippet = Snippet { title: "salute".to_owned(), ..snippet };
        tx.update(&snippet).await?;
        Ok(Some(snippet))
    })?;
    assert_eq!(renamed.map(|snippet| snippet.id), Some(snippets[1].id));

    // A duplicate title is refused with the name of the index, and nothing is written.
    let twice = Snippet::new(tenant, "salute", "go", "fmt.Println(\"hello\")");
    let refused = transact!(store, |tx| { tx.insert(&twice).await });
    assert!(refused.is_err_and(|error| error.violates(&Snippet::BY_TITLE)));

    // Another tenant sees none of them.
    let strangers = store.begin().get::<Snippet>(TenantId::new(), snippets[0].id).await?;
    assert_eq!(strangers, None);

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
