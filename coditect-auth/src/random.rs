//! Random bytes of the operating system. Code that must be repeatable takes its random bytes as an
//! argument; only code that creates secrets calls this.

use zeroize::Zeroizing;

use crate::Error;

/// Returns `N` random bytes, zeroized on drop.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).map_err(Error::internal)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(*random::<32>().unwrap(), *random::<32>().unwrap());
    }
}
