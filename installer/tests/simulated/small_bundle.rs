//! A small bundle for the simulated host.

use bundle::index::Index;
use bundle::oci::Digest;
use serde_json::{Value, json};

/// Three packs with every kind of file, manifest, secret and gate.
pub fn small_bundle() -> (Index, Vec<Vec<u8>>) {
    let mut blobs = Vec::new();
    let mut keep = |text: &str| {
        blobs.push(text.as_bytes().to_vec());
        (Digest::sha256_of(text.as_bytes()).to_string(), text.len())
    };
    let mut file = |name: &str, text: &str, path: &str, mode: &str, template: bool| {
        let (digest, size) = keep(text);
        json!({"name": name, "digest": digest, "size": size, "template": template, "install": [{"path": path, "mode": mode}]})
    };
    let mut files: Vec<Value> = ["containerd", "ctr", "kubelet", "kubeadm", "kubectl"]
        .iter()
        .map(|name| file(name, &format!("the program {name}"), &format!("/usr/local/bin/{name}"), "0755", false))
        .collect();
    files.push(file("site.conf", "fqdn ${fqdn}\n", "/etc/site.conf", "0644", true));
    let mut manifest = |kind: &str, name: &str| {
        let object = |kind: &str, namespace: &str| {
            format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: \"{namespace}\"}}\n")
        };
        let text = format!("{}---\n{}", object("Namespace", ""), object(kind, name));
        let (digest, size) = keep(&text);
        json!({"name": name, "digest": digest, "size": size, "template": false})
    };
    let (network, portal) = (manifest("DaemonSet", "network"), manifest("Deployment", "portal"));
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
    let nothing = Digest::sha256_of(b"").to_string();
    let names =
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "pause", "coredns"];
    let images: Vec<String> = names.iter().map(|name| format!("registry.k8s.io/{name}:v1.28.0")).collect();
    let others = ["docker.io/net/network:1.0".to_owned(), "quay.io/site/portal:2.0".to_owned()];
    let image = |reference: &String| json!({"reference": reference, "digest": nothing});
    let pack = |name: &str,
                version: &str,
                layer: &str,
                images: &[String],
                files: &[Value],
                rest: (Vec<Value>, Vec<Value>, Vec<Value>)| {
        json!({
            "digest": nothing, "size": 0, "name": name, "version": version, "layer": layer, "description": name,
            "images": images.iter().map(image).collect::<Vec<_>>(), "files": files, "manifests": rest.0,
            "secrets": rest.1, "gates": rest.2, "optional-images": [],
        })
    };
    let packs = [
        pack("kubernetes", "1.28.0", "kubernetes", &images, &files, (vec![], vec![], vec![])),
        pack(
            "network",
            "1.0.0",
            "network",
            &others[..1],
            &[],
            (vec![network], vec![], vec![gate("daemonset-ready", "network")]),
        ),
        pack(
            "portal",
            "2.0.0",
            "addon",
            &others[1..],
            &[],
            (vec![portal], secrets, vec![gate("deployment-available", "portal")]),
        ),
    ];
    let content = json!({"digest": nothing, "size": 0});
    let index = json!({
        "schema-version": 1, "media-type": "application/vnd.cofferdam.bundle.index.v1+json", "name": "cofferdam",
        "version": "1.0.0", "architecture": "amd64", "packs": packs, "blobs": [],
        "images": images.iter().chain(&others).map(|reference| json!({
            "reference": reference, "digest": nothing, "size": 0,
            "media-type": "application/vnd.oci.image.manifest.v1+json",
        })).collect::<Vec<_>>(),
        "oci-layout": content, "oci-index": content, "trust": {"next-keys": []},
    });
    (serde_json::from_value(index).unwrap(), blobs)
}
