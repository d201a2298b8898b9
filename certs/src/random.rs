//! Random bytes from aws-lc, straight into memory that is wiped. Everything random in this crate comes from here or
//! from the key generation of the library itself.

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::CertsError;

/// `N` random bytes, for example 32 for the key of Kubernetes' secretbox encryption.
pub fn random_bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, CertsError> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::fill(bytes.as_mut_slice()).map_err(|_| CertsError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(*random_bytes::<32>().unwrap(), *random_bytes::<32>().unwrap());
    }
}
