//! `check`: verifies all rows and indexes, then the pages of the store's file.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
};

use coditect_auth::{Error as AuthError, KeyError, text::escaped};
use coditect_store::{
    ErrorKind,
    check::{Event, Report, Stage},
    engine::{Database, FileState},
};
use indicatif::HumanCount;

use super::{
    Error, Outcome, open, open_with, options,
    progress::{Progress, say},
};
use crate::cli::args::Check;

/// Checks a store. Prints a line per fault to stdout.
pub(super) async fn run(arguments: &Check) -> Result<Outcome, Error> {
    if arguments.accept_data_loss && arguments.place.may_have_store()? {
        truncate_log(arguments.place.folder()).await?;
    }
    let mut at_open = 0;
    let store = match open(&arguments.place).await {
        Ok(store) => store,
        Err(Error::Store(error)) if error.kind() == ErrorKind::Corrupt => {
            Progress::new("checking", None).line(&error.to_string()).map_err(Error::Stdout)?;
            if !arguments.repair {
                return Ok(Outcome::Faulty);
            }
            at_open = 1;
            match open_with(&arguments.place, options().repair_high_water(true)).await {
                Ok(store) => store,
                Err(Error::Store(error)) if error.kind() == ErrorKind::Corrupt => {
                    return Ok(Outcome::Faulty);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Auth(error @ AuthError::Key(KeyError::StoreMissing { .. }))) => {
            let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            Progress::new("checking", None).line(&why).map_err(Error::Stdout)?;
            return Ok(Outcome::Faulty);
        }
        Err(error) => return Err(error),
    };
    let check = if arguments.repair { store.check().repairing() } else { store.check() };
    let mut progress = Progress::new("rows", None);
    let mut write_error = None;
    let report = check
        .run(|event| match event {
            Event::Progress(Stage::Rows, rows) => progress.rows(rows),
            Event::Progress(Stage::Index(index), rows) => {
                progress.turn_to(index);
                progress.rows(rows);
            }
            Event::Found(finding) => {
                if let Err(error) = progress.line(&escaped(&finding.to_string())) {
                    write_error.get_or_insert(error);
                }
            }
            _ => {}
        })
        .await;
    write_error.map_or(Ok(()), Err).map_err(Error::Stdout)?;
    let report = match report {
        // The rest of the rows cannot be read, but the pages of the file can still be checked.
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            progress.line(&error.to_string()).map_err(Error::Stdout)?;
            Report { faults: 1, ..Report::default() }
        }
        report => report?,
    };
    store.database().close().await;
    drop(store);

    let mut faults = report.faults + at_open;
    if let Some(folder) = arguments.place.folder() {
        progress.turn_to("pages");
        if let Some(damage) = damage(folder.to_owned()).await? {
            faults += 1;
            progress.line(&damage).map_err(Error::Stdout)?;
        }
    }
    drop(progress);
    if report.uncompared > 0 {
        say(&format!(
            "{} comparisons could not be made while others write: stop the servers and check again",
            report.uncompared
        ));
    }
    for index in &report.pending_indexes {
        say(&format!("index {index} is not built and was not checked"));
    }
    let repaired = if arguments.repair {
        format!(", {} repaired", HumanCount(report.repaired + at_open))
    } else {
        String::new()
    };
    say(&format!(
        "checked {} rows: {} faults{repaired}",
        HumanCount(report.rows),
        HumanCount(faults)
    ));
    Ok(if faults == 0 { Outcome::Done } else { Outcome::Faulty })
}

/// Truncates an incomplete log, so that the store can be opened, and reports the loss.
async fn truncate_log(folder: Option<&Path>) -> Result<(), Error> {
    let Some(folder) = folder.map(Path::to_owned) else { return Ok(()) };
    let lost = tokio::task::spawn_blocking(move || Database::truncate_damaged_log(folder)).await;
    // A panic happens again when the store is opened.
    if let Some(lost) = lost.unwrap_or(Ok(None))? {
        say(&format!(
            "log incomplete and truncated: {lost}; its original files are kept in the data \
             directory as log-*.wal.damaged-*"
        ));
    }
    Ok(())
}

/// Returns a description of the damage to the file in `folder`.
async fn damage(folder: PathBuf) -> Result<Option<String>, Error> {
    let file = tokio::task::spawn_blocking(move || Database::check_file(folder)).await;
    Ok(match file {
        Ok(Ok(FileState::Sound)) => None,
        Ok(Ok(FileState::Repaired)) => Some("the file was damaged and was repaired".to_owned()),
        Ok(Ok(state)) => Some(format!("unexpected state of the file: {state:?}")),
        Ok(Err(error)) if error.kind() == ErrorKind::Corrupt => Some(error.to_string()),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => Some("reading the file panicked".to_owned()),
    })
}
