//! Changes that a browser asks for on behalf of a page of another site are refused: it would add the password that an
//! operator has typed in before, or send from the operator's machine, which may change things without one.
//!
//! A browser says where a request comes from, in headers that no page can set. Programs send neither of them.

use std::net::IpAddr;

use hyper::Uri;
use hyper::header::{HOST, ORIGIN};
use hyper::http::request::Parts;

use super::addresses;
use super::answer::HttpAnswer;
use crate::model::ClusterView;

/// Refuses a request of a foreign page.
pub(super) fn check(head: &Parts) -> Result<(), HttpAnswer> {
    let asked = host_asked(head);
    let is_ours = |origin: &str| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.zip(asked).is_some_and(|(host, asked)| host.eq_ignore_ascii_case(asked))
    };
    let all = |name: &str, is_fine: &dyn Fn(&str) -> bool| {
        head.headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(is_fine))
    };
    if all("sec-fetch-site", &|site| matches!(site, "same-origin" | "none")) && all(ORIGIN.as_str(), &is_ours)
    {
        return Ok(());
    }
    Err(HttpAnswer::text(
        403,
        "Access is denied: a browser sent this for a page of another site (headers Sec-Fetch-Site and Origin). Changes are \
         accepted from this member's own pages and from programs, which send neither header. A proxy between has to pass on \
         the header Host as it is",
    ))
}

/// Refuses a browser that asked for a name which is no member's, where this machine may change things without a
/// password: any site may have given its own name to this address, and its page then counts as one of this host.
pub(super) fn check_name(head: &Parts, view: Option<&ClusterView>) -> Result<(), HttpAnswer> {
    if !head.headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let asked = host_asked(head).unwrap_or_default();
    let host = Uri::try_from(asked).ok().and_then(|uri| Some(uri.host()?.to_owned())).unwrap_or_default();
    let bare = host.trim_matches(['[', ']']);
    let is_known = || view.is_some_and(|view| addresses::hosts(view).contains(bare));
    if bare.parse::<IpAddr>().is_ok() || bare == "localhost" || is_known() {
        return Ok(());
    }
    Err(HttpAnswer::text(
        403,
        "Access is denied: a browser sent this to a name that no member has in etcd, and without restapi.authentication the \
         name could be that of any site. Ask the member by its address, or set restapi.authentication",
    ))
}

/// Host and port that the client asked. With HTTP/2 they are part of the request's target.
fn host_asked(head: &Parts) -> Option<&str> {
    let of_target = head.uri.authority().map(|authority| authority.as_str());
    of_target.or_else(|| head.headers.get(HOST)?.to_str().ok())
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let request = headers
            .iter()
            .fold(Request::post(target), |request, (name, value)| request.header(*name, *value))
            .body(());
        request.expect("a valid request").into_parts().0
    }

    fn outcome(target: &str, headers: &[(&str, &str)]) -> Result<(), u16> {
        check(&head(target, headers)).map_err(|answer| answer.status)
    }

    #[test]
    fn only_requests_of_foreign_pages_are_refused() {
        let host = ("host", "m1.example:8008");
        let cases: [(&[(&str, &str)], bool); 13] = [
            (&[], true),
            (&[host], true),
            (&[host, ("origin", "http://m1.example:8008")], true),
            (&[host, ("origin", "https://M1.example:8008"), ("sec-fetch-site", "same-origin")], true),
            (&[host, ("sec-fetch-site", "none")], true),
            (&[host, ("sec-fetch-site", "cross-site")], false),
            (&[host, ("sec-fetch-site", "same-site")], false),
            (&[host, ("origin", "null")], false),
            (&[host, ("origin", "http://m1.example")], false),
            (&[host, ("origin", "http://m1.example:8008.evil.example")], false),
            (&[host, ("origin", "http://evil.example"), ("sec-fetch-site", "same-origin")], false),
            (&[host, ("origin", "http://m1.example:8008"), ("origin", "http://evil.example")], false),
            (&[("origin", "http://m1.example:8008")], false),
        ];
        for (headers, may) in cases {
            assert_eq!(outcome("/restart", headers).is_ok(), may, "{headers:?}");
        }
        assert_eq!(outcome("/restart", &[("sec-fetch-site", "cross-site")]), Err(403));
    }

    /// A site may give its name to 127.0.0.1.
    #[test]
    fn a_browser_names_a_member() {
        let view = crate::api::tests::view();
        for (host, may) in [
            ("127.0.0.1:8008", true),
            ("[fd00::2]:8008", true),
            ("192.0.2.7", true),
            ("localhost:8008", true),
            ("evil.example:8008", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let of_browser = head("/restart", &[("host", host), ("origin", "http://x")]);
            assert_eq!(check_name(&of_browser, Some(&view)).is_ok(), may, "{host}");
            assert!(check_name(&head("/restart", &[("host", host)]), Some(&view)).is_ok(), "a program");
        }
    }

    #[test]
    fn the_target_of_http_2_names_the_host() {
        let own = [("origin", "https://m1:8008")];
        assert_eq!(outcome("https://m1:8008/restart", &own), Ok(()));
        assert_eq!(outcome("https://m2:8008/restart", &own), Err(403));
    }
}
