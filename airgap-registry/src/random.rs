//! Names that nobody guesses.

use crate::error::{Error, Result};

/// 128 random bits as 32 lower-case hex digits.
pub(crate) fn hex() -> Result<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Unexpected("the random number generator failed"))?;
    Ok(hex::encode(bytes))
}
