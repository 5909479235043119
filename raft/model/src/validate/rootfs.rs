//! Root file systems: an URL with a scheme, as Go's `url.Parse` reads it (net/url of Go 1.27), for
//! that is what Diego asks.

use std::net::Ipv6Addr;

pub(super) fn is_url(text: &str) -> bool {
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return false;
    }
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    is_scheme(scheme) && is_escaped(fragment) && is_rest(rest)
}

/// RFC 3986 section 3.1: a letter, then letters, digits, `+`, `-` and `.`.
fn is_scheme(scheme: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(is_legal)
}

/// What follows the scheme: a query is not looked at, nor is what does not begin with a slash.
fn is_rest(rest: &str) -> bool {
    let rest = rest.split('?').next().unwrap_or_default();
    match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            is_authority(authority) && is_escaped(path)
        }
        None => !rest.starts_with('/') || is_escaped(rest),
    }
}

fn is_authority(authority: &str) -> bool {
    let Some((user, host)) = authority.rsplit_once('@') else { return is_host(authority) };
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
    user.bytes().all(is_legal) && is_escaped(user) && is_host(host)
}

fn is_host(host: &str) -> bool {
    let Some(literal) = host.strip_prefix('[') else {
        let port = host.rfind(':').map_or("", |at| &host[at..]);
        return !host.contains('[') && is_port(port) && is_name(host);
    };
    let Some((literal, port)) = literal.rsplit_once(']') else { return false };
    let (address, zone) = literal.split_once("%25").unwrap_or((literal, "zone"));
    address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty() && is_name(zone) && is_port(port)
}

/// Nothing, or a colon and digits, even none.
fn is_port(port: &str) -> bool {
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    port.is_empty() || port.strip_prefix(':').is_some_and(is_number)
}

/// RFC 3986 section 3.2.2, and what Go lets pass. Only bytes that are not ASCII, and `%`, may be
/// escaped here.
fn is_name(name: &str) -> bool {
    let is_legal = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || !byte.is_ascii()
            || b"-._~!$&'()*+,;=:[]<>\"%".contains(&byte)
    };
    let is_ascii = |after: &str| after.starts_with(|first: char| ('0'..='7').contains(&first));
    let is_needed = |after: &str| !is_ascii(after) || after.starts_with("25");
    name.bytes().all(is_legal) && is_escaped(name) && name.split('%').skip(1).all(is_needed)
}

/// Every `%` has two hexadecimal digits.
fn is_escaped(text: &str) -> bool {
    let is_byte = |after: &str| {
        let digits = after.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    };
    text.split('%').skip(1).all(is_byte)
}
