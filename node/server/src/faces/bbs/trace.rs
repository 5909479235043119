//! By what a client's request is told in logs, on every node that it concerns.

use axum::http::HeaderMap;

use crate::limits::TRACE_ID_CHARS_MAX;

/// Cloud Foundry's header, else that of B3 (`X-B3-TraceId`, or `b3` in one), else W3C's
/// (`traceparent`: version, trace id, parent, flags). Empty where there is none, or it is none that
/// a log should have.
pub(super) fn id_of(headers: &HeaderMap) -> String {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let of_b3 = || header("b3").and_then(|value| value.split('-').next());
    let of_w3c = || header("traceparent").and_then(|value| value.split('-').nth(1));
    let id = header("x-vcap-request-id").or_else(|| header("x-b3-traceid"));
    let id = id.or_else(of_b3).or_else(of_w3c).unwrap_or_default();
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.len() <= TRACE_ID_CHARS_MAX && id.chars().all(is_fine) {
        id.to_owned()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn id(headers: &[(&'static str, &str)]) -> String {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        id_of(&headers.iter().map(header).collect())
    }

    #[test]
    fn the_first_of_the_headers_that_is_there_counts() {
        assert_eq!(id(&[]), "");
        let vcap = ("x-vcap-request-id", "f6a8b5f8-1cbb-4d7d-8b2c-8d1f6d6a9c3e");
        let w3c = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let b3 = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
        assert_eq!(id(&[w3c]), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(id(&[w3c, b3]), "80f198ee56343ba864fe8b2a57d3eff7");
        assert_eq!(id(&[w3c, ("x-b3-traceid", "463ac35c9f6413ad")]), "463ac35c9f6413ad");
        assert_eq!(id(&[w3c, b3, vcap]), vcap.1);
    }

    #[test]
    fn what_no_log_should_have_is_none() {
        assert_eq!(id(&[("x-vcap-request-id", "a b")]), "");
        assert_eq!(id(&[("x-vcap-request-id", &"a".repeat(TRACE_ID_CHARS_MAX + 1))]), "");
    }
}
