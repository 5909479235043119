//! Which of a route's instances gets a request, and what a client is told when none does.
//!
//! Pure. Source: Gorouter's `route.EndpointIterator`, `handlers` and `errorwriter`.

use std::sync::Arc;

use crate::table::{Endpoint, Pool};

/// The header of a request for one instance.
pub const APP_INSTANCE: &str = "X-CF-App-Instance";
/// The header of a request for one instance or all of one process.
pub const PROCESS_INSTANCE: &str = "X-CF-Process-Instance";
/// The cookie of the instance, beside the app's own.
pub const VCAP_ID: &str = "__VCAP_ID__";
/// The app's cookie that makes a session stick. Gorouter: `sticky_session_cookie_names`.
pub const STICKY: &str = "JSESSIONID";

/// The instances that a request is for, where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub app: String,
    /// All of them, where none is said.
    pub index: Option<u32>,
}

impl Wanted {
    /// `GUID:INDEX`, or `GUID` alone where that will do. Gorouter: `parseAppInstanceHeader` and
    /// `parseProcessInstanceHeader`; but a guid is any name here.
    #[must_use]
    pub fn read(text: &str, needs_index: bool) -> Option<Self> {
        let (app, index) = match text.rsplit_once(':') {
            Some((app, index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                (app, Some(index.parse().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let is_whole = !app.is_empty() && (index.is_some() || !needs_index);
        is_whole.then(|| Self { app: app.to_owned(), index })
    }

    #[must_use]
    pub fn is(&self, endpoint: &Endpoint) -> bool {
        self.app == endpoint.app.as_str() && self.index.is_none_or(|index| index == endpoint.index)
    }
}

/// The instance for the next try: the one that the client sticks to if it is there and was not
/// tried, else the next in turn that was not tried; of those that are wanted.
#[must_use]
pub fn choose<'a>(
    pool: &'a Pool,
    wanted: Option<&Wanted>,
    sticky: Option<&str>,
    tried: &[Arc<Endpoint>],
) -> Option<&'a Arc<Endpoint>> {
    let is_new = |endpoint: &&Arc<Endpoint>| {
        !tried.iter().any(|one| one.address == endpoint.address)
            && wanted.is_none_or(|wanted| wanted.is(endpoint))
    };
    if let Some(guid) = sticky {
        let stuck = pool.endpoints.iter().find(|endpoint| endpoint.instance_guid == guid);
        if let Some(stuck) = stuck.filter(is_new) {
            return Some(stuck);
        }
    }
    let count = pool.endpoints.len();
    if count == 0 {
        return None;
    }
    let first = pool.take_turn();
    (0..count).map(|step| &pool.endpoints[first.wrapping_add(step) % count]).find(is_new)
}

/// The instance that a client sticks to, by its `Cookie` headers: it has to have both cookies.
#[must_use]
pub fn sticky<'a>(cookies: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (mut is_session, mut instance) = (false, None);
    for pair in cookies.flat_map(|header| header.split(';')) {
        match pair.trim().split_once('=') {
            Some((STICKY, _)) => is_session = true,
            Some((VCAP_ID, guid)) if !guid.is_empty() => instance = Some(guid),
            Some(_) | None => {}
        }
    }
    instance.filter(|_| is_session)
}

/// The cookie that goes with an app's answer: `set` are its `Set-Cookie` headers, `stuck` is the
/// instance that the client came for.
///
/// It lives as long as the app's cookie and no wider; where a client came for another instance than
/// the one that answers, it is told the new one.
#[must_use]
pub fn stick<'a>(
    set: impl Iterator<Item = &'a str>,
    stuck: Option<&str>,
    answered: &str,
) -> Option<String> {
    let mut cookie = None;
    for header in set {
        let mut parts = header.split(';').map(str::trim);
        let is_sticky =
            parts.next().and_then(|pair| pair.split_once('=')).is_some_and(|(n, _)| n == STICKY);
        if !is_sticky {
            continue;
        }
        let mut text = format!("{VCAP_ID}={answered}; Path=/; HttpOnly");
        for part in parts {
            let name = part.split('=').next().unwrap_or_default().to_ascii_lowercase();
            let is_kept =
                ["max-age", "expires", "secure", "samesite", "partitioned"].contains(&&*name);
            if is_kept {
                text.push_str("; ");
                text.push_str(part);
            }
        }
        cookie = Some(text);
    }
    let moved = stuck.is_some_and(|stuck| stuck != answered);
    cookie.or_else(|| moved.then(|| format!("{VCAP_ID}={answered}; Path=/; HttpOnly")))
}

/// Why a request is not passed on, in Gorouter's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request names no host, or the client's own address: some load balancers put theirs there.
    EmptyHost,
    /// The header of this name asks for an instance in no way that there is.
    BadInstance {
        header: &'static str,
    },
    /// None of the route's instances is the one that was asked for.
    UnknownInstance {
        host: String,
        wanted: Wanted,
    },
    UnknownRoute {
        host: String,
    },
    NoEndpoints {
        host: String,
    },
    /// Each instance that was tried refused, or broke off before it answered.
    EndpointFailure,
    /// An instance did not answer in time.
    EndpointTimeout,
    HeaderTooLarge,
}

impl Refusal {
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::EmptyHost | Self::BadInstance { .. } | Self::UnknownInstance { .. } => 400,
            Self::UnknownRoute { .. } => 404,
            Self::NoEndpoints { .. } => 503,
            Self::EndpointFailure => 502,
            Self::EndpointTimeout => 504,
            Self::HeaderTooLarge => 431,
        }
    }

    /// The value of `X-Cf-RouterError`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyHost => "empty_host",
            Self::BadInstance { header: APP_INSTANCE } => "invalid_cf_app_instance_header",
            Self::BadInstance { .. } => "invalid_cf_process_instance_header",
            Self::UnknownRoute { .. } | Self::UnknownInstance { .. } => "unknown_route",
            Self::NoEndpoints { .. } => "no_endpoints",
            Self::EndpointFailure | Self::EndpointTimeout => "endpoint_failure",
            Self::HeaderTooLarge => "header_too_large",
        }
    }

    /// The body.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::EmptyHost => "400 Bad Request: Request had empty Host header\n".to_owned(),
            Self::BadInstance { header } => {
                format!("400 Bad Request: Invalid {header} Header\n")
            }
            Self::UnknownInstance { host, wanted: Wanted { app, index } } => {
                let (app, host) = (shown(app), shown(host));
                let index = index.map_or_else(String::new, |index| format!(" ('{index}')"));
                format!(
                    "400 Bad Request: Requested instance{index} with guid ('{app}') does not exist \
                     for route ('{host}')\n"
                )
            }
            Self::UnknownRoute { host } => {
                format!("404 Not Found: Requested route ('{}') does not exist.\n", shown(host))
            }
            Self::NoEndpoints { host } => format!(
                "503 Service Unavailable: Requested route ('{}') has no available endpoints.\n",
                shown(host)
            ),
            Self::EndpointFailure => {
                "502 Bad Gateway: Registered endpoint failed to handle the request.\n".to_owned()
            }
            Self::EndpointTimeout => {
                "504 Gateway Timeout: Registered endpoint failed to handle the request.\n"
                    .to_owned()
            }
            Self::HeaderTooLarge => {
                "431 Request Header Fields Too Large: the request's header is too large\n"
                    .to_owned()
            }
        }
    }
}

/// A host as a client may be shown it: what no host has is left out.
fn shown(host: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || ".-_*:[]".contains(*c);
    host.chars().filter(is_plain).take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: u16) -> Pool {
        let endpoint = |port: u16| Endpoint {
            app: "a".into(),
            index: u32::from(port),
            instance_guid: format!("i{port}"),
            address: format!("10.0.0.1:{port}").parse().unwrap(),
            is_http2: false,
        };
        Pool::new((1..=count).map(endpoint).collect(), 0)
    }

    #[test]
    fn instances_take_turns_and_none_is_tried_twice() {
        let pool = pool(3);
        let guid = |sticky, tried: &[Arc<Endpoint>]| {
            choose(&pool, None, sticky, tried).map(|endpoint| endpoint.instance_guid.clone())
        };
        assert_eq!(guid(None, &[]).as_deref(), Some("i1"));
        assert_eq!(guid(None, &[]).as_deref(), Some("i2"));
        assert_eq!(guid(Some("i1"), &[]).as_deref(), Some("i1"));
        assert_eq!(guid(Some("gone"), &[]).as_deref(), Some("i3"));
        let tried = pool.endpoints[..2].to_vec();
        assert_eq!(guid(Some("i1"), &tried).as_deref(), Some("i3"));
        assert_eq!(guid(None, &pool.endpoints), None);
        assert_eq!(choose(&Pool::default(), None, None, &[]), None);
    }

    #[test]
    fn who_asks_for_an_instance_gets_that_or_none() {
        let pool = pool(3);
        let guid = |wanted: &str, sticky, tried: &[Arc<Endpoint>]| {
            let wanted = Wanted::read(wanted, false);
            choose(&pool, wanted.as_ref(), sticky, tried).map(|one| one.instance_guid.clone())
        };
        for _ in 0..2 {
            assert_eq!(guid("a:2", Some("i1"), &[]).as_deref(), Some("i2"));
        }
        assert_eq!(guid("a:2", None, &pool.endpoints[1..2]), None);
        assert_eq!(guid("a:4", None, &[]), None);
        assert_eq!(guid("b:1", None, &[]), None);
        assert_eq!(guid("a", Some("i3"), &[]).as_deref(), Some("i3"));
    }

    #[test]
    fn an_instance_is_asked_for_by_guid_and_index() {
        let wanted = |app: &str, index| Some(Wanted { app: app.to_owned(), index });
        for (text, with_index, without) in [
            ("web:0", wanted("web", Some(0)), wanted("web", Some(0))),
            ("a:b:12", wanted("a:b", Some(12)), wanted("a:b", Some(12))),
            ("web", None, wanted("web", None)),
            ("", None, None),
            (":0", None, None),
            ("web:", None, None),
            ("web:x", None, None),
            ("web:-1", None, None),
            ("web:99999999999", None, None),
        ] {
            assert_eq!(Wanted::read(text, true), with_index, "{text}");
            assert_eq!(Wanted::read(text, false), without, "{text}");
        }
    }

    #[test]
    fn a_client_sticks_by_both_cookies_only() {
        let of = |text: &'static str| sticky([text].into_iter());
        assert_eq!(of("a=b; JSESSIONID=1; __VCAP_ID__=x"), Some("x"));
        assert_eq!(of("__VCAP_ID__=x"), None);
        assert_eq!(of("JSESSIONID=1"), None);
        assert_eq!(sticky(["JSESSIONID=1", "__VCAP_ID__=x"].into_iter()), Some("x"));
    }

    #[test]
    fn an_answer_sticks_as_long_as_the_apps_cookie() {
        let of = |text: &'static str, stuck| stick([text].into_iter(), stuck, "i1");
        assert_eq!(of("theme=dark", None), None);
        assert_eq!(
            of("JSESSIONID=1; Path=/app; Max-Age=60; Secure; SameSite=Lax", None).as_deref(),
            Some("__VCAP_ID__=i1; Path=/; HttpOnly; Max-Age=60; Secure; SameSite=Lax")
        );
        assert_eq!(of("theme=dark", Some("i1")), None);
        assert_eq!(
            of("theme=dark", Some("i2")).as_deref(),
            Some("__VCAP_ID__=i1; Path=/; HttpOnly")
        );
    }

    #[test]
    fn a_host_is_shown_without_what_could_be_markup() {
        let refusal = Refusal::UnknownRoute { host: "<b>x.example</b>\n".to_owned() };
        assert_eq!(
            refusal.text(),
            "404 Not Found: Requested route ('bx.exampleb') does not exist.\n"
        );
    }
}
