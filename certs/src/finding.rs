//! One thing that is wrong, or soon will be, with a certificate that was brought in. The installer shows all of them at
//! once as `cert.*` in its checks; the ids are stable and scripts may rely on them.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The certificate works, but somebody should know.
    Warn,
    /// The certificate cannot be used.
    Fail,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// Stable id, for example `cert.san`. All ids are listed at [`import`](crate::import()).
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, with the measured value.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Finding {
    pub(crate) fn fail(id: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { id, severity: Severity::Fail, message: message.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn warn(id: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { id, severity: Severity::Warn, message: message.into(), hint: Some(hint.into()) }
    }
}
