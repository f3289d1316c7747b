//! Adds an index to a store with records: queries are refused until it is built.
//!
//! `cargo run -p coditect-examples --bin index_build`

use coditect_store::{Error, ErrorKind, Store, engine::Database, keyspace::Global};

/// The records as the first version of a service declares them.
mod before {
    use coditect_store::{
        Entity, indexes,
        keyspace::{Global, Subspace},
    };
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub(super) struct City {
        pub(super) name: String,
        pub(super) country: String,
    }

    impl Entity for City {
        type Scope = Global;
        type Key = String;
        const SPACE: Subspace<Global> = Subspace::global("cities").keyed(&["name"]);
        const VERSION: u8 = 1;

        fn scope(&self) -> Global {
            Global
        }

        fn key(&self) -> String {
            self.name.clone()
        }
    }

    indexes! { City => }
}

/// The second version of the service, with an index by country.
mod after {
    use coditect_store::{
        Entity,
        entity::Multi,
        indexes,
        keyspace::{Global, Subspace},
    };
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub(super) struct City {
        pub(super) name: String,
        pub(super) country: String,
    }

    impl Entity for City {
        type Scope = Global;
        type Key = String;
        const SPACE: Subspace<Global> = Subspace::global("cities").keyed(&["name"]);
        const VERSION: u8 = 1;

        fn scope(&self) -> Global {
            Global
        }

        fn key(&self) -> String {
            self.name.clone()
        }
    }

    indexes! { City =>
        /// By country.
        BY_COUNTRY ("cities_by_country", country): Multi<String> =
            |city| Some(city.country.clone());
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let database = Database::temporary()?;
    let store = Store::options().entity::<before::City>().open(database.clone()).await?;
    let tx = store.begin();
    for number in 0..250 {
        let country = if number % 5 == 0 { "SE" } else { "FI" }.to_owned();
        tx.insert(&before::City { name: format!("city {number:03}"), country }).await?;
    }
    tx.commit().await?;

    let store = Store::options().entity::<after::City>().open(database).await?;
    assert_eq!(store.pending_indexes().await?, ["cities_by_country"]);
    let swedish = || store.begin().scan(&after::City::BY_COUNTRY, Global, "SE".to_owned());
    let early = swedish().page(10, None).await.map(|page| page.items.len());
    let refused = early.map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::IndexBuilding("cities_by_country")));

    // Records may be written during the build; a kill loses at most one step.
    let build = store.build("cities_by_country")?.rows(100);
    let total = build.total().await?;
    assert_eq!(build.step().await?.examined, 100);
    let kiruna = &after::City { name: "Kiruna".to_owned(), country: "SE".to_owned() };
    store.run(|tx| async move { tx.insert(kiruna).await }).await?;
    let mut seen = Vec::new();
    build.run(|progress| seen.push(progress.examined)).await?;
    assert_eq!((total, seen), (250, vec![200, 250]));

    assert_eq!(swedish().all(100).await?.len(), 51);
    assert_eq!(store.verify("cities_by_country")?.run(|_| ()).await?.faults, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().unwrap();
    }
}
