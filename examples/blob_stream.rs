//! A file of any size, streamed in and out in bounded memory, seen by nobody before it is whole.
//!
//! `cargo run --release -p coditect-examples --bin blob_stream [-- MEBIBYTES]`
//!
//! It writes as many made-up mebibytes (64, if not said), reads them back, and tells how much memory
//! it needed at the most: it fails if that was more than 64 MiB.

use std::{env, error::Error, fs, time::Instant};

use coditect_store::{
    BlobReader, BlobUpload, Clock, Store,
    engine::{Database, Options},
    model::{File, FileHome, FilePolicy, TenantId},
};

/// What the program may need at the most, in KiB, as Linux counts it.
const MOST_MEMORY_KIB: u64 = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mebibytes = env::args().nth(1).map_or(Ok(64), |count| count.parse())?;
    run(mebibytes)
}

#[tokio::main(flavor = "current_thread")]
async fn run(mebibytes: u64) -> Result<(), Box<dyn Error>> {
    // On the disk of the working folder: a temporary one may be in memory.
    let folder = tempfile::tempdir_in(".")?;
    // The engine's cache is what a program with little memory makes smaller first, and then what may wait in
    // memory while the disk is busy.
    let options = Options::default().cache_bytes(8 << 20).overlay_bytes(16 << 20);
    let store = Store::open(Database::open_with(folder.path(), &options)?).await?;
    let (tenant, clock) = (TenantId::new(), Clock::system());

    let started = Instant::now();
    let mut upload = BlobUpload::begin(&store, tenant, &clock).await?;
    for n in 0..mebibytes {
        upload.write(&mebibyte(n)).await?;
        if n % 64 == 63 {
            told(&format!("{} of {mebibytes} MiB written", n + 1));
        }
    }
    let blob = upload.finish().await?;
    // Every byte is durable, and nobody sees it. One transaction makes it a file's content.
    let home = &FileHome::Workspace("/workspace/p".to_owned());
    let (policy, now) = (&FilePolicy::default(), clock.now());
    let put =
        |tx| async move { File::put(&tx, tenant, (home, "made-up"), blob, policy, now).await };
    let file = store.run(put).await?;
    let written = started.elapsed();

    let started = Instant::now();
    let content = {
        let (tx, file) = (store.begin(), &file);
        file.content(&tx, file.version).await?.ok_or("the file has no content")?
    };
    let mut reader = BlobReader::new(&store, tenant, content.blob);
    let mut expected = (0..mebibytes).flat_map(mebibyte);
    while let Some(piece) = reader.next().await? {
        // The hash is compared too, by the reader, before it gives the last piece.
        assert!(expected.by_ref().take(piece.len()).eq(piece), "other bytes than were written");
    }
    assert_eq!(expected.next(), None, "fewer bytes than were written");
    let read = started.elapsed();

    // A part of it costs its own chunks only.
    if blob.size > 12_345 {
        let mut part = BlobReader::range(&store, tenant, content.blob, 12_340..12_345)?;
        assert_eq!(part.next().await?, Some(mebibyte(0)[12_340..12_345].to_vec()));
    }
    store.database().close().await;

    told(&format!("{mebibytes} MiB written in {written:.1?}, read in {read:.1?}"));
    if let Some(memory) = peak_memory_kib() {
        told(&format!("{} MiB of memory at the most", memory >> 10));
        assert!(memory <= MOST_MEMORY_KIB, "it needed {memory} KiB of memory");
    }
    Ok(())
}

/// The `n`th mebibyte: no two are alike.
fn mebibyte(n: u64) -> Vec<u8> {
    (0..1_u64 << 17)
        .flat_map(|at| (at ^ n << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect()
}

/// The most memory that this process had at once, where the system tells.
fn peak_memory_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[expect(clippy::print_stdout, reason = "an example says what it did")]
fn told(what: &str) {
    println!("{what}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::run(80).unwrap();
    }
}
