//! `manifest.yml`: apps as Cloud Foundry's users write them down, the parts that Docker apps have.
//!
//! Source: Cloud Foundry's "App manifest attribute reference". A key that is not in here is
//! refused, with its line: what is quietly left out is found in production.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The file that `push` looks for where no image is given.
pub(crate) const FILE: &str = "manifest.yml";
/// Longest manifest, in bytes.
const BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// Cloud Foundry has only had 1.
    #[serde(default)]
    version: Option<u32>,
    applications: Vec<Application>,
}

/// One app. What is absent is the command line's, or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Application {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) docker: Option<Docker>,
    #[serde(default)]
    pub(crate) instances: Option<u32>,
    #[serde(default)]
    pub(crate) memory: Option<String>,
    #[serde(default, rename = "disk_quota", alias = "disk-quota")]
    pub(crate) disk_quota: Option<String>,
    #[serde(default)]
    pub(crate) command: Option<String>,
    #[serde(default)]
    pub(crate) env: Variables,
    #[serde(default)]
    pub(crate) routes: Vec<RouteEntry>,
    #[serde(default)]
    pub(crate) no_route: bool,
    #[serde(default)]
    pub(crate) default_route: bool,
    #[serde(default)]
    pub(crate) health_check_type: Option<String>,
    #[serde(default)]
    pub(crate) health_check_http_endpoint: Option<String>,
    /// Seconds that one check may take.
    #[serde(default)]
    pub(crate) health_check_invocation_timeout: Option<u32>,
    /// Seconds between two checks.
    #[serde(default)]
    pub(crate) health_check_interval: Option<u32>,
    /// Seconds until it is healthy.
    #[serde(default)]
    pub(crate) timeout: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Docker {
    pub(crate) image: String,
    /// Its password is in `CF_DOCKER_PASSWORD`.
    #[serde(default)]
    pub(crate) username: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteEntry {
    pub(crate) route: String,
    /// `http1` or `http2`.
    #[serde(default)]
    pub(crate) protocol: Option<String>,
}

/// Names and values in the file's order. Numbers and truth values are their text, as in Cloud
/// Foundry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables(pub(crate) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Variables;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names with a value each")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Variables, M::Error> {
                let mut variables = Vec::new();
                while let Some(entry) = map.next_entry::<String, String>()? {
                    variables.push(entry);
                }
                Ok(Variables(variables))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// The apps of a manifest; a directory means the file in it.
///
/// # Errors
///
/// Says which file, and where in it.
pub(crate) fn read(path: &Path) -> Result<Vec<Application>, String> {
    let file: PathBuf = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
    let name = file.display();
    let size = std::fs::metadata(&file).map_err(|error| format!("{name}: {error}"))?.len();
    if size > BYTES_MAX {
        return Err(format!("{name}: it is longer than {BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{name}: {error}"))?;
    parse(&text).map_err(|error| format!("{name}: {error}"))
}

fn parse(text: &str) -> Result<Vec<Application>, String> {
    let manifest: Manifest = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if manifest.version.is_some_and(|version| version != 1) {
        return Err("version: there is only 1".to_owned());
    }
    if manifest.applications.is_empty() {
        return Err("applications: there are none".to_owned());
    }
    for (at, app) in manifest.applications.iter().enumerate() {
        if manifest.applications[..at].iter().any(|other| other.name == app.name) {
            return Err(format!("applications: there are two of the name {}", app.name));
        }
    }
    Ok(manifest.applications)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_are_read_with_what_they_share() {
        let apps = parse(
            "---\nversion: 1\napplications:\n- name: web\n  docker: &image {image: me/web}\n  \
             instances: 2\n  memory: 128M\n  disk_quota: 1G\n  env:\n    ZED: 1\n    ABLE: true\n    \
             GREETING: hi there\n  routes:\n  - route: web.example.com/api\n    protocol: http2\n  \
             health-check-type: http\n  health-check-http-endpoint: /ready\n  timeout: 90\n\
             - name: worker\n  docker: *image\n  no-route: true\n  command: exec worker\n",
        )
        .unwrap();
        let [web, worker] = &apps[..] else { panic!("two") };
        let env: Vec<_> = web.env.0.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(env, ["ZED=1", "ABLE=true", "GREETING=hi there"]);
        assert_eq!((web.instances, web.timeout), (Some(2), Some(90)));
        assert_eq!(web.disk_quota.as_deref(), Some("1G"));
        assert_eq!(web.routes[0].protocol.as_deref(), Some("http2"));
        assert_eq!(web.health_check_http_endpoint.as_deref(), Some("/ready"));
        assert_eq!(worker.docker.as_ref().unwrap().image, "me/web");
        assert!(worker.no_route);
    }

    #[test]
    fn a_key_that_is_unknown_is_named_with_its_line() {
        let wrong = |text: &str| parse(text).unwrap_err();
        let error = wrong("applications:\n- name: web\n  buildpacks: [x]\n");
        assert!(error.contains("buildpacks") && error.contains("line 3"), "{error}");
        let error = wrong("applications:\n- name: web\n  docker:\n    image: x\n    tag: y\n");
        assert!(error.contains("tag") && error.contains("line 5"), "{error}");
        assert!(wrong("apps: []\n").contains("apps"));
        assert!(wrong("applications: []\n").contains("there are none"));
        let error = wrong("applications:\n- name: web\n- name: web\n");
        assert!(error.contains("two of the name web"), "{error}");
        assert!(wrong("applications:\n- name: web\n  instances: -1\n").contains("line 3"));
        assert!(wrong("version: 2\napplications:\n- name: a\n").contains("only 1"));
    }
}
