//! Files from the web, named by URL and SHA-256, fetched into the work directory of `create`. TLS always, plain HTTP on
//! loopback only, also where a server redirects to. Invariant: a file has its final name (its digest) only after its
//! digest was right.

use std::fs::{self, File};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, Url};

use super::registry::{ATTEMPTS, CONNECT_TIMEOUT, READ_TIMEOUT, Registry, causes, is_loopback};
use crate::error::Error;
use crate::oci::{Algorithm, Digest, Hasher};

/// How many redirects are followed.
const REDIRECTS: usize = 5;

/// Whether the source of a file is a URL and no path.
pub(crate) fn is_url(source: &Utf8Path) -> bool {
    source.as_str().contains("://")
}

/// What is wrong with the source of a file, if anything.
pub(crate) fn problem(source: &Utf8Path, sha256: Option<&str>) -> Option<String> {
    match (is_url(source), sha256) {
        (false, None) => None,
        (false, Some(_)) => Some(format!("{source} is a path: sha256 goes with a URL")),
        (true, None) => Some(format!("{source} needs its sha256, 64 hexadecimal digits")),
        (true, Some(digest)) => match parse(source.as_str()) {
            Err(why) => Some(format!("{source}: {why}")),
            Ok(_) if wanted(digest).is_none() => Some(format!("{source}: sha256 is not 64 hexadecimal digits")),
            Ok(_) => None,
        },
    }
}

fn wanted(sha256: &str) -> Option<Digest> {
    format!("sha256:{}", sha256.to_ascii_lowercase()).parse().ok()
}

fn parse(source: &str) -> Result<Url, String> {
    let url: Url = source.parse().map_err(|_| "it is not a URL".to_owned())?;
    if url.username() != "" || url.password().is_some() {
        return Err("it holds a user or a password".to_owned());
    }
    if is_allowed(&url) { Ok(url) } else { Err("only https:// is taken; plain HTTP from loopback".to_owned()) }
}

fn is_allowed(url: &Url) -> bool {
    url.scheme() == "https" || url.scheme() == "http" && url.host_str().is_some_and(is_loopback)
}

fn follow(attempt: Attempt) -> reqwest::redirect::Action {
    if attempt.previous().len() > REDIRECTS {
        attempt.error("too many redirects")
    } else if is_allowed(attempt.url()) {
        attempt.follow()
    } else {
        attempt.error("a redirect leads to plain HTTP")
    }
}

/// Why one attempt failed, and whether another one may help.
struct Failure {
    why: String,
    is_final: bool,
}

impl Registry {
    /// Fetches a file that [`problem`] finds nothing against; gives where it lies. `what` names it in errors.
    pub(crate) fn download(
        &mut self,
        what: &str,
        source: &str,
        sha256: &str,
        tick: &mut dyn FnMut(u64, u64),
    ) -> Result<Utf8PathBuf, Error> {
        let fail = |why: String| Error::Download { what: what.to_owned(), url: source.to_owned(), why };
        let url = parse(source).map_err(fail)?;
        let digest = wanted(sha256).ok_or_else(|| fail("its sha256 is not 64 hexadecimal digits".to_owned()))?;
        let path = self.directory.join(digest.hex());
        if path.exists() {
            return Ok(path);
        }
        let client = self.web_client()?;
        let partial = path.with_extension("partial");
        let mut attempt = 1;
        loop {
            let file = File::create(&partial).map_err(|error| Error::io(format!("write {partial}"), error))?;
            let (done, total) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let mut report = || tick(done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
            let fetch = fetch(&client, url.clone(), file, Arc::clone(&done), Arc::clone(&total));
            match self.run(fetch, &mut report)? {
                Ok(found) if found == digest => break,
                Ok(found) => {
                    return Err(fail(format!("its SHA-256 is {}, bundle.yaml wants {}", found.hex(), digest.hex())));
                }
                Err(Failure { why, is_final }) if is_final || attempt == ATTEMPTS => return Err(fail(why)),
                Err(_) => attempt += 1,
            }
        }
        fs::rename(&partial, &path).map_err(|error| Error::io(format!("rename {partial}"), error))?;
        Ok(path)
    }

    fn web_client(&self) -> Result<Client, Error> {
        Self::choose_provider();
        let mut builder = Client::builder()
            .user_agent(concat!("cofferdam/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(Policy::custom(follow));
        for pem in self.authorities()? {
            let certificate =
                Certificate::from_pem(&pem).map_err(|error| super::registry::fail("the CA file", causes(&error)))?;
            builder = builder.add_root_certificate(certificate);
        }
        builder.build().map_err(|error| super::registry::fail("anything", causes(&error)))
    }
}

async fn fetch(
    client: &Client,
    url: Url,
    mut file: File,
    done: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
) -> Result<Digest, Failure> {
    let failure = |error: reqwest::Error| Failure { why: causes(&error), is_final: error.is_redirect() };
    let mut response = client.get(url).send().await.map_err(failure)?;
    let status = response.status();
    if !status.is_success() {
        let why = format!("the server answers {status}");
        return Err(Failure { why, is_final: !status.is_server_error() });
    }
    total.store(response.content_length().unwrap_or(0), Ordering::Relaxed);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        hasher.update(&chunk);
        file.write_all(&chunk).map_err(|error| Failure { why: error.to_string(), is_final: true })?;
        done.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;
    use crate::source::registry::RegistryOptions;

    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    /// A server on loopback that gives each caller the next answer, and closes.
    fn serve(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        format!("http://{address}")
    }

    fn answer(head: &str, body: &str) -> String {
        format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}")
    }

    fn hello(length: usize) -> String {
        answer(&format!("200 OK\r\nContent-Length: {length}"), "hello")
    }

    fn download(answers: Vec<String>, sha256: &str) -> (Result<Utf8PathBuf, Error>, tempfile::TempDir, u64) {
        let directory = tempfile::tempdir().unwrap();
        let folder = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let mut registry = Registry::new(RegistryOptions::default(), folder);
        let url = serve(answers) + "/file";
        let mut most = 0;
        let result = registry.download("file f", &url, sha256, &mut |done, _| most = most.max(done));
        (result, directory, most)
    }

    #[test]
    fn a_file_is_kept_under_its_digest() {
        let (path, _directory, _) = download(vec![hello(5)], &HELLO.to_uppercase());
        let path = path.unwrap();
        assert_eq!(path.file_name(), Some(HELLO));
        assert_eq!(fs::read(path).unwrap(), b"hello");
    }

    #[test]
    fn another_content_is_refused_and_both_digests_are_told() {
        let other = HELLO.replace('2', "3");
        let (error, directory, _) = download(vec![hello(5)], &other);
        let text = error.unwrap_err().to_string();
        assert!(text.contains(HELLO) && text.contains(&other), "{text}");
        assert!(!directory.path().join(&other).exists());
    }

    #[test]
    fn a_torn_answer_is_tried_again() {
        let (path, _directory, _) = download(vec![hello(9), answer("503 Busy", ""), hello(5)], HELLO);
        assert_eq!(fs::read(path.unwrap()).unwrap(), b"hello");
        let (error, ..) = download(vec![hello(9), hello(9), hello(9)], HELLO);
        assert!(error.is_err());
    }

    #[test]
    fn what_is_not_there_is_not_asked_for_again() {
        let (error, ..) = download(vec![answer("404 Not Found", "")], HELLO);
        assert!(error.unwrap_err().to_string().contains("404"));
    }

    #[test]
    fn a_redirect_to_plain_http_elsewhere_is_not_followed() {
        let (error, ..) = download(vec![answer("302 Found\r\nLocation: http://192.0.2.1/file", "")], HELLO);
        let text = error.unwrap_err().to_string();
        assert!(text.contains("plain HTTP"), "{text}");
    }

    #[test]
    fn sources_are_judged_before_anything_is_fetched() {
        for (source, sha256, part) in [
            ("folder/file", None, None),
            ("folder/file", Some(HELLO), Some("goes with a URL")),
            ("https://files.example/a", Some(HELLO), None),
            ("http://127.0.0.1:80/a", Some(HELLO), None),
            ("http://[::1]/a", Some(HELLO), None),
            ("https://files.example/a", None, Some("needs its sha256")),
            ("https://files.example/a", Some("abc"), Some("64 hexadecimal digits")),
            ("http://files.example/a", Some(HELLO), Some("only https://")),
            ("ftp://files.example/a", Some(HELLO), Some("only https://")),
            ("https://user:word@files.example/a", Some(HELLO), Some("a user or a password")),
            ("https://", Some(HELLO), Some("not a URL")),
        ] {
            let found = problem(source.into(), sha256);
            match part {
                None => assert_eq!(found, None, "{source}"),
                Some(part) => assert!(found.as_ref().is_some_and(|found| found.contains(part)), "{source}: {found:?}"),
            }
        }
    }
}
