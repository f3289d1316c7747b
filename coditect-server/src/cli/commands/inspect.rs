//! `inspect`: an overview of the store, or its rows.

use std::io::{self, BufWriter, Write};

use coditect_auth::text::escaped;
use coditect_store::{
    inspect::{Overview, Row, Size},
    keyspace::parse_elements,
};
use indicatif::HumanBytes;
use serde_json::json;

use super::{Error, Outcome, open};
use crate::cli::args::Inspect;

/// Prints the requested data to stdout.
pub(super) async fn run(arguments: &Inspect) -> Result<Outcome, Error> {
    let store = open(&arguments.place).await?;
    let mut inspect = store.inspect();
    if let Some(tenant) = arguments.tenant {
        inspect = inspect.tenant(tenant);
    }
    if let Some(space) = &arguments.space {
        inspect = inspect.space(space);
    }
    if let Some(key) = &arguments.key {
        inspect = inspect.key(parse_elements(key));
    }
    let mut stdout = BufWriter::new(io::stdout());
    let mut written = Ok(());
    if arguments.wants_rows() {
        let mut show = |row: Row| {
            if written.is_ok() {
                written = write_row(&mut stdout, &row, arguments.json);
            }
        };
        inspect.rows(arguments.limit, &mut show).await?;
    } else {
        let overview = inspect.overview().await?;
        written = if arguments.json {
            write_json(&mut stdout, &overview)
        } else {
            write_table(&mut stdout, &overview)
        };
    }
    written.and_then(|()| stdout.flush()).map_err(Error::Stdout)?;
    store.database().close().await;
    Ok(Outcome::Done)
}

/// Writes a row as one line. Names chosen by users are escaped: they must not control the terminal.
fn write_row(to: &mut impl Write, row: &Row, as_json: bool) -> io::Result<()> {
    let Row { key, space, value, value_bytes } = row;
    if as_json {
        let row = json!({
            "key": key.to_string(),
            "space": space,
            "value": value,
            "value_bytes": value_bytes,
        });
        writeln!(to, "{}", escaped(&row.to_string()))
    } else if value.is_null() {
        writeln!(to, "{}", escaped(&key.to_string()))
    } else {
        writeln!(to, "{}", escaped(&format!("{key} => {value}")))
    }
}

fn write_json(to: &mut impl Write, overview: &Overview) -> io::Result<()> {
    let size = |size: &Size| {
        json!({
            "name": size.name,
            "rows": size.rows,
            "key_bytes": size.key_bytes,
            "value_bytes": size.value_bytes,
        })
    };
    let spaces: Vec<_> = overview.spaces.iter().map(size).collect();
    let indexes: serde_json::Map<String, serde_json::Value> = overview
        .indexes
        .iter()
        .map(|(name, state)| ((*name).to_owned(), state.as_str().into()))
        .collect();
    let overview = json!({
        "engine": overview.engine,
        "version": overview.version,
        "format": overview.format,
        "tenants": overview.tenants,
        "spaces": spaces,
        "undeclared": size(&overview.unknown),
        "indexes": indexes,
    });
    writeln!(to, "{overview}")
}

fn write_table(to: &mut impl Write, overview: &Overview) -> io::Result<()> {
    let Overview { engine, version, format, tenants, spaces, unknown, indexes } = overview;
    writeln!(to, "engine {engine}, format {format}, version {version}, {tenants} tenants\n")?;
    writeln!(to, "{:<32} {:>12} {:>12} {:>12}", "space or index", "rows", "keys", "values")?;
    let undeclared = (unknown.rows > 0).then_some(unknown);
    for size in spaces.iter().chain(undeclared) {
        let Size { name, rows, key_bytes, value_bytes } = size;
        let state = indexes.iter().find(|(index, state)| index == name && state != "readable");
        let state = state.map_or(String::new(), |(_, state)| format!("  {state}"));
        let (keys, values) =
            (HumanBytes(*key_bytes).to_string(), HumanBytes(*value_bytes).to_string());
        writeln!(to, "{name:<32} {rows:>12} {keys:>12} {values:>12}{state}")?;
    }
    Ok(())
}
