//! The releases of the simulated host: small, with every kind of thing that a pack may hold.

use bundle::index::Index;
use bundle::oci::Digest;
use installer::plan::{Disk, Machine};
use serde_json::{Value, json};

/// The machine of the simulated host.
pub fn machine() -> Machine {
    let disk = Disk {
        path: "/dev/sdb".to_owned(),
        serial: "S6CTNX0T512345".to_owned(),
        model: "PM9A3".to_owned(),
        size: 960_000_000_000,
        contents: Vec::new(),
    };
    Machine { disk: Some(disk), tpm2: true, slowness: 4.0, secure_boot: false, system: None }
}

/// Which release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "the test of installations makes the first one only")]
pub enum Variant {
    /// What is installed.
    First,
    /// Kubernetes 1.28.1; the portal with other files, an object less and more, a migration that can be undone; a new pack.
    Second,
    /// As the second; its migration can only be undone by the snapshot of etcd.
    Irreversible,
    /// Kubernetes 1.29 and 1.30 one after another.
    TwoHops,
    /// As the second, with the next system of an appliance.
    System,
    /// A third one, with the system after that.
    NextSystem,
}

/// Three packs with every kind of file, manifest, secret and gate.
#[allow(clippy::too_many_lines, reason = "a release as it is written down")]
pub fn release(variant: Variant) -> (Index, Vec<Vec<u8>>) {
    let is_first = variant == Variant::First;
    let kubernetes: &[&str] = match variant {
        Variant::First => &["1.28.0"],
        Variant::Second | Variant::Irreversible | Variant::System | Variant::NextSystem => &["1.28.1"],
        Variant::TwoHops => &["1.30.2", "1.29.1"],
    };
    let mut blobs = Vec::new();
    let mut keep = |text: &str| {
        blobs.push(text.as_bytes().to_vec());
        (Digest::sha256_of(text.as_bytes()).to_string(), text.len())
    };
    let nothing = Digest::sha256_of(b"").to_string();
    let image = |reference: &String| json!({"reference": reference, "digest": nothing});

    let file = |name: &str, (digest, size): (String, usize), path: &str, mode: &str, template: bool| json!({"name": name, "digest": digest, "size": size, "template": template, "install": [{"path": path, "mode": mode}]});
    let mut packs = Vec::new();
    let mut all_images = Vec::new();
    for version in kubernetes {
        let mut files: Vec<Value> = Vec::new();
        for name in ["containerd", "ctr", "kubelet", "kubeadm", "kubectl"] {
            let text =
                if is_first { format!("the program {name}") } else { format!("the program {name} of {version}") };
            files.push(file(name, keep(&text), &format!("/usr/local/bin/{name}"), "0755", false));
        }
        // The second release has a file less and a file more.
        let site = if is_first { "/etc/site.conf" } else { "/etc/site/site.conf" };
        files.push(file("site.conf", keep("fqdn ${fqdn}\n"), site, "0644", true));
        let names =
            ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "pause", "coredns"];
        let images: Vec<String> = names
            .iter()
            .map(|name| match *name {
                "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" | "kube-proxy" => {
                    format!("registry.k8s.io/{name}:v{version}")
                }
                _ => format!("registry.k8s.io/{name}:v1.28.0"),
            })
            .collect();
        let name = if *version == kubernetes[0] {
            "kubernetes".to_owned()
        } else {
            format!("stone-{}", version.replace('.', "-"))
        };
        packs.push(json!({
            "digest": Digest::sha256_of(version.as_bytes()), "size": 0, "name": name, "version": version,
            "layer": "kubernetes", "description": "kubernetes", "images": images.iter().map(image).collect::<Vec<_>>(),
            "files": files, "manifests": [], "secrets": [], "gates": [], "optional-images": [],
        }));
        all_images.extend(images);
    }

    if let Some((version, hash)) = match variant {
        Variant::System => Some(("2.0.0", super::appliance::NEXT_ROOT)),
        Variant::NextSystem => Some(("3.0.0", super::appliance::THIRD_ROOT)),
        _ => None,
    } {
        let mut part = |name: &str, text: String| {
            let (digest, size) = keep(&text);
            json!({"name": name, "digest": digest, "size": size, "template": false, "install": []})
        };
        let parts = [
            part("root.squashfs", format!("the root of {hash}")),
            part("root.verity", format!("the verity tree of {hash}")),
            part("system.efi", format!("the image, roothash={hash}")),
            part("loader.efi", "the next loader".to_owned()),
        ];
        let system = json!({
            "version": version, "kernel": "6.12", "root-hash": hash,
            "pcr-key": Digest::sha256_of(super::appliance::PCR_KEY.as_bytes()),
        });
        packs.push(json!({
            "digest": Digest::sha256_of(hash.as_bytes()), "size": 0, "name": "system", "version": version, "layer": "os",
            "description": "system", "images": [], "files": parts, "manifests": [], "secrets": [], "gates": [],
            "optional-images": [], "system": system,
        }));
    }
    let mut manifest = |name: &str, objects: &[(&str, &str, &str)]| {
        let object = |(kind, namespace, name): &(&str, &str, &str)| {
            let group = if matches!(*kind, "Deployment" | "DaemonSet") { "apps/v1" } else { "v1" };
            format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}, namespace: \"{namespace}\"}}\n")
        };
        let text = objects.iter().map(object).collect::<Vec<_>>().join("---\n");
        let (digest, size) = keep(&text);
        json!({"name": name, "digest": digest, "size": size, "template": false})
    };
    let network = manifest("network", &[("Namespace", "", "network"), ("DaemonSet", "network", "network")]);
    let settings = if is_first { "old-settings" } else { "new-settings" };
    let portal = manifest(
        "portal",
        &[("Namespace", "", "portal"), ("ConfigMap", "portal", settings), ("Deployment", "portal", "portal")],
    );
    let gate = |kind: &str, name: &str| json!({"kind": kind, "namespace": name, "name": name, "timeout-seconds": 60});
    let secrets: Vec<Value> = ["random-256", "password", "ed25519", "ecdsa-p256", "site-certificate"]
        .iter()
        .map(|kind| {
            let mut secret = json!({"name": format!("a-{kind}"), "namespace": "portal", "kind": kind});
            if *kind != "site-certificate" {
                secret["key"] = json!("value");
            }
            secret
        })
        .collect();
    let portal_version = if is_first { "2.0.0" } else { "2.1.0" };
    let others = ["docker.io/net/network:1.0".to_owned(), format!("quay.io/site/portal:{portal_version}")];
    let migrations = if is_first {
        json!([])
    } else {
        let apply = manifest("apply", &[("ConfigMap", "portal", "migrated"), ("Job", "portal", "migrate")]);
        let undo = manifest("undo", &[("ConfigMap", "portal", "undone"), ("Job", "portal", "undo")]);
        let mut migration = json!({"name": "data", "from": "<2.1.0", "apply": apply, "timeout-seconds": 60});
        if variant != Variant::Irreversible {
            migration["undo"] = undo;
        }
        json!([migration])
    };
    let pack = |name: &str, version: &str, layer: &str, images: &[String], rest: (Value, Vec<Value>, Vec<Value>)| {
        json!({
            "digest": Digest::sha256_of(format!("{name} {version}").as_bytes()), "size": 0, "name": name,
            "version": version, "layer": layer, "description": name, "images": images.iter().map(image).collect::<Vec<_>>(),
            "files": [], "manifests": rest.0, "secrets": rest.1, "gates": rest.2, "optional-images": [],
        })
    };
    packs.push(pack(
        "network",
        "1.0.0",
        "network",
        &others[..1],
        (json!([network]), vec![], vec![gate("daemonset-ready", "network")]),
    ));
    let mut portal = pack(
        "portal",
        portal_version,
        "addon",
        &others[1..],
        (json!([portal]), secrets, vec![gate("deployment-available", "portal")]),
    );
    portal["migrations"] = migrations;
    packs.push(portal);
    if !is_first {
        let extra = manifest("extra", &[("Deployment", "portal", "extra")]);
        packs.push(pack("extra", "0.1.0", "addon", &[], (json!([extra]), vec![], vec![])));
    }
    all_images.extend(others);
    all_images.dedup();
    let mut known = std::collections::BTreeSet::new();
    all_images.retain(|image| known.insert(image.clone()));
    let content = json!({"digest": nothing, "size": 0});
    let listed: Vec<Value> = blobs
        .iter()
        .map(|blob| json!({"digest": Digest::sha256_of(blob), "size": blob.len(), "media-type": ""}))
        .collect();
    let index = json!({
        "schema-version": 1, "media-type": "application/vnd.cofferdam.bundle.index.v1+json", "name": "cofferdam",
        "version": match variant { Variant::First => "1.0.0", Variant::NextSystem => "1.2.0", _ => "1.1.0" }, "architecture": "amd64", "packs": packs, "blobs": listed,
        "images": all_images.iter().map(|reference| json!({
            "reference": reference, "digest": nothing, "size": 0,
            "media-type": "application/vnd.oci.image.manifest.v1+json",
        })).collect::<Vec<_>>(),
        "oci-layout": content, "oci-index": content, "trust": {"next-keys": []},
    });
    (serde_json::from_value(index).unwrap(), blobs)
}
