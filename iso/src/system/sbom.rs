//! The bill of materials of the system: `CycloneDX` 1.6 JSON of all Debian packages, from dpkg's own record.
//!
//! Called by [`super::root`].

use serde_json::{Value, json};

/// A package as dpkg's status file has it (deb-control(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    architecture: String,
    /// Source package, where it has another name.
    source: Option<String>,
    maintainer: Option<String>,
}

/// The installed packages of a status file.
pub(crate) fn packages(status: &str) -> Vec<Package> {
    let mut all: Vec<Package> = status
        .split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| {
                stanza
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                    .map(|value| value.trim().to_owned())
            };
            if !field("Status")?.ends_with(" installed") {
                return None;
            }
            Some(Package {
                name: field("Package")?,
                version: field("Version")?,
                architecture: field("Architecture")?,
                source: field("Source").and_then(|source| Some(source.split_whitespace().next()?.to_owned())),
                maintainer: field("Maintainer"),
            })
        })
        .collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// The document. It has neither a date nor a serial number: the same packages give the same bytes.
pub(crate) fn render(packages: &[Package], release: &str) -> Vec<u8> {
    let components: Vec<Value> = packages
        .iter()
        .map(|package| {
            let address = address(package, release);
            let mut component = json!({
                "type": "library", "bom-ref": address, "name": package.name, "version": package.version, "purl": address,
            });
            if let Some(maintainer) = &package.maintainer {
                component["supplier"] = json!({"name": maintainer});
            }
            if let Some(source) = &package.source {
                component["properties"] = json!([{"name": "debian:source", "value": source}]);
            }
            component
        })
        .collect();
    let document = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {"type": "operating-system", "bom-ref": "cofferdam-system", "name": "cofferdam-system"}},
        "components": components,
    });
    // Maps with text keys: there is nothing that serialisation could refuse.
    let mut bytes = serde_json::to_vec_pretty(&document).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// A package URL (purl-spec, type `deb`): `+`, `:` and `~` of versions are escaped where they must be.
fn address(package: &Package, release: &str) -> String {
    let escaped = |text: &str| text.replace('%', "%25").replace('+', "%2B").replace(':', "%3A");
    format!(
        "pkg:deb/debian/{}@{}?arch={}&distro=debian-{release}",
        escaped(&package.name),
        escaped(&package.version),
        package.architecture
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn installed_packages_stand_in_it_by_name() {
        let status = "Package: libstdc++6\nStatus: install ok installed\nMaintainer: Someone <a@b.test>\nArchitecture: amd64\n\
                      Source: gcc-14 (14.2.0-19)\nVersion: 1:14.2.0+x\nDescription: a\n Package: not this\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
                      Package: adduser\nStatus: install ok installed\nArchitecture: all\nVersion: 3.152\n";
        let found = packages(status);
        assert_eq!(found.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(), ["adduser", "libstdc++6"]);
        let document: Value = serde_json::from_slice(&render(&found, "13")).unwrap();
        assert_eq!(
            document["components"][1]["purl"],
            "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2.0%2Bx?arch=amd64&distro=debian-13"
        );
        assert_eq!(document["components"][1]["properties"][0]["value"], "gcc-14");
    }
}
