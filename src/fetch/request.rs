//! The request of one hop: which fields go out.

use crate::error::{PageCode, PageError, Stage};
use crate::fetch::decode::ACCEPT_ENCODING;
use crate::fetch::redirect::Redirects;
use crate::fetch::target::Target;
use crate::fetch::{FetchConfig, FetchRequest, Kind, field};
use crate::proto::h1::{write_get, write_post};

/// How pages are asked for: HTML first, anything rather than a refusal.
const ACCEPT_PAGE: &str =
    "text/html,application/xhtml+xml,application/xml;q=0.9,text/plain;q=0.8,*/*;q=0.1";
/// How a robots.txt is asked for (RFC 9309 §2.3).
const ACCEPT_ROBOTS: &str = "text/plain,*/*;q=0.1";

/// How a sitemap is asked for.
const ACCEPT_FILE: &str = "application/xml,text/xml,*/*;q=0.1";
/// How a service is called.
const ACCEPT_CALL: &str = "application/json";

/// The fields of a request, beside those that say where it goes.
pub(crate) type RequestFields<'r> = Vec<(&'r str, &'r [u8])>;

/// What a hop sends beside its target.
pub(crate) struct Sent<'r> {
    pub(crate) fields: RequestFields<'r>,
    /// The body of a `POST`; none for a `GET`.
    pub(crate) post: Option<&'r [u8]>,
}

/// The fields of a hop: our own, unless the client gave others of the same name, and the client's.
pub(crate) fn fields<'r>(
    config: &'r FetchConfig,
    request: &'r FetchRequest<'_>,
    kind: Kind,
    target: &Target,
    redirects: &Redirects,
) -> Result<RequestFields<'r>, PageError> {
    let refused = |name: &str| unsendable(&format!("the request field {name:?} cannot be sent"));
    field::check_all(request.headers)
        .map_err(|(at, _)| refused(request.headers.get(at).map_or("headers", |(name, _)| name)))?;
    let user_agent = request.user_agent.unwrap_or(&config.user_agent);
    field::check("user-agent", user_agent).map_err(|_| refused("user-agent"))?;
    let language = config.accept_language.as_deref();
    let accept = match kind {
        Kind::Page => ACCEPT_PAGE,
        Kind::Robots => ACCEPT_ROBOTS,
        Kind::File => ACCEPT_FILE,
        Kind::Call => ACCEPT_CALL,
    };
    let own = [
        Some(("User-Agent", user_agent)),
        Some(("Accept", accept)),
        language.map(|language| ("Accept-Language", language)),
        Some(("Accept-Encoding", ACCEPT_ENCODING)),
        request.post.map(|_| ("Content-Type", "application/json")),
    ];
    let given = |name: &str| request.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let own = own.into_iter().flatten().filter(|(name, _)| !given(name));
    let conditions = match kind {
        Kind::Page => request.conditions(target),
        Kind::Robots | Kind::File | Kind::Call => [None, None],
    };
    let theirs = request.headers.iter().filter(|(name, _)| redirects.may_send(name));
    Ok(own
        .chain(conditions.into_iter().flatten())
        .map(|(name, value)| (name, value.as_bytes()))
        .chain(theirs.map(|(name, value)| (name.as_str(), value.as_bytes())))
        .collect())
}

/// An HTTP/1.1 request. To a proxy that forwards it, it names the whole URL (RFC 9112 §3.2.2) and
/// brings what lets us use the proxy.
pub(crate) fn http1(
    target: &Target,
    sent: &Sent<'_>,
    forwarded: Option<&ForwardedBy>,
) -> Result<Vec<u8>, PageError> {
    let mut all = sent.fields.clone();
    let request_target = match forwarded {
        None => target.path_and_query(),
        Some(ForwardedBy { authorization }) => {
            if let Some(authorization) = authorization {
                all.push(("Proxy-Authorization", authorization.as_bytes()));
            }
            target.as_str()
        }
    };
    let mut bytes = Vec::with_capacity(512);
    let host = target.host_field();
    match sent.post {
        None => write_get(&mut bytes, request_target, &host, &all),
        Some(body) => write_post(&mut bytes, request_target, &host, &all, body),
    }
    .map_err(|_| unsendable("the request cannot be written"))?;
    Ok(bytes)
}

/// A proxy that forwards requests itself.
#[derive(Debug, Clone)]
pub(crate) struct ForwardedBy {
    /// The value of `Proxy-Authorization`, if it wants one.
    pub(crate) authorization: Option<String>,
}

fn unsendable(message: &str) -> PageError {
    PageError::new(PageCode::HttpMalformed, Stage::Ttfb, message)
}
