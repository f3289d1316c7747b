//! Runs a fuzz target without a fuzzer: on each file of its corpus, and on random changes of these
//! files. The crates' tests include this file.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
};

/// Maximum length of an input, in bytes.
const MAX_INPUT_BYTES: usize = 16 << 10;

/// Calls `body` with each file of the corpus of `target`, and with `cases` changed ones. Runs are
/// reproducible: `CODITECT_FUZZ_SEED` sets the seed, `CODITECT_FUZZ_CASES` the number of cases.
pub(crate) fn run(target: &str, cases: u64, body: fn(&[u8])) {
    let variable = |name: &str| env::var(name).ok().map(|it| it.parse::<u64>().unwrap());
    let cases = variable("CODITECT_FUZZ_CASES").unwrap_or(cases);
    let seed = variable("CODITECT_FUZZ_SEED").unwrap_or(1);
    let corpus = corpus(target);
    println!("{target}: {} files, {cases} changes of them by the seed {seed}", corpus.len());
    for bytes in &corpus {
        attempt(target, bytes, body);
    }
    for case in 0..cases {
        let mut random = Random::new(&(seed, case));
        attempt(target, &changed(&mut random, &corpus), body);
    }
}

/// Returns the corpus of `target`, in the order of its file names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.ci/fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Calls `body`; saves a failing input to a file, to be added to the corpus.
fn attempt(target: &str, bytes: &[u8], body: fn(&[u8])) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(bytes))) else { return };
    let mut hash = DefaultHasher::new();
    bytes.hash(&mut hash);
    let path = env::temp_dir().join(format!("{target}-{:016x}", hash.finish()));
    fs::write(&path, bytes).unwrap();
    println!("failed by {}: put it into .ci/fuzz/corpus/{target} to see it again", path.display());
    resume_unwind(panic);
}

/// Returns a random file of the corpus with a few random changes.
fn changed(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.one_of(corpus).clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(8)).min(bytes.len());
        match random.below(10) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            3 => {
                // The rest of another file.
                let other = random.one_of(corpus);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            4 => bytes.insert(at, random.byte()),
            5 | 6 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            7 if at < bytes.len() => bytes[at] = random.byte(),
            _ if at < bytes.len() => bytes[at] = *random.one_of(&[0, 1, 0x7f, 0x80, 0xfe, 0xff]),
            _ => bytes.push(random.byte()),
        }
    }
    bytes.truncate(MAX_INPUT_BYTES);
    bytes
}

/// Random numbers from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: &(u64, u64)) -> Self {
        let mut hash = DefaultHasher::new();
        seed.hash(&mut hash);
        Self(hash.finish() | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from((self.next() >> 32) % end as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
