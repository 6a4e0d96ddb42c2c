//! What is a URL that webhooks can go to. Pure.
//!
//! Where it leads is not judged, for a receiver may well be in the same network: only an admin can set it, redirects are not
//! followed, and of an answer nothing is shown but its status.

use actix_web::http::Uri;

/// What is wrong with it, if anything is.
pub(super) fn complaint(url: &str) -> Option<&'static str> {
    let Ok(parsed) = url.parse::<Uri>() else { return Some("is no URL") };
    let Some(authority) = parsed.authority().filter(|_| matches!(parsed.scheme_str(), Some("http" | "https"))) else {
        return Some("must begin with http:// or https://");
    };
    if authority.host().is_empty() {
        return Some("names no host");
    }
    if authority.as_str().contains('@') {
        return Some("can't hold a user or a password, which everybody who reads it would see: webhooks are signed");
    }
    // Uri takes any number of digits, and drops what follows a '#'.
    if authority.port_u16().is_none()
        && authority.as_str().rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'))
    {
        return Some("has a port that is none");
    }
    url.contains('#').then_some("can't hold a fragment, which is never sent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_http_are_taken() {
        for good in [
            "https://hooks.example.com/x?y=z",
            "http://127.0.0.1:8080",
            "http://[::1]/x",
            "http://[::1]:80/x",
            "http://receiver/",
        ] {
            assert_eq!(complaint(good), None, "{good}");
        }
        for bad in [
            "",
            "x",
            "/x",
            "ftp://example.com/",
            "file:///etc/passwd",
            "https://",
            "https:///x",
            "https://u:p@example.com/",
            "https://example.com:99999/",
            "https://example.com:/",
            "https://example.com/#x",
            "https://exa mple.com/",
        ] {
            assert!(complaint(bad).is_some(), "{bad}");
        }
    }
}
