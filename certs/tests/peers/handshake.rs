//! Real TLS handshakes between OpenSSL's server and client, on loopback, with what the site's authority issued.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use certs::{CertificateProfile, KeyAlgorithm, PrivateKey, ServerNames, SiteAuthority, Validity};

use crate::bench::{Bench, FQDN, now};

/// `openssl s_server` on a port that the system chose; ends with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(bench: &Bench, arguments: &str) -> Self {
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www"])
            .args(arguments.split_whitespace())
            .current_dir(bench.path("."))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is needed for this test (apt-get install openssl)");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned)).expect("a port");
        let port = address.rsplit(':').next().unwrap().trim().parse().unwrap();
        // Somebody has to go on reading, else the server stands still on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, port }
    }

    fn connect(&self, bench: &Bench, arguments: &str) -> (bool, String) {
        let port = self.port;
        bench.try_openssl(&format!("s_client -connect 127.0.0.1:{port} -verify_return_error -brief {arguments}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn issue(bench: &Bench, authority: &SiteAuthority, algorithm: KeyAlgorithm, name: &str, profile: &CertificateProfile) {
    let key = PrivateKey::generate(algorithm).unwrap();
    let issued = authority.issue(profile, &key, Validity::LEAF, now()).unwrap();
    bench.write(&format!("{name}.pem"), issued.to_pem());
    bench.write(&format!("{name}.key"), key.to_pem().as_bytes());
}

#[test]
fn server_and_client_certificates_of_each_kind() {
    let bench = Bench::new();
    let stranger = SiteAuthority::generate("stranger", KeyAlgorithm::EcdsaP256, Validity::LEAF, now()).unwrap();
    bench.write("stranger-ca.pem", stranger.certificate_pem());
    let node = CertificateProfile::Node("worker-1".parse().unwrap());
    issue(&bench, &stranger, KeyAlgorithm::EcdsaP256, "stranger", &node);
    let server =
        CertificateProfile::Server(ServerNames::new(FQDN.parse().unwrap()).with_address([127, 0, 0, 1].into()));

    for algorithm in KeyAlgorithm::ALL {
        let authority = SiteAuthority::generate("site", algorithm, Validity::AUTHORITY, now()).unwrap();
        bench.write("ca.pem", authority.certificate_pem());
        issue(&bench, &authority, algorithm, "server", &server);
        issue(&bench, &authority, algorithm, "node", &node);

        let open = Server::start(&bench, "-cert server.pem -key server.key");
        let names = "-CAfile ca.pem -verify_hostname mgmt.example.org -servername mgmt.example.org";
        let table = [
            (names, true),
            ("-CAfile ca.pem -verify_ip 127.0.0.1", true),
            ("-CAfile ca.pem -verify_hostname mgmt.example.org -tls1_2", true),
            ("-CAfile ca.pem -verify_hostname other.example.org", false),
            ("-CAfile stranger-ca.pem -verify_hostname mgmt.example.org", false),
        ];
        for (arguments, good) in table {
            let (well, text) = open.connect(&bench, arguments);
            assert_eq!(well, good, "{algorithm} {arguments}\n{text}");
        }
        drop(open);

        // TLS 1.2, because there a refused client hears of it within the handshake.
        let closed =
            Server::start(&bench, "-cert server.pem -key server.key -CAfile ca.pem -Verify 1 -verify_return_error");
        let table = [
            ("-cert node.pem -key node.key", true),
            ("", false),
            ("-cert stranger.pem -key stranger.key", false),
            ("-cert server.pem -key server.key", false),
        ];
        for (arguments, good) in table {
            let (well, text) = closed.connect(&bench, &format!("{names} -tls1_2 {arguments}"));
            assert_eq!(well, good, "{algorithm} client {arguments}\n{text}");
        }
    }
}
