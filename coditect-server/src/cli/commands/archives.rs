//! Export, import, backup.

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
    Place,
    cli::args::{Backup, Export, Import},
};

/// A file is read in pieces of so many bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes the archive of a store or of a tenant.
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
    say(&told("exported", &summary));
    Ok(Outcome::Done)
}

/// Writes the archive of a store, and reads it back before it gets its name.
pub(super) async fn backup(arguments: &Backup) -> Result<Outcome, Error> {
    let Backup { file, place } = arguments;
    let mut progress = Progress::new("backing up", None);
    let mut target = Target::create(file)?;
    let written = origin::export(place, None, &mut target.file, |at| progress.archive(at)).await?;
    target.sync().await?;
    drop(progress);
    let mut progress = Progress::new("reading back", Some(written.bytes));
    let read = open(target.draft()).await?;
    let read = archive::verify(read, |at| progress.archive(at)).await?;
    drop(progress);
    if read != written {
        return Err(of(file)(io::Error::other("what was read back is not what was written")));
    }
    target.keep().await?;
    say(&told("backed up", &written));
    Ok(Outcome::Done)
}

/// Makes a store, or a tenant of one, of an archive.
pub(super) async fn import(arguments: &Import) -> Result<Outcome, Error> {
    let Import { file, place, .. } = arguments;
    let Some(file) = file else { return abandon(place).await };
    let summary = if is_standard(file) {
        let mut progress = Progress::new("importing", None);
        let import = options().import(database(place)?)?;
        import.run(tokio::io::stdin(), |at| progress.archive(at)).await?
    } else {
        let mut source = open(file).await?;
        let mut progress = Progress::new("verifying", length(file).await);
        // Nothing is made, not even the folder, of an archive that is not whole.
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
    // That it can be opened is the last that is asked of it.
    let store = options().open(database(place)?).await;
    let unbuilt = match store {
        Ok(store) => {
            let unbuilt = store.unbuilt().await?;
            store.database().close().await;
            unbuilt
        }
        Err(error) => return Err(error.into()),
    };
    say(&told("imported", &summary));
    if !unbuilt.is_empty() {
        say(&format!("indexes that are not built yet: {}", unbuilt.join(", ")));
    }
    if summary.manifest.tenant.is_none() {
        say(
            "the master key is not in an archive: put the store's own into the folder, or give it as \
             CODITECT_MASTER_KEY",
        );
    }
    Ok(Outcome::Done)
}

/// Takes back what an import has written that has not ended.
async fn abandon(place: &Place) -> Result<Outcome, Error> {
    if !place.may_have_store()? {
        return Err(Error::NoStore(Box::new(place.clone())));
    }
    let abandoned = options().import(database(place)?)?.abandon().await?;
    say(if abandoned { "the import was taken back" } else { "there is no import to take back" });
    Ok(Outcome::Done)
}

/// What came of it, for people.
fn told(done: &str, summary: &Summary) -> String {
    let Summary { manifest, rows, bytes, version } = summary;
    let whose = manifest.tenant.map_or(String::new(), |tenant| format!(" of tenant {tenant}"));
    let consistency = match manifest.consistency {
        Consistency::OneVersion => format!("as of version {version}"),
        _ => "not of one version: rows may not fit each other".to_owned(),
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
