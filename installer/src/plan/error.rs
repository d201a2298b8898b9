//! Why there is no plan, and what to do about it.

use crate::config::AnswerProblem;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A layer without which there is no cluster.
    #[error("the bundle {bundle} has no pack of the layer {layer}")]
    MissingLayer {
        /// The bundle.
        bundle: String,
        /// The layer.
        layer: &'static str,
    },
    /// An image without which there is no cluster.
    #[error("the Kubernetes pack of the bundle {bundle} has no image {image}")]
    MissingImage {
        /// The bundle.
        bundle: String,
        /// The last part of its name.
        image: &'static str,
    },
    /// A version we cannot configure.
    #[error("Kubernetes {version} is not known to this program")]
    Version {
        /// Of the pack.
        version: String,
    },
    /// A pack that the configuration asks for.
    #[error("cluster.packs: the bundle {bundle} has no pack {pack}; it has {has}")]
    UnknownPack {
        /// The bundle.
        bundle: String,
        /// The pack.
        pack: String,
        /// What it has.
        has: String,
    },
    /// Questions of packs that nobody answered, and answers that fit none.
    #[error("the questions of the packs are not answered:{}", lines(problems))]
    Answers {
        /// All of them.
        problems: Vec<AnswerProblem>,
    },
    /// The disk could not be chosen.
    #[error("{why}")]
    Disk {
        /// Why not.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// An appliance without encryption was asked for.
    #[error("storage.encryption.mode: none, but an appliance encrypts all that changes")]
    Plaintext,
    /// A network was described for a host that has one.
    #[error("network: describes an appliance's network, but this host keeps the one that it has")]
    ForeignNetwork,
    /// Encryption with a TPM was asked for.
    #[error("storage.encryption.tpm2: require, but this machine has no usable TPM 2.0")]
    NoTpm,
}

fn lines(problems: &[AnswerProblem]) -> String {
    problems.iter().fold(String::new(), |text, problem| format!("{text}\n  {problem}"))
}

impl PlanError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::MissingLayer { .. } | Self::MissingImage { .. } => {
                "build the bundle with the packs of docs/bundle-format.md; `cofferdam bundle inspect` shows what is inside"
            }
            Self::Version { .. } => "Kubernetes 1.20 to 1.35 are known",
            Self::UnknownPack { .. } => "`cofferdam bundle inspect` lists the packs of a bundle",
            Self::Answers { .. } => {
                "mend the keys above under `answers:` in the configuration (PACK, NAME, value); `cofferdam bundle inspect` \
                 lists what a bundle asks"
            }
            Self::Disk { hint, .. } => hint,
            Self::Plaintext => "choose `mode: luks2` with escrow-recipients",
            Self::ForeignNetwork => {
                "leave `network` out, and set addresses, bonds and VLANs with the means of this host's distribution"
            }
            Self::NoTpm => "switch the TPM on in the firmware's setup, or choose `tpm2: auto`",
        }
    }
}
