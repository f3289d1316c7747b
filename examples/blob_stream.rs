//! Streams a file in and out in bounded memory. It is invisible until it is complete.
//!
//! `cargo run --release -p coditect-examples --bin blob_stream [-- MEBIBYTES]`
//!
//! Writes the given number of generated mebibytes (default 64), reads them back, and prints the
//! peak memory. Fails if the peak exceeds 64 MiB.

use std::{env, error::Error, fs, time::Instant};

use coditect_store::{
    BlobReader, BlobUpload, Clock, Store,
    engine::{Database, Options},
    model::{File, FilePolicy, FileRoot, TenantId},
};

/// Maximum resident set size, in KiB.
const MOST_MEMORY_KIB: u64 = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mebibytes = env::args().nth(1).map_or(Ok(64), |count| count.parse())?;
    run(mebibytes)
}

#[tokio::main(flavor = "current_thread")]
async fn run(mebibytes: u64) -> Result<(), Box<dyn Error>> {
    // On the disk of the working folder, since the temporary folder may be in memory.
    let folder = tempfile::tempdir_in(".")?;
    // Small budgets for the B-tree cache and for the memtables.
    let options = Options::default().cache_bytes(8 << 20).memtable_bytes(16 << 20);
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
    // Every byte is durable, but invisible until one transaction makes it a file's content.
    let home = &FileRoot::Workspace("/workspace/p".to_owned());
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
        // The reader verifies the hash before it returns the last chunk.
        assert!(expected.by_ref().take(piece.len()).eq(piece), "other bytes than were written");
    }
    assert_eq!(expected.next(), None, "fewer bytes than were written");
    let read = started.elapsed();

    // Reading a range costs only its own chunks.
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

/// Returns the `n`th mebibyte; all differ.
fn mebibyte(n: u64) -> Vec<u8> {
    (0..1_u64 << 17)
        .flat_map(|at| (at ^ n << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect()
}

/// Returns the peak resident set size in KiB, if the system reports it.
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
