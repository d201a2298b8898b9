//! What kubeadm, the kubelet and the API server are told. Rendered by the version of kubeadm's configuration API;
//! golden files show each version. The flags follow the CIS Kubernetes Benchmark where kubeadm's configuration can
//! carry them; each that kubeadm leaves open is named here.

use std::fmt::Write as _;
use std::net::IpAddr;

use base64::Engine as _;
use zeroize::Zeroizing;

use crate::layout;

/// What the rendering depends on.
#[derive(Debug, Clone)]
pub struct KubeadmParameters {
    pub version: String,
    pub api: String,
    pub image_repository: String,
    pub etcd_tag: String,
    pub patient: bool,
    pub cluster: String,
    pub fqdn: String,
    pub vip: Option<IpAddr>,
    pub node: String,
    pub address: IpAddr,
    pub pod_cidr: String,
    pub service_cidr: String,
    pub schedule: bool,
}

/// Who did what to which object. Secrets and tokens never with their content.
pub(super) const AUDIT_POLICY: &str = include_str!("audit-policy.yaml");
/// Points to the rate limit of events.
pub(super) const ADMISSION: &str = include_str!("admission.yaml");
/// CIS 1.2.10.
pub(super) const EVENT_RATE_LIMIT: &str = include_str!("event-rate-limit.yaml");
/// The kubelet's service.
pub(super) const KUBELET_UNIT: &str = include_str!("kubelet.service");
/// kubeadm's drop-in for it.
pub(super) const KUBELET_DROP_IN: &str = include_str!("10-kubeadm.conf");

const CIPHERS: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,\
TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,\
TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";

/// Secrets are written with a generated key (secretbox); what is not encrypted yet can still be read.
pub(super) fn encryption(key: &[u8; 32]) -> Zeroizing<String> {
    let key = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(key));
    Zeroizing::new(format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n  - resources: [secrets]\n\
         \x20   providers:\n      - secretbox:\n          keys:\n            - name: key1\n              secret: {}\n\
         \x20     - identity: {{}}\n",
        *key
    ))
}

/// More time for probes on slow machines.
pub(super) fn patient_patch(component: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {component}\n  namespace: kube-system\nspec:\n  containers:\n\
         \x20   - name: {component}\n      livenessProbe: {{failureThreshold: 100, timeoutSeconds: 60}}\n\
         \x20     startupProbe: {{failureThreshold: 200, timeoutSeconds: 60}}\n"
    )
}

/// The file for `kubeadm --config`: four documents.
pub fn render_kubeadm_config(parameters: &KubeadmParameters) -> String {
    let p = parameters;
    let is_v1beta4 = p.api.ends_with("v1beta4");
    let arguments = |indent: usize, list: &[(&str, String)]| extra_arguments(is_v1beta4, indent, list);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# Written by cofferdam.\napiVersion: {}\nkind: InitConfiguration\nlocalAPIEndpoint:\n  advertiseAddress: {}\n  bindPort: {}\n\
         nodeRegistration:\n  name: {}\n  criSocket: {}\n{}  kubeletExtraArgs:\n{}",
        p.api,
        p.address,
        layout::API_PORT,
        p.node,
        if p.api.ends_with("v1beta2") {
            "/run/containerd/containerd.sock"
        } else {
            "unix:///run/containerd/containerd.sock"
        },
        if p.schedule { "  taints: []\n" } else { "" },
        arguments(4, &kubelet_arguments(p)),
    );
    let _ = write!(
        text,
        "---\napiVersion: {}\nkind: ClusterConfiguration\nclusterName: {}\nkubernetesVersion: v{}\nimageRepository: {}\n\
         controlPlaneEndpoint: {}:{}\nnetworking:\n  podSubnet: {}\n  serviceSubnet: {}\n",
        p.api,
        p.cluster,
        p.version.trim_start_matches('v'),
        p.image_repository,
        p.fqdn,
        layout::API_PORT,
        p.pod_cidr,
        p.service_cidr,
    );
    let _ = write!(
        text,
        "etcd:\n  local:\n    imageTag: \"{}\"\n    dataDir: /var/lib/etcd\n    extraArgs:\n{}",
        p.etcd_tag,
        arguments(6, &etcd_arguments(p)),
    );
    let _ = writeln!(text, "apiServer:\n  certSANs:\n    - {}\n    - {}", p.fqdn, p.address);
    if let Some(vip) = p.vip {
        let _ = writeln!(text, "    - {vip}");
    }
    if !is_v1beta4 {
        let _ = writeln!(text, "  timeoutForControlPlane: {}", if p.patient { "20m0s" } else { "4m0s" });
    }
    let _ = write!(
        text,
        "  extraArgs:\n{}  extraVolumes:\n{}{}",
        arguments(4, &api_server_arguments(p)),
        volume("cofferdam", "/etc/kubernetes/cofferdam", true, "Directory"),
        volume("audit", "/var/log/kubernetes", false, "DirectoryOrCreate"),
    );
    let _ = write!(text, "controllerManager:\n  extraArgs:\n{}", arguments(4, &controller_manager_arguments(p)));
    let _ = write!(text, "scheduler:\n  extraArgs:\n{}", arguments(4, &scheduler_arguments(p)));
    let _ = write!(text, "---\n{}", include_str!("kubelet-configuration.yaml"));
    let _ = write!(
        text,
        "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: iptables\n\
         clusterCIDR: {}\n# 0: the host's own settings stand.\nconntrack:\n  maxPerCore: 0\n  min: 0\n",
        p.pod_cidr,
    );
    text
}

fn kubelet_arguments(p: &KubeadmParameters) -> Vec<(&'static str, String)> {
    let mut list = vec![("node-ip", p.address.to_string())];
    if minor(p) < 24 {
        list.insert(0, ("container-runtime", "remote".to_owned()));
    }
    list
}

fn etcd_arguments(p: &KubeadmParameters) -> Vec<(&'static str, String)> {
    let mut list = vec![("cipher-suites", CIPHERS.to_owned())];
    if p.patient {
        list.push(("election-timeout", "10000".to_owned()));
        list.push(("heartbeat-interval", "1000".to_owned()));
    }
    list
}

fn api_server_arguments(p: &KubeadmParameters) -> Vec<(&'static str, String)> {
    let mut list = vec![
        ("admission-control-config-file", "/etc/kubernetes/cofferdam/admission.yaml".to_owned()),
        ("audit-log-maxage", "30".to_owned()),
        ("audit-log-maxbackup", "10".to_owned()),
        ("audit-log-maxsize", "100".to_owned()),
        ("audit-log-path", "/var/log/kubernetes/audit.log".to_owned()),
        ("audit-policy-file", "/etc/kubernetes/cofferdam/audit-policy.yaml".to_owned()),
        ("enable-admission-plugins", admission_plugins(p)),
        ("encryption-provider-config", "/etc/kubernetes/cofferdam/encryption.yaml".to_owned()),
        ("profiling", "false".to_owned()),
        ("service-account-extend-token-expiration", "false".to_owned()),
        ("tls-cipher-suites", CIPHERS.to_owned()),
        ("tls-min-version", "VersionTLS12".to_owned()),
    ];
    if p.patient {
        list.push(("default-watch-cache-size", "0".to_owned()));
    }
    list
}

fn admission_plugins(p: &KubeadmParameters) -> String {
    // DenyServiceExternalIPs exists from 1.21 on (CVE-2020-8554).
    let external = if minor(p) >= 21 { ",DenyServiceExternalIPs" } else { "" };
    format!("NodeRestriction,EventRateLimit{external}")
}

fn controller_manager_arguments(p: &KubeadmParameters) -> Vec<(&'static str, String)> {
    let mut list = vec![("profiling", "false".to_owned()), ("terminated-pod-gc-threshold", "100".to_owned())];
    if p.patient {
        // One control plane node has nobody to lose an election to.
        list.insert(0, ("leader-elect", "false".to_owned()));
    }
    list
}

fn scheduler_arguments(p: &KubeadmParameters) -> Vec<(&'static str, String)> {
    let mut list = vec![("profiling", "false".to_owned())];
    if p.patient {
        list.insert(0, ("leader-elect", "false".to_owned()));
    }
    list
}

fn minor(p: &KubeadmParameters) -> u32 {
    crate::plan::kubernetes_minor(&p.version).unwrap_or(u32::MAX)
}

/// A map up to v1beta3, a list of name and value from v1beta4 on.
fn extra_arguments(is_list: bool, indent: usize, list: &[(&str, String)]) -> String {
    let space = " ".repeat(indent);
    list.iter().fold(String::new(), |text, (name, value)| {
        if is_list {
            format!("{text}{space}- name: {name}\n{space}  value: \"{value}\"\n")
        } else {
            format!("{text}{space}{name}: \"{value}\"\n")
        }
    })
}

fn volume(name: &str, path: &str, read_only: bool, kind: &str) -> String {
    format!(
        "    - name: {name}\n      hostPath: {path}\n      mountPath: {path}\n      readOnly: {read_only}\n      pathType: {kind}\n"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{KubeadmParameters, encryption, render_kubeadm_config};

    #[test]
    fn every_api_version_renders_as_recorded() {
        for (version, api, patient) in [
            ("1.20.2", "v1beta2", false),
            ("1.20.2", "v1beta2", true),
            ("1.28.0", "v1beta3", false),
            ("1.34.1", "v1beta4", false),
        ] {
            let text = render_kubeadm_config(&KubeadmParameters {
                version: version.to_owned(),
                api: format!("kubeadm.k8s.io/{api}"),
                image_repository: "registry.k8s.io".to_owned(),
                etcd_tag: "3.6.4-0".to_owned(),
                patient,
                cluster: "rack7".to_owned(),
                fqdn: "mgmt.rack7.example.com".to_owned(),
                vip: Some("192.0.2.10".parse().unwrap()),
                node: "rack7-a".to_owned(),
                address: "192.0.2.11".parse().unwrap(),
                pod_cidr: "10.244.0.0/16".to_owned(),
                service_cidr: "10.96.0.0/12".to_owned(),
                schedule: true,
            });
            for document in text.split("---\n") {
                serde_yaml::from_str::<serde_json::Value>(document).unwrap();
            }
            insta::assert_snapshot!(format!("kubeadm-{api}{}", if patient { "-patient" } else { "" }), text);
        }
    }

    #[test]
    fn the_encryption_configuration_carries_the_key() {
        let text = encryption(&[7; 32]);
        let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let key = value.pointer("/resources/0/providers/0/secretbox/keys/0/secret").unwrap();
        assert_eq!(key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
        assert_eq!(value.pointer("/resources/0/providers/1/identity").unwrap(), &serde_json::json!({}));
    }
}
