//! Export, import and backup.

use std::{io, path::Path};

use coditect_store::{
    archive::{self, Summary},
    engine::{Consistency, Database},
};
use indicatif::{HumanBytes, HumanCount};
use tokio::{
    fs::File,
    io::{AsyncSeekExt, AsyncWriteExt, BufReader},
};

use super::{
    Error, Outcome, database, options, origin,
    progress::{Progress, say},
    target::{Target, of},
};
use crate::{
    StoreLocation,
    cli::args::{Backup, Export, Import},
};

/// Buffer for reading a file, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Exports a store or a tenant.
pub(super) async fn export(arguments: &Export) -> Result<Outcome, Error> {
    let Export { file, place, tenant } = arguments;
    let mut progress = Progress::new("exporting", None);
    let summary = if is_standard(file) {
        let mut stdout = tokio::io::stdout();
        let observe = |at| progress.archive(at);
        let summary = origin::export(place, *tenant, &mut stdout, observe).await?;
        stdout.flush().await.map_err(Error::Stdout)?;
        summary
    } else {
        let mut target = Target::create(file)?;
        let observe = |at| progress.archive(at);
        let summary = origin::export(place, *tenant, &mut target.file, observe).await?;
        target.keep().await?;
        summary
    };
    drop(progress);
    say(&summarize("exported", &summary));
    Ok(Outcome::Done)
}

/// Exports a store and verifies the archive before it gets its final name.
pub(super) async fn backup(arguments: &Backup) -> Result<Outcome, Error> {
    let Backup { file, place } = arguments;
    let mut progress = Progress::new("backing up", None);
    let mut target = Target::create(file)?;
    let written = origin::export(place, None, &mut target.file, |at| progress.archive(at)).await?;
    target.sync().await?;
    drop(progress);
    let mut progress = Progress::new("verifying", Some(written.bytes));
    let read = open(target.draft()).await?;
    let read = archive::verify(read, |at| progress.archive(at)).await?;
    drop(progress);
    if read != written {
        return Err(of(file)(io::Error::other(
            "verification failed: the archive does not contain the exported data",
        )));
    }
    target.keep().await?;
    say(&summarize("backed up", &written));
    Ok(Outcome::Done)
}

/// Imports a store or a tenant.
pub(super) async fn import(arguments: &Import) -> Result<Outcome, Error> {
    let Import { file, place, .. } = arguments;
    let Some(file) = file else { return rollback(place).await };
    let summary = if is_standard(file) {
        let mut progress = Progress::new("importing", None);
        let import = options().import(database(place)?)?;
        import.run(tokio::io::stdin(), |at| progress.archive(at)).await?
    } else {
        let mut source = open(file).await?;
        let mut progress = Progress::new("verifying", length(file).await);
        // An incomplete archive must not create anything, not even the directory.
        let there = place.may_have_store()?;
        let verifying = if there { database(place)? } else { Database::memory()? };
        let verifying = options().import(verifying)?;
        verifying.verify(&mut source, |at| progress.archive(at)).await?;
        drop((verifying, progress));
        source.rewind().await.map_err(of(file))?;
        let mut progress = Progress::new("importing", length(file).await);
        let import = options().import(database(place)?)?;
        import.run(&mut source, |at| progress.archive(at)).await?
    };
    // Opening the store is the final check.
    let store = options().open(database(place)?).await;
    let unbuilt = match store {
        Ok(store) => {
            let unbuilt = store.pending_indexes().await?;
            store.database().close().await;
            unbuilt
        }
        Err(error) => return Err(error.into()),
    };
    say(&summarize("imported", &summary));
    if !unbuilt.is_empty() {
        say(&format!("indexes to be built by the server: {}", unbuilt.join(", ")));
    }
    if summary.manifest.tenant.is_none() {
        say("archives do not contain the master key: copy the store's master.key to the data \
             directory, or set CODITECT_MASTER_KEY");
    }
    Ok(Outcome::Done)
}

/// Rolls back an unfinished import.
async fn rollback(place: &StoreLocation) -> Result<Outcome, Error> {
    if !place.may_have_store()? {
        place.refuse_missing_store()?;
        return Err(Error::NoStore(Box::new(place.clone())));
    }
    let rolled_back = options().import(database(place)?)?.rollback().await?;
    say(if rolled_back { "import rolled back" } else { "no unfinished import to roll back" });
    Ok(Outcome::Done)
}

/// Returns the summary line.
fn summarize(done: &str, summary: &Summary) -> String {
    let Summary { manifest, rows, bytes, version } = summary;
    let whose = manifest.tenant.map_or(String::new(), |tenant| format!(" of tenant {tenant}"));
    let consistency = match manifest.consistency {
        Consistency::OneVersion => format!("as of version {version}"),
        _ => "not a consistent snapshot: rows are of different versions".to_owned(),
    };
    let (rows, bytes) = (HumanCount(*rows), HumanBytes(*bytes));
    format!("{done} {rows} rows{whose}, {bytes}, {consistency}; archive {}", manifest.id)
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

async fn open(file: &Path) -> Result<BufReader<File>, Error> {
    let opened = File::open(file).await.map_err(of(file))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, opened))
}

async fn length(file: &Path) -> Option<u64> {
    tokio::fs::metadata(file).await.ok().map(|of| of.len())
}
