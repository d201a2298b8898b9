//! Who asks: from the connection, from `Authorization`, and what is answered to somebody who is not yet known.
//!
//! Invariant: a name stands in an [`Asker`] only after it was proven. Called for each request before its handler.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use bundle::oci::RepositoryName;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::json;

use super::Service;
use super::answer;
use super::body::Body;
use super::problem::Problem;
use super::query::Query;
use super::route::Endpoint;
use crate::identity::{Grant, Identity, Permission, Rights, SERVICE, Scope, Verdict, scopes};

/// What a client is asked for that is nobody yet (RFC 7617).
const BASIC: &str = "Basic realm=\"cofferdam registry\", charset=\"UTF-8\"";

/// Who is at the other end of a connection.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// By its client certificate.
    pub(crate) identity: Identity,
}

/// Who asks, and with which token.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    identity: Identity,
    grant: Option<Arc<Grant>>,
}

impl Asker {
    /// Whether the asker may do that: by what he is, and by what his token was given for.
    pub(crate) fn may(&self, rights: &Rights, permission: Permission, repository: Option<&RepositoryName>) -> bool {
        self.grant.as_ref().is_none_or(|grant| grant.covers(permission, repository))
            && rights.allow(&self.identity, permission, repository)
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)
    }
}

impl Service {
    /// Who asks: by token or password when one is given, else by client certificate. The error is the name that was
    /// claimed, and the answer.
    pub(super) async fn identify(&self, peer: &Peer, headers: &HeaderMap) -> Result<Asker, (String, Problem)> {
        let known = |identity| Asker { identity, grant: None };
        let Some(authorization) = headers.get(header::AUTHORIZATION) else { return Ok(known(peer.identity.clone())) };
        if let Some(token) = bearer_token(authorization) {
            let grant = self.tokens.as_ref().and_then(|tokens| tokens.verify(token));
            let grant = grant.ok_or_else(|| ("token".to_owned(), Problem::unauthorized()))?;
            return Ok(Asker { identity: grant.identity().clone(), grant: Some(grant) });
        }
        let Some((user, password)) = basic_credentials(authorization) else {
            return Err(("unreadable".to_owned(), Problem::unauthorized()));
        };
        if user.is_empty() && password.is_empty() {
            // skopeo and podman send this when they were challenged and have no credentials.
            return Ok(known(peer.identity.clone()));
        }
        let verdict = match &self.passwords {
            Some(passwords) => passwords.verify(&user, &password).await,
            None => Verdict::Wrong,
        };
        let claimed = || user.chars().filter(|letter| !letter.is_control()).take(64).collect();
        match verdict {
            Verdict::Right => Ok(known(Identity::User(user))),
            Verdict::Wrong => Err((claimed(), Problem::unauthorized())),
            Verdict::Busy => Err((claimed(), Problem::too_many_attempts())),
        }
    }

    /// Why the asker may not do that; nothing when he may.
    pub(super) fn refusal(&self, asker: &Asker, endpoint: &Endpoint, headers: &HeaderMap) -> Option<Problem> {
        let rights = self.rights();
        let (permission, repository) = (endpoint.permission(), endpoint.repository());
        if asker.may(&rights, permission, repository) {
            return None;
        }
        let lacks_scope = asker.grant.as_ref().is_some_and(|grant| !grant.covers(permission, repository));
        if lacks_scope {
            return Some(self.challenged(Problem::unauthorized(), headers, endpoint, Some("insufficient_scope")));
        }
        if asker.identity == Identity::Anonymous {
            return Some(self.challenged(Problem::unauthorized(), headers, endpoint, None));
        }
        Some(Problem::denied())
    }

    /// A 401 with what it takes to be known: where to get a token, when there are tokens, and that a password will do.
    pub(super) fn challenged(
        &self,
        problem: Problem,
        headers: &HeaderMap,
        endpoint: &Endpoint,
        error: Option<&str>,
    ) -> Problem {
        if problem.status != http::StatusCode::UNAUTHORIZED {
            return problem;
        }
        let problem = match self.bearer_challenge(headers, endpoint, error) {
            Some(value) => problem.with_header(header::WWW_AUTHENTICATE, value),
            None => problem,
        };
        problem.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(BASIC))
    }

    fn bearer_challenge(&self, headers: &HeaderMap, endpoint: &Endpoint, error: Option<&str>) -> Option<HeaderValue> {
        if self.tokens.is_none() || *endpoint == Endpoint::Token {
            return None;
        }
        let host = headers.get(header::HOST)?.to_str().ok()?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
        if !host.bytes().all(is_host) {
            return None;
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut text = format!("Bearer realm=\"{scheme}://{host}/token\",service=\"{SERVICE}\"");
        if let Some(scope) = Scope::needed(endpoint.permission(), endpoint.repository()) {
            text.push_str(&format!(",scope=\"{scope}\""));
        }
        if let Some(error) = error {
            text.push_str(&format!(",error=\"{error}\""));
        }
        HeaderValue::from_str(&text).ok()
    }

    /// `GET /v2/`.
    pub(super) fn base(&self, asker: &Asker, headers: &HeaderMap) -> Response<Body> {
        let mut response = answer::json(&json!({}));
        if asker.identity == Identity::Anonymous && self.passwords.is_some() {
            // Clients that may read without a name look here for how to give one when they want to write.
            if let Some(value) = self.bearer_challenge(headers, &Endpoint::Base, None) {
                response.headers_mut().append(header::WWW_AUTHENTICATE, value);
            }
            response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(BASIC));
        }
        response
    }

    /// `GET /token`: for each scope that is asked for, a token with what of it the asker may do.
    pub(super) fn token(&self, asker: &Asker, query: &Query, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
        let Some(tokens) = &self.tokens else { return Err(Problem::no_such_page()) };
        if query.service.as_deref().is_some_and(|service| service != SERVICE) {
            return Err(Problem::bad_request("this is not the service that the token is asked for"));
        }
        let rights = self.rights();
        if !asker.may(&rights, Permission::Enter, None) {
            let problem =
                if asker.identity == Identity::Anonymous { Problem::unauthorized() } else { Problem::denied() };
            return Err(self.challenged(problem, headers, &Endpoint::Token, None));
        }
        let granted = scopes(&query.scopes).into_iter().map(|scope| {
            let repository = scope.name.parse::<RepositoryName>().ok().filter(|_| scope.kind == "repository");
            let actions: Vec<_> = scope
                .permissions()
                .filter(|(_, permission)| asker.may(&rights, *permission, repository.as_ref()))
                .map(|(action, _)| action.to_owned())
                .collect();
            Scope { actions, ..scope }
        });
        let token = tokens.issue(asker.identity.clone(), granted.collect())?;
        let mut response = answer::json(&json!({
            "token": token,
            "access_token": token,
            "expires_in": tokens.lifetime().as_secs(),
        }));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

/// The token of an `Authorization: Bearer` header (RFC 6750).
fn bearer_token(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Name and password of an `Authorization: Basic` header (RFC 7617).
pub(crate) fn basic_credentials(header: &HeaderValue) -> Option<(String, zeroize::Zeroizing<String>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = zeroize::Zeroizing::new(base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), zeroize::Zeroizing::new(password.to_owned())))
}
