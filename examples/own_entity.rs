//! An entity with every kind of index, and a query for each.
//!
//! `cargo run -p coditect-examples --bin own_entity`

use coditect_store::{
    Entity, Error, ErrorKind, Store,
    engine::Database,
    entity::{Count, Covering, FanOut, GlobalUnique, Multi, Unique},
    indexes,
    keyspace::{Global, Subspace},
    model::TenantId,
};
use serde::{Deserialize, Serialize};

/// A book of a tenant's library.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Book {
    tenant_id: TenantId,
    number: u64,
    shelf_mark: String,
    isbn: Option<String>,
    author: String,
    title: String,
    year: i64,
    subjects: Vec<String>,
    lent_to: Option<String>,
}

impl Entity for Book {
    type Scope = TenantId;
    type Key = u64;
    const SPACE: Subspace<TenantId> = Subspace::tenant("books").keyed(&["number"]); // persisted
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> u64 {
        self.number
    }
}

indexes! { Book =>
    /// Unique: a shelf mark identifies one book of a library.
    BY_SHELF_MARK ("books_by_shelf_mark", mark): Unique<String> =
        |book| Some(book.shelf_mark.clone());
    /// Unique in all tenants, and sparse: old books have no ISBN.
    BY_ISBN ("books_by_isbn", isbn): GlobalUnique<String> = |book| book.isbn.clone();
    /// Sparse: lent books by borrower.
    LENT ("books_lent", reader): Multi<String> = |book| book.lent_to.clone();
    /// Composite: by author and year.
    BY_AUTHOR ("books_by_author", author, year): Multi<(String, i64)> =
        |book| Some((book.author.clone(), book.year));
    /// Covering: titles by year, without reading the books.
    TITLES ("book_titles", year): Covering<i64, String> =
        |book| Some((book.year, book.title.clone()));
    /// Multi-valued: by each subject.
    BY_SUBJECT ("books_by_subject", subject): FanOut<String> = |book| book.subjects.clone();
    /// Counting: number of books by author.
    AUTHORS ("book_authors", author): Count<String> = |book| Some(book.author.clone());
}

fn book(tenant_id: TenantId, number: u64, author: &str, title: &str, year: i64) -> Book {
    Book {
        tenant_id,
        number,
        shelf_mark: format!("A-{number}"),
        isbn: None,
        author: author.to_owned(),
        title: title.to_owned(),
        year,
        subjects: vec!["novel".to_owned(), author.to_owned()],
        lent_to: None,
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let store = Store::options().entity::<Book>().open(Database::temporary()?).await?;
    let tenant = TenantId::new();
    let tx = store.begin();
    let (woolf, conrad) = ("Woolf".to_owned(), "Conrad".to_owned());
    let orlando = Book { isbn: Some("orlando".into()), ..book(tenant, 3, &woolf, "Orlando", 1928) };
    tx.insert(&book(tenant, 1, &woolf, "Mrs Dalloway", 1925)).await?;
    tx.insert(&book(tenant, 2, &conrad, "Nostromo", 1904)).await?;
    tx.insert(&orlando).await?;
    tx.commit().await?;

    let tx = store.begin();
    let found = tx.find(&Book::BY_SHELF_MARK, tenant, "A-3".to_owned()).await?;
    assert_eq!(found.as_ref(), Some(&orlando));
    let found = tx.find(&Book::BY_ISBN, Global, "orlando".to_owned()).await?;
    assert_eq!(found.as_ref(), Some(&orlando));
    let taken = tx.insert(&Book { number: 4, ..orlando.clone() }).await.map_err(|e| e.kind());
    assert_eq!(taken, Err(ErrorKind::UniqueViolation("books_by_shelf_mark")));

    let in_order = tx.scan(&Book::BY_AUTHOR, tenant, (woolf.clone(),)).all(10).await?;
    assert_eq!(in_order.iter().map(|book| book.year).collect::<Vec<_>>(), [1925, 1928]);
    let subject = tx.scan(&Book::BY_SUBJECT, tenant, "novel".to_owned()).all(10).await?;
    assert_eq!(subject.len(), 3);

    let titles = tx.scan_index_only(&Book::TITLES, tenant, 1900..=1925).all(10).await?;
    let titles: Vec<&str> = titles.iter().map(|covered| covered.fields.as_str()).collect();
    assert_eq!(titles, ["Nostromo", "Mrs Dalloway"]);
    assert_eq!(tx.count(&Book::AUTHORS, tenant, &woolf).await?, 2);
    let authors = tx.scan_counts(&Book::AUTHORS, tenant, ..).all(10).await?;
    assert_eq!(authors, [(conrad, 1), (woolf.clone(), 2)]);

    // Compare-and-swap on the revision that the client has read.
    let read = tx.get_versioned::<Book>(tenant, 3).await?.map(|stored| stored.revision());
    tx.modify::<Book>(tenant, 3, |book| book.lent_to = Some("ada".into())).await?;
    assert_eq!(tx.scan(&Book::LENT, tenant, "ada".to_owned()).all(10).await?.len(), 1);
    if let Some(revision) = read {
        let late = tx.update_at(&orlando, revision).await.map_err(|error| error.kind());
        assert_eq!(late, Err(ErrorKind::RevisionMismatch));
    }
    tx.commit().await?;

    for index in ["books_by_shelf_mark", "book_titles", "books_by_subject", "book_authors"] {
        assert_eq!(store.verify(index)?.run(|_| ()).await?.faults, 0);
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
