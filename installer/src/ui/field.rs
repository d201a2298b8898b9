//! The things that the focus can be on.

use crate::config::Page;

use super::answers::CertificateMode;

/// What the installer is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Install a site.
    Install,
    /// Look at the host only.
    Check,
}

/// A file that is brought in by its path or by pasting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pem {
    /// The server's certificate and its chain.
    Certificate,
    /// Its private key.
    Key,
    /// The roots.
    Roots,
}

/// A field, a choice or a button; numbers count in the list that the page shows.
#[allow(missing_docs, reason = "each is named like the answer or the deed that it stands for")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    Mode(Mode),
    NoConfigFile,
    ConfigFile(usize),
    Finding(usize),
    SaveReport,
    CheckAgain,
    Disk(usize),
    Encrypt(bool),
    Tpm,
    ShowRecoveryKey,
    Recipients,
    EscrowDirectory,
    UsePassphrase,
    Passphrase,
    PassphraseAgain,
    PlaintextToken,
    NodeName,
    Address(usize),
    OwnNetwork(bool),
    Adapter(usize),
    Bond,
    Vlan,
    Mtu,
    Addresses,
    Gateways,
    NameServers,
    SearchDomains,
    TimeServers,
    SetUpNetwork,
    Fqdn,
    SiteName,
    Vip,
    Certificates(CertificateMode),
    Algorithm,
    Request,
    MakeRequest,
    Certificate,
    Key,
    Roots,
    Paste(Pem),
    Bundle(usize),
    BundlePath,
    Trust,
    Verify,
    CancelVerify,
    PodCidr,
    ServiceCidr,
    Pack(usize),
    Schedule,
    Question(usize),
    Administrator(bool),
    AccountName,
    Password,
    PasswordAgain,
    SshKeys,
    GoTo(Page),
    SaveAnswers,
    Continue,
}

/// Keys of the configuration that a field stands for: their problems are shown under it.
pub fn keys_of(field: Field) -> &'static [&'static str] {
    match field {
        Field::Recipients => &["storage.encryption.escrow-recipients"],
        Field::EscrowDirectory => &["storage.encryption.escrow-directory"],
        Field::Passphrase => &["storage.encryption.passphrase"],
        Field::PlaintextToken => &["storage.encryption.token"],
        Field::NodeName => &["node.name"],
        Field::Vlan => &["network.vlan"],
        Field::Mtu => &["network.mtu"],
        Field::Addresses => &["network.addresses"],
        Field::Gateways => &["network.gateways"],
        Field::NameServers => &["network.name-servers"],
        Field::SearchDomains => &["network.search-domains"],
        Field::TimeServers => &["network.time-servers"],
        Field::Fqdn => &["site.fqdn"],
        Field::SiteName => &["site.name"],
        Field::Vip => &["site.vip"],
        Field::Request => &["certificates.request"],
        Field::Certificate => &["certificates.certificate"],
        Field::Key => &["certificates.key"],
        Field::Roots => &["certificates.roots"],
        Field::BundlePath => &["bundle.path"],
        Field::Trust => &["bundle.trust"],
        Field::PodCidr => &["cluster.pod-cidr"],
        Field::ServiceCidr => &["cluster.service-cidr"],
        Field::Question(_) => &["answers"],
        Field::AccountName => &["administrator.name"],
        Field::SshKeys => &["administrator.ssh-keys"],
        _ => &[],
    }
}

/// The page on which a key of the configuration is asked for.
pub fn page_of(key: &str) -> Page {
    match key.split('.').collect::<Vec<_>>()[..] {
        ["site", ..] => Page::Identity,
        ["node" | "network", ..] => Page::Network,
        ["storage", ..] => Page::Disks,
        ["bundle", ..] => Page::Bundle,
        ["certificates", ..] => Page::Certificates,
        ["cluster" | "answers", ..] => Page::Cluster,
        ["administrator", ..] => Page::Administrator,
        _ => Page::Review,
    }
}

/// The page on which the finding of a check is shown.
pub fn page_of_check(id: &str) -> Page {
    match id {
        "disk.choice" | "disk.in-use" | "disk.medium" | "disk.site" | "disk.fsync" => Page::Disks,
        "net.address" | "net.mtu" | "net.link" | "net.address-conflict" | "host.name" | "time.skew" => Page::Network,
        "dns.forward" | "dns.reverse" | "net.vip-free" => Page::Identity,
        "disk.size" | "bundle.architecture" | "time.sane" => Page::Bundle,
        "net.cidr-overlap" | "net.route" => Page::Cluster,
        _ => Page::Host,
    }
}

/// Name of a page in the trail.
pub fn page_name(page: Page) -> &'static str {
    match page {
        Page::Welcome => "Welcome",
        Page::Host => "Host",
        Page::Disks => "Disks",
        Page::Network => "Network",
        Page::Identity => "Identity",
        Page::Certificates => "Certificates",
        Page::Bundle => "Bundle",
        Page::Cluster => "Cluster",
        Page::Administrator => "Admin",
        Page::Review => "Review",
    }
}
