//! The one error of this crate. Each variant says what failed, on what and why; [`Error::exit_code`] says which of the
//! product's exit codes it is, [`Error::hint`] what to do about it.

use std::io;

use camino::Utf8PathBuf;

/// What can go wrong with media.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the caller asked for cannot be done.
    #[error("cannot make a medium: {why}")]
    Options {
        /// What is wrong with it.
        why: String,
    },
    /// The bundle for the medium is not good; the signature or the content.
    #[error("{path} does not go on a medium: {source}")]
    Bundle {
        /// The bundle.
        path: Utf8PathBuf,
        /// What is wrong with it.
        source: bundle::Error,
    },
    /// A signing key or a public key cannot be used.
    #[error("the key {path} cannot be used: {source}")]
    Key {
        /// The key.
        path: Utf8PathBuf,
        /// Why not.
        source: bundle::Error,
    },
    /// A tool that images are built with failed or is missing.
    #[error("{program}: {why}")]
    Tool {
        /// Which one.
        program: String,
        /// Its last lines, or why it did not start.
        why: String,
        /// Whether it is not installed.
        is_missing: bool,
    },
    /// xorriso failed or is missing.
    #[error("xorriso: {why}")]
    Xorriso {
        /// Its last lines, or why it did not start.
        why: String,
        /// Whether it is not installed.
        is_missing: bool,
    },
    /// There is no ISO 9660 volume in the file.
    #[error("{path} is not an ISO image: {why}")]
    NotAnImage {
        /// The file.
        path: Utf8PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// The image breaks the format, is cut off, or lies about itself.
    #[error("{path} is damaged: {what}: {why}")]
    Damaged {
        /// The image.
        path: Utf8PathBuf,
        /// Which part of it: a descriptor, a directory, a file.
        what: String,
        /// What is wrong with that.
        why: String,
    },
    /// A sound image, but not one of ours.
    #[error("{path} is not a Cofferdam medium: {why}")]
    NotAMedium {
        /// The image.
        path: Utf8PathBuf,
        /// What is missing.
        why: String,
    },
    /// The files are not those that the manifest lists; all that is wrong.
    #[error("{path} does not hold what its manifest lists:{}", lines(problems))]
    Differs {
        /// The image.
        path: Utf8PathBuf,
        /// One line each.
        problems: Vec<String>,
    },
    /// The image has no such file.
    #[error("{path} holds no file {name}")]
    NoSuchFile {
        /// The image.
        path: Utf8PathBuf,
        /// The name that was asked for.
        name: String,
    },
    /// Reading or writing failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, and on what.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

fn lines(problems: &[String]) -> String {
    problems.iter().fold(String::new(), |text, line| text + "\n  " + line)
}

impl Error {
    /// The exit code of the product: 2 for what the user wrote, 4 for a medium or bundle that is damaged or not trusted, 1
    /// for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Options { .. } | Self::Key { .. } | Self::NoSuchFile { .. } => 2,
            Self::Bundle { source, .. } => source.exit_code(),
            Self::NotAnImage { .. } | Self::Damaged { .. } | Self::NotAMedium { .. } | Self::Differs { .. } => 4,
            Self::Tool { .. } | Self::Xorriso { .. } | Self::Io { .. } => 1,
        }
    }

    /// What to do about it, for the line `hint: …`.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Bundle { source, .. } | Self::Key { source, .. } => return source.hint(),
            Self::Xorriso { is_missing: true, .. } => "install it: apt-get install --no-install-recommends xorriso",
            Self::Tool { is_missing: true, .. } => {
                "install what builds images: apt-get install --no-install-recommends mmdebstrap mtools xorriso util-linux"
            }
            Self::NotAnImage { .. } => "is the copy complete, and the file an .iso?",
            Self::Damaged { .. } | Self::Differs { .. } => {
                "copy the medium again from where it was made, and check it there with: cofferdam iso inspect"
            }
            Self::NotAMedium { .. } => "a medium is made with: cofferdam iso build",
            Self::NoSuchFile { .. } => "cofferdam iso inspect lists what is there",
            Self::Options { .. } | Self::Tool { .. } | Self::Xorriso { .. } | Self::Io { .. } => return None,
        })
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
