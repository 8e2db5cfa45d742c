//! A URL as Go reads it, as far as the checks of webhooks look at it.

use pintle_schema::quote::quoted;

/// The parts of a URL.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Url<'a> {
    pub scheme: String,
    pub user: Option<&'a str>,
    pub host: &'a str,
    pub query: &'a str,
    pub fragment: &'a str,
}

/// Reads a URL.
///
/// # Errors
/// What is wrong, in Go's words.
pub(super) fn parse(text: &str) -> Result<Url<'_>, String> {
    read(text).map_err(|why| format!("parse {}: {why}", quoted(text)))
}

fn read(text: &str) -> Result<Url<'_>, String> {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    if rest.bytes().any(|b| b < b' ' || b == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let (scheme, rest) = scheme(rest)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url { scheme: scheme.to_ascii_lowercase(), query, fragment, ..Url::default() };
    if !rest.starts_with('/') {
        if url.scheme.is_empty() && rest.split('/').next().is_some_and(|first| first.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
        return Ok(url);
    }
    let authority = rest.strip_prefix("//").filter(|_| !url.scheme.is_empty() || !rest.starts_with("///"));
    if let Some(rest) = authority {
        let authority = rest.split('/').next().unwrap_or("");
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
        check_host(host)?;
        (url.user, url.host) = (user, host);
    }
    Ok(url)
}

fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((&text[..i], &text[i + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if host.starts_with('[') {
        let Some(end) = host.rfind(']') else { return Err("missing ']' in host".to_owned()) };
        &host[end + 1..]
    } else {
        host.rfind(':').map_or("", |colon| &host[colon..])
    };
    let good = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(good) {
        return Err(format!("invalid port {} after host", quoted(port)));
    }
    let odd = |c: &char| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.~!$&'()*+,;=:[]<>\"%".contains(*c);
    match host.chars().find(odd) {
        Some(c) => Err(format!("invalid character {} in host name", quoted(&c.to_string()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = parse("HTTPS://u:p@a.b:8443/x/y?q=1#f").unwrap();
        let expect =
            Url { scheme: "https".to_owned(), user: Some("u:p"), host: "a.b:8443", query: "q=1", fragment: "f" };
        assert_eq!(url, expect);
        for (text, scheme, host) in [
            ("", "", ""),
            ("https://", "https", ""),
            ("a.b/x", "", ""),
            ("a.b:443/x", "a.b", ""),
            ("https://[::1]:80", "https", "[::1]:80"),
            ("/x", "", ""),
        ] {
            let url = parse(text).unwrap();
            assert_eq!((url.scheme.as_str(), url.host), (scheme, host), "{text}");
        }
        for (text, why) in [
            ("1.2.3.4:80", "parse \"1.2.3.4:80\": first path segment in URL cannot contain colon"),
            (":x", "parse \":x\": missing protocol scheme"),
            ("https://[::1", "parse \"https://[::1\": missing ']' in host"),
            ("https://a:x/", "parse \"https://a:x/\": invalid port \":x\" after host"),
            ("https://a b/", "parse \"https://a b/\": invalid character \" \" in host name"),
            ("https://a\n", "parse \"https://a\\n\": net/url: invalid control character in URL"),
        ] {
            assert_eq!(parse(text).unwrap_err(), why, "{text}");
        }
    }
}
