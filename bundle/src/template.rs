//! Variables in manifests and files that say `template: true`. Invariant: rendering replaces known variables and
//! nothing else; an unknown or unclosed one is an error, so that a typing mistake never reaches a cluster. Called by
//! `create` (which proves that every variable is known) and by the installer (which knows the values).
//!
//! `${name}` is replaced; `$${` stands for a literal `${`; any other `$` is itself.

/// The variables that the installer knows.
pub const VARIABLES: [&str; 7] = ["fqdn", "vip", "pod-cidr", "service-cidr", "node-name", "node-ip", "cluster-name"];

/// Why a template cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A variable that has no value.
    #[error("line {line}: ${{{name}}} is not a known variable")]
    Unknown {
        /// Counted from 1.
        line: usize,
        /// The name between the braces.
        name: String,
    },
    /// `${` without `}` on the same line.
    #[error("line {line}: ${{ is not closed")]
    Unclosed {
        /// Counted from 1.
        line: usize,
    },
}

/// Renders a template. `value` gives what a variable stands for, `None` if there is no such variable.
pub fn render(text: &str, value: &mut dyn FnMut(&str) -> Option<String>) -> Result<String, TemplateError> {
    let mut rendered = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(literal) = before.strip_suffix('$') {
                rendered.push_str(literal);
                rendered.push_str("${");
                rest = after;
                continue;
            }
            rendered.push_str(before);
            let (name, after) = after.split_once('}').ok_or(TemplateError::Unclosed { line: number + 1 })?;
            let value =
                value(name).ok_or_else(|| TemplateError::Unknown { line: number + 1, name: name.to_owned() })?;
            rendered.push_str(&value);
            rest = after;
        }
        rendered.push_str(rest);
    }
    Ok(rendered)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn replaces_variables_and_nothing_else() {
        let unknown = |line, name: &str| Err(TemplateError::Unknown { line, name: name.to_owned() });
        for (text, expected) in [
            ("", Ok("")),
            ("host: ${fqdn}\n", Ok("host: a.example\n")),
            ("${fqdn}${fqdn}", Ok("a.examplea.example")),
            ("echo $HOME $$ $(x) $", Ok("echo $HOME $$ $(x) $")),
            ("echo $${HOME}", Ok("echo ${HOME}")),
            ("$$${fqdn}", Ok("$${fqdn}")),
            ("a\n${nope}", unknown(2, "nope")),
            ("${}", unknown(1, "")),
            ("${fqdn\n}", Err(TemplateError::Unclosed { line: 1 })),
        ] {
            let rendered = render(text, &mut |name| (name == "fqdn").then(|| "a.example".to_owned()));
            assert_eq!(rendered, expected.map(str::to_owned), "{text:?}");
        }
    }
}
